//! Failures and their answers: the one place where an error becomes a status and a body.

use std::time::Duration;

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use broker::{PublishError, ReadError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    code::Code,
    request_id::{REQUEST_ID, request_id},
};

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A password is not to be had.
    #[error("the password of one of the API's users can't be read")]
    Password(#[from] broker::SecretError),
    /// The certificate or its key is no good.
    #[error("HTTPS can't be served: {0}")]
    Certificate(String),
}

/// Most problems of one request that are reported.
const MOST_PROBLEMS: usize = 100;
/// Longest part of a place that is shown: names of fields may be made up.
const LONGEST_PART: usize = 64;

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Where: `["body", "realms_topics", 0, "topic"]`.
    pub loc: Vec<Value>,
    /// What is wrong and what to do. Never what was sent.
    pub msg: String,
    /// A word for programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
}

impl Problem {
    pub(crate) fn new(loc: &[&dyn Place], kind: &'static str, msg: impl Into<String>) -> Self {
        Self { loc: loc.iter().map(|place| place.value()).collect(), msg: msg.into(), kind }
    }
}

/// A part of a location: a field's name or an index.
pub(crate) trait Place {
    fn value(&self) -> Value;
}

impl Place for &str {
    fn value(&self) -> Value {
        self.chars().take(LONGEST_PART).collect::<String>().into()
    }
}

