//! What the dispatcher tells of itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Figures of the dispatcher; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    ready: Arc<AtomicBool>,
    pub(crate) position: Gauge<u64, AtomicU64>,
    pub(crate) read: Gauge<u64, AtomicU64>,
    pub(crate) lanes: Gauge<u64, AtomicU64>,
    pub(crate) lanes_waiting: Gauge,
    pub(crate) copies: Counter,
    pub(crate) dead_letters: Counter,
}

impl Metrics {
    /// Registers all figures.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { ready: _, position, read, lanes, lanes_waiting, copies, dead_letters } = &metrics;
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
            "Subscriptions whose queue refuses copies at the moment: full, or NATS is away",
            lanes_waiting.clone(),
        );
        registry.register(
            "headstart_dispatcher_dead_letters",
            "Events that were set aside because NATS does not carry them any more",
            dead_letters.clone(),
        );
        registry.register("headstart_dispatcher_copies", "Copies written to queues", copies.clone());
        metrics
    }

    /// Is the dispatcher reading the log?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}
