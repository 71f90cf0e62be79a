//! The few requests of JetStream that everything else is made of.

use std::time::Duration;

use async_nats::{
    Client, HeaderMap,
    client::{Request, RequestErrorKind},
    jetstream::{self, message::StreamMessage, stream::RawMessage},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use crate::{Error, names};

/// JetStream's error codes that decide something.
pub(crate) mod code {
    /// `STREAM_WRONG_LAST_SEQUENCE`, and its form without the number.
    pub const WRONG_LAST: [u64; 2] = [10071, 10164];
    /// `STREAM_STORE_FAILED`: a limit of the stream, or the disk is full.
    pub const STORE_FAILED: u64 = 10077;
    pub const STREAM_NOT_FOUND: u64 = 10059;
    /// `STREAM_NOT_MATCH`: the subject belongs to another stream than the publisher expects.
    pub const STREAM_NOT_MATCH: u64 = 10060;
    pub const STREAM_NAME_EXISTS: u64 = 10058;
    pub const SUBJECT_OVERLAP: u64 = 10065;
    /// No message with that number.
    pub const NO_MESSAGE: [u64; 3] = [10037, 10043, 10057];
}

/// Room that our headers and those of JetStream may need on top of a payload, in bytes.
const HEADER_ROOM: usize = 64 * 1024;

/// How long a request may take before its outcome counts as unknown.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// One message to publish.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// Why a publish did not happen, or may not have happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The condition does not hold. Carries the server's words, which name the last sequence.
    #[error("{0}")]
    WrongLast(String),
    /// A limit of the stream.
    #[error("{0}")]
    Full(String),
    /// The server says that the stream is gone, or that another one has the subject.
    #[error("the stream is gone")]
    NoStream,
    /// Nobody listens on the subject: no stream has it, or its leader is away. Nothing was written.
    #[error("nobody answers")]
    Nobody,
    /// Refused because of a state that passes: certainly not written, and the same may succeed later.
    #[error("{0}")]
    NotWritten(Error),
    /// No answer: it may have happened.
    #[error("{0}")]
    Unknown(Error),
    /// Anything else.
    #[error("{0}")]
    Other(Error),
}

impl Refusal {
    pub(crate) fn into_error(self, action: &str) -> Error {
        let refused =
            |code, description: String| Error::Refused { action: action.to_owned(), code, description };
        match self {
            Self::WrongLast(text) => refused(code::WRONG_LAST[0], text),
            Self::Full(text) => refused(code::STORE_FAILED, text),
            Self::NoStream => refused(code::STREAM_NOT_FOUND, "stream not found".to_owned()),
            // In a cluster nobody answers whenever a leader is gone, has just changed or was just made.
            Self::Nobody => Error::unavailable(action, "the stream does not exist, or its leader is away"),
            Self::NotWritten(error) | Self::Unknown(error) | Self::Other(error) => error,
        }
    }
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    error: Option<ApiError>,
    #[serde(flatten)]
    value: Option<T>,
}

#[derive(Deserialize)]
struct PubAck {
    seq: u64,
}

/// Connection and JetStream context.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub client: Client,
    pub js: jetstream::Context,
    /// How many connections have broken so far.
    broken: watch::Receiver<u64>,
}

/// The connection as it is at one moment.
#[derive(Debug)]
pub(crate) struct Connection(watch::Receiver<u64>);

/// The connection has broken: what was asked on it is never answered, and may have happened.
#[derive(Debug, thiserror::Error)]
#[error("the connection broke before the answer came")]
pub(crate) struct Broken;

impl Connection {
    /// Waits for something for as long as the connection lasts. The client itself would wait for its time-out.
    pub(crate) async fn lasts_for<T>(&mut self, asked: impl Future<Output = T>) -> Result<T, Broken> {
        tokio::select! {
            biased;
            answer = asked => Ok(answer),
            () = self.broken() => Err(Broken),
        }
    }

