//! `/v1/subscriptions/{name}/prefill`.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use broker::Modified;
use model::{PrefillState, Progress, Reason, Subscription, Timestamp};
use serde::Serialize;

use crate::{
    app::Shared,
    auth::{Login, Role},
    error::{ApiError, json, null},
    registration::now,
    request::{self, JsonBody, LARGEST_BODY},
    subscriptions::existing,
};

/// The prefill of a subscription, with its progress.
#[derive(Serialize)]
pub(crate) struct PrefillView<'a> {
    state: &'static str,
    round: u32,
    attempt: u32,
    since: &'a Timestamp,
    reason: Option<Reason>,
    message: Option<&'a str>,
    /// Has the dispatcher reached the marker of this round?
    boundary_known: bool,
    progress: Option<ProgressView<'a>>,
}

#[derive(Serialize)]
struct ProgressView<'a> {
    topic: Option<&'a str>,
    done: u64,
    total: Option<u64>,
    skipped: u64,
    rate: f64,
    error: Option<&'a str>,
}

impl<'a> PrefillView<'a> {
    /// Progress of another attempt is not shown: an overtaken one may still write it.
    pub(crate) fn new(subscription: &'a Subscription, progress: Option<&'a Progress>) -> Self {
        let prefill = &subscription.prefill;
        let current = progress.filter(|p| {
            p.incarnation == subscription.incarnation && p.attempt == prefill.attempt && p.attempt > 0
        });
        Self {
            state: prefill.state.as_str(),
            round: prefill.round,
            attempt: prefill.attempt,
            since: &prefill.since,
            reason: prefill.reason,
            message: prefill.message.as_deref(),
            boundary_known: prefill.boundary.is_some(),
            progress: current.map(|p| ProgressView {
                topic: p.topic.as_deref(),
                done: p.done,
                total: p.total,
                skipped: p.skipped,
                rate: p.rate,
                error: p.error.as_deref(),
            }),
        }
    }
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
    Ok(json(StatusCode::OK, &PrefillView::new(&entry.value, progress.as_ref())))
}

/// Sets the state from outside, as the prefill service of the former software does. Any transition is accepted.
pub(crate) async fn set(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = JsonBody::read(&headers, body, LARGEST_BODY).await?;
    app.auth.role(&headers, Role::Prefill)?;
    let state = request::prefill_state(&body)?;
    let entry = existing(&app, &name).await?.value;
    let (reason, message) = match state {
        PrefillState::Failed => (Some(Reason::SetByRequest), Some("set through the API".to_owned())),
        PrefillState::Pending | PrefillState::Running | PrefillState::Done => (None, None),
    };
    let change = |s: &Subscription| s.with_prefill_state(state, reason, message.clone(), now());
    match app.broker.registry().modify(&entry.name, entry.incarnation, change).await? {
        Modified::Changed(_) | Modified::Unchanged(_) => Ok(null(StatusCode::OK)),
        Modified::Gone => Err(ApiError::NotFound(format!("Subscription not found: '{name}'"))),
    }
}
