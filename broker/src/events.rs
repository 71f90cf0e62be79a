//! The event log `incoming`: events and markers, in the order of acceptance.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use model::{Incarnation, Subscription, SubscriptionName, checkpoint::Marker};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    Error, WriteError, bucket,
    connection::StreamState,
    names,
    wire::{Outgoing, Refusal, Wire, headers},
};

/// How long after the arrival of a request its event may still be published. A replica that slept must not put an
/// old event after a newer one, which the producer has meanwhile sent through another replica.
const FRESH_FOR: Duration = Duration::from_secs(2);

/// How often the server says that it is there while the log is quiet. A dispatcher that misses two begins anew, so
/// this bounds how long events stand still after a kill of the server.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long one request for entries waits.
const PULL_FOR: Duration = Duration::from_secs(5);
/// Entries that one request asks for.
const ENTRIES_AT_ONCE: usize = 500;
/// Bytes that one request asks for, beside the largest entry: so much of the log may lie in memory unread.
const BYTES_AT_ONCE: usize = 8 << 20;
/// After how long the server forgets a reader that is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Why an event was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Larger than NATS can carry.
    #[error("the event has {size} bytes; at most {limit} fit (max_payload of NATS less 64 KiB)")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// Largest size in bytes.
        limit: usize,
    },
    /// The event log is full.
    #[error("the event log is full")]
    Full,
    /// The request is too old to be sure of its place; the producer sends it again.
    #[error("the event could not be placed in time")]
    Late,
    /// NATS away.
    #[error(transparent)]
    Other(#[from] Error),
}

/// Where events and markers go in. Clones share what they learned of the log's end.
#[derive(Clone, Debug)]
pub struct EventPublisher {
    wire: Wire,
    /// Last sequence of the log that we heard of; `None` before the first look. The lock is held over the publish,
    /// so that the events of one replica go out one after the other.
    last: Arc<Mutex<Option<u64>>>,
}

impl EventPublisher {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, last: Arc::new(Mutex::new(None)) }
    }

    /// Appends an event; answers its sequence once it is stored. `arrived` is when the request came in.
    ///
    /// # Errors
    /// [`PublishError`]. After `Other` with an unavailable NATS the outcome is unknown.
    pub async fn publish(&self, payload: Bytes, arrived: Instant) -> Result<u64, PublishError> {
        // What the server says now: the limit may have been raised.
        let limit = self.wire.largest_message();
        if payload.len() > limit {
            return Err(PublishError::TooLarge { size: payload.len(), limit });
        }
        self.append(names::EVENT_SUBJECT, payload, arrived).await
    }

    /// Appends the notice of an event that is larger than NATS carries: it takes the event's place in the order, and
    /// becomes a dead letter of those who would have got it.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_notice(&self, event: &LargeEvent, arrived: Instant) -> Result<u64, PublishError> {
        let notice = serde_json::to_vec(&Notice { too_large: event.clone() })
            .map_err(|e| Error::corrupt("the notice of an event", e))?;
        // Among the markers: a dispatcher of a former version leaves out there what it does not know.
        self.append(names::MARKER_SUBJECT, Bytes::from(notice), arrived).await
    }

    async fn append(
        &self,
        subject: &'static str,
        payload: Bytes,
        arrived: Instant,
    ) -> Result<u64, PublishError> {
        let mut last = self.last.lock().await;
        loop {
            let expected = match *last {
                Some(sequence) => sequence,
                None => self.end().await?,
            };
            // First the number, then the clock: whoever sleeps after the look is refused by the number.
            if arrived.elapsed() > FRESH_FOR {
                return Err(PublishError::Late);
            }
            let message = Outgoing {
                subject: subject.to_owned(),
                headers: headers([
                    (names::EXPECTED_STREAM, names::INCOMING.to_owned()),
                    (names::EXPECTED_LAST, expected.to_string()),
                ]),
                payload: payload.clone(),
            };
            match self.wire.publish(message).await {
                Ok(sequence) => {
                    *last = Some(sequence);
                    return Ok(sequence);
                }
                Err(Refusal::WrongLast(text)) => *last = number_in(&text),
                Err(Refusal::Full(_)) => return Err(PublishError::Full),
                Err(refusal) => {
                    *last = None;
                    return Err(refusal.into_error("accepting an event").into());
                }
            }
        }
    }

    /// Appends the marker of the subscription's state: events before it belong to the snapshot, those after it are
    /// live, by its topics. Sending it again is harmless.
    ///
    /// # Errors
    /// NATS away.
    pub async fn marker(&self, subscription: &Subscription) -> Result<u64, Error> {
        let payload =
            serde_json::to_vec(&subscription.marker()).map_err(|e| Error::corrupt("a marker", e))?;
        self.control(payload, "writing a marker").await
    }

    /// Appends a message for one subscription: it comes behind all events that were accepted before.
    ///
    /// # Errors
    /// NATS away: the outcome is unknown. NATS refuses it, because it is too large or the log is full.
    pub async fn letter(&self, Letter { whose, message }: Letter) -> Result<u64, Error> {
        let corrupt = |error| Error::corrupt("a dead letter's message", error);
        let letter = serde_json::from_slice(&message).map_err(corrupt)?;
        let payload = serde_json::to_vec(&Addressed { whose, letter }).map_err(corrupt)?;
        self.control(payload, "sending a dead letter again").await
    }

    /// Appends what is no event. Its place in the order is that of its arrival.
    async fn control(&self, payload: Vec<u8>, action: &str) -> Result<u64, Error> {
        let message = Outgoing {
            subject: names::MARKER_SUBJECT.to_owned(),
            headers: headers([(names::EXPECTED_STREAM, names::INCOMING.to_owned())]),
            payload: Bytes::from(payload),
        };
        self.wire.publish(message).await.map_err(|refusal| refusal.into_error(action))
    }

    async fn end(&self) -> Result<u64, Error> {
        EventLog::new(self.wire.clone()).last_sequence().await
    }
}

