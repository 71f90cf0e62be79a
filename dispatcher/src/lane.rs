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
use model::{
    Incarnation,
    checkpoint::{Epoch, Marker},
    topic::Route,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::{
    copy_delay::CopyDelay,
    mailbox::{Held, Item, Mailbox, Taken},
    turns::{self, Turns, Unhurried, Urgency},
    writer::{Gone, Trouble, Writer},
};

/// Queues that are opened at once.
const OPENED_AT_ONCE: usize = 32;

/// Bytes of one batch: the server holds a batch in memory until it is committed.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

/// How long a lane keeps what it can't write, before it reads it again from the log.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// A batch that can't be written for a while, and why.
pub(crate) struct GivenBack(pub Trouble);

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
    /// Queues that may be opened at once.
    pub opening: Semaphore,
    pub turns: Arc<Turns>,
}

impl Pace {
    pub(crate) fn new(read: u64, replicas: usize) -> Self {
        Self {
            read: AtomicU64::new(read),
            last: AtomicU64::new(read),
            slowest: AtomicU64::new(0),
            stepped: Notify::new(),
            opening: Semaphore::new(OPENED_AT_ONCE),
            turns: Arc::new(Turns::new(replicas)),
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
    pub copy_delay: CopyDelay,
    /// Its topics are those of the last marker that the lane has seen; they are for reading the log itself.
    pub matcher: Matcher,
    pub inlet: Arc<Inlet>,
    pub pace: Arc<Pace>,
    pub reports: mpsc::UnboundedSender<Report>,
}

impl Lane {
    /// Works until its subscription or its queue seems to be gone.
    pub(crate) async fn work(&mut self) -> Gone {
        let pace = self.pace.clone();
        loop {
            if let Some(until) = self.held_until().await {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = self.inlet.filled.notified() => {}
                }
                continue;
            }
            let turn = self.turn(&pace).await;
            // What was acknowledged while it waited for its turn need not be copied.
            if turn.is_some() && self.held_still().await.is_some() {
                continue;
            }
            let taken = self.inlet.with(|mailbox| mailbox.take(Copier::LARGEST_BATCH, BATCH_BYTES));
            let worked = match taken {
                Taken::Nothing => {
                    drop(turn);
                    self.inlet.filled.notified().await;
                    Ok(())
                }
                Taken::Behind { from } => {
                    drop(turn);
                    self.catch_up(from).await
                }
                Taken::Items(items) => self.perform(items, turn).await,
            };
            if let Err(gone) = worked {
                return gone;
            }
        }
    }

    /// Until when what waits may wait for a consumer that reads it from the log: then it need not be copied. `None`: what
    /// still waits is to be copied now.
    async fn held_until(&mut self) -> Option<Instant> {
        let first = self.held();
        if first == Held::No || !self.copy_delay.applies(&self.writer).await {
            return None;
        }
        match first {
            Held::Until(until) if until > Instant::now() => Some(until),
            Held::Until(_) | Held::TooMuch | Held::No => self.held_still().await,
        }
    }

    fn held(&self) -> Held {
        self.inlet.with(|mailbox| mailbox.held(self.copy_delay.time))
    }

    /// What waits has waited for long enough, unless it was acknowledged meanwhile. Trouble is seen when it is copied.
    async fn held_still(&mut self) -> Option<Instant> {
        self.writer.reload().await.ok();
        self.follow_checkpoint();
        let checkpoint = self.writer.checkpoint();
        self.inlet.with(|mailbox| mailbox.pass(checkpoint));
        self.pace.stepped.notify_one();
        match self.held() {
            Held::Until(until) if until > Instant::now() => Some(until),
            Held::Until(_) | Held::TooMuch | Held::No => None,
        }
    }

    /// Does somebody wait for what waits here?
    pub(crate) async fn urgency(&mut self) -> Urgency {
        match self.inlet.with(|mailbox| mailbox.is_hurried()) || !self.copy_delay.applies(&self.writer).await
        {
            true => Urgency::AtOnce,
            false => Urgency::Unhurried,
        }
    }

    /// Waits for its turn, if nobody waits for what it has to copy.
    pub(crate) async fn turn<'a>(&mut self, pace: &'a Pace) -> Option<Unhurried<'a>> {
        if self.inlet.with(|mailbox| mailbox.is_idle()) || self.urgency().await == Urgency::AtOnce {
            return None;
        }
        self.inlet.with(Mailbox::unhurried);
        pace.stepped.notify_one();
        tokio::select! {
            turn = pace.turns.unhurried() => Some(turn),
            () = self.hurried() => None,
        }
    }

    /// Until somebody waits for what waits here.
    pub(crate) async fn hurried(&self) {
        while !self.inlet.with(|mailbox| mailbox.is_hurried()) {
            self.inlet.filled.notified().await;
        }
    }

    async fn perform(&mut self, items: Vec<Item>, mut turn: Option<Unhurried<'_>>) -> Result<(), Gone> {
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
                Item::Marker { sequence, marker } => {
                    turn = None;
                    self.mark(sequence, &marker).await?;
                }
                Item::TooLarge { sequence, event } => {
                    turn = None;
                    self.set_aside(sequence, &event).await?;
                }
            }
        }
        let turn = match self.copy(&mut batch, turn).await {
            Ok(turn) => turn,
            Err(trouble) => match self.copy_later(batch, trouble).await? {
                None => None,
                Some(GivenBack(_)) => {
                    self.inlet.with(Mailbox::restart);
                    return Ok(());
                }
            },
        };
        self.inlet.with(Mailbox::done);
        self.pace.took(began.elapsed());
        self.pace.stepped.notify_one();
        turns::end(turn).await;
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

    /// Writes copies in this turn. Trouble ends the turn at once: trying again must not hold up the others.
    pub(crate) async fn copy<'a>(
        &mut self,
        batch: &mut Vec<Copy>,
        turn: Option<Unhurried<'a>>,
    ) -> Result<Option<Unhurried<'a>>, Trouble> {
        let read = self.pace.read();
        self.writer.copy(batch).await?;
        Ok(turn.map(|turn| turn.used(self.pace.read() > read)))
    }

    /// Writes what is left of a batch after trouble, unless that lasts: then it is given back, and is to be read again
    /// from the log. Queues that are full would hold much in memory.
    pub(crate) async fn copy_later(
        &mut self,
        mut batch: Vec<Copy>,
        mut trouble: Trouble,
    ) -> Result<Option<GivenBack>, Gone> {
        let (mut patience, since) = (self.writer.patience(), Instant::now());
        loop {
            self.step_aside();
            if trouble.is_full() || since.elapsed() > KEPT_FOR {
                return Ok(Some(GivenBack(trouble)));
            }
            patience.after(trouble).await?;
            match self.writer.copy(&mut batch).await {
                Ok(()) => return Ok(None),
                Err(again) => trouble = again,
            }
        }
    }

    /// An event that NATS does not carry. Which objects a selection lets through can't be told of it, so then it does
    /// not say which one it is.
    pub(crate) async fn set_aside(&mut self, sequence: u64, event: &LargeEvent) -> Result<(), Gone> {
        let mut patience = self.writer.patience();
        while let Err(trouble) = self.writer.set_aside_large(sequence, event, self.matcher.selects()).await {
            self.step_aside();
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
            self.step_aside();
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
    fn step_aside(&self) {
        self.inlet.with(Mailbox::stuck);
        self.pace.stepped.notify_one();
    }
}
