//! `/v1/subscriptions`.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use broker::{Removal, Revised};
use model::{Entry, Lifecycle, RealmTopic, Subscription, SubscriptionName};
use serde::Serialize;

use crate::{
    app::Shared,
    auth::{Login, Role},
    error::{ApiError, json, null},
    prefill::PrefillView,
    registration,
    request::{self, JsonBody, LARGEST_BODY},
};

/// A subscription as the API shows it: the four fields of the former service first.
#[derive(Serialize)]
pub(crate) struct SubscriptionView<'a> {
    name: &'a SubscriptionName,
    realms_topics: &'a [RealmTopic],
    request_prefill: bool,
    prefill_queue_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefill: Option<PrefillView<'a>>,
}

impl<'a> SubscriptionView<'a> {
    fn new(subscription: &'a Subscription, prefill: Option<PrefillView<'a>>) -> Self {
        Self {
            name: &subscription.name,
            realms_topics: &subscription.realms_topics,
            request_prefill: subscription.request_prefill,
            prefill_queue_status: subscription.prefill.state.as_str(),
            prefill,
        }
    }
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
            Entry::Subscription(s) if s.lifecycle == Lifecycle::Ready => Some(SubscriptionView::new(s, None)),
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
    let login = Login::from_headers(&headers)?;
    if !app.auth.is(&login, Role::Admin) {
        app.auth.subscriber(&login, &name).await?;
    }
    let entry = existing(&app, &name).await?;
    let progress = app.progress_of(&entry.value).await?;
    let prefill = PrefillView::new(&entry.value, progress.as_ref());
    Ok(json(StatusCode::OK, &SubscriptionView::new(&entry.value, Some(prefill))))
}

pub(crate) async fn delete(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let login = Login::from_headers(&headers)?;
    if !app.auth.is(&login, Role::Admin) {
        app.auth.subscriber(&login, &name).await?;
    }
    let entry = app.find(&name).await?.ok_or_else(|| not_found(&name))?;
    let Subscription { name: known, incarnation, .. } = entry.value;
    match app.broker.remove_subscription(&known, incarnation).await? {
        Removal::Removed => {
            tracing::info!(subscription = %known, %incarnation, "removed");
            Ok(null(StatusCode::OK))
        }
        Removal::Gone => Err(not_found(&name)),
    }
}

/// The subscription, as the leader knows it.
pub(crate) async fn existing(app: &crate::app::App, name: &str) -> Result<Revised<Subscription>, ApiError> {
    let entry = app.find(name).await?;
    entry.filter(|e| e.value.lifecycle != Lifecycle::Deleting).ok_or_else(|| not_found(name))
}

fn not_found(name: &str) -> ApiError {
    ApiError::NotFound(format!("Subscription not found: '{name}'"))
}
