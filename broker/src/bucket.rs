//! Reading a bucket whole, following it, and writing what decides nothing.
//!
//! A consumer may sit on a replica that lags behind, and the end of the bucket as that replica sees it is not the end.
//! So the leader is asked first how far the bucket is, and what is followed counts as whole once it has come so far.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    message::StreamMessage,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use model::subscription::Tombstone;

use crate::{
    Error, names,
    wire::{Got, Outgoing, Wire, headers},
};

/// How often the server says that it is there while nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long one request for changes waits.
const PULL_FOR: Duration = Duration::from_secs(30);
/// After how long the server forgets a reader that is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// The last value of a key.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub key: String,
    pub revision: u64,
    /// When it was written, by the server's clock.
    pub written: SystemTime,
    /// Empty: the key was deleted.
    pub value: Bytes,
}

/// Number of the last value that is there, from the leader; 0: none.
pub(crate) async fn end(wire: &Wire, bucket: &str) -> Result<u64, Error> {
    match wire.last(&names::bucket_stream(bucket), &names::key_subject(bucket, ">")).await? {
        Got::Message(message) => Ok(message.sequence),
        Got::Nothing => Ok(0),
        Got::NoStream => Err(missing(bucket)),
    }
}

/// The last value of a key, from the leader; also that of a deleted one.
pub(crate) async fn get(wire: &Wire, bucket: &str, key: &str) -> Result<Option<Item>, Error> {
    match wire.last(&names::bucket_stream(bucket), &names::key_subject(bucket, key)).await? {
        Got::Message(StreamMessage { sequence, payload, time, .. }) => {
            Ok(Some(Item { key: key.to_owned(), revision: sequence, written: time.into(), value: payload }))
        }
        Got::Nothing => Ok(None),
        Got::NoStream => Err(missing(bucket)),
    }
}

/// Writes a value whatever there was; for what decides nothing.
pub(crate) async fn put(
    wire: &Wire,
    bucket: &str,
    key: &str,
    payload: Bytes,
    action: &str,
) -> Result<(), Error> {
    let message = Outgoing {
        subject: names::key_subject(bucket, key),
        headers: headers([(names::EXPECTED_STREAM, names::bucket_stream(bucket))]),
        payload,
    };
    wire.publish(message).await.map(drop).map_err(|refusal| refusal.into_error(action))
}

/// Writes that there is no value, if there is one.
pub(crate) async fn clear(wire: &Wire, bucket: &str, key: &str, action: &str) -> Result<(), Error> {
    match get(wire, bucket, key).await? {
        Some(item) if !item.value.is_empty() => put(wire, bucket, key, Bytes::new(), action).await,
        _ => Ok(()),
    }
}

/// The last value of each key in the order of their numbers, and then each change. It heals nothing: it ends with an
/// error, and whoever follows begins again, since the store may be an older one by then.
pub(crate) async fn follow(
    wire: &Wire,
    bucket: &'static str,
) -> Result<impl Stream<Item = Result<Item, Error>> + Unpin + use<>, Error> {
    let action = "reading a bucket";
    let failed = move |e: Box<dyn std::error::Error + Send + Sync>| Error::unavailable(action, e);
    let config = pull::Config {
        deliver_policy: DeliverPolicy::LastPerSubject,
        ack_policy: AckPolicy::None,
        filter_subject: names::key_subject(bucket, ">"),
        inactive_threshold: FORGOTTEN_AFTER,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let mut connection = wire.connection();
    let opened = async {
        let stream =
            wire.js.get_stream_no_info(names::bucket_stream(bucket)).await.map_err(|e| failed(e.into()))?;
        let consumer = stream.create_consumer(config).await.map_err(|e| failed(e.into()))?;
        let changes = consumer.stream().expires(PULL_FOR).heartbeat(HEARTBEAT);
        changes.messages().await.map_err(|e| failed(e.into()))
    };
    let messages = connection.lasts_for(opened).await.map_err(|e| failed(e.into()))??;
    let prefix = names::key_subject(bucket, "");
    let items = messages.map_err(move |e| failed(e.into())).and_then(move |message| {
        let item = message.info().map_err(|e| Error::corrupt("a value of a bucket", e)).map(|info| Item {
            key: message.subject.strip_prefix(&prefix).unwrap_or(&message.subject).to_owned(),
            revision: info.stream_sequence,
            written: info.published.into(),
            value: message.payload.clone(),
        });
        std::future::ready(item)
    });
    let broken = async move {
        connection.broken().await;
        Err(failed(crate::wire::Broken.into()))
    };
    Ok(futures::stream::select(items, futures::stream::once(broken)).boxed())
}

/// The last value of each key, in the order of their numbers.
pub(crate) async fn list(wire: &Wire, bucket: &'static str) -> Result<Vec<Item>, Error> {
    let end = end(wire, bucket).await?;
    if end == 0 {
        return Ok(Vec::new());
    }
    let late = || Error::unavailable(format!("listing the bucket {bucket}"), "the list broke off");
    let mut items = follow(wire, bucket).await?;
    let mut listed = Vec::new();
    loop {
        let next = tokio::time::timeout(crate::wire::TIMEOUT, items.next());
        let item: Item = next.await.map_err(|_| late())?.ok_or_else(late)??;
        let last = item.revision;
        listed.push(item);
        if last >= end {
            return Ok(newest(listed));
        }
    }
}

/// What was overwritten while it was read comes twice.
fn newest(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_key(|item| std::cmp::Reverse(item.revision));
    let mut known = std::collections::HashSet::new();
    items.retain(|item| known.insert(item.key.clone()));
    items.reverse();
    items
}

/// What a deleted or unreadable entry counts as: a name that is free. Which numbers its queues had is not known; the
/// microseconds of a clock are above them, unless a queue had a million messages a second, and below what JavaScript
/// can count.
pub(crate) fn tombstone(at: SystemTime) -> Tombstone {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Tombstone { next_sequence: u64::try_from(since.as_micros()).unwrap_or(u64::MAX).clamp(1, 1 << 52) }
}

pub(crate) fn missing(bucket: &str) -> Error {
    Error::LayoutMissing { what: format!("the bucket {bucket}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_key_the_newest_value_counts() {
        let item = |(key, revision): (&str, u64)| Item {
            key: key.to_owned(),
            revision,
            written: SystemTime::UNIX_EPOCH,
            value: Bytes::new(),
        };
        let items = [("a", 3), ("b", 5), ("a", 9), ("c", 7), ("b", 8)].map(item).to_vec();
        let left: Vec<_> = newest(items).into_iter().map(|item| (item.key, item.revision)).collect();
        assert_eq!(left, [("c".to_owned(), 7), ("b".to_owned(), 8), ("a".to_owned(), 9)]);
    }

    #[test]
    fn a_name_that_was_deleted_begins_above_all_that_a_queue_can_have_had() {
        let micros = |n| SystemTime::UNIX_EPOCH + Duration::from_micros(n);
        assert_eq!(tombstone(micros(1_790_000_000_000_000)).next_sequence, 1_790_000_000_000_000);
        assert_eq!(tombstone(SystemTime::UNIX_EPOCH).next_sequence, 1);
        assert_eq!(tombstone(micros(1 << 60)).next_sequence, 1 << 52);
    }
}
