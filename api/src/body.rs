//! Bodies of requests: read whole, within bounds of size, time and memory.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    http::{
        HeaderMap,
        header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING},
    },
};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use model::json::{self, JsonError, JsonFault, PathPart};
use tokio::time::Instant;

use crate::{
    body_memory::{BODIES, BodyMemory, Held, OF_STRANGERS, OF_SUBSCRIBERS},
    error::{ApiError, Problem},
    fields::Fields,
};

/// Bytes of a body that is too large that are still read before the connection is cut.
const THROWN_AWAY: usize = 32 << 20;
/// Largest event that is read whole. It leaves room in the memory for bodies for a usual one.
const LARGEST_EVENT: usize = 48 << 20;
/// What is kept of a larger one.
const BEGINNING: usize = 64 * 1024;
/// Most bytes that are read of it. Nobody's directory holds such an object.
const ENDLESS: u64 = 1 << 30;
/// How long what is thrown away may take.
const THROWN_AWAY_WITHIN: Duration = Duration::from_secs(30);
/// Longest pause between two parts of a body that is not suspicious: a producer waits longer for an answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How much of a body is read, into which memory, and how long that may take.
#[derive(Clone, Copy)]
pub(crate) struct Allowance {
    /// Most bytes.
    limit: usize,
    memory: &'static BodyMemory,
    /// Is of one that is larger the beginning kept, instead of refusing it?
    keeps_beginning: bool,
    /// A body that takes longer is given up: it holds memory and, for an event, its place in the order is uncertain.
    within: Duration,
}

impl Allowance {
    /// Of one of the fixed users.
    pub(crate) const ROLE: Self =
        Self { limit: 1 << 20, memory: &BODIES, keeps_beginning: false, within: Duration::from_secs(60) };
    /// Of a subscription: it sends a password at most.
    pub(crate) const SUBSCRIBER: Self = Self { limit: 64 * 1024, memory: &OF_SUBSCRIBERS, ..Self::ROLE };
    /// Of somebody who is not let in.
    pub(crate) const STRANGER: Self =
        Self { limit: 64 * 1024, memory: &OF_STRANGERS, within: Duration::from_secs(10), ..Self::ROLE };

    /// Of an event. What NATS does not carry is read all the same: its producer would send it for ever.
    pub(crate) fn event() -> Self {
        Self { limit: LARGEST_EVENT, keeps_beginning: true, ..Self::ROLE }
    }
}

/// A body that was read whole.
pub(crate) struct JsonBody {
    pub(crate) text: Bytes,
    is_json: bool,
    /// What it takes of the memory for bodies.
    _held: Held<'static>,
    /// When it was there.
    pub arrived: Instant,
    /// Bytes of the whole, where only its beginning was kept.
    pub beginning_of: Option<u64>,
}

impl JsonBody {
    /// Reads a body. JSON that can't be parsed is refused.
    pub(crate) async fn read(
        headers: &HeaderMap,
        body: Body,
        allowance: Allowance,
    ) -> Result<Self, ApiError> {
        let Allowance { within, .. } = allowance;
        let text = tokio::time::timeout(within, read_up_to(headers, body, allowance));
        let Taken { text, held, arrived, beginning_of } =
            text.await.map_err(|_| ApiError::TooSlow(within))??;
        if !text.is_empty() {
            plain(headers)?;
        }
        let text = without_mark(text);
        let is_json = is_json(headers);
        if is_json && !text.is_empty() && beginning_of.is_none() {
            json::check(&text).map_err(|error| ApiError::invalid(problem(&text, &error)))?;
        }
        Ok(Self { text, is_json, _held: held, arrived, beginning_of })
    }

    /// The JSON text of a body, for tests of what is asked for in it.
    #[cfg(test)]
    pub(crate) fn of(value: &serde_json::Value) -> Self {
        let text = Bytes::from(value.to_string());
        Self { text, is_json: true, _held: Held::default(), arrived: Instant::now(), beginning_of: None }
    }

    /// Was nothing sent? Clients write that as `null`, too.
    pub(crate) fn is_nothing(&self) -> bool {
        self.text.is_empty() || (self.is_json && self.text.trim_ascii() == b"null")
    }

