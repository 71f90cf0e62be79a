//! Answers as UDM gives them, whole or broken.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use futures::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::faults::Effect;
use crate::json::{self, Members};

/// The pieces of a body.
pub type Chunks = stream::BoxStream<'static, String>;

/// A JSON answer in one piece.
pub fn json(status: StatusCode, body: String) -> Response<Body> {
    with_headers(status, &[(header::CONTENT_TYPE, "application/json")], Body::from(body))
}

/// UDM's JSON for an error.
pub fn error(code: u16, message: &str, address: &str) -> Response<Body> {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut error = Members::default();
    if code >= 500 {
        error.string(
            "traceback",
            "Traceback (most recent call last):\n  File \"module.py\", line 1, in get\n",
        );
    }
    let title = if code == 422 { "Unprocessable Entity" } else { "" };
    error.number("code", u64::from(code)).string("title", title).string("message", message);
    error.raw("error", "{}");
    let mut body = Members::default();
    body.raw("error", &error.into_object());
    let mut own = Members::default();
    own.string("title", &format!("HTTP-Error {code}: {title}")).string("href", address);
    body.raw("_links", &format!("{{\"self\": [{}]}}", own.into_object()));
    json(status, body.into_object())
}

/// 422: a parameter of the query is wrong.
pub fn unprocessable(parameter: &str, problem: &str, address: &str) -> Response<Body> {
    let mut error = Members::default();
    let is_query = parameter != "position";
    let message = match is_query {
        true => format!("1 error(s) occurred:\nQuery string \"{parameter}\": {problem}\n"),
        false => format!("1 error(s) occurred:\nRequest argument \"{parameter}\" {problem}\n"),
    };
    error.number("code", 422).string("title", "Unprocessable Entity").string("message", &message);
    let mut parameters = Members::default();
    parameters.string(parameter, problem);
    let parameters = parameters.into_object();
    match is_query {
        true => error.raw("error", &format!("{{\"query_string\": {parameters}}}")),
        false => error.raw("error", &parameters),
    };
    let mut detail = Members::default();
    detail.strings("location", ["query", parameter]).string("message", problem).string("type", "value_error");
    let mut own = Members::default();
    own.string("title", "HTTP-Error 422: Unprocessable Entity").string("href", address);
    let mut body = Members::default();
    body.raw("error", &error.into_object());
    body.raw("_embedded", &format!("{{\"udm:error\": [{}]}}", detail.into_object()));
    body.raw("_links", &format!("{{\"self\": [{}]}}", own.into_object()));
    json(StatusCode::UNPROCESSABLE_ENTITY, body.into_object())
}

/// 406: only HTML was asked for. No body.
pub fn not_acceptable() -> Response<Body> {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=UTF-8")];
    with_headers(StatusCode::NOT_ACCEPTABLE, &headers, Body::empty())
}

/// 401: no body at all.
pub fn unauthorized() -> Response<Body> {
    let challenge = "Basic realm=\"Univention Directory Manager\"";
    let headers = [(header::CONTENT_TYPE, "text/html; charset=UTF-8"), (header::WWW_AUTHENTICATE, challenge)];
    with_headers(StatusCode::UNAUTHORIZED, &headers, Body::empty())
}

