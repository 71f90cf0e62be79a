//! What needs no Kubernetes: whatever died half-way is finished after a while.
//!
//! * A round without a boundary: its marker is sent again. Sending it twice is harmless.
//! * A removal that died: it is finished.
//! * A registration that died: nobody has got a 201 for it, so it is rolled back. A client that sends the request
//!   again completes it instead.
//! * Progress of a subscription that is gone: it is removed.
//! * Streams and dead letters that no entry names: they are removed, since they may hold personal data.
//! * A prefill whose task is not in the queue (with workers only): it is queued again.
//!
//! Ages count from our first sight on the monotonic clock, and several sweeps at once do no harm.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use broker::{Broker, Modified, Orphan, RegistryView};
use model::{
    Incarnation, PrefillState, Subscription, SubscriptionName, error_chain, prefill::PrefillTask,
    subscription::Lifecycle,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Error, error::caught, metrics::Metrics, observed::Moment};
use leftovers::Leftovers;

mod leftovers;

/// When the sweep steps in.
#[derive(Clone, Copy, Debug)]
pub struct SweepConfig {
    /// How often it looks.
    pub every: Duration,
    /// How long a round may be without a boundary before its marker is sent again; then twice as long each time, up to
    /// [`marker_every_max`](Self::marker_every_max).
    pub marker_after: Duration,
    /// Longest time between two markers of one round: a dispatcher that is away must not fill the log with them.
    pub marker_every_max: Duration,
    /// How long a removal may take before it is finished.
    pub deleting_grace: Duration,
    /// How long a registration may take before it is rolled back.
    pub registering_grace: Duration,
    /// How long after a removal its pod may still write progress.
    pub progress_grace: Duration,
    /// How often it looks for streams and dead letters that no entry names; what it sees twice it removes.
    pub orphans_every: Duration,
    /// How long a prefill may be without its task in the queue before it is queued again; `None`: prefills are Jobs.
    pub task_after: Option<Duration>,
}

impl Default for SweepConfig {
    /// A marker after 5 s, at most every 5 min; removals are finished after 30 s, registrations rolled back after
    /// 10 min; progress goes after twice the grace period of a pod; no tasks.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
            marker_after: Duration::from_secs(5),
            marker_every_max: Duration::from_secs(300),
            deleting_grace: Duration::from_secs(30),
            registering_grace: Duration::from_secs(600),
            progress_grace: Duration::from_secs(60),
            orphans_every: Duration::from_secs(600),
            task_after: None,
        }
    }
}

/// What is to be done about a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chore {
    /// Send the marker of its round again.
    Marker,
    /// Finish its removal.
    FinishRemoval,
    /// Roll its registration back.
    RollBack,
    /// Queue its task again.
    Task,
}

/// What lacks something, for how long, and how often we have done something about it.
#[derive(Clone, Copy, Debug)]
struct Lack {
    due: Moment,
    pause: Duration,
}

/// First sights of what lacks something.
#[derive(Debug, Default)]
pub struct Sightings(HashMap<(SubscriptionName, Incarnation, u32, Chore), Lack>);

/// What a subscription may lack, and after which time something is done about it.
fn chore_of(entry: &Subscription, config: &SweepConfig) -> Option<(Chore, Duration)> {
    match entry.lifecycle {
        Lifecycle::Deleting => Some((Chore::FinishRemoval, config.deleting_grace)),
        Lifecycle::Registering => Some((Chore::RollBack, config.registering_grace)),
        // Its queue is gone: nothing can be done but to remove it.
        Lifecycle::Ready if entry.is_broken() => None,
        // The marker activates a queue without a prefill (round 0), too. A subscription that is not ready gets none:
        // its queue may not exist yet.
        Lifecycle::Ready if entry.prefill.boundary.is_none() => Some((Chore::Marker, config.marker_after)),
        Lifecycle::Ready if needs_task(entry) => config.task_after.map(|after| (Chore::Task, after)),
        Lifecycle::Ready => None,
    }
}

/// Is a task of its prefill to be in the queue? What is paused has none.
fn needs_task(entry: &Subscription) -> bool {
    entry.lifecycle == Lifecycle::Ready && entry.awaits_prefill() && !entry.prefill.paused
}

/// What is due now. Pure but for the sightings.
pub fn due<'a>(
    entries: impl Iterator<Item = &'a Subscription>,
    sightings: &mut Sightings,
    config: &SweepConfig,
    now: Moment,
) -> Vec<(&'a Subscription, Chore)> {
    let mut still = HashMap::new();
    let mut due = vec![];
    for entry in entries {
        let Some((chore, after)) = chore_of(entry, config) else { continue };
        // The attempt, because a retry has a task of its own; it changes with every round, too.
        let key = (entry.name.clone(), entry.incarnation, entry.prefill.attempt, chore);
        let mut lack = sightings.0.remove(&key).unwrap_or(Lack { due: now + after, pause: after });
        if lack.due <= now {
            due.push((entry, chore));
            lack.pause = (lack.pause * 2).min(config.marker_every_max.max(after));
            lack.due = now + lack.pause;
        }
        still.insert(key, lack);
    }
    sightings.0 = still;
    due
}

/// Sweeps until `shutdown`, where prefills are no Jobs: then it is this that knows of all of them, and counts them.
pub async fn run(
    broker: Broker,
    view: RegistryView,
    config: SweepConfig,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let counting = count(broker.clone(), view.clone(), config.every, metrics.clone());
    tokio::select! {
        () = sweep(broker, view, config, metrics, shutdown) => {}
        () = counting => {}
    }
}

