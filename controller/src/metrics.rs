//! What the controller tells of itself in figures. Labels are words from exhaustive matches, never free text.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use model::{PrefillState, Reason, Subscription, SubscriptionName, prefill::Progress};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// A loop that has not turned for so long does not turn any more: it does at least every 20 s.
const STUCK: Duration = Duration::from_secs(60);

/// Figures of the controller; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    ready: Arc<AtomicBool>,
    /// When the loop turned last; `None` while it does not run.
    turned: Arc<Mutex<Option<Instant>>>,
    counted: Arc<Mutex<HashSet<ByReason>>>,
    prefills: Family<ByState, Gauge>,
    with_reason: Family<ByReason, Gauge>,
    changes: Family<Change, Counter>,
    /// Of the prefills that run.
    progress: Arc<Mutex<HashMap<SubscriptionName, Progress>>>,
    objects_written: Gauge,
    objects_known: Gauge,
    objects_per_second: Gauge<f64, AtomicU64>,
    leads: Gauge,
    pub(crate) jobs_running: Gauge,
    pub(crate) jobs_running_limit: Gauge,
    pub(crate) jobs_waiting: Gauge,
    pub(crate) jobs_admitted: Counter,
    jobs_deleted: Family<ByWhy, Counter>,
    errors: Family<ByPart, Counter>,
    pub(crate) pass_seconds: Histogram,
    pub(crate) watch_interruptions: Counter,
    pub(crate) markers_resent: Counter,
    pub(crate) tasks_resent: Counter,
    pub(crate) removals_finished: Counter,
    pub(crate) registrations_rolled_back: Counter,
    pub(crate) orphans_removed: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    state: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Change {
    state: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWhy {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPart {
    part: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            ready: Arc::default(),
            turned: Arc::default(),
            counted: Arc::default(),
            prefills: Family::default(),
            with_reason: Family::default(),
            changes: Family::default(),
            progress: Arc::default(),
            objects_written: Gauge::default(),
            objects_known: Gauge::default(),
            objects_per_second: Gauge::default(),
            leads: Gauge::default(),
            jobs_running: Gauge::default(),
            jobs_running_limit: Gauge::default(),
            jobs_waiting: Gauge::default(),
            jobs_admitted: Counter::default(),
            jobs_deleted: Family::default(),
            errors: Family::default(),
            // A pass takes some milliseconds; 10 s is the limit of one call.
            pass_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            watch_interruptions: Counter::default(),
            markers_resent: Counter::default(),
            tasks_resent: Counter::default(),
            removals_finished: Counter::default(),
            registrations_rolled_back: Counter::default(),
            orphans_removed: Counter::default(),
        }
    }
}

