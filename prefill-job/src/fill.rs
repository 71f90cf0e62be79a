//! Fills the queue with what a source sends, in batches, each of which says how far the attempt is.
//!
//! A pod that crashes leaves whole batches. The last one carries a mark: the place in the list up to which everything is
//! in the queue. If the source shows the same list again, the next pod of the attempt goes on from there, else it removes
//! all and begins anew. What has changed in objects that are in the queue already comes as live events behind them,
//! as always.

use std::time::Duration;

use broker::{Broker, FenceHolder, LeftOff};
use bytes::Bytes;
use model::{Body, Counts, ExitCode, Message, PrefillTask, Publisher, Reason, Timestamp, UDM_REALM};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{How, stopped},
    dead_letter,
    outcome::{Failure, Outcome},
    shape::Shaper,
    source::{Place, SnapshotObject, SourceEvent},
};

/// Most messages of a batch (ADR-50 allows 1000; measured: 500 of 3 KB are near the best, `docs/benchmarks.md`).
const BATCH_MESSAGES: usize = 500;
/// Bytes after which a batch is written although it has room: the server holds it in memory.
const BATCH_BYTES: usize = 4 << 20;
/// How long a batch may wait for more: a batch costs a sync of the disk, however small it is.
const BATCH_WAITS: Duration = Duration::from_millis(100);
/// Bytes of a message besides its object, roughly.
const ENVELOPE: usize = 256;
/// Objects that wait between source and queue: back-pressure both ways. The source bounds their bytes.
pub(crate) const CHANNEL: usize = 2 * BATCH_MESSAGES;

/// How far an attempt is: the mark of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// What is in the queue, and what is not.
    pub counts: Counts,
    /// Up to where; `None` if the source does not tell.
    pub place: Option<Place>,
}

impl Progress {
    /// What an earlier pod left, if it can be gone on from.
    pub fn left_off(left_off: &LeftOff) -> Option<Self> {
        let progress: Self = serde_json::from_str(&left_off.mark).ok()?;
        (progress.place.is_some() && progress.counts.messages == left_off.index).then_some(progress)
    }

    /// Only where it can be gone on from.
    fn mark(&self) -> Option<String> {
        self.place.as_ref()?;
        serde_json::to_string(self).ok()
    }
}

/// What was filled in.
pub(crate) struct Filled {
    pub counts: Counts,
    /// Was part of it there already?
    pub went_on: bool,
}

/// Writes under a fence.
pub(crate) struct Filler<'a> {
    broker: &'a Broker,
    task: &'a PrefillTask,
    fence: &'a mut FenceHolder,
    how: &'a How<'a>,
    /// Where an earlier pod was; taken when the source has said whether it goes on from there.
    from: Option<Progress>,
    begun: bool,
    went_on: bool,
    done: Progress,
    batch: Batch,
}

impl<'a> Filler<'a> {
    pub fn new(
        broker: &'a Broker,
        task: &'a PrefillTask,
        fence: &'a mut FenceHolder,
        how: &'a How<'a>,
        from: Option<Progress>,
    ) -> Self {
        let (done, batch) = (Progress::default(), Batch::new());
        Self { broker, task, fence, how, from, begun: false, went_on: false, done, batch }
    }