    /// Returns when it has broken.
    pub(crate) async fn broken(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Times that a read is asked again on another connection.
const READS: u32 = 3;

impl Wire {
    /// `broken` counts the connections of this client that have broken.
    pub(crate) fn new(client: Client, broken: watch::Receiver<u64>) -> Self {
        let js = jetstream::ContextBuilder::new().timeout(TIMEOUT).ack_timeout(TIMEOUT).build(client.clone());
        Self { client, js, broken }
    }

    /// The connection that is used from now on. To be taken before something is asked on it.
    pub(crate) fn connection(&self) -> Connection {
        let mut broken = self.broken.clone();
        broken.mark_unchanged();
        Connection(broken)
    }

    /// How many connections have broken so far: what is remembered of a server may not hold for the next one, which
    /// may have been restored from a backup.
    pub(crate) fn connections_broken(&self) -> u64 {
        *self.broken.borrow()
    }

    /// Largest event or object in bytes: the server's `max_payload` less room for headers.
    pub(crate) fn largest_message(&self) -> usize {
        self.client.max_payload().saturating_sub(HEADER_ROOM)
    }

    /// A request of JetStream's API, such as `STREAM.INFO.x`. JetStream's refusal becomes [`Error::Refused`].
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        action: &str,
        subject: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.api_once(action, subject, body)
            .await
            .unwrap_or_else(|broken| Err(Error::unavailable(action, broken)))
    }

    /// The same, for what may be asked again when the connection breaks.
    async fn api_once<T: DeserializeOwned>(
        &self,
        action: &str,
        subject: &str,
        body: &impl Serialize,
    ) -> Result<Result<T, Error>, Broken> {
        let asked = self.js.request(subject.to_owned(), body);
        let answer: Result<Answer<T>, _> = self.connection().lasts_for(asked).await?;
        Ok(match answer {
            Err(error) => Err(Error::unavailable(action, error)),
            Ok(Answer { error: Some(error), .. }) => Err(Error::Refused {
                action: action.to_owned(),
                code: error.err_code,
                description: error.description,
            }),
            Ok(Answer { value: Some(value), .. }) => Ok(value),
            Ok(Answer { .. }) => Err(Error::corrupt(format!("the answer to {subject}"), "no known field")),
        })
    }

    /// Publishes one message and waits for its acknowledgement; answers its sequence.
    pub(crate) async fn publish(&self, message: Outgoing) -> Result<u64, Refusal> {
        let action = format!("publishing to {}", message.subject);
        let answer = self.ask(&action, message).await?;
        let answer: Answer<PubAck> = serde_json::from_slice(&answer)
            .map_err(|e| Refusal::Unknown(Error::corrupt(format!("the acknowledgement of {action}"), e)))?;
        match (answer.error, answer.value) {
            (Some(error), _) => Err(refusal(&action, error)),
            (None, Some(ack)) => Ok(ack.seq),
            (None, None) => Err(Refusal::Unknown(Error::corrupt(
                format!("the acknowledgement of {action}"),
                "no sequence",
            ))),
        }
    }

    /// Sends one message and answers what came back.
    async fn ask(&self, action: &str, message: Outgoing) -> Result<Bytes, Refusal> {
        let request = Request::new().payload(message.payload).headers(message.headers).timeout(Some(TIMEOUT));
        let asked = self.client.send_request(message.subject, request);
        match self.connection().lasts_for(asked).await {
            Err(broken) => Err(Refusal::Unknown(Error::unavailable(action, broken))),
            Ok(Ok(answer)) => Ok(answer.payload),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Refusal::Nobody,
                RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                    let description = error.to_string();
                    Refusal::Other(Error::Refused { action: action.to_owned(), code: 0, description })
                }
                _ => Refusal::Unknown(Error::unavailable(action, error)),
            }),
        }
    }

    /// Sends the first message of a batch: an empty answer means that the batch is open.
    async fn open_batch(&self, message: Outgoing) -> Result<(), Refusal> {
        let action = format!("opening a batch on {}", message.subject);
        let answer = self.ask(&action, message).await?;
        if answer.is_empty() {
            return Ok(());
        }
        match serde_json::from_slice::<Answer<PubAck>>(&answer) {
            Ok(Answer { error: Some(error), .. }) => Err(refusal(&action, error)),
            _ => Err(Refusal::Unknown(Error::corrupt(action, "neither open nor refused"))),
        }
    }

    /// Publishes all messages or none (ADR-50), and answers the sequence of the last. The condition stands in the
    /// headers of the first; the server checks it when it commits. The first and the last wait for an answer: not to
    /// wait for the first was measured to be slower (`docs/decisions/0002-atomic-batches.md`).
    pub(crate) async fn publish_batch(&self, batch: Vec<Outgoing>) -> Result<u64, Refusal> {
        debug_assert!(batch.len() <= LARGEST_BATCH, "ADR-50 allows 1000 messages in a batch");
        let id = uuid::Uuid::new_v4().simple().to_string();
        let count = batch.len();
        for (index, mut message) in batch.into_iter().enumerate() {
            if count == 1 {
                return self.publish(message).await;
            }
            message.headers.insert(names::BATCH_ID, id.as_str());
            message.headers.insert(names::BATCH_SEQUENCE, (index + 1).to_string().as_str());
            if index + 1 == count {
                message.headers.insert(names::BATCH_COMMIT, "1");
                return self.publish(message).await;
            }
            if index == 0 {
                self.open_batch(message).await?;
                continue;
            }
            self.client
                .publish_with_headers(message.subject, message.headers, message.payload)
                .await
                .map_err(|e| Refusal::Unknown(Error::unavailable("publishing a batch", e)))?;
        }
        Ok(0)
    }

    /// The first message of a subject at or above a sequence, from the leader.
    pub(crate) async fn next(&self, stream: &str, subject: &str, from: u64) -> Result<Got, Error> {
        self.get(stream, &Get { seq: Some(from), next_by_subj: Some(subject), ..Get::default() }).await
    }

    /// The last message of a subject, from the leader.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Result<Got, Error> {
        self.get(stream, &Get { last_by_subj: Some(subject), ..Get::default() }).await
    }

    /// The message with this number, from the leader.
    pub(crate) async fn message(&self, stream: &str, sequence: u64) -> Result<Got, Error> {
        self.get(stream, &Get { seq: Some(sequence), ..Get::default() }).await
    }

    async fn get(&self, stream: &str, get: &Get<'_>) -> Result<Got, Error> {
        #[derive(Deserialize)]
        struct Found {
            message: RawMessage,
        }
        let action = format!("reading from {stream}");
        let subject = format!("STREAM.MSG.GET.{stream}");
        let mut tries = 1;
        let found = loop {
            // Nothing is lost by asking again.
            match self.api_once::<Found>(&action, &subject, get).await {
                Ok(found) => break found,
                Err(_) if tries < READS => tries += 1,
                Err(broken) => return Err(Error::unavailable(action, broken)),
            }
        };
        match found {
            Ok(Found { message }) => {
                let message = StreamMessage::try_from(message);
                message.map(Got::Message).map_err(|e| Error::corrupt(format!("a message of {stream}"), e))
            }
            Err(Error::Refused { code, .. }) if code::NO_MESSAGE.contains(&code) => Ok(Got::Nothing),
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Ok(Got::NoStream),
            Err(error) => Err(error),
        }
    }

    /// Removes one message without erasing its bytes securely (which takes 10–100 times as long). False: it was not
    /// there.
    pub(crate) async fn remove(&self, stream: &str, sequence: u64) -> Result<Option<bool>, Error> {
        #[derive(Serialize)]
        struct Ask {
            seq: u64,
            no_erase: bool,
        }
        #[derive(Deserialize)]
        struct Done {
            #[serde(default)]
            success: bool,
        }
        let action = format!("removing message {sequence} of {stream}");
        let subject = format!("STREAM.MSG.DELETE.{stream}");
        match self.api::<Done>(&action, &subject, &Ask { seq: sequence, no_erase: true }).await {
            Ok(done) => Ok(Some(done.success)),
            Err(Error::Refused { code, .. }) if code::NO_MESSAGE.contains(&code) => Ok(Some(false)),
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the messages of a subject *below* a sequence. A purge has no condition, so it must be bounded: a late
    /// one may hit nothing new. Answers how many went.
    pub(crate) async fn purge_below(
        &self,
        stream: &str,
        subject: Option<&str>,
        below: u64,
    ) -> Result<u64, Error> {
        #[derive(Serialize)]
        struct Ask<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            filter: Option<&'a str>,
            seq: u64,
        }
        #[derive(Deserialize)]
        struct Done {
            #[serde(default)]
            purged: u64,
        }
        let action = format!("purging {stream} below {below}");
        let ask = Ask { filter: subject, seq: below };
        let Done { purged } = self.api(&action, &format!("STREAM.PURGE.{stream}"), &ask).await?;
        Ok(purged)
    }
}

