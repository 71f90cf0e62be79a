//! What is true of one subscription, in our own words: no type of Kubernetes, no clock, no client.

use std::{collections::BTreeMap, time::Duration};

use manifests::Identity;
use model::{
    ExitCode, PrefillState, Reason, Subscription, SubscriptionName, fence::Fence, prefill::Progress,
};

/// A point on the monotonic clock: time since the controller began. Deadlines count on it from our first sight;
/// the times that Kubernetes writes are for display and for the order of Jobs only.
pub type Moment = Duration;

/// All that a decision about one subscription may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Whose picture this is. There may be Jobs of this name without a subscription.
    pub subscription: SubscriptionName,
    /// The entry; `None` if the name is free.
    pub entry: Option<Subscription>,
    /// The fence of the entry's queue. It was read *after* the Jobs: a pod seals before it exits.
    pub fence: FenceSeen,
    /// All Jobs that carry the name, of any incarnation and attempt.
    pub jobs: Vec<JobSeen>,
    /// May the Job that waits for admission go now?
    pub place: Place,
    /// Since when, on our clock, the current attempt has failed.
    pub failed_since: Option<Moment>,
    /// Progress of the current attempt, for people.
    pub progress: Option<Progress>,
    /// The labels that the current attempt's Job is found by; empty without one.
    pub index: BTreeMap<String, String>,
}

/// The fence, as far as it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceSeen {
    /// Nothing depends on it.
    NotRead,
    /// The stream is gone.
    Missing,
    /// As the leader told it.
    Found(Box<Fence>),
}

/// Admission's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is this Job's turn.
    Free,
    /// Others run, or are older.
    Taken,
    /// The API server refused to let the Job start: it is out of the queue until then, and the entry says why.
    Refused {
        /// When it is tried again.
        until: Moment,
    },
}

/// The Job that an action means: its UID and the version that a conditional write needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRef {
    /// Whose attempt it is.
    pub identity: Identity,
    /// Its UID: a Job of the same name that was made later is another one.
    pub uid: String,
    /// Its `resourceVersion`.
    pub version: String,
    /// When its attempt was asked for, if it says so: there may have been another one of that number, before NATS was put
    /// back to an earlier time.
    pub asked: Option<String>,
}

impl JobRef {
    /// Is this the Job of the entry's current attempt?
    #[must_use]
    pub fn is_of(&self, entry: &Subscription) -> bool {
        self.has_the_name_of(entry) && manifests::is_as_asked(self.asked.as_deref(), entry)
    }

    /// Has it the name that the Job of the entry's current attempt has, or is to have?
    #[must_use]
    pub fn has_the_name_of(&self, entry: &Subscription) -> bool {
        let identity = &self.identity;
        entry.lifecycle != model::subscription::Lifecycle::Deleting
            && identity.subscription == entry.name
            && identity.incarnation == entry.incarnation
            && identity.attempt == entry.prefill.attempt
    }
}

/// A Job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSeen {
    /// Which.
    pub job: JobRef,
    /// When Kubernetes says that it was made, in unix seconds: the order of admission.
    pub created: i64,
    /// `spec.suspend`.
    pub suspended: bool,
    /// Has it been admitted? Then a suspension is somebody else's wish, not ours.
    pub admitted: bool,
    /// When Kubernetes ends it by `activeDeadlineSeconds`, in unix seconds, once it has started.
    pub ends_at: Option<i64>,
    /// What is left to do, and until then, if that is not enough.
    pub late: Option<Late>,
    /// Somebody has asked for its deletion, and it is not gone yet.
    pub being_deleted: bool,
    /// What has become of it.
    pub fate: Fate,
    /// Does an exit code that says "not again" end it? Kubernetes before 1.26 drops `podFailurePolicy` without a word.
    pub ends_for_good: bool,
    /// Tries of this Job that failed and count.
    pub failures: u32,
    /// Its pods, the oldest first.
    pub pods: Vec<PodSeen>,
    /// Its ConfigMap.
    pub input: InputSeen,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What somebody asks for in its annotation `headstart/request`.
    pub request: Option<String>,
    /// What events say about a pod that does not come up.
    pub evidence: Option<(Reason, String)>,
    /// What its annotations show already.
    pub shown: Shown,
    /// Since when, on our clock, the conditions hold that have a deadline.
    pub since: BTreeMap<Sight, Moment>,
}

