//! Reading queues: any replica answers any request, and the stream itself is the queue.
//!
//! ```text
//!  next, batch ─► heads: what may be delivered now? ─► memory: given a moment ago? ─► message(s)
//!                   ├─ nothing in the queue: direct: what does the event log hold for it?
//!                   └─ nothing: wait for the bell (an arrival, a removal here) or a changed entry
//!  stream ─► window: room? ─► heads at the beginning of a run, then page after page, then the log ─► messages
//!  acknowledge ─► removal of one message, or of all up to it, or the checkpoint moves over an event of the log
//!                   └─► notice ─► windows of streams, at any replica
//! ```
//!
//! There is no consumer that could get stuck, and none at all for a queue: the log's end, and who writes to a queue, ring
//! the bell.

mod acknowledge;
mod direct;
mod memory;
mod notices;
pub(crate) mod queue_head;
mod stream;
mod wake_up;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use model::{
    Incarnation, Message, Subscription, SubscriptionName,
    delivery::{EventId, Tag, live_number},
    subscription::Lifecycle,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::stream::{QueueStream, StreamEnd};
use self::{
    memory::Memory,
    queue_head::{Look, Nothing},
};
use crate::{Broker, Error, Queue, RegistryView, Revised, batch_read::Limits, names, tail::Tail};

/// How queues are read.
#[derive(Clone, Copy, Debug)]
pub struct ReaderConfig {
    /// After how long an unacknowledged message is given again by the same replica, so that a client that never
    /// acknowledges does not spin.
    pub redelivery_delay: Duration,
}

impl Default for ReaderConfig {
    /// 1 s, as existing clients know it.
    fn default() -> Self {
        Self { redelivery_delay: Duration::from_secs(1) }
    }
}

/// A message for a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The stored message with its place in the queue, as JSON.
    pub payload: Bytes,
    /// Its kind, and its number in the queue.
    pub id: EventId,
    /// How often this replica has delivered it, this time included.
    pub num_delivered: u64,
    /// When its event was accepted, by the clock of NATS; `None` for a message of a prefill, and where it is not known.
    pub accepted: Option<SystemTime>,
}

/// Why a queue can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The subscription was removed.
    #[error("the subscription is gone")]
    Gone,
    /// The subscription is another one by now, and this replica had not heard of it. By now it has.
    #[error("the subscription was removed and registered again")]
    Replaced,
    /// The subscription is registered, but its queue does not exist: its events are lost.
    #[error("the queue does not exist although the subscription is registered")]
    Broken,
    /// The queue was given up because it was full: its events are lost.
    #[error("the queue was given up because it was full")]
    GivenUp,
    /// NATS away.
    #[error(transparent)]
    Other(#[from] Error),
}

/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// How often those who wait look, whatever they hear: arrivals are told best effort.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often they look when something waits that only the dispatcher can bring.
const COPIED_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Memories of queues that need no tidying.
const FEW_MEMORIES: usize = 64;
/// Bytes after which a batch takes no further message.
const BATCH_BYTES: usize = 4 << 20;

/// Reads the queues of all subscriptions. Clones share what this replica remembers.
#[derive(Clone, Debug)]
pub struct Readers {
    broker: Broker,
    view: RegistryView,
    config: ReaderConfig,
    tail: Tail,
    /// Streams that are open.
    streams: Arc<AtomicUsize>,
    /// By stream name, so by incarnation. A std lock: nothing awaits under it.
    memory: Arc<Mutex<Memories>>,
}

/// What is remembered of each queue.
#[derive(Debug, Default)]
struct Memories {
    by_stream: HashMap<String, Arc<Memory>>,
    /// So many are too many: those of queues that are gone are looked for.
    too_many: usize,
}

/// A message that may be delivered.
#[derive(Clone, Debug)]
struct Ready {
    tag: Tag,
    /// Its number for the client.
    number: u64,
    /// Its number in the queue; `None`: it is in the event log, and nobody has copied it.
    stored: Option<u64>,
    accepted: Option<SystemTime>,
    payload: Bytes,
}

impl Ready {
    fn id(&self) -> EventId {
        EventId { kind: self.tag.kind(), sequence: self.number }
    }
}

/// The number of a stored message for the client: of a live one its place in the log, which stays the same whether it was
/// copied or not.
fn number(tag: Tag, stored: u64) -> u64 {
    match tag {
        Tag::Live(live) if live.incoming_seq > 0 => live_number(live.incoming_seq),
        // Letters that a former version sent again have no place in the log.
        Tag::Live(_) | Tag::Prefill(_) => stored,
    }
}

