//! Which Jobs go, and when.

use model::{Lifecycle, PrefillState, Subscription};

use super::{Action, Deletion, Rules};
use crate::observed::{JobSeen, Moment, Observed, Sight};

pub(super) fn cleanup(observed: &Observed, rules: &Rules, now: Moment) -> Vec<Action> {
    observed
        .jobs
        .iter()
        .filter(|job| !job.being_deleted)
        .filter_map(|job| {
            let (why, at) = due(observed.entry.as_ref(), job, rules)?;
            Some(if at <= now { Action::Delete { job: job.job.clone(), why } } else { Action::LookAgain(at) })
        })
        .collect()
}

/// When and why a Job is to go; `None` if it stays.
fn due(entry: Option<&Subscription>, job: &JobSeen, rules: &Rules) -> Option<(Deletion, Moment)> {
    let failed = entry.is_some_and(|entry| entry.prefill.state == PrefillState::Failed);
    if let Some(since) = job.since(Sight::Unwanted) {
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

/// May this Job be deleted, as the leader knows the entry at this moment? Asked right before the deletion, because
/// the decision was made on a view that may lag behind: a Job newer than our view of its subscription must stay.
#[must_use]
pub fn deletion_is_justified(entry: Option<&Subscription>, job: &crate::observed::JobRef) -> bool {
    let Some(entry) = entry else { return true };
    let current = entry.lifecycle != Lifecycle::Deleting
        && entry.incarnation == job.identity.incarnation
        && entry.prefill.attempt == job.identity.attempt;
    !current || matches!(entry.prefill.state, PrefillState::Done | PrefillState::Failed)
}
