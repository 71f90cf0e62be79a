//! Copying events into a queue, exactly once over any crash: each batch begins with the checkpoint, on the condition
//! that it is still the last one.

use std::time::SystemTime;

use bytes::Bytes;
use model::{
    checkpoint::{Checkpoint, Marker},
    resync::{KnownObject, KnownObjects},
};

use crate::{
    Error, Queue, Revised,
    names::{self, Part},
    wire::{LARGEST_BATCH, Outgoing, Refusal, headers},
};

/// One event for one queue.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Its sequence in `incoming`.
    pub incoming_seq: u64,
    /// When it was accepted, by the clock of NATS, if that is known.
    pub accepted: Option<SystemTime>,
    /// The event.
    pub payload: Bytes,
}

/// Why a batch of copies was not written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Another dispatcher or a replica has moved the checkpoint meanwhile: read it again with [`Copier::reload`] and leave
    /// out what is at or below it.
    #[error("the checkpoint has moved")]
    Stale,
    /// The answer was lost, so it may have been written or not: the same is to be done.
    #[error("it is unknown whether the checkpoint has moved")]
    Unknown,
    /// The queue is at its limit: wait and try again.
    #[error("the queue is full: {0}")]
    Full(String),
    /// The queue is gone.
    #[error("the queue is gone")]
    Gone,
    /// NATS away.
    #[error(transparent)]
    Broker(#[from] Error),
}

/// Writes the copies of one queue.
#[derive(Debug)]
pub struct Copier {
    queue: Queue,
    last: Revised<Checkpoint>,
    tracks: bool,
}

impl Copier {
    /// Most copies of one batch: what ADR-50 allows, less the checkpoint; half of it, as measured fastest.
    pub const LARGEST_BATCH: usize = LARGEST_BATCH / 2 - 1;

    /// Reads the checkpoint of a queue. `None`: the queue is gone.
    ///
    /// # Errors
    /// NATS away.
    pub async fn open(queue: Queue) -> Result<Option<Self>, Error> {
        Ok(queue.checkpoint().await?.map(|last| Self { queue, last, tracks: false }))
    }

    /// Does it also record what the consumer is told of?
    #[must_use]
    pub fn tracking(self, tracks: bool) -> Self {
        Self { tracks, ..self }
    }

