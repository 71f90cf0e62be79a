//! The consumers' password hashes: bucket `CREDENTIALS`.

use bytes::Bytes;
use model::{Incarnation, SubscriptionName};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Registry, names,
    wire::{Outgoing, Refusal, Wire, headers},
};

/// A stored password hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCredential {
    /// Whose password it is; `None` for a bare bcrypt hash of the former software.
    pub incarnation: Option<Incarnation>,
    /// The hash in PHC or bcrypt form.
    pub hash: String,
    /// Revision in the bucket.
    pub revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Value {
    incarnation: Incarnation,
    hash: String,
}

/// The bucket of hashes.
#[derive(Clone, Debug)]
pub struct Credentials {
    wire: Wire,
}

impl Credentials {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// The hash of a subscription, from the leader.
    ///
    /// # Errors
    /// NATS away, or the value can't be read.
    pub async fn get(&self, name: &SubscriptionName) -> Result<Option<StoredCredential>, Error> {
        let stream = names::bucket_stream(names::CREDENTIALS);
        let subject = names::key_subject(names::CREDENTIALS, name.as_str());
        let Some(message) = self.wire.last(&stream, &subject).await?.message() else { return Ok(None) };
        let revision = message.sequence;
        // Empty: a delete marker.
        if message.payload.is_empty() {
            return Ok(None);
        }
        if message.payload.starts_with(b"$") {
            let hash = String::from_utf8_lossy(&message.payload).into_owned();
            return Ok(Some(StoredCredential { incarnation: None, hash, revision }));
        }
        let value: Value = serde_json::from_slice(&message.payload)
            .map_err(|e| Error::corrupt(format!("the credential of {name}"), e))?;
        Ok(Some(StoredCredential { incarnation: Some(value.incarnation), hash: value.hash, revision }))
    }

    /// Stores the hash of an incarnation, as long as the name's entry carries that incarnation; answers its revision.
    ///
    /// # Errors
    /// NATS away, or the name belongs to another incarnation meanwhile. Calling it again is safe.
    pub async fn put(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        hash: &str,
    ) -> Result<u64, Error> {
        for _ in 0..TRIES {
            let last = self.last_revision(name).await?;
            if let Some(revision) = self.write_if(name, incarnation, hash, last).await? {
                return Ok(revision);
            }
        }
        Err(taken(name))
    }

    /// Stores the first hash of an incarnation, or answers the one that it has: of two registrations at once, the
    /// password of one counts, and the other can see that it is not its own.
    ///
    /// # Errors
    /// NATS away, or the name belongs to another incarnation meanwhile. Calling it again is safe.
    pub async fn create(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        hash: &str,
    ) -> Result<StoredCredential, Error> {
        // Most names are new: their first write needs no look at the last one.
        let mut last = 0;
        for _ in 0..TRIES {
            if let Some(revision) = self.write_if(name, incarnation, hash, last).await? {
                let hash = hash.to_owned();
                return Ok(StoredCredential { incarnation: Some(incarnation), hash, revision });
            }
            last = self.last_revision(name).await?;
            if let Some(stored) = self.get(name).await?.filter(|s| s.incarnation == Some(incarnation)) {
                return Ok(stored);
            }
        }
        Err(taken(name))
    }

    /// Removes the hash of an incarnation; one of another incarnation is left alone.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn delete(&self, name: &SubscriptionName, incarnation: Incarnation) -> Result<(), Error> {
        for _ in 0..TRIES {
            let Some(stored) = self.get(name).await? else { return Ok(()) };
            if stored.incarnation.is_some_and(|i| i != incarnation) {
                return Ok(());
            }
            match self.write(name, Bytes::new(), stored.revision).await {
                Ok(_) => return Ok(()),
                Err(Refusal::WrongLast(_)) => {}
                Err(refusal) => return Err(refusal.into_error(&format!("removing the credential of {name}"))),
            }
        }
        Err(Error::unavailable(format!("removing the credential of {name}"), "others were faster each time"))
    }

    /// Writes if the last revision is still `last` and the entry is of this incarnation; `None` if somebody else has
    /// written meanwhile.
    async fn write_if(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        hash: &str,
        last: u64,
    ) -> Result<Option<u64>, Error> {
        let action = format!("writing the credential of {name}");
        let value = Value { incarnation, hash: hash.to_owned() };
        let payload = serde_json::to_vec(&value).map_err(|e| Error::corrupt(action.as_str(), e))?;
        // The number first, then the look at the entry: a replica that slept in between is refused by the number.
        let entry = Registry::new(self.wire.clone()).subscription(name).await?;
        if entry.is_none_or(|e| e.value.incarnation != incarnation) {
            return Err(taken(name));
        }
        match self.write(name, Bytes::from(payload), last).await {
            Ok(revision) => Ok(Some(revision)),
            Err(Refusal::WrongLast(_)) => Ok(None),
            Err(refusal) => Err(refusal.into_error(&action)),
        }
    }

    async fn last_revision(&self, name: &SubscriptionName) -> Result<u64, Error> {
        let stream = names::bucket_stream(names::CREDENTIALS);
        let got = self.wire.last(&stream, &names::key_subject(names::CREDENTIALS, name.as_str())).await?;
        Ok(got.message().map_or(0, |m| m.sequence))
    }

    async fn write(&self, name: &SubscriptionName, payload: Bytes, last: u64) -> Result<u64, Refusal> {
        let message = Outgoing {
            subject: names::key_subject(names::CREDENTIALS, name.as_str()),
            headers: headers([
                (names::EXPECTED_STREAM, names::bucket_stream(names::CREDENTIALS)),
                (names::EXPECTED_LAST_SUBJECT, last.to_string()),
            ]),
            payload,
        };
        self.wire.publish(message).await
    }
}

fn taken(name: &SubscriptionName) -> Error {
    let cause = "another registration has taken the name meanwhile";
    Error::unavailable(format!("writing the credential of {name}"), cause)
}

/// Tries against others; each failure means that somebody else succeeded.
const TRIES: u32 = 20;
