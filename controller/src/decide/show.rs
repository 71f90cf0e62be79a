//! What the annotations of a Job show: state, reason and progress, for `kubectl describe` and custom columns.

use model::{PrefillState, Subscription, prefill::Progress, shorten};

use super::{Action, Rules};
use crate::observed::{Moment, Observed};

/// Longest line about the progress, in bytes: it holds the last error, in others' words.
const PROGRESS_MAX: usize = 1000;

pub(super) fn show(observed: &Observed, entry: &Subscription, rules: &Rules, now: Moment) -> Vec<Action> {
    let mut actions = Vec::new();
    let Some(job) = observed.current_job().filter(|job| !job.being_deleted) else { return actions };
    if observed.index.iter().any(|(key, value)| job.labels.get(key) != Some(value)) {
        actions.push(Action::Relabel { job: job.job.clone(), labels: observed.index.clone() });
    }
    if !job.suspended && !job.admitted && !entry.prefill.paused {
        actions.push(Action::Adopt(job.job.clone()));
    }
    let shown = &job.shown;
    let prefill = &entry.prefill;
    let state_differs = shown.state.as_deref() != Some(prefill.state.as_str())
        || shown.reason.as_deref() != prefill.reason.map(|reason| reason.as_str());
    let line = observed.progress.as_ref().map(|progress| shorten(&progress.to_string(), PROGRESS_MAX));
    let mut progress = line.or_else(|| shown.progress.clone());
    if matches!(prefill.state, PrefillState::Done | PrefillState::Failed) {
        // How far it came, but nothing is tried again any more.
        progress =
            progress.map(|line| line.split(Progress::TRYING_AGAIN).next().unwrap_or_default().to_owned());
    }
    let next = shown.progress_at.map_or(now, |at| at + rules.progress_every);
    if state_differs || (progress != shown.progress && next <= now) {
        actions.push(Action::Show {
            job: job.job.clone(),
            state: prefill.state,
            reason: prefill.reason,
            message: prefill.message.clone(),
            progress,
        });
    } else if progress != shown.progress {
        actions.push(Action::LookAgain(next));
    }
    actions
}
