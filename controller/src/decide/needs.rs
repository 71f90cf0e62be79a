//! What a decision hangs on that no cache has. It is read only where it matters, since each of it is a request.

use std::collections::BTreeSet;

use model::{PrefillState, Subscription, subscription::Lifecycle};

use super::Rules;
use crate::observed::{Fate, JobSeen, Moment, Observed, Place, PodPhase, Sight};

/// Something to be read, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// The Job and its pods, from the API server.
    LiveJob,
    /// Events about a pod that does not come up, and its ConfigMap.
    Evidence,
    /// Whether it is the Job's turn, and if so, its ConfigMap.
    Place,
    /// The fence of the queue. After the Job: a pod seals before it exits, so its seal can't be missed then.
    Fence,
    /// The progress of the attempt.
    Progress,
}

impl Need {
    const ALL: [Self; 5] = [Self::LiveJob, Self::Evidence, Self::Place, Self::Fence, Self::Progress];
}

/// What has to be read next, where some of it has been `read`. `None`: all that the decision hangs on is known.
pub(crate) fn needs(observed: &Observed, read: &BTreeSet<Need>, rules: &Rules, now: Moment) -> Option<Need> {
    let entry = observed.entry.as_ref().filter(has_open_prefill)?;
    let failed = entry.prefill.state == PrefillState::Failed;
    let job = observed.current_job();
    let matters = |need| match need {
        Need::LiveJob => !failed && may_be_out_of_date(job, rules, now),
        Need::Evidence => !failed && job.is_some_and(|job| is_silent(entry, job, rules, now)),
        Need::Place => !failed && job.is_some(),
        Need::Fence => may_be_written(observed, entry, job),
        Need::Progress => entry.prefill.state == PrefillState::Running,
    };
    Need::ALL.into_iter().find(|need| !read.contains(need) && matters(*need))
}

/// A prefill that is not done, of a subscription that is in use.
fn has_open_prefill(entry: &&Subscription) -> bool {
    entry.lifecycle == Lifecycle::Ready
        && entry.prefill.attempt > 0
        && entry.prefill.state != PrefillState::Done
}

/// A Job that the cache does not know, and one that is about to be given up: a cache may be behind, or cut off from the
/// API server without knowing.
fn may_be_out_of_date(job: Option<&JobSeen>, rules: &Rules, now: Moment) -> bool {
    let Some(job) = job else { return true };
    let due = |sight, after| job.since(sight).is_some_and(|since| since + after <= now);
    due(Sight::Unstarted, rules.start_deadline) || due(Sight::Stuck, rules.stuck_after)
}

/// A pod does not come up and does not say why: there is no pod at all (quota, admission), or it waits for a volume.
fn is_silent(entry: &Subscription, job: &JobSeen, rules: &Rules, now: Moment) -> bool {
    let lasts = job.since(Sight::Unstarted).is_some_and(|since| since + rules.settle <= now);
    (lasts || (!job.suspended && job.waits_for_quota(entry)))
        && !job.living_pods().any(|pod| matches!(pod.phase, PodPhase::Pending(Some(_))))
}

/// While a Job waits for its turn, nothing has been written under its attempt. One that has ended, or has a pod, did not
/// wait: somebody has started it by hand.
fn may_be_written(observed: &Observed, entry: &Subscription, job: Option<&JobSeen>) -> bool {
    let queued = job
        .is_some_and(|job| job.suspended && !job.admitted && job.fate == Fate::Open && job.pods.is_empty());
    entry.prefill.state != PrefillState::Pending || !queued || observed.place == Place::Free
}

#[cfg(test)]
pub(super) mod tests {
    use model::Reason;

    use super::*;
    use crate::decide::world::World;

    /// All that is read, if it changes nothing.
    pub fn all_needs(world: &World) -> BTreeSet<Need> {
        let mut read = BTreeSet::new();
        while let Some(need) = needs(&world.observed, &read, &world.rules, world.now) {
            assert!(read.insert(need), "{need:?} is asked for once");
        }
        read
    }

    /// A world that was seen once, some seconds later.
    fn seen(world: World, seconds: u64) -> World {
        let mut world = world.after(seconds);
        world.decide();
        world
    }

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
            (queued().fate(Fate::Complete), true),
            (queued().pod(PodPhase::Running), true),
        ] {
            assert_eq!(all_needs(&world).contains(&Need::Fence), expected, "{:?}", world.observed);
        }
    }

    #[test]
    fn what_is_absent_or_about_to_be_given_up_is_looked_up() {
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
            let found = all_needs(&world).contains(&Need::LiveJob);
            assert_eq!(found, expected, "{:?} at {:?}", world.observed, world.now);
        }
    }

    #[test]
    fn events_are_read_where_a_pod_does_not_say_why_it_does_not_come_up() {
        let pending = |reason| World::new().admitted().pod(PodPhase::Pending(reason));
        for (world, expected) in [
            (seen(World::new().job(), 60), false),
            (seen(World::new().admitted(), 1), false),
            (seen(World::new().admitted(), 2), true),
            (seen(pending(None), 2), true),
            (seen(pending(Some((Reason::ImagePull, String::new()))), 60), false),
            (seen(World::new().admitted().pod(PodPhase::Running), 60), false),
        ] {
            let found = all_needs(&world).contains(&Need::Evidence);
            assert_eq!(found, expected, "{:?} at {:?}", world.observed, world.now);
        }
    }

    #[test]
    fn nothing_is_read_for_what_has_no_open_prefill() {
        let done = World::new().state(PrefillState::Done, None).job();
        let registering = World::new().with_entry(|entry| entry.lifecycle = Lifecycle::Registering);
        for world in [done, registering, World::new().no_entry().job()] {
            assert_eq!(all_needs(&world), BTreeSet::new(), "{:?}", world.observed);
        }
        let failed = World::new().state(PrefillState::Failed, Some(Reason::ImagePull)).job();
        assert_eq!(all_needs(&failed), BTreeSet::from([Need::Fence]));
    }
}
