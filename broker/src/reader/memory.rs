//! What a replica remembers of a queue. All of it may be lost at any time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Kind, Subscription, Tag};
use tokio::{sync::watch, time::Instant};

use super::{Tagged, notices::Removed};

/// Deliveries that are remembered: two of the largest batches.
const REMEMBERED: usize = 2000;

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Connections to NATS that had broken when this was learned.
    connection: Mutex<u64>,
    /// Messages that were delivered and not removed here, by number. Std locks: nothing awaits under them.
    deliveries: Mutex<BTreeMap<u64, Delivery>>,
    /// Round and attempt of the prefill that was seen drained after it was sealed.
    drained: Mutex<Option<(u32, u32)>>,
    /// Rung when there may be something new.
    bell: watch::Sender<u64>,
    /// Does a task ring the bell for arrivals?
    listening: Mutex<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Delivery {
    tag: Tag,
    times: u64,
    again_at: Instant,
}

impl Memory {
    pub(super) fn bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    pub(super) fn ring(&self) {
        self.bell.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// True: nobody listens for arrivals, and it is now the caller's task.
    pub(super) fn begin_listening(&self) -> bool {
        !std::mem::replace(&mut *lock(&self.listening), true)
    }

    /// True: nobody waits for the bell any more, and the listening is over. Under the same lock as the beginning, so
    /// that whoever begins to wait meanwhile is either seen here or begins to listen.
    pub(super) fn end_listening(&self) -> bool {
        let mut listening = lock(&self.listening);
        *listening = self.bell.receiver_count() > 0;
        !*listening
    }

    /// The listening is over, whoever waits: they have to look.
    pub(super) fn break_off_listening(&self) {
        *lock(&self.listening) = false;
        self.ring();
    }

    /// Forgets what was learned over another connection: the server may have been restored from a backup since, and
    /// then the same number is another message.
    pub(super) fn over(&self, connection: u64) {
        if std::mem::replace(&mut *lock(&self.connection), connection) != connection {
            lock(&self.deliveries).clear();
            *lock(&self.drained) = None;
        }
    }

    pub(super) fn is_drained(&self, view: &Subscription) -> bool {
        *lock(&self.drained) == Some((view.prefill.round, view.prefill.attempt))
    }

    pub(super) fn note_drained(&self, view: &Subscription) {
        *lock(&self.drained) = Some((view.prefill.round, view.prefill.attempt));
    }

    /// May these messages be given, of which the first is the head, or when may they be?
    pub(super) fn may_deliver(&self, messages: &[Tagged]) -> Result<(), Instant> {
        let Some((head, tag)) = messages.first() else { return Ok(()) };
        self.forget_before(tag.kind(), head.sequence);
        match lock(&self.deliveries).get(&head.sequence) {
            Some(delivery) if Instant::now() < delivery.again_at => Err(delivery.again_at),
            _ => Ok(()),
        }
    }

    /// This is the first message of its kind: what was before it was removed, maybe by another replica.
    pub(super) fn forget_before(&self, kind: Kind, head: u64) {
        let mut deliveries = lock(&self.deliveries);
        if deliveries.first_key_value().is_some_and(|(number, _)| *number < head) {
            deliveries.retain(|number, delivery| *number >= head || delivery.tag.kind() != kind);
        }
    }

    /// Notes a delivery, and answers how often the message was delivered.
    pub(super) fn deliver(&self, sequence: u64, tag: Tag, delay: Duration) -> u64 {
        let mut deliveries = lock(&self.deliveries);
        let times = deliveries.get(&sequence).map_or(1, |last| last.times + 1);
        deliveries.insert(sequence, Delivery { tag, times, again_at: Instant::now() + delay });
        if deliveries.len() > REMEMBERED {
            deliveries.pop_first();
        }
        times
    }

    /// What a delivered message said of itself. Over one connection a number is never used again, so this stays true.
    pub(super) fn tag(&self, sequence: u64) -> Option<Tag> {
        lock(&self.deliveries).get(&sequence).map(|delivery| delivery.tag)
    }

    pub(super) fn removed(&self, Removed { id, through }: Removed) {
        if through {
            self.forget_before(id.kind, id.sequence + 1);
        } else {
            lock(&self.deliveries).remove(&id.sequence);
        }
        self.ring();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Incarnation, LiveTag};

    #[test]
    fn what_is_remembered_of_deliveries_is_bounded_and_the_newest_stay() {
        let (memory, last) = (Memory::default(), 3 * REMEMBERED as u64);
        let tag =
            |incoming_seq| LiveTag { incarnation: Incarnation(uuid::Uuid::nil()), round: 1, incoming_seq };
        for sequence in 1..=last {
            assert_eq!(memory.deliver(sequence, Tag::Live(tag(sequence)), Duration::ZERO), 1);
        }
        assert_eq!(lock(&memory.deliveries).len(), REMEMBERED);
        assert_eq!(memory.deliver(last, Tag::Live(tag(last)), Duration::ZERO), 2);
    }
}
