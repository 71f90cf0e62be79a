//! Reading queues: any replica answers any request, and the stream itself is the queue.
//!
//! The next message is looked up by subject (at most two round trips); an acknowledgement removes it. There is no
//! consumer that could get stuck: an ephemeral one that acknowledges nothing only *wakes* a waiting poll.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::jetstream::{
    consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
    message::StreamMessage,
};
use bytes::Bytes;
use futures::StreamExt;
use model::{
    AfterMain, AfterPrefill, Incarnation, Lifecycle, LiveTag, Message, PrefillTag, Subscription,
    SubscriptionName, after_main, after_prefill, may_acknowledge_prefill,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Broker, Error, Queue, RegistryView, Revised,
    names::{self, Part},
    wire::{Got, header},
};

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
    /// Its number in the queue.
    pub sequence: u64,
    /// How often this replica has delivered it, this time included.
    pub num_delivered: u64,
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
    /// NATS away.
    #[error(transparent)]
    Other(#[from] Error),
}

/// Longest pull: behind a lost wake-up a poll looks again after this time.
const LONGEST_PULL: Duration = Duration::from_secs(20);
/// How long the server keeps an unused wake-up consumer.
const CONSUMER_KEPT_FOR: Duration = Duration::from_secs(60);
/// Looks at the leader before a contradiction between entry and queue counts as "nothing now".
const REREADS: u32 = 3;

/// Reads the queues of all subscriptions. Clones share what this replica remembers.
#[derive(Clone, Debug)]
pub struct Readers {
    broker: Broker,
    view: RegistryView,
    config: ReaderConfig,
    /// By stream name, so by incarnation. A std lock: nothing awaits under it.
    memory: Arc<Mutex<HashMap<String, Arc<Memory>>>>,
}

/// What a replica remembers of a queue. All of it may be lost at any time.
#[derive(Debug, Default)]
struct Memory {
    /// The head that was delivered and is not acknowledged.
    head: Mutex<Option<Delivery>>,
    /// Wakes polls of this replica when a head was acknowledged here.
    moved: Notify,
    /// The ephemeral consumer that wakes.
    waker: tokio::sync::Mutex<Option<Consumer<pull::Config>>>,
}

#[derive(Clone, Copy, Debug)]
struct Delivery {
    sequence: u64,
    times: u64,
    again_at: Instant,
}

/// What a look at a queue found.
enum Peek {
    Message(Box<StreamMessage>),
    /// Nothing now. `main_is_empty`: a new live message may change that; otherwise only the entry can.
    Empty {
        main_is_empty: bool,
    },
}

impl Readers {
    /// Reads with the connection and the view of one replica.
    #[must_use]
    pub fn new(broker: Broker, view: RegistryView, config: ReaderConfig) -> Self {
        Self { broker, view, config, memory: Arc::default() }
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
        let memory = self.memory(&queue.stream);
        let mut changes = self.view.changes();
        loop {
            changes.mark_unchanged();
            let seen = self.view.get(name.as_str()).map(|e| e.revision);
            let peek = self.peek(&queue).await?;
            let wake_at = match peek {
                Peek::Message(message) => match memory.deliver(&message, self.config.redelivery_delay) {
                    Ok(num_delivered) => {
                        if remove && !self.remove(&queue, &memory, message.sequence).await? {
                            // Somebody else took it.
                            continue;
                        }
                        let payload = Message::with_place(&message.payload, message.sequence, num_delivered);
                        let payload = Bytes::from(payload);
                        return Ok(Some(Delivered { payload, sequence: message.sequence, num_delivered }));
                    }
                    Err(again_at) => Wake::At(again_at),
                },
                Peek::Empty { main_is_empty: true } => Wake::Arrival,
                Peek::Empty { main_is_empty: false } => Wake::EntryOnly,
            };
            if Instant::now() >= deadline || cancel.is_cancelled() {
                return Ok(None);
            }
            let woken = async {
                match wake_at {
                    Wake::At(at) => {
                        tokio::select! {
                            () = tokio::time::sleep_until(at) => {}
                            () = memory.moved.notified() => {}
                        }
                        Ok(())
                    }
                    Wake::Arrival => tokio::select! {
                        arrival = self.arrival(&queue, &memory, deadline) => arrival,
                        () = memory.moved.notified() => Ok(()),
                        () = self.entry_changed(name, seen, &mut changes) => Ok(()),
                    },
                    Wake::EntryOnly => {
                        self.entry_changed(name, seen, &mut changes).await;
                        Ok(())
                    }
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return Ok(None),
                // Not at once `None`: at the deadline one more look costs little, and misses nothing.
                () = tokio::time::sleep_until(deadline) => {}
                woken = woken => woken?,
            }
        }
    }

    /// Removes a delivered message. False: there is no such message that may be removed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn acknowledge(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        sequence: u64,
    ) -> Result<bool, ReadError> {
        let queue = self.broker.queue(name, incarnation);
        let message = match queue.wire().message(&queue.stream, sequence).await? {
            Got::Message(message) => message,
            Got::Nothing => return Ok(false),
            Got::NoStream => return Err(self.missing(&queue).await?),
        };
        // Fence and checkpoint can't be acknowledged, a message of the prefill only of the attempt that is done.
        if *message.subject == *queue.subject(Part::Prefill) {
            if !self.may_acknowledge(&queue, &message).await? {
                return Ok(false);
            }
        } else if *message.subject != *queue.subject(Part::Main) {
            return Ok(false);
        }
        let memory = self.memory(&queue.stream);
        self.remove(&queue, &memory, sequence).await
    }

