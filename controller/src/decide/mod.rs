//! Decides: from what is observed of one subscription to what is to be done. Pure: no clock, no client, no log.
//!
//! ```text
//!  fence ─► sealed: done, whatever the Job says ─┐
//!        ─► gone: broken                         ├─► record ─► show ─► remove
//!        ─► open ─► Job ─► Pods ─► verdict ──────┘
//! ```

use std::time::Duration;

use manifests::Identity;
use std::collections::BTreeMap;

use model::{PrefillState, Reason, Subscription, prefill::PrefillTask, subscription::Lifecycle};

use crate::observed::{FenceSeen, JobRef, Moment, Observed};

pub mod admission;
mod cleanup;
mod job;
mod needs;
#[cfg(test)]
mod properties;
mod request;
mod show;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

pub use cleanup::deletion_is_justified;
use job::Verdict;
pub(crate) use job::is_failed_start;
pub(crate) use needs::{Need, needs};
pub use request::Request;

/// The times that decisions go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long an admitted Job may be without a running pod. Waiting for a place and Kubernetes' own back-off
    /// between tries do not count.
    pub start_deadline: Duration,
    /// After how long a prefill that could not start begins another attempt: the first time, the second, and so on. When
    /// they are used up, somebody has to ask for it.
    pub start_again: Vec<Duration>,
    /// How long the pods of a Job may be terminating before another attempt takes over. More than the
    /// `terminationGracePeriodSeconds` of the Job template.
    pub stuck_after: Duration,
    /// How long an attempt must have been too slow for its deadline before that is a reason: a speed changes.
    pub late_after: Duration,
    /// How long a state may last before its reason is written down: what passes in a moment is not worth a write.
    pub settle: Duration,
    /// How long the Job of a finished prefill may go on: its pod only has to exit.
    pub linger: Duration,
    /// How long a Job that belongs to no current attempt is left alone.
    pub grace: Duration,
    /// How long the Job of a prefill that is done is kept.
    pub retention_done: Duration,
    /// How long the Job of a prefill that failed is kept, with its logs.
    pub retention_failed: Duration,
    /// How long a Job that the API server refuses to start is out of the queue, before it is tried again.
    pub refused: Duration,
    /// How often the progress in a Job's annotations changes at most.
    pub progress_every: Duration,
}

impl Default for Rules {
    /// 5 min to start (a large image over a slow line), other attempts for most of a day after that, 2 min to end (four times the default grace period of a pod),
    /// Jobs kept for an hour or, failed, for a day.
    fn default() -> Self {
        Self {
            start_deadline: Duration::from_secs(300),
            start_again: [5, 15, 60, 240, 720].map(|minutes| Duration::from_secs(minutes * 60)).to_vec(),
            stuck_after: Duration::from_secs(120),
            late_after: Duration::from_secs(300),
            settle: Duration::from_secs(2),
            linger: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            retention_done: Duration::from_secs(3600),
            retention_failed: Duration::from_secs(24 * 3600),
            refused: Duration::from_secs(30),
            progress_every: Duration::from_secs(5),
        }
    }
}

/// What is to be done. Each action is idempotent or conditional, so doing it twice, late, or from two controllers
/// at once is harmless.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The state or its reason changed: write it into the entry, if that is still of this attempt.
    Record {
        /// Of which attempt.
        identity: Identity,
        /// The state.
        state: PrefillState,
        /// Why it waits or failed.
        reason: Option<Reason>,
        /// The reason in a sentence.
        message: Option<String>,
        /// Messages that a sealed attempt wrote.
        objects: Option<u64>,
        /// The Job that the Event is about; without one, it is about the name of the attempt's Job.
        job: Option<JobRef>,
    },
    /// The pod does not end: begin the next attempt of the same round, under a new name.
    NextAttempt {
        /// The attempt that is given up.
        identity: Identity,
        /// Its Job.
        job: JobRef,
        /// Why.
        reason: Reason,
        /// In a sentence.
        message: String,
    },
    /// The attempt could not start, and a while has passed: begin another one of the same round.
    StartAgain(Identity),
    /// The prefill is pending and has no Job: whoever asked for it died before making one.
    CreateJob(PrefillTask),
    /// The Job has no ConfigMap: whoever made it died in between.
    CreateInput {
        /// What it is to hold.
        task: PrefillTask,
        /// Its owner.
        job: JobRef,
    },
    /// It is this Job's turn: un-suspend it.
    Admit(JobRef),
    /// The prefill is paused: suspend the Job, and let it wait to be admitted again.
    Suspend(JobRef),
    /// Somebody has changed the labels that the Job is found by: put them right.
    Relabel {
        /// Where.
        job: JobRef,
        /// All of them.
        labels: BTreeMap<String, String>,
    },
    /// Do what somebody asks for by an annotation.
    Obey {
        /// Where it stands.
        job: JobRef,
        /// What is asked for.
        request: Request,
    },
    /// What somebody asks for by an annotation can't be done: say so.
    Refuse {
        /// Where it stands.
        job: JobRef,
        /// What is asked for.
        asked: String,
        /// Why not.
        why: &'static str,
    },
    /// Somebody else un-suspended the Job: note that it has been admitted, so that a later suspension is respected.
    Adopt(JobRef),
    /// Show state, reason and progress in the Job's annotations.
    Show {
        /// Where.
        job: JobRef,
        /// `headstart/state`.
        state: PrefillState,
        /// `headstart/reason`.
        reason: Option<Reason>,
        /// The reason in a sentence, for the Event if nobody has told it yet.
        message: Option<String>,
        /// `headstart/progress`.
        progress: Option<String>,
    },
    /// Remove a Job and its pods.
    Delete {
        /// Which.
        job: JobRef,
        /// Why.
        why: Deletion,
    },
    /// Nothing to do before that moment, when a deadline passes.
    LookAgain(Moment),
}

