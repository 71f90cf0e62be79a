//! Removing a subscription.
//!
//! **The order of writes is an invariant**: the entry is marked as being removed, the next free number is noted in it,
//! then task, queue, dead letters, credentials and progress go, and last the entry becomes a tombstone. So whatever
//! dies in between, there is an entry by which the removal is finished: nothing of a consumer is left that no entry
//! names. (What a slow registration makes after that is found by [`Broker::orphans`].)

use std::time::SystemTime;

use model::{
    Entry, Incarnation, Subscription, SubscriptionName,
    subscription::{Lifecycle, Tombstone},
};

use crate::{
    Broker, Error, Modified, Revised, WriteError, bucket, names,
    queue::first_free,
    registry,
    wire::{Outgoing, Refusal, headers},
};

/// How a removal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is removed.
    Removed,
    /// It was not there, or another incarnation has the name.
    Gone,
}

impl Broker {
    /// Removes a subscription, or finishes a removal that died half-way. The Job, if there is one, is deleted by the
    /// controller, which sees that its subscription is gone.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn remove_subscription(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
    ) -> Result<Removal, Error> {
        let registry = self.registry();
        let queue = self.queue(name, incarnation);
        let deleting = |s: &Subscription| {
            (s.lifecycle != Lifecycle::Deleting)
                .then(|| Subscription { lifecycle: Lifecycle::Deleting, ..s.clone() })
        };
        let Some(marked) = changed(registry.modify(name, incarnation, deleting).await?) else {
            return Ok(Removal::Gone);
        };
        // The next free number is written down before the stream that tells it is deleted.
        let known = marked.value.next_sequence;
        let next = match (known, queue.next_sequence().await?) {
            (Some(known), found) => known.max(found.unwrap_or(0)),
            (None, Some(found)) => found,
            (None, None) => marked.value.first_sequence,
        };
        let noted = |s: &Subscription| {
            (s.next_sequence != Some(next)).then(|| Subscription { next_sequence: Some(next), ..s.clone() })
        };
        if changed(registry.modify(name, incarnation, noted).await?).is_none() {
            return Ok(Removal::Gone);
        }
        self.tasks().remove(name, incarnation).await?;
        queue.delete().await?;
        self.dead_letters().remove_all(name, incarnation).await?;
        let Some(current) = registry.subscription(name).await?.filter(|s| s.value.incarnation == incarnation)
        else {
            return Ok(Removal::Gone);
        };
        self.credentials().delete(name, incarnation).await?;
        self.progress().delete(name).await?;
        self.last_reads().delete(name).await?;
        let tombstone = Entry::Tombstone(Tombstone { next_sequence: next });
        match registry.update(name, &tombstone, current.revision).await {
            // A conflict: somebody else finished the same removal.
            Ok(_) | Err(WriteError::Conflict) => Ok(Removal::Removed),
            Err(WriteError::Other(error)) => Err(error),
        }
    }

    /// Removes an entry that can't be read, with all that belongs to its name, so that the name is free again.
    /// [`Removal::Gone`]: there is none, or it can be read.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn remove_unreadable(&self, key: &str) -> Result<Removal, Error> {
        if !is_key(key) {
            return Ok(Removal::Gone);
        }
        let Some(item) = bucket::get(&self.wire, names::SUBSCRIPTIONS, key).await? else {
            return Ok(Removal::Gone);
        };
        let freed = match key.parse::<SubscriptionName>() {
            Ok(_) if registry::entry(&item).is_ok() => return Ok(Removal::Gone),
            Ok(name) => {
                // As for every removal: the entry goes last.
                let mut next = bucket::tombstone(item.written.max(SystemTime::now())).next_sequence;
                for stream in self.streams_of(&name).await? {
                    let above = self.stream_state(&stream).await?.map(|state| first_free(state.last_seq));
                    next = next.max(above.unwrap_or(0));
                    self.delete_stream(&stream).await?;
                }
                self.tasks().remove_any(&name).await?;
                self.dead_letters().remove_of_name(&name).await?;
                self.credentials().delete_any(&name).await?;
                self.progress().delete(&name).await?;
                self.last_reads().delete(&name).await?;
                let tombstone = Entry::Tombstone(Tombstone { next_sequence: next });
                serde_json::to_vec(&tombstone).map_err(|e| Error::corrupt("a tombstone", e))?
            }
            // No name that could be registered: the marker of a deleted key is enough.
            Err(_) if item.value.is_empty() => return Ok(Removal::Gone),
            Err(_) => Vec::new(),
        };
        let message = Outgoing {
            subject: names::key_subject(names::SUBSCRIPTIONS, key),
            headers: headers([
                (names::EXPECTED_STREAM, names::bucket_stream(names::SUBSCRIPTIONS)),
                (names::EXPECTED_LAST_SUBJECT, item.revision.to_string()),
            ]),
            payload: freed.into(),
        };
        match self.wire.publish(message).await {
            // Somebody else has written it meanwhile: removed it, or, a newer version, changed it.
            Ok(_) | Err(Refusal::WrongLast(_)) => Ok(Removal::Removed),
            Err(refusal) => Err(refusal.into_error(&format!("removing the entry {key}"))),
        }
    }
}

/// What NATS takes as a key, so that it is no wildcard.
fn is_key(key: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "-/_=.".contains(c);
    key.split('.').all(|token| !token.is_empty()) && key.chars().all(known)
}

fn changed(modified: Modified) -> Option<Revised<Subscription>> {
    match modified {
        Modified::Changed(s) | Modified::Unchanged(s) => Some(s),
        Modified::Gone => None,
    }
}
