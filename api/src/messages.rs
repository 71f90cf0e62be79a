//! `/v1/messages` and `/v1/subscriptions/{name}/messages`.

use axum::{
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use model::{PrefillState, Subscription, SubscriptionName};
use serde_json::json;

use crate::{
    access::LoggedIn,
    body::JsonBody,
    code::Code,
    error::{ApiError, json as json_answer, null, too_many},
    query::{Pairs, Parameters},
    request,
    state::{App, Shared},
};

/// Tells a consumer that it waits for nothing: `failed; reason="…"`.
const PREFILL_STATUS: &str = "prefill-status";

pub(crate) async fn publish(State(app): Shared, body: JsonBody) -> Result<Response, ApiError> {
    let event = request::event(&body)?;
    app.events.publish(event, app.pulse.arrival(body.arrived)).await?;
    app.metrics.events.inc();
    Ok(null(StatusCode::ACCEPTED))
}

pub(crate) async fn next(
    State(app): Shared,
    LoggedIn { entry, .. }: LoggedIn,
    query: Pairs,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query);
    let (wait, pop) = (parameters.timeout(), parameters.pop());
    parameters.finish()?;
    let Subscription { name, incarnation, .. } = &entry.value;
    let place = app.polls.take(name).ok_or_else(|| too_many("polls", app.polls.each()))?;
    let waiting = (app.metrics.waiting_poll(), place);
    let delivered = app.readers.next(name, *incarnation, wait, &app.shutdown, pop).await?;
    drop(waiting);
    app.metrics.deliveries.inc_by(u64::from(delivered.is_some()));
    let nothing = delivered.is_none();
    let body = delivered.map_or(Bytes::from_static(b"null"), |message| message.payload);
    Ok(messages(&app, name, body, nothing))
}

/// All that waits, up to a limit.
pub(crate) async fn batch(
    State(app): Shared,
    LoggedIn { entry, .. }: LoggedIn,
    query: Pairs,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query);
    let (wait, limit) = (parameters.timeout(), parameters.limit());
    parameters.finish()?;
    let Subscription { name, incarnation, .. } = &entry.value;
    let place = app.polls.take(name).ok_or_else(|| too_many("polls", app.polls.each()))?;
    let waiting = (app.metrics.waiting_poll(), place);
    let delivered = app.readers.batch(name, *incarnation, wait, &app.shutdown, limit).await?;
    drop(waiting);
    app.metrics.deliveries.inc_by(delivered.len() as u64);
    let mut body = BytesMut::with_capacity(2 + delivered.iter().map(|m| m.payload.len() + 1).sum::<usize>());
    body.extend_from_slice(b"[");
    for (index, message) in delivered.iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(b",");
        }
        body.extend_from_slice(&message.payload);
    }
    body.extend_from_slice(b"]");
    Ok(messages(&app, name, body.freeze(), delivered.is_empty()))
}

/// What is JSON already. Whoever gets `nothing` because the prefill has failed is told so.
fn messages(app: &App, name: &SubscriptionName, body: Bytes, nothing: bool) -> Response {
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut answer = (StatusCode::OK, content_type, body).into_response();
    if nothing && let Some(status) = app.view.get(name.as_str()).and_then(|e| failed(&e.value)) {
        answer.headers_mut().insert(PREFILL_STATUS, status);
    }
    answer
}

fn failed(subscription: &Subscription) -> Option<HeaderValue> {
    let prefill = &subscription.prefill;
    if prefill.state != PrefillState::Failed {
        return None;
    }
    let reason = prefill.reason.map_or("unknown", model::Reason::as_str);
    HeaderValue::from_str(&format!("failed; reason=\"{reason}\"")).ok()
}

pub(crate) async fn acknowledge(
    State(app): Shared,
    Path((_, sequence)): Path<(String, String)>,
    LoggedIn { entry, .. }: LoggedIn,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let sequence = request::sequence(&sequence)?;
    request::acknowledgement(&body)?;
    if app.readers.acknowledge(&entry.value.name, entry.value.incarnation, sequence).await? {
        app.metrics.acknowledgements.inc();
        Ok(null(StatusCode::OK))
    } else {
        Err(no_message())
    }
}

/// One message and all that were delivered before it.
pub(crate) async fn acknowledge_through(
    State(app): Shared,
    LoggedIn { entry, .. }: LoggedIn,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let through = request::through(&body)?;
    let Subscription { name, incarnation, .. } = &entry.value;
    match app.readers.acknowledge_through(name, *incarnation, through).await? {
        0 => Err(no_message()),
        removed => {
            app.metrics.acknowledgements.inc_by(removed);
            Ok(json_answer(StatusCode::OK, &json!({"removed": removed})))
        }
    }
}

fn no_message() -> ApiError {
    ApiError::NotFound(Code::NoMessage, "no message found".to_owned())
}
