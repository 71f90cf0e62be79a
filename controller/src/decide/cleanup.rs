//! Which Jobs go, and when.

use model::{PrefillState, Subscription, subscription::Lifecycle};

use super::{Action, Deletion, Rules};
use crate::observed::{Fate, JobSeen, Moment, Observed, Sight};

pub(super) fn cleanup(observed: &Observed, rules: &Rules, now: Moment) -> Vec<Action> {
    observed
        .jobs
        .iter()
        .filter(|job| !job.being_deleted && job.job.identity.subscription == observed.subscription)
        .filter_map(|job| {
            let (why, at) = due(observed, job, rules)?;
            Some(if at <= now { Action::Delete { job: job.job.clone(), why } } else { Action::LookAgain(at) })
        })
        .collect()
}

/// When and why a Job is to go; `None` if it stays.
fn due(observed: &Observed, job: &JobSeen, rules: &Rules) -> Option<(Deletion, Moment)> {
    let entry = observed.entry.as_ref();
    let failed = entry.is_some_and(|entry| entry.prefill.state == PrefillState::Failed);
    if let Some(since) = job.since(Sight::Unwanted) {
        if entry.is_some_and(|entry| is_last_that_failed(entry, job, &observed.jobs)) {
            return Some((Deletion::Kept, since + rules.retention_failed));
        }
        // A subscription that is being removed never comes back; anything else may be a view that lags behind.
        let grace = match entry {
            Some(entry) if entry.lifecycle == Lifecycle::Deleting => std::time::Duration::ZERO,
            _ => rules.grace,
        };
        return Some((Deletion::Unwanted, since + grace));
    }
    if let Some(since) = job.since(Sight::Lingering) {
        // A failed attempt must really end: an image that comes hours later must not start it again.
        let linger = if failed { std::time::Duration::ZERO } else { rules.linger };
        return Some((Deletion::Ended, since + linger));
    }
    let since = job.since(Sight::Recorded)?;
    let retention = if failed { rules.retention_failed } else { rules.retention_done };
    Some((Deletion::Kept, since + retention))
}

/// Whether its logs are the last ones that tell of a failure: a retry must not take them away. One that still runs goes, and
/// so do those that failed before it.
fn is_last_that_failed(entry: &Subscription, job: &JobSeen, all: &[JobSeen]) -> bool {
    let failed = |job: &JobSeen| match job.fate {
        Fate::Open => false,
        Fate::Failed { .. } => true,
        Fate::Complete => {
            let attempt = job.job.identity.attempt;
            let past = entry.prefill.attempts.iter().find(|past| past.attempt == attempt);
            past.is_some_and(|past| past.state == PrefillState::Failed)
        }
    };
    let attempt_of = |job: &JobSeen| {
        let identity = &job.job.identity;
        (identity.incarnation == entry.incarnation).then_some(identity.attempt)
    };
    let Some(attempt) = attempt_of(job) else { return false };
    entry.lifecycle == Lifecycle::Ready
        && attempt < entry.prefill.attempt
        && failed(job)
        && !all.iter().any(|other| failed(other) && attempt_of(other).is_some_and(|later| later > attempt))
}

/// May this Job be deleted, as the leader knows the entry at this moment? Asked right before the deletion, because
/// the decision was made on a view that may lag behind: a Job newer than our view of its subscription must stay.
#[must_use]
pub fn deletion_is_justified(entry: Option<&Subscription>, job: &crate::observed::JobRef) -> bool {
    let Some(entry) = entry else { return true };
    !job.is_of(entry) || matches!(entry.prefill.state, PrefillState::Done | PrefillState::Failed)
}
