//! Gathers what is true of one subscription: entry, Jobs and Pods from caches, and what a decision hangs on from
//! where it is kept.
//!
//! The order matters: Jobs first, then the fence. A pod seals before it exits, so whoever sees the end of the Job
//! first and reads the fence afterwards can't miss the seal.

mod job;
mod snapshot;
pub(crate) mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Broker, RegistryView};
use manifests::{Identity, labels};
use model::{
    PrefillState, Subscription, SubscriptionName,
    prefill::{PrefillTask, Progress},
    subscription::Lifecycle,
};

use crate::{
    Error,
    cluster::Cluster,
    decide::Rules,
    memory::Memory,
    observed::{FenceSeen, InputSeen, JobSeen, Late, Moment, Observed, Place, PodPhase, Sight},
    reason,
};
use job::{input_seen, is_owned_by, job_found, job_seen};
pub(crate) use snapshot::Snapshot;

/// What it takes to look.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) broker: Broker,
    pub(crate) view: RegistryView,
    pub(crate) cluster: Cluster,
    pub(crate) rules: Rules,
    pub(crate) memory: Arc<Mutex<Memory>>,
}

impl Observer {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gathers all that is true of a subscription.
    ///
    /// # Errors
    /// NATS or Kubernetes away: nothing is decided then.
    pub(crate) async fn look(
        &self,
        name: &SubscriptionName,
        snapshot: &Snapshot,
        now: Moment,
    ) -> Result<Observed, Error> {
        let mut observed = Observed {
            subscription: name.clone(),
            entry: self.view.get(name.as_str()).map(|entry| entry.value.clone()),
            fence: FenceSeen::NotRead,
            jobs: snapshot.jobs_of(name),
            place: Place::Taken,
            failed_since: None,
            progress: None,
            index: Default::default(),
        };
        if let Some(entry) = observed.entry.as_ref().filter(|entry| entry.prefill.attempt > 0) {
            observed.index = labels::index(self.cluster.instance(), &PrefillTask::of(entry));
        }
        self.see(&mut observed, now);
        observed.failed_since = self.memory().failed_since(name, observed.entry.as_ref(), now);
        let Some(entry) = observed.entry.clone().filter(has_open_prefill) else { return Ok(observed) };
        if entry.prefill.state != PrefillState::Failed {
            if may_be_out_of_date(&observed, &self.rules, now) {
                self.look_at_kubernetes(&mut observed, &entry).await?;
                self.see(&mut observed, now);
            }
            self.look_for_evidence(&mut observed, now).await?;
            self.see(&mut observed, now);
            self.look_for_a_place(&mut observed, &entry, snapshot, now).await?;
        }
        if depends_on_fence(&observed, &entry) {
            let fence = self.broker.queue(name, entry.incarnation).fence().await?;
            observed.fence =
                fence.map_or(FenceSeen::Missing, |fence| FenceSeen::Found(Box::new(fence.value)));
        }
        if entry.prefill.state == PrefillState::Running {
            observed.progress = self.progress(&entry).await?;
            note_lateness(&mut observed, &entry);
            self.see(&mut observed, now);
        }
        Ok(observed)
    }

    fn see(&self, observed: &mut Observed, now: Moment) {
        let mut memory = self.memory();
        for job in &mut observed.jobs {
            memory.see(observed.entry.as_ref(), job, now);
        }
    }

    async fn look_at_kubernetes(&self, observed: &mut Observed, entry: &Subscription) -> Result<(), Error> {
        let attempt = Identity::from(&PrefillTask::of(entry));
        let found = self.cluster.job(&attempt.job_name()).await?;
        let pods = match &found {
            Some(_) => self.cluster.pods_of(&entry.name).await?,
            None => vec![],
        };
        // One of the same name, of a time that NATS does not know any more, is found again.
        observed.jobs.retain(|job| !job.job.has_the_name_of(entry));
        let seen = found.as_ref().and_then(|job| {
            let uid = job.metadata.uid.as_deref().unwrap_or_default();
            job_found(&attempt, job, pods.iter().filter(|pod| is_owned_by(pod, uid)))
        });
        observed.jobs.extend(seen);
        Ok(())
    }

    /// Reads events, and looks at the ConfigMap, where a pod does not come up and does not say why itself: no pod at all
    /// (quota, admission), or one that waits for a volume.
    async fn look_for_evidence(&self, observed: &mut Observed, now: Moment) -> Result<(), Error> {
        let Some(entry) = observed.entry.clone() else { return Ok(()) };
        let settle = self.rules.settle;
        let silent = |job: &&mut JobSeen| {
            let lasts = job.since(Sight::Unstarted).is_some_and(|since| since + settle <= now);
            (lasts || (!job.suspended && job.waits_for_quota(&entry)))
                && !job.living_pods().any(|pod| matches!(pod.phase, PodPhase::Pending(Some(_))))
        };
        let Some(job) = observed.jobs.iter_mut().find(|job| job.is_of(&entry)).filter(silent) else {
            return Ok(());
        };
        let about = job.living_pods().last().map_or_else(|| job.job.uid.clone(), |pod| pod.uid.clone());
        let events = self.cluster.events_about(&about).await?;
        job.evidence = reason::of_events(&events);
        // Somebody may have deleted what the pod waits for.
        let found = self.cluster.config_map(&job.job.identity.job_name()).await?;
        job.input = input_seen(found.as_ref(), &PrefillTask::of(&entry), &job.job);
        Ok(())
    }

