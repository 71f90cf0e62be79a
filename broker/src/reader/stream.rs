//! A queue as a stream: messages go out while they are unacknowledged, up to a window.
//!
//! The messages of one kind, round and attempt are a *run*: within it one page follows the other without a look at the
//! heads. A run is over when all of it is removed, and only then come the messages behind it: so a client that connects
//! anew never gets older ones after newer ones.

use std::{sync::Arc, time::Duration};

use async_nats::Subscriber;
use futures::{FutureExt, StreamExt};
use model::{EventId, Incarnation, Kind, Subscription, SubscriptionName, Tag, Window, may_go_on};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Delivered, Memory, PAUSE, Patience, ReadError, Readers, Tagged,
    heads::{self, Look},
    notices::Removed,
    rung,
};
use crate::{Queue, many::Limits, names::Part};

/// Read at once, and so what a client that reads slowly costs in memory.
const PAGE: Limits = Limits { messages: 100, bytes: 1 << 20 };
/// How often a stream looks itself whether what is out was removed, while that keeps it from going on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a stream looks that waits for something new, whatever it hears: arrivals are told best effort, too.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(10);

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
    notices: Subscriber,
    bell: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
    /// When to look whether the way was cleared, if it is blocked.
    look_at: Option<Instant>,
    /// When the run was last read on.
    read_at: Instant,
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
        if after.is_some_and(|id| id.sequence > state.last_seq) {
            return Ok(None);
        }
        let memory = self.memory(&queue.stream);
        Ok(Some(QueueStream {
            bell: memory.bell(),
            changes: self.view.changes_of(&queue.name),
            window: Window::new(window.clamp(1, Self::LARGEST_WINDOW), after),
            readers: self.clone(),
            run: None,
            look_at: None,
            read_at: Instant::now(),
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
            if self.bell.has_changed().unwrap_or(false)
                && let Some(run) = &mut self.run
            {
                run.read = false;
            }
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
                if let Some(run) = &mut self.run {
                    run.read = false;
                }
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
        if state.last_seq < self.window.read_through() {
            tracing::warn!(subscription = %self.queue.name, "the queue is an older one than it was: read from its head");
            self.window = Window::new(self.window.size(), None);
            self.run = None;
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
        let Some(run) = self.run else { return self.begin(view).await };
        let kind = run.tag.kind();
        if !run.read && self.window.room() > 0 {
            self.look_at = None;
            self.read_at = Instant::now();
            let sent = self.read_on(run).await?;
            return Ok(if sent.is_empty() { Step::Again } else { Step::Messages(sent) });
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
        let head = self.readers.page(&self.queue, part(kind), 1, Limits::ONE).await?;
        self.window.head(kind, head.messages.first().map(|m| m.sequence));
        self.look_at = None;
        Ok(Step::Again)
    }

    /// Looks at the heads: whose turn is it?
    async fn begin(&mut self, view: &Subscription) -> Result<Step, ReadError> {
        let limits = Limits { messages: self.window.room().clamp(1, PAGE.messages), ..PAGE };
        let messages = match self.readers.look(&self.queue, &self.memory, limits, false).await? {
            Look::Messages(messages) => messages,
            Look::Empty { main_is_empty } => {
                // What was out is removed, or can't be acknowledged any more.
                self.window.head(Kind::Prefill, None);
                self.window.head(Kind::Live, None);
                let until = Some(Instant::now() + IDLE_LOOK_EVERY);
                return Ok(Step::Wait(Wait { arrivals: main_is_empty, until }));
            }
        };
        let Some((head, tag)) = messages.first() else { return Ok(Step::Again) };
        let kind = tag.kind();
        self.window.turn(kind, head.sequence);
        self.memory.forget_before(kind, head.sequence);
        let decided_by = (view.prefill.round, view.prefill.attempt);
        self.run = Some(Run { tag: *tag, decided_by, read: false });
        let from = self.window.from(kind);
        let new = messages.into_iter().filter(|(message, _)| message.sequence >= from).collect();
        let sent = self.send(new);
        Ok(if sent.is_empty() { Step::Again } else { Step::Messages(sent) })
    }

    /// Reads the next page of the run.
    async fn read_on(&mut self, run: Run) -> Result<Vec<Delivered>, ReadError> {
        let kind = run.tag.kind();
        let limits = Limits { messages: self.window.room().min(PAGE.messages), ..PAGE };
        let from = self.window.from(kind);
        let page = self.readers.page(&self.queue, part(kind), from, limits).await?;
        let count = page.messages.len();
        let messages = heads::together(page.messages, Some(run.tag));
        // Another round or attempt ends the run as well.
        let read = !page.more || messages.len() < count;
        self.run = Some(Run { read, ..run });
        Ok(self.send(messages))
    }

    /// Takes messages into the window, and gives those that the client has not.
    fn send(&mut self, mut messages: Vec<Tagged>) -> Vec<Delivered> {
        messages.truncate(self.window.room());
        messages.retain(|(message, tag)| {
            self.window.take(EventId { kind: tag.kind(), sequence: message.sequence })
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
