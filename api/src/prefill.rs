//! `/v1/subscriptions/{name}/prefill`.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use broker::{Modified, Revised};
use model::{PastAttempt, PrefillMode, PrefillState, Reason, Subscription, Timestamp};
use serde::Serialize;

use crate::{
    app::{App, Details, Shared},
    auth::{Caller, Role},
    body::{JsonBody, LARGEST_BODY},
    change,
    error::{ApiError, json, null},
    registration::{check_queue, now},
    request,
    subscriptions::{existing, gone},
};

const BROKEN: &str =
    "the queue is lost, and its events with it: remove the subscription and register it again";
const GIVEN_UP: &str = "the queue was full and was given up, and its events with it: remove the subscription and \
     register it again";

/// The prefill of a subscription, with its progress.
#[derive(Serialize)]
pub(crate) struct PrefillView<'a> {
    pub(crate) state: &'static str,
    mode: PrefillMode,
    round: u32,
    attempt: u32,
    since: &'a Timestamp,
    reason: Option<Reason>,
    message: Option<&'a str>,
    /// Has the dispatcher reached the marker of this round?
    boundary_known: bool,
    /// Name of the attempt's Job, where prefills are Jobs.
    job: Option<String>,
    progress: Option<ProgressView<'a>>,
    paused: bool,
    /// The last attempts that have ended, oldest first.
    attempts: &'a [PastAttempt],
}

#[derive(Serialize)]
struct ProgressView<'a> {
    phase: &'static str,
    topic: Option<&'a str>,
    done: u64,
    total: Option<u64>,
    skipped: u64,
    set_aside: u64,
    missing: &'a [String],
    warnings: &'a [String],
    not_selected: u64,
    removed: u64,
    rate: f64,
    /// Seconds until it is done, at that rate.
    eta: Option<f64>,
    error: Option<&'a str>,
    /// All of it in a line for people.
    text: String,
}

impl<'a> PrefillView<'a> {
    /// Progress of another attempt is not shown: an overtaken one may still write it. A lost queue is shown whatever
    /// the entry says.
    pub(crate) fn new(subscription: &'a Subscription, details: &'a Details) -> Self {
        let prefill = &subscription.prefill;
        let current = details.progress.as_ref().filter(|p| {
            p.incarnation == subscription.incarnation && p.attempt == prefill.attempt && p.attempt > 0
        });
        let (state, reason, message) = if details.broken {
            let message = if subscription.given_up.is_some() { GIVEN_UP } else { BROKEN };
            (PrefillState::Failed, Some(Reason::Broken), Some(message))
        } else {
            (prefill.state, prefill.reason, prefill.message.as_deref())
        };
        Self {
            state: state.as_str(),
            mode: prefill.mode,
            round: prefill.round,
            attempt: prefill.attempt,
            since: &prefill.since,
            reason,
            message,
            boundary_known: prefill.boundary.is_some(),
            job: details.job.clone(),
            progress: current.map(|p| ProgressView {
                phase: p.phase.as_str(),
                topic: p.topic.as_deref(),
                done: p.done,
                total: p.total,
                skipped: p.skipped,
                set_aside: p.set_aside,
                missing: &p.missing,
                warnings: &p.warnings,
                not_selected: p.not_selected,
                removed: p.removed,
                rate: p.rate,
                eta: p.eta(),
                error: p.error.as_deref(),
                text: p.to_string(),
            }),
            paused: prefill.paused,
            attempts: &prefill.attempts,
        }
    }
}

pub(crate) async fn get(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = app.auth.admin_or_subscriber(&headers, &name).await?;
    let entry = existing(&app, &name, caller).await?;
    shown(&app, StatusCode::OK, &entry, caller).await
}

/// Asks for a prefill, anew or again.
pub(crate) async fn ask(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = JsonBody::read(&headers, body, LARGEST_BODY).await?;
    let caller = app.auth.admin_or_subscriber(&headers, &name).await?;
    let mode = request::prefill_mode(&body)?;
    let entry = existing(&app, &name, caller).await?.value;
    if mode == Some(PrefillMode::Resync) && !entry.track {
        return Err(ApiError::Conflict(format!(
            "What {name} was told of is not recorded, so a resync (mode) can't tell what to remove: only a subscription \
             that was registered with track: true can be resynced"
        )));
    }
    let change = |s: &Subscription| s.with_prefill_of(mode, now());
    let (status, entry) = change::apply(&app, entry, caller, change).await?;
    let pending = entry.value.prefill.mode;
    if mode.is_some_and(|mode| mode != pending) {
        return Err(ApiError::Conflict(format!(
            "A prefill of {name} with the mode {} is under way: wait until it has ended, or cancel it (DELETE \
             /v1/subscriptions/{name}/prefill)",
            pending.as_str()
        )));
    }
    shown(&app, status, &entry, caller).await
}

