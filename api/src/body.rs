//! Bodies of requests: read whole, within bounds of size, time and memory.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::{
    budget::{BODIES, Held},
    error::{ApiError, Problem},
};

/// Largest body of anything but an event, in bytes.
pub(crate) const LARGEST_BODY: usize = 1 << 20;
/// Largest event of somebody who may not send any, in bytes: it is read because a broken one is told before a login.
pub(crate) const LARGEST_OF_STRANGERS: usize = 64 * 1024;
/// Bytes beyond a limit that are read before the connection is cut.
const THROWN_AWAY: usize = 32 << 20;
/// A body that takes longer is given up: it holds memory and, for an event, its place in the order is uncertain.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// Longest pause between two parts of a body that is not suspicious: a producer waits longer for an answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A body that was read whole. JSON that can't be parsed is refused here, before any look at credentials.
pub(crate) struct JsonBody {
    pub(crate) text: Bytes,
    is_json: bool,
    /// What it takes of the memory for bodies.
    _held: Held<'static>,
    /// When it was there.
    pub arrived: Instant,
}

impl JsonBody {
    pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, ApiError> {
        let text = tokio::time::timeout(BODY_WITHIN, read_up_to(body, limit));
        let (text, held, arrived) = text.await.map_err(|_| ApiError::TooSlow(BODY_WITHIN))??;
        let is_json = is_json(headers);
        if is_json && !text.is_empty() && serde_json::from_slice::<&RawValue>(&text).is_err() {
            let problem = Problem::new(&[&"body"], "json_invalid", "the body is no valid JSON (UTF-8)");
            return Err(ApiError::invalid(problem));
        }
        Ok(Self { text, is_json, _held: held, arrived })
    }

    /// The JSON text of a body, for tests of what is asked for in it.
    #[cfg(test)]
    pub(crate) fn of(value: &serde_json::Value) -> Self {
        let text = Bytes::from(value.to_string());
        Self { text, is_json: true, _held: Held::default(), arrived: Instant::now() }
    }

    /// The body's fields. Unknown ones are ignored by whoever looks.
    pub(crate) fn fields(&self) -> Result<BTreeMap<String, &RawValue>, ApiError> {
        let refuse = |msg: &str| ApiError::invalid(Problem::new(&[&"body"], "model_type", msg));
        if !self.is_json {
            return Err(refuse("send a JSON object, with Content-Type: application/json"));
        }
        serde_json::from_slice(&self.text).map_err(|_| refuse("the body must be a JSON object"))
    }
}

/// Reads a body whole. What is beyond the limit is thrown away, but read: a client that is cut off while it sends
/// would never see the answer.
async fn read_up_to(body: Body, limit: usize) -> Result<(Bytes, Held<'static>, Instant), ApiError> {
    let mut held = Held::default();
    let mut arrived = Instant::now();
    let mut stream = body.into_data_stream();
    let (mut text, mut size) = (BytesMut::new(), 0_usize);
    while let Some(chunk) = stream.next().await {
        let broken = |_| ApiError::invalid(Problem::new(&[&"body"], "body_broken", "the body broke off"));
        let chunk = chunk.map_err(broken)?;
        size = size.saturating_add(chunk.len());
        arrived = moved_on(arrived, Instant::now());
        if size <= limit {
            BODIES.hold(&mut held, size).await?;
            text.extend_from_slice(&chunk);
        } else if size <= limit.saturating_add(THROWN_AWAY) {
            (text, held) = (BytesMut::new(), Held::default());
        } else {
            break;
        }
    }
    if size > limit {
        Err(ApiError::TooLarge(limit))
    } else {
        Ok((text.freeze(), held, moved_on(arrived, Instant::now())))
    }
}

/// When a body that arrives in parts counts as arrived: with its last part. But a pause may mean that *we* slept
/// while the body waited in a buffer, and the producer has meanwhile sent newer events elsewhere; then it counts as
/// arrived before the pause, and is refused as too old.
fn moved_on(arrived: Instant, now: Instant) -> Instant {
    if now.saturating_duration_since(arrived) < LONGEST_PAUSE { now } else { arrived }
}

/// `application/json` or `application/*+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let begun = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b"{"))]);
        let body = Body::from_stream(begun.chain(futures::stream::pending()));
        let refused = JsonBody::read(&HeaderMap::new(), body, LARGEST_BODY).await;
        assert!(matches!(refused, Err(ApiError::TooSlow(BODY_WITHIN))));
    }

    #[test]
    fn a_body_arrives_with_its_last_part_unless_there_was_a_long_pause() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        for (parts_ms, arrived_ms) in [
            (&[][..], 0),
            (&[900, 1800, 2700], 2700),
            (&[900, 5000], 900),
            (&[900, 5000, 5100], 900),
            (&[3000], 0),
        ] {
            let arrived = parts_ms.iter().fold(began, |arrived, ms| moved_on(arrived, at(*ms)));
            assert_eq!(arrived, at(arrived_ms), "{parts_ms:?}");
        }
    }

    #[test]
    fn content_types() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.api+json", true),
            ("text/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(is_json(&headers), expected, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
