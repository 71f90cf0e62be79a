//! Writing one queue: what fits, exactly once, tried again for ever and visibly.

use std::{sync::Arc, time::Duration};

use broker::{Broker, Copier, Copy, CopyError, LargeEvent, Modified};
use model::{
    Incarnation, Message, Subscription, SubscriptionName, Timestamp,
    checkpoint::Marker,
    dead_letter::{DeadLetter, DeadLetterReason, Origin},
    error_chain,
    limits::{GivenUp, Limit, QueueLimits, QueueUse, Room, WhenFull},
};
use serde::Deserialize;

use crate::{
    metrics::{Counted, Metrics, Wait},
    turns::Turns,
};

/// Writes the queue of one subscription.
pub(crate) struct Writer {
    pub broker: Broker,
    pub name: SubscriptionName,
    pub incarnation: Incarnation,
    pub copier: Copier,
    pub limits: QueueLimits,
    pub metrics: Metrics,
    /// As of the last look; nothing before the first.
    pub room: Room,
    pub turns: Arc<Turns>,
    /// For tests: called before copies are written.
    pub before_copy: Option<fn(&SubscriptionName)>,
}

/// Why a lane ends: its subscription or its queue is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Why something was not written.
#[derive(Debug)]
pub(crate) enum Trouble {
    Gone,
    /// It may work later.
    Later {
        why: Wait,
        text: String,
    },
}

impl Trouble {
    /// The queue takes nothing until it is read, or its limits are raised.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Later { why: Wait::Messages | Wait::Bytes | Wait::Refused, .. })
    }
}

impl From<CopyError> for Trouble {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Gone => Self::Gone,
            CopyError::Full(_) => Self::Later { why: Wait::Refused, text: error_chain(&error) },
            CopyError::Broker(broker::Error::Corrupt { .. }) => {
                Self::Later { why: Wait::Unreadable, text: error_chain(&error) }
            }
            CopyError::Stale | CopyError::Unknown | CopyError::Broker(_) => {
                Self::Later { why: Wait::Nats, text: error_chain(&error) }
            }
        }
    }
}

impl From<broker::Error> for Trouble {
    fn from(error: broker::Error) -> Self {
        CopyError::from(error).into()
    }
}

impl Writer {
    /// Last entry of the log that is in the queue, or was looked at for it.
    pub(crate) fn checkpoint(&self) -> u64 {
        self.copier.checkpoint().incoming_seq
    }

    /// Another dispatcher has gone on without us: looks again what is in the queue.
    pub(crate) async fn reload(&mut self) -> Result<(), Trouble> {
        Ok(self.copier.reload().await?)
    }

    /// The same, where what is in effect in the queue decides what is copied.
    pub(crate) async fn reload_confirmed(&mut self) -> Result<(), Trouble> {
        self.reload().await?;
        Ok(self.copier.confirm().await?)
    }

    /// Writes copies, and takes out of the batch what is in the queue. Returns at the first obstacle that needs time.
    pub(crate) async fn copy(&mut self, batch: &mut Vec<Copy>) -> Result<(), Trouble> {
        if let Some(hook) = self.before_copy
            && !batch.is_empty()
        {
            hook(&self.name);
        }
        let set_aside = self.set_aside_too_large(batch).await?;
        loop {
            let known = self.checkpoint();
            let left_out = batch.partition_point(|copy| copy.incoming_seq <= known);
            self.leave(batch.drain(..left_out));
            if batch.is_empty() {
                return self.pass(set_aside.unwrap_or_default()).await;
            }
            let mut count = self.fitting(batch);
            if count == 0 {
                self.look().await?;
                count = self.fitting(batch);
            }
            let copied = {
                let _turn = self.turns.batch().await;
                self.copier.copy(&batch[..count]).await
            };
            match copied {
                Ok(()) => {
                    self.metrics.copies.inc_by(count as u64);
                    self.leave(batch.drain(..count));
                }
                Err(CopyError::Stale | CopyError::Unknown) => self.copier.reload().await?,
                Err(error) => {
                    // NATS knows better: look again.
                    self.room = Room::default();
                    return Err(error.into());
                }
            }
        }
    }

