//! `/v1/subscriptions/{name}/prefill`.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use broker::{Modified, Revised};
use model::{
    PrefillState, Reason, Subscription, fence::Counts, prefill::PrefillMode, subscription::Lifecycle,
};

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
    let mut order = request::prefill_order(&body)?;
    let entry = existing(&app, &name, &caller).await?.value;
    if order.dry_run && order.mode.is_none() && entry.track {
        order.mode = Some(PrefillMode::Resync);
    }
    if order.mode == Some(PrefillMode::Resync) && !entry.track {
        return Err(ApiError::Conflict(
            Code::NotTracked,
            format!(
                "What {name} was told of is not recorded, so a resync (mode) can't tell what to remove: only a subscription \
             that was registered with track: true can be resynced"
            ),
        ));
    }
    if order.dry_run {
        check_dry_run(&app, &entry).await?;
    }
    let change = |s: &Subscription| s.with_prefill_ordered(order, now());
    let (status, entry) = change::apply(&app, entry, &caller, change).await?;
    let pending = &entry.value.prefill;
    let other = order.mode.is_some_and(|mode| mode != pending.mode)
        || order.dry_run != pending.dry_run
        || order.max_removals.is_some_and(|max| Some(max) != pending.max_removals);
    if other {
        return Err(ApiError::Conflict(
            Code::PrefillUnderWay,
            format!(
                "Another prefill of {name} is under way, with the mode {}: wait until it has ended, or cancel it (DELETE \
                 /v1/subscriptions/{name}/prefill)",
                pending.mode.as_str()
            ),
        ));
    }
    shown(&app, status, &entry, &caller).await
}

/// The consumer does not notice one that only counts, so there must be nothing of a prefill that it still has to read.
async fn check_dry_run(app: &App, entry: &Subscription) -> Result<(), ApiError> {
    let Subscription { name, incarnation, prefill, .. } = entry;
    let why = if prefill.state == PrefillState::Failed && !prefill.dry_run {
        "has failed, and its consumer waits for one: ask for a prefill that is read"
    } else if prefill.state == PrefillState::Done
        && app.broker.queue(name, *incarnation).pending().await?.is_some_and(|counts| counts.prefill > 0)
    {
        "is not read to its end, and what is left of it would be dropped: ask again when it is"
    } else {
        return Ok(());
    };
    let detail = format!("A dry_run follows a prefill that is done and read. That of {name} {why}");
    Err(ApiError::Conflict(Code::DryRunTooEarly, detail))
}

