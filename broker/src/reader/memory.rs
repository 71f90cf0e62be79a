//! What a replica remembers of a queue. All of it may be lost at any time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{
    Subscription,
    checkpoint::{Checkpoint, Epoch},
    delivery::{Kind, Tag},
};
use tokio::{sync::watch, time::Instant};

use super::{Ready, notices::Removed};
use crate::{Matcher, Revised, tail::Bell};

/// Deliveries that are remembered: two of the largest batches.
const REMEMBERED: usize = 2000;

/// How long it is taken for granted that nothing but what we know of writes to a queue.
const EMPTY_FOR: Duration = Duration::from_secs(10);

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
    /// The last look found nothing in the queue itself.
    from_log: AtomicBool,
    /// The last checkpoint that we know: it only grows.
    checkpoint: Mutex<Option<Revised<Checkpoint>>>,
    /// At this number of the checkpoint nothing was in `main`, and what adds to it writes the checkpoint, too.
    main_empty: Mutex<Option<(u64, Instant)>>,
    /// What is in effect by a checkpoint.
    matcher: Mutex<Option<(Epoch, Arc<Matcher>)>>,
    /// By what is in effect at this epoch the log's end rings the bell.
    rings_by: Mutex<Option<Epoch>>,
    /// Nothing is wanted between these places of the log, by what is in effect at this epoch.
    unwanted: Mutex<Option<Unwanted>>,
    /// Acknowledgements of one queue take turns: each moves the checkpoint.
    pub(super) acknowledging: tokio::sync::Mutex<()>,
}

/// A stretch of the log in which nothing is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unwanted {
    pub epoch: Epoch,
    /// As of this beginning of the tail.
    pub generation: u64,
    pub after: u64,
    pub through: u64,
}

impl Unwanted {
    /// Where to look on from a place.
    fn begin(self, epoch: Epoch, generation: u64, place: u64) -> u64 {
        let known = self.epoch == epoch && self.generation == generation && place >= self.after;
        if known { place.max(self.through) } else { place }
    }
}

#[derive(Clone, Copy, Debug)]
struct Delivery {
    tag: Tag,
    /// Its number in the queue, if it is there.
    stored: Option<u64>,
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
    pub(super) fn end_listening(&self, let_sleep: impl FnOnce()) -> bool {
        let mut listening = lock(&self.listening);
        *listening = self.bell.receiver_count() > 0;
        if !*listening {
            *lock(&self.rings_by) = None;
            let_sleep();
        }
        !*listening
    }

    /// Forgets what was learned over another connection: the server may have been restored from a backup since, and
    /// then the same number is another message.
    pub(super) fn over(&self, connection: u64) {
        if std::mem::replace(&mut *lock(&self.connection), connection) != connection {
            lock(&self.deliveries).clear();
            *lock(&self.drained) = None;
            *lock(&self.checkpoint) = None;
            *lock(&self.main_empty) = None;
            *lock(&self.matcher) = None;
            *lock(&self.unwanted) = None;
        }
    }

    pub(super) fn is_drained(&self, view: &Subscription) -> bool {
        *lock(&self.drained) == Some((view.prefill.round, view.prefill.attempt))
    }

    pub(super) fn note_drained(&self, view: &Subscription) {
        *lock(&self.drained) = Some((view.prefill.round, view.prefill.attempt));
    }

    /// Was there nothing in the queue itself at the last look?
    pub(super) fn reads_from_log(&self) -> bool {
        self.from_log.load(Ordering::Relaxed)
    }

    pub(super) fn note_reads_from_log(&self, reads: bool) {
        self.from_log.store(reads, Ordering::Relaxed);
    }

    /// The last checkpoint that we know.
    pub(super) fn checkpoint(&self) -> Option<Revised<Checkpoint>> {
        lock(&self.checkpoint).clone()
    }

    pub(super) fn note_checkpoint(&self, found: &Revised<Checkpoint>) {
        let mut known = lock(&self.checkpoint);
        if known.as_ref().is_none_or(|known| known.revision < found.revision) {
            *known = Some(found.clone());
        }
    }

    /// Was nothing in `main` at this number of the checkpoint? Then nothing is.
    pub(super) fn main_is_empty_at(&self, checkpoint: u64) -> bool {
        lock(&self.main_empty).is_some_and(|(at, until)| at == checkpoint && Instant::now() < until)
    }

    /// Nothing is in `main`, and the checkpoint, read before, had this number. It does not hold for ever: a replica of a
    /// former version puts letters there without the checkpoint.
    pub(super) fn note_main_is_empty(&self, checkpoint: u64) {
        *lock(&self.main_empty) = Some((checkpoint, Instant::now() + EMPTY_FOR));
    }

