//! `/v1/subscriptions`.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use broker::{QueueCounts, Removal, Revised};
use model::{
    Entry, GivenUp, Lifecycle, QueueLimits, QueueUse, RealmTopic, Selection, Subscription, SubscriptionName,
    WhenFull,
};
use serde::Serialize;

use crate::{
    app::{App, Shared},
    auth::{Caller, Role},
    body::{JsonBody, LARGEST_BODY},
    change, dead_letters,
    error::{ApiError, WRONG_CREDENTIALS, json, null},
    prefill::PrefillView,
    registration,
    request::{self, Change},
};

/// A subscription as the API shows it: the four fields of the former service first.
#[derive(Serialize)]
pub(crate) struct SubscriptionView<'a> {
    name: &'a SubscriptionName,
    realms_topics: &'a [RealmTopic],
    request_prefill: bool,
    prefill_queue_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<&'a Selection>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    track: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill: Option<PrefillView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueView<'a>>,
}

/// What waits in a queue, its limits, and what became of it at them.
#[derive(Serialize)]
struct QueueView<'a> {
    prefill: u64,
    live: u64,
    dead_letters: u64,
    /// Most messages of each kind.
    limit: u64,
    full: bool,
    bytes: u64,
    limit_bytes: Option<u64>,
    /// Seconds that a live message waits at most.
    limit_age: Option<f64>,
    when_full: WhenFull,
    /// Live messages that were removed by age.
    swept: u64,
    given_up: Option<&'a GivenUp>,
}

impl<'a> QueueView<'a> {
    /// `None`: there is no queue, and none was given up.
    fn new(
        subscription: &'a Subscription,
        counts: Option<QueueCounts>,
        dead_letters: u64,
        limits: &QueueLimits,
    ) -> Option<Self> {
        let given_up = subscription.given_up.as_ref();
        // What is left of one that was given up is not delivered any more.
        let counts = if given_up.is_some() { QueueCounts::default() } else { counts? };
        let held = QueueUse::from(counts);
        Some(Self {
            prefill: held.prefill,
            live: held.live,
            dead_letters,
            limit: limits.messages_of(&held),
            full: limits.is_full(&held),
            bytes: held.bytes,
            limit_bytes: limits.bytes,
            limit_age: limits.age.map(|age| age.as_secs_f64()),
            when_full: limits.when_full,
            swept: subscription.swept,
            given_up,
        })
    }
}

impl<'a> SubscriptionView<'a> {
    fn brief(subscription: &'a Subscription) -> Self {
        Self::new(subscription, None, None)
    }

    fn new(
        subscription: &'a Subscription,
        prefill: Option<PrefillView<'a>>,
        queue: Option<QueueView<'a>>,
    ) -> Self {
        Self {
            name: &subscription.name,
            realms_topics: &subscription.realms_topics,
            request_prefill: subscription.request_prefill,
            prefill_queue_status: prefill.as_ref().map_or(subscription.prefill.state.as_str(), |p| p.state),
            selection: subscription.selection.as_ref(),
            track: subscription.track,
            prefill,
            queue,
        }
    }
}

async fn shown(app: &App, entry: &Revised<Subscription>, caller: Caller) -> Result<Response, ApiError> {
    let subscription = &entry.value;
    let details = app.details(entry).await?.ok_or_else(|| gone(subscription.name.as_str(), caller))?;
    let dead_letters = dead_letters::current(app, subscription).await?.len() as u64;
    let queue = QueueView::new(subscription, details.queue, dead_letters, &app.config.limits);
    let prefill = PrefillView::new(subscription, &details);
    Ok(json(StatusCode::OK, &SubscriptionView::new(subscription, Some(prefill), queue)))
}

pub(crate) async fn create(State(app): Shared, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let body = JsonBody::read(&headers, body, LARGEST_BODY).await?;
    app.auth.role(&headers, Role::Admin)?;
    let (registration, password) = request::registration(&body)?;
    // A client that goes away does not stop a registration half-way.
    let status = tokio::spawn(async move { registration::register(&app, registration, password).await });
    let stopped = |e: tokio::task::JoinError| ApiError::Unavailable {
        detail: "The registration broke off; send it again",
        cause: e.to_string(),
    };
    Ok(null(status.await.map_err(stopped)??))
}

