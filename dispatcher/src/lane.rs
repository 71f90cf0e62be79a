//! One lane per subscription: takes all that waits and writes it as one atomic batch. Latency is low when idle,
//! throughput is high under load, and a lane that can't go on does not stop the others: it gives up what waits for it
//! in memory, and reads the log itself until it has caught up.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use broker::{Copier, Copy, LargeEvent, Matcher};
use bytes::Bytes;
use model::{Epoch, Incarnation, Marker, Route};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::{
    hold::Hold,
    mailbox::{Held, Item, Mailbox, Taken},
    writer::{Gone, Trouble, Writer},
};

/// Batches of all lanes that are under way at once: more than NATS writes at once, and far fewer than it takes (1,000).
const BATCHES_AT_ONCE: usize = 64;
/// Queues that are opened at once.
const OPENED_AT_ONCE: usize = 32;

/// Bytes of one batch: the server holds a batch in memory until it is committed.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

/// What a lane tells the session.
#[derive(Debug)]
pub(crate) enum Report {
    /// Its queue is open.
    Opened {
        lane: Incarnation,
        /// What is in effect in the queue; `None`: no marker was seen for it yet.
        active: Option<(Epoch, Route)>,
        /// The answer: is the lane needed?
        needed: oneshot::Sender<bool>,
    },
    /// Its queue can't be opened for the time being.
    Delayed { lane: Incarnation },
    /// The lane has ended: its subscription or its queue is gone.
    Ended { lane: Incarnation, inlet: Arc<Inlet> },
    /// The log has a gap that nobody has accounted for.
    Gap,
    /// An entry that could not be read is another one now.
    Changed,
}

/// What main reader and lanes tell each other all the time.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Last entry that the main reader has announced: written before it is put into any mailbox.
    read: AtomicU64,
    /// Last entry of the log, as far as we have heard.
    last: AtomicU64,
    /// Longest time that a lane took for a batch, of late, in microseconds.
    slowest: AtomicU64,
    /// Some lane has done something.
    pub stepped: Notify,
    /// Lanes that may read the log themselves at once: each holds some of it in memory.
    pub readers: Semaphore,
    /// Queues that may be opened at once.
    pub opening: Semaphore,
    /// Batches that may be under way at once.
    pub batches: Arc<Semaphore>,
}

impl Pace {
    pub(crate) fn new(read: u64, readers: usize) -> Self {
        Self {
            read: AtomicU64::new(read),
            last: AtomicU64::new(read),
            slowest: AtomicU64::new(0),
            stepped: Notify::new(),
            readers: Semaphore::new(readers),
            opening: Semaphore::new(OPENED_AT_ONCE),
            batches: Arc::new(Semaphore::new(BATCHES_AT_ONCE)),
        }
    }

    pub(crate) fn announce(&self, sequence: u64) {
        self.read.store(sequence, Ordering::SeqCst);
    }

    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    pub(crate) fn set_last(&self, sequence: u64) {
        self.last.fetch_max(sequence, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// A lane took so long for a batch. What was slow once is forgotten after some hundred batches.
    fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let slowest = self.slowest.load(Ordering::Relaxed);
        self.slowest.store(micros.max(slowest - slowest / 256), Ordering::Relaxed);
    }

    /// Longest time that a lane took for a batch, of late.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.slowest.load(Ordering::Relaxed))
    }
}

/// The end of a lane that the main reader holds.
#[derive(Debug)]
pub(crate) struct Inlet {
    mailbox: Mutex<Mailbox>,
    filled: Notify,
}

impl Inlet {
    pub(crate) fn new(mailbox: Mailbox) -> Arc<Self> {
        Arc::new(Self { mailbox: Mutex::new(mailbox), filled: Notify::new() })
    }

    /// Looks into the mailbox, or changes it. Nothing awaits under the lock.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Mailbox) -> T) -> T {
        look(&mut self.mailbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands something over.
    pub(crate) fn put(&self, item: Item) {
        self.with(|mailbox| mailbox.put(item, Instant::now()));
        self.filled.notify_one();
    }
}

/// One subscription's lane.
pub(crate) struct Lane {
    pub writer: Writer,
    pub hold: Hold,
    /// Its topics are those of the last marker that the lane has seen; they are for reading the log itself.
    pub matcher: Matcher,
    pub inlet: Arc<Inlet>,
    pub pace: Arc<Pace>,
    pub reports: mpsc::UnboundedSender<Report>,
}

impl Lane {
    /// Works until its subscription or its queue seems to be gone.
    pub(crate) async fn work(&mut self) -> Gone {
        loop {
            if let Some(until) = self.held_until().await {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = self.inlet.filled.notified() => {}
                }
                continue;
            }
            let taken = self.inlet.with(|mailbox| mailbox.take(Copier::LARGEST_BATCH, BATCH_BYTES));
            let worked = match taken {
                Taken::Nothing => {
                    self.inlet.filled.notified().await;
                    Ok(())
                }
                Taken::Behind { from } => self.catch_up(from).await,
                Taken::Items(items) => self.perform(items).await,
            };
            if let Err(gone) = worked {
                return gone;
            }
        }
    }

