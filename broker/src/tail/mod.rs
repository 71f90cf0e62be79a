//! The end of the event log, as a replica of the API holds it in memory: events are delivered from here, before anybody
//! has copied them.
//!
//! One reader for all queues of a replica. What it holds is bounded; what it does not hold the dispatcher copies.

mod entries;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use model::{Incarnation, error_chain};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

pub(crate) use self::entries::{Ahead, Bound, Event, Wanted};
use self::entries::{Concerns, Entries};
use crate::{Broker, Error, LogEntry, Routes, Watcher, WentBack};

/// What is held at most: more than comes while the dispatcher waits before it copies.
const HELD: Bound = Bound { entries: 10_000, bytes: 16 << 20 };
/// How long entries are held that every queue has, for streams that are behind.
const HELD_FOR: Duration = Duration::from_secs(30);
/// How often the dispatcher's position is read, while the log goes on.
const POSITION_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked how far the log is, so that a reading that hangs is noticed.
const LAST_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// What was known of the log at one moment: to be noted *before* a checkpoint is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Everything behind this is held.
    base: u64,
    /// A position of the dispatcher: behind their checkpoints no queue wants anything up to here.
    position: u64,
    /// The tail has begun anew so often.
    generation: u64,
}

impl Mark {
    /// From where on a queue with its checkpoint at `place` is to be looked for. `None`: some of that is not held.
    pub(crate) fn begin(self, place: u64) -> Option<u64> {
        let begin = place.max(self.position);
        (begin >= self.base).then_some(begin)
    }

    /// Which beginning of the tail it is of.
    pub(crate) fn generation(self) -> u64 {
        self.generation
    }

    /// Is the checkpoint alone not enough to know?
    pub(crate) fn needs_position(self, place: u64) -> bool {
        place < self.base
    }
}

/// Who rings when something has come for a queue.
pub(crate) trait Bell: Send + Sync {
    fn ring(&self);
}

/// Follows the log until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Tail(Arc<Following>);

#[derive(Debug)]
struct Following {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    /// Std locks: nothing awaits under them.
    held: Mutex<Held>,
    waiting: Mutex<Waiting>,
    /// The last entry that was read.
    end: watch::Sender<u64>,
    /// Last entry of the log, as far as is known.
    last: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("held", &self.held).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Held {
    /// `None`: nothing was read yet.
    entries: Option<Entries>,
    position: u64,
    generation: u64,
}

#[derive(Default)]
struct Waiting {
    routes: Routes,
    bells: HashMap<Incarnation, Weak<dyn Bell>>,
}

/// What is seen of the reading.
struct Watched(Arc<Shared>);

impl Watcher for Watched {
    fn opened(&self, last: u64) {
        self.0.last.fetch_max(last, Ordering::Relaxed);
    }

    fn broken(&self, _: &Error) {}

    fn last(&self) -> u64 {
        self.0.last.load(Ordering::Relaxed)
    }
}

impl Tail {
    /// Begins to follow the log.
    pub(crate) fn follow(broker: &Broker) -> Self {
        let shared = Arc::new(Shared {
            held: Mutex::new(Held { entries: None, position: 0, generation: 0 }),
            waiting: Mutex::default(),
            end: watch::Sender::new(0),
            last: AtomicU64::new(0),
        });
        let task = tokio::spawn(follow(broker.clone(), shared.clone()));
        Self(Arc::new(Following { shared, task }))
    }

    /// What is known now. `None`: nothing was read yet.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let held = self.0.shared.held();
        let base = held.entries.as_ref()?.base();
        Some(Mark { base, position: held.position, generation: held.generation })
    }

    /// What a queue gets behind a place. `None`: some of it is not held, or the tail has begun anew since the mark.
    pub(crate) fn ahead(
        &self,
        mark: Mark,
        wanted: &Wanted<'_>,
        after: u64,
        until: u64,
        most: Bound,
    ) -> Option<Ahead> {
        let held = self.0.shared.held();
        if held.generation != mark.generation {
            return None;
        }
        held.entries.as_ref()?.ahead(wanted, after, until, most)
    }

    /// The last entry that was read.
    pub(crate) fn end(&self) -> u64 {
        *self.0.shared.end.borrow()
    }

