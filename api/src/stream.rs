//! `/v1/subscriptions/{name}/messages/stream`: messages as they come, over one answer that does not end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use broker::{Delivered, QueueStream, ReadError, StreamEnd};
use bytes::Bytes;
use model::{Subscription, SubscriptionName};
use tokio::{sync::watch, time::Instant};

use crate::{
    access::LoggedIn,
    answers::{Owner, keep},
    concurrency_limits::ConcurrencyPermit,
    error::{ApiError, Problem, too_many},
    failed_prefill::{PREFILL_STATUS, failed_prefill, prefill_status},
    metrics::Counted,
    query::{Pairs, Parameters},
    state::{App, Shared},
};

/// The last event that a client got, as browsers send it when they connect again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often the password of a stream is looked at while messages come; else it is with each heartbeat.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Pause of a stream whose subscription has too many bytes that it has not taken.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(200);
/// Tells proxies not to hold messages back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Server-sent events.
    Events,
    /// One JSON object a line.
    Lines,
}

/// How much a client wants a form of answer.
#[derive(Clone, Copy)]
struct Wanted {
    /// The place of the range among those of the form.
    specific: usize,
    weight: f32,
    /// The place of the range in what the client accepts.
    place: usize,
}

impl Format {
    /// What the client prefers of what it accepts; of equals the first.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let values: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let accept = values.join(",");
        if accept.trim().is_empty() {
            return Some(Self::Events);
        }
        // The most specific range that names a form says how much it is wanted (RFC 9110, 12.5.1).
        let mut wanted = [None::<Wanted>; 2];
        for (place, range) in accept.split(',').enumerate() {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|p| p.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('='));
            let weight = weight.map_or(Some(1.0), |q| q.trim().parse().ok());
            let weight = weight.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
            for (format, known) in [Self::Events, Self::Lines].into_iter().zip(&mut wanted) {
                let Some(specific) = format.ranges().iter().position(|range| *range == media_type) else {
                    continue;
                };
                if known.is_none_or(|known| specific < known.specific) {
                    *known = Some(Wanted { specific, weight, place });
                }
            }
        }
        let [events, lines] = wanted.map(|wanted| wanted.filter(|wanted| wanted.weight > 0.0));
        match (events, lines) {
            (None, None) => None,
            (Some(events), Some(lines)) => {
                let first = (events.weight, lines.place) >= (lines.weight, events.place);
                Some(if first { Self::Events } else { Self::Lines })
            }
            (Some(_), None) => Some(Self::Events),
            (None, Some(_)) => Some(Self::Lines),
        }
    }

    /// The ranges that name it, the most specific first.
    fn ranges(self) -> [&'static str; 3] {
        match self {
            Self::Events => ["text/event-stream", "text/*", "*/*"],
            Self::Lines => ["application/x-ndjson", "application/*", "*/*"],
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        })
    }

    /// Says that the connection is alive.
    fn heartbeat(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Events => b":\n\n",
            Self::Lines => b"\n",
        })
    }

    fn messages(self, messages: &[Delivered]) -> Bytes {
        let mut text = Vec::with_capacity(messages.iter().map(|m| m.payload.len() + 64).sum());
        for Delivered { payload, id, .. } in messages {
            let id = id.to_string();
            match self {
                Self::Events => {
                    text.extend_from_slice(format!("id: {id}\nevent: message\ndata: ").as_bytes());
                    one_line(payload, &mut text);
                    text.extend_from_slice(b"\n\n");
                }
                Self::Lines => {
                    one_line(payload.strip_suffix(b"}").unwrap_or(payload), &mut text);
                    text.extend_from_slice(format!(",\"event_id\":\"{id}\"}}\n").as_bytes());
                }
            }
        }
        Bytes::from(text)
    }

    /// The state of the prefill, for a client to which nothing comes because it has failed.
    fn prefill(self, state: &str, reason: Option<&str>) -> Bytes {
        let reason = reason.map(|reason| format!(",\"reason\":\"{reason}\"")).unwrap_or_default();
        let state = format!("{{\"state\":\"{state}\"{reason}}}");
        Bytes::from(match self {
            Self::Events => format!("event: prefill\ndata: {state}\n\n"),
            Self::Lines => format!("{{\"prefill\":{state}}}\n"),
        })
    }

    fn end(self, reason: &str) -> Bytes {
        Bytes::from(match self {
            Self::Events => format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n"),
            Self::Lines => format!("{{\"end\":\"{reason}\"}}\n"),
        })
    }
}