    /// Moves the checkpoint over what was set aside: consumers that read from the log wait for that.
    async fn pass(&mut self, sequence: u64) -> Result<(), Trouble> {
        while let Err(error) = self.copier.pass(sequence).await {
            self.look_again(error).await?;
        }
        Ok(())
    }

    /// The checkpoint was not written. If it has moved, or may have, it is read again, and the same is to be tried.
    async fn look_again(&mut self, error: CopyError) -> Result<(), Trouble> {
        match error {
            CopyError::Stale | CopyError::Unknown => self.reload().await,
            error => Err(error.into()),
        }
    }

    fn fitting(&self, batch: &[Copy]) -> usize {
        self.room.fitting(batch.iter().map(|copy| copy.payload.len())).min(Copier::LARGEST_BATCH)
    }

    /// What other dispatchers have written takes room, too: each copy is written once, by whomever.
    fn leave(&mut self, copies: impl Iterator<Item = Copy>) {
        for copy in copies {
            self.room.use_for(copy.payload.len());
        }
    }

    /// Asks NATS how much room there is. At a limit it is an error, or the end of the queue.
    pub(crate) async fn look(&mut self) -> Result<(), Trouble> {
        let queue = self.broker.queue(&self.name, self.incarnation);
        let held: QueueUse = queue.pending().await?.ok_or(Trouble::Gone)?.into();
        match self.limits.room(&held) {
            Ok(room) => {
                self.room = room;
                Ok(())
            }
            Err(limit) => {
                if self.limits.when_full == WhenFull::GiveUp && self.give_up(limit, held).await? {
                    return Err(Trouble::Gone);
                }
                let text = format!(
                    "its limit of {} is reached: {} live messages, {} of the prefill, {} bytes",
                    limit.as_str(),
                    held.live,
                    held.prefill,
                    held.bytes
                );
                let why = match limit {
                    Limit::Messages | Limit::Unknown => Wait::Messages,
                    Limit::Bytes => Wait::Bytes,
                };
                Err(Trouble::Later { why, text })
            }
        }
    }

    /// The operator wants a queue that is full to be given up. False: it can't be, since it is not ready.
    async fn give_up(&self, limit: Limit, held: QueueUse) -> Result<bool, broker::Error> {
        let QueueUse { live, prefill, .. } = held;
        let given_up = GivenUp { at: Timestamp::from_utc(jiff::Timestamp::now()), limit, live, prefill };
        if !self.broker.give_up(&self.name, self.incarnation, &given_up).await? {
            return Ok(false);
        }
        self.metrics.given_up.inc();
        tracing::error!(
            subscription = %self.name, incarnation = %self.incarnation, limit = limit.as_str(), live, prefill,
            "the queue is full and is given up: its events are lost; remove the subscription and register it again"
        );
        Ok(true)
    }

    /// How to wait for this queue.
    pub(crate) fn patience(&self) -> Patience {
        Patience::new(&self.name, &self.metrics)
    }

    /// Writes the checkpoint, then the boundary: the engine begins only when the checkpoint shows its round. Calling
    /// it again goes on where it failed.
    pub(crate) async fn mark(&mut self, sequence: u64, marker: &Marker) -> Result<(), Trouble> {
        while let Err(error) = self.copier.mark(sequence, marker).await {
            self.look_again(error).await?;
        }
        // Topics that were changed meanwhile have a marker of their own.
        let round = marker.epoch.round;
        let change = |s: &Subscription| {
            (s.epoch() == marker.epoch).then(|| s.with_boundary(self.incarnation, round, sequence)).flatten()
        };
        match self.broker.registry().modify(&self.name, self.incarnation, change).await? {
            Modified::Gone => return Err(Trouble::Gone),
            Modified::Changed(_) | Modified::Unchanged(_) => {}
        }
        tracing::info!(
            subscription = %self.name, incarnation = %self.incarnation, round, incoming_seq = sequence,
            "live events begin here"
        );
        Ok(())
    }