/// Lets a prefill be read that is held because it has more removals than allowed. Of that attempt only; asking again
/// is harmless.
pub(crate) async fn approve(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let meant = request::approval(&body)?;
    let entry = existing(&app, &name, &caller).await?;
    let Subscription { name: known, incarnation, prefill, .. } = &entry.value;
    if meant.is_some_and(|attempt| attempt != prefill.attempt) {
        let detail =
            format!("The attempt of {known} is {} by now: look at its numbers first", prefill.attempt);
        return Err(ApiError::Conflict(Code::OtherAttempt, detail));
    }
    check_queue(&app, &entry.value).await?;
    let queue = app.broker.queue(known, *incarnation);
    if !queue.approve_fence(prefill.attempt).await? {
        let detail = format!("The prefill of {known} is not held: there is nothing to approve");
        return Err(ApiError::Conflict(Code::NotHeld, detail));
    }
    // Before anybody sees the queue: events that the prefill holds already are not to be seen.
    queue.remove_contained(prefill.attempt).await?;
    let counts = queue.fence().await?.and_then(|fence| fence.value.counts);
    let done = |s: &Subscription| {
        let same = s.prefill.attempt == prefill.attempt;
        let (reason, message) = counts.as_ref().and_then(Counts::notable).unzip();
        let next =
            same.then(|| s.with_prefill_state(PrefillState::Done, reason, message, now())).flatten()?;
        Some(match &counts {
            Some(counts) => next.with_objects(counts.messages),
            None => next,
        })
    };
    let (status, entry) = match app.broker.registry().modify(known, *incarnation, done).await? {
        Modified::Changed(entry) => (StatusCode::ACCEPTED, entry),
        Modified::Unchanged(entry) => (StatusCode::OK, entry),
        Modified::Gone => return Err(gone(&name, &caller)),
    };
    tracing::info!(subscription = %known, %incarnation, attempt = prefill.attempt, "the prefill is approved");
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
        app.launcher.withdraw(&entry.value).await;
        return shown(&app, StatusCode::OK, &entry, &caller).await;
    }
    let too_late = || {
        ApiError::Conflict(
            Code::PrefillEnded,
            format!("The prefill of {known} has ended: there is nothing to cancel"),
        )
    };
    if !entry.value.awaits_prefill() && !prefill.is_held() {
        return Err(too_late());
    }
    check_queue(&app, &entry.value).await?;
    // The fence first: from here on the attempt can neither write nor complete, whatever becomes of this request.
    if !app.broker.queue(known, *incarnation).cancel_fence(prefill.attempt).await? {
        return Err(too_late());
    }
    let message = "cancelled through the API".to_owned();
    let cancelled = |s: &Subscription| {
        let open = s.awaits_prefill() || s.prefill.is_held();
        let same = open && s.prefill.attempt == prefill.attempt;
        let (reason, message) = (Some(Reason::Cancelled), Some(message.clone()));
        same.then(|| s.with_prefill_state(PrefillState::Failed, reason, message, now())).flatten()
    };
    match app.broker.registry().modify(known, *incarnation, cancelled).await? {
        Modified::Changed(cancelled) | Modified::Unchanged(cancelled) => {
            tracing::info!(subscription = %known, %incarnation, attempt = prefill.attempt, "the prefill is cancelled");
            // Of the attempt that was cancelled: another one may have been asked for.
            app.launcher.withdraw(&entry.value).await;
            shown(&app, StatusCode::OK, &cancelled, &caller).await
        }
        Modified::Gone => Err(gone(&name, &caller)),
    }
}

/// Lets the prefill wait: its pod, or the worker that has it, stops, and it begins anew when it is resumed.
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

/// Changes the entry, which the worker or the controller looks at.
async fn set_paused(app: &App, name: &str, caller: &Caller, paused: bool) -> Result<Response, ApiError> {
    let entry = existing(app, name, caller).await?;
    let Subscription { name: known, incarnation, .. } = &entry.value;
    let mut had_stopped = false;
    let change = |s: &Subscription| {
        had_stopped = s.prefill.has_stopped();
        s.with_paused(paused)
    };
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
    // Also one that is not paused: a former request may have ended here. What is being registered gets its task last.
    if !paused && entry.value.lifecycle == Lifecycle::Ready {
        app.launcher.resume(&entry.value, had_stopped).await?;
    }
    shown(app, status, &entry, caller).await
}

async fn shown(
    app: &App,
    status: StatusCode,
    entry: &Revised<Subscription>,
    caller: &Caller,
) -> Result<Response, ApiError> {
    let details = app.details(&entry.value).await?.ok_or_else(|| gone(entry.value.name.as_str(), caller))?;
    Ok(json(status, &PrefillView::new(&entry.value, Some(&details))))
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
    // Such a caller knows nothing of resyncs: removals must have been compared, or approved.
    let skips = |s: &Subscription| {
        let resync = s.prefill.mode == PrefillMode::Resync && s.prefill.state != PrefillState::Done;
        resync && state == PrefillState::Done
    };
    let (reason, message) = match state {
        PrefillState::Failed => (Some(Reason::SetByRequest), Some("set through the API".to_owned())),
        PrefillState::Pending | PrefillState::Running | PrefillState::Done => (None, None),
    };
    let change = |s: &Subscription| match skips(s) {
        true => None,
        false => s.with_prefill_state(state, reason, message.clone(), now()),
    };
    match app.broker.registry().modify(&entry.name, entry.incarnation, change).await? {
        Modified::Unchanged(entry) if skips(&entry.value) => Err(ApiError::Conflict(
            Code::IsResync,
            format!(
                "The prefill of {name} is a resync, which is done when its attempt says so, or when an administrator \
                 approves it (POST /v1/subscriptions/{name}/prefill/approve)"
            ),
        )),
        Modified::Changed(_) | Modified::Unchanged(_) => Ok(null(StatusCode::OK)),
        Modified::Gone => Err(gone(&name, &caller)),
    }
}
