//! What may be delivered to a consumer, decided by the messages themselves and not by a cached state.
//!
//! A queue has two heads: the first message of `<name>.main` (live) and the first of `<name>.prefill`. The reader
//! looks at `main` first, because that alone decides in the common cases:
//!
//! ```text
//!  main head ──► after_main ──► deliver it          (an earlier round, or a queue without prefill)
//!                          ├──► empty               (prefill not done)
//!                          ├──► read the entry again (our view is older than the queue)
//!                          └──► look at prefill ──► after_prefill ──► deliver prefill / deliver main / empty / read again
//! ```

use std::{fmt, str::FromStr};

use crate::{Incarnation, PrefillState, Subscription};

/// What a live message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveTag {
    /// Whose queue it was written for.
    pub incarnation: Incarnation,
    /// Round it belongs to: it comes after the prefill of that round.
    pub round: u32,
    /// Its sequence in `incoming`.
    pub incoming_seq: u64,
}

/// What a prefill message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefillTag {
    /// Whose queue it was written for.
    pub incarnation: Incarnation,
    /// Round of the prefill.
    pub round: u32,
    /// Attempt that wrote it.
    pub attempt: u32,
    /// Its place in the attempt, from 1.
    pub index: u64,
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// On `<name>.prefill`.
    Prefill(PrefillTag),
    /// On `<name>.main`.
    Live(LiveTag),
}

/// The two kinds of messages in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An object of the snapshot.
    Prefill,
    /// A change.
    Live,
}

impl Tag {
    /// Which kind of message it is.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Prefill(_) => Kind::Prefill,
            Self::Live(_) => Kind::Live,
        }
    }

    /// May the next message on the same subject go out because this one may? Between kinds, rounds and attempts
    /// there is a gate, and the heads of the queue have to be looked at again.
    #[must_use]
    pub fn goes_on_with(self, next: Self) -> bool {
        match (self, next) {
            (Self::Prefill(a), Self::Prefill(b)) => {
                (a.incarnation, a.round, a.attempt) == (b.incarnation, b.round, b.attempt)
            }
            (Self::Live(a), Self::Live(b)) => (a.incarnation, a.round) == (b.incarnation, b.round),
            _ => false,
        }
    }
}

/// Numbers of live messages are above this one, those of prefills below. So a number says where its message is: at a
/// place of the event log, the same whether it was copied into the queue or not, or at a place of the queue. All of them
/// are exact in JSON, where numbers may be read as doubles (RFC 8259, section 6: up to 2^53 - 1).
pub const LIVE_NUMBERS: u64 = 1 << 52;

/// The number of the live message of an event, by the event's sequence in `incoming`.
#[must_use]
pub fn live_number(incoming_seq: u64) -> u64 {
    LIVE_NUMBERS.saturating_add(incoming_seq)
}

/// The sequence in `incoming` of a live message's event; `None`: it is a number of the queue.
#[must_use]
pub fn place_in_log(number: u64) -> Option<u64> {
    number.checked_sub(LIVE_NUMBERS).filter(|place| *place > 0)
}

/// Names a message of one queue over any number of connections: `p300` or `l120`. The number alone would not do,
/// since a client may have kept the id of a former version, in which live messages had numbers of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// Its kind.
    pub kind: Kind,
    /// Its number in the queue.
    pub sequence: u64,
}

/// A text that names no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id that a message of this stream had is expected, such as l120")]
pub struct EventIdError;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Prefill => 'p',
            Kind::Live => 'l',
        };
        write!(f, "{kind}{}", self.sequence)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, number) = match (text.strip_prefix('p'), text.strip_prefix('l')) {
            (Some(number), _) => (Kind::Prefill, number),
            (_, Some(number)) => (Kind::Live, number),
            (None, None) => return Err(EventIdError),
        };
        let sequence = number.parse().map_err(|_| EventIdError)?;
        let id = Self { kind, sequence };
        // One message has one id: no sign, no leading zeros.
        if sequence > 0 && id.to_string() == text { Ok(id) } else { Err(EventIdError) }
    }
}

/// Decision after a look at the head of `main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterMain {
    /// Deliver the head of `main`.
    DeliverMain,
    /// The head of `prefill` decides.
    LookAtPrefill,
    /// Nothing to deliver now.
    Empty,
    /// The message is newer than our view: read the entry from the leader and decide again.
    Reread,
}

/// Decision after a look at both heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterPrefill {
    /// Deliver the head of `prefill`.
    DeliverPrefill,
    /// Deliver the head of `main`.
    DeliverMain,
    /// Nothing to deliver now.
    Empty,
    /// The message does not fit our view: read the entry from the leader and decide again.
    Reread,
}

