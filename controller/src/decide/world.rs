//! A subscription in a world of its own, for tests: built from "all is well", and changed by actions as NATS and
//! Kubernetes would change it.

use std::collections::BTreeMap;

use manifests::Identity;
use model::{
    Incarnation, PrefillState, Reason, Subscription, Timestamp,
    fence::{Fence, FenceState},
    prefill::PrefillTask,
    subscription::{Lifecycle, Registration},
};
use uuid::Uuid;

use super::{Action, Request, Rules, decide, deletion_is_justified, may_record};
use crate::observed::{
    Fate, FenceSeen, InputSeen, JobRef, JobSeen, Moment, Observed, Place, PodEnd, PodPhase, PodSeen, Shown,
    Sight,
};

pub const MINE: Incarnation = Incarnation(Uuid::from_u128(1));
pub const OTHER: Incarnation = Incarnation(Uuid::from_u128(2));

/// When the test begins.
pub const NOW: Moment = Moment::from_secs(100_000);

#[derive(Clone, Debug)]
pub struct World {
    pub observed: Observed,
    pub now: Moment,
    pub rules: Rules,
    made: u32,
    first_seen: BTreeMap<(String, Sight), Moment>,
    failed: Option<(u32, Moment)>,
}

fn time() -> Timestamp {
    "2026-01-01T00:00:00".parse().unwrap()
}

impl World {
    /// A ready subscription whose prefill is pending, with its boundary known, a place free, and no Job.
    pub fn new() -> Self {
        let registration =
            Registration { request_prefill: true, ..Registration::new("mail".parse().unwrap(), vec![]) };
        let mut entry = Subscription::reserve(registration, MINE, 1, time());
        entry.lifecycle = Lifecycle::Ready;
        entry.prefill.boundary = Some(7);
        let observed = Observed {
            subscription: entry.name.clone(),
            entry: Some(entry),
            fence: FenceSeen::NotRead,
            jobs: vec![],
            place: Place::Free,
            failed_since: None,
            progress: None,
            index: BTreeMap::new(),
        };
        Self {
            observed,
            now: NOW,
            rules: Rules::default(),
            made: 0,
            first_seen: BTreeMap::new(),
            failed: None,
        }
        .fence(0, FenceState::Open)
    }

    pub fn entry(&self) -> &Subscription {
        self.observed.entry.as_ref().unwrap()
    }

    pub fn with_entry(mut self, change: impl FnOnce(&mut Subscription)) -> Self {
        change(self.observed.entry.as_mut().unwrap());
        self
    }

    pub fn state(self, state: PrefillState, reason: Option<Reason>) -> Self {
        self.with_entry(|entry| {
            entry.prefill.state = state;
            entry.prefill.reason = reason;
        })
    }

    pub fn attempt(self, attempt: u32) -> Self {
        self.with_entry(|entry| entry.prefill.attempt = attempt)
    }

    pub fn no_boundary(self) -> Self {
        self.with_entry(|entry| entry.prefill.boundary = None)
    }

    pub fn no_entry(mut self) -> Self {
        self.observed.entry = None;
        self
    }

    pub fn no_place(mut self) -> Self {
        self.observed.place = Place::Taken;
        self
    }

    pub fn fence(mut self, attempt: u32, state: FenceState) -> Self {
        let fence = Fence { state, ..Fence::taken(MINE, 1, attempt, "pod".into()) };
        self.observed.fence = FenceSeen::Found(Box::new(fence));
        self
    }

    pub fn sealed(self) -> Self {
        self.fence(1, FenceState::Sealed)
    }

    /// Sealed, without an object that could not be read.
    pub fn sealed_without_one(mut self) -> Self {
        self = self.sealed();
        if let FenceSeen::Found(fence) = &mut self.observed.fence {
            fence.counts =
                Some(model::fence::Counts { messages: 9, set_aside: 1, ..model::fence::Counts::default() });
        }
        self
    }

    pub fn fence_seen(mut self, fence: FenceSeen) -> Self {
        self.observed.fence = fence;
        self
    }