    /// Writes what comes until the source closes the channel.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<SourceEvent>,
        shutdown: &CancellationToken,
    ) -> Result<Filled, Outcome> {
        let mut received = Vec::with_capacity(BATCH_MESSAGES);
        loop {
            let room = BATCH_MESSAGES - self.batch.messages.len();
            let arrived = tokio::select! {
                () = shutdown.cancelled() => return Err(Outcome::Failed(stopped())),
                arrived = events.recv_many(&mut received, room) => Some(arrived),
                () = tokio::time::sleep_until(self.batch.due), if !self.batch.is_empty() => None,
            };
            for event in received.drain(..) {
                self.take(event).await?;
            }
            let ended = arrived == Some(0);
            if ended {
                self.begin(None).await?;
            }
            if ended || arrived.is_none() || self.batch.is_full() {
                self.write().await?;
            }
            self.tell();
            if ended {
                return Ok(Filled { counts: self.done.counts, went_on: self.went_on });
            }
        }
    }

    async fn take(&mut self, event: SourceEvent) -> Result<(), Outcome> {
        if let SourceEvent::Retrying { error } = event {
            self.how.teller.update(|tally| tally.error = Some(error.into()));
            return Ok(());
        }
        let first = if let SourceEvent::Listed { place } = &event { Some(place) } else { None };
        self.begin(first).await?;
        match event {
            SourceEvent::Object(object) => {
                self.object(object).await?;
                self.passed();
            }
            SourceEvent::Skipped { .. } => {
                self.done.counts.skipped += 1;
                self.passed();
            }
            SourceEvent::Broken { topic, dn, problem } => {
                dead_letter::unreadable(self.broker, self.task, topic, dn, problem).await?;
                self.done.counts.set_aside += 1;
                self.passed();
            }
            SourceEvent::NoModule { topic } => {
                tracing::warn!(
                    subscription = %self.task.subscription, topic,
                    "no module of the directory matches the topic, which is left out"
                );
                if !self.done.counts.missing.contains(&topic) {
                    self.done.counts.missing.push(topic);
                }
            }
            SourceEvent::Listed { place } => self.done.place = Some(place),
            SourceEvent::TopicStarted { topic, total } => {
                // The list of another type says nothing of this one.
                self.done.place = self.done.place.take().filter(|place| place.topic == topic);
                self.how.teller.update(|tally| {
                    tally.topic = Some(topic.into());
                    tally.total = total.map(|n| tally.total.unwrap_or(0) + n).or(tally.total);
                });
            }
            SourceEvent::TopicFinished { .. } => self.how.teller.update(|tally| tally.topic = None),
            SourceEvent::Retrying { .. } => {}
        }
        Ok(())
    }

    /// Goes on from where an earlier pod was, if the source does; else removes what is there.
    async fn begin(&mut self, first: Option<&Place>) -> Result<(), Outcome> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        match (self.from.take(), first) {
            (Some(from), Some(place)) if from.place.as_ref() == Some(place) => {
                let Counts { messages, skipped, set_aside, not_selected, .. } = from.counts;
                tracing::info!(
                    subscription = %self.task.subscription, attempt = self.task.attempt, topic = place.topic, messages,
                    "the list is the same: going on from where an earlier pod was"
                );
                // The whole list of this type is counted when it starts.
                let before = (messages + skipped + set_aside + not_selected).saturating_sub(place.done);
                self.how.teller.update(|tally| tally.total = Some(before));
                (self.done, self.went_on) = (from, true);
                Ok(())
            }
            _ => Ok(self.fence.purge_below().await?),
        }
    }

    /// One more entry of the list is done.
    fn passed(&mut self) {
        if let Some(place) = &mut self.done.place {
            place.done += 1;
        }
    }

    async fn object(&mut self, object: SnapshotObject) -> Result<(), Outcome> {
        if self.batch.bytes >= BATCH_BYTES {
            self.write().await?;
        }
        let index = self.done.counts.messages + self.batch.messages.len() as u64 + 1;
        let as_of = object.as_of;
        let Some((topic, payload)) = message(object, index, self.how.shaper)? else {
            self.done.counts.not_selected += 1;
            return Ok(());
        };
        if payload.len() > self.broker.largest_message() {
            dead_letter::too_large(self.broker, self.task, topic, &payload).await?;
            self.done.counts.set_aside += 1;
        } else {
            self.how.seam.wrote(as_of, &payload);
            self.batch.push(payload);
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Outcome> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let first = self.done.counts.messages + 1;
        self.done.counts.messages += self.batch.messages.len() as u64;
        self.fence.write_marked(first, &self.batch.messages, self.done.mark().as_deref()).await?;
        self.batch = Batch::new();
        Ok(())
    }

    fn tell(&self) {
        let Counts { messages, skipped, set_aside, not_selected, missing } = &self.done.counts;
        self.how.teller.update(|tally| {
            if tally.done < *messages {
                tally.error = None;
            }
            (tally.done, tally.skipped, tally.set_aside) = (*messages, *skipped, *set_aside);
            tally.not_selected = *not_selected;
            tally.missing.clone_from(missing);
        });
    }
}

/// Messages that are written together, sooner or later.
struct Batch {
    messages: Vec<Bytes>,
    bytes: usize,
    /// When it is written although there is room.
    due: Instant,
}

impl Batch {
    fn new() -> Self {
        Self { messages: Vec::new(), bytes: 0, due: Instant::now() }
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES || self.bytes >= BATCH_BYTES
    }

    fn push(&mut self, message: Bytes) {
        if self.is_empty() {
            self.due = Instant::now() + BATCH_WAITS;
        }
        self.bytes += message.len();
        self.messages.push(message);
    }
}

/// The message of an object, as consumers know it; `None` if it is not selected.
fn message(object: SnapshotObject, index: u64, shaper: &Shaper) -> Result<Option<(String, Bytes)>, Outcome> {
    let topic = object.topic.clone();
    let unwritable = |error: serde_json::Error| {
        let text = format!("object {index} ({topic}) can't be written: {error}");
        Outcome::Failed(Failure::permanent(ExitCode::BadData, Reason::BadData, text))
    };
    let Some(object) = shaper.apply(object).map_err(unwritable)? else { return Ok(None) };
    let length = object.object.get().len();
    let message = Message {
        publisher_name: Publisher::UdmPreFill,
        ts: Timestamp::naive_utc(jiff::Timestamp::now()),
        realm: UDM_REALM.to_owned(),
        topic: object.topic,
        body: Body::snapshot(object.object),
    };
    // At once as long as it will be: a group of everybody must not be doubled while it grows.
    let mut payload = Vec::with_capacity(length + ENVELOPE);
    serde_json::to_writer(&mut payload, &message).map_err(unwritable)?;
    Ok(Some((message.topic, Bytes::from(payload))))
}