/// Decides from the view and the head of `main` alone.
///
/// A live message of an *earlier* round always goes out: when a prefill is asked for again, the events before its
/// marker still come first (a deletion among them must not be lost).
#[must_use]
pub fn after_main(view: &Subscription, main: Option<LiveTag>) -> AfterMain {
    let round = view.prefill.round;
    match main {
        Some(live) if live.incarnation != view.incarnation || live.round > round => AfterMain::Reread,
        Some(live) if live.round < round => AfterMain::DeliverMain,
        _ if !view.prefill.is_open() => AfterMain::Empty,
        // Round 0 never has a prefill: one look is enough.
        Some(_) if round == 0 => AfterMain::DeliverMain,
        None if round == 0 => AfterMain::Empty,
        _ => AfterMain::LookAtPrefill,
    }
}

/// Decides when [`after_main`] asked for the head of `prefill`: the prefill is done in our view, and `main` is empty
/// or holds a message of this round.
#[must_use]
pub fn after_prefill(
    view: &Subscription,
    main: Option<LiveTag>,
    prefill: Option<PrefillTag>,
) -> AfterPrefill {
    match (prefill, main) {
        (Some(tag), _) if may_acknowledge_prefill(view, tag) => AfterPrefill::DeliverPrefill,
        (Some(_), _) => AfterPrefill::Reread,
        (None, Some(_)) => AfterPrefill::DeliverMain,
        (None, None) => AfterPrefill::Empty,
    }
}

/// Is this a message of the attempt that we know as done? Only those are delivered, and only those may be removed.
#[must_use]
pub fn may_acknowledge_prefill(view: &Subscription, tag: PrefillTag) -> bool {
    view.prefill.state == PrefillState::Done
        && tag.incarnation == view.incarnation
        && tag.round == view.prefill.round
        && tag.attempt == view.prefill.attempt
}

/// Is the prefill known as done, so that its messages (or their absence) decide? One that only counts has none.
#[must_use]
pub fn prefill_decides(view: &Subscription) -> bool {
    view.prefill.round > 0 && view.prefill.is_open()
}

