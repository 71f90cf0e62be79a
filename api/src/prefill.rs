//! `/v1/subscriptions/{name}/prefill`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use broker::{Modified, Revised};
use model::{PrefillMode, PrefillState, Reason, Subscription};

use crate::{
    access::Caller,
    body::JsonBody,
    change,
    code::Code,
    error::{ApiError, json, null},
    lookup::{check_queue, existing, gone, now},
    request,
    state::{App, Shared},
    views::PrefillView,
};

pub(crate) async fn get(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let entry = existing(&app, &name, &caller).await?;
    shown(&app, StatusCode::OK, &entry, &caller).await
}

/// Asks for a prefill, anew or again.
pub(crate) async fn ask(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let mode = request::prefill_mode(&body)?;
    let entry = existing(&app, &name, &caller).await?.value;
    if mode == Some(PrefillMode::Resync) && !entry.track {
        return Err(ApiError::Conflict(
            Code::NotTracked,
            format!(
                "What {name} was told of is not recorded, so a resync (mode) can't tell what to remove: only a subscription \
             that was registered with track: true can be resynced"
            ),
        ));
    }
    let change = |s: &Subscription| s.with_prefill_of(mode, now());
    let (status, entry) = change::apply(&app, entry, &caller, change).await?;
    let pending = entry.value.prefill.mode;
    if mode.is_some_and(|mode| mode != pending) {
        return Err(ApiError::Conflict(
            Code::PrefillUnderWay,
            format!(
                "A prefill of {name} with the mode {} is under way: wait until it has ended, or cancel it (DELETE \
             /v1/subscriptions/{name}/prefill)",
                pending.as_str()
            ),
        ));
    }
    shown(&app, status, &entry, &caller).await
}

/// Cancels the prefill: what was written of it is never delivered, and it can be asked for again.
pub(crate) async fn cancel(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let entry = existing(&app, &name, &caller).await?;
    let Subscription { name: known, incarnation, prefill, .. } = &entry.value;
    if prefill.reason == Some(Reason::Cancelled) {
        return shown(&app, StatusCode::OK, &entry, &caller).await;
    }
    let too_late = || {
        ApiError::Conflict(
            Code::PrefillEnded,
            format!("The prefill of {known} has ended: there is nothing to cancel"),
        )
    };
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
            shown(&app, StatusCode::OK, &entry, &caller).await
        }
        Modified::Gone => Err(gone(&name, &caller)),
    }
}

/// Lets the prefill wait: its pod, if it has one, ends, and begins anew when it is resumed.
pub(crate) async fn pause(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    set_paused(&app, &name, &caller, true).await
}

/// Lets a paused prefill go on.
pub(crate) async fn resume(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    set_paused(&app, &name, &caller, false).await
}

/// Only the entry changes: the controller suspends the Job, and admits it again.
async fn set_paused(app: &App, name: &str, caller: &Caller, paused: bool) -> Result<Response, ApiError> {
    let entry = existing(app, name, caller).await?;
    let Subscription { name: known, incarnation, .. } = &entry.value;
    if !app.launcher.can_pause() {
        let detail = "Prefills are tasks of a worker here, which can't be paused: cancel it, and ask for it again later";
        return Err(ApiError::Conflict(Code::NoJobs, detail.to_owned()));
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
        return Err(ApiError::Conflict(Code::PrefillEnded, detail));
    }
    tracing::info!(subscription = %known, %incarnation, paused, "the prefill is paused or resumed");
    shown(app, status, &entry, caller).await
}

async fn shown(
    app: &App,
    status: StatusCode,
    entry: &Revised<Subscription>,
    caller: &Caller,
) -> Result<Response, ApiError> {
    let details = app.details(entry).await?.ok_or_else(|| gone(entry.value.name.as_str(), caller))?;
    Ok(json(status, &PrefillView::new(&entry.value, &details)))
}

/// Sets the state from outside, as the prefill service of the former software does. Any transition is accepted.
pub(crate) async fn set(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let state = request::prefill_state(&body)?;
    let entry = existing(&app, &name, &caller).await?.value;
    let (reason, message) = match state {
        PrefillState::Failed => (Some(Reason::SetByRequest), Some("set through the API".to_owned())),
        PrefillState::Pending | PrefillState::Running | PrefillState::Done => (None, None),
    };
    let change = |s: &Subscription| s.with_prefill_state(state, reason, message.clone(), now());
    match app.broker.registry().modify(&entry.name, entry.incarnation, change).await? {
        Modified::Changed(_) | Modified::Unchanged(_) => Ok(null(StatusCode::OK)),
        Modified::Gone => Err(gone(&name, &caller)),
    }
}
