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
        _ if view.prefill.state != PrefillState::Done => AfterMain::Empty,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Registration, Timestamp};
    use PrefillState::{Done, Failed, Pending, Running};
    use uuid::Uuid;

    const MINE: Incarnation = Incarnation(Uuid::from_u128(1));
    const OTHER: Incarnation = Incarnation(Uuid::from_u128(2));

    fn view(state: PrefillState, round: u32, attempt: u32) -> Subscription {
        let now: Timestamp = "2026-01-01T00:00:00".parse().unwrap();
        let registration =
            Registration { name: "mail".parse().unwrap(), realms_topics: vec![], request_prefill: true };
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
}
