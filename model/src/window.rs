//! The window of a stream: which messages are out, and whether more may go.

use std::collections::BTreeSet;

use crate::delivery::{EventId, Kind, LIVE_NUMBERS};

/// What a client has of a queue, as far as one connection knows. Numbers of one kind only grow, whatever rounds and
/// attempts there are and wherever the message is, so one number a kind says what went out.
#[derive(Clone, Debug)]
pub struct Window {
    size: usize,
    prefill: Lane,
    live: Lane,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    /// The client has all that went out up to this number, over this connection or an earlier one.
    has: u64,
    /// Up to this number the queue was read.
    read: u64,
    /// Read, in the client's hands, and not known to be removed.
    out: BTreeSet<u64>,
}

impl Window {
    /// For a client that takes at most `size` unacknowledged messages, and has those up to `after` already.
    #[must_use]
    pub fn new(size: usize, after: Option<EventId>) -> Self {
        let mut window = Self { size, prefill: Lane::default(), live: Lane::default() };
        if let Some(id) = after {
            window.lane(id.kind).has = id.sequence;
        }
        window
    }

    fn lane(&mut self, kind: Kind) -> &mut Lane {
        match kind {
            Kind::Prefill => &mut self.prefill,
            Kind::Live => &mut self.live,
        }
    }

    /// How many messages may be out.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many more may go out.
    #[must_use]
    pub fn room(&self) -> usize {
        self.size.saturating_sub(self.out())
    }

    /// How many are out.
    #[must_use]
    pub fn out(&self) -> usize {
        self.prefill.out.len() + self.live.out.len()
    }

    /// The number from which on a kind is to be read.
    #[must_use]
    pub fn from(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Prefill => self.prefill.read + 1,
            Kind::Live => self.live.read + 1,
        }
    }

    /// Takes a message that was read. True: it goes out; false: the client has it, so it only counts, or it was taken
    /// before.
    pub fn take(&mut self, id: EventId) -> bool {
        let lane = self.lane(id.kind);
        // A letter that a former version sent again stands among live messages with a number of its own.
        let out_of_order = id.kind == Kind::Live && id.sequence < LIVE_NUMBERS && lane.read >= LIVE_NUMBERS;
        if out_of_order {
            return lane.out.insert(id.sequence);
        }
        if id.sequence <= lane.read {
            return false;
        }
        lane.read = id.sequence;
        lane.out.insert(id.sequence);
        let new = id.sequence > lane.has;
        lane.has = lane.has.max(id.sequence);
        new
    }

    /// A message was removed; with `through` those of its kind before it, too.
    pub fn removed(&mut self, id: EventId, through: bool) {
        let lane = self.lane(id.kind);
        if through {
            lane.out = lane.out.split_off(&id.sequence.saturating_add(1));
        } else {
            lane.out.remove(&id.sequence);
        }
    }

    /// This is the first message of its kind: what was before it is removed. `None`: all are.
    pub fn head(&mut self, kind: Kind, head: Option<u64>) {
        let lane = self.lane(kind);
        lane.out = head.map(|head| lane.out.split_off(&head)).unwrap_or_default();
    }

    /// It is the turn of this kind, so nothing of the other one is out any more. A head that went out and counts as
    /// removed has come back, after a crash of the server: then it goes out again.
    pub fn turn(&mut self, kind: Kind, head: u64) {
        let other = if kind == Kind::Prefill { Kind::Live } else { Kind::Prefill };
        self.head(other, None);
        self.head(kind, Some(head));
        let lane = self.lane(kind);
        if lane.out.is_empty() && head <= lane.read {
            lane.read = head - 1;
            lane.has = lane.has.min(head - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> EventId {
        text.parse().unwrap()
    }

    #[test]
    fn messages_go_out_until_the_window_is_full() {
        let mut window = Window::new(3, None);
        assert_eq!((window.room(), window.from(Kind::Live)), (3, 1));
        for text in ["l5", "l7", "l9"] {
            assert!(window.take(id(text)), "{text}");
        }
        assert_eq!((window.room(), window.from(Kind::Live), window.from(Kind::Prefill)), (0, 10, 1));
        for (removed, through, room) in [
            ("l7", false, 1),
            ("l7", false, 1),
            // Another kind, and what never went out.
            ("p9", true, 1),
            ("l8", false, 1),
            ("l8", true, 2),
            ("l9", true, 3),
        ] {
            window.removed(id(removed), through);
            assert_eq!(window.room(), room, "{removed} {through}");
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again_but_counts() {
        for (after, sent, from) in [
            (None, [true, true, true], 10),
            (Some("l4"), [true, true, true], 10),
            (Some("l5"), [false, true, true], 10),
            (Some("l8"), [false, false, true], 10),
            (Some("l9"), [false, false, false], 10),
            // The prefill of the round was read before any of them.
            (Some("p7"), [true, true, true], 10),
        ] {
            let mut window = Window::new(3, after.map(id));
            assert_eq!(["l5", "l7", "l9"].map(|text| window.take(id(text))), sent, "{after:?}");
            assert_eq!((window.room(), window.from(Kind::Live)), (0, from), "{after:?}");
        }
    }

    #[test]
    fn what_was_read_before_is_not_taken_again_but_for_old_letters() {
        let mut window = Window::new(9, None);
        let live = |place| EventId { kind: Kind::Live, sequence: crate::delivery::live_number(place) };
        assert!(window.take(live(5)) && window.take(live(7)));
        window.removed(live(5), false);
        for (again, goes_out, out) in [
            (live(5), false, 1),
            (live(7), false, 1),
            (id("l40"), true, 2),
            (id("l40"), false, 2),
            (live(8), true, 3),
        ] {
            assert_eq!(window.take(again), goes_out, "{again}");
            assert_eq!(window.out(), out, "{again}");
        }
    }

    #[test]
    fn a_look_at_the_head_tells_what_is_removed() {
        for (head, out) in [(Some(5), 3), (Some(6), 2), (Some(9), 1), (Some(10), 0), (None, 0)] {
            let mut window = Window::new(3, None);
            for text in ["l5", "l7", "l9"] {
                window.take(id(text));
            }
            window.head(Kind::Prefill, None);
            window.head(Kind::Live, head);
            assert_eq!(window.out(), out, "{head:?}");
            // It is not sent again, even if it is looked at again.
            assert_eq!(window.from(Kind::Live), 10);
        }
    }

    #[test]
    fn a_turn_ends_that_of_the_other_kind() {
        let mut window = Window::new(3, None);
        window.take(id("p5"));
        window.take(id("p6"));
        window.turn(Kind::Prefill, 6);
        assert_eq!(window.out(), 1);
        window.turn(Kind::Live, 2);
        assert_eq!(window.out(), 0);
        // Live messages may have lower numbers than the prefill before them.
        assert!(window.take(id("l2")));
    }

    #[test]
    fn what_comes_back_goes_out_again() {
        let mut window = Window::new(3, None);
        window.take(id("l5"));
        window.take(id("l6"));
        // Still out: not again.
        window.turn(Kind::Live, 5);
        assert_eq!(window.from(Kind::Live), 7);
        window.removed(id("l6"), true);
        window.turn(Kind::Live, 6);
        assert_eq!(window.from(Kind::Live), 6);
        assert!(window.take(id("l6")));
    }
}
