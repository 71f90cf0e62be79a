//! A queue as a stream: messages go out while they are unacknowledged, up to a window.
//!
//! The messages of one kind, round and attempt are a *run*: within it one page follows the other without a look at the
//! heads, and then what the event log holds behind them. A run is over when all of it is removed, and only then come the
//! messages behind it: so a client that connects anew never gets older ones after newer ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::Subscriber;
use futures::{FutureExt, StreamExt};
use model::{
    Incarnation, Subscription, SubscriptionName, Window,
    delivery::{EventId, Kind, LiveTag, Tag, live_number, may_go_on, place_in_log},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    COPIED_LOOK_EVERY, Delivered, IDLE_LOOK_EVERY, Memory, PAUSE, Patience, ReadError, Readers, Ready,
    direct::Found,
    notices::Removed,
    number,
    queue_head::{self, Look, Nothing},
    rung,
};
use crate::{Queue, batch_read::Limits, names::Part};

/// Read at once, and so what a client that reads slowly costs in memory.
const PAGE: Limits = Limits { messages: 100, bytes: 1 << 20 };
/// How often a stream looks itself whether what is out was removed, while that keeps it from going on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a stream waits between two looks at the log, for each stream that is open: what comes meanwhile goes out
/// together, and all streams of a replica look a thousand times a second at most.
const PACE: Duration = Duration::from_millis(1);
const PACE_MAX: Duration = Duration::from_millis(100);