    /// A suspended Job of attempt 1 with its ConfigMap, as the API makes it.
    pub fn job(self) -> Self {
        self.job_of(MINE, 1)
    }

    pub fn job_of(mut self, incarnation: Incarnation, attempt: u32) -> Self {
        self.made += 1;
        let identity =
            Identity { subscription: self.observed.subscription.clone(), incarnation, round: 1, attempt };
        self.observed.jobs.push(JobSeen {
            job: JobRef { identity, uid: format!("uid-{}", self.made), version: "1".into(), asked: None },
            created: 0,
            suspended: true,
            admitted: false,
            ends_at: None,
            late: None,
            being_deleted: false,
            fate: Fate::Open,
            ends_for_good: true,
            failures: 0,
            pods: vec![],
            input: InputSeen::Ours,
            labels: BTreeMap::new(),
            request: None,
            evidence: None,
            shown: Shown::default(),
            since: BTreeMap::new(),
        });
        self
    }

    pub fn with_job(mut self, change: impl FnOnce(&mut JobSeen)) -> Self {
        change(self.observed.jobs.last_mut().unwrap());
        self
    }

    /// The Job was made for an attempt of that number that was asked for at another time.
    pub fn asked_at_another_time(self) -> Self {
        self.with_job(|job| job.job.asked = Some("2025-12-31T00:00:00".into()))
    }

    /// A Job that we have admitted.
    pub fn admitted(self) -> Self {
        self.job().with_job(|job| {
            job.suspended = false;
            job.admitted = true;
        })
    }

    pub fn pod(self, phase: PodPhase) -> Self {
        self.with_job(|job| {
            let name = format!("pod-{}", job.pods.len());
            job.pods.push(PodSeen {
                uid: format!("uid-{name}"),
                name,
                phase,
                terminating: false,
                disrupted: None,
            });
        })
    }

    pub fn terminating(self) -> Self {
        self.with_job(|job| job.pods.iter_mut().for_each(|pod| pod.terminating = true))
    }

    /// A try that ended so.
    pub fn failed_try(self, exit_code: i32, reason: Option<Reason>, message: &str) -> Self {
        let end = PodEnd { exit_code: Some(exit_code), reason, message: Some(message.into()) };
        self.pod(PodPhase::Ended(end)).with_job(|job| job.failures += 1)
    }

    pub fn fate(self, fate: Fate) -> Self {
        self.with_job(|job| job.fate = fate)
    }

    pub fn job_failed(self, reason: &str) -> Self {
        self.fate(Fate::Failed { reason: reason.into(), message: "by Kubernetes".into() })
    }

    /// The annotations say already what the entry says.
    pub fn shown(self) -> Self {
        let (state, reason) = match &self.observed.entry {
            Some(entry) => {
                (entry.prefill.state.as_str().to_owned(), entry.prefill.reason.map(|r| r.as_str().to_owned()))
            }
            None => (String::new(), None),
        };
        self.with_job(|job| job.shown = Shown { state: Some(state), reason, ..Shown::default() })
    }

    /// What holds now has held for so many seconds.
    pub fn after(mut self, seconds: u64) -> Self {
        self.see();
        self.now += Moment::from_secs(seconds);
        self
    }

    /// Notes the first sight of each condition, and forgets those that no longer hold: what `observe` does.
    fn see(&mut self) {
        let entry = self.observed.entry.clone();
        let attempt =
            entry.as_ref().filter(|e| e.prefill.state == PrefillState::Failed).map(|e| e.prefill.attempt);
        if attempt.is_none() || attempt != self.failed.map(|(attempt, _)| attempt) {
            self.failed = attempt.map(|attempt| (attempt, self.now));
        }
        self.observed.failed_since = self.failed.map(|(_, since)| since);
        for job in &mut self.observed.jobs {
            for sight in Sight::ALL {
                let key = (job.job.uid.clone(), sight);
                if sight.holds(entry.as_ref(), job) {
                    let first = *self.first_seen.entry(key).or_insert(self.now);
                    job.since.insert(sight, first);
                } else {
                    self.first_seen.remove(&key);
                    job.since.remove(&sight);
                }
            }
        }
    }