impl Metrics {
    /// Registers all figures. Taken apart field by field, so that a forgotten one does not compile.
    #[must_use]
    #[rustfmt::skip] // a table
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            ready: _, turned: _, counted: _, progress: _, objects_written, objects_known, objects_per_second, leads, prefills, with_reason, changes, jobs_running, jobs_running_limit, jobs_waiting, jobs_admitted,
            jobs_deleted, errors, pass_seconds, watch_interruptions, markers_resent, tasks_resent, removals_finished,
            registrations_rolled_back, orphans_removed,
        } = metrics.clone();
        registry.register("headstart_controller_leads", "1 while this controller holds the lease", leads);
        registry.register("headstart_prefills", "Subscriptions by the state of their prefill", prefills);
        registry.register("headstart_prefills_with_reason", "Subscriptions whose prefill waits, has failed, or is done and lacks something, by reason", with_reason);
        registry.register("headstart_prefill_changes", "Changes of a prefill's state or reason", changes);
        registry.register("headstart_prefill_objects_written", "Objects that the prefills that run have written", objects_written);
        registry.register("headstart_prefill_objects_known", "Objects that the prefills that run have listed", objects_known);
        registry.register("headstart_prefill_objects_per_second", "Objects that the prefills that run write a second, of late", objects_per_second);
        registry.register("headstart_prefill_jobs_running", "Prefill Jobs that have a place", jobs_running);
        registry.register("headstart_prefill_jobs_running_limit", "Prefill Jobs that may have a place", jobs_running_limit);
        registry.register("headstart_prefill_jobs_waiting", "Prefill Jobs that wait for a place", jobs_waiting);
        registry.register("headstart_prefill_jobs_admitted", "Prefill Jobs that were given a place", jobs_admitted);
        registry.register("headstart_prefill_jobs_deleted", "Prefill Jobs that were deleted, by why", jobs_deleted);
        registry.register("headstart_controller_errors", "Looks at a subscription that failed, by the part that failed", errors);
        registry.register("headstart_controller_pass_duration_seconds", "Duration of a look at a subscription with its actions", pass_seconds);
        registry.register("headstart_controller_watch_interruptions", "Times that a watch of Jobs or Pods broke off", watch_interruptions);
        registry.register("headstart_sweep_markers", "Markers sent again because their round had no boundary", markers_resent);
        registry.register("headstart_sweep_tasks", "Tasks queued again because they were missing", tasks_resent);
        registry.register("headstart_sweep_removals", "Interrupted removals that were completed", removals_finished);
        registry.register("headstart_sweep_rollbacks", "Interrupted registrations that were rolled back", registrations_rolled_back);
        registry.register("headstart_sweep_orphans", "Queues that no subscription owned and that were removed", orphans_removed);
        metrics
    }

    /// Have Jobs, Pods and subscriptions been listed once, or does another controller lead?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Does this controller hold the lease?
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leads.get() == 1
    }

    /// Does its loop turn? Always true for one that has none: it waits for the lease, or there are no Jobs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let turned = *self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        turned.is_none_or(|at| at.elapsed() < STUCK)
    }

    pub(crate) fn turned(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(crate) fn stopped(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    pub(crate) fn ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn changed(&self, state: PrefillState, reason: Option<Reason>) {
        let reason = reason.map_or("", Reason::as_str);
        self.changes.get_or_create(&Change { state: state.as_str(), reason }).inc();
    }

    pub(crate) fn deleted(&self, why: crate::decide::Deletion) {
        self.jobs_deleted.get_or_create(&ByWhy { why: why.as_str() }).inc();
    }

    pub(crate) fn failed(&self, error: &crate::Error) {
        self.errors.get_or_create(&ByPart { part: error.part() }).inc();
    }

    #[cfg(test)]
    pub(crate) fn with_state(&self, state: &'static str) -> i64 {
        self.prefills.get_or_create(&ByState { state }).get()
    }

    #[cfg(test)]
    pub(crate) fn panics(&self) -> u64 {
        self.errors.get_or_create(&ByPart { part: "panic" }).get()
    }

    /// Notes how far a prefill is; `None` if none runs.
    pub(crate) fn progress(&self, name: &SubscriptionName, progress: Option<&Progress>) {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => _ = all.insert(name.clone(), progress.clone()),
            None if all.remove(name).is_none() => return,
            None => {}
        }
        self.sum(&all);
    }

    /// Forgets how far all others are.
    pub(crate) fn keep_progress_of(&self, running: &HashSet<SubscriptionName>) {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, _| running.contains(name));
        self.sum(&all);
    }

    fn sum(&self, all: &HashMap<SubscriptionName, Progress>) {
        let sum =
            |of: fn(&Progress) -> u64| i64::try_from(all.values().map(of).sum::<u64>()).unwrap_or(i64::MAX);
        self.objects_written.set(sum(|p| p.done));
        self.objects_known.set(sum(|p| p.total.unwrap_or(0)));
        self.objects_per_second.set(all.values().map(|p| p.rate).sum());
    }

    /// Counts all subscriptions anew.
    pub(crate) fn count<'a>(&self, entries: impl Iterator<Item = &'a Subscription>) {
        use PrefillState::{Done, Failed, Pending, Running};
        let mut states = [Pending, Running, Failed, Done].map(|state| (state, 0));
        let mut reasons = HashMap::<ByReason, i64>::new();
        for entry in entries {
            for (state, count) in &mut states {
                *count += i64::from(*state == entry.prefill.state);
            }
            if let Some(reason) = entry.prefill.reason {
                let labels = ByReason { state: entry.prefill.state.as_str(), reason: reason.as_str() };
                *reasons.entry(labels).or_default() += 1;
            }
        }
        for (state, count) in states {
            self.prefills.get_or_create(&ByState { state: state.as_str() }).set(count);
        }
        // A series that goes on is never away for a moment: an alert on it would begin to wait from the start.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, count) in &reasons {
            self.with_reason.get_or_create(labels).set(*count);
        }
        for gone in counted.iter().filter(|labels| !reasons.contains_key(*labels)) {
            self.with_reason.remove(gone);
        }
        *counted = reasons.into_keys().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_with_their_labels() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.changed(PrefillState::Failed, Some(Reason::ImagePull));
        metrics.deleted(crate::decide::Deletion::Unwanted);
        metrics.count(std::iter::empty());
        let progress = |done| Progress {
            done,
            total: Some(9),
            rate: 1.5,
            ..Progress::new(model::Incarnation(uuid::Uuid::nil()), 1, model::prefill::Phase::Reading)
        };
        let names = ["a", "b", "c"].map(|name| name.parse::<SubscriptionName>().unwrap());
        names.iter().for_each(|name| metrics.progress(name, Some(&progress(2))));
        metrics.progress(&names[0], Some(&progress(4)));
        metrics.progress(&names[1], None);
        let world = crate::decide::world::World::new();
        let failed = world.clone().state(PrefillState::Failed, Some(Reason::ImagePull));
        let queued = world.clone().state(PrefillState::Pending, Some(Reason::Queued));
        metrics.count([failed.entry(), failed.entry(), queued.entry()].into_iter());
        metrics.count([failed.entry(), world.entry()].into_iter());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"headstart_prefill_changes_total{state="failed",reason="ImagePull"} 1"#,
            r#"headstart_prefill_jobs_deleted_total{why="unwanted"} 1"#,
            r#"headstart_prefills{state="running"} 0"#,
            r#"headstart_prefills{state="pending"} 1"#,
            r#"headstart_prefills_with_reason{state="failed",reason="ImagePull"} 1"#,
            "headstart_prefill_objects_written 6",
            "headstart_prefill_objects_known 18",
            "headstart_prefill_objects_per_second 3.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("Queued"), "nothing is queued any more:\n{text}");
    }
    #[test]
    fn the_reference_of_metrics_is_that_of_the_code() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let _storage = crate::StorageMetrics::register(&mut registry, None);
        let _ages = crate::QueueAges::register(&mut registry);
        metrics.changed(PrefillState::Failed, Some(Reason::ImagePull));
        metrics.deleted(crate::decide::Deletion::Unwanted);
        metrics.failed(&crate::Error::Stuck);
        let failed = crate::decide::world::World::new().state(PrefillState::Failed, Some(Reason::ImagePull));
        metrics.count([failed.entry()].into_iter());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        reference::keep("metrics.md", "controller", &reference::metrics(&text, &registry));
    }
}