/// One of the streams that are open.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(streams.clone())
    }

    /// When to look again after a look.
    fn pace(&self) -> Duration {
        let open = u32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        PACE.saturating_mul(open).min(PACE_MAX)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
pub enum StreamEnd {
    /// The replica is stopping: connect again.
    #[error("the server is stopping")]
    Stopping,
    /// Nothing more can be read; NATS away is not among the causes, since a stream outlasts that.
    #[error(transparent)]
    Failed(#[from] ReadError),
}

/// A queue that is being read by one client. Reads only when it is asked for messages.
#[derive(Debug)]
pub struct QueueStream {
    readers: Readers,
    queue: Queue,
    memory: Arc<Memory>,
    window: Window,
    run: Option<Run>,
    /// Up to this number of the queue the live messages of this run were read.
    main_read: u64,
    /// Up to this place of the log the queue was read whole: its checkpoint was here, and then its end was read.
    queue_through: u64,
    notices: Subscriber,
    bell: watch::Receiver<u64>,
    /// The bell has rung since the last look.
    rung: bool,
    changes: watch::Receiver<u64>,
    /// When to look whether the way was cleared, if it is blocked.
    look_at: Option<Instant>,
    /// When the run was last read on.
    read_at: Instant,
    open: Open,
    /// When to look at the log at the earliest.
    log_look_at: Instant,
    /// Connections to NATS that had broken when the queue was looked at last.
    connection: u64,
    patience: Patience,
    stop: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    /// What one of its messages says of itself.
    tag: Tag,
    /// Round and attempt by which its turn was decided: that prefill was drained, if it is a live run.
    decided_by: (u32, u32),
    /// All of it that there is was read.
    read: bool,
}

enum Step {
    Messages(Vec<Delivered>),
    /// Something has changed: decide again.
    Again,
    Wait(Wait),
}

impl Step {
    /// After these have gone out.
    fn of(sent: Vec<Delivered>) -> Self {
        if sent.is_empty() { Self::Again } else { Self::Messages(sent) }
    }
}

/// What a stream waits for beside removals, a changed entry and the stop.
#[derive(Clone, Copy)]
struct Wait {
    arrivals: bool,
    until: Option<Instant>,
}

impl Readers {
    /// Largest window of a stream.
    pub const LARGEST_WINDOW: usize = 1000;

    /// Opens a stream of a queue, with at most `window` messages out that are not removed yet. `after` names the last
    /// message that the client has got, on an earlier connection; without it all comes again. `None`: the queue has
    /// never had a message with that number.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn stream(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        window: usize,
        after: Option<EventId>,
        stop: CancellationToken,
    ) -> Result<Option<QueueStream>, ReadError> {
        let queue = self.broker.queue(name, incarnation);
        // Heard from now on: before the first look.
        let notices = self.notices(&queue).await?;
        let Some(state) = self.broker.stream_state(&queue.stream).await? else {
            return Err(self.missing(&queue).await?);
        };
        let memory = self.memory(&queue.stream);
        if let Some(EventId { sequence, .. }) = after {
            let is_known = match place_in_log(sequence) {
                Some(place) => place <= self.last_place(&queue, &memory).await?,
                None => sequence <= state.last_seq,
            };
            if !is_known {
                return Ok(None);
            }
        }
        Ok(Some(QueueStream {
            bell: memory.bell(),
            rung: false,
            changes: self.view.changes_of(&queue.name),
            window: Window::new(window.clamp(1, Self::LARGEST_WINDOW), after),
            readers: self.clone(),
            run: None,
            main_read: 0,
            queue_through: 0,
            look_at: None,
            read_at: Instant::now(),
            open: Open::count(&self.streams),
            log_look_at: Instant::now(),
            connection: queue.wire().connections_broken(),
            patience: Patience::default(),
            queue,
            memory,
            notices,
            stop,
        }))
    }
}

impl QueueStream {
    /// The next messages; empty when none came within `wait`. While NATS is away none come.
    ///
    /// # Errors
    /// The stream is at its end.
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Delivered>, StreamEnd> {
        let deadline = Instant::now() + wait;
        loop {
            if self.stop.is_cancelled() {
                return Err(StreamEnd::Stopping);
            }
            // First this, then the look: what happens in between is not missed.
            self.changes.mark_unchanged();
            self.rung |= self.bell.has_changed().unwrap_or(false);
            self.bell.mark_unchanged();
            let seen = self.readers.view.get(self.queue.name.as_str()).map(|e| e.revision);
            while let Some(Some(notice)) = self.notices.next().now_or_never() {
                self.hear(&notice);
            }
            // A step that is given up has changed nothing: what it reads is taken at its end, at once.
            let mut patience = std::mem::take(&mut self.patience);
            let step = patience.wait_for(self.step()).await;
            self.patience = patience;
            let wait = match step {
                Ok(Step::Messages(messages)) => return Ok(messages),
                Ok(Step::Again) => continue,
                Ok(Step::Wait(wait)) => wait,
                Err(ReadError::Other(error)) if error.is_transient() => {
                    tracing::debug!(subscription = %self.queue.name, %error, "a stream waits for NATS");
                    Wait { arrivals: false, until: Some(Instant::now() + PAUSE) }
                }
                Err(error) => return Err(error.into()),
            };
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            self.wait(wait, deadline, seen).await;
        }
    }

    async fn wait(&mut self, wait: Wait, deadline: Instant, seen: Option<u64>) {
        if wait.arrivals {
            self.readers.listen(&self.queue, &self.memory);
        }
        let until = wait.until.map_or(deadline, |until| until.min(deadline));
        let heard = tokio::select! {
            () = self.stop.cancelled() => None,
            () = tokio::time::sleep_until(until) => None,
            // The change of the bell is seen again above, where it is marked.
            () = rung(&mut self.bell), if wait.arrivals => {
                self.rung = true;
                None
            }
            () = self.readers.entry_changed(&self.queue.name, seen, &mut self.changes) => None,
            Some(notice) = self.notices.next() => Some(notice),
        };
        if let Some(notice) = heard {
            self.hear(&notice);
        }
    }

    fn hear(&mut self, notice: &async_nats::Message) {
        if let Some(Removed { id, through }) = Removed::parse(&notice.payload) {
            self.window.removed(id, through);
        }
    }

    /// After a lost connection the queue may be an older one, which was restored from a backup: what it holds has
    /// numbers that went out already, and would never go out again.
    async fn notice_older_queue(&mut self) -> Result<(), ReadError> {
        let connection = self.queue.wire().connections_broken();
        if connection == self.connection {
            return Ok(());
        }
        self.memory.over(connection);
        let Some(state) = self.readers.broker.stream_state(&self.queue.stream).await? else {
            return Err(self.readers.missing(&self.queue).await?);
        };
        let read = self.window.from(Kind::Live) - 1;
        let log_is_older = match place_in_log(read) {
            Some(place) => self.readers.last_place(&self.queue, &self.memory).await? < place,
            None => false,
        };
        if log_is_older || state.last_seq < self.main_read.max(self.window.from(Kind::Prefill) - 1) {
            tracing::warn!(subscription = %self.queue.name, "the queue is an older one than it was: read from its head");
            self.window = Window::new(self.window.size(), None);
            (self.run, self.main_read, self.queue_through) = (None, 0, 0);
        }
        self.connection = connection;
        Ok(())
    }

    async fn step(&mut self) -> Result<Step, ReadError> {
        self.notice_older_queue().await?;
        let entry = self.readers.entry(&self.queue, false).await?;
        let view = &entry.value;
        if let Some(Run { tag, decided_by, .. }) = self.run
            && !may_go_on(view, tag, decided_by == (view.prefill.round, view.prefill.attempt))
        {
            self.run = None;
            if tag.kind() == Kind::Prefill {
                // Asked for again: what is out of it can't be acknowledged any more.
                self.window.head(Kind::Prefill, None);
            }
        }
        let Some(mut run) = self.run else { return self.begin(view).await };
        let kind = run.tag.kind();
        let from_log = kind == Kind::Live && self.readers.may_read_from_log(&self.memory, view);
        // Whoever reads from the log looks at the queue when its checkpoint has moved.
        if std::mem::take(&mut self.rung) && !from_log {
            run.read = false;
            self.run = Some(run);
        }
        if !run.read && self.window.room() > 0 {
            self.look_at = None;
            self.read_at = Instant::now();
            return Ok(Step::of(self.read_on(run).await?));
        }
        let something_follows = match run.tag {
            Tag::Prefill(_) => true,
            Tag::Live(live) => live.round < view.prefill.round,
        };
        if run.read && something_follows && self.window.out() == 0 {
            self.run = None;
            return Ok(Step::Again);
        }
        if self.window.room() > 0 && !something_follows {
            self.look_at = None;
            if let Tag::Live(live) = run.tag
                && from_log
            {
                if Instant::now() < self.log_look_at {
                    return Ok(Step::Wait(Wait { arrivals: false, until: Some(self.log_look_at) }));
                }
                self.log_look_at = Instant::now() + self.open.pace();
                return self.read_log(view, live).await;
            }
            let look_at = self.read_at + IDLE_LOOK_EVERY;
            if Instant::now() >= look_at {
                self.run = Some(Run { read: false, ..run });
                return Ok(Step::Again);
            }
            return Ok(Step::Wait(Wait { arrivals: true, until: Some(look_at) }));
        }
        // Removals help, and what tells of them is best effort. (Live messages of an earlier round may still come.)
        let look_at = *self.look_at.get_or_insert_with(|| Instant::now() + LOOK_EVERY);
        if Instant::now() < look_at {
            let arrivals = kind == Kind::Live && self.window.room() > 0;
            return Ok(Step::Wait(Wait { arrivals, until: Some(look_at) }));
        }
        let head = self.first_out(kind).await?;
        self.window.head(kind, head);
        self.look_at = None;
        Ok(Step::Again)
    }

    /// Looks at the heads: whose turn is it?
    async fn begin(&mut self, view: &Subscription) -> Result<Step, ReadError> {
        let limits = Limits { messages: self.window.room().clamp(1, PAGE.messages), ..PAGE };
        let messages = match self.readers.look(&self.queue, &self.memory, limits, false).await? {
            Look::Messages(messages) => messages,
            Look::Empty(Nothing::Copied) => {
                let until = Some(Instant::now() + COPIED_LOOK_EVERY);
                return Ok(Step::Wait(Wait { arrivals: true, until }));
            }
            Look::Empty(nothing) => {
                // What was out is removed, or can't be acknowledged any more.
                self.window.head(Kind::Prefill, None);
                self.window.head(Kind::Live, None);
                let until = Some(Instant::now() + IDLE_LOOK_EVERY);
                return Ok(Step::Wait(Wait { arrivals: nothing == Nothing::Arrived, until }));
            }
        };
        let Some(Ready { tag, number, stored, .. }) = messages.first() else { return Ok(Step::Again) };
        let kind = tag.kind();
        self.window.turn(kind, *number);
        self.memory.forget_before(kind, *number);
        let decided_by = (view.prefill.round, view.prefill.attempt);
        // What nobody has copied is behind all of the queue.
        self.run = Some(Run { tag: *tag, decided_by, read: stored.is_none() });
        self.main_read = 0;
        Ok(Step::of(self.send(messages)))
    }

    /// Reads the next page of the run.
    async fn read_on(&mut self, run: Run) -> Result<Vec<Delivered>, ReadError> {
        let kind = run.tag.kind();
        let limits = Limits { messages: self.window.room().min(PAGE.messages), ..PAGE };
        let from = match kind {
            Kind::Prefill => self.window.from(kind),
            Kind::Live => self.main_read + 1,
        };
        let page = self.readers.page(&self.queue, part(kind), from, limits).await?;
        let count = page.messages.len();
        let messages = queue_head::together(page.messages, Some(run.tag));
        // Another round or attempt ends the run as well.
        let read = !page.more || messages.len() < count;
        self.run = Some(Run { read, ..run });
        Ok(self.send(messages))
    }

    /// Reads on behind what the client has: what the dispatcher has copied meanwhile, then what only the log holds. The
    /// checkpoint is read each time, so that nothing comes that another client has acknowledged before.
    async fn read_log(&mut self, view: &Subscription, live: LiveTag) -> Result<Step, ReadError> {
        let again = |after| Step::Wait(Wait { arrivals: true, until: Some(Instant::now() + after) });
        let mark = self.readers.tail.mark();
        let checkpoint = self.readers.fresh_checkpoint(&self.queue, &self.memory).await?;
        let place = checkpoint.value.incoming_seq;
        let given = place_in_log(self.window.from(Kind::Live) - 1).unwrap_or_default();
        let limits = Limits { messages: self.window.room().min(PAGE.messages), ..PAGE };
        if place > given.max(self.queue_through) {
            let page = self.readers.page(&self.queue, Part::Main, self.main_read + 1, limits).await?;
            let (count, more) = (page.messages.len(), page.more);
            let messages = queue_head::together(page.messages, Some(Tag::Live(live)));
            if messages.len() == count && !more {
                self.queue_through = place;
            }
            if count > 0 {
                return Ok(Step::of(self.send(messages)));
            }
        }
        let Some(mark) = mark else { return Ok(again(COPIED_LOOK_EVERY)) };
        if checkpoint.value.epoch.round != live.round {
            // What tells of another round is on its way.
            self.readers.entry(&self.queue, true).await?;
            return Ok(again(COPIED_LOOK_EVERY));
        }
        let after = place.max(given);
        let found =
            self.readers.behind(&self.queue, &self.memory, view, &checkpoint, mark, after, limits).await?;
        match found {
            Some(Found::Messages(messages)) => Ok(Step::of(self.send(messages))),
            Some(Found::Nothing) => Ok(again(IDLE_LOOK_EVERY)),
            Some(Found::Dispatchers) | None => Ok(again(COPIED_LOOK_EVERY)),
        }
    }

    /// The first message of a kind that was not removed; `None`: all were.
    async fn first_out(&self, kind: Kind) -> Result<Option<u64>, ReadError> {
        // The checkpoint first: what is copied after it is behind it.
        let behind = match kind {
            Kind::Prefill => None,
            Kind::Live => {
                let checkpoint = self.readers.fresh_checkpoint(&self.queue, &self.memory).await?;
                Some(live_number(checkpoint.value.incoming_seq + 1))
            }
        };
        let head = self.readers.page(&self.queue, part(kind), 1, Limits::ONE).await?.messages;
        let head = head.first().map(|m| queue_head::tag(m).map_or(m.sequence, |tag| number(tag, m.sequence)));
        Ok(head.or(behind))
    }

    /// Takes messages into the window, and gives those that the client has not.
    fn send(&mut self, mut messages: Vec<Ready>) -> Vec<Delivered> {
        messages.retain(|message| {
            if self.window.room() == 0 {
                return false;
            }
            if let (Kind::Live, Some(stored)) = (message.tag.kind(), message.stored) {
                self.main_read = self.main_read.max(stored);
            }
            self.window.take(message.id())
        });
        self.readers.delivered(&self.memory, &messages)
    }
}

fn part(kind: Kind) -> Part {
    match kind {
        Kind::Prefill => Part::Prefill,
        Kind::Live => Part::Main,
    }
}