/// Counts the prefills of all subscriptions now and then.
async fn count(broker: Broker, view: RegistryView, every: Duration, metrics: Metrics) {
    view.synced().await;
    // Whoever sweeps is at work: there is no lease where there are no Jobs.
    metrics.leads(true);
    loop {
        let entries = view.all();
        metrics.count(entries.iter().map(|entry| &entry.value));
        let mut running = HashSet::new();
        for entry in entries.iter().filter(|entry| entry.value.prefill.state == PrefillState::Running) {
            let name = &entry.value.name;
            match broker.progress().get(name).await {
                Ok(progress) => {
                    let current = progress.filter(|progress| {
                        progress.incarnation == entry.value.incarnation
                            && progress.attempt == entry.value.prefill.attempt
                    });
                    metrics.progress(name, current.as_ref());
                }
                // The former figures are as good as any until NATS answers again.
                Err(error) => {
                    tracing::debug!(subscription = %name, error = error_chain(&error), "its progress is not known");
                }
            }
            running.insert(name.clone());
        }
        metrics.keep_progress_of(&running);
        tokio::time::sleep(every).await;
    }
}

pub(crate) async fn sweep(
    broker: Broker,
    view: RegistryView,
    config: SweepConfig,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let began = Instant::now();
    let mut sightings = Sightings::default();
    let mut orphans = Orphans { seen: HashSet::new(), next: config.orphans_every };
    let sweeping = async {
        view.synced().await;
        let grace = config.progress_grace;
        let former = Leftovers::of_former_lives(&broker, grace).await;
        let mut leftovers = former.unwrap_or_else(|error| {
            tracing::warn!(
                error = error_chain(&error),
                "progress of former subscriptions is left where it is"
            );
            Leftovers::default()
        });
        loop {
            let entries = view.all();
            let now = began.elapsed();
            leftovers.note(entries.iter().map(|entry| &entry.value), now, grace);
            for name in leftovers.take_due(now) {
                if let Err(error) = leftovers::clear(&broker, &name).await {
                    tracing::debug!(subscription = %name, error = error_chain(&error), "progress of a former {name} is left");
                    leftovers.put_back(name, now + grace);
                }
            }
            orphans.look(&broker, began.elapsed(), config.orphans_every, &metrics).await;
            let entries = entries.iter().map(|entry| &entry.value);
            for (entry, chore) in due(entries, &mut sightings, &config, began.elapsed()) {
                // One that goes wrong in whatever way costs none of the others.
                let performed = caught(perform(&broker, entry, chore, &metrics)).await;
                if let Err(error) = performed.and_then(|result| result.map_err(Error::from)) {
                    metrics.failed(&error);
                    tracing::warn!(
                        subscription = %entry.name,
                        incarnation = %entry.incarnation,
                        error = error_chain(&error),
                        "{} could not be swept; it is tried again",
                        entry.name
                    );
                }
            }
            tokio::time::sleep(config.every).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sweeping => {}
    }
}

/// What no entry named at the last look.
struct Orphans {
    seen: HashSet<Orphan>,
    next: Moment,
}

impl Orphans {
    async fn look(&mut self, broker: &Broker, now: Moment, every: Duration, metrics: &Metrics) {
        if now < self.next {
            return;
        }
        self.next = now + every;
        let found = match broker.orphans().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "what no subscription owns is looked for later");
                return;
            }
        };
        for orphan in found.iter().filter(|orphan| self.seen.contains(*orphan)) {
            match broker.remove_orphan(orphan).await {
                Ok(true) => {
                    metrics.orphans_removed.inc();
                    tracing::warn!(subscription = %orphan.name, "a queue that no subscription owns is removed");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    subscription = %orphan.name,
                    error = error_chain(&error),
                    "a queue that no subscription owns could not be removed; it is tried again"
                ),
            }
        }
        self.seen = found.into_iter().collect();
    }
}

async fn perform(
    broker: &Broker,
    entry: &Subscription,
    chore: Chore,
    metrics: &Metrics,
) -> Result<(), broker::Error> {
    let Subscription { name, incarnation, .. } = entry;
    match chore {
        Chore::Marker => {
            let incoming_seq = broker.events().marker(entry).await?;
            metrics.markers_resent.inc();
            tracing::info!(subscription = %name, %incarnation, incoming_seq, "the marker of {name} is sent again");
        }
        Chore::FinishRemoval => {
            broker.remove_subscription(name, *incarnation).await?;
            metrics.removals_finished.inc();
            tracing::info!(subscription = %name, %incarnation, "the removal of {name} died half-way and is finished");
        }
        Chore::RollBack => {
            // Conditional: a client may be completing it at this moment, and `ready` must not be taken back.
            let give_up = |current: &Subscription| {
                (current.lifecycle == Lifecycle::Registering)
                    .then(|| Subscription { lifecycle: Lifecycle::Deleting, ..current.clone() })
            };
            if let Modified::Changed(_) = broker.registry().modify(name, *incarnation, give_up).await? {
                broker.remove_subscription(name, *incarnation).await?;
                metrics.registrations_rolled_back.inc();
                tracing::warn!(subscription = %name, %incarnation, "the registration of {name} died half-way and is rolled back");
            }
        }
        Chore::Task => {
            let task = PrefillTask::of(entry);
            let current = broker.registry().subscription(name).await?;
            let wanted = current
                .is_some_and(|current| needs_task(&current.value) && PrefillTask::of(&current.value) == task);
            let tasks = broker.tasks();
            if wanted && !tasks.contains(&task).await? {
                tasks.submit(&task).await?;
                metrics.tasks_resent.inc();
                tracing::info!(subscription = %name, %incarnation, attempt = task.attempt, "the task of {name} was missing and is queued again");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
