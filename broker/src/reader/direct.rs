//! Reading from the event log what nobody has copied yet.
//!
//! The checkpoint C of a queue says: every event up to here is in the queue, or removed from it, or not for it; every
//! later one is in the log. Two move it, each on the condition that it is still the last one: the dispatcher, which
//! *copies*, and a replica that *acknowledges* an event that was never copied. So what comes next is the head of `main`
//! or, if there is none, the first event behind C that the queue wants.
//!
//! The order of the looks decides (`tests/protocol/direct.py` has a trace for each that is left out): first what is held
//! of the log is noted, then C is read, then `main`. A copy that is made in between is found in `main`. Whoever adds to
//! `main` writes C in the same batch, so as long as C is the one at which nothing was there, nothing is: then the read of C
//! is all that a look costs.
//!
//! Reads of a leader that was deposed and does not know it would break this, so with several replicas of NATS everything is
//! copied.
//!
//! A marker of this subscription behind C, and an event that becomes a dead letter, stop: only the dispatcher moves C over
//! them.

use std::{ops::Range, sync::Arc};

use model::{
    Subscription,
    checkpoint::Checkpoint,
    delivery::{LiveTag, Tag, live_number},
};

use super::{
    Memory, ReadError, Readers, Ready,
    memory::Unwanted,
    queue_head::{Look, Nothing, live_tag},
};
use crate::{
    Matcher, Queue, Revised,
    batch_read::{Limits, Page},
    names::Part,
    tail::{Ahead, Bound, Event, Mark, Wanted},
};

/// What the log holds for a queue.
pub(super) enum Found {
    /// Some of what it may hold is not known here, or is for the dispatcher: that brings it.
    Dispatchers,
    /// Nothing.
    Nothing,
    /// Never empty.
    Messages(Vec<Ready>),
}

impl Readers {
    /// May live messages be read from the log, if nothing is in the queue? Only when all of the prefill is read. Where it
    /// is recorded what the consumer is told of, everything is copied.
    pub(super) fn may_read_from_log(&self, memory: &Memory, view: &Subscription) -> bool {
        self.broker.reads_from_log()
            && !view.track
            && view.prefill.is_open()
            && (view.prefill.round == 0 || memory.is_drained(view))
    }

    /// Looks at the queue and at the log. `None`: the checkpoint does not fit the entry, which has to be read again.
    pub(super) async fn look_at_log(
        &self,
        queue: &Queue,
        memory: &Memory,
        view: &Subscription,
        limits: Limits,
    ) -> Result<Option<Look>, ReadError> {
        let mark = self.tail.mark();
        let checkpoint = self.fresh_checkpoint(queue, memory).await?;
        let main = if memory.main_is_empty_at(checkpoint.revision) {
            Page::default()
        } else {
            let main = self.page(queue, Part::Main, 1, limits).await?;
            // Only what was looked at: it is not to be taken for granted for ever.
            if main.messages.is_empty() {
                memory.note_main_is_empty(checkpoint.revision);
            }
            main
        };
        memory.note_reads_from_log(main.messages.is_empty());
        if let Some(head) = main.messages.first() {
            let fits = live_tag(head)
                .is_some_and(|live| live.incarnation == view.incarnation && live.round <= view.prefill.round);
            return Ok(match fits {
                true => Some(Look::Messages(self.rest(queue, main, limits).await?)),
                false => None,
            });
        }
        let Some(mark) = mark else { return Ok(Some(Look::Empty(Nothing::Copied))) };
        let after = checkpoint.value.incoming_seq;
        let found = self.behind(queue, memory, view, &checkpoint, mark, after, limits).await?;
        Ok(match found {
            None => None,
            Some(Found::Dispatchers) => Some(Look::Empty(Nothing::Copied)),
            Some(Found::Nothing) => Some(Look::Empty(Nothing::Arrived)),
            Some(Found::Messages(messages)) => Some(Look::Messages(messages)),
        })
    }

    /// The checkpoint, from the leader.
    pub(super) async fn fresh_checkpoint(
        &self,
        queue: &Queue,
        memory: &Memory,
    ) -> Result<Revised<Checkpoint>, ReadError> {
        match queue.checkpoint().await? {
            Some(found) => {
                memory.note_checkpoint(&found);
                Ok(found)
            }
            None => Err(self.missing(queue).await?),
        }
    }

