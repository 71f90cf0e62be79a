//! `/v1/messages` and `/v1/subscriptions/{name}/messages`.

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use model::{PrefillState, Subscription};

use crate::{
    app::Shared,
    auth::{Login, Role},
    error::{ApiError, null},
    request::{self, JsonBody, LARGEST_BODY, Poll},
};

/// Tells a consumer that it waits for nothing: `failed; reason="…"`.
const PREFILL_STATUS: &str = "prefill-status";

type Pairs = Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>;

pub(crate) async fn publish(
    State(app): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // The stored form may be longer than the request by the spelling of `ts`: the publisher checks again.
    let body = JsonBody::read(&headers, body, app.broker.largest_message()).await?;
    app.auth.role(&headers, Role::Events)?;
    let event = request::event(&body)?;
    app.events.publish(event, app.pulse.arrival(body.arrived)).await?;
    app.metrics.events.inc();
    Ok(null(StatusCode::ACCEPTED))
}

pub(crate) async fn next(
    State(app): Shared,
    Path(name): Path<String>,
    query: Pairs,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let login = Login::from_headers(&headers)?;
    let query = query.map(|Query(pairs)| pairs).unwrap_or_default();
    let Poll { wait, pop } = Poll::parse(&query)?;
    let entry = app.auth.subscriber(&login, &name).await?;
    let Subscription { name, incarnation, .. } = &entry.value;
    let waiting = app.metrics.waiting_poll();
    let delivered = app.readers.next(name, *incarnation, wait, &app.shutdown, pop).await?;
    drop(waiting);
    let body = match delivered {
        Some(message) => {
            app.metrics.deliveries.inc();
            message.payload
        }
        None => Bytes::from_static(b"null"),
    };
    let is_null = body.as_ref() == b"null";
    let mut answer = (StatusCode::OK, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
        .into_response();
    if is_null && let Some(status) = app.view.get(name.as_str()).and_then(|e| failed(&e.value)) {
        answer.headers_mut().insert(PREFILL_STATUS, status);
    }
    Ok(answer)
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
    Path((name, sequence)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = JsonBody::read(&headers, body, LARGEST_BODY).await?;
    let login = Login::from_headers(&headers)?;
    let sequence = request::sequence(&sequence)?;
    request::acknowledgement(&body)?;
    let entry = app.auth.subscriber(&login, &name).await?;
    if app.readers.acknowledge(&entry.value.name, entry.value.incarnation, sequence).await? {
        app.metrics.acknowledgements.inc();
        Ok(null(StatusCode::OK))
    } else {
        Err(ApiError::NotFound("no message found".to_owned()))
    }
}