    /// We have moved the checkpoint on, on the condition that it was the one before, and have added nothing.
    pub(super) fn note_moved(&self, former: u64, moved: u64) {
        if let Some((at, _)) = &mut *lock(&self.main_empty)
            && *at == former
        {
            *at = moved;
        }
    }

    /// What is in effect by a checkpoint, made once.
    pub(super) fn matcher(
        &self,
        epoch: Epoch,
        make: impl FnOnce() -> Option<Matcher>,
    ) -> Option<Arc<Matcher>> {
        let mut matcher = lock(&self.matcher);
        if matcher.as_ref().is_none_or(|(known, _)| *known != epoch) {
            *matcher = Some((epoch, Arc::new(make()?)));
        }
        matcher.as_ref().map(|(_, matcher)| matcher.clone())
    }

    /// What is in effect, as far as we know.
    pub(super) fn in_effect(&self) -> Option<(Epoch, Arc<Matcher>)> {
        lock(&self.matcher).clone()
    }

    /// True: the tail does not ring yet by what is in effect at this epoch, and it is now the caller's task.
    pub(super) fn begin_ringing(&self, epoch: Epoch) -> bool {
        lock(&self.rings_by).replace(epoch) != Some(epoch)
    }

    /// Where to look on in the log from a place.
    pub(super) fn begin(&self, epoch: Epoch, generation: u64, place: u64) -> u64 {
        lock(&self.unwanted).map_or(place, |unwanted| unwanted.begin(epoch, generation, place))
    }

    pub(super) fn note_unwanted(&self, unwanted: Unwanted) {
        *lock(&self.unwanted) = Some(unwanted);
    }

    /// May these messages be given, of which the first is the head, or when may they be?
    pub(super) fn may_deliver(&self, messages: &[Ready]) -> Result<(), Instant> {
        let Some(head) = messages.first() else { return Ok(()) };
        self.forget_before(head.tag.kind(), head.number);
        match lock(&self.deliveries).get(&head.number) {
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
    pub(super) fn deliver(&self, message: &Ready, delay: Duration) -> u64 {
        let Ready { tag, number, stored, .. } = *message;
        let mut deliveries = lock(&self.deliveries);
        let times = deliveries.get(&number).map_or(1, |last| last.times + 1);
        deliveries.insert(number, Delivery { tag, stored, times, again_at: Instant::now() + delay });
        if deliveries.len() > REMEMBERED {
            deliveries.pop_first();
        }
        times
    }

    /// What a delivered message said of itself. Over one connection a number is never used again, so this stays true.
    pub(super) fn tag(&self, number: u64) -> Option<Tag> {
        lock(&self.deliveries).get(&number).map(|delivery| delivery.tag)
    }

    /// The number in the queue of a message that was delivered from there.
    pub(super) fn stored(&self, number: u64) -> Option<u64> {
        lock(&self.deliveries).get(&number).and_then(|delivery| delivery.stored)
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

impl Bell for Memory {
    fn ring(&self) {
        Self::ring(self);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Incarnation, delivery::LiveTag};

    fn live(place: u64) -> Ready {
        let tag = LiveTag { incarnation: Incarnation(uuid::Uuid::nil()), round: 1, incoming_seq: place };
        Ready { tag: Tag::Live(tag), number: place, stored: None, accepted: None, payload: "{}".into() }
    }

    #[test]
    fn what_is_remembered_of_deliveries_is_bounded_and_the_newest_stay() {
        let (memory, last) = (Memory::default(), 3 * REMEMBERED as u64);
        for place in 1..=last {
            assert_eq!(memory.deliver(&live(place), Duration::ZERO), 1);
        }
        assert_eq!(lock(&memory.deliveries).len(), REMEMBERED);
        assert_eq!(memory.deliver(&live(last), Duration::ZERO), 2);
    }

    #[test]
    fn a_stretch_without_anything_wanted_is_looked_at_once() {
        let epoch = |topics_version| Epoch { round: 1, topics_version };
        let known = Unwanted { epoch: epoch(2), generation: 3, after: 10, through: 20 };
        for (version, generation, place, begin) in [
            (2, 3, 10, 20),
            (2, 3, 15, 20),
            (2, 3, 25, 25),
            // Before it nobody has looked.
            (2, 3, 9, 9),
            // By other topics, or of another log, nothing is known.
            (1, 3, 15, 15),
            (2, 4, 15, 15),
        ] {
            assert_eq!(
                known.begin(epoch(version), generation, place),
                begin,
                "{version} {generation} {place}"
            );
        }
    }
}