/// Cancels the prefill: what was written of it is never delivered, and it can be asked for again.
pub(crate) async fn cancel(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = app.auth.admin_or_subscriber(&headers, &name).await?;
    let entry = existing(&app, &name, caller).await?;
    let Subscription { name: known, incarnation, prefill, .. } = &entry.value;
    if prefill.reason == Some(Reason::Cancelled) {
        return shown(&app, StatusCode::OK, &entry, caller).await;
    }
    let too_late =
        || ApiError::Conflict(format!("The prefill of {known} has ended: there is nothing to cancel"));
    if !entry.value.awaits_prefill() {
        return Err(too_late());
    }
    check_queue(&app, &entry.value).await?;
    // The fence first: from here on the attempt can neither write nor complete, whatever becomes of this request.
    if !app.broker.queue(known, *incarnation).cancel_fence(prefill.attempt).await? {
        return Err(too_late());
    }
    let message = "cancelled through the API".to_owned();
    let cancelled = |s: &Subscription| {
        let same = s.awaits_prefill() && s.prefill.attempt == prefill.attempt;
        let (reason, message) = (Some(Reason::Cancelled), Some(message.clone()));
        same.then(|| s.with_prefill_state(PrefillState::Failed, reason, message, now())).flatten()
    };
    match app.broker.registry().modify(known, *incarnation, cancelled).await? {
        Modified::Changed(entry) | Modified::Unchanged(entry) => {
            tracing::info!(subscription = %known, %incarnation, attempt = prefill.attempt, "the prefill is cancelled");
            shown(&app, StatusCode::OK, &entry, caller).await
        }
        Modified::Gone => Err(gone(&name, caller)),
    }
}

/// Lets the prefill wait: its pod, if it has one, ends, and begins anew when it is resumed.
pub(crate) async fn pause(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    set_paused(&app, &name, &headers, true).await
}

/// Lets a paused prefill go on.
pub(crate) async fn resume(
    State(app): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    set_paused(&app, &name, &headers, false).await
}

/// Only the entry changes: the controller suspends the Job, and admits it again.
async fn set_paused(app: &App, name: &str, headers: &HeaderMap, paused: bool) -> Result<Response, ApiError> {
    let caller = app.auth.admin_or_subscriber(headers, name).await?;
    let entry = existing(app, name, caller).await?;
    let Subscription { name: known, incarnation, .. } = &entry.value;
    if !app.launcher.can_pause() {
        let detail = "Prefills are tasks of a worker here, which can't be paused: cancel it, and ask for it again later";
        return Err(ApiError::Conflict(detail.to_owned()));
    }
    let change = |s: &Subscription| s.with_paused(paused);
    let (status, entry) = match app.broker.registry().modify(known, *incarnation, change).await? {
        Modified::Changed(entry) => (StatusCode::ACCEPTED, entry),
        Modified::Unchanged(entry) => (StatusCode::OK, entry),
        Modified::Gone => return Err(gone(name, caller)),
    };
    if !entry.value.awaits_prefill() {
        let word = if paused { "pause" } else { "resume" };
        let detail = format!("The prefill of {known} has ended: there is nothing to {word}");
        return Err(ApiError::Conflict(detail));
    }
    tracing::info!(subscription = %known, %incarnation, paused, "the prefill is paused or resumed");
    shown(app, status, &entry, caller).await
}

async fn shown(
    app: &App,
    status: StatusCode,
    entry: &Revised<Subscription>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let details = app.details(entry).await?.ok_or_else(|| gone(entry.value.name.as_str(), caller))?;
    Ok(json(status, &PrefillView::new(&entry.value, &details)))
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
    let entry = existing(&app, &name, Caller::Role).await?.value;
    let (reason, message) = match state {
        PrefillState::Failed => (Some(Reason::SetByRequest), Some("set through the API".to_owned())),
        PrefillState::Pending | PrefillState::Running | PrefillState::Done => (None, None),
    };
    let change = |s: &Subscription| s.with_prefill_state(state, reason, message.clone(), now());
    match app.broker.registry().modify(&entry.name, entry.incarnation, change).await? {
        Modified::Changed(_) | Modified::Unchanged(_) => Ok(null(StatusCode::OK)),
        Modified::Gone => Err(gone(&name, Caller::Role)),
    }
}
