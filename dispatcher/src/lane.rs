//! One lane per subscription: takes all that waits and writes it as one atomic batch. Latency is low when idle,
//! throughput is high under load, and a lane that fails tries again without stopping the others.

use std::{sync::Arc, time::Duration};

use broker::{Broker, Copier, Copy, CopyError};
use bytes::Bytes;
use model::{
    DeadLetter, DeadLetterReason, Incarnation, Message, Origin, RealmTopic, Subscription, SubscriptionName,
    Timestamp, chain,
};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Bytes of one batch: the server holds a batch in memory until it is committed.
const BATCH_BYTES: usize = 4 << 20;

/// What a lane is asked to do, in the order of the log.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// Copy this event.
    Event { sequence: u64, payload: Bytes },
    /// From here on a round's live events follow, by these topics.
    Marker { sequence: u64, round: u32, topics: Arc<[RealmTopic]> },
}

/// What a lane tells.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    /// Everything up to a sequence is done.
    Done { lane: Incarnation, through: u64 },
    /// The lane has ended: its subscription or its queue is gone.
    Ended { lane: Incarnation },
}

/// One subscription's lane.
pub(crate) struct Lane {
    pub broker: Broker,
    pub name: SubscriptionName,
    pub incarnation: Incarnation,
    pub copier: Copier,
    pub metrics: Metrics,
    pub reports: mpsc::UnboundedSender<Report>,
}

/// Why a lane stops.
enum Stop {
    Gone,
    /// Nobody listens any more: the session is over.
    SessionOver,
}

impl Lane {
    /// Works until its subscription is gone or the session is over.
    pub(crate) async fn run(mut self, mut items: mpsc::UnboundedReceiver<Item>) {
        let lane = self.incarnation;
        let stop = self.work(&mut items).await;
        if matches!(stop, Stop::Gone) {
            tracing::info!(subscription = %self.name, incarnation = %lane, "the queue is gone: no more copies");
            // The session may be over by now: then nobody needs the report.
            self.reports.send(Report::Ended { lane }).ok();
        }
    }

    async fn work(&mut self, items: &mut mpsc::UnboundedReceiver<Item>) -> Stop {
        let mut waiting = None;
        loop {
            let first = match waiting.take() {
                Some(item) => item,
                None => match items.recv().await {
                    Some(item) => item,
                    None => return Stop::SessionOver,
                },
            };
            let done = match first {
                Item::Marker { sequence, round, topics } => {
                    if let Err(stop) = self.mark(sequence, round, &topics).await {
                        return stop;
                    }
                    sequence
                }
                Item::Event { sequence, payload } => {
                    let batch = fill(Copy { incoming_seq: sequence, payload }, items, &mut waiting);
                    let through = batch.last().map_or(sequence, |copy| copy.incoming_seq);
                    if let Err(stop) = self.copy(batch).await {
                        return stop;
                    }
                    through
                }
            };
            if self.reports.send(Report::Done { lane: self.incarnation, through: done }).is_err() {
                return Stop::SessionOver;
            }
        }
    }

    /// Writes the checkpoint, then the boundary: the engine begins only when the checkpoint shows its round.
    async fn mark(&mut self, sequence: u64, round: u32, topics: &[RealmTopic]) -> Result<(), Stop> {
        let mut retry = Retry::new(&self.metrics);
        loop {
            match self.copier.mark(sequence, round).await {
                Ok(()) => break,
                Err(error) => retry.after(&self.name, &mut self.copier, error).await?,
            }
        }
        loop {
            // Topics that were changed after the marker was read need a marker of their own: without a boundary one
            // will come.
            let change = |s: &Subscription| {
                let same = *s.realms_topics == *topics;
                same.then(|| s.with_boundary(self.incarnation, round, sequence)).flatten()
            };
            match self.broker.registry().modify(&self.name, self.incarnation, change).await {
                Ok(broker::Modified::Gone) => return Err(Stop::Gone),
                Ok(_) => break,
                Err(error) => retry.after(&self.name, &mut self.copier, error.into()).await?,
            }
        }
        tracing::info!(
            subscription = %self.name, incarnation = %self.incarnation, round, incoming_seq = sequence,
            "live events begin here"
        );
        Ok(())
    }

