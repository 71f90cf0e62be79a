//! Acknowledgements remove: one message by its number, or all up to one by a purge.

use async_nats::jetstream::message::StreamMessage;
use model::{
    AfterMain, AfterPrefill, EventId, Incarnation, Kind, LiveTag, Subscription, SubscriptionName, Tag,
    after_main, after_prefill, may_acknowledge_prefill,
};

use super::{Memory, ReadError, Readers, heads, notices::Removed};
use crate::{
    Error, Queue,
    many::Limits,
    names::Part,
    wire::{Got, code},
};

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
        self.remove(&queue, EventId { kind, sequence }).await
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
        let Some(tag) = self.tag(&queue, sequence).await? else { return Ok(0) };
        let mut delivered = None;
        for fresh in [false, true] {
            let entry = self.entry(&queue, fresh).await?;
            delivered = self.was_delivered(&queue, &memory, &entry.value, tag).await?;
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
        let subject = queue.subject(part);
        match queue.wire().purge_below(&queue.stream, Some(&subject), sequence + 1).await {
            Ok(count) => {
                let removed = Removed { id: EventId { kind: tag.kind(), sequence }, through: true };
                memory.removed(removed);
                self.tell(&queue, removed).await;
                Ok(count)
            }
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Err(self.missing(&queue).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// What a message says of itself: remembered if this replica delivered it, else read. `None`: there is no such
    /// message, or it is none for consumers.
    async fn tag(&self, queue: &Queue, sequence: u64) -> Result<Option<Tag>, ReadError> {
        if let Some(tag) = self.memory(&queue.stream).tag(sequence) {
            return Ok(Some(tag));
        }
        match queue.wire().message(&queue.stream, sequence).await? {
            Got::Message(message) => Ok(heads::tag(&message)),
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
                match after_prefill(view, Some(live), head.and_then(heads::prefill_tag)) {
                    AfterPrefill::DeliverMain if head.is_none() => Some(true),
                    AfterPrefill::Reread => None,
                    _ => Some(false),
                }
            }
            // Not done as far as we know.
            AfterMain::Empty | AfterMain::Reread => None,
        })
    }

    pub(super) async fn remove(&self, queue: &Queue, id: EventId) -> Result<bool, ReadError> {
        let removed = match queue.wire().remove(&queue.stream, id.sequence).await? {
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