/// "wrong last sequence: 17" tells where the log ends.
fn number_in(text: &str) -> Option<u64> {
    text.rsplit(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its sequence.
    pub sequence: u64,
    /// When it was accepted, by the clock of NATS.
    pub accepted: SystemTime,
    /// What it is.
    pub item: LogItem,
}

/// What an entry of the log is.
#[derive(Clone, Debug)]
pub enum LogItem {
    /// A change in the directory.
    Event(Bytes),
    /// From here on the events are those of another round, or by other topics.
    Marker(Marker),
    /// An event that is larger than NATS carries stood here.
    TooLarge(LargeEvent),
    /// A message for one subscription alone.
    Letter(Letter),
    /// A marker that can't be read: a newer version wrote it, or something else. Whose it is, if that can be told: no
    /// version changes the names of these two fields.
    Unreadable(Option<Whose>),
}

/// An event that is larger than NATS carries: what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeEvent {
    /// Its realm.
    pub realm: String,
    /// Its topic.
    pub topic: String,
    /// The object's DN, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dn: Option<String>,
    /// Its size in bytes; of one that was not read whole, what was read of it.
    pub size: u64,
    /// What could be carried at that time, in bytes.
    pub limit: u64,
}

/// A dead letter that is sent again: a message for one subscription, which takes its place among the events.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Whose it is.
    pub whose: Whose,
    /// The message, as it goes into the queue.
    pub message: Bytes,
}

/// A letter as it is stored. A dispatcher of a former version can tell whose it is, and waits for one that knows more.
#[derive(Serialize, Deserialize)]
struct Addressed<'a> {
    #[serde(flatten)]
    whose: Whose,
    #[serde(borrow)]
    letter: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Notice {
    too_large: LargeEvent,
}

/// Whose a marker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    /// The subscription.
    pub subscription: SubscriptionName,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// The event log, for the dispatcher.
#[derive(Clone, Debug)]
pub struct EventLog {
    wire: Wire,
}

impl EventLog {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Sequence of the last entry that was ever written, removed or not.
    ///
    /// # Errors
    /// NATS away, or the log is not there.
    pub async fn last_sequence(&self) -> Result<u64, Error> {
        Ok(self.state().await?.last_seq)
    }

