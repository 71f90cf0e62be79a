//! Acknowledgements remove: one message by its number, or all up to one by a purge; or they move the checkpoint over an
//! event that is only in the log.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use model::{
    Incarnation, Subscription, SubscriptionName,
    checkpoint::Checkpoint,
    delivery::{
        AfterMain, AfterPrefill, EventId, Kind, LiveTag, Tag, after_main, after_prefill, live_number,
        may_acknowledge_prefill, place_in_log,
    },
};
use tokio::time::Instant;

use super::{COPIED_LOOK_EVERY, Memory, ReadError, Readers, notices::Removed, queue_head};
use crate::{
    Copier, Copy, CopyError, Error, Queue, Revised,
    batch_read::Limits,
    names::Part,
    tail::{Bound, Event, Mark},
    wire::{Got, code},
};

/// How long an acknowledgement waits until this replica has read the log up to its event, or the dispatcher has copied
/// what lies before it.
const JUDGED_WITHIN: Duration = Duration::from_secs(5);
/// Copies that an acknowledgement out of turn makes at most; beyond it the dispatcher makes them.
const COPIED_AT_ONCE: Bound = Bound { entries: Copier::LARGEST_BATCH, bytes: 4 << 20 };

/// What an acknowledgement of an event behind the checkpoint means.
enum Judged {
    /// The queue does not want it.
    Unwanted,
    /// These come before it.
    After(Vec<Copy>),
    /// Not known yet.
    Later,
}