    async fn may_acknowledge(&self, queue: &Queue, message: &StreamMessage) -> Result<bool, ReadError> {
        let Some(tag) = prefill_tag(message) else { return Ok(false) };
        if may_acknowledge_prefill(&self.entry(queue, false).await?.value, tag) {
            return Ok(true);
        }
        Ok(may_acknowledge_prefill(&self.entry(queue, true).await?.value, tag))
    }

    async fn remove(&self, queue: &Queue, memory: &Memory, sequence: u64) -> Result<bool, ReadError> {
        let removed = match queue.wire().remove(&queue.stream, sequence).await? {
            Some(removed) => removed,
            None => return Err(self.missing(queue).await?),
        };
        memory.removed(sequence);
        Ok(removed)
    }

    /// Looks at the heads of a queue and decides.
    async fn peek(&self, queue: &Queue) -> Result<Peek, ReadError> {
        let mut entry = self.entry(queue, false).await?;
        for _ in 0..REREADS {
            let main = self.head(queue, Part::Main).await?;
            let live = main.as_ref().and_then(live_tag);
            match after_main(&entry.value, live) {
                AfterMain::DeliverMain => return Ok(peeked(main)),
                AfterMain::Empty => return Ok(Peek::Empty { main_is_empty: main.is_none() }),
                AfterMain::Reread => {}
                AfterMain::LookAtPrefill => {
                    let prefill = self.head(queue, Part::Prefill).await?;
                    match after_prefill(&entry.value, live, prefill.as_ref().and_then(prefill_tag)) {
                        AfterPrefill::DeliverPrefill => return Ok(peeked(prefill)),
                        AfterPrefill::DeliverMain => return Ok(peeked(main)),
                        AfterPrefill::Empty => return Ok(Peek::Empty { main_is_empty: main.is_none() }),
                        AfterPrefill::Reread => {}
                    }
                }
            }
            entry = self.entry(queue, true).await?;
        }
        // What is in the queue is ahead of the leader's entry: the entry will change.
        Ok(Peek::Empty { main_is_empty: false })
    }