pub(crate) async fn list(State(app): Shared, headers: HeaderMap) -> Result<Response, ApiError> {
    app.auth.role(&headers, Role::Admin)?;
    let entries = app.broker.registry().list().await?;
    let subscriptions: Vec<SubscriptionView<'_>> = entries
        .iter()
        .filter_map(|(_, entry)| match &entry.value {
            Entry::Subscription(s) if s.lifecycle == Lifecycle::Ready => Some(SubscriptionView::brief(s)),
            _ => None,
        })
        .collect();
    Ok(json(StatusCode::OK, &subscriptions))
}

pub(crate) async fn get(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = app.auth.admin_or_subscriber(&headers, &name).await?;
    let entry = existing(&app, &name, caller).await?;
    shown(&app, &entry, caller).await
}

/// Changes topics, password, or both. Topics are the admin's to choose; the password is also the subscriber's own.
pub(crate) async fn change(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = JsonBody::read(&headers, body, LARGEST_BODY).await?;
    let caller = app.auth.admin_or_subscriber(&headers, &name).await?;
    let Change { realms_topics, password, prefill } = request::change(&body)?;
    if realms_topics.is_some() && caller == Caller::Subscriber {
        return Err(WRONG_CREDENTIALS);
    }
    let mut entry = existing(&app, &name, caller).await?;
    if realms_topics.is_some() && entry.value.awaits_prefill() {
        return Err(ApiError::Conflict(format!(
            "A prefill of {name} is under way with the former topics: wait until it has ended, or cancel it \
             (DELETE /v1/subscriptions/{name}/prefill)"
        )));
    }
    if realms_topics.is_some() || prefill {
        let changed = |s: &Subscription| {
            // Read again from the leader: a prefill may have begun meanwhile.
            let topics = realms_topics.as_ref().filter(|_| !s.awaits_prefill());
            let with_topics = topics.and_then(|topics| s.with_topics(topics));
            let base = with_topics.as_ref().unwrap_or(s);
            let again = if prefill { base.with_prefill_again(registration::now()) } else { None };
            again.or(with_topics)
        };
        (_, entry) = change::apply(&app, entry.value, caller, changed).await?;
        if realms_topics.as_ref().is_some_and(|topics| *topics != entry.value.realms_topics) {
            return Err(ApiError::Conflict(format!(
                "The topics of {name} are being changed by others; try again"
            )));
        }
    }
    if let Some(password) = password {
        let Subscription { name, incarnation, .. } = &entry.value;
        let hash = app.auth.hash(&password).await?;
        app.broker.credentials().put(name, *incarnation, &hash).await?;
        tracing::info!(subscription = %name, %incarnation, "its password was changed");
    }
    shown(&app, &entry, caller).await
}

pub(crate) async fn delete(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = app.auth.admin_or_subscriber(&headers, &name).await?;
    // Also one whose removal died half-way: it is finished.
    let entry = app.find(&name).await?.ok_or_else(|| gone(&name, caller))?;
    let Subscription { name: known, incarnation, .. } = entry.value;
    match app.broker.remove_subscription(&known, incarnation).await? {
        Removal::Removed => {
            tracing::info!(subscription = %known, %incarnation, "removed");
            Ok(null(StatusCode::OK))
        }
        Removal::Gone => Err(gone(&name, caller)),
    }
}

/// The subscription, as the leader knows it.
pub(crate) async fn existing(
    app: &App,
    name: &str,
    caller: Caller,
) -> Result<Revised<Subscription>, ApiError> {
    let entry = app.find(name).await?;
    entry.filter(|e| e.value.lifecycle != Lifecycle::Deleting).ok_or_else(|| gone(name, caller))
}

/// 404; but a subscription that is gone can't log in any more, whatever a replica still remembers.
pub(crate) fn gone(name: &str, caller: Caller) -> ApiError {
    match caller {
        Caller::Role => not_found(name),
        Caller::Subscriber => WRONG_CREDENTIALS,
    }
}

fn not_found(name: &str) -> ApiError {
    ApiError::NotFound(format!("Subscription not found: '{name}'"))
}
