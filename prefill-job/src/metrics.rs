//! What a worker tells of itself in figures. A Job's pod is not there long enough: the controller tells of those.

use model::prefill::Phase;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::watch;

use crate::{outcome::Outcome, progress::Told};

/// Figures of a worker; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    attempts: Family<ByOutcome, Counter>,
    running: Gauge,
    written: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

impl Metrics {
    /// Registers all figures. Taken apart field by field, so that a forgotten one does not compile.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { attempts, running, written } = metrics.clone();
        registry.register("headstart_worker_attempts", "Attempts that ended, by how", attempts);
        registry.register("headstart_worker_attempts_running", "Attempts that run", running);
        registry.register("headstart_worker_objects_written", "Objects that were written to queues", written);
        metrics
    }

    /// Counts an attempt as running, and what it writes, until what is answered is dropped.
    pub(crate) fn attempt(&self) -> (Told, impl Drop + use<>) {
        struct Running(Gauge);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.running.inc();
        let (told, mut hears) = watch::channel(None::<model::prefill::Progress>);
        let written = self.written.clone();
        tokio::spawn(async move {
            let mut before = 0;
            while hears.changed().await.is_ok() {
                if let Some(progress) =
                    hears.borrow_and_update().as_ref().filter(|p| p.phase != Phase::Waiting)
                {
                    written.inc_by(progress.done.saturating_sub(before));
                    before = progress.done;
                }
            }
        });
        (told, Running(self.running.clone()))
    }

    /// `paused`: it was not complete when its prefill was paused, which is no failure.
    pub(crate) fn ended(&self, outcome: &Outcome, paused: bool) {
        let outcome = match outcome {
            _ if paused => "paused",
            Outcome::Done(_) => "done",
            Outcome::Held(_) => "held",
            Outcome::Obsolete => "obsolete",
            Outcome::Cancelled => "cancelled",
            Outcome::Failed(failure) if failure.code.is_permanent() => "failed",
            Outcome::Failed(_) => "broken-off",
        };
        self.attempts.get_or_create(&ByOutcome { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_of_metrics_is_that_of_the_code() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.ended(&Outcome::Obsolete, false);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        reference::keep("metrics.md", "worker", &reference::metrics(&text, &registry));
    }
}
