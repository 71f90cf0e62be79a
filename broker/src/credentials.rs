//! The consumers' password hashes: bucket `CREDENTIALS`.

use bytes::Bytes;
use model::{Incarnation, SubscriptionName};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Registry,
    bucket::{self, Item},
    names,
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
        match self.found(name).await?.1 {
            Some(stored) => stored.map(Some),
            None => Ok(None),
        }
    }

    /// Number of the last value, 0 if there was none; and the value, if there is one.
    async fn found(
        &self,
        name: &SubscriptionName,
    ) -> Result<(u64, Option<Result<StoredCredential, Error>>), Error> {
        match bucket::get(&self.wire, names::CREDENTIALS, name.as_str()).await? {
            None => Ok((0, None)),
            Some(item) if item.value.is_empty() => Ok((item.revision, None)),
            Some(item) => Ok((item.revision, Some(stored(&item)))),
        }
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
            let (last, _) = self.found(name).await?;
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
            let (revision, found) = self.found(name).await?;
            // What can't be read opens nothing, and is replaced.
            if let Some(Ok(stored)) = found
                && stored.incarnation == Some(incarnation)
            {
                return Ok(stored);
            }
            last = revision;
        }
        Err(taken(name))
    }

    /// Removes the hash of an incarnation; one of another incarnation is left alone.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn delete(&self, name: &SubscriptionName, incarnation: Incarnation) -> Result<(), Error> {
        for _ in 0..TRIES {
            let (revision, Some(found)) = self.found(name).await? else { return Ok(()) };
            // What can't be read must not keep a name from being removed.
            if found.is_ok_and(|stored| stored.incarnation.is_some_and(|i| i != incarnation)) {
                return Ok(());
            }
            match self.write(name, Bytes::new(), revision).await {
                Ok(_) => return Ok(()),
                Err(Refusal::WrongLast(_)) => {}
                Err(refusal) => return Err(refusal.into_error(&format!("removing the credential of {name}"))),
            }
        }
        Err(Error::unavailable(format!("removing the credential of {name}"), "others were faster each time"))
    }

    /// Removes the hash of a name, whatever it is.
    pub(crate) async fn delete_any(&self, name: &SubscriptionName) -> Result<(), Error> {
        let (revision, Some(_)) = self.found(name).await? else { return Ok(()) };
        match self.write(name, Bytes::new(), revision).await {
            // It was written meanwhile: it is another one's.
            Ok(_) | Err(Refusal::WrongLast(_)) => Ok(()),
            Err(refusal) => Err(refusal.into_error(&format!("removing the credential of {name}"))),
        }
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

fn stored(item: &Item) -> Result<StoredCredential, Error> {
    let Item { key, revision, value, .. } = item;
    if value.starts_with(b"$") {
        let hash = String::from_utf8_lossy(value).into_owned();
        return Ok(StoredCredential { incarnation: None, hash, revision: *revision });
    }
    let Value { incarnation, hash } =
        serde_json::from_slice(value).map_err(|e| Error::corrupt(format!("the credential of {key}"), e))?;
    Ok(StoredCredential { incarnation: Some(incarnation), hash, revision: *revision })
}

fn taken(name: &SubscriptionName) -> Error {
    let cause = "another registration has taken the name meanwhile";
    Error::unavailable(format!("writing the credential of {name}"), cause)
}

/// Tries against others; each failure means that somebody else succeeded.
const TRIES: u32 = 20;