impl Readers {
    /// Most messages of one batch.
    pub const LARGEST_BATCH: usize = 1000;

    /// Reads with the connection and the view of one replica.
    #[must_use]
    pub fn new(broker: Broker, view: RegistryView, config: ReaderConfig) -> Self {
        let tail = Tail::follow(&broker);
        Self { broker, view, config, tail, streams: Arc::default(), memory: Arc::default() }
    }

    /// The next message of a queue: at once if there is one, else as soon as one arrives or the prefill becomes done
    /// within `wait`. `None` when the time is over or `cancel` is cancelled. With `remove` the message is removed on
    /// delivery, for good.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        wait: Duration,
        cancel: &CancellationToken,
        remove: bool,
    ) -> Result<Option<Delivered>, ReadError> {
        let deadline = Instant::now() + wait;
        let queue = self.broker.queue(name, incarnation);
        loop {
            let delivered = self.deliver(&queue, Limits::ONE, deadline, cancel).await?.pop();
            if let Some(message) = &delivered
                && remove
                && !self.acknowledge(name, incarnation, message.id.sequence).await?
            {
                // Somebody else took it.
                continue;
            }
            return Ok(delivered);
        }
    }

    /// As [`next`](Self::next), but all messages that are there then, at most `limit` and about 4 MiB. They belong
    /// together: all of one prefill, or live ones of one round. Empty when nothing came.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn batch(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        wait: Duration,
        cancel: &CancellationToken,
        limit: usize,
    ) -> Result<Vec<Delivered>, ReadError> {
        let deadline = Instant::now() + wait;
        let queue = self.broker.queue(name, incarnation);
        let limits = Limits { messages: limit.clamp(1, Self::LARGEST_BATCH), bytes: BATCH_BYTES };
        self.deliver(&queue, limits, deadline, cancel).await
    }

    /// Waits until there is something to deliver.
    async fn deliver(
        &self,
        queue: &Queue,
        limits: Limits,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Vec<Delivered>, ReadError> {
        let memory = self.memory(&queue.stream);
        let mut changes = self.view.changes_of(&queue.name);
        let mut bell = memory.bell();
        let mut patience: Option<Patience> = None;
        // What waits for its entry hears of it from a replica of NATS that may be behind: the last look asks the leader.
        let mut fresh = false;
        loop {
            // First this, then the look: what happens in between is not missed.
            changes.mark_unchanged();
            bell.mark_unchanged();
            let seen = self.view.get(queue.name.as_str()).map(|e| e.revision);
            let look = match &mut patience {
                None => self.look(queue, &memory, limits, fresh).await,
                Some(patience) => patience.wait_for(self.look(queue, &memory, limits, fresh)).await,
            };
            let wait_until = match look {
                Ok(Look::Messages(messages)) => match memory.may_deliver(&messages) {
                    Ok(()) => return Ok(self.delivered(&memory, &messages)),
                    Err(again_at) => Wait::Until(again_at),
                },
                Ok(Look::Empty(wait)) => match wait {
                    Nothing::Arrived => Wait::Arrival,
                    Nothing::Copied => Wait::Copy(Instant::now() + COPIED_LOOK_EVERY),
                    Nothing::Open => Wait::Entry,
                },
                // Who waits already is not told of a server that restarts.
                Err(ReadError::Other(error))
                    if error.is_transient() && patience.is_some() && Instant::now() < deadline =>
                {
                    Wait::Until(Instant::now() + PAUSE)
                }
                Err(error) => return Err(error),
            };
            patience.get_or_insert_with(Patience::default);
            fresh = false;
            if Instant::now() >= deadline || cancel.is_cancelled() {
                return Ok(Vec::new());
            }
            let woken = async {
                match wait_until {
                    Wait::Until(at) => tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = rung(&mut bell) => {}
                    },
                    Wait::Arrival | Wait::Copy(_) => {
                        self.listen(queue, &memory);
                        let look_at = match wait_until {
                            Wait::Copy(at) => at,
                            _ => Instant::now() + IDLE_LOOK_EVERY,
                        };
                        tokio::select! {
                            () = rung(&mut bell) => {}
                            () = self.entry_changed(&queue.name, seen, &mut changes) => {}
                            () = tokio::time::sleep_until(look_at) => {}
                        }
                    }
                    Wait::Entry => self.entry_changed(&queue.name, seen, &mut changes).await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return Ok(Vec::new()),
                // Not at once nothing: at the deadline one more look costs little, and misses nothing.
                () = tokio::time::sleep_until(deadline) => fresh = matches!(wait_until, Wait::Entry),
                () = woken => {}
            }
        }
    }

    /// Notes that messages go out.
    fn delivered(&self, memory: &Memory, messages: &[Ready]) -> Vec<Delivered> {
        let deliver = |message: &Ready| {
            let num_delivered = memory.deliver(message, self.config.redelivery_delay);
            let payload = Message::with_place(&message.payload, message.number, num_delivered);
            let (id, accepted) = (message.id(), message.accepted);
            Delivered { payload: Bytes::from(payload), id, num_delivered, accepted }
        };
        messages.iter().map(deliver).collect()
    }

    /// The subscription that the queue belongs to, as known here or as the leader knows it.
    async fn entry(&self, queue: &Queue, fresh: bool) -> Result<Arc<Revised<Subscription>>, ReadError> {
        let cached = if fresh { None } else { self.view.get(queue.name.as_str()) };
        let known = cached.filter(|e| e.value.incarnation == queue.incarnation);
        let entry = match known {
            Some(entry) => Some(entry),
            None => self.view.read(&queue.name).await?,
        };
        match entry.filter(|e| e.value.lifecycle != Lifecycle::Deleting) {
            None => {
                self.forget(queue);
                Err(ReadError::Gone)
            }
            Some(entry) if entry.value.incarnation != queue.incarnation => {
                self.forget(queue);
                Err(ReadError::Replaced)
            }
            // What is still in the stream is not delivered either: events are missing after it.
            Some(entry) if entry.value.given_up.is_some() => Err(ReadError::GivenUp),
            Some(entry) if entry.value.lost.is_some() => Err(ReadError::Broken),
            Some(entry) => Ok(entry),
        }
    }

    /// The stream is missing: because the subscription is gone, or because something is broken.
    async fn missing(&self, queue: &Queue) -> Result<ReadError, ReadError> {
        self.forget(queue);
        match self.entry(queue, true).await {
            Ok(_) => Ok(ReadError::Broken),
            Err(error @ ReadError::Other(_)) => Err(error),
            Err(error) => Ok(error),
        }
    }

    fn memory(&self, stream: &str) -> Arc<Memory> {
        let connection = self.broker.wire.connections_broken();
        let mut memories = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories.by_stream.entry(stream.to_owned()).or_default().clone();
        if memories.by_stream.len() > memories.too_many {
            // Queues of removed subscriptions that nobody asks for any more.
            let known: HashSet<String> = self.view.all().iter().map(|e| stream_of(&e.value)).collect();
            memories.by_stream.retain(|name, _| name == stream || known.contains(name));
            memories.too_many = 2 * memories.by_stream.len() + FEW_MEMORIES;
        }
        drop(memories);
        memory.over(connection);
        memory
    }

    fn forget(&self, queue: &Queue) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).by_stream.remove(&queue.stream);
    }

    /// Returns when the entry is another one than the revision that was seen.
    async fn entry_changed(
        &self,
        name: &SubscriptionName,
        seen: Option<u64>,
        changes: &mut watch::Receiver<u64>,
    ) {
        while self.view.get(name.as_str()).map(|e| e.revision) == seen {
            rung(changes).await;
        }
    }
}

fn stream_of(subscription: &Subscription) -> String {
    names::queue_stream(&subscription.name, subscription.incarnation)
}

/// How long those who wait already wait for an answer of NATS, before they ask again: what was asked while the server
/// was killed is never answered. It doubles, so that a server that is only slow gets its time.
#[derive(Debug)]
struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_secs(1))
    }
}

impl Patience {
    async fn wait_for<T>(
        &mut self,
        answer: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        match tokio::time::timeout(self.0, answer).await {
            Ok(Ok(answer)) => {
                *self = Self::default();
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(elapsed) => {
                self.0 = (self.0 * 2).min(Duration::from_secs(8));
                Err(Error::unavailable("reading a queue", elapsed).into())
            }
        }
    }
}

/// What a poll waits for.
enum Wait {
    /// The delivered head is given again.
    Until(Instant),
    /// A live message, or another entry.
    Arrival,
    /// The same, and the dispatcher, which is about to write; at the latest then.
    Copy(Instant),
    /// What is there waits for another entry.
    Entry,
}

/// Returns when the value changes; never when nobody is left to change it.
async fn rung(bell: &mut watch::Receiver<u64>) {
    if bell.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