/// Why a Job is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deletion {
    /// The attempt has failed, or is done, and its Job goes on.
    Ended,
    /// It ended, was recorded, and has been kept long enough.
    Kept,
    /// It belongs to no current attempt: subscription gone, another incarnation, an earlier attempt.
    Unwanted,
}

impl Deletion {
    /// The word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Kept => "kept",
            Self::Unwanted => "unwanted",
        }
    }
}

/// Decides about one subscription.
#[must_use]
pub fn decide(observed: &Observed, rules: &Rules, now: Moment) -> Vec<Action> {
    let mut actions = Vec::new();
    if let Some(entry) = observed.entry.as_ref().filter(|entry| has_prefill(entry)) {
        match job::verdict(observed, entry, rules, now) {
            Verdict::Nothing => {}
            Verdict::Is(state, because) => actions.extend(record(observed, entry, state, because)),
            Verdict::Soon(at) => actions.push(Action::LookAgain(at)),
            Verdict::IsUntil(state, because, at) => {
                actions.extend(record(observed, entry, state, because));
                actions.push(Action::LookAgain(at));
            }
            Verdict::Do(action) => actions.push(*action),
        }
        let done = |action: &Action| matches!(action, Action::Record { state: PrefillState::Done, .. });
        if !actions.iter().any(done)
            && let Some(answer) = request::answer(observed, entry)
        {
            // It changes what is to be decided.
            return vec![answer];
        }
        actions.extend(show::show(observed, entry, rules, now));
    }
    actions.extend(cleanup::cleanup(observed, rules, now));
    actions
}

/// Only a ready subscription has a prefill to care for: what is half registered is completed by the client's next
/// request or rolled back by the sweep, what is being removed needs no state.
fn has_prefill(entry: &Subscription) -> bool {
    entry.lifecycle == Lifecycle::Ready && entry.prefill.attempt > 0
}

/// May this be written into the entry, as the leader knows it? It must still be about that attempt; done is the end,
/// and failed becomes done only: whoever decided otherwise had an older view.
#[must_use]
pub fn may_record(current: &Subscription, identity: &Identity, to: PrefillState) -> bool {
    let same = current.lifecycle == Lifecycle::Ready
        && current.incarnation == identity.incarnation
        && current.prefill.attempt == identity.attempt;
    same && match current.prefill.state {
        PrefillState::Done => false,
        PrefillState::Failed => matches!(to, PrefillState::Done | PrefillState::Failed),
        PrefillState::Running => to != PrefillState::Pending,
        PrefillState::Pending => true,
    }
}

/// A reason and its sentence.
type Because = Option<(Reason, Option<String>)>;

/// Recorded once: the sentence may change while the word stays (the back-off of an image pull), and that is not
/// worth a write.
fn record(
    observed: &Observed,
    entry: &Subscription,
    state: PrefillState,
    because: Because,
) -> Option<Action> {
    let (reason, message) = because.map_or((None, None), |(reason, message)| (Some(reason), message));
    if (entry.prefill.state, entry.prefill.reason) == (state, reason) {
        return None;
    }
    let objects = match &observed.fence {
        FenceSeen::Found(fence) if state == PrefillState::Done => {
            fence.counts.as_ref().map(|counts| counts.messages)
        }
        _ => None,
    };
    Some(Action::Record {
        identity: Identity::from(&PrefillTask::of(entry)),
        state,
        reason,
        message,
        objects,
        job: observed.current_job().map(|job| job.job.clone()),
    })
}