    /// Until when what waits may wait for a consumer that reads it from the log: then it need not be copied. `None`: what
    /// still waits is to be copied now.
    async fn held_until(&mut self) -> Option<Instant> {
        let hold = self.hold.time;
        let held = |lane: &Self| lane.inlet.with(|mailbox| mailbox.held(hold));
        let first = held(self);
        if first == Held::No || !self.hold.applies(&self.writer).await {
            return None;
        }
        if let Held::Until(until) = first
            && until > Instant::now()
        {
            return Some(until);
        }
        // It has waited for long enough, unless it was acknowledged meanwhile. Trouble is seen when it is copied.
        self.writer.reload().await.ok();
        self.follow_checkpoint();
        let checkpoint = self.writer.checkpoint();
        self.inlet.with(|mailbox| mailbox.pass(checkpoint));
        self.pace.stepped.notify_one();
        match held(self) {
            Held::Until(until) if until > Instant::now() => Some(until),
            Held::Until(_) | Held::TooMuch | Held::No => None,
        }
    }

    async fn perform(&mut self, items: Vec<Item>) -> Result<(), Gone> {
        let began = Instant::now();
        let mut batch = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Event { sequence, accepted, payload } => {
                    batch.extend(self.see(sequence, accepted, payload));
                }
                Item::Letter { sequence, accepted, payload } => {
                    batch.push(Copy { incoming_seq: sequence, accepted: Some(accepted), payload });
                }
                Item::Marker { sequence, marker } => self.mark(sequence, &marker).await?,
                Item::TooLarge { sequence, event } => self.set_aside(sequence, &event).await?,
            }
        }
        self.copy(batch).await?;
        self.inlet.with(Mailbox::done);
        self.pace.took(began.elapsed());
        self.pace.stepped.notify_one();
        Ok(())
    }

    /// An event as the subscription sees it, if it does.
    pub(crate) fn see(&self, sequence: u64, accepted: SystemTime, payload: Bytes) -> Option<Copy> {
        let payload = match sequence > self.writer.checkpoint() {
            true => self.choose(sequence, payload)?,
            // It is in the queue, and only counted.
            false => payload,
        };
        Some(Copy { incoming_seq: sequence, accepted: Some(accepted), payload })
    }

    fn choose(&self, sequence: u64, payload: Bytes) -> Option<Bytes> {
        let chosen = self.matcher.see(payload).unwrap_or_else(|error| {
            tracing::error!(
                subscription = %self.writer.name, incoming_seq = sequence, %error,
                "an event can't be read and is not selected"
            );
            None
        });
        if chosen.is_none() {
            self.writer.metrics.not_selected.inc();
        }
        chosen
    }

    /// Writes copies, however long it takes.
    pub(crate) async fn copy(&mut self, mut batch: Vec<Copy>) -> Result<(), Gone> {
        match self.writer.copy(&mut batch).await {
            Ok(()) => Ok(()),
            Err(trouble) => self.copy_later(batch, trouble).await,
        }
    }

    /// Writes what is left of a batch after trouble.
    pub(crate) async fn copy_later(
        &mut self,
        mut batch: Vec<Copy>,
        mut trouble: Trouble,
    ) -> Result<(), Gone> {
        let mut patience = self.writer.patience();
        loop {
            self.hold();
            patience.after(trouble).await?;
            match self.writer.copy(&mut batch).await {
                Ok(()) => return Ok(()),
                Err(again) => trouble = again,
            }
        }
    }

    /// An event that NATS does not carry. Which objects a selection lets through can't be told of it, so then it does
    /// not say which one it is.
    pub(crate) async fn set_aside(&mut self, sequence: u64, event: &LargeEvent) -> Result<(), Gone> {
        let mut patience = self.writer.patience();
        while let Err(trouble) = self.writer.set_aside_large(sequence, event, self.matcher.selects()).await {
            self.hold();
            patience.after(trouble).await?;
        }
        Ok(())
    }

    /// A marker of ours: from here on its topics count.
    pub(crate) async fn mark(&mut self, sequence: u64, marker: &Marker) -> Result<(), Gone> {
        match self.writer.mark(sequence, marker).await {
            Ok(()) => {
                self.follow_checkpoint();
                Ok(())
            }
            Err(trouble) => self.mark_later(sequence, marker, trouble).await,
        }
    }

    /// Goes on with a marker after trouble.
    pub(crate) async fn mark_later(
        &mut self,
        sequence: u64,
        marker: &Marker,
        mut trouble: Trouble,
    ) -> Result<(), Gone> {
        let mut patience = self.writer.patience();
        loop {
            self.hold();
            patience.after(trouble).await?;
            match self.writer.mark(sequence, marker).await {
                Ok(()) => break,
                Err(again) => trouble = again,
            }
        }
        self.follow_checkpoint();
        Ok(())
    }

    /// What is in effect stands in the queue.
    pub(crate) fn follow_checkpoint(&mut self) {
        // Topics that can't be used were told by the main reader.
        if let Ok(route) = Route::new(&self.writer.copier.checkpoint().realms_topics) {
            self.matcher.route = route;
        }
    }

    /// The main reader is not to wait for us.
    fn hold(&self) {
        self.inlet.with(Mailbox::stuck);
        self.pace.stepped.notify_one();
    }
}