/// May the messages that belong together with a delivered one still go out by this view? `drained`: the prefill that
/// the view knows as done was seen drained.
#[must_use]
pub fn may_go_on(view: &Subscription, delivered: Tag, drained: bool) -> bool {
    match delivered {
        Tag::Prefill(tag) => may_acknowledge_prefill(view, tag),
        Tag::Live(tag) => match after_main(view, Some(tag)) {
            AfterMain::DeliverMain => true,
            AfterMain::LookAtPrefill => drained,
            AfterMain::Empty | AfterMain::Reread => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Timestamp, subscription::Registration};
    use PrefillState::{Done, Failed, Pending, Running};
    use uuid::Uuid;

    const MINE: Incarnation = Incarnation(Uuid::from_u128(1));
    const OTHER: Incarnation = Incarnation(Uuid::from_u128(2));

    fn view(state: PrefillState, round: u32, attempt: u32) -> Subscription {
        let now: Timestamp = "2026-01-01T00:00:00".parse().unwrap();
        let registration =
            Registration { request_prefill: true, ..Registration::new("mail".parse().unwrap(), vec![]) };
        let mut view = Subscription::reserve(registration, MINE, 1, now);
        view.prefill.state = state;
        view.prefill.round = round;
        view.prefill.attempt = attempt;
        view
    }

    fn live(incarnation: Incarnation, round: u32) -> Option<LiveTag> {
        Some(LiveTag { incarnation, round, incoming_seq: 9 })
    }

    #[test]
    fn the_head_of_main() {
        use AfterMain::*;
        for (state, round, main, expected) in [
            (Done, 0, live(MINE, 0), DeliverMain),
            (Done, 0, None, Empty),
            (Done, 0, live(MINE, 1), Reread),
            (Done, 0, live(OTHER, 0), Reread),
            (Pending, 1, None, Empty),
            (Running, 1, live(MINE, 1), Empty),
            (Failed, 1, live(MINE, 1), Empty),
            (Done, 1, live(MINE, 1), LookAtPrefill),
            (Done, 1, None, LookAtPrefill),
            // Asked again: what came before the marker is still read, whatever the new round's state.
            (Pending, 2, live(MINE, 1), DeliverMain),
            (Running, 2, live(MINE, 1), DeliverMain),
            (Done, 2, live(MINE, 1), DeliverMain),
            (Running, 2, live(MINE, 2), Empty),
            (Done, 1, live(MINE, 2), Reread),
        ] {
            assert_eq!(after_main(&view(state, round, round), main), expected, "{state:?} {round} {main:?}");
        }
    }

    #[test]
    fn the_head_of_prefill() {
        use AfterPrefill::*;
        let tag = |incarnation, round, attempt| Some(PrefillTag { incarnation, round, attempt, index: 1 });
        for (prefill, main, expected) in [
            (tag(MINE, 1, 2), None, DeliverPrefill),
            (tag(MINE, 1, 2), live(MINE, 1), DeliverPrefill),
            (tag(MINE, 1, 1), None, Reread),
            (tag(MINE, 1, 3), None, Reread),
            (tag(MINE, 2, 2), None, Reread),
            (tag(OTHER, 1, 2), None, Reread),
            (None, live(MINE, 1), DeliverMain),
            (None, None, Empty),
        ] {
            assert_eq!(after_prefill(&view(Done, 1, 2), main, prefill), expected, "{prefill:?} {main:?}");
        }
    }

    #[test]
    fn a_prefill_message_is_removed_only_of_the_done_attempt() {
        let tag = PrefillTag { incarnation: MINE, round: 1, attempt: 1, index: 1 };
        assert!(may_acknowledge_prefill(&view(Done, 1, 1), tag));
        for other in [view(Running, 1, 1), view(Failed, 1, 1), view(Done, 1, 2), view(Done, 2, 1)] {
            assert!(!may_acknowledge_prefill(&other, tag));
        }
    }

    #[test]
    fn messages_that_go_out_together() {
        let prefill = |incarnation, round, attempt, index| {
            Tag::Prefill(PrefillTag { incarnation, round, attempt, index })
        };
        let live = |incarnation, round, incoming_seq| Tag::Live(LiveTag { incarnation, round, incoming_seq });
        for (a, b, expected) in [
            (prefill(MINE, 1, 1, 1), prefill(MINE, 1, 1, 2), true),
            (prefill(MINE, 1, 1, 1), prefill(MINE, 1, 2, 1), false),
            (prefill(MINE, 1, 1, 1), prefill(MINE, 2, 1, 1), false),
            (prefill(MINE, 1, 1, 1), prefill(OTHER, 1, 1, 2), false),
            (live(MINE, 1, 7), live(MINE, 1, 9), true),
            (live(MINE, 1, 7), live(MINE, 2, 9), false),
            (live(MINE, 1, 7), live(OTHER, 1, 9), false),
            (prefill(MINE, 1, 1, 1), live(MINE, 1, 7), false),
            (live(MINE, 1, 7), prefill(MINE, 1, 1, 1), false),
        ] {
            assert_eq!(a.goes_on_with(b), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn what_goes_on_when_the_view_changes() {
        let prefill = Tag::Prefill(PrefillTag { incarnation: MINE, round: 1, attempt: 1, index: 1 });
        let live = |round| Tag::Live(LiveTag { incarnation: MINE, round, incoming_seq: 9 });
        for (state, round, tag, drained, expected) in [
            (Done, 1, prefill, false, true),
            (Pending, 2, prefill, false, false),
            (Done, 2, prefill, false, false),
            (Done, 1, live(1), true, true),
            (Done, 1, live(1), false, false),
            // Asked again: the rest of the round before still comes.
            (Pending, 2, live(1), false, true),
            (Pending, 1, live(1), true, false),
            (Done, 0, live(0), false, true),
        ] {
            let view = view(state, round, round);
            assert_eq!(may_go_on(&view, tag, drained), expected, "{state:?} {round} {tag:?} {drained}");
        }
    }

    #[test]
    fn numbers_of_live_messages_are_places_of_the_log() {
        for place in [1, 2, 1 << 40, LIVE_NUMBERS - 1] {
            assert_eq!(place_in_log(live_number(place)), Some(place));
            // JSON carries it.
            assert!(live_number(place) < 1 << 53);
        }
        for number in [0, 1, LIVE_NUMBERS - 1, LIVE_NUMBERS] {
            assert_eq!(place_in_log(number), None, "{number}");
        }
        assert!(place_in_log(u64::MAX).is_some());
    }

    #[test]
    fn ids_of_messages() {
        for (text, kind, sequence) in [
            ("p300", Kind::Prefill, 300),
            ("l1", Kind::Live, 1),
            ("l18446744073709551615", Kind::Live, u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(EventId { kind, sequence }));
            assert_eq!(EventId { kind, sequence }.to_string(), text);
        }
        for bad in ["", "p", "300", "x300", "p0", "p-1", "p+1", "p01", "P1", "p1 ", "l18446744073709551616"] {
            assert_eq!(bad.parse::<EventId>(), Err(EventIdError), "{bad}");
        }
    }
}
