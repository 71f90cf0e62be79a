//! What the controller remembers between two looks. All of it may be lost: deadlines then count anew, and a place may
//! be given once too often.

use std::collections::{HashMap, HashSet};

use model::{PrefillState, Reason, Subscription};

use crate::observed::{JobSeen, Moment, Sight};

/// First sights, and what the caches do not know yet.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    sights: HashMap<(String, Sight), Moment>,
    progress_at: HashMap<String, Moment>,
    unfit: HashSet<String>,
    /// UID of a Job that the API server refused to start, and until when it is out of the queue.
    refused: HashMap<String, Moment>,
    /// UID of a Job that we admitted, and the version that it had before.
    admitted: HashMap<String, String>,
    /// What was told of a Job last, by its UID.
    told: HashMap<String, (PrefillState, Option<Reason>)>,
}

impl Memory {
    /// Notes first sights of what holds now, and tells the Job since when.
    pub(crate) fn see(&mut self, entry: Option<&Subscription>, job: &mut JobSeen, now: Moment) {
        let uid = &job.job.uid;
        job.since = Sight::ALL
            .into_iter()
            .filter_map(|sight| {
                let key = (uid.clone(), sight);
                if sight.holds(entry, job) {
                    Some((sight, *self.sights.entry(key).or_insert(now)))
                } else {
                    self.sights.remove(&key);
                    None
                }
            })
            .collect();
        job.shown.progress_at = self.progress_at.get(uid).copied();
    }

    /// A watch was interrupted: what we take for lasting may have changed meanwhile, and the kubelet may have been as
    /// blind as we were. Start deadlines count anew; `activeDeadlineSeconds` stands behind them.
    pub(crate) fn count_starts_anew(&mut self) {
        self.sights.retain(|(_, sight), _| !matches!(sight, Sight::Unstarted | Sight::Stuck));
    }

    pub(crate) fn progress_shown(&mut self, uid: &str, now: Moment) {
        self.progress_at.insert(uid.to_owned(), now);
    }

    /// Notes what is told of a Job; false: it was told before.
    pub(crate) fn tells(&mut self, uid: &str, state: PrefillState, reason: Option<Reason>) -> bool {
        self.told.insert(uid.to_owned(), (state, reason)) != Some((state, reason))
    }

    /// Whether the Job's ConfigMap was right at the last look.
    pub(crate) fn set_unfit(&mut self, uid: &str, unfit: bool) {
        if unfit {
            self.unfit.insert(uid.to_owned());
        } else {
            self.unfit.remove(uid);
        }
    }

    pub(crate) fn is_unfit(&self, uid: &str) -> bool {
        self.unfit.contains(uid)
    }

    pub(crate) fn set_refused(&mut self, uid: &str, until: Moment) {
        self.refused.insert(uid.to_owned(), until);
    }

    /// Until when the Job is out of the queue, if it is.
    pub(crate) fn refused_until(&self, uid: &str, now: Moment) -> Option<Moment> {
        self.refused.get(uid).copied().filter(|until| *until > now)
    }

    /// We have admitted it when it was of that version: the next one has a place, whatever the cache says.
    pub(crate) fn set_admitted(&mut self, uid: &str, version: &str) {
        self.admitted.insert(uid.to_owned(), version.to_owned());
    }

    /// Does the cache show a Job that we have admitted since?
    pub(crate) fn is_admitted_since(&self, uid: &str, version: &str) -> bool {
        self.admitted.get(uid).is_some_and(|before| before == version)
    }

    /// Forgets Jobs that are gone.
    pub(crate) fn keep_only(&mut self, uids: &HashSet<&str>) {
        self.sights.retain(|(uid, _), _| uids.contains(uid.as_str()));
        self.progress_at.retain(|uid, _| uids.contains(uid.as_str()));
        self.unfit.retain(|uid| uids.contains(uid.as_str()));
        self.refused.retain(|uid, _| uids.contains(uid.as_str()));
        self.admitted.retain(|uid, _| uids.contains(uid.as_str()));
        self.told.retain(|uid, _| uids.contains(uid.as_str()));
    }
}
