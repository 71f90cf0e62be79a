//! `/v1/messages` and `/v1/subscriptions/{name}/messages`.

use std::time::Duration;

use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use broker::{LargeEvent, PublishError, ReadError};
use bytes::{Bytes, BytesMut};
use model::{Subscription, SubscriptionName};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    access::LoggedIn,
    answers::{Held, HoldsItsOwn, Owner, keep},
    body::JsonBody,
    code::Code,
    concurrency_limits::ConcurrencyPermit,
    error::{ApiError, json as json_answer, null, too_many},
    failed_prefill::{PREFILL_STATUS, failed_prefill, prefill_status},
    large_event,
    metrics::Counted,
    outage::outlast,
    query::{Pairs, Parameters},
    request,
    state::{App, Shared},
};

pub(crate) async fn publish(State(app): Shared, body: JsonBody) -> Result<Response, ApiError> {
    let arrived = app.suspend_detector.arrival(body.arrived);
    let limit = app.broker.largest_message();
    let large = match body.beginning_of {
        Some(size) => large_event::beginning(&body.text, size),
        None => {
            let event = request::event(&body)?;
            match app.events.publish(event.clone(), arrived).await {
                Ok(_) => None,
                Err(PublishError::TooLarge { size, .. }) => Some(large_event::whole(&event, size)),
                Err(error) => return Err(error.into()),
            }
        }
    };
    if let Some(large) = large {
        let LargeEvent { topic, dn, size, .. } = &large;
        tracing::error!(
            topic,
            dn,
            size,
            limit,
            "an event is larger than NATS carries (max_payload): it becomes a dead letter of its subscriptions"
        );
        app.metrics.events_too_large.inc();
        app.events.publish_notice(&LargeEvent { limit: limit as u64, ..large }, arrived).await?;
    }
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
    let poll = Poll::begin(&app, &entry.value)?;
    let (deadline, end) = (Instant::now() + wait, app.life.end());
    let (message, held) = loop {
        let look = |left| app.readers.next(name, *incarnation, left, &end, false);
        let Some(message) = waited(&app, deadline, &end, look).await? else { break (None, None) };
        // What is not sent is delivered again, so it is only removed when there is room for the answer.
        let held = app.answers.hold(Owner::Subscription(name), message.payload.len())?;
        if !pop || app.readers.acknowledge(name, *incarnation, message.id.sequence).await? {
            break (Some(message), Some(held));
        }
        // Somebody else took it.
    };
    app.metrics.delivered(message.as_slice());
    let nothing = message.is_none();
    let body = poll.answer(message.map_or(Bytes::from_static(b"null"), |message| message.payload), held);
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
    let poll = Poll::begin(&app, &entry.value)?;
    let (deadline, end) = (Instant::now() + wait, app.life.end());
    let look = |left| app.readers.batch(name, *incarnation, left, &end, limit);
    let delivered = waited(&app, deadline, &end, look).await?;
    let size = 2 + delivered.iter().map(|m| m.payload.len() + 1).sum::<usize>();
    let held = app.answers.hold(Owner::Subscription(name), size)?;
    app.metrics.delivered(&delivered);
    let nothing = delivered.is_empty();
    let mut body = BytesMut::with_capacity(size);
    body.extend_from_slice(b"[");
    for (index, message) in delivered.into_iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(b",");
        }
        body.extend_from_slice(&message.payload);
    }
    body.extend_from_slice(b"]");
    Ok(messages(&app, name, poll.answer(body.freeze(), Some(held)), nothing))
}

/// What a poll finds in what is left of its time, or later if NATS is away then. One that the server ends finds nothing,
/// whatever kept it from looking.
async fn waited<T: Default, Looking: Future<Output = Result<T, ReadError>>>(
    app: &App,
    deadline: Instant,
    end: &CancellationToken,
    look: impl Fn(Duration) -> Looking,
) -> Result<T, ApiError> {
    let ask = || async { Ok(look(deadline.saturating_duration_since(Instant::now())).await?) };
    match outlast(deadline + app.config.bounds.outage_outlasted, end, ask).await {
        Err(ApiError::Away { .. }) if end.is_cancelled() => Ok(T::default()),
        answered => answered,
    }
}

/// A poll: its place is taken until its answer is.
struct Poll {
    place: ConcurrencyPermit,
    waiting: Counted,
}

impl Poll {
    fn begin(app: &App, subscription: &Subscription) -> Result<Self, ApiError> {
        let name = &subscription.name;
        let place = app.polls.take(name).ok_or_else(|| too_many("polls", app.polls.each()))?;
        app.answers.room(Owner::Subscription(name))?;
        app.reads.note(app.broker.last_reads(), subscription);
        Ok(Self { place, waiting: app.metrics.waiting_poll() })
    }

    fn answer(self, body: Bytes, held: Option<Held>) -> Bytes {
        drop(self.waiting);
        keep(body, (self.place, held))
    }
}

/// What is JSON already. Whoever gets `nothing` because the prefill has failed is told so.
fn messages(app: &App, name: &SubscriptionName, body: Bytes, nothing: bool) -> Response {
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut answer = (StatusCode::OK, content_type, Extension(HoldsItsOwn), body).into_response();
    if nothing && let Some(status) = failed_prefill(app, name).and_then(prefill_status) {
        answer.headers_mut().insert(PREFILL_STATUS, status);
    }
    answer
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
