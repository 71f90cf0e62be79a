//! One writer: taking the fence, writing the prefill under it, sealing it.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use model::{
    fence::{Claim, Counts, Fence, FenceState, claim},
    resync::KnownObjects,
};
use uuid::Uuid;

use crate::{
    Error, Queue, Revised,
    backoff::Backoff,
    names::{self, Part},
    wire::{Outgoing, Refusal, header, headers},
};

/// What came of trying to own a queue's prefill.
#[derive(Debug)]
pub enum Claimed {
    /// We are the one writer.
    Holder(Box<FenceHolder>),
    /// This attempt is complete already.
    Sealed,
    /// A higher attempt has taken over.
    Overtaken,
    /// This attempt was cancelled.
    Cancelled,
    /// This attempt is complete, and waits for its approval.
    Held,
    /// The queue is gone or belongs to another incarnation.
    Gone,
}

/// Why a fill broke off.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// A twin of the same attempt took the fence. It must not be taken back, or both would fight for ever.
    #[error("another pod of the same attempt has taken over")]
    LostToTwin,
    /// A higher attempt took over, or this one was cancelled: nothing is left to do.
    #[error("a later attempt has taken over, or this one was cancelled")]
    Overtaken,
    /// The subscription was removed.
    #[error("the subscription is gone")]
    Gone,
    /// The queue is at its limit.
    #[error("the queue is full: {0}")]
    Full(String),
    /// NATS away.
    #[error(transparent)]
    Broker(#[from] Error),
}

/// The one writer of a queue's prefill.
#[derive(Debug)]
pub struct FenceHolder {
    pub(crate) queue: Queue,
    fence: Fence,
    /// Sequence of our fence: the condition of every write.
    sequence: u64,
    /// The first one that we had.
    pub(crate) claimed_at: u64,
    /// Parts of the set of known objects that were tried to be written.
    known_parts: u32,
    /// Of each batch of messages, the place of the first in this attempt and its number in the queue.
    written: Vec<(u64, u64)>,
}

/// Tries against others before giving up; each failure means that somebody else succeeded.
const TRIES: u32 = 20;
/// How long an unknown outcome is looked into before the attempt gives up.
const RESOLVE_FOR: Duration = Duration::from_secs(60);

impl Queue {
    /// Takes the fence for an attempt. `holder` names the pod or worker, for people.
    ///
    /// # Errors
    /// NATS away.
    pub async fn claim_fence(&self, round: u32, attempt: u32, holder: &str) -> Result<Claimed, Error> {
        // Two pods may have one name (a Job's pod and its zombie): the suffix tells them apart.
        let unique = Uuid::new_v4().simple().to_string();
        let holder = format!("{holder}:{}", &unique[..8]);
        let mut tries = Backoff::within(RESOLVE_FOR);
        for _ in 0..TRIES {
            let Some(found) = tries.read(|| self.fence()).await? else { return Ok(Claimed::Gone) };
            match claim(&found.value, self.incarnation, attempt) {
                Claim::Gone => return Ok(Claimed::Gone),
                Claim::Overtaken => return Ok(Claimed::Overtaken),
                Claim::Sealed => return Ok(Claimed::Sealed),
                Claim::Cancelled => return Ok(Claimed::Cancelled),
                Claim::Held => return Ok(Claimed::Held),
                Claim::Take => {}
            }
            let fence = Fence::taken(self.incarnation, round, attempt, holder.clone());
            match self.write_state(Part::Fence, &fence, found.revision).await {
                Ok(sequence) => {
                    let (queue, claimed_at) = (self.clone(), sequence);
                    let (known_parts, written) = (0, Vec::new());
                    let holder = FenceHolder { queue, fence, sequence, claimed_at, known_parts, written };
                    return Ok(Claimed::Holder(Box::new(holder)));
                }
                // Somebody else was faster, or the outcome is unknown: before we own it, reading again is right.
                Err(Refusal::WrongLast(_)) => {}
                Err(refusal @ Refusal::Other(_)) => return Err(refusal.into_error("taking the fence")),
                // Also nobody who answers: the next look tells whether the queue is gone.
                Err(refusal) => {
                    tracing::debug!(%refusal, "it is unknown whether the fence was taken; reading it again");
                    tries.again(refusal.into_error("taking the fence")).await?;
                }
            }
        }
        Err(Error::unavailable("taking the fence", "others were faster each time"))
    }
}