    pub fn decide(&mut self) -> Vec<Action> {
        self.see();
        decide(&self.observed, &self.rules, self.now)
    }

    /// The actions that change something, without those that only show or wait.
    pub fn deeds(mut self) -> Vec<Action> {
        let quiet =
            |action: &Action| matches!(action, Action::LookAgain(_) | Action::Show { .. } | Action::Adopt(_));
        self.decide().into_iter().filter(|action| !quiet(action)).collect()
    }

    /// Changes the world as an action does; true if it changed.
    pub fn apply(&mut self, action: &Action) -> bool {
        let before = self.observed.clone();
        match action {
            Action::Record { identity, state, reason, message, .. } => {
                let entry = self.observed.entry.as_mut().unwrap();
                assert!(may_record(entry, identity, *state), "{entry:?} to {state:?}");
                if let Some(next) = entry.with_prefill_state(*state, *reason, message.clone(), time()) {
                    *entry = next;
                }
            }
            Action::NextAttempt { .. } => {
                let entry = self.observed.entry.as_mut().unwrap();
                let failed = entry.with_prefill_state(PrefillState::Failed, None, None, time()).unwrap();
                *entry = failed.with_prefill_again(time()).unwrap();
            }
            Action::StartAgain(_) => {
                let again = self.entry().with_prefill_again(time()).unwrap();
                self.observed.entry = Some(again);
            }
            Action::CreateJob(task) => {
                assert_eq!(*task, PrefillTask::of(self.entry()));
                let world = self.clone().job_of(task.incarnation, task.attempt);
                *self = world;
            }
            Action::CreateInput { job, .. } => self.job_mut(job).input = InputSeen::Ours,
            Action::Admit(job) => {
                let job = self.job_mut(job);
                (job.suspended, job.admitted) = (false, true);
            }
            Action::Suspend(job) => {
                let job = self.job_mut(job);
                (job.suspended, job.admitted) = (true, false);
            }
            Action::Relabel { job, labels } => self.job_mut(job).labels.extend(labels.clone()),
            Action::Refuse { job, .. } => self.job_mut(job).request = None,
            Action::Obey { job, request } => {
                self.job_mut(job).request = None;
                let entry = self.entry().clone();
                let next = match request {
                    Request::Retry => entry.with_prefill_again(time()),
                    Request::Pause => entry.with_paused(true),
                    Request::Resume => entry.with_paused(false),
                    Request::Approve => {
                        if let FenceSeen::Found(fence) = &mut self.observed.fence {
                            fence.state = FenceState::Sealed;
                        }
                        entry.with_prefill_state(PrefillState::Done, None, None, time())
                    }
                    Request::Cancel => {
                        let reason = Some(Reason::Cancelled);
                        entry.with_prefill_state(PrefillState::Failed, reason, None, time())
                    }
                };
                self.observed.entry = next.or(Some(entry));
            }
            Action::Adopt(job) => self.job_mut(job).admitted = true,
            Action::Show { job, state, reason, message: _, progress } => {
                let now = self.now;
                self.job_mut(job).shown = Shown {
                    state: Some(state.as_str().to_owned()),
                    reason: reason.map(|reason| reason.as_str().to_owned()),
                    progress: progress.clone(),
                    progress_at: Some(now),
                };
            }
            Action::Delete { job, .. } => {
                if deletion_is_justified(self.observed.entry.as_ref(), job) {
                    self.observed.jobs.retain(|seen| seen.job.uid != job.uid);
                }
            }
            Action::LookAgain(_) => {}
        }
        before != self.observed
    }

    fn job_mut(&mut self, job: &JobRef) -> &mut JobSeen {
        self.observed.jobs.iter_mut().find(|seen| seen.job.uid == job.uid).unwrap()
    }
}
