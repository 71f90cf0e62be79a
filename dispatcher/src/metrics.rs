//! What the dispatcher tells of itself.

use std::sync::{Arc, PoisonError, RwLock, atomic::AtomicU64};

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
    /// The queue is not found although its subscription is ready.
    Missing,
    /// What is stored of it can't be read or used: something else has written it, or a newer version.
    Unreadable,
    /// A fault of ours.
    Panic,
}

impl Wait {
    const ALL: [Self; 7] = [
        Self::Messages,
        Self::Bytes,
        Self::Refused,
        Self::Nats,
        Self::Missing,
        Self::Unreadable,
        Self::Panic,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Refused => "refused",
            Self::Nats => "nats",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Panic => "panic",
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
    /// Why the log is not being read; `None`: it is.
    stopped: Arc<RwLock<Option<String>>>,
    running: Gauge,
    pub(crate) log_last: Gauge<u64, AtomicU64>,
    pub(crate) position: Gauge<u64, AtomicU64>,
    pub(crate) read: Gauge<u64, AtomicU64>,
    pub(crate) lanes: Gauge<u64, AtomicU64>,
    lanes_waiting: Family<WaitLabel, Gauge>,
    lanes_catching_up: Gauge,
    pub(crate) copies: Counter,
    pub(crate) not_selected: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) given_up: Counter,
    pub(crate) lost: Counter,
    pub(crate) panics: Counter,
    pub(crate) swept: Counter,
}

impl Metrics {
    /// Registers all figures.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            stopped: _,
            running,
            log_last,
            position,
            read,
            lanes,
            lanes_waiting,
            lanes_catching_up,
            copies,
            not_selected,
            dead_letters,
            given_up,
            lost,
            panics,
            swept,
        } = &metrics;
        // All are there from the start, so that an alert on one of them works.
        for why in Wait::ALL {
            metrics.waiting(why);
        }
        registry.register(
            "headstart_dispatcher_running",
            "Is the event log being read? 1: yes, 0: no, /readyz says why",
            running.clone(),
        );
        registry.register(
            "headstart_log_last",
            "Sequence of the last entry of the event log",
            log_last.clone(),
        );
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
             store (refused), NATS is unavailable (nats), the queue is not found (missing), what is stored of it can't be \
             read (unreadable), or a fault of the dispatcher (panic)",
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
            "headstart_dispatcher_queues_lost",
            "Queues that were not found: their subscriptions are broken",
            lost.clone(),
        );
        registry.register(
            "headstart_dispatcher_panics",
            "Faults of the dispatcher that ended the work on one queue for a moment, or one sweep",
            panics.clone(),
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

    /// Why the event log is not being read; `None`: it is.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        match self.running.get() {
            0 => {
                let why = self.stopped.read().unwrap_or_else(PoisonError::into_inner).clone();
                Some(why.unwrap_or_else(|| "dispatching has not begun".to_owned()))
            }
            _ => None,
        }
    }

    /// Lanes that wait for this reason.
    fn waiting(&self, why: Wait) -> Gauge {
        self.lanes_waiting.get_or_create(&WaitLabel { reason: why.as_str() }).clone()
    }

    /// Counts a lane as waiting until the answer is dropped.
    pub(crate) fn count_waiting(&self, why: Wait) -> Counted {
        Counted::new(self.waiting(why))
    }

    /// Counts a lane as catching up until the answer is dropped.
    pub(crate) fn count_catching_up(&self) -> Counted {
        Counted::new(self.lanes_catching_up.clone())
    }

    /// The event log is being read.
    pub(crate) fn runs(&self) {
        self.running.set(1);
    }

    /// It is not, for this reason.
    pub(crate) fn stops(&self, why: impl Into<String>) {
        *self.stopped.write().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
        self.running.set(0);
    }
}

/// One more on a gauge, until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_of_metrics_is_that_of_the_code() {
        let mut registry = Registry::default();
        let _metrics = Metrics::register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        reference::keep("metrics.md", "dispatcher", &reference::metrics(&text, &registry));
    }
}