    /// The body's fields. Unknown ones are ignored by whoever looks.
    pub(crate) fn fields(&self) -> Result<Fields<'_>, ApiError> {
        let refuse = |msg: &str| ApiError::invalid(Problem::new(&[&"body"], "model_type", msg));
        if !self.is_json {
            return Err(refuse("send a JSON object, with Content-Type: application/json"));
        }
        serde_json::from_slice(&self.text).map_err(|_| refuse("the body must be a JSON object"))
    }
}

/// What was read of a body.
struct Taken {
    text: Bytes,
    held: Held<'static>,
    arrived: Instant,
    beginning_of: Option<u64>,
}

/// Reads a body whole. One that is too large is refused as soon as that is known, or its beginning is kept.
async fn read_up_to(
    headers: &HeaderMap,
    body: Body,
    Allowance { limit, memory, keeps_beginning, .. }: Allowance,
) -> Result<Taken, ApiError> {
    let mut held = Held::default();
    let mut arrived = Instant::now();
    let announced = body.size_hint().lower();
    let mut stream = body.into_data_stream();
    if keeps_beginning || usize::try_from(announced).is_ok_and(|announced| announced <= limit) {
        let (mut text, mut size, mut whole) = (BytesMut::new(), 0_u64, true);
        loop {
            let Some(chunk) = stream.next().await else {
                let beginning_of = (!whole).then_some(size);
                let arrived = moved_on(arrived, Instant::now());
                return Ok(Taken { text: text.freeze(), held, arrived, beginning_of });
            };
            let broken = |_| ApiError::invalid(Problem::new(&[&"body"], "body_broken", "the body broke off"));
            let chunk = chunk.map_err(broken)?;
            arrived = moved_on(arrived, Instant::now());
            size += chunk.len() as u64;
            if size > ENDLESS {
                break;
            }
            if !whole {
                continue;
            }
            if text.len() + chunk.len() > limit {
                if !keeps_beginning {
                    break;
                }
                text = BytesMut::from(&text[..text.len().min(BEGINNING)]);
                (whole, held) = (false, Held::default());
                continue;
            }
            memory.hold(&mut held, text.len() + chunk.len()).await?;
            text.extend_from_slice(&chunk);
        }
    }
    // A client that waits for a word before it sends does not send then.
    if !headers.contains_key(EXPECT) {
        tokio::spawn(tokio::time::timeout(THROWN_AWAY_WITHIN, throw_away(stream)));
    }
    Err(ApiError::TooLarge(limit))
}

/// Reads on beside the answer: a client that is cut off while it sends would never see it.
async fn throw_away(mut stream: BodyDataStream) {
    let mut size = 0_usize;
    while size <= THROWN_AWAY
        && let Some(Ok(chunk)) = stream.next().await
    {
        size = size.saturating_add(chunk.len());
    }
}

/// When a body that arrives in parts counts as arrived: with its last part. But a pause may mean that *we* slept
/// while the body waited in a buffer, and the producer has meanwhile sent newer events elsewhere; then it counts as
/// arrived before the pause, and is refused as too old.
fn moved_on(arrived: Instant, now: Instant) -> Instant {
    if now.saturating_duration_since(arrived) < LONGEST_PAUSE { now } else { arrived }
}

/// Refuses what is compressed, for the whole way or a part of it: nothing is unpacked here.
fn plain(headers: &HeaderMap) -> Result<(), ApiError> {
    let only = |header, plain: &str| {
        let values = headers.get_all(header).iter().map(|value| value.to_str().unwrap_or("?"));
        let mut codings = values.flat_map(|value| value.split(',')).map(str::trim);
        codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(plain))
    };
    let is_plain = only(CONTENT_ENCODING, "identity") && only(TRANSFER_ENCODING, "chunked");
    if is_plain { Ok(()) } else { Err(ApiError::UnknownCoding) }
}

/// A mark at the beginning is no part of the text (RFC 8259, 8.1).
fn without_mark(mut text: Bytes) -> Bytes {
    if text.starts_with(b"\xef\xbb\xbf") {
        text.advance(3);
    }
    text
}

