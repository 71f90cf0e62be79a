//! Live messages that a snapshot holds already: looking at them while it is read, and leaving them out once it is sealed.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use model::delivery::LiveTag;

use crate::{Error, Queue, names::Part, reader::queue_head::live_tag};

/// Removals that are under way at once.
const REMOVALS_AT_ONCE: usize = 16;

/// A live message as it waits in its queue.
#[derive(Clone, Debug)]
pub struct LiveMessage {
    /// Its number in the queue.
    pub sequence: u64,
    /// What it says of itself; `None` if that can't be read.
    pub tag: Option<LiveTag>,
    /// The event.
    pub payload: Bytes,
}

impl Queue {
    /// The first live message at or above a number, whether it may be delivered or not.
    ///
    /// # Errors
    /// NATS away.
    pub async fn live_from(&self, sequence: u64) -> Result<Option<LiveMessage>, Error> {
        let found = self.wire().next(&self.stream, &self.subject(Part::Main), sequence).await?.message();
        Ok(found.map(|m| LiveMessage { sequence: m.sequence, tag: live_tag(&m), payload: m.payload }))
    }

    /// Removes the live messages that the seal of this attempt names; answers how many there were. What earlier
    /// attempts have set aside goes, too. To be called
    /// before the prefill becomes `done`, so that nobody sees them. Without a seal of this attempt nothing happens: an
    /// attempt that was overtaken must not remove what another one's snapshot lacks.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn remove_contained(&self, attempt: u32) -> Result<u64, Error> {
        let sealed = self.fence().await?.filter(|fence| fence.value.seals(self.incarnation, attempt));
        if sealed.is_some()
            && let Err(error) =
                self.broker.dead_letters().forget_overtaken(&self.name, self.incarnation, attempt).await
        {
            // The next attempt does it.
            let error = model::error_chain(&error);
            tracing::warn!(subscription = %self.name, error, "dead letters of earlier attempts are left");
        }
        let contained = sealed.map(|fence| fence.value.contained).unwrap_or_default();
        let removals = stream::iter(contained.into_iter().map(|n| self.wire().remove(&self.stream, n)));
        removals
            .buffer_unordered(REMOVALS_AT_ONCE)
            .try_fold(0, async |sum, removed| Ok(sum + u64::from(removed == Some(true))))
            .await
    }
}