    /// What the log holds behind a place that is the checkpoint's or a later one. The checkpoint was read after the mark
    /// was noted. `None`: it is of a later round than the entry.
    #[allow(clippy::too_many_arguments)] // each is a part of the rule
    pub(super) async fn behind(
        &self,
        queue: &Queue,
        memory: &Memory,
        view: &Subscription,
        checkpoint: &Revised<Checkpoint>,
        mark: Mark,
        after: u64,
        limits: Limits,
    ) -> Result<Option<Found>, ReadError> {
        let Checkpoint { epoch, active, .. } = checkpoint.value;
        if !active || epoch.round < view.prefill.round {
            // The marker is on its way.
            return Ok(Some(Found::Dispatchers));
        }
        if epoch.round > view.prefill.round {
            return Ok(None);
        }
        let Some(matcher) = self.in_effect(memory, view, &checkpoint.value) else {
            return Ok(Some(Found::Dispatchers));
        };
        let most = Bound { entries: limits.messages, bytes: limits.bytes };
        let ahead = self.ahead(queue, memory, &checkpoint.value, &matcher, mark, after..u64::MAX, most);
        let Some(Ahead { events, barred, .. }) = ahead else { return Ok(Some(Found::Dispatchers)) };
        if events.is_empty() {
            return Ok(Some(if barred { Found::Dispatchers } else { Found::Nothing }));
        }
        if mark.needs_position(after) {
            // The position says that nothing is wanted before what is held. Of a queue that was lost it does not.
            self.entry(queue, true).await?;
        }
        let messages = events.into_iter().map(|event| ready(queue, epoch.round, event)).collect();
        Ok(Some(Found::Messages(messages)))
    }

    /// What a queue gets by a checkpoint. `None`: it can't be used, which the dispatcher says.
    pub(super) fn in_effect(
        &self,
        memory: &Memory,
        view: &Subscription,
        checkpoint: &Checkpoint,
    ) -> Option<Arc<Matcher>> {
        memory.matcher(checkpoint.epoch, || {
            Matcher::new(&checkpoint.realms_topics, view.selection.as_ref()).ok()
        })
    }

    /// What the log holds behind the first place, which is the checkpoint's or a later one, up to the second. `None`: some
    /// of it is not held.
    #[allow(clippy::too_many_arguments)] // each is a part of the rule
    pub(super) fn ahead(
        &self,
        queue: &Queue,
        memory: &Memory,
        checkpoint: &Checkpoint,
        matcher: &Matcher,
        mark: Mark,
        between: Range<u64>,
        most: Bound,
    ) -> Option<Ahead> {
        let epoch = checkpoint.epoch;
        let wanted =
            Wanted { incarnation: queue.incarnation, epoch, matcher, largest: self.broker.largest_message() };
        let first = mark.begin(between.start)?;
        let begin = memory.begin(epoch, mark.generation(), first);
        let ahead = self.tail.ahead(mark, &wanted, begin, between.end, most)?;
        if ahead.events.is_empty() {
            let (generation, through) = (mark.generation(), ahead.through);
            memory.note_unwanted(Unwanted { epoch, generation, after: first, through });
        }
        Some(ahead)
    }

    /// The last place of the log that a queue may know of.
    pub(super) async fn last_place(&self, queue: &Queue, memory: &Memory) -> Result<u64, ReadError> {
        let checkpoint = self.fresh_checkpoint(queue, memory).await?.value.incoming_seq;
        Ok(checkpoint.max(self.broker.event_log().last_sequence().await?))
    }

    /// The number in the queue of the copy of an event. `None`: it is not there. Copies are in the order of the log, so it
    /// is looked for by halves.
    pub(super) async fn copy_of(&self, queue: &Queue, place: u64) -> Result<Option<u64>, ReadError> {
        let from = async |from: u64| {
            let found = self.page(queue, Part::Main, from, Limits::ONE).await?.messages.into_iter().next();
            Ok::<_, ReadError>(found.map(|message| Stored {
                stored: message.sequence,
                place: live_tag(&message).map_or(0, |live| live.incoming_seq),
            }))
        };
        let Some(mut known) = from(1).await?.filter(|first| first.place <= place) else { return Ok(None) };
        let last = queue.wire().last(&queue.stream, &queue.subject(Part::Main)).await?.message();
        let mut above = last.map_or(known.stored, |last| last.sequence) + 1;
        while above - known.stored > 1 {
            let middle = known.stored + (above - known.stored) / 2;
            match from(middle).await?.filter(|found| found.place <= place && found.stored < above) {
                Some(found) => known = found,
                None => above = middle,
            }
        }
        Ok((known.place == place).then_some(known.stored))
    }
}

/// A copy in a queue.
#[derive(Clone, Copy)]
struct Stored {
    /// Its number in the queue.
    stored: u64,
    /// The place of its event in the log.
    place: u64,
}

fn ready(queue: &Queue, round: u32, Event { place, accepted, payload }: Event) -> Ready {
    let tag = LiveTag { incarnation: queue.incarnation, round, incoming_seq: place };
    Ready { tag: Tag::Live(tag), number: live_number(place), stored: None, accepted: Some(accepted), payload }
}