/// Why a body is not taken, with the place in it.
fn problem(text: &[u8], error: &JsonError) -> Problem {
    let wide = text.iter().take(4).any(|byte| *byte == 0) || text.starts_with(b"\xff\xfe");
    let (kind, msg) = match error.why {
        JsonFault::Syntax | JsonFault::Encoding if wide || text.starts_with(b"\xfe\xff") => {
            ("json_invalid", "the body is UTF-16 or UTF-32: send JSON as UTF-8".to_owned())
        }
        JsonFault::Syntax => ("json_invalid", "the body is no valid JSON (UTF-8)".to_owned()),
        why @ JsonFault::Encoding => ("json_encoding", why.to_string()),
        why @ JsonFault::Surrogate => ("json_surrogate", why.to_string()),
        why @ JsonFault::Number => ("json_number", why.to_string()),
        why @ JsonFault::Depth => ("json_depth", why.to_string()),
    };
    let mut problem = Problem::new(&[&"body"], kind, msg);
    problem.loc.extend(error.path.iter().map(|part| match part {
        PathPart::Member(name) => name.as_str().into(),
        PathPart::Item(index) => (*index).into(),
    }));
    problem
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
    use axum::http::HeaderValue;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let begun = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b"{"))]);
        let body = Body::from_stream(begun.chain(futures::stream::pending()));
        let refused = JsonBody::read(&HeaderMap::new(), body, Allowance::ROLE).await;
        assert!(matches!(refused, Err(ApiError::TooSlow(within)) if within == Allowance::ROLE.within));
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

    #[tokio::test]
    async fn what_is_sent_is_read_or_the_place_is_named() {
        let mark = b"\xef\xbb\xbf";
        let utf16: Vec<u8> = "{\"a\": 1}".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (coding, sent, expected) in [
            (None, [mark, &b"{}"[..]].concat(), "{}"),
            (None, mark.to_vec(), ""),
            (None, [&mark[..], mark, b"{}"].concat(), "json_invalid [\"body\"]"),
            (None, b"".to_vec(), ""),
            (Some("identity"), b"{}".to_vec(), "{}"),
            (Some("gzip"), b"{}".to_vec(), "415"),
            (Some("identity, br"), b"{}".to_vec(), "415"),
            (Some("gzip"), b"".to_vec(), ""),
            (None, b"{\"a\": [1, \"\\ud83d\"]}".to_vec(), "json_surrogate [\"body\",\"a\",1]"),
            (None, b"{\"a\": 1e999}".to_vec(), "json_number [\"body\",\"a\"]"),
            (None, b"{\"a\": \"\xfc\"}".to_vec(), "json_encoding [\"body\",\"a\"]"),
            (None, utf16, "json_invalid [\"body\"]"),
            (None, b"{\"a\": NaN}".to_vec(), "json_invalid [\"body\",\"a\"]"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.extend(coding.map(|coding| (CONTENT_ENCODING, HeaderValue::from_static(coding))));
            let seen = match JsonBody::read(&headers, Body::from(sent.clone()), Allowance::ROLE).await {
                Ok(body) => String::from_utf8(body.text.to_vec()).unwrap(),
                Err(ApiError::UnknownCoding) => "415".to_owned(),
                Err(ApiError::Invalid(problems)) => {
                    format!("{} {}", problems[0].kind, serde_json::to_string(&problems[0].loc).unwrap())
                }
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(seen, expected, "{coding:?} {sent:?}");
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

    #[test]
    fn what_is_compressed_is_told_by_either_header() {
        for (name, value, is_plain) in [
            (CONTENT_ENCODING, "identity", true),
            (CONTENT_ENCODING, "Identity, ", true),
            (CONTENT_ENCODING, "chunked", false),
            (CONTENT_ENCODING, "zstd", false),
            (TRANSFER_ENCODING, "Chunked", true),
            (TRANSFER_ENCODING, "gzip, chunked", false),
            (TRANSFER_ENCODING, "identity", false),
        ] {
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            assert_eq!(plain(&headers).is_ok(), is_plain, "{name}: {value}");
        }
    }
}
