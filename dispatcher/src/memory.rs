//! Memory that waits with events, over all lanes: lanes share an event that several want.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Bytes of events that may wait in memory.
const BYTES_MAX: usize = 64 << 20;
/// Entries that may wait in all mailboxes together.
const ENTRIES_MAX: usize = 250_000;
/// Entries that may wait in one mailbox, however many there are.
const ENTRIES_MIN: usize = 64;

/// The bytes of events that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<AtomicUsize>);

/// An event that waits.
struct Kept {
    payload: Box<[u8]>,
    memory: Memory,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.payload.len(), Ordering::Relaxed);
    }
}

impl Memory {
    /// A copy of its own, counted until nobody has it any more: what came is a part of a large buffer, which a lane that
    /// waits would keep as a whole.
    pub(crate) fn keep(&self, payload: &[u8]) -> Bytes {
        self.0.fetch_add(payload.len(), Ordering::Relaxed);
        Bytes::from_owner(Kept { payload: payload.into(), memory: self.clone() })
    }

    /// Is it too much? Until half of it is gone.
    pub(crate) fn is_full(&self, was: bool) -> bool {
        self.0.load(Ordering::Relaxed) > if was { BYTES_MAX / 2 } else { BYTES_MAX }
    }
}

/// Entries that may wait in each of so many mailboxes, and at most `most`.
pub(crate) fn share(lanes: usize, most: usize) -> usize {
    most.min((ENTRIES_MAX / lanes.max(1)).max(ENTRIES_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_counted_once_and_until_nobody_has_it() {
        let memory = Memory::default();
        let event = memory.keep(&vec![1; BYTES_MAX / 2 + 1]);
        let other = event.clone();
        assert!(!memory.is_full(false) && memory.is_full(true));
        let more = memory.keep(&vec![2; BYTES_MAX / 2]);
        assert!(memory.is_full(false));
        drop((more, event));
        assert!(memory.is_full(true), "somebody has it");
        assert_eq!(other.len(), BYTES_MAX / 2 + 1);
        drop(other);
        assert!(!memory.is_full(true));
    }

    #[test]
    fn many_lanes_hold_less_each() {
        for (lanes, most, each) in [
            (0, 5_000, 5_000),
            (50, 5_000, 5_000),
            (1_000, 5_000, 250),
            (1_000, 100, 100),
            (100_000, 5_000, 64),
        ] {
            assert_eq!(share(lanes, most), each, "{lanes} {most}");
        }
    }
}
