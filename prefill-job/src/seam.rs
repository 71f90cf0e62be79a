//! Watches the live events that are copied behind a snapshot while it is being read.
//!
//! The number that [`AsOf`] tells is the queue's checkpoint, and not the end of the event log: everything up to it is
//! in the queue, so it can be noted before the number is told. Whatever goes wrong here only means that events stay.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use broker::Queue;
use bytes::Bytes;
use model::{Message, Seam, error_chain, prefill::PrefillTask};
use tokio_util::task::AbortOnDropHandle;

use crate::source::AsOf;

/// How often the queue is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// Live messages that are looked at, those of earlier rounds included, before this attempt stops looking.
const LOOKED_AT_MAX: u32 = 20_000;

/// The seam of one attempt; dropping it ends the watch.
pub(crate) struct SeamWatch {
    seam: Arc<Mutex<Seam>>,
    as_of: AsOf,
    _watch: Option<AbortOnDropHandle<()>>,
}

impl SeamWatch {
    /// Knows nothing: every event stays.
    pub(crate) fn blind() -> Self {
        Self { seam: Arc::default(), as_of: AsOf::default(), _watch: None }
    }

    /// Begins to watch; the first look is over when this returns.
    pub(crate) async fn start(queue: &Queue, task: &PrefillTask) -> Self {
        let seam = Arc::new(Mutex::new(Seam::new(task.selection.is_some())));
        let watch = Self { seam, ..Self::blind() };
        let mut looks = Looks {
            queue: queue.clone(),
            task: task.clone(),
            seam: watch.seam.clone(),
            as_of: watch.as_of.clone(),
            next: 1,
            left: LOOKED_AT_MAX,
            checkpoint: 0,
        };
        if !looks.go_on().await {
            return watch;
        }
        let task = tokio::spawn(async move {
            while looks.go_on().await {
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self { _watch: Some(AbortOnDropHandle::new(task)), ..watch }
    }

    /// What the source asks before it reads an object.
    pub(crate) fn as_of(&self) -> AsOf {
        self.as_of.clone()
    }

    /// An object goes into the queue, in this message.
    pub(crate) fn wrote(&self, as_of: Option<u64>, message: &Bytes) {
        let Some(as_of) = as_of else { return };
        if lock(&self.seam).may_hold(as_of)
            && let Some(dn) = Message::dn(message)
        {
            lock(&self.seam).wrote(&dn, as_of);
        }
    }

    /// Numbers of the live messages that the snapshot holds already.
    pub(crate) fn contained(&self) -> Vec<u64> {
        lock(&self.seam).contained()
    }
}

/// A std lock: nothing awaits under it.
fn lock(seam: &Mutex<Seam>) -> MutexGuard<'_, Seam> {
    seam.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Looks {
    queue: Queue,
    task: PrefillTask,
    seam: Arc<Mutex<Seam>>,
    as_of: AsOf,
    /// Number in the queue from which on nothing was looked at.
    next: u64,
    left: u32,
    /// Revision of the checkpoint at the last look.
    checkpoint: u64,
}

impl Looks {
    /// Looks once more. False: there is no use in another look.
    async fn go_on(&mut self) -> bool {
        match self.look().await {
            Ok(more) => more,
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "the live events behind the prefill could not be looked at");
                true
            }
        }
    }

    async fn look(&mut self) -> Result<bool, broker::Error> {
        // First the checkpoint, then the copies: those up to it are there by then.
        let Some(checkpoint) = self.queue.checkpoint().await? else { return Ok(false) };
        if checkpoint.value.epoch.round != self.task.round {
            return Ok(false);
        }
        if checkpoint.revision == self.checkpoint {
            return Ok(true);
        }
        while let Some(live) = self.queue.live_from(self.next).await? {
            self.next = live.sequence + 1;
            let Some(left) = self.left.checked_sub(1) else { return Ok(false) };
            self.left = left;
            let Some(tag) = live.tag else { return Ok(false) };
            let ours = tag.incarnation == self.task.incarnation && tag.round == self.task.round;
            // A dead letter that was sent again is no event of the log, and says nothing of its place.
            let known = !ours
                || tag.incoming_seq > 0
                    && lock(&self.seam).note(live.sequence, tag.incoming_seq, &live.payload);
            if !known {
                return Ok(false);
            }
        }
        self.checkpoint = checkpoint.revision;
        self.as_of.set(checkpoint.value.incoming_seq);
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