    /// Is it this Job's turn, and is its ConfigMap there?
    async fn look_for_a_place(
        &self,
        observed: &mut Observed,
        entry: &Subscription,
        snapshot: &Snapshot,
        now: Moment,
    ) -> Result<(), Error> {
        let Some(job) = observed.jobs.iter_mut().find(|job| job.is_of(entry)) else { return Ok(()) };
        let uid = job.job.uid.clone();
        if let Some(until) = self.memory().refused_until(&uid, now) {
            observed.place = Place::Refused { until };
            return Ok(());
        }
        let turn = snapshot.is_turn_of(&uid);
        // One whose ConfigMap was not right is out of the queue until it is: it is looked at now and then.
        if !turn && !self.memory().is_unfit(&uid) {
            return Ok(());
        }
        let task = PrefillTask::of(entry);
        let found = self.cluster.config_map(&job.job.identity.job_name()).await?;
        job.input = input_seen(found.as_ref(), &task, &job.job);
        let unfit = job.input != InputSeen::Ours;
        self.memory().set_unfit(&uid, unfit);
        if turn || unfit {
            observed.place = Place::Free;
        }
        Ok(())
    }

    async fn progress(&self, entry: &Subscription) -> Result<Option<Progress>, Error> {
        let progress = self.broker.progress().get(&entry.name).await?;
        let ours = |p: &Progress| p.incarnation == entry.incarnation && p.attempt == entry.prefill.attempt;
        Ok(progress.filter(ours))
    }
}

fn note_lateness(observed: &mut Observed, entry: &Subscription) {
    let job = observed.jobs.iter_mut().find(|job| job.is_of(entry));
    if let (Some(progress), Some(job)) = (&observed.progress, job) {
        let now = jiff::Timestamp::now().as_second();
        job.late = job.ends_at.and_then(|ends_at| Late::of(progress, ends_at, now));
    }
}

/// A prefill that is not done, of a subscription that is in use.
fn has_open_prefill(entry: &Subscription) -> bool {
    entry.lifecycle == Lifecycle::Ready
        && entry.prefill.attempt > 0
        && entry.prefill.state != PrefillState::Done
}

/// A Job that the cache does not know, and one that is about to be given up, are looked up: a cache may be behind, or cut
/// off from the API server without knowing.
fn may_be_out_of_date(observed: &Observed, rules: &Rules, now: Moment) -> bool {
    let Some(job) = observed.current_job() else { return true };
    let due = |sight, after| job.since(sight).is_some_and(|since| since + after <= now);
    due(Sight::Unstarted, rules.start_deadline) || due(Sight::Stuck, rules.stuck_after)
}

/// While a Job waits for its turn, nothing has been written under its attempt.
fn depends_on_fence(observed: &Observed, entry: &Subscription) -> bool {
    let queued = observed.current_job().is_some_and(|job| job.suspended && !job.admitted);
    entry.prefill.state != PrefillState::Pending || !queued || observed.place == Place::Free
}

#[cfg(test)]
mod tests {
    use model::Reason;

    use super::*;
    use crate::{
        decide::world::World,
        observed::{Fate, PodPhase},
    };

    #[test]
    fn the_fence_is_read_whenever_something_may_have_been_written() {
        use PrefillState::{Failed, Pending, Running};
        let queued = || World::new().job().no_place();
        for (world, expected) in [
            (queued(), false),
            (queued().state(Pending, Some(Reason::Queued)), false),
            (World::new().job(), true),
            (World::new(), true),
            (World::new().admitted().no_place(), true),
            (queued().state(Running, None), true),
            (queued().state(Failed, Some(Reason::ImagePull)), true),
            (queued().with_job(|job| job.admitted = true), true),
            (queued().fate(Fate::Complete).with_job(|job| job.suspended = false), true),
        ] {
            assert_eq!(depends_on_fence(&world.observed, world.entry()), expected, "{:?}", world.observed);
        }
    }

    #[test]
    fn what_is_absent_or_about_to_be_given_up_is_looked_up() {
        let seen = |world: World, after| {
            let mut world = world.after(after);
            world.decide();
            world
        };
        let lost = || World::new().admitted().pod(PodPhase::Running).terminating();
        for (world, expected) in [
            (seen(World::new(), 0), true),
            (seen(World::new().attempt(2).job(), 0), true),
            (seen(World::new().job(), 99_999), false),
            (seen(World::new().admitted(), 299), false),
            (seen(World::new().admitted(), 300), true),
            (seen(World::new().admitted().pod(PodPhase::Running), 99_999), false),
            (seen(lost(), 119), false),
            (seen(lost(), 120), true),
        ] {
            let found = may_be_out_of_date(&world.observed, &world.rules, world.now);
            assert_eq!(found, expected, "{:?} at {:?}", world.observed, world.now);
        }
    }
}
