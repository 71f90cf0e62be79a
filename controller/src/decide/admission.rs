//! Who may run: the oldest first, so many at once. Counted from the Jobs that exist, never from memory of our own
//! deeds, which would leak places.

use std::collections::HashSet;

use model::{PrefillState, Subscription, subscription::Lifecycle};

use crate::observed::{Fate, JobSeen};

/// A Job, as far as admission cares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Applicant {
    /// When it was made, in unix seconds.
    pub created: i64,
    /// Its name: decides between two of the same second.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What it wants.
    pub wants: Wants,
}

/// What a Job means to admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// It runs: it has a place.
    HasPlace,
    /// It waits for one.
    Place,
    /// It has ended, is suspended by somebody else, or can't start yet.
    Nothing,
}

impl Applicant {
    /// What a Job of that subscription wants. `unfit`: its ConfigMap was not right when it was looked at last; it
    /// must not keep others from their place.
    #[must_use]
    pub fn new(entry: Option<&Subscription>, job: &JobSeen, unfit: bool) -> Self {
        let wants = if job.takes_a_place() {
            Wants::HasPlace
        } else if !unfit && entry.is_some_and(|entry| waits(entry, job)) {
            Wants::Place
        } else {
            Wants::Nothing
        };
        Self { created: job.created, name: job.job.identity.job_name(), uid: job.job.uid.clone(), wants }
    }
}

fn waits(entry: &Subscription, job: &JobSeen) -> bool {
    entry.lifecycle == Lifecycle::Ready
        && matches!(entry.prefill.state, PrefillState::Pending | PrefillState::Running)
        && !entry.prefill.paused
        && entry.prefill.boundary.is_some()
        && job.is_of(entry)
        && job.suspended
        && !job.admitted
        && !job.being_deleted
        && job.fate == Fate::Open
}

/// UIDs of the Jobs whose turn it is.
#[must_use]
pub fn turns(applicants: &[Applicant], limit: usize) -> HashSet<String> {
    let running = applicants.iter().filter(|job| job.wants == Wants::HasPlace).count();
    let mut waiting: Vec<&Applicant> = applicants.iter().filter(|job| job.wants == Wants::Place).collect();
    waiting.sort();
    waiting.into_iter().take(limit.saturating_sub(running)).map(|job| job.uid.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicant(created: i64, uid: &str, wants: Wants) -> Applicant {
        Applicant { created, name: uid.to_owned(), uid: uid.to_owned(), wants }
    }

    fn turns_of(limit: usize, jobs: &[(i64, &str, Wants)]) -> Vec<String> {
        let jobs: Vec<_> = jobs.iter().map(|(at, uid, wants)| applicant(*at, uid, *wants)).collect();
        let mut turns: Vec<_> = turns(&jobs, limit).into_iter().collect();
        turns.sort();
        turns
    }

    #[test]
    fn the_oldest_go_first_as_far_as_there_are_places() {
        use Wants::{HasPlace, Nothing, Place};
        let jobs = [(3, "c", Place), (1, "a", Place), (2, "b", Place), (0, "x", HasPlace), (0, "y", Nothing)];
        assert_eq!(turns_of(0, &jobs), [""; 0]);
        assert_eq!(turns_of(1, &jobs), [""; 0], "the one place is taken");
        assert_eq!(turns_of(2, &jobs), ["a"]);
        assert_eq!(turns_of(3, &jobs), ["a", "b"]);
        assert_eq!(turns_of(9, &jobs), ["a", "b", "c"]);
    }

    #[test]
    fn in_one_second_the_name_decides() {
        use Wants::Place;
        assert_eq!(turns_of(1, &[(1, "b", Place), (1, "a", Place)]), ["a"]);
    }

    #[test]
    fn more_may_run_than_the_limit_when_somebody_resumes_by_hand() {
        use Wants::{HasPlace, Place};
        assert_eq!(turns_of(1, &[(1, "a", HasPlace), (2, "b", HasPlace), (3, "c", Place)]), [""; 0]);
    }
}