impl FenceHolder {
    /// Who we are, as the fence says.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.fence.holder
    }

    /// Removes what earlier attempts wrote: only below our own fence, since a purge has no condition and a late one
    /// must hit nothing new.
    ///
    /// # Errors
    /// [`FillError`]; calling it again is safe.
    pub async fn purge_below(&self) -> Result<(), FillError> {
        let subject = self.queue.subject(Part::Prefill);
        let wire = self.queue.wire();
        wire.purge_below(&self.queue.stream, Some(&subject), self.sequence).await?;
        Ok(())
    }

    /// Writes messages as one atomic batch; `first_index` is the place of the first in this attempt, from 1.
    /// Messages are kept whole or not at all, also when the answer is lost.
    ///
    /// # Errors
    /// [`FillError`].
    pub async fn write(&mut self, first_index: u64, messages: &[Bytes]) -> Result<(), FillError> {
        self.write_knowing(first_index, messages, &[]).await
    }

    /// As [`write`](Self::write), and adds to the set of what the consumer is told of.
    ///
    /// # Errors
    /// [`FillError`].
    pub async fn write_knowing(
        &mut self,
        first_index: u64,
        messages: &[Bytes],
        known: &[KnownObjects],
    ) -> Result<(), FillError> {
        let Some(last_index) = (first_index - 1).checked_add(messages.len() as u64) else { return Ok(()) };
        let mut tries = Backoff::within(RESOLVE_FOR);
        loop {
            let batch = self.batch(first_index, messages, known)?;
            if batch.is_empty() {
                return Ok(());
            }
            // A batch is contiguous.
            let behind = batch.len() as u64 - 1;
            let error = match self.queue.wire().publish_batch(batch).await {
                Ok(last) => {
                    self.note_written(first_index, messages, last.saturating_sub(behind));
                    return Ok(());
                }
                Err(Refusal::WrongLast(_)) => return Err(self.lost(&mut tries).await?),
                Err(Refusal::Full(text)) => return Err(FillError::Full(text)),
                Err(refusal @ Refusal::Other(_)) => {
                    return Err(refusal.into_error("writing the prefill").into());
                }
                Err(Refusal::Unknown(error)) => error,
                // Certainly not written: the same batch again, under the same fence.
                Err(Refusal::NotWritten(error)) => {
                    tries.again(error).await?;
                    continue;
                }
                Err(Refusal::NoStream | Refusal::Nobody) => {
                    let error = self.gone_or_away().await?;
                    tries.again(error).await?;
                    continue;
                }
            };
            tracing::debug!(%error, "it is unknown whether a batch was written; looking");
            // First the fence anew, so that the batch can't land late; then see whether it landed before.
            self.replace(self.fence.clone(), &mut tries).await?;
            // Without messages nothing tells; but what is known twice does no harm.
            if !messages.is_empty()
                && let (index, sequence) = tries.read(|| self.last_written()).await?
                && index >= last_index
            {
                self.note_written(first_index, messages, sequence.saturating_sub(messages.len() as u64 - 1));
                return Ok(());
            }
        }
    }

    /// Writes the seal: the attempt is complete, and nothing of it will change.
    ///
    /// # Errors
    /// [`FillError`].
    pub async fn seal(&mut self, counts: Counts) -> Result<(), FillError> {
        self.seal_leaving_out(counts, Vec::new()).await
    }

    /// As [`seal`](Self::seal); `contained` are the live messages that the snapshot makes superfluous. They go with
    /// [`Queue::remove_contained`].
    ///
    /// # Errors
    /// [`FillError`].
    pub async fn seal_leaving_out(&mut self, counts: Counts, contained: Vec<u64>) -> Result<(), FillError> {
        self.end(FenceState::Sealed, counts, contained).await
    }

    /// As [`seal_leaving_out`](Self::seal_leaving_out), but nothing is read before [`Queue::approve_fence`] seals it.
    ///
    /// # Errors
    /// [`FillError`].
    pub async fn hold(&mut self, counts: Counts, contained: Vec<u64>) -> Result<(), FillError> {
        self.end(FenceState::Held, counts, contained).await
    }

    async fn end(&mut self, state: FenceState, counts: Counts, contained: Vec<u64>) -> Result<(), FillError> {
        // One that only counts has written nothing anew.
        let known_below = Some(self.claimed_at).filter(|_| !counts.dry_run);
        let ended = Fence { state, counts: Some(counts), contained, known_below, ..self.fence.clone() };
        self.replace(ended, &mut Backoff::within(RESOLVE_FOR)).await
    }

    fn note_written(&mut self, first_index: u64, messages: &[Bytes], first_sequence: u64) {
        if !messages.is_empty() {
            self.written.push((first_index, first_sequence));
        }
    }

    /// A message that this attempt has written, by its place in it; `None`: there is none.
    ///
    /// # Errors
    /// NATS away.
    pub async fn message(&self, index: u64) -> Result<Option<Bytes>, Error> {
        let batch = self.written.partition_point(|(first, _)| *first <= index).checked_sub(1);
        let Some((first, sequence)) = batch.and_then(|n| self.written.get(n)) else { return Ok(None) };
        let found =
            self.queue.wire().message(&self.queue.stream, sequence + (index - first)).await?.message();
        let ours = |m: &StreamMessage| {
            header(&m.headers, names::ATTEMPT) == Some(self.fence.attempt)
                && header(&m.headers, names::INDEX) == Some(index)
        };
        Ok(found.filter(ours).map(|message| message.payload))
    }

    /// Replaces our fence, until the outcome is known. Nothing that was sent under the former one can land any more.
    async fn replace(&mut self, next: Fence, tries: &mut Backoff) -> Result<(), FillError> {
        loop {
            let error = match self.queue.write_state(Part::Fence, &next, self.sequence).await {
                Ok(sequence) => {
                    self.sequence = sequence;
                    self.fence = next;
                    return Ok(());
                }
                Err(Refusal::WrongLast(_)) => match tries.read(|| self.queue.fence()).await? {
                    // An earlier try of ours, whose answer was lost.
                    Some(found) if found.value == next && found.revision > self.sequence => {
                        self.sequence = found.revision;
                        self.fence = next;
                        return Ok(());
                    }
                    _ => return Err(self.lost(tries).await?),
                },
                Err(Refusal::NoStream | Refusal::Nobody) => self.gone_or_away().await?,
                Err(Refusal::Unknown(error) | Refusal::NotWritten(error)) => error,
                Err(refusal @ (Refusal::Full(_) | Refusal::Other(_))) => {
                    return Err(refusal.into_error("writing the fence").into());
                }
            };
            tries.again(error).await?;
        }
    }

    /// Nobody answers: the stream is gone, or its leader is away.
    async fn gone_or_away(&self) -> Result<Error, FillError> {
        match self.queue.broker.stream_state(&self.queue.stream).await {
            Ok(None) => Err(FillError::Gone),
            Ok(Some(_)) => Ok(Error::unavailable("writing the prefill", "the stream did not answer")),
            Err(error) => Ok(error),
        }
    }

    /// Why a write under our fence was refused.
    async fn lost(&self, tries: &mut Backoff) -> Result<FillError, Error> {
        let Some(Revised { value: found, revision }) = tries.read(|| self.queue.fence()).await? else {
            return Ok(FillError::Gone);
        };
        if found.incarnation != self.fence.incarnation {
            return Ok(FillError::Gone);
        }
        // A fence only grows: NATS was restored from a backup, and the attempt begins again there.
        if revision < self.sequence || found.attempt < self.fence.attempt {
            return Ok(
                Error::unavailable("writing the prefill", "the queue is an older one than it was").into()
            );
        }
        Ok(match found.state {
            FenceState::Open | FenceState::Sealed | FenceState::Held
                if found.attempt == self.fence.attempt =>
            {
                FillError::LostToTwin
            }
            FenceState::Open | FenceState::Sealed | FenceState::Held | FenceState::Cancelled => {
                FillError::Overtaken
            }
        })
    }

    /// Place of the last message that this attempt wrote, and its number in the queue; 0 if none.
    async fn last_written(&self) -> Result<(u64, u64), Error> {
        let subject = self.queue.subject(Part::Prefill);
        let last = self.queue.wire().last(&self.queue.stream, &subject).await?.message();
        let ours = last.filter(|m| header::<u32>(&m.headers, names::ATTEMPT) == Some(self.fence.attempt));
        Ok(ours.and_then(|m| Some((header(&m.headers, names::INDEX)?, m.sequence))).unwrap_or((0, 0)))
    }

    fn batch(
        &mut self,
        first_index: u64,
        messages: &[Bytes],
        known: &[KnownObjects],
    ) -> Result<Vec<Outgoing>, Error> {
        let subject = self.queue.subject(Part::Prefill);
        let mut batch = Vec::with_capacity(messages.len() + known.len());
        for (index, payload) in (first_index..).zip(messages) {
            let headers = headers([
                (names::INCARNATION, self.fence.incarnation.to_string()),
                (names::ROUND, self.fence.round.to_string()),
                (names::ATTEMPT, self.fence.attempt.to_string()),
                (names::INDEX, index.to_string()),
                (names::EXPECTED_STREAM, self.queue.stream.clone()),
            ]);
            batch.push(Outgoing { subject: subject.clone(), headers, payload: payload.clone() });
        }
        for known in known {
            let (queue, attempt, parts) = (&self.queue, self.fence.attempt, &mut self.known_parts);
            // A number of its own for each try: one whose answer was lost may have landed.
            let subject = |_| {
                *parts += 1;
                names::known_prefill_subject(&queue.name, attempt, *parts)
            };
            batch.append(&mut queue.known_messages(known, subject)?);
        }
        if let Some(first) = batch.first_mut() {
            first.headers.insert(names::EXPECTED_LAST_SUBJECT, self.sequence.to_string().as_str());
            let fence = self.queue.subject(Part::Fence);
            first.headers.insert(names::EXPECTED_LAST_SUBJECT_SUBJECT, fence.as_str());
        }
        Ok(batch)
    }
}
