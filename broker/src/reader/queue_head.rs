//! What may be delivered now: a look at the heads of a queue, at most two round trips.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::message::StreamMessage;
use model::{
    Incarnation, Subscription,
    delivery::{
        AfterMain, AfterPrefill, LiveTag, PrefillTag, Tag, after_main, after_prefill, prefill_decides,
    },
};

use super::{Memory, ReadError, Readers, Ready, number};
use crate::{
    Queue,
    batch_read::{Limits, Page},
    names::{self, Part},
    wire::{Got, header},
};

/// Looks at the leader before a contradiction between entry and queue counts as "nothing now".
const REREADS: u32 = 3;

/// What a look at a queue found.
#[derive(Debug)]
pub(super) enum Look {
    /// The head, and what may go out with it. Never empty.
    Messages(Vec<Ready>),
    /// Nothing now.
    Empty(Nothing),
}

/// Why there is nothing, and what may change that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// There is nothing: a new live message.
    Arrived,
    /// The event log holds something, or may, that is not to be read from there: the dispatcher.
    Copied,
    /// What is there may not be delivered: only another entry.
    Open,
}

impl Readers {
    /// Looks at the heads of a queue and decides. `fresh`: by the entry as the leader has it.
    pub(super) async fn look(
        &self,
        queue: &Queue,
        memory: &Memory,
        limits: Limits,
        fresh: bool,
    ) -> Result<Look, ReadError> {
        for reread in u32::from(fresh)..=REREADS {
            let fresh = reread > 0;
            let entry = self.entry(queue, fresh).await?;
            if let Some(look) = self.look_once(queue, memory, &entry.value, fresh, limits).await? {
                return Ok(look);
            }
        }
        // What is in the queue is ahead of the leader's entry: the entry will change.
        Ok(Look::Empty(Nothing::Open))
    }

    /// `None`: what is there does not fit the entry, which has to be read again. `fresh`: it was just read.
    async fn look_once(
        &self,
        queue: &Queue,
        memory: &Memory,
        view: &Subscription,
        fresh: bool,
        limits: Limits,
    ) -> Result<Option<Look>, ReadError> {
        // A consumer that keeps up reads from the log, again and again.
        if memory.reads_from_log() && self.may_read_from_log(memory, view) {
            return self.look_at_log(queue, memory, view, limits).await;
        }
        // A prefill that was sealed and seen drained stays drained: nobody writes to it until a later attempt takes
        // the fence, and then live messages and entry say that there is another round or attempt.
        let drained = memory.is_drained(view);
        let (main, prefill) = if prefill_decides(view) && !drained {
            // At the same time: which of them was looked at first does not matter. That the prefill is done was known
            // before, so it is complete, and what is seen of it can only be removed.
            //
            // Whether a prefill was asked for again has to be asked, and now: another replica that knows of it may
            // have delivered live messages meanwhile, and nothing of this prefill may come after those. Found by the
            // crash campaign: a replica that lagged by milliseconds brought back what had just been deleted.
            let (main, prefill, current) = futures::future::try_join3(
                self.page(queue, Part::Main, 1, Limits::ONE),
                self.page(queue, Part::Prefill, 1, limits),
                async { if fresh { Ok(true) } else { self.is_current(queue, view).await } },
            )
            .await?;
            if !current {
                return Ok(None);
            }
            (main, prefill)
        } else {
            (self.page(queue, Part::Main, 1, limits).await?, Page::default())
        };
        let live = main.messages.first().and_then(live_tag);
        let main_is_empty = main.messages.is_empty();
        Ok(match after_main(view, live) {
            AfterMain::DeliverMain => Some(Look::Messages(self.rest(queue, main, limits).await?)),
            AfterMain::Empty if main_is_empty && self.may_read_from_log(memory, view) => {
                self.look_at_log(queue, memory, view, limits).await?
            }
            AfterMain::Empty => {
                let nothing = if main_is_empty { Nothing::Arrived } else { Nothing::Open };
                Some(Look::Empty(nothing))
            }
            AfterMain::Reread => None,
            AfterMain::LookAtPrefill => {
                let head = prefill.messages.first();
                match after_prefill(view, live, head.and_then(prefill_tag)) {
                    // Tags can't be read: nothing of ours, and no reason to go past it.
                    AfterPrefill::DeliverMain | AfterPrefill::Empty if head.is_some() => None,
                    AfterPrefill::DeliverPrefill => Some(Look::Messages(together(prefill.messages, None))),
                    AfterPrefill::DeliverMain => {
                        self.note_drained(queue, memory, view).await?;
                        Some(Look::Messages(self.rest(queue, main, limits).await?))
                    }
                    AfterPrefill::Empty => {
                        self.note_drained(queue, memory, view).await?;
                        match self.may_read_from_log(memory, view) {
                            true => self.look_at_log(queue, memory, view, limits).await?,
                            false => Some(Look::Empty(Nothing::Arrived)),
                        }
                    }
                    AfterPrefill::Reread => None,
                }
            }
        })
    }