/// 503 of the gateway, whose backend is away: a JSON string, and two types of content.
pub fn backend_down(retry_after: &str) -> Response<Body> {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=UTF-8"), (header::RETRY_AFTER, retry_after)];
    let body = json::string("The Univention Directory Manager REST service is currently not available.");
    let mut answer = with_headers(StatusCode::SERVICE_UNAVAILABLE, &headers, Body::from(body));
    answer.headers_mut().append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// 301.
pub fn moved(to: &str) -> Response<Body> {
    with_headers(StatusCode::MOVED_PERMANENTLY, &[(header::LOCATION, to)], Body::empty())
}

/// The answer of a rule that needs no object; `None` if the request is to be served, whole or broken.
pub fn instead(effect: &Effect, target: &str, address: &str) -> Option<Response<Body>> {
    let retry_after = |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
    match effect {
        Effect::Status { code: 401 } => Some(unauthorized()),
        Effect::Status { code } => Some(error(*code, "as the stand-in was told", address)),
        Effect::LdapDown { retry_after: given } => {
            let mut answer = error(503, "The LDAP Server is not running.", address);
            let value = HeaderValue::from_str(&retry_after(given, "15"));
            answer.headers_mut().extend(value.map(|value| (header::RETRY_AFTER, value)));
            Some(answer)
        }
        Effect::BackendDown { retry_after: given } => Some(backend_down(&retry_after(given, "3"))),
        Effect::Html => {
            let headers = [(header::CONTENT_TYPE, "text/html")];
            Some(with_headers(StatusCode::OK, &headers, Body::from("<!DOCTYPE html><title>Login</title>")))
        }
        Effect::Redirect { to } => Some(moved(&format!("{to}{target}"))),
        Effect::Delay { .. }
        | Effect::Hang
        | Effect::HangInBody { .. }
        | Effect::Cut { .. }
        | Effect::Truncate { .. }
        | Effect::Vanish
        | Effect::Move { .. }
        | Effect::Replace { .. }
        | Effect::Unload { .. }
        | Effect::VanishAfter => None,
    }
}

/// What happens before a request is served.
pub async fn wait(effect: Option<&Effect>, end: &CancellationToken) {
    match effect {
        Some(Effect::Delay { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        Some(Effect::Hang) => end.cancelled().await,
        _ => {}
    }
}

/// A body as it is sent: whole, or broken by the rule.
pub fn body(chunks: Chunks, effect: Option<&Effect>, end: &CancellationToken) -> Body {
    let whole = |chunks: Chunks| chunks.map(|chunk| Ok::<_, io::Error>(Bytes::from(chunk)));
    let cut = || Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut as the stand-in was told"));
    match effect {
        Some(Effect::Truncate { bytes }) => Body::from_stream(whole(first(chunks, *bytes))),
        Some(Effect::Cut { bytes }) => {
            // Once more to the scheduler, so that what was sent is on its way before the connection dies.
            let last = stream::once(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                cut()
            });
            Body::from_stream(whole(first(chunks, *bytes)).chain(last))
        }
        Some(Effect::HangInBody { bytes }) => {
            let end = end.clone();
            let last = stream::once(async move {
                end.cancelled().await;
                cut()
            });
            Body::from_stream(whole(first(chunks, *bytes)).chain(last))
        }
        Some(Effect::Replace { from, to }) => {
            let (from, to) = (from.clone(), to.clone());
            Body::from_stream(whole(chunks.map(move |chunk| chunk.replace(&from, &to)).boxed()))
        }
        _ => Body::from_stream(whole(chunks)),
    }
}

/// The first bytes of a text in pieces; all of it is ASCII.
fn first(chunks: Chunks, bytes: usize) -> Chunks {
    let cut = |left: &mut usize, chunk: String| {
        let piece = chunk.get(..chunk.len().min(*left)).unwrap_or_default().to_owned();
        let more = *left > 0;
        *left -= piece.len();
        futures::future::ready(more.then_some(piece))
    };
    chunks.scan(bytes, cut).boxed()
}

/// Groups small pieces, so that a list of a million entries is not a million writes.
pub fn grouped(pieces: impl Iterator<Item = String> + Send + 'static) -> impl Stream<Item = String> + Send {
    const SIZE: usize = 64 * 1024;
    let mut pieces = pieces.peekable();
    stream::iter(std::iter::from_fn(move || {
        pieces.peek()?;
        let mut group = String::with_capacity(SIZE + 1024);
        while group.len() < SIZE {
            let Some(piece) = pieces.next() else { break };
            group.push_str(&piece);
        }
        Some(group)
    }))
}

/// An answer with its headers. A value that is no header value is left out.
pub fn with_headers(status: StatusCode, headers: &[(HeaderName, &str)], body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    for (name, value) in headers {
        answer.headers_mut().extend(HeaderValue::from_str(value).map(|value| (name.clone(), value)));
    }
    answer
}