impl Readers {
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
        if let Some(place) = place_in_log(sequence) {
            return self.acknowledge_event(&queue, place).await;
        }
        // Fence and checkpoint can't be acknowledged, a message of the prefill only of the attempt that is done.
        let kind = match self.tag(&queue, sequence).await? {
            None => return Ok(false),
            Some(Tag::Live(_)) => Kind::Live,
            Some(tag @ Tag::Prefill(_)) => {
                let may =
                    |view: &Subscription| matches!(tag, Tag::Prefill(t) if may_acknowledge_prefill(view, t));
                if !may(&self.entry(&queue, false).await?.value)
                    && !may(&self.entry(&queue, true).await?.value)
                {
                    return Ok(false);
                }
                Kind::Prefill
            }
        };
        self.remove(&queue, EventId { kind, sequence }, sequence).await
    }

    /// Removes the message of an event, copied or not.
    async fn acknowledge_event(&self, queue: &Queue, place: u64) -> Result<bool, ReadError> {
        let memory = self.memory(&queue.stream);
        let id = EventId { kind: Kind::Live, sequence: live_number(place) };
        if let Some(stored) = memory.stored(id.sequence) {
            return self.remove(queue, id, stored).await;
        }
        let _turn = memory.acknowledging.lock().await;
        match self.move_over(queue, &memory, place, false).await? {
            Moved::Over { .. } => Ok(true),
            Moved::No => Ok(false),
            Moved::NotNeeded { written } => match self.copy_of(queue, place).await? {
                Some(stored) => self.remove(queue, id, stored).await,
                // It was there when this request came.
                None => Ok(written),
            },
        }
    }

    /// Moves the checkpoint over an event that is behind it. What lies between is copied, or with `through`
    /// acknowledged as well.
    async fn move_over(
        &self,
        queue: &Queue,
        memory: &Memory,
        place: u64,
        through: bool,
    ) -> Result<Moved, ReadError> {
        let mut deadline = Instant::now() + JUDGED_WITHIN;
        let most = if through { Bound { entries: usize::MAX, bytes: usize::MAX } } else { COPIED_AT_ONCE };
        // One that we know may be old, but it only grows; and the write is conditional.
        let mut fresh = memory.checkpoint().is_none();
        let mut written = false;
        loop {
            // Before the checkpoint is read.
            let mark = self.tail.mark();
            let mut ends = self.tail.ends();
            let known = if fresh { None } else { memory.checkpoint() };
            let checkpoint = match known {
                Some(known) => known,
                None => self.fresh_checkpoint(queue, memory).await?,
            };
            if place <= checkpoint.value.incoming_seq {
                return Ok(Moved::NotNeeded { written });
            }
            let view = self.entry(queue, fresh).await?;
            let judged = match mark {
                Some(mark) if !view.value.track => {
                    self.judge(queue, memory, &view.value, &checkpoint.value, mark, place, most)
                }
                _ => Judged::Later,
            };
            match judged {
                // By a checkpoint that may be old: it is read again.
                Judged::Unwanted | Judged::Later if !fresh => {}
                Judged::Unwanted => return Ok(Moved::No),
                Judged::After(between) => {
                    let round = checkpoint.value.epoch.round;
                    let tag = LiveTag { incarnation: queue.incarnation, round, incoming_seq: place };
                    let is_turn = !through
                        || self.was_delivered(queue, memory, &view.value, Tag::Live(tag)).await?
                            == Some(true);
                    let write = match is_turn {
                        true => self.write_over(queue, memory, &checkpoint, place, &between, through).await?,
                        false if fresh => return Ok(Moved::No),
                        false => Write::Refused,
                    };
                    match write {
                        Write::Done(moved) => return Ok(moved),
                        Write::Refused => {}
                        Write::Unknown => {
                            written = true;
                            deadline = Instant::now() + JUDGED_WITHIN;
                        }
                    }
                }
                Judged::Later => {
                    if place > self.tail.end() && place > self.broker.event_log().last_sequence().await? {
                        return Ok(Moved::No);
                    }
                    tokio::time::timeout(COPIED_LOOK_EVERY, ends.changed()).await.ok();
                }
            }
            if Instant::now() >= deadline {
                let why = "this replica does not know the event log up to the message yet";
                return Err(Error::unavailable("acknowledging", why).into());
            }
            fresh = true;
        }
    }

    /// Moves the checkpoint over an event before which these are wanted.
    async fn write_over(
        &self,
        queue: &Queue,
        memory: &Memory,
        checkpoint: &Revised<Checkpoint>,
        place: u64,
        between: &[Copy],
        through: bool,
    ) -> Result<Write, ReadError> {
        let copies = if through { &[][..] } else { between };
        let next = Checkpoint { incoming_seq: place, ..checkpoint.value.clone() };
        match queue.advance(checkpoint, next, Vec::new(), copies).await {
            Ok(moved) => {
                if copies.is_empty() {
                    memory.note_moved(checkpoint.revision, moved.revision);
                }
                memory.note_checkpoint(&moved);
                let id = EventId { kind: Kind::Live, sequence: live_number(place) };
                let removed = Removed { id, through };
                memory.removed(removed);
                self.tell(queue, removed).await;
                Ok(Write::Done(Moved::Over { count: 1 + between.len() as u64, written: moved.revision }))
            }
            Err(CopyError::Stale) => Ok(Write::Refused),
            Err(CopyError::Unknown) => Ok(Write::Unknown),
            Err(CopyError::Gone) => Err(self.missing(queue).await?),
            Err(CopyError::Full(text)) => Err(Error::unavailable("acknowledging", text).into()),
            Err(CopyError::Broker(error)) => Err(error.into()),
        }
    }

    /// What an event is that is behind the checkpoint.
    #[allow(clippy::too_many_arguments)] // each is a part of the rule
    fn judge(
        &self,
        queue: &Queue,
        memory: &Memory,
        view: &Subscription,
        checkpoint: &Checkpoint,
        mark: Mark,
        place: u64,
        most: Bound,
    ) -> Judged {
        if !checkpoint.active {
            return Judged::Later;
        }
        let Some(matcher) = self.in_effect(memory, view, checkpoint) else { return Judged::Later };
        let between = checkpoint.incoming_seq..place;
        let Some(mut ahead) = self.ahead(queue, memory, checkpoint, &matcher, mark, between, most) else {
            return Judged::Later;
        };
        match ahead.events.last() {
            Some(last) if last.place == place => {
                ahead.events.pop();
                let copy = |event: Event| Copy {
                    incoming_seq: event.place,
                    accepted: Some(event.accepted),
                    payload: event.payload,
                };
                Judged::After(ahead.events.into_iter().map(copy).collect())
            }
            _ if ahead.through >= place => Judged::Unwanted,
            _ => Judged::Later,
        }
    }

    /// Removes a delivered message and all that were delivered before it, and answers how many went; 0: there is no
    /// such message that may be removed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn acknowledge_through(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        sequence: u64,
    ) -> Result<u64, ReadError> {
        let queue = self.broker.queue(name, incarnation);
        let memory = self.memory(&queue.stream);
        let Some(place) = place_in_log(sequence) else {
            let Some(tag) = self.tag(&queue, sequence).await? else { return Ok(0) };
            let id = EventId { kind: tag.kind(), sequence };
            return self.remove_through(&queue, &memory, tag, id, sequence).await;
        };
        let id = EventId { kind: Kind::Live, sequence };
        if let (Some(stored), Some(tag)) = (memory.stored(sequence), memory.tag(sequence)) {
            return self.remove_through(&queue, &memory, tag, id, stored).await;
        }
        let _turn = memory.acknowledging.lock().await;
        match self.move_over(&queue, &memory, place, true).await? {
            Moved::No => Ok(0),
            // What was copied before has had its turn, as it has: it was delivered, or removed. All that was written to
            // the queue before this checkpoint is before it in the log.
            Moved::Over { count, written } if memory.main_is_empty_at(written) => Ok(count),
            Moved::Over { count, written } => {
                Ok(count + self.purge_through(&queue, Part::Main, written).await?)
            }
            Moved::NotNeeded { written } => {
                // Else it was there when this request came: how many went with it is not known.
                let Some(stored) = self.copy_of(&queue, place).await? else { return Ok(u64::from(written)) };
                let Some(tag) = self.tag_of(&queue, stored).await? else { return Ok(0) };
                self.remove_through(&queue, &memory, tag, id, stored).await
            }
        }
    }

    /// Removes a stored message that was delivered, and those of its kind before it.
    async fn remove_through(
        &self,
        queue: &Queue,
        memory: &Memory,
        tag: Tag,
        id: EventId,
        stored: u64,
    ) -> Result<u64, ReadError> {
        let mut delivered = None;
        for fresh in [false, true] {
            let entry = self.entry(queue, fresh).await?;
            delivered = self.was_delivered(queue, memory, &entry.value, tag).await?;
            if delivered.is_some() {
                break;
            }
        }
        if delivered != Some(true) {
            return Ok(0);
        }
        // A purge has no condition and may come late, so its bounds alone must keep it from what was not delivered:
        // one subject, and a number that the stream has given out. What is written later has a higher number.
        // * Prefill: the message is of the attempt that is done. Below it on this subject are only messages of the
        //   same attempt, which come in the order of their numbers, and what overtaken attempts left, which is never
        //   delivered. A later attempt writes above it.
        // * Live: the prefill of its round is drained, or its round is an earlier one. So it has been its turn, and
        //   with it that of all live messages below, which come in the order of their numbers. The prefill is on the
        //   other subject.
        let part = if tag.kind() == Kind::Prefill { Part::Prefill } else { Part::Main };
        let count = self.purge_through(queue, part, stored).await?;
        let removed = Removed { id, through: true };
        memory.removed(removed);
        self.tell(queue, removed).await;
        Ok(count)
    }

    /// Removes the messages of one kind up to a number of the queue.
    async fn purge_through(&self, queue: &Queue, part: Part, stored: u64) -> Result<u64, ReadError> {
        match queue.wire().purge_below(&queue.stream, Some(&queue.subject(part)), stored + 1).await {
            Ok(count) => Ok(count),
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Err(self.missing(queue).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// What a message says of itself: remembered if this replica delivered it, else read. `None`: there is no such
    /// message, or it is none for consumers.
    async fn tag(&self, queue: &Queue, sequence: u64) -> Result<Option<Tag>, ReadError> {
        match self.memory(&queue.stream).tag(sequence) {
            Some(tag) => Ok(Some(tag)),
            None => self.tag_of(queue, sequence).await,
        }
    }

    /// What the message with this number in the queue says of itself.
    async fn tag_of(&self, queue: &Queue, stored: u64) -> Result<Option<Tag>, ReadError> {
        match queue.wire().message(&queue.stream, stored).await? {
            Got::Message(message) => Ok(queue_head::tag(&message)),
            Got::Nothing => Ok(None),
            Got::NoStream => Err(self.missing(queue).await?),
        }
    }

    /// Has it been this message's turn, by this view? `None`: the view has to be read again.
    async fn was_delivered(
        &self,
        queue: &Queue,
        memory: &Memory,
        view: &Subscription,
        tag: Tag,
    ) -> Result<Option<bool>, ReadError> {
        let live: LiveTag = match tag {
            Tag::Prefill(tag) => return Ok(may_acknowledge_prefill(view, tag).then_some(true)),
            Tag::Live(live) => live,
        };
        Ok(match after_main(view, Some(live)) {
            AfterMain::DeliverMain => Some(true),
            AfterMain::LookAtPrefill if memory.is_drained(view) => Some(true),
            AfterMain::LookAtPrefill => {
                let prefill = self.page(queue, Part::Prefill, 1, Limits::ONE).await?.messages;
                let head: Option<&StreamMessage> = prefill.first();
                match after_prefill(view, Some(live), head.and_then(queue_head::prefill_tag)) {
                    AfterPrefill::DeliverMain if head.is_none() => Some(true),
                    AfterPrefill::Reread => None,
                    _ => Some(false),
                }
            }
            // Not done as far as we know.
            AfterMain::Empty | AfterMain::Reread => None,
        })
    }

    /// Removes a stored message.
    async fn remove(&self, queue: &Queue, id: EventId, stored: u64) -> Result<bool, ReadError> {
        let removed = match queue.wire().remove(&queue.stream, stored).await? {
            Some(removed) => removed,
            None => return Err(self.missing(queue).await?),
        };
        let gone = Removed { id, through: false };
        self.memory(&queue.stream).removed(gone);
        if removed {
            self.tell(queue, gone).await;
        }
        Ok(removed)
    }
}

/// How the write of a checkpoint has ended.
enum Write {
    Done(Moved),
    /// Somebody else has moved it: it may be over the event by now.
    Refused,
    /// The answer was lost.
    Unknown,
}

/// How an acknowledgement of an event has ended, as far as the checkpoint is concerned.
enum Moved {
    /// The checkpoint is over the event now, with so many events that were wanted.
    Over {
        count: u64,
        /// Number of the checkpoint in the queue.
        written: u64,
    },
    /// It was over it before: the event was copied, or is gone.
    NotNeeded {
        /// This request has tried to move it over it, and may have.
        written: bool,
    },
    /// There is no such event that may be acknowledged.
    No,
}
