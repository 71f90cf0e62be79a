//! What a queue may show as its head: what is not acknowledged comes again, as it was, and nothing else does.

use std::collections::{HashSet, VecDeque};

use super::Promise;
use crate::history::{Message, Outcome};

/// The messages that were delivered and are not surely removed.
#[derive(Debug, Default)]
pub(super) struct Window {
    pending: VecDeque<Pending>,
    /// Place in `pending` of the next message. A stream that begins at the head again, after its client has forgotten what
    /// it got, goes through what is pending in several portions.
    next: usize,
    seen: HashSet<u64>,
    acknowledged: HashSet<u64>,
    /// Acknowledgements of unknown outcome, by the last message of each: it takes all up to there, or nothing.
    unknown: HashSet<u64>,
}

#[derive(Debug)]
struct Pending {
    sequence: u64,
    prefill: bool,
    /// An acknowledgement of unknown outcome is under way.
    maybe_removed: bool,
}

/// A message that came for the first time.
#[derive(Debug)]
pub(super) struct New<'a> {
    pub message: &'a Message,
    /// Before it stands something of a prefill that nobody has acknowledged.
    pub unread: bool,
}

type Complaint = (Promise, String);

impl Window {
    /// Messages came. `dropped`: a prefill was asked for again, so what is unread of the old one may be gone. Answers
    /// those that are new, and what is wrong.
    pub(super) fn deliver<'a>(
        &mut self,
        from_head: bool,
        dropped: bool,
        messages: &'a [Message],
    ) -> (Vec<New<'a>>, Vec<Complaint>) {
        let (mut new, mut complaints) = (Vec::new(), Vec::new());
        let mut place = if from_head { 0 } else { self.next.min(self.pending.len()) };
        if let Some(first) = messages.first().filter(|_| from_head) {
            complaints.extend(self.make_way(first.sequence, dropped));
        }
        for message in messages {
            if let Some(expected) = self.pending.get(place) {
                if expected.sequence == message.sequence {
                    place += 1;
                    continue;
                }
                complaints.extend(self.displaced(place, dropped));
            }
            let sequence = message.sequence;
            if self.acknowledged.contains(&sequence) {
                let text = format!("{sequence} comes again after it was acknowledged");
                complaints.push((Promise::AcknowledgedAgain, text));
            } else if !self.seen.insert(sequence) {
                let text = format!("{sequence} comes again, but not as the next");
                complaints.push((Promise::AgainOutOfOrder, text));
            } else {
                let unread = self.pending.iter().any(|p| p.prefill && !p.maybe_removed);
                new.push(New { message, unread });
            }
            self.pending.push_back(Pending { sequence, prefill: message.prefill, maybe_removed: false });
            place = self.pending.len();
        }
        self.next = place;
        (new, complaints)
    }

    /// Is everything acknowledged that came?
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Acknowledgements of unknown outcome that were carried out, as the new head shows.
    fn make_way(&mut self, head: u64, dropped: bool) -> Option<Complaint> {
        let mut last = None;
        while let Some(first) = self.pending.front().filter(|p| p.maybe_removed && p.sequence != head) {
            self.acknowledged.insert(first.sequence);
            last = Some(first.sequence);
            self.pending.pop_front();
        }
        let last = last.filter(|last| !dropped && !self.unknown.contains(last))?;
        self.pending.front().filter(|p| p.maybe_removed && p.sequence == head)?;
        let text = format!("{last} is gone, but {head} is there, which was acknowledged with it");
        Some((Promise::LostUnacknowledged, text))
    }

    /// Something else came where the pending ones from `place` on should have come.
    fn displaced(&mut self, place: usize, dropped: bool) -> Vec<Complaint> {
        let missing = self.pending.drain(place..).filter(|p| !(p.maybe_removed || dropped && p.prefill));
        missing
            .map(|p| (Promise::LostUnacknowledged, format!("{} is gone without acknowledgement", p.sequence)))
            .collect()
    }

    /// Everything up to a message was acknowledged.
    pub(super) fn acknowledge(&mut self, through: u64, outcome: Outcome, dropped: bool) -> Option<Complaint> {
        let Some(place) = self.pending.iter().position(|pending| pending.sequence == through) else {
            let text = format!("{through} was acknowledged, although it was not there");
            return (outcome == Outcome::Done).then_some((Promise::AcknowledgedAgain, text));
        };
        match outcome {
            Outcome::Unknown => {
                self.pending.iter_mut().take(place + 1).for_each(|pending| pending.maybe_removed = true);
                self.unknown.insert(through);
                None
            }
            Outcome::Missing => {
                let fine = self.pending.get(place).is_some_and(|p| p.maybe_removed || (dropped && p.prefill));
                self.remove(place);
                let text = format!("{through} was delivered, but its acknowledgement found nothing");
                (!fine).then_some((Promise::LostUnacknowledged, text))
            }
            Outcome::Done | Outcome::Already => {
                self.remove(place);
                None
            }
            Outcome::Refused => None,
        }
    }

    fn remove(&mut self, place: usize) {
        self.acknowledged.extend(self.pending.drain(..=place).map(|pending| pending.sequence));
        self.next = self.next.saturating_sub(place + 1);
    }
}
