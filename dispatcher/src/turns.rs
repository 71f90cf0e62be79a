//! Whose turn it is: copies that somebody waits for come first, and those of queues that nobody reads take what is
//! left, so that producers keep their share of NATS.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// Batches that are under way at once, for each server of NATS: lanes that wait gather larger ones meanwhile, which cost
/// far less than many small ones, and the producers keep their share.
const BATCHES: usize = 3;
/// Lanes that read the log themselves at once: each holds some of it in memory.
const READERS: usize = 4;
/// Of those that nobody waits for.
const UNHURRIED_READERS: usize = 2;
/// Longest pause after a batch that nobody waits for.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The turns of all lanes. Each kind is served in the order of asking.
#[derive(Debug)]
pub(crate) struct Turns {
    batches: Semaphore,
    /// Copies that nobody waits for: one lane at a time.
    unhurried: Semaphore,
    readers: Semaphore,
    unhurried_readers: Semaphore,
}

/// Whether somebody waits for the copies of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A consumer reads copies only, or a prefill waits for them.
    AtOnce,
    /// Its consumer could read from the log, and does not: there is time.
    Unhurried,
}

/// The turn of a lane whose copies nobody waits for.
#[derive(Debug)]
pub(crate) struct Unhurried<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    began: Instant,
    events_come: bool,
}

impl Turns {
    /// `replicas`: servers of NATS that share the work.
    pub(crate) fn new(replicas: usize) -> Self {
        Self {
            batches: Semaphore::new(BATCHES * replicas),
            unhurried: Semaphore::new(1),
            readers: Semaphore::new(READERS),
            unhurried_readers: Semaphore::new(UNHURRIED_READERS),
        }
    }

    /// For one batch: each is built whole in memory.
    pub(crate) async fn batch(&self) -> Option<SemaphorePermit<'_>> {
        self.batches.acquire().await.ok()
    }

    /// For reading the log.
    pub(crate) async fn reading(&self, urgency: Urgency) -> Option<SemaphorePermit<'_>> {
        match urgency {
            Urgency::AtOnce => self.readers.acquire().await.ok(),
            Urgency::Unhurried => self.unhurried_readers.acquire().await.ok(),
        }
    }

    /// For copies that nobody waits for.
    pub(crate) async fn unhurried(&self) -> Unhurried<'_> {
        Unhurried { _permit: self.unhurried.acquire().await.ok(), began: Instant::now(), events_come: false }
    }
}

impl Unhurried<'_> {
    /// Copies were written, and meanwhile events came or not.
    pub(crate) fn used(self, events_come: bool) -> Self {
        Self { events_come, ..self }
    }
}

/// Ends a turn. While events come, it leaves NATS to the producers for as long as the turn took.
pub(crate) async fn end(turn: Option<Unhurried<'_>>) {
    if let Some(Unhurried { began, events_come: true, .. }) = &turn {
        tokio::time::sleep(began.elapsed().min(PAUSE_MAX)).await;
    }
}
