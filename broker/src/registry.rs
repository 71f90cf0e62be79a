//! The subscriptions: bucket `SUBSCRIPTIONS`, one key a name.

use bytes::Bytes;
use futures::StreamExt;
use model::{Entry, Incarnation, Subscription, SubscriptionName};

use crate::{
    Error, WriteError, names,
    wire::{Outgoing, Refusal, Wire, headers},
};

/// A value and the revision that a conditional write needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revised<T> {
    /// The value.
    pub value: T,
    /// Its sequence in the bucket or stream.
    pub revision: u64,
}

/// How [`Registry::modify`] ended.
#[derive(Clone, Debug)]
pub enum Modified {
    /// The change is written.
    Changed(Revised<Subscription>),
    /// The change was not needed.
    Unchanged(Revised<Subscription>),
    /// The subscription is gone, or another incarnation has the name.
    Gone,
}

/// Tries of a compare-and-set before giving up: each failure means that somebody else succeeded.
const TRIES: u32 = 50;

/// The subscriptions, always read from the leader and written by compare-and-set.
#[derive(Clone, Debug)]
pub struct Registry {
    wire: Wire,
}

impl Registry {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// The entry of a name; `None` if it was never used.
    ///
    /// # Errors
    /// NATS away, or the value can't be read.
    pub async fn get(&self, name: &SubscriptionName) -> Result<Option<Revised<Entry>>, Error> {
        let stream = names::bucket_stream(names::SUBSCRIPTIONS);
        let got = self.wire.last(&stream, &subject(name)).await?;
        if matches!(got, crate::wire::Got::NoStream) {
            return Err(bucket_missing());
        }
        match got.message() {
            None => Ok(None),
            Some(message) => parse(name.as_str(), &message.payload)
                .map(|value| Some(Revised { value, revision: message.sequence })),
        }
    }

    /// The subscription of a name; `None` for a name that is free.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn subscription(
        &self,
        name: &SubscriptionName,
    ) -> Result<Option<Revised<Subscription>>, Error> {
        Ok(self.get(name).await?.and_then(subscription))
    }

    /// Writes the first entry of a name.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if the name was used before.
    pub async fn create(&self, entry: &Subscription) -> Result<u64, WriteError> {
        self.update(&entry.name, &Entry::Subscription(entry.clone()), 0).await
    }

    /// Writes an entry on the condition that the last one is still that revision.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if it is not.
    pub async fn update(
        &self,
        name: &SubscriptionName,
        entry: &Entry,
        revision: u64,
    ) -> Result<u64, WriteError> {
        let payload =
            serde_json::to_vec(entry).map_err(|e| Error::corrupt(format!("the entry of {name}"), e))?;
        let message = Outgoing {
            subject: subject(name),
            headers: headers([
                (names::EXPECTED_STREAM, names::bucket_stream(names::SUBSCRIPTIONS)),
                (names::EXPECTED_LAST_SUBJECT, revision.to_string()),
            ]),
            payload: Bytes::from(payload),
        };
        match self.wire.publish(message).await {
            Ok(revision) => Ok(revision),
            Err(Refusal::WrongLast(_)) => Err(WriteError::Conflict),
            Err(Refusal::NoStream) => Err(WriteError::Other(bucket_missing())),
            Err(refusal) => {
                Err(WriteError::Other(refusal.into_error(&format!("writing the entry of {name}"))))
            }
        }
    }

    /// Changes a subscription by compare-and-set, as often as needed. `change` answers `None` where nothing is to
    /// be done; it may be called several times.
    ///
    /// # Errors
    /// NATS away: the outcome is unknown; calling it again is safe.
    pub async fn modify(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        mut change: impl FnMut(&Subscription) -> Option<Subscription>,
    ) -> Result<Modified, Error> {
        for _ in 0..TRIES {
            let Some(current) = self.subscription(name).await?.filter(|s| s.value.incarnation == incarnation)
            else {
                return Ok(Modified::Gone);
            };
            let Some(next) = change(&current.value) else { return Ok(Modified::Unchanged(current)) };
            match self.update(name, &Entry::Subscription(next.clone()), current.revision).await {
                Ok(revision) => return Ok(Modified::Changed(Revised { value: next, revision })),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Other(error)) => return Err(error),
            }
        }
        Err(Error::unavailable(
            format!("changing the entry of {name}"),
            format!("{TRIES} times somebody else was faster"),
        ))
    }

    /// All entries, tombstones included.
    ///
    /// # Errors
    /// NATS away, or a value can't be read.
    pub async fn list(&self) -> Result<Vec<(SubscriptionName, Revised<Entry>)>, Error> {
        let action = "listing the subscriptions";
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| Error::unavailable(action, e);
        let store = self.wire.js.get_key_value(names::SUBSCRIPTIONS).await.map_err(|e| failed(e.into()))?;
        let mut entries = Vec::new();
        if store.status().await.map_err(|e| failed(e.into()))?.values() == 0 {
            return Ok(entries);
        }
        let mut watch = store.watch_with_history(">").await.map_err(|e| failed(e.into()))?;
        loop {
            let next = tokio::time::timeout(crate::wire::TIMEOUT, watch.next());
            let entry = next
                .await
                .map_err(|e| failed(e.into()))?
                .ok_or_else(|| failed("the list ended early".into()))?
                .map_err(|e| failed(e.into()))?;
            let value = parse(&entry.key, &entry.value)?;
            let name = entry.key.parse().map_err(|e| Error::corrupt(format!("the key {}", entry.key), e))?;
            entries.push((name, Revised { value, revision: entry.revision }));
            if entry.seen_current {
                return Ok(entries);
            }
        }
    }
}

pub(crate) fn subscription(entry: Revised<Entry>) -> Option<Revised<Subscription>> {
    match entry.value {
        Entry::Subscription(value) => Some(Revised { value, revision: entry.revision }),
        Entry::Tombstone(_) => None,
    }
}

pub(crate) fn parse(key: &str, payload: &[u8]) -> Result<Entry, Error> {
    serde_json::from_slice(payload)
        .map_err(|e| Error::corrupt(format!("the key {key} of the bucket {}", names::SUBSCRIPTIONS), e))
}

fn bucket_missing() -> Error {
    Error::LayoutMissing { what: format!("the bucket {}", names::SUBSCRIPTIONS) }
}

fn subject(name: &SubscriptionName) -> String {
    names::key_subject(names::SUBSCRIPTIONS, name.as_str())
}

impl Registry {
    pub(crate) fn wire(&self) -> Wire {
        self.wire.clone()
    }
}