    /// Tells when an entry has come.
    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.0.shared.end.subscribe()
    }

    /// Rings from now on when something comes for a queue, by what is in effect there.
    pub(crate) fn wake(
        &self,
        incarnation: Incarnation,
        epoch: model::checkpoint::Epoch,
        route: &model::topic::Route,
        bell: Weak<dyn Bell>,
    ) {
        let mut waiting = self.0.shared.waiting();
        waiting.routes.take_effect(incarnation, epoch, route.clone());
        waiting.bells.insert(incarnation, bell);
    }

    /// Nobody waits for this queue any more.
    pub(crate) fn let_sleep(&self, incarnation: Incarnation) {
        let mut waiting = self.0.shared.waiting();
        waiting.routes.remove(incarnation);
        waiting.bells.remove(&incarnation);
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins at a place: nothing that was held before counts.
    fn begin(&self, base: u64, position: u64) {
        let mut held = self.held();
        held.entries = Some(Entries::new(HELD, base));
        held.position = position;
        held.generation += 1;
        drop(held);
        self.end.send_replace(base);
        self.waiting().ring(None);
    }

    /// Takes an entry. False: it is not the next one.
    fn take(&self, entry: LogEntry) -> bool {
        let sequence = entry.sequence;
        let mut held = self.held();
        let Some(concerns) = held.entries.as_mut().and_then(|entries| entries.push(entry, Instant::now()))
        else {
            return false;
        };
        drop(held);
        self.end.send_replace(sequence);
        self.waiting().ring(Some(&concerns));
        true
    }

    fn note_position(&self, position: u64) {
        let mut held = self.held();
        held.position = held.position.max(position);
        if let (Some(entries), Some(before)) = (&mut held.entries, Instant::now().checked_sub(HELD_FOR)) {
            entries.forget(before, position);
        }
    }
}

impl Waiting {
    /// Rings for those whom an entry concerns; `None`: for all.
    fn ring(&mut self, concerns: Option<&Concerns>) {
        let ring = |bell: &Weak<dyn Bell>| {
            if let Some(bell) = bell.upgrade() {
                bell.ring();
            }
        };
        match concerns {
            None => self.bells.values().for_each(ring),
            Some(Concerns::Nobody) => {}
            Some(Concerns::Queue(incarnation)) => self.bells.get(incarnation).into_iter().for_each(ring),
            Some(Concerns::Topic(head)) => {
                let woken = self.routes.of(&head.realm, &head.topic);
                woken.iter().filter_map(|incarnation| self.bells.get(incarnation)).for_each(ring);
            }
        }
    }
}

async fn follow(broker: Broker, shared: Arc<Shared>) {
    if !broker.reads_from_log() {
        // Everything is copied, and who copies says so.
        return;
    }
    loop {
        match broker.position().get().await {
            Ok(position) => {
                shared.begin(position.value, position.value);
                follow_from(&broker, &shared, position.value).await;
            }
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "the event log is not followed yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Follows the log until it has gone back.
async fn follow_from(broker: &Broker, shared: &Arc<Shared>, position: u64) {
    let mut log = broker.log_from(position + 1, Watched(shared.clone()));
    let mut tick = tokio::time::interval(POSITION_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LAST_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = position;
    loop {
        tokio::select! {
            entry = log.next() => match entry {
                Some(Ok(entry)) => {
                    let sequence = entry.sequence;
                    if !shared.take(entry.clone()) {
                        // What is missing was purged: every queue has it. Or it is lost: then the position never gets
                        // here, and nothing is delivered from here on.
                        let position = broker.position().get().await.map_or(known, |position| position.value);
                        shared.begin(sequence - 1, position);
                        shared.take(entry);
                    }
                    shared.last.fetch_max(sequence, Ordering::Relaxed);
                }
                Some(Err(WentBack)) | None => return,
            },
            _ = tick.tick() => {
                let end = *shared.end.borrow();
                if known < end {
                    match broker.position().get().await {
                        // It has gone back: an older state was restored.
                        Ok(position) if position.value < known => return,
                        Ok(position) => {
                            known = position.value;
                            shared.note_position(known);
                        }
                        Err(error) => tracing::debug!(error = %error_chain(&error), "the position is not known"),
                    }
                }
            }
            _ = look.tick() => if let Ok(last) = broker.event_log().last_sequence().await {
                shared.last.fetch_max(last, Ordering::Relaxed);
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_purged_is_not_wanted_and_what_was_dropped_is_unknown() {
        let mark = |base, position| Mark { base, position, generation: 1 };
        for (base, position, place, begin) in [
            (0, 0, 0, Some(0)),
            (0, 0, 7, Some(7)),
            // Nothing is wanted up to the position.
            (5, 5, 3, Some(5)),
            (5, 9, 3, Some(9)),
            (5, 9, 12, Some(12)),
            // The tail has dropped its beginning: nobody knows what was there.
            (9, 5, 3, None),
            (9, 5, 8, None),
            (9, 5, 9, Some(9)),
        ] {
            assert_eq!(mark(base, position).begin(place), begin, "{base} {position} {place}");
        }
    }
}
