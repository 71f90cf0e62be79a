//! Limits of queues, as the operator sets them, and what a queue has room for.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What a message needs beside its payload, in bytes: headers and the stream's own record. An estimate.
const OVERHEAD: u64 = 300;

/// How much a queue may hold, and what happens then. The same for all subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Most live messages, and most messages of a prefill.
    pub messages: u64,
    /// Most bytes of the whole queue, prefill included. Checked before copies are written and not by NATS, so it may
    /// be passed by a batch of copies (about 4 MiB), and a prefill passes it freely.
    pub bytes: Option<u64>,
    /// Longest time that a live message waits for its consumer, from its copy on; then it is removed.
    pub age: Option<Duration>,
    /// What happens at a limit of messages or bytes.
    pub when_full: WhenFull,
}

impl Default for QueueLimits {
    /// Ten million messages of each kind; events wait.
    fn default() -> Self {
        Self { messages: 10_000_000, bytes: None, age: None, when_full: WhenFull::Wait }
    }
}

/// What happens when a queue is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Its events wait in the event log, which therefore grows.
    Wait,
    /// The queue is given up: its subscription is broken, and must be removed and registered again.
    GiveUp,
}

/// The limit that a queue has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// That of live messages.
    Messages,
    /// That of bytes.
    Bytes,
    /// A word of a newer version, which an older one reads as this.
    #[serde(other)]
    Unknown,
}

impl Limit {
    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Unknown => "unknown",
        }
    }
}

/// A queue that was given up, because its consumer did not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GivenUp {
    /// When.
    pub at: Timestamp,
    /// The limit that was reached.
    pub limit: Limit,
    /// Live messages that were lost with it.
    pub live: u64,
    /// Messages of the prefill that were lost with it.
    pub prefill: u64,
}

/// A queue that was not found although its subscription is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// When that was recorded.
    pub at: Timestamp,
    /// Number in the event log of the first event that it may have missed.
    pub incoming_seq: u64,
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueUse {
    /// Live messages.
    pub live: u64,
    /// Messages of the prefill.
    pub prefill: u64,
    /// Bytes of all of it.
    pub bytes: u64,
    /// Most messages of a kind that the stream itself takes.
    pub stream_limit: Option<u64>,
}

impl QueueLimits {
    /// Most messages of each kind: what is configured, or what the stream was made for.
    #[must_use]
    pub fn messages_of(&self, held: &QueueUse) -> u64 {
        held.stream_limit.map_or(self.messages, |limit| limit.min(self.messages))
    }

    /// What there is room for, or the limit that is reached.
    ///
    /// # Errors
    /// The limit.
    pub fn room(&self, held: &QueueUse) -> Result<Room, Limit> {
        let messages = self.messages_of(held).saturating_sub(held.live);
        let bytes = self.bytes.map_or(u64::MAX, |limit| limit.saturating_sub(held.bytes));
        match (messages, bytes) {
            (0, _) => Err(Limit::Messages),
            (_, 0) => Err(Limit::Bytes),
            _ => Ok(Room { messages, bytes }),
        }
    }

    /// Is one of the limits reached, of live messages or of the prefill?
    #[must_use]
    pub fn is_full(&self, held: &QueueUse) -> bool {
        self.room(held).is_err() || held.prefill >= self.messages_of(held)
    }
}

/// What a queue certainly has room for, as of the last look: acknowledgements only make it larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    messages: u64,
    bytes: u64,
}

impl Room {
    /// How many of these payloads fit, by their sizes in bytes. As long as there is any room one does: else a payload
    /// that is larger than the whole limit would stop a queue for ever.
    #[must_use]
    pub fn fitting(&self, sizes: impl Iterator<Item = usize>) -> usize {
        let mut rest = *self;
        sizes
            .take_while(|size| {
                let fits = rest.messages > 0 && rest.bytes > 0;
                rest.use_for(*size);
                fits
            })
            .count()
    }

    /// A payload of that many bytes was written.
    pub fn use_for(&mut self, size: usize) {
        self.messages = self.messages.saturating_sub(1);
        // Without a limit of bytes it stays what it is.
        if self.bytes < u64::MAX {
            self.bytes = self.bytes.saturating_sub(size as u64 + OVERHEAD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(live: u64, bytes: u64) -> QueueUse {
        QueueUse { live, bytes, prefill: 7, stream_limit: None }
    }

    #[test]
    fn the_room_that_is_left() {
        let plain = QueueLimits { messages: 10, ..QueueLimits::default() };
        let both = QueueLimits { bytes: Some(1000), ..plain };
        let of = |messages, bytes| Ok(Room { messages, bytes });
        for (limits, held, expected) in [
            (plain, held(0, 0), of(10, u64::MAX)),
            (plain, held(9, 1 << 40), of(1, u64::MAX)),
            (plain, held(10, 0), Err(Limit::Messages)),
            (plain, held(11, 0), Err(Limit::Messages)),
            (both, held(4, 999), of(6, 1)),
            (both, held(4, 1000), Err(Limit::Bytes)),
            (both, held(10, 1000), Err(Limit::Messages)),
            (plain, QueueUse { stream_limit: Some(5), ..held(4, 0) }, of(1, u64::MAX)),
            (plain, QueueUse { stream_limit: Some(50), ..held(4, 0) }, of(6, u64::MAX)),
        ] {
            assert_eq!(limits.room(&held), expected, "{limits:?} {held:?}");
        }
        assert!(!plain.is_full(&held(9, 0)) && plain.is_full(&held(10, 0)));
        assert!(plain.is_full(&QueueUse { prefill: 10, ..held(0, 0) }));
    }

    #[test]
    fn what_fits() {
        for (messages, bytes, sizes, expected) in [
            (0, u64::MAX, &[1, 1][..], 0),
            (1, u64::MAX, &[1, 1], 1),
            (9, u64::MAX, &[1 << 30, 1], 2),
            (9, 1, &[1 << 30, 1], 1),
            (9, OVERHEAD + 2, &[1, 1, 1], 2),
            (9, 0, &[1], 0),
        ] {
            assert_eq!(
                Room { messages, bytes }.fitting(sizes.iter().copied()),
                expected,
                "{messages} {bytes}"
            );
        }
    }
}