    async fn state(&self) -> Result<StreamState, Error> {
        #[derive(Deserialize)]
        struct Info {
            state: StreamState,
        }
        let subject = format!("STREAM.INFO.{}", names::INCOMING);
        match self.wire.api::<Info>("looking at the event log", &subject, &()).await {
            Ok(info) => Ok(info.state),
            Err(Error::Refused { code: crate::wire::code::STREAM_NOT_FOUND, .. }) => {
                Err(Error::LayoutMissing { what: "the event log".to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the log strictly in order, from a sequence on, and follows it for ever. No consumer remembers anything:
    /// a durable one would hand out entries in another order after a restart.
    ///
    /// # Errors
    /// NATS away. An error in the stream means: open it again.
    pub async fn follow(
        &self,
        from: u64,
    ) -> Result<impl Stream<Item = Result<LogEntry, Error>> + Unpin + use<>, Error> {
        let action = "reading the event log";
        // An ephemeral consumer that acknowledges nothing: it only carries. Whoever reads checks the numbers, so a gap
        // can't hide; and when the server is silent, or has forgotten the consumer, the reading begins anew.
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let stream = self
            .wire
            .js
            .get_stream_no_info(names::INCOMING)
            .await
            .map_err(|e| Error::unavailable(action, e))?;
        let consumer = stream.create_consumer(config).await.map_err(|e| Error::unavailable(action, e))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(ENTRIES_AT_ONCE)
            // One entry must always fit, headers included.
            .max_bytes_per_batch(BYTES_AT_ONCE + 2 * self.wire.client.max_payload())
            .expires(PULL_FOR)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|e| Error::unavailable(action, e))?;
        let entries =
            messages.map_err(move |e| Error::unavailable(action, e)).and_then(|message| async move {
                let info = message.info().map_err(|e| Error::corrupt("an entry of the event log", e))?;
                let (sequence, accepted) = (info.stream_sequence, SystemTime::from(info.published));
                Ok(LogEntry { sequence, accepted, item: item(&message.subject, message.payload.clone()) })
            });
        Ok(entries.boxed())
    }

    /// Removes entries at or below a position.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn purge_through(&self, sequence: u64) -> Result<(), Error> {
        self.wire.purge_below(names::INCOMING, None, sequence + 1).await.map(drop)
    }
}

fn item(subject: &str, payload: Bytes) -> LogItem {
    if subject == names::EVENT_SUBJECT {
        return LogItem::Event(payload);
    }
    if let Ok(Addressed { whose, letter }) = serde_json::from_slice(&payload) {
        return LogItem::Letter(Letter { whose, message: payload.slice_ref(letter.get().as_bytes()) });
    }
    match serde_json::from_slice(&payload) {
        Ok(marker) => LogItem::Marker(marker),
        Err(_) => match serde_json::from_slice(&payload) {
            Ok(Notice { too_large }) => LogItem::TooLarge(too_large),
            Err(_) => LogItem::Unreadable(serde_json::from_slice(&payload).ok()),
        },
    }
}

/// How far the dispatcher is: the last entry that every queue has its copy of. Moved by compare-and-set, so that two
/// dispatchers at once do no harm.
#[derive(Clone, Debug)]
pub struct Position {
    wire: Wire,
}

#[derive(Serialize, Deserialize)]
struct PositionValue {
    incoming_seq: u64,
}

impl Position {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// The position; 0 when nothing was ever dispatched. One that was deleted, or can't be read, follows from the log:
    /// only what every queue has is removed there, and what comes twice the checkpoints of the queues leave out.
    ///
    /// # Errors
    /// NATS away.
    pub async fn get(&self) -> Result<crate::Revised<u64>, Error> {
        let item = bucket::get(&self.wire, names::DISPATCHER, names::POSITION_KEY).await?;
        // Nothing was ever dispatched: what the log has lost by now was lost.
        let Some(item) = item else { return Ok(crate::Revised { value: 0, revision: 0 }) };
        let revision = item.revision;
        match serde_json::from_slice(&item.value) {
            Ok(PositionValue { incoming_seq }) => {
                return Ok(crate::Revised { value: incoming_seq, revision });
            }
            Err(error) => {
                tracing::warn!(%error, "the dispatcher's position can't be read: it begins where the log begins");
            }
        }
        let value = EventLog::new(self.wire.clone()).state().await?.first_seq.saturating_sub(1);
        Ok(crate::Revised { value, revision })
    }

    /// Moves the position; answers its new revision.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when another dispatcher has moved it.
    pub async fn set(&self, incoming_seq: u64, revision: u64) -> Result<u64, WriteError> {
        let payload = serde_json::to_vec(&PositionValue { incoming_seq })
            .map_err(|e| Error::corrupt("the dispatcher's position", e))?;
        let message = Outgoing {
            subject: Self::subject(),
            headers: headers([
                (names::EXPECTED_STREAM, names::bucket_stream(names::DISPATCHER)),
                (names::EXPECTED_LAST_SUBJECT, revision.to_string()),
            ]),
            payload: Bytes::from(payload),
        };
        match self.wire.publish(message).await {
            Ok(revision) => Ok(revision),
            Err(Refusal::WrongLast(_)) => Err(WriteError::Conflict),
            Err(refusal) => Err(WriteError::Other(refusal.into_error("moving the position"))),
        }
    }

    fn subject() -> String {
        names::key_subject(names::DISPATCHER, names::POSITION_KEY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_read_as_it_was_written_and_a_marker_is_none() {
        let whose = r#""subscription":"mail","incarnation":"00000000-0000-0000-0000-000000000001""#;
        let of = |rest: &str| item(names::MARKER_SUBJECT, format!("{{{whose}{rest}}}").into());
        let message = r#"{"a": [1.0, "\u0041"]}"#;
        match of(&format!(r#","letter":{message}"#)) {
            LogItem::Letter(letter) => {
                assert_eq!(letter.message, message);
                assert_eq!(letter.whose.subscription.as_str(), "mail");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(of(r#","round":1,"realms_topics":[]"#), LogItem::Marker(_)));
        assert!(matches!(of(""), LogItem::Unreadable(Some(_))));
    }

    #[test]
    fn the_servers_words_tell_the_end_of_the_log() {
        assert_eq!(number_in("wrong last sequence: 17"), Some(17));
        assert_eq!(number_in("wrong last sequence"), None);
    }
}
