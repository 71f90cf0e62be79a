//! What the controller remembers between two looks. All of it may be lost: deadlines then count anew, and a place may
//! be given once too often.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::{Incarnation, PrefillState, Reason, Subscription, SubscriptionName};

use crate::observed::{JobSeen, Moment, Sight};

/// First sights, and what the caches do not know yet.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By the UID of the Job.
    jobs: HashMap<String, Remembered>,
    /// Since when the attempt of a subscription has failed.
    failed: HashMap<SubscriptionName, ((Incarnation, u32), Moment)>,
}

/// What is remembered of a Job.
#[derive(Debug, Default)]
struct Remembered {
    sights: BTreeMap<Sight, Moment>,
    progress_at: Option<Moment>,
    /// Its ConfigMap was not right at the last look.
    unfit: bool,
    /// The API server refused to start it: until when it is out of the queue.
    refused_until: Option<Moment>,
    /// We have admitted it: the version that it had before.
    admitted: Option<String>,
    /// The state that was announced last.
    announced: Option<(PrefillState, Option<Reason>)>,
}

impl Memory {
    fn job(&mut self, uid: &str) -> &mut Remembered {
        self.jobs.entry(uid.to_owned()).or_default()
    }

    /// Notes first sights of what holds now, and tells the Job since when.
    pub(crate) fn see(&mut self, entry: Option<&Subscription>, job: &mut JobSeen, now: Moment) {
        let remembered = self.job(&job.job.uid);
        for sight in Sight::ALL {
            if sight.holds(entry, job) {
                remembered.sights.entry(sight).or_insert(now);
            } else {
                remembered.sights.remove(&sight);
            }
        }
        job.since.clone_from(&remembered.sights);
        job.shown.progress_at = remembered.progress_at;
    }

    /// A watch was interrupted: what we take for lasting may have changed meanwhile, and the kubelet may have been as
    /// blind as we were. Start deadlines count anew; `activeDeadlineSeconds` stands behind them.
    pub(crate) fn count_starts_anew(&mut self) {
        for job in self.jobs.values_mut() {
            job.sights.retain(|sight, _| !matches!(sight, Sight::Unstarted | Sight::Stuck));
        }
    }

    pub(crate) fn progress_shown(&mut self, uid: &str, now: Moment) {
        self.job(uid).progress_at = Some(now);
    }

    /// Notes what is told of a Job; false: it was told before.
    pub(crate) fn tells(&mut self, uid: &str, state: PrefillState, reason: Option<Reason>) -> bool {
        self.job(uid).announced.replace((state, reason)) != Some((state, reason))
    }

    /// Whether the Job's ConfigMap was right at the last look.
    pub(crate) fn set_unfit(&mut self, uid: &str, unfit: bool) {
        self.job(uid).unfit = unfit;
    }

    pub(crate) fn is_unfit(&self, uid: &str) -> bool {
        self.jobs.get(uid).is_some_and(|job| job.unfit)
    }

    /// Since when the current attempt has failed, if it has.
    pub(crate) fn failed_since(
        &mut self,
        name: &SubscriptionName,
        entry: Option<&Subscription>,
        now: Moment,
    ) -> Option<Moment> {
        let Some(entry) = entry.filter(|entry| entry.prefill.state == PrefillState::Failed) else {
            self.failed.remove(name);
            return None;
        };
        let attempt = (entry.incarnation, entry.prefill.attempt);
        let known = self.failed.get(name).filter(|(known, _)| *known == attempt);
        let since = known.map_or(now, |(_, since)| *since);
        self.failed.insert(name.clone(), (attempt, since));
        Some(since)
    }

    pub(crate) fn set_refused(&mut self, uid: &str, until: Moment) {
        self.job(uid).refused_until = Some(until);
    }

    /// Until when the Job is out of the queue, if it is.
    pub(crate) fn refused_until(&self, uid: &str, now: Moment) -> Option<Moment> {
        self.jobs.get(uid)?.refused_until.filter(|until| *until > now)
    }

    /// We have admitted it when it was of that version: the next one has a place, whatever the cache says.
    pub(crate) fn set_admitted(&mut self, uid: &str, version: &str) {
        self.job(uid).admitted = Some(version.to_owned());
    }

    /// Does the cache show a Job that we have admitted since?
    pub(crate) fn is_admitted_since(&self, uid: &str, version: &str) -> bool {
        self.jobs.get(uid).is_some_and(|job| job.admitted.as_deref() == Some(version))
    }

    /// Forgets Jobs that are gone.
    pub(crate) fn keep_only(&mut self, uids: &HashSet<&str>) {
        self.jobs.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decide::world::World, observed::PodPhase};

    /// While a watch is interrupted the kubelet may be as blind as we are.
    #[test]
    fn deadlines_count_anew_after_an_interruption_and_retentions_do_not() {
        let at = Moment::from_secs;
        let since = |memory: &mut Memory, world: &World, sight, now| {
            let mut job = world.observed.jobs[0].clone();
            memory.see(world.observed.entry.as_ref(), &mut job, now);
            job.since(sight)
        };
        let unstarted = World::new().admitted();
        let stuck = World::new().admitted().pod(PodPhase::Running).terminating();
        let gone = World::new().no_entry().job();
        for (world, sight, expected) in
            [(unstarted, Sight::Unstarted, 9), (stuck, Sight::Stuck, 9), (gone, Sight::Unwanted, 1)]
        {
            let mut memory = Memory::default();
            assert_eq!(since(&mut memory, &world, sight, at(1)), Some(at(1)));
            assert_eq!(since(&mut memory, &world, sight, at(5)), Some(at(1)));
            memory.count_starts_anew();
            assert_eq!(since(&mut memory, &world, sight, at(9)), Some(at(expected)), "{sight:?}");
        }
    }

    #[test]
    fn a_failure_counts_from_its_first_sight_and_each_attempt_has_its_own() {
        let mut memory = Memory::default();
        let failed = World::new().state(PrefillState::Failed, Some(Reason::ImagePull));
        let mut look = |world: &World, now| {
            let entry = world.observed.entry.as_ref();
            memory.failed_since(&world.observed.subscription, entry, Moment::from_secs(now))
        };
        assert_eq!(look(&failed, 1), Some(Moment::from_secs(1)));
        assert_eq!(look(&failed, 5), Some(Moment::from_secs(1)));
        assert_eq!(look(&failed.clone().attempt(2), 6), Some(Moment::from_secs(6)));
        assert_eq!(look(&World::new(), 7), None);
        assert_eq!(look(&failed, 8), Some(Moment::from_secs(8)));
    }
}
