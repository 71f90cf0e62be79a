//! `/v1/subscriptions`.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use broker::{Removal, Revised};
use futures::StreamExt;
use model::{Subscription, subscription::Lifecycle};
use tokio::time::Instant;

use crate::{
    access::Caller,
    body::JsonBody,
    change,
    code::Code,
    error::{ApiError, NO_ACCESS, Problem, json, null},
    lookup::{existing, gone, now},
    registration,
    request::{self, Change},
    state::{App, Details, QueueDetails, Shared},
    views::{PrefillView, QueueView, SubscriptionView},
};

/// Subscriptions of a list that are looked at at once.
const LOOKED_AT_AT_ONCE: usize = 16;
/// How long the queues of a list may take, all together: one that does not answer must not hide the others.
const LIST_WITHIN: Duration = Duration::from_secs(10);

async fn shown(app: &App, entry: &Revised<Subscription>, caller: &Caller) -> Result<Response, ApiError> {
    let subscription = &entry.value;
    let seen = look(app, subscription).await?.ok_or_else(|| gone(subscription.name.as_str(), caller))?;
    Ok(json(StatusCode::OK, &view(app, subscription, Some(&seen))))
}

/// What the API shows of a subscription beside its entry. `None`: it was removed meanwhile.
async fn look(app: &App, subscription: &Subscription) -> Result<Option<(Details, QueueDetails)>, ApiError> {
    let Some(details) = app.details(subscription).await? else { return Ok(None) };
    Ok(Some((details, app.queue_details(subscription).await?)))
}

/// Without a look it is as its entry says.
fn view<'a>(
    app: &'a App,
    subscription: &'a Subscription,
    seen: Option<&'a (Details, QueueDetails)>,
) -> SubscriptionView<'a> {
    let prefill = PrefillView::new(subscription, seen.map(|(details, _)| details));
    let queue = seen.and_then(|(_, queue)| QueueView::new(subscription, queue, &app.config.limits));
    SubscriptionView::new(subscription, prefill, queue)
}

pub(crate) async fn create(State(app): Shared, body: JsonBody) -> Result<Response, ApiError> {
    let (registration, password) = request::registration(&body)?;
    if app.auth.is_reserved(registration.name.as_str()) {
        let expected = "this is the name of one of the API's own users: choose another";
        return Err(ApiError::invalid(Problem::new(&[&"body", &"name"], "reserved", expected)));
    }
    // A client that goes away does not stop a registration half-way.
    let status = tokio::spawn(async move { registration::register(&app, registration, password).await });
    let stopped = |e: tokio::task::JoinError| ApiError::Unavailable {
        detail: "The registration broke off; send it again",
        cause: e.to_string(),
    };
    Ok(null(status.await.map_err(stopped)??))
}

pub(crate) async fn list(State(app): Shared) -> Result<Response, ApiError> {
    // What can't be read is left out, logged and counted: it must not hide the others.
    let mut listed: Vec<Subscription> = app.broker.registry().list().await?.subscriptions().collect();
    listed.retain(|s| s.lifecycle != Lifecycle::Deleting);
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let deadline = Instant::now() + LIST_WITHIN;
    let looks = listed.into_iter().map(async |subscription| {
        let late = |_| ApiError::Unavailable { detail: "NATS is away", cause: "it took too long".to_owned() };
        let seen = tokio::time::timeout_at(deadline, look(&app, &subscription)).await.map_err(late);
        match seen.flatten() {
            Ok(seen) => seen.map(|seen| (subscription, Some(seen))),
            Err(error) => {
                tracing::warn!(
                    subscription = %subscription.name, error = ?error,
                    "its queue can't be looked at: the list shows what its entry says"
                );
                Some((subscription, None))
            }
        }
    });
    let seen: Vec<_> = futures::stream::iter(looks)
        .buffered(LOOKED_AT_AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let views: Vec<_> = seen.iter().map(|(s, seen)| view(&app, s, seen.as_ref())).collect();
    Ok(json(StatusCode::OK, &views))
}

pub(crate) async fn get(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let entry = existing(&app, &name, &caller).await?;
    shown(&app, &entry, &caller).await
}

/// Changes topics, password, or both. Topics are the admin's to choose; the password is also the subscriber's own.
pub(crate) async fn change(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
    body: JsonBody,
) -> Result<Response, ApiError> {
    // Not looked at: what topics there are costs work, and they are the admin's to choose.
    if matches!(caller, Caller::Subscriber(_)) && request::asks_for_topics(&body)? {
        return Err(NO_ACCESS);
    }
    let Change { realms_topics, password, prefill } = request::change(&body)?;
    let mut entry = existing(&app, &name, &caller).await?;
    if realms_topics.is_some() && entry.value.awaits_prefill() {
        return Err(ApiError::Conflict(
            Code::PrefillUnderWay,
            format!(
                "A prefill of {name} is under way with the former topics: wait until it has ended, or cancel it \
             (DELETE /v1/subscriptions/{name}/prefill)"
            ),
        ));
    }
    if realms_topics.is_some() || prefill {
        let changed = |s: &Subscription| {
            // Read again from the leader: a prefill may have begun meanwhile.
            let topics = realms_topics.as_ref().filter(|_| !s.awaits_prefill());
            let with_topics = topics.and_then(|topics| s.with_topics(topics));
            let base = with_topics.as_ref().unwrap_or(s);
            let again = if prefill { base.with_prefill_again(now()) } else { None };
            again.or(with_topics)
        };
        (_, entry) = change::apply(&app, entry.value, &caller, changed).await?;
        if realms_topics.as_ref().is_some_and(|topics| *topics != entry.value.realms_topics) {
            return Err(ApiError::Conflict(
                Code::ChangedByOthers,
                format!("The topics of {name} are being changed by others; try again"),
            ));
        }
    }
    if let Some(password) = password {
        let Subscription { name, incarnation, .. } = &entry.value;
        let hash = app.auth.hash(&password).await?;
        app.broker.credentials().put(name, *incarnation, &hash).await?;
        tracing::info!(subscription = %name, %incarnation, "its password was changed");
    }
    shown(&app, &entry, &caller).await
}

pub(crate) async fn delete(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    // Also one whose removal died half-way: it is finished.
    let found = app.find(&name).await;
    if !matches!(found, Ok(Some(_)))
        && matches!(caller, Caller::Role(_))
        && app.broker.remove_unreadable(&name).await? == Removal::Removed
    {
        tracing::warn!(
            subscription = name,
            "an entry that could not be read is removed, and its name is free"
        );
        return Ok(null(StatusCode::OK));
    }
    let entry = found?.filter(|entry| caller.may_see(entry.value.incarnation));
    let entry = entry.ok_or_else(|| gone(&name, &caller))?;
    let Subscription { name: known, incarnation, .. } = entry.value;
    match app.broker.remove_subscription(&known, incarnation).await? {
        Removal::Removed => {
            tracing::info!(subscription = %known, %incarnation, "removed");
            Ok(null(StatusCode::OK))
        }
        Removal::Gone => Err(gone(&name, &caller)),
    }
}