    async fn head(&self, queue: &Queue, part: Part) -> Result<Option<StreamMessage>, ReadError> {
        match queue.wire().next(&queue.stream, &queue.subject(part), 1).await? {
            Got::Message(message) => Ok(Some(message)),
            Got::Nothing => Ok(None),
            Got::NoStream => Err(self.missing(queue).await?),
        }
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
            None => Err(ReadError::Gone),
            Some(entry) if entry.value.incarnation != queue.incarnation => Err(ReadError::Replaced),
            Some(entry) => Ok(entry),
        }
    }

    /// The stream is missing: because the subscription is gone, or because something is broken.
    async fn missing(&self, queue: &Queue) -> Result<ReadError, ReadError> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&queue.stream);
        match self.entry(queue, true).await {
            Ok(_) => Ok(ReadError::Broken),
            Err(ReadError::Gone) => Ok(ReadError::Gone),
            Err(error) => Err(error),
        }
    }

    fn memory(&self, stream: &str) -> Arc<Memory> {
        let mut memory = self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        memory.entry(stream.to_owned()).or_default().clone()
    }

    /// Returns when the entry is another one than the revision that was seen.
    async fn entry_changed(
        &self,
        name: &SubscriptionName,
        seen: Option<u64>,
        changes: &mut tokio::sync::watch::Receiver<u64>,
    ) {
        while self.view.get(name.as_str()).map(|e| e.revision) == seen {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when a live message arrives, or after a while.
    async fn arrival(&self, queue: &Queue, memory: &Memory, deadline: Instant) -> Result<(), ReadError> {
        let wait =
            deadline.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), LONGEST_PULL);
        let consumer = match self.waker(queue, memory).await {
            Ok(consumer) => consumer,
            Err(error) => {
                // The stream may be gone: then the next look says so.
                tracing::debug!(subscription = %queue.name, error = %error, "no wake-up; looking again soon");
                tokio::time::sleep(Duration::from_millis(200)).await;
                return Ok(());
            }
        };
        let pulled = async {
            let mut batch = consumer.batch().max_messages(1).expires(wait).messages().await?;
            batch.next().await.transpose()?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        // The server ends a pull by itself; if it does not (it was killed), we do.
        let pulled = tokio::time::timeout(wait + Duration::from_secs(1), pulled).await;
        if matches!(pulled, Ok(Ok(()))) {
            // One message answers one pull: the other polls of this replica look again, too.
            memory.moved.notify_waiters();
        } else {
            memory.waker.lock().await.take();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn waker(
        &self,
        queue: &Queue,
        memory: &Memory,
    ) -> Result<Consumer<pull::Config>, Box<dyn std::error::Error + Send + Sync>> {
        let mut waker = memory.waker.lock().await;
        if let Some(consumer) = waker.as_ref() {
            return Ok(consumer.clone());
        }
        let stream = queue.wire().js.get_stream_no_info(&queue.stream).await?;
        let consumer = stream
            .create_consumer(pull::Config {
                // All: what was there before the pull and is removed does not wake, what is there does.
                deliver_policy: DeliverPolicy::All,
                ack_policy: AckPolicy::None,
                filter_subject: queue.subject(Part::Main),
                headers_only: true,
                inactive_threshold: CONSUMER_KEPT_FOR,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await?;
        *waker = Some(consumer.clone());
        Ok(consumer)
    }
}

enum Wake {
    At(Instant),
    Arrival,
    EntryOnly,
}

impl Memory {
    /// Notes a delivery and answers how often it was delivered, or when it may be given again.
    fn deliver(&self, message: &StreamMessage, delay: Duration) -> Result<u64, Instant> {
        let now = Instant::now();
        let mut head = self.head.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let times = match *head {
            Some(last) if last.sequence == message.sequence => {
                if now < last.again_at {
                    return Err(last.again_at);
                }
                last.times + 1
            }
            _ => 1,
        };
        *head = Some(Delivery { sequence: message.sequence, times, again_at: now + delay });
        Ok(times)
    }

    fn removed(&self, sequence: u64) {
        let mut head = self.head.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if head.is_some_and(|h| h.sequence == sequence) {
            *head = None;
        }
        drop(head);
        self.moved.notify_waiters();
    }
}

fn peeked(message: Option<StreamMessage>) -> Peek {
    message.map_or(Peek::Empty { main_is_empty: true }, |m| Peek::Message(Box::new(m)))
}

fn live_tag(message: &StreamMessage) -> Option<LiveTag> {
    Some(LiveTag {
        incarnation: Incarnation(header(&message.headers, names::INCARNATION)?),
        round: header(&message.headers, names::ROUND)?,
        incoming_seq: header(&message.headers, names::INCOMING_SEQ)?,
    })
}

fn prefill_tag(message: &StreamMessage) -> Option<PrefillTag> {
    Some(PrefillTag {
        incarnation: Incarnation(header(&message.headers, names::INCARNATION)?),
        round: header(&message.headers, names::ROUND)?,
        attempt: header(&message.headers, names::ATTEMPT)?,
        index: header(&message.headers, names::INDEX)?,
    })
}