    /// Does the leader know the same round and attempt as we do?
    async fn is_current(&self, queue: &Queue, view: &Subscription) -> Result<bool, ReadError> {
        let entry = self.entry(queue, true).await?;
        let of = |s: &Subscription| (s.prefill.state, s.prefill.round, s.prefill.attempt);
        Ok(of(&entry.value) == of(view))
    }

    /// The prefill that the view knows as done was seen empty. Is it sealed, too? Then it stays so. (The state may
    /// have been set by request, while an attempt goes on writing.)
    async fn note_drained(
        &self,
        queue: &Queue,
        memory: &Memory,
        view: &Subscription,
    ) -> Result<(), ReadError> {
        if prefill_decides(view)
            && !memory.is_drained(view)
            && let Some(fence) = queue.fence().await?
            && fence.value.seals(view.incarnation, view.prefill.attempt)
        {
            memory.note_drained(view);
        }
        Ok(())
    }

    /// The head of `main` and what may go out with it, of which only the head may have been read.
    pub(super) async fn rest(
        &self,
        queue: &Queue,
        main: Page,
        limits: Limits,
    ) -> Result<Vec<Ready>, ReadError> {
        let mut messages = main.messages;
        if main.more
            && let [head] = messages.as_slice()
            && let Some(left) = limits.after(&messages)
        {
            let from = head.sequence + 1;
            messages.append(&mut self.page(queue, Part::Main, from, left).await?.messages);
        }
        Ok(together(messages, None))
    }

    /// Messages of one subject from a number on.
    pub(super) async fn page(
        &self,
        queue: &Queue,
        part: Part,
        from: u64,
        limits: Limits,
    ) -> Result<Page, ReadError> {
        let subject = queue.subject(part);
        if limits.messages > 1 {
            return match queue.wire().many(&queue.stream, &subject, from, limits).await? {
                Some(page) => Ok(page),
                None => Err(self.missing(queue).await?),
            };
        }
        match queue.wire().next(&queue.stream, &subject, from).await? {
            Got::Message(message) => Ok(Page { messages: vec![message], more: true }),
            Got::Nothing => Ok(Page::default()),
            Got::NoStream => Err(self.missing(queue).await?),
        }
    }
}

/// The first messages that may go out because the one before them may; of which `before` is the first.
pub(super) fn together(messages: Vec<StreamMessage>, before: Option<Tag>) -> Vec<Ready> {
    let mut ready: Vec<Ready> = Vec::with_capacity(messages.len());
    for message in messages {
        let Some(tag) = tag(&message) else { break };
        if ready.last().map(|ready| ready.tag).or(before).is_some_and(|before| !before.goes_on_with(tag)) {
            break;
        }
        let accepted: Option<u64> = header(&message.headers, names::ACCEPTED);
        ready.push(Ready {
            tag,
            number: number(tag, message.sequence),
            stored: Some(message.sequence),
            accepted: accepted.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))),
            payload: message.payload,
        });
    }
    ready
}

/// What a message of a queue says of itself; `None` for fence and checkpoint.
pub(super) fn tag(message: &StreamMessage) -> Option<Tag> {
    match message.subject.rsplit('.').next() {
        Some("main") => live_tag(message).map(Tag::Live),
        Some("prefill") => prefill_tag(message).map(Tag::Prefill),
        _ => None,
    }
}

pub(crate) fn live_tag(message: &StreamMessage) -> Option<LiveTag> {
    Some(LiveTag {
        incarnation: Incarnation(header(&message.headers, names::INCARNATION)?),
        round: header(&message.headers, names::ROUND)?,
        incoming_seq: header(&message.headers, names::INCOMING_SEQ)?,
    })
}

pub(super) fn prefill_tag(message: &StreamMessage) -> Option<PrefillTag> {
    Some(PrefillTag {
        incarnation: Incarnation(header(&message.headers, names::INCARNATION)?),
        round: header(&message.headers, names::ROUND)?,
        attempt: header(&message.headers, names::ATTEMPT)?,
        index: header(&message.headers, names::INDEX)?,
    })
}