/// Writes JSON in one line. Line ends can only stand between its parts, where a blank means the same: within strings
/// they are escaped. But other characters may be in strings that some readers, as Python's, take for line ends.
fn one_line(json: &[u8], text: &mut Vec<u8>) {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0xc2 | 0xe2)) {
        text.extend_from_slice(&rest[..at]);
        let (written, taken): (&[u8], usize) = match &rest[at..] {
            [b'\n' | b'\r', ..] => (b" ", 1),
            [0xc2, 0x85, ..] => (b"\\u0085", 2),
            [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
            [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
            other => (&other[..1], 1),
        };
        text.extend_from_slice(written);
        rest = &rest[at + taken..];
    }
    text.extend_from_slice(rest);
}

pub(crate) async fn open(
    State(app): Shared,
    own: LoggedIn,
    query: Pairs,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query);
    let (window, after) = (parameters.window(), parameters.after());
    parameters.finish()?;
    // A browser that connects again keeps the address, so the header is newer.
    let after = match headers.get(&LAST_EVENT_ID) {
        Some(id) => Some(id.to_str().ok().and_then(|id| id.parse().ok()).ok_or_else(|| unknown_id(true))?),
        None => after,
    };
    let format = Format::accepted(&headers).ok_or(ApiError::NotAcceptable(
        "This is answered as text/event-stream or application/x-ndjson: send one of them as Accept",
    ))?;
    let Subscription { name, incarnation, .. } = &own.entry.value;
    let place = app.streams.take(name).ok_or_else(|| too_many("streams", app.streams.each()))?;
    let queue = app.readers.stream(name, *incarnation, window, after, app.life.end()).await?;
    let queue = queue.ok_or_else(|| unknown_id(headers.contains_key(&LAST_EVENT_ID)))?;
    let failed = failed_prefill(&app, name);
    let stream = Stream {
        _open: (app.metrics.open_stream(), place),
        looked_at: Instant::now(),
        told: None,
        changes: app.view.changes(),
        app,
        own,
        queue,
        format,
    };
    // Nothing is read before the client has taken what was read before: the body is only asked for when there is room
    // towards the client. When the client goes, all of this is dropped.
    let chunks = futures::stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        let (chunk, ended) = stream.chunk().await;
        Some((Ok::<_, Infallible>(chunk), (!ended).then_some(stream)))
    });
    let headers = [
        (CONTENT_TYPE, format.content_type()),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    let mut answer = (StatusCode::OK, headers, Body::from_stream(chunks)).into_response();
    if let Some(status) = failed.and_then(prefill_status) {
        answer.headers_mut().insert(PREFILL_STATUS, status);
    }
    Ok(answer)
}

/// A stream that is open.
struct Stream {
    app: Arc<App>,
    own: LoggedIn,
    queue: QueueStream,
    format: Format,
    /// When the password was looked at for the last time.
    looked_at: Instant,
    /// Why the prefill has failed, as the client was told.
    told: Option<&'static str>,
    changes: watch::Receiver<u64>,
    _open: (Counted, ConcurrencyPermit),
}

impl Stream {
    /// The next part of the answer, and whether it is the last one.
    async fn chunk(&mut self) -> (Bytes, bool) {
        let name = &self.own.entry.value.name;
        let failed = failed_prefill(&self.app, name);
        if failed != self.told {
            return (self.tell(), false);
        }
        // A client that does not take what it was sent over other connections gets nothing more.
        while self.app.answers.room(Owner::Subscription(name)).is_err() {
            tokio::time::sleep(NO_ROOM_PAUSE).await;
        }
        self.app.reads.note(self.app.broker.last_reads(), &self.own.entry.value);
        let messages = tokio::select! {
            messages = self.queue.next(self.app.config.stream_heartbeat) => messages,
            () = changed(&self.app, name, failed, &mut self.changes) => {
                return (self.tell(), false);
            }
        };
        let messages = match messages {
            Ok(messages) => messages,
            Err(end) => {
                if let StreamEnd::Failed(
                    error @ (ReadError::Broken | ReadError::GivenUp | ReadError::Other(_)),
                ) = &end
                {
                    tracing::error!(error = model::error_chain(error), "a stream ends");
                }
                return (self.format.end(reason(&end)), true);
            }
        };
        if messages.is_empty() || self.looked_at.elapsed() >= LOOK_AGAIN_AFTER {
            // NATS away does not end a stream.
            if let Ok(false) = self.app.auth.is_current(&self.own).await {
                return (self.format.end("password"), true);
            }
            self.looked_at = Instant::now();
        }
        if messages.is_empty() {
            return (self.format.heartbeat(), false);
        }
        self.app.metrics.delivered(&messages);
        let chunk = self.format.messages(&messages);
        let held = self.app.answers.hold_anyway(Owner::Subscription(name), chunk.len());
        (keep(chunk, held), false)
    }
}

