//! How far the position may move: over what every lane has done.

use std::collections::{HashMap, VecDeque};

use model::Incarnation;

/// What was read, and what of it still waits in a lane.
#[derive(Debug)]
pub(crate) struct Tracker {
    read: u64,
    /// By lane: sequences that were handed to it and are not done, in order, with their size in bytes.
    waiting: HashMap<Incarnation, VecDeque<(u64, usize)>>,
    bytes: usize,
}

impl Tracker {
    pub(crate) fn new(position: u64) -> Self {
        Self { read: position, waiting: HashMap::new(), bytes: 0 }
    }

    /// Sequence of the entry that must come next.
    pub(crate) fn next(&self) -> u64 {
        self.read + 1
    }

    /// Last sequence that was read.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// The next entry was read.
    pub(crate) fn read_one(&mut self) {
        self.read += 1;
    }

    /// The entry just read was handed to a lane.
    pub(crate) fn handed(&mut self, lane: Incarnation, size: usize) {
        self.waiting.entry(lane).or_default().push_back((self.read, size));
        self.bytes += size;
    }

    /// A lane has done everything up to a sequence.
    pub(crate) fn done(&mut self, lane: Incarnation, through: u64) {
        let Some(waiting) = self.waiting.get_mut(&lane) else { return };
        while let Some((sequence, size)) = waiting.front().copied()
            && sequence <= through
        {
            waiting.pop_front();
            self.bytes -= size;
        }
    }

    /// A lane has ended: nothing waits for it.
    pub(crate) fn ended(&mut self, lane: Incarnation) {
        for (_, size) in self.waiting.remove(&lane).unwrap_or_default() {
            self.bytes -= size;
        }
    }

    /// The last sequence that everybody has done.
    pub(crate) fn position(&self) -> u64 {
        let oldest = self.waiting.values().filter_map(|w| w.front()).map(|(sequence, _)| *sequence).min();
        oldest.map_or(self.read, |oldest| oldest - 1)
    }

    /// Bytes that wait, counted once for each lane.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_position_stops_before_the_oldest_that_waits() {
        let (a, b) = (Incarnation(Uuid::from_u128(1)), Incarnation(Uuid::from_u128(2)));
        let mut t = Tracker::new(10);
        assert_eq!((t.next(), t.position()), (11, 10));
        t.read_one();
        t.handed(a, 5);
        t.handed(b, 5);
        t.read_one();
        t.handed(b, 7);
        t.read_one();
        assert_eq!((t.read(), t.position(), t.bytes()), (13, 10, 17));
        t.done(b, 12);
        assert_eq!((t.position(), t.bytes()), (10, 5));
        t.done(a, 11);
        assert_eq!((t.position(), t.bytes()), (13, 0));
        t.read_one();
        t.handed(a, 3);
        assert_eq!(t.position(), 13);
        t.ended(a);
        assert_eq!((t.position(), t.bytes()), (14, 0));
    }
}
