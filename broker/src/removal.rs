//! Removing a subscription: entry, task, queue, dead letters, credentials; then the entry becomes a tombstone.

use model::{Entry, Incarnation, Lifecycle, Subscription, SubscriptionName, Tombstone};

use crate::{Broker, Error, Modified, Revised, WriteError};

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
        let tombstone = Entry::Tombstone(Tombstone { next_sequence: next });
        match registry.update(name, &tombstone, current.revision).await {
            // A conflict: somebody else finished the same removal.
            Ok(_) | Err(WriteError::Conflict) => Ok(Removal::Removed),
            Err(WriteError::Other(error)) => Err(error),
        }
    }
}

fn changed(modified: Modified) -> Option<Revised<Subscription>> {
    match modified {
        Modified::Changed(s) | Modified::Unchanged(s) => Some(s),
        Modified::Gone => None,
    }
}
