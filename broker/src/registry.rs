//! The subscriptions: bucket `SUBSCRIPTIONS`, one key a name.

use bytes::Bytes;
use model::{Entry, Incarnation, Subscription, SubscriptionName};

use crate::{
    Error, WriteError,
    bucket::{self, Item},
    names,
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

/// What [`Registry::list`] found.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The entries.
    pub entries: Vec<(SubscriptionName, Revised<Entry>)>,
    /// What can't be read. It stops nothing else, and can be removed: [`crate::Broker::remove_unreadable`].
    pub unreadable: Vec<Unreadable>,
}

impl Listed {
    /// The subscriptions among the entries.
    pub fn subscriptions(self) -> impl Iterator<Item = Subscription> {
        self.entries.into_iter().filter_map(|(_, entry)| match entry.value {
            Entry::Subscription(subscription) => Some(subscription),
            Entry::Tombstone(_) => None,
        })
    }
}

/// A key of the bucket that can't be read: it was written by something else, or by a newer version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The key, which need not be a name that can be registered.
    pub name: String,
    /// What the parser says.
    pub why: String,
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

    /// The entry of a name; `None` if it was never used. A key that was deleted is a name that is free.
    ///
    /// # Errors
    /// NATS away, or the value can't be read ([`Error::Corrupt`]).
    pub async fn get(&self, name: &SubscriptionName) -> Result<Option<Revised<Entry>>, Error> {
        let Some(item) = bucket::get(&self.wire, names::SUBSCRIPTIONS, name.as_str()).await? else {
            return Ok(None);
        };
        Ok(Some(Revised { value: entry(&item)?, revision: item.revision }))
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
            Err(Refusal::NoStream) => Err(WriteError::Other(bucket::missing(names::SUBSCRIPTIONS))),
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

    /// All entries as the leader has them, tombstones included, in the order of their last changes.
    ///
    /// # Errors
    /// NATS away.
    pub async fn list(&self) -> Result<Listed, Error> {
        let mut listed = Listed::default();
        for item in bucket::list(&self.wire, names::SUBSCRIPTIONS).await? {
            if item.value.is_empty() && item.key.parse::<SubscriptionName>().is_err() {
                continue;
            }
            let key = || item.key.parse().map_err(|e| Error::corrupt(format!("the key {}", item.key), e));
            match key().and_then(|name: SubscriptionName| Ok((name, entry(&item)?))) {
                Ok((name, value)) => listed.entries.push((name, Revised { value, revision: item.revision })),
                Err(error) => {
                    tracing::warn!(
                        subscription = item.key,
                        error = model::error_chain(&error),
                        "an entry is left out"
                    );
                    let (name, why) = (item.key, model::error_chain(&error));
                    listed.unreadable.push(Unreadable { name, why });
                }
            }
        }
        Ok(listed)
    }
}

pub(crate) fn subscription(entry: Revised<Entry>) -> Option<Revised<Subscription>> {
    match entry.value {
        Entry::Subscription(value) => Some(Revised { value, revision: entry.revision }),
        Entry::Tombstone(_) => None,
    }
}

/// What a key says.
pub(crate) fn entry(item: &Item) -> Result<Entry, Error> {
    if item.value.is_empty() {
        return Ok(Entry::Tombstone(bucket::tombstone(item.written)));
    }
    serde_json::from_slice(&item.value).map_err(|e| {
        Error::corrupt(format!("the key {} of the bucket {}", item.key, names::SUBSCRIPTIONS), e)
    })
}

fn subject(name: &SubscriptionName) -> String {
    names::key_subject(names::SUBSCRIPTIONS, name.as_str())
}

impl Registry {
    pub(crate) fn wire(&self) -> Wire {
        self.wire.clone()
    }
}