    /// The last checkpoint that we know.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.last.value
    }

    /// Reads the checkpoint again.
    ///
    /// # Errors
    /// [`CopyError::Gone`], or NATS away.
    pub async fn reload(&mut self) -> Result<(), CopyError> {
        self.last = self.queue.checkpoint().await?.ok_or(CopyError::Gone)?;
        Ok(())
    }

    /// Makes sure that no later checkpoint is there, before anything is judged by this one: with several replicas of NATS a
    /// leader that was deposed may have answered, and its topics may be former ones. Writing the same anew shows it.
    ///
    /// # Errors
    /// [`CopyError::Stale`] and [`CopyError::Unknown`]: it was read again, and is to be confirmed once more.
    pub async fn confirm(&mut self) -> Result<(), CopyError> {
        if self.queue.broker.reads_from_log() {
            return Ok(());
        }
        let confirmed = self.write(self.last.value.clone(), &[]).await;
        if let Err(CopyError::Stale | CopyError::Unknown) = confirmed {
            self.reload().await?;
        }
        confirmed
    }

    /// Moves the checkpoint to a marker: from here on the queue gets events, of its round. Nothing happens if the
    /// checkpoint is there or further already, or the marker is older than what is in effect.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn mark(&mut self, incoming_seq: u64, marker: &Marker) -> Result<(), CopyError> {
        match self.last.value.after(marker, incoming_seq) {
            Some(next) => self.write(next, &[]).await,
            None => Ok(()),
        }
    }

    /// Writes copies as one atomic batch, after leaving out what is at or below the checkpoint. At most
    /// [`LARGEST_BATCH`](Self::LARGEST_BATCH) copies, in growing order.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn copy(&mut self, copies: &[Copy]) -> Result<(), CopyError> {
        let known = self.last.value.incoming_seq;
        let first = copies.partition_point(|copy| copy.incoming_seq <= known);
        let copies = &copies[first..];
        let Some(newest) = copies.last() else { return Ok(()) };
        self.write(Checkpoint { incoming_seq: newest.incoming_seq, ..self.last.value.clone() }, copies).await
    }

    /// What the copies name.
    fn known(&self, copies: &[Copy]) -> Result<Vec<Outgoing>, Error> {
        let Some(first) = copies.first() else { return Ok(Vec::new()) };
        let objects = copies.iter().flat_map(|copy| KnownObject::named_by(&copy.payload)).collect();
        self.queue.known_messages(&KnownObjects { objects, ..KnownObjects::default() }, |n| {
            names::known_live_subject(&self.queue.name, first.incoming_seq, n)
        })
    }

    /// Moves the checkpoint over an entry of which nothing is to be copied any more, such as one that was set aside.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn pass(&mut self, incoming_seq: u64) -> Result<(), CopyError> {
        if incoming_seq <= self.last.value.incoming_seq {
            return Ok(());
        }
        self.write(Checkpoint { incoming_seq, ..self.last.value.clone() }, &[]).await
    }

    async fn write(&mut self, next: Checkpoint, copies: &[Copy]) -> Result<(), CopyError> {
        let known = if self.tracks { self.known(copies)? } else { Vec::new() };
        self.last = self.queue.advance(&self.last, next, known, copies).await?;
        self.queue.tell_arrival().await;
        Ok(())
    }
}

impl Queue {
    /// Moves the checkpoint from the last one that is known, with copies of what lies between and must stay: all or
    /// nothing.
    pub(crate) async fn advance(
        &self,
        last: &Revised<Checkpoint>,
        next: Checkpoint,
        known: Vec<Outgoing>,
        copies: &[Copy],
    ) -> Result<Revised<Checkpoint>, CopyError> {
        let checkpoint = self.state_message(Part::Copied, &next, last.revision)?;
        let behind = known.len() + copies.len();
        let mut batch = Vec::with_capacity(1 + behind);
        batch.push(checkpoint);
        batch.extend(known);
        let subject = self.subject(Part::Main);
        batch.extend(copies.iter().map(|copy| {
            let mut headers = headers([
                (names::EXPECTED_STREAM, self.stream.clone()),
                (names::INCARNATION, next.incarnation.to_string()),
                (names::ROUND, next.epoch.round.to_string()),
                (names::INCOMING_SEQ, copy.incoming_seq.to_string()),
            ]);
            let accepted = copy.accepted.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            if let Some(accepted) = accepted {
                headers.insert(names::ACCEPTED, accepted.as_millis().to_string().as_str());
            }
            Outgoing { subject: subject.clone(), headers, payload: copy.payload.clone() }
        }));
        match self.wire().publish_batch(batch).await {
            // The batch is contiguous, so the checkpoint's own number follows from that of the last message.
            Ok(last_sequence) => Ok(Revised { value: next, revision: last_sequence - behind as u64 }),
            Err(Refusal::WrongLast(_)) => Err(CopyError::Stale),
            Err(Refusal::Unknown(error)) => {
                tracing::debug!(%error, "it is unknown whether copies were written");
                Err(CopyError::Unknown)
            }
            Err(Refusal::Full(text)) => Err(CopyError::Full(text)),
            Err(Refusal::NoStream | Refusal::Nobody) => match self.broker.stream_state(&self.stream).await? {
                None => Err(CopyError::Gone),
                Some(_) => Err(CopyError::Stale),
            },
            Err(refusal @ (Refusal::NotWritten(_) | Refusal::Other(_))) => {
                Err(refusal.into_error("copying events").into())
            }
        }
    }
}
