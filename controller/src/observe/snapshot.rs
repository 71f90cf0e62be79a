//! The Jobs of the caches at one moment, and whose turn it is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use broker::Revised;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use model::{Subscription, SubscriptionName};

use super::job_seen;
use crate::{
    decide::admission::{self, Applicant, Wants},
    memory::Memory,
    observed::{JobSeen, Moment},
};

/// All Jobs of the instance, by subscription.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    jobs: HashMap<SubscriptionName, Vec<JobSeen>>,
    turns: HashSet<String>,
    /// How many Jobs have a place.
    pub(crate) running: usize,
    /// How many wait for one.
    pub(crate) waiting: usize,
}

impl Snapshot {
    /// Takes it, and admits as far as there are places.
    pub(crate) fn new(
        jobs: &[Arc<Job>],
        pods: &[Arc<Pod>],
        entry_of: impl Fn(&SubscriptionName) -> Option<Arc<Revised<Subscription>>>,
        memory: &Memory,
        limit: usize,
        now: Moment,
    ) -> Self {
        let mut pods_by_owner: HashMap<&str, Vec<&Pod>> = HashMap::new();
        for pod in pods {
            for owner in pod.metadata.owner_references.iter().flatten() {
                pods_by_owner.entry(&owner.uid).or_default().push(pod);
            }
        }
        let mut snapshot = Self::default();
        let mut applicants = Vec::with_capacity(jobs.len());
        for job in jobs {
            let uid = job.metadata.uid.as_deref().unwrap_or_default();
            let pods = pods_by_owner.remove(uid).unwrap_or_default();
            let Some(mut seen) = job_seen(job, pods.into_iter()) else { continue };
            if memory.is_admitted_since(&seen.job.uid, &seen.job.version) {
                (seen.suspended, seen.admitted) = (false, true);
            }
            let name = seen.job.identity.subscription.clone();
            let entry = entry_of(&name);
            let unfit = memory.is_unfit(uid) || memory.refused_until(uid, now).is_some();
            applicants.push(Applicant::new(entry.as_deref().map(|entry| &entry.value), &seen, unfit));
            snapshot.jobs.entry(name).or_default().push(seen);
        }
        snapshot.turns = admission::turns(&applicants, limit);
        let count = |wants| applicants.iter().filter(|job| job.wants == wants).count();
        (snapshot.running, snapshot.waiting) = (count(Wants::HasPlace), count(Wants::Place));
        snapshot
    }

    /// The Jobs that carry this name.
    pub(crate) fn jobs_of(&self, name: &SubscriptionName) -> Vec<JobSeen> {
        self.jobs.get(name).cloned().unwrap_or_default()
    }

    /// Subscriptions that have a Job.
    pub(crate) fn names(&self) -> impl Iterator<Item = &SubscriptionName> {
        self.jobs.keys()
    }

    /// Subscriptions whose Job may start now.
    pub(crate) fn names_at_turn(&self) -> impl Iterator<Item = &SubscriptionName> {
        self.jobs
            .iter()
            .filter(|(_, jobs)| jobs.iter().any(|job| self.is_turn_of(&job.job.uid)))
            .map(|(name, _)| name)
    }

    /// May the Job of this UID start now?
    pub(crate) fn is_turn_of(&self, uid: &str) -> bool {
        self.turns.contains(uid)
    }

    /// All Jobs' UIDs.
    pub(crate) fn uids(&self) -> HashSet<&str> {
        self.jobs.values().flatten().map(|job| job.job.uid.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use manifests::JobTemplate;
    use model::{
        prefill::PrefillTask,
        subscription::{Lifecycle, Registration},
    };
    use serde_json::json;

    use super::*;

    fn entry(name: &str) -> Subscription {
        let registration =
            Registration { request_prefill: true, ..Registration::new(name.parse().unwrap(), vec![]) };
        let incarnation = model::Incarnation(uuid::Uuid::from_u128(1));
        let mut entry =
            Subscription::reserve(registration, incarnation, 1, "2026-01-01T00:00:00".parse().unwrap());
        entry.lifecycle = Lifecycle::Ready;
        entry.prefill.boundary = Some(1);
        entry
    }

    fn job(name: &str, second: u32) -> Job {
        let template = JobTemplate::parse(crate::testing::TEMPLATE).unwrap();
        let mut job = manifests::job(&template, &PrefillTask::of(&entry(name)));
        let at = serde_json::from_value(json!(format!("2026-01-01T00:00:{second:02}Z"))).unwrap();
        job.metadata = ObjectMeta {
            uid: Some(format!("uid-{name}")),
            resource_version: Some("5".into()),
            creation_timestamp: at,
            ..job.metadata
        };
        job
    }

    fn snapshot(jobs: &[Job], memory: &Memory, limit: usize) -> Snapshot {
        let jobs: Vec<_> = jobs.iter().cloned().map(Arc::new).collect();
        let entry_of =
            |name: &SubscriptionName| Some(Arc::new(Revised { value: entry(name.as_str()), revision: 1 }));
        Snapshot::new(&jobs, &[], entry_of, memory, limit, Moment::from_secs(100))
    }

    fn at_turn(snapshot: &Snapshot) -> Vec<String> {
        let mut names: Vec<_> = snapshot.names_at_turn().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn what_we_admitted_has_its_place_before_the_cache_knows() {
        let jobs = [job("a", 1), job("b", 2)];
        let mut memory = Memory::default();
        assert_eq!(at_turn(&snapshot(&jobs, &memory, 1)), ["a"]);
        memory.set_admitted("uid-a", "5");
        let taken = snapshot(&jobs, &memory, 1);
        assert_eq!((at_turn(&taken), taken.running), (vec![], 1));
        // The cache has another version by now: it shows what has become of the Job.
        memory.set_admitted("uid-a", "4");
        assert_eq!(at_turn(&snapshot(&jobs, &memory, 1)), ["a"]);
    }

    #[test]
    fn one_without_its_config_map_keeps_nobody_from_a_place() {
        let jobs = [job("a", 1), job("b", 2)];
        let mut memory = Memory::default();
        memory.set_unfit("uid-a", true);
        assert_eq!(at_turn(&snapshot(&jobs, &memory, 1)), ["b"]);
    }

    #[test]
    fn one_that_may_not_start_keeps_nobody_from_a_place_for_a_while() {
        let jobs = [job("a", 1), job("b", 2)];
        let mut memory = Memory::default();
        memory.set_refused("uid-a", Moment::from_secs(101));
        assert_eq!(at_turn(&snapshot(&jobs, &memory, 1)), ["b"]);
        memory.set_refused("uid-a", Moment::from_secs(100));
        assert_eq!(at_turn(&snapshot(&jobs, &memory, 1)), ["a"]);
    }
}