impl Stream {
    /// That the prefill has failed, or has been asked for again.
    fn tell(&mut self) -> Bytes {
        let entry = self.app.view.get(self.own.entry.value.name.as_str());
        let state = entry.map_or("failed", |entry| entry.value.prefill.state.as_str());
        self.told = failed_prefill(&self.app, &self.own.entry.value.name);
        self.format.prefill(state, self.told)
    }
}

/// Waits until the prefill has failed, or has no longer.
async fn changed(
    app: &App,
    name: &SubscriptionName,
    failed: Option<&'static str>,
    changes: &mut watch::Receiver<u64>,
) {
    while failed_prefill(app, name) == failed {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The word that tells a client why.
fn reason(end: &StreamEnd) -> &'static str {
    match end {
        StreamEnd::Stopping => "stopping",
        StreamEnd::Failed(ReadError::Gone | ReadError::Replaced) => "removed",
        StreamEnd::Failed(ReadError::Broken | ReadError::GivenUp) => "broken",
        StreamEnd::Failed(ReadError::Other(_)) => "error",
    }
}

fn unknown_id(in_header: bool) -> ApiError {
    let (place, field) = if in_header { ("header", "last-event-id") } else { ("query", "after") };
    let expected = model::delivery::EventIdError.to_string();
    ApiError::invalid(Problem::new(&[&place, &field], "event_id", expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        use Format::{Events, Lines};
        for (accept, expected) in [
            (&[][..], Some(Events)),
            (&[""], Some(Events)),
            (&["*/*"], Some(Events)),
            (&["text/event-stream"], Some(Events)),
            (&["Text/Event-Stream; charset=utf-8"], Some(Events)),
            (&["application/x-ndjson"], Some(Lines)),
            (&["application/json, application/x-ndjson"], Some(Lines)),
            (&["application/x-ndjson, text/event-stream"], Some(Lines)),
            (&["application/x-ndjson;q=0.5, text/event-stream"], Some(Events)),
            (&["application/x-ndjson", "text/html"], Some(Lines)),
            (&["application/x-ndjson;q=0"], None),
            (&["text/event-stream;q=0, */*"], Some(Lines)),
            (&["text/event-stream; Q=0.0, application/x-ndjson"], Some(Lines)),
            (&["application/x-ndjson;q=0, */*"], Some(Events)),
            (&["text/*;q=0.2, */*;q=0.1"], Some(Events)),
            (&["*/*;q=0.9, text/event-stream;q=0.1"], Some(Lines)),
            (&["application/x-ndjson, */*"], Some(Lines)),
            (&["*/*;q=0"], None),
            (&["text/event-stream;q=x"], None),
            (&["text/event-stream;q=2"], None),
            (&["application/json"], None),
            (&["text/html, image/*"], None),
        ] {
            let headers = accept.iter().map(|value| (ACCEPT, value.parse().unwrap())).collect();
            assert_eq!(Format::accepted(&headers), expected, "{accept:?}");
        }
    }

    #[test]
    fn what_is_written() {
        let payload = Bytes::from("{\"a\":\r\n\"\u{85}\u{2028}\u{2029} \u{e9}\u{20ac}\"}");
        let messages = [Delivered { payload, id: "p300".parse().unwrap(), num_delivered: 1, accepted: None }];
        for (format, written, heartbeat, end) in [
            (
                Format::Events,
                "id: p300\nevent: message\ndata: {\"a\":  \"\\u0085\\u2028\\u2029 é€\"}\n\n",
                ":\n\n",
                "event: end\ndata: {\"reason\":\"removed\"}\n\n",
            ),
            (
                Format::Lines,
                "{\"a\":  \"\\u0085\\u2028\\u2029 é€\",\"event_id\":\"p300\"}\n",
                "\n",
                "{\"end\":\"removed\"}\n",
            ),
        ] {
            assert_eq!(format.messages(&messages), written);
            assert_eq!(format.heartbeat(), heartbeat);
            assert_eq!(format.end("removed"), end);
        }
    }
}