/// An attempt that at its speed is not complete before its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// What it still needs, at least: types that are not listed yet are not counted.
    pub needs: Duration,
    /// Until its deadline.
    pub left: Duration,
}

impl Late {
    /// Compares progress and deadline. Both clocks are others': this is for people only.
    #[must_use]
    pub fn of(progress: &Progress, ends_at: i64, unix_now: i64) -> Option<Self> {
        let needs = Duration::try_from_secs_f64(progress.eta()?).unwrap_or(Duration::MAX);
        let left = Duration::from_secs(u64::try_from(ends_at.saturating_sub(unix_now)).unwrap_or(0));
        (needs > left).then_some(Self { needs, left })
    }
}

/// What has become of a Job. "Failed" holds from the moment that Kubernetes has decided (`FailureTarget`, since
/// 1.31), not only when all pods have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not decided.
    Open,
    /// Its pod exited with 0.
    Complete,
    /// Given up by Kubernetes.
    Failed {
        /// Reason of the condition, such as `BackoffLimitExceeded`.
        reason: String,
        /// Message of the condition.
        message: String,
    },
}

/// A pod of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Where it is.
    pub phase: PodPhase,
    /// Has its deletion been asked for?
    pub terminating: bool,
    /// Who takes it away, if it is Kubernetes: eviction, drain, preemption.
    pub disrupted: Option<String>,
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not running yet, and what keeps it from that if it says so.
    Pending(Option<(Reason, String)>),
    /// Its container runs.
    Running,
    /// Its container exited.
    Ended(PodEnd),
}

/// How a container exited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEnd {
    /// Its exit code, if Kubernetes knows.
    pub exit_code: Option<i32>,
    /// Reason and message of an end that is no error of the attempt: out of memory, evicted.
    pub reason: Option<Reason>,
    /// What it said of itself.
    pub message: Option<String>,
}

/// The ConfigMap of a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSeen {
    /// Nothing depends on it.
    NotRead,
    /// It is not there.
    Missing,
    /// It belongs to a former Job of this name, and is about to be collected with it.
    Foreign,
    /// It is there, owned by this Job, for this attempt.
    Ours,
}

/// What a Job's annotations show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `headstart/state`.
    pub state: Option<String>,
    /// `headstart/reason`.
    pub reason: Option<String>,
    /// `headstart/progress`.
    pub progress: Option<String>,
    /// When we wrote the progress last.
    pub progress_at: Option<Moment>,
}

/// A condition of a Job that has a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sight {
    /// It waits to be admitted.
    Waiting,
    /// It is admitted, and no pod runs, for another reason than that there is no room: a quota, the nodes.
    Unstarted,
    /// All its pods are terminating, and no other comes.
    Stuck,
    /// It ended, and the entry says so.
    Recorded,
    /// The entry says that the attempt has ended, the Job goes on.
    Lingering,
    /// It does not belong to the subscription's current attempt.
    Unwanted,
    /// At its speed it is not complete before its deadline.
    Late,
}

impl Sight {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Unstarted,
        Self::Stuck,
        Self::Recorded,
        Self::Lingering,
        Self::Unwanted,
        Self::Late,
    ];

    /// Does the condition hold?
    #[must_use]
    pub fn holds(self, entry: Option<&Subscription>, job: &JobSeen) -> bool {
        let wanted = entry.filter(|entry| job.is_of(entry));
        let ended = wanted.is_some_and(|entry| is_final(entry.prefill.state));
        let open = job.fate == Fate::Open;
        match self {
            Self::Unwanted => wanted.is_none(),
            Self::Recorded => ended && !open,
            Self::Lingering => ended && open,
            Self::Waiting => wanted.is_some() && open && job.suspended && !job.admitted,
            Self::Unstarted => {
                let waits =
                    wanted.is_some_and(|entry| job.waits_for_quota(entry)) || job.unschedulable().is_some();
                wanted.is_some() && open && !job.suspended && !job.runs() && !waits
            }
            Self::Late => wanted.is_some() && open && job.runs() && job.late.is_some(),
            Self::Stuck => wanted.is_some() && open && !job.suspended && job.is_stuck(),
        }
    }
}

