//! Gathers what is true of one subscription: entry, Jobs and Pods from caches, and what a decision hangs on from
//! where it is kept.
//!
//! Which of it is read, and in which order, is decided by [`needs`].

mod job;
mod snapshot;
pub(crate) mod watch;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use broker::{Broker, RegistryView};
use manifests::{Identity, labels};
use model::{
    Subscription, SubscriptionName,
    prefill::{PrefillTask, Progress},
};

use crate::{
    Error,
    cluster::Cluster,
    decide::{Need, Rules, needs},
    memory::Memory,
    observed::{FenceSeen, InputSeen, Late, Moment, Observed, Place},
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
        let Some(entry) = observed.entry.clone() else { return Ok(observed) };
        let mut read = BTreeSet::new();
        while let Some(need) = needs(&observed, &read, &self.rules, now) {
            match need {
                Need::LiveJob => self.look_at_kubernetes(&mut observed, &entry).await?,
                Need::Evidence => self.look_for_evidence(&mut observed, &entry).await?,
                Need::Place => self.look_for_a_place(&mut observed, &entry, snapshot, now).await?,
                Need::Fence => {
                    let fence = self.broker.queue(name, entry.incarnation).fence().await?;
                    observed.fence =
                        fence.map_or(FenceSeen::Missing, |fence| FenceSeen::Found(Box::new(fence.value)));
                }
                Need::Progress => {
                    observed.progress = self.progress(&entry).await?;
                    note_lateness(&mut observed, &entry);
                }
            }
            self.see(&mut observed, now);
            read.insert(need);
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

    async fn look_for_evidence(&self, observed: &mut Observed, entry: &Subscription) -> Result<(), Error> {
        let Some(job) = observed.jobs.iter_mut().find(|job| job.is_of(entry)) else { return Ok(()) };
        let about = job.living_pods().last().map_or_else(|| job.job.uid.clone(), |pod| pod.uid.clone());
        let events = self.cluster.events_about(&about).await?;
        job.evidence = reason::of_events(&events);
        // Somebody may have deleted what the pod waits for.
        let found = self.cluster.config_map(&job.job.identity.job_name()).await?;
        job.input = input_seen(found.as_ref(), &PrefillTask::of(entry), &job.job);
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