impl Place for usize {
    fn value(&self) -> Value {
        json!(self)
    }
}

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// 401. The words are those of the former service; clients don't read them.
    Unauthorized(&'static str),
    /// 404.
    NotFound(Code, String),
    /// 406: the client takes no form of answer that there is.
    NotAcceptable(&'static str),
    /// 409.
    Conflict(Code, String),
    /// 408: the body did not come within this time.
    TooSlow(Duration),
    /// 413: the body has more bytes than this.
    TooLarge(usize),
    /// 415: the body is compressed.
    UnknownCoding,
    /// 422.
    Invalid(Vec<Problem>),
    /// 429: again after this time.
    TooMany { detail: String, wait: Duration },
    /// 500: the entry of the subscription can't be read; the words say who can do what.
    Unreadable(String),
    /// 500, in the words of the former service: the queue of a registered subscription is lost.
    Broken,
    /// 500: the queue of a registered subscription was given up.
    GivenUp,
    /// 500: what trying again won't mend, such as a stored value that can't be read. The cause goes to the log.
    Internal { cause: String },
    /// 503: NATS is away.
    Away { cause: String },
    /// 503: something else behind us is away.
    Unavailable { detail: &'static str, cause: String },
    /// 503: the event log is full.
    LogFull { cause: String },
    /// 503: the event was not placed in time.
    EventLate { cause: String },
}

pub(crate) const NOT_AUTHENTICATED: ApiError = ApiError::Unauthorized("Not authenticated");
pub(crate) const WRONG_CREDENTIALS: ApiError = ApiError::Unauthorized("Incorrect username or password");
pub(crate) const NO_ACCESS: ApiError = ApiError::Unauthorized("You do not have access to this data");

impl ApiError {
    pub(crate) fn invalid(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }

    pub(crate) fn unavailable(detail: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Unavailable { detail, cause: model::error_chain(error) }
    }
}

/// A subscription has as many of something as it may have at once.
pub(crate) fn too_many(what: &str, limit: usize) -> ApiError {
    ApiError::TooMany {
        detail: format!(
            "This subscription has {limit} {what} open, as many as it may have at once: end one of them"
        ),
        wait: Duration::from_secs(2),
    }
}

impl From<broker::Error> for ApiError {
    fn from(error: broker::Error) -> Self {
        if error.is_transient() {
            Self::Away { cause: model::error_chain(&error) }
        } else {
            Self::Internal { cause: model::error_chain(&error) }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone => {
                Self::NotFound(Code::NoSubscription, "The subscription does not exist any more".to_owned())
            }
            // Not 404: to a consumer that has just registered that would say that nothing is there.
            ReadError::Replaced => Self::Unavailable {
                detail: "The subscription was registered again; try again",
                cause: "this replica knew only the former one".to_owned(),
            },
            ReadError::Broken => Self::Broken,
            ReadError::GivenUp => Self::GivenUp,
            ReadError::Other(error) => error.into(),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { limit, .. } => Self::TooLarge(limit),
            PublishError::Full => Self::LogFull { cause: error.to_string() },
            PublishError::Late => Self::EventLate { cause: error.to_string() },
            PublishError::Other(error) => error.into(),
        }
    }
}

/// A JSON answer with its length, in compact form.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_else(|_| b"null".to_vec());
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

/// The answer of every success without a payload.
pub(crate) fn null(status: StatusCode) -> Response {
    json(status, &())
}

/// The body of a failure: the detail, as the former service has it, and the members of RFC 9457.
fn failure(status: StatusCode, code: Code, detail: &str) -> Value {
    let kind = format!("urn:headstart:error:{}", code.as_str());
    json!({"detail": detail, "code": code.as_str(), "type": kind, "title": code.title(), "status": status.as_u16()})
}

/// The answer to a method that a path does not know.
pub(crate) fn method_not_allowed() -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    json(status, &failure(status, Code::MethodNotAllowed, "Method Not Allowed"))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let answer = |status, code, detail: &str| json(status, &failure(status, code, detail));
        let with = |mut answer: Response, name, value| {
            answer.headers_mut().insert(name, value);
            answer
        };
        match self {
            Self::Unauthorized(text) => {
                let code = match text {
                    "Not authenticated" => Code::NotAuthenticated,
                    "You do not have access to this data" => Code::NotYours,
                    _ => Code::WrongCredentials,
                };
                let basic = HeaderValue::from_static("Basic");
                with(answer(StatusCode::UNAUTHORIZED, code, text), WWW_AUTHENTICATE, basic)
            }
            Self::NotFound(code, text) => answer(StatusCode::NOT_FOUND, code, &text),
            Self::NotAcceptable(text) => answer(StatusCode::NOT_ACCEPTABLE, Code::NotAcceptable, text),
            Self::Conflict(code, text) => answer(StatusCode::CONFLICT, code, &text),
            Self::TooSlow(within) => {
                let text = format!("The body did not arrive within {} seconds", within.as_secs());
                answer(StatusCode::REQUEST_TIMEOUT, Code::BodyTooSlow, &text)
            }
            Self::TooLarge(limit) => {
                let text = format!("The body is larger than {limit} bytes");
                answer(StatusCode::PAYLOAD_TOO_LARGE, Code::BodyTooLarge, &text)
            }
            Self::UnknownCoding => {
                let text = "The body is compressed: send it as it is, without Content-Encoding (or gzip as Transfer-Encoding)";
                let identity = HeaderValue::from_static("identity");
                let answer = answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::UnknownCoding, text);
                with(answer, ACCEPT_ENCODING, identity)
            }
            Self::Invalid(mut problems) => {
                let all = problems.len();
                problems.truncate(MOST_PROBLEMS);
                let lines: Vec<String> = problems.iter().map(describe).collect();
                let message = format!("{all} validation error(s): {}", lines.join("; "));
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                let mut body = failure(status, Code::Invalid, &message);
                // The keys of the former service.
                body["status_code"] = json!(422);
                body["message"] = message.into();
                body["data"] = Value::Null;
                body["errors"] = json!(problems);
                json(status, &body)
            }
            Self::TooMany { detail, wait } => {
                let seconds = HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64);
                with(answer(StatusCode::TOO_MANY_REQUESTS, Code::TooMany, &detail), RETRY_AFTER, seconds)
            }
            Self::Unreadable(text) => answer(StatusCode::INTERNAL_SERVER_ERROR, Code::Unreadable, &text),
            Self::Broken => {
                tracing::error!(
                    "the queue of a registered subscription does not exist: delete and register again"
                );
                let text = "Inconsistent message queue state in NATS";
                answer(StatusCode::INTERNAL_SERVER_ERROR, Code::QueueLost, text)
            }
            Self::GivenUp => answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                Code::QueueGivenUp,
                "The queue was full and was given up: its events are lost. Remove the subscription and register it again",
            ),
            Self::Internal { cause } => {
                tracing::error!(error = cause, "a request is answered with 500");
                answer(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "Internal server error")
            }
            Self::Away { cause } => later(
                Code::Unavailable,
                "The message queue is not available at the moment; try again",
                &cause,
            ),
            Self::Unavailable { detail, cause } => later(Code::Unavailable, detail, &cause),
            Self::LogFull { cause } => {
                let text = "The event log is full because a consumer does not read; try again later";
                later(Code::LogFull, text, &cause)
            }
            Self::EventLate { cause } => {
                later(Code::EventLate, "The event could not be placed in time; send it again", &cause)
            }
        }
    }
}

/// 503: the client is to try again.
fn later(code: Code, detail: &str, cause: &str) -> Response {
    tracing::warn!(error = cause, "a request is answered with 503");
    try_again(code, detail)
}

/// 503 to a request that does not come as far as to the routes.
pub(crate) fn before_routes(code: Code, detail: &str, headers: &HeaderMap) -> Response {
    let mut answer = try_again(code, detail);
    answer.headers_mut().insert(REQUEST_ID, request_id(headers));
    answer
}

fn try_again(code: Code, detail: &str) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let mut answer = json(status, &failure(status, code, detail));
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    answer
}

fn describe(problem: &Problem) -> String {
    let place = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let places: Vec<String> = problem.loc.iter().map(place).collect();
    format!("{}: {}", places.join("."), problem.msg)
}