/// Most messages of one batch (ADR-50).
pub(crate) const LARGEST_BATCH: usize = 1000;

/// What a read from a stream found.
#[derive(Debug)]
pub(crate) enum Got {
    Message(StreamMessage),
    Nothing,
    NoStream,
}

impl Got {
    /// The message, where a missing stream means the same as a missing message.
    pub(crate) fn message(self) -> Option<StreamMessage> {
        match self {
            Self::Message(message) => Some(message),
            Self::Nothing | Self::NoStream => None,
        }
    }
}

/// Which message: a request of `STREAM.MSG.GET`.
#[derive(Default, Serialize)]
struct Get<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_by_subj: Option<&'a str>,
}

fn refusal(action: &str, error: ApiError) -> Refusal {
    match error.err_code {
        c if code::WRONG_LAST.contains(&c) => Refusal::WrongLast(error.description),
        code::STORE_FAILED => Refusal::Full(error.description),
        code::STREAM_NOT_FOUND | code::STREAM_NOT_MATCH => Refusal::NoStream,
        code => {
            let error = Error::Refused { action: action.to_owned(), code, description: error.description };
            if error.is_transient() { Refusal::NotWritten(error) } else { Refusal::Other(error) }
        }
    }
}

/// Headers from pairs.
pub(crate) fn headers<const N: usize>(pairs: [(&'static str, String); N]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(name, value.as_str());
    }
    headers
}

/// A header's value, parsed.
pub(crate) fn header<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refused_write_means() {
        let of = |code| {
            let error = ApiError { err_code: code, description: "words: 17".to_owned() };
            match refusal("writing", error) {
                Refusal::WrongLast(_) => "another condition",
                Refusal::Full(_) => "full",
                Refusal::NoStream => "no stream",
                Refusal::NotWritten(_) => "not written",
                Refusal::Other(_) => "other",
                Refusal::Nobody | Refusal::Unknown(_) => "no answer",
            }
        };
        for (code, expected) in [
            (10071, "another condition"),
            (10164, "another condition"),
            (10077, "full"),
            (10059, "no stream"),
            (10060, "no stream"),
            // A leader that changed in the middle of a batch; too many batches at once.
            (10176, "not written"),
            (10210, "not written"),
            (10008, "not written"),
            (10009, "not written"),
            (10023, "not written"),
            (10002, "not written"),
            (10118, "not written"),
            (10194, "not written"),
            (10174, "other"),
            (10199, "other"),
        ] {
            assert_eq!(of(code), expected, "{code}");
        }
    }

    #[test]
    fn nobody_is_not_the_same_as_not_found() {
        assert!(Refusal::Nobody.into_error("writing").is_transient());
        assert!(!Refusal::NoStream.into_error("writing").is_transient());
    }
}