fn is_final(state: PrefillState) -> bool {
    matches!(state, PrefillState::Done | PrefillState::Failed)
}

impl JobSeen {
    /// Is this the Job of the entry's current attempt?
    #[must_use]
    pub fn is_of(&self, entry: &Subscription) -> bool {
        self.job.is_of(entry)
    }

    /// Does a pod do its work?
    #[must_use]
    pub fn runs(&self) -> bool {
        self.pods.iter().any(|pod| pod.phase == PodPhase::Running && !pod.terminating)
    }

    /// Does it take one of the places?
    #[must_use]
    pub fn takes_a_place(&self) -> bool {
        !self.suspended && self.fate == Fate::Open
    }

    /// Is there no pod because a quota is used up? Events get lost and expire, so what they said holds until they say
    /// otherwise or a pod comes.
    #[must_use]
    pub fn waits_for_quota(&self, entry: &Subscription) -> bool {
        let told = self.evidence.as_ref().map_or(entry.prefill.reason, |(reason, _)| Some(*reason));
        told == Some(Reason::QuotaExceeded)
            && entry.prefill.attempt == self.job.identity.attempt
            && self.living_pods().next().is_none()
    }

    /// What the scheduler says of a pod that no node takes: a node may come, by an autoscaler or by hand.
    #[must_use]
    pub fn unschedulable(&self) -> Option<String> {
        self.living_pods().find_map(|pod| match &pod.phase {
            PodPhase::Pending(Some((Reason::Unschedulable, text))) if !pod.terminating => {
                Some(format!("pod {}: {text}", pod.name))
            }
            _ => None,
        })
    }

    /// Its pods that have not ended.
    pub fn living_pods(&self) -> impl Iterator<Item = &PodSeen> {
        self.pods.iter().filter(|pod| !matches!(pod.phase, PodPhase::Ended(_)))
    }

    /// Are there living pods, all of them terminating? `podFailurePolicy` forces `podReplacementPolicy: Failed`, so
    /// no other pod comes until they end, which on a lost node may be never (enhancements #6262).
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.living_pods().next().is_some() && self.living_pods().all(|pod| pod.terminating)
    }

    /// The end of the try that ended last.
    #[must_use]
    pub fn last_end(&self) -> Option<&PodEnd> {
        self.pods.iter().rev().find_map(|pod| match &pod.phase {
            PodPhase::Ended(end) => Some(end),
            _ => None,
        })
    }

    /// Has the last try ended so that no other one follows? Kubernetes will say so of the Job in a moment.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let complete = |end: &PodEnd| end.exit_code == Some(0);
        self.living_pods().next().is_none() && self.last_end().is_some_and(complete)
            || (self.ends_for_good && self.permanent_end().is_some())
    }

    /// The end of the last try, if that said that another one would end in the same way, and no other one is under way.
    #[must_use]
    pub fn permanent_end(&self) -> Option<&PodEnd> {
        let permanent = |end: &&PodEnd| end.exit_code.is_some_and(|code| ExitCode::PERMANENT.contains(&code));
        self.last_end().filter(|_| self.living_pods().next().is_none()).filter(permanent)
    }

    /// How many of its pods ended otherwise than with 0.
    #[must_use]
    pub fn ended_badly(&self) -> usize {
        let bad = |pod: &&PodSeen| matches!(&pod.phase, PodPhase::Ended(end) if end.exit_code != Some(0));
        self.pods.iter().filter(bad).count()
    }

    /// Since when a condition holds.
    #[must_use]
    pub fn since(&self, sight: Sight) -> Option<Moment> {
        self.since.get(&sight).copied()
    }
}

impl Observed {
    /// The Job of the current attempt.
    #[must_use]
    pub fn current_job(&self) -> Option<&JobSeen> {
        let entry = self.entry.as_ref()?;
        self.jobs.iter().find(|job| job.is_of(entry))
    }
}
