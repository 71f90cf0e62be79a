//! `/v1/subscriptions`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use broker::{Removal, Revised};
use model::{Lifecycle, Subscription};

use crate::{
    access::Caller,
    body::JsonBody,
    change,
    code::Code,
    error::{ApiError, NO_ACCESS, Problem, json, null},
    lookup::{existing, gone, now},
    registration,
    request::{self, Change},
    state::{App, Shared},
    views::{PrefillView, QueueView, SubscriptionView},
};

async fn shown(app: &App, entry: &Revised<Subscription>, caller: &Caller) -> Result<Response, ApiError> {
    let subscription = &entry.value;
    let details = app.details(entry).await?.ok_or_else(|| gone(subscription.name.as_str(), caller))?;
    let dead_letters = app.broker.dead_letters().count(subscription).await?;
    let queue = QueueView::new(subscription, details.queue, dead_letters, &app.config.limits);
    let prefill = PrefillView::new(subscription, &details);
    Ok(json(StatusCode::OK, &SubscriptionView::new(subscription, Some(prefill), queue)))
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
    let listed: Vec<Subscription> = app.broker.registry().list().await?.subscriptions().collect();
    let ready = listed.iter().filter(|s| s.lifecycle == Lifecycle::Ready);
    let subscriptions: Vec<SubscriptionView<'_>> = ready.map(SubscriptionView::brief).collect();
    Ok(json(StatusCode::OK, &subscriptions))
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