    /// Accepted when NATS carried more than now: it must not stop the queue. Answers the last one.
    async fn set_aside_too_large(&self, batch: &mut Vec<Copy>) -> Result<Option<u64>, Trouble> {
        let limit = self.broker.largest_message();
        let known = self.checkpoint();
        let mut last = None;
        while let Some(index) = batch.iter().position(|copy| copy.payload.len() > limit) {
            let sequence = batch[index].incoming_seq;
            if sequence > known {
                self.set_aside(&batch[index], limit).await?;
            }
            last = last.max(Some(sequence));
            batch.remove(index);
        }
        Ok(last)
    }

    async fn set_aside(&self, copy: &Copy, limit: usize) -> Result<(), broker::Error> {
        let topic =
            serde_json::from_slice(&copy.payload).map_or_else(|_| String::new(), |Topic { topic }| topic);
        let letter = DeadLetter {
            topic,
            dn: Message::dn(&copy.payload),
            ..self.letter(copy.incoming_seq, copy.payload.len() as u64, limit as u64)
        };
        self.write_letter(copy.incoming_seq, &letter, &copy.payload).await
    }

    /// Sets an event aside that was too large when it came: nothing but the record is kept. All before it is in the queue.
    pub(crate) async fn set_aside_large(
        &mut self,
        incoming_seq: u64,
        event: &LargeEvent,
        selects: bool,
    ) -> Result<(), Trouble> {
        if incoming_seq <= self.checkpoint() {
            return Ok(());
        }
        let letter = DeadLetter {
            topic: event.topic.clone(),
            dn: event.dn.clone().filter(|_| !selects),
            ..self.letter(incoming_seq, event.size, event.limit)
        };
        self.write_letter(incoming_seq, &letter, &[]).await?;
        self.pass(incoming_seq).await
    }

    fn letter(&self, incoming_seq: u64, size: u64, limit: u64) -> DeadLetter {
        DeadLetter {
            incarnation: self.incarnation,
            origin: Origin::Live { incoming_seq },
            reason: DeadLetterReason::TooLarge,
            problem: None,
            topic: String::new(),
            dn: None,
            size,
            limit,
            at: Timestamp::from_utc(jiff::Timestamp::now()),
        }
    }

    async fn write_letter(
        &self,
        incoming_seq: u64,
        letter: &DeadLetter,
        message: &[u8],
    ) -> Result<(), broker::Error> {
        self.broker.dead_letters().set_aside(&self.name, letter, message).await?;
        self.metrics.dead_letters.inc();
        tracing::warn!(
            subscription = %self.name, incoming_seq, topic = letter.topic, dn = letter.dn, size = letter.size,
            limit = letter.limit,
            "an event is larger than NATS carries and is set aside; raise max_payload and send it again"
        );
        Ok(())
    }
}

/// The part of an event that a dead letter tells.
#[derive(Deserialize)]
struct Topic {
    topic: String,
}

/// Trying again, with growing pauses, and visibly.
pub(crate) struct Patience {
    name: SubscriptionName,
    metrics: Metrics,
    pause: Duration,
    waiting: Option<(Wait, Counted)>,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(crate) fn new(name: &SubscriptionName, metrics: &Metrics) -> Self {
        Self { name: name.clone(), metrics: metrics.clone(), pause: Self::FIRST, waiting: None }
    }

    /// Waits, unless it is in vain.
    pub(crate) async fn after(&mut self, trouble: Trouble) -> Result<(), Gone> {
        let Trouble::Later { why, text } = trouble else { return Err(Gone) };
        if self.waiting.as_ref().is_none_or(|(known, _)| *known != why) {
            self.waiting = Some((why, self.metrics.count_waiting(why)));
            tracing::warn!(
                subscription = %self.name, reason = why.as_str(), error = text,
                "copies wait; they are being tried again"
            );
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST);
        Ok(())
    }
}