    async fn set_aside(&self, copy: &Copy, limit: usize) -> Result<(), broker::Error> {
        let topic =
            serde_json::from_slice(&copy.payload).map_or_else(|_| String::new(), |Topic { topic }| topic);
        let letter = DeadLetter {
            incarnation: self.incarnation,
            origin: Origin::Live { incoming_seq: copy.incoming_seq },
            reason: DeadLetterReason::TooLarge,
            topic,
            dn: Message::dn(&copy.payload),
            size: copy.payload.len() as u64,
            limit: limit as u64,
            at: Timestamp::from_utc(jiff::Timestamp::now()),
        };
        self.broker.dead_letters().set_aside(&self.name, &letter, &copy.payload).await?;
        self.metrics.dead_letters.inc();
        tracing::warn!(
            subscription = %self.name, incoming_seq = copy.incoming_seq, topic = letter.topic, dn = letter.dn, limit,
            "an event is larger than NATS carries and is set aside; raise max_payload and send it again"
        );
        Ok(())
    }

    async fn copy(&mut self, mut batch: Vec<Copy>) -> Result<(), Stop> {
        let mut retry = Retry::new(&self.metrics);
        // Accepted when NATS carried more than now: it must not stop the queue.
        let limit = self.broker.largest_message();
        let known = self.copier.checkpoint().incoming_seq;
        let too_large = |copy: &mut Copy| copy.payload.len() > limit;
        for copy in batch.extract_if(.., too_large).filter(|copy| copy.incoming_seq > known) {
            while let Err(error) = self.set_aside(&copy, limit).await {
                retry.after(&self.name, &mut self.copier, error.into()).await?;
            }
        }
        loop {
            match self.copier.copy(&batch).await {
                Ok(()) => {
                    self.metrics.copies.inc_by(batch.len() as u64);
                    return Ok(());
                }
                Err(error) => retry.after(&self.name, &mut self.copier, error).await?,
            }
        }
    }
}

/// The part of an event that a dead letter tells.
#[derive(Deserialize)]
struct Topic {
    topic: String,
}

/// Takes what waits, up to the limits of a batch. A marker ends the batch and is given back.
fn fill(first: Copy, items: &mut mpsc::UnboundedReceiver<Item>, rest: &mut Option<Item>) -> Vec<Copy> {
    let mut bytes = first.payload.len();
    let mut batch = vec![first];
    while batch.len() < Copier::LARGEST_BATCH && bytes < BATCH_BYTES {
        match items.try_recv() {
            Ok(Item::Event { sequence, payload }) => {
                bytes += payload.len();
                batch.push(Copy { incoming_seq: sequence, payload });
            }
            Ok(marker @ Item::Marker { .. }) => {
                *rest = Some(marker);
                break;
            }
            Err(_) => break,
        }
    }
    batch
}

/// Trying again, with growing pauses, and visibly.
struct Retry<'a> {
    metrics: &'a Metrics,
    pause: Duration,
    counted: bool,
}

impl<'a> Retry<'a> {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(2);

    fn new(metrics: &'a Metrics) -> Self {
        Self { metrics, pause: Self::FIRST, counted: false }
    }

    async fn after(
        &mut self,
        name: &SubscriptionName,
        copier: &mut Copier,
        error: CopyError,
    ) -> Result<(), Stop> {
        match error {
            CopyError::Gone => return Err(Stop::Gone),
            CopyError::Stale => match copier.reload().await {
                Ok(()) => return Ok(()),
                Err(CopyError::Gone) => return Err(Stop::Gone),
                Err(error) => self.wait(name, &error).await,
            },
            error => self.wait(name, &error).await,
        }
        Ok(())
    }

    async fn wait(&mut self, name: &SubscriptionName, error: &CopyError) {
        if !self.counted {
            self.counted = true;
            self.metrics.lanes_waiting.inc();
            tracing::warn!(subscription = %name, error = %chain(error), "copies wait; they are being tried again");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST);
    }
}

impl Drop for Retry<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.metrics.lanes_waiting.dec();
        }
    }
}
