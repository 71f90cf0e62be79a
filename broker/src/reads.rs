//! When consumers last asked for messages, for people: beside the progress in the bucket `PREFILL`. No decision is made
//! from it.

use std::time::SystemTime;

use model::{Incarnation, SubscriptionName};
use serde::{Deserialize, Serialize};

use crate::{Error, bucket, names, wire::Wire};

/// The notes of all replicas, one a subscription.
#[derive(Clone, Debug)]
pub struct LastReads {
    wire: Wire,
}

/// Whose note it is; NATS says when it was written.
#[derive(Serialize, Deserialize)]
struct Note {
    incarnation: Incarnation,
}

impl LastReads {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// When the consumer asked for messages, as it was noted last, by the clock of NATS. A note that can't be read is
    /// none.
    ///
    /// # Errors
    /// NATS away.
    pub async fn get(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
    ) -> Result<Option<SystemTime>, Error> {
        let item = bucket::get(&self.wire, names::PREFILL, &names::last_read_key(name)).await?;
        let of_it = |item: &bucket::Item| {
            serde_json::from_slice(&item.value).is_ok_and(|note: Note| note.incarnation == incarnation)
        };
        Ok(item.filter(of_it).map(|item| item.written))
    }

    /// Notes that the consumer asks for messages now.
    ///
    /// # Errors
    /// NATS away.
    pub async fn note(&self, name: &SubscriptionName, incarnation: Incarnation) -> Result<(), Error> {
        let note = serde_json::to_vec(&Note { incarnation })
            .map_err(|e| Error::corrupt(format!("the last read of {name}"), e))?;
        bucket::put(&self.wire, names::PREFILL, &names::last_read_key(name), note.into(), &noting(name)).await
    }

    /// Forgets the note of a subscription, if there is one.
    ///
    /// # Errors
    /// NATS away.
    pub async fn delete(&self, name: &SubscriptionName) -> Result<(), Error> {
        bucket::clear(&self.wire, names::PREFILL, &names::last_read_key(name), &noting(name)).await
    }
}

fn noting(name: &SubscriptionName) -> String {
    format!("noting the last read of {name}")
}
