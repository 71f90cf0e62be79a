//! What the dispatcher tells of itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Why copies wait. These words are all that the label `reason` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The queue has as many live messages as it may have.
    Messages,
    /// It has as many bytes as it may have.
    Bytes,
    /// NATS refuses to store: a limit of its own, or the disk is full.
    Refused,
    /// NATS is away.
    Nats,
}

impl Wait {
    const ALL: [Self; 4] = [Self::Messages, Self::Bytes, Self::Refused, Self::Nats];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Refused => "refused",
            Self::Nats => "nats",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WaitLabel {
    reason: &'static str,
}

/// Figures of the dispatcher; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    ready: Arc<AtomicBool>,
    pub(crate) position: Gauge<u64, AtomicU64>,
    pub(crate) read: Gauge<u64, AtomicU64>,
    pub(crate) lanes: Gauge<u64, AtomicU64>,
    lanes_waiting: Family<WaitLabel, Gauge>,
    lanes_catching_up: Gauge,
    pub(crate) copies: Counter,
    pub(crate) not_selected: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) given_up: Counter,
    pub(crate) swept: Counter,
}

impl Metrics {
    /// Registers all figures.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            ready: _,
            position,
            read,
            lanes,
            lanes_waiting,
            lanes_catching_up,
            copies,
            not_selected,
            dead_letters,
            given_up,
            swept,
        } = &metrics;
        // All are there from the start, so that an alert on one of them works.
        for why in Wait::ALL {
            metrics.waiting(why);
        }
        registry.register(
            "headstart_dispatcher_position",
            "Sequence in the event log up to which every queue has its copies",
            position.clone(),
        );
        registry.register(
            "headstart_dispatcher_read",
            "Sequence in the event log up to which the dispatcher has read",
            read.clone(),
        );
        registry.register(
            "headstart_dispatcher_lanes",
            "Subscriptions that events are copied for",
            lanes.clone(),
        );
        registry.register(
            "headstart_dispatcher_lanes_waiting",
            "Subscriptions whose copies wait, by reason: the queue is at its limit (messages, bytes), NATS refuses to \
             store (refused), or it is away (nats)",
            lanes_waiting.clone(),
        );
        registry.register(
            "headstart_dispatcher_lanes_catching_up",
            "Subscriptions that have fallen behind and read the event log themselves",
            lanes_catching_up.clone(),
        );
        registry.register(
            "headstart_dispatcher_dead_letters",
            "Events that were set aside because NATS does not carry them any more",
            dead_letters.clone(),
        );
        registry.register(
            "headstart_dispatcher_queues_given_up",
            "Queues that were given up because they were full",
            given_up.clone(),
        );
        registry.register(
            "headstart_dispatcher_messages_swept",
            "Live messages that were removed because they waited longer than allowed",
            swept.clone(),
        );
        registry.register("headstart_dispatcher_copies", "Copies written to queues", copies.clone());
        registry.register(
            "headstart_dispatcher_not_selected",
            "Events of a subscription's topics that its selection leaves out",
            not_selected.clone(),
        );
        metrics
    }

    /// Is the dispatcher reading the log?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Lanes that wait for this reason.
    pub(crate) fn waiting(&self, why: Wait) -> Gauge {
        self.lanes_waiting.get_or_create(&WaitLabel { reason: why.as_str() }).clone()
    }

    /// Counts a lane as catching up until the answer is dropped.
    pub(crate) fn catching_up(&self) -> impl Drop + use<> {
        struct Counted(Gauge);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.lanes_catching_up.inc();
        Counted(self.lanes_catching_up.clone())
    }

    pub(crate) fn ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}
