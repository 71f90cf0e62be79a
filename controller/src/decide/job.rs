//! The verdict on the current attempt, from fence, Job and Pods, in this order.

use std::time::Duration;

use manifests::Identity;
use model::{
    PrefillState, Reason, Subscription,
    fence::{Counts, FenceState},
    prefill::{PAUSED_TEXT, PrefillTask},
    resync::{RemovalsByType, held_text},
};

use super::{Action, Because, Rules};
use crate::{
    observed::{Fate, FenceSeen, InputSeen, JobSeen, Moment, Observed, Place, PodPhase, Sight},
    reason,
};

/// What the attempt is.
pub(super) enum Verdict {
    /// There is nothing to say, or not enough is known.
    Nothing,
    /// In that state, for that reason.
    Is(PrefillState, Because),
    /// The same, and a deadline follows.
    IsUntil(PrefillState, Because, Moment),
    /// Nothing yet: look again.
    Soon(Moment),
    /// Something else is to be done first.
    Do(Box<Action>),
}

impl Verdict {
    fn act(action: Action) -> Self {
        Self::Do(Box::new(action))
    }

    fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::Is(PrefillState::Failed, Some((reason, Some(message.into()))))
    }
}

pub(super) fn verdict(observed: &Observed, entry: &Subscription, rules: &Rules, now: Moment) -> Verdict {
    let attempt = entry.prefill.attempt;
    if entry.prefill.state == PrefillState::Done {
        return Verdict::Nothing;
    }
    // The fence first: a pod may be killed after its seal and before its exit, a Job deleted before it was seen.
    match &observed.fence {
        FenceSeen::NotRead => {}
        FenceSeen::Missing => {
            return Verdict::failed(
                Reason::Broken,
                "the queue's stream is gone, and its events with it: delete the subscription and register again",
            );
        }
        FenceSeen::Found(fence) if fence.seals(entry.incarnation, attempt) => {
            let lacks = fence.counts.as_ref().and_then(Counts::notable);
            return Verdict::Is(PrefillState::Done, lacks.map(|(reason, message)| (reason, Some(message))));
        }
        // Complete, and whatever became of its Job: a person decides.
        FenceSeen::Found(fence) if fence.holds(entry.incarnation, attempt) => {
            let nothing = RemovalsByType::new();
            let removals = fence.counts.as_ref().map_or(&nothing, |counts| &counts.removals);
            return Verdict::failed(Reason::TooManyRemovals, held_text(removals));
        }
        FenceSeen::Found(fence)
            if fence.attempt == attempt
                && fence.state == FenceState::Cancelled
                && entry.prefill.state != PrefillState::Failed =>
        {
            return Verdict::failed(Reason::Cancelled, "the prefill was cancelled");
        }
        // Our view of the entry is older than the queue: the watch will tell.
        FenceSeen::Found(fence) if fence.attempt > attempt => return Verdict::Nothing,
        FenceSeen::Found(_) => {}
    }
    // Failed stays failed until somebody asks again, unless it could not even start; a seal makes it done after all.
    if entry.prefill.state == PrefillState::Failed {
        return start_again(observed, entry, rules, now);
    }
    match observed.current_job() {
        None => missing_job(observed, entry),
        Some(job) => existing_job(observed, entry, job, rules, now),
    }
}

fn missing_job(observed: &Observed, entry: &Subscription) -> Verdict {
    if observed.fence == FenceSeen::NotRead {
        return Verdict::Nothing;
    }
    let in_the_way = observed.jobs.iter().find(|job| job.job.has_the_name_of(entry));
    match entry.prefill.state {
        // Its pod may have the fence under this attempt's number, so the number is not used.
        PrefillState::Pending if let Some(job) = in_the_way => Verdict::act(Action::NextAttempt {
            identity: Identity::from(&PrefillTask::of(entry)),
            job: job.job.clone(),
            reason: Reason::NameTaken,
            message: "there is a Job of this attempt that NATS does not know any more, since it was put back to an \
                      earlier time; the Job is deleted, and another attempt takes over"
                .to_owned(),
        }),
        PrefillState::Pending => Verdict::act(Action::CreateJob(PrefillTask::of(entry))),
        _ => deleted(),
    }
}

fn deleted() -> Verdict {
    Verdict::failed(Reason::JobDeleted, "the Job was deleted while it ran; ask for the prefill again")
}

fn existing_job(
    observed: &Observed,
    entry: &Subscription,
    job: &JobSeen,
    rules: &Rules,
    now: Moment,
) -> Verdict {
    match &job.fate {
        // Whatever ended is judged with the fence only.
        Fate::Complete | Fate::Failed { .. } if observed.fence == FenceSeen::NotRead => Verdict::Nothing,
        Fate::Complete => Verdict::failed(
            Reason::EndedWithoutSeal,
            "the Job is complete, but the prefill was not sealed: its pod ended too early, or wrote elsewhere",
        ),
        Fate::Failed { reason, message } => {
            let (reason, message) = reason::of_failed_job(reason, message, job.last_end());
            Verdict::failed(reason, message)
        }
        Fate::Open if job.being_deleted => match entry.prefill.state {
            PrefillState::Running => deleted(),
            _ => Verdict::Is(
                PrefillState::Pending,
                Some((Reason::JobDeleted, Some("the Job is being deleted; another one follows".into()))),
            ),
        },
        Fate::Open
            if !job.ends_for_good
                && observed.fence != FenceSeen::NotRead
                && let Some(end) = job.permanent_end() =>
        {
            let (reason, message) = reason::of_failed_job("not tried again", "", Some(end));
            Verdict::failed(reason, message)
        }
        Fate::Open if entry.prefill.paused => paused(entry, job),
        Fate::Open if job.suspended => suspended(observed, entry, job, rules, now),
        Fate::Open => started(entry, job, rules, now),
    }
}

/// A Job that somebody else has suspended is taken over, so that whoever resumes the prefill resumes it.
fn paused(entry: &Subscription, job: &JobSeen) -> Verdict {
    if !job.suspended || job.admitted {
        return Verdict::act(Action::Suspend(job.job.clone()));
    }
    Verdict::Is(entry.prefill.state, Some((Reason::Paused, Some(PAUSED_TEXT.to_owned()))))
}

fn suspended(
    observed: &Observed,
    entry: &Subscription,
    job: &JobSeen,
    rules: &Rules,
    now: Moment,
) -> Verdict {
    if job.admitted {
        let message = format!(
            "the Job was suspended by somebody else; `kubectl patch job {} --type=merge -p \
             '{{\"spec\":{{\"suspend\":false}}}}'` lets it go on",
            job.job.identity.job_name()
        );
        return Verdict::Is(entry.prefill.state, Some((Reason::Suspended, Some(message))));
    }
    let wait = |reason, message: &str| {
        let seen = job.since(Sight::Waiting).unwrap_or(now);
        settled(entry, entry.prefill.state, reason, Some(message.to_owned()), seen, rules, now)
    };
    if entry.prefill.boundary.is_none() {
        return wait(
            Reason::WaitingForBoundary,
            "waits for the dispatcher to reach the marker in the event log",
        );
    }
    match observed.place {
        Place::Taken => {
            return wait(Reason::Queued, "waits for a free place: as many prefills run as may run at once");
        }
        Place::Refused { until } => return Verdict::Soon(until),
        Place::Free => {}
    }
    match job.input {
        InputSeen::NotRead => Verdict::Nothing,
        InputSeen::Missing => {
            Verdict::act(Action::CreateInput { task: PrefillTask::of(entry), job: job.job.clone() })
        }
        InputSeen::Foreign => wait(
            Reason::PodConfig,
            "the ConfigMap belongs to a former Job of this name; waits until Kubernetes has collected it",
        ),
        InputSeen::Ours => Verdict::act(Action::Admit(job.job.clone())),
    }
}

fn started(entry: &Subscription, job: &JobSeen, rules: &Rules, now: Moment) -> Verdict {
    if job.runs() {
        return running(job, rules, now);
    }
    if let Some(since) = job.since(Sight::Stuck) {
        return stuck(entry, job, since, rules, now);
    }
    // A pod has run already: the attempt is under way, whatever we saw of it.
    let tried = job.failures > 0 || job.last_end().is_some();
    let state = if tried { PrefillState::Running } else { entry.prefill.state };
    if job.waits_for_quota(entry) {
        let message = job.evidence.as_ref().map(|(_, text)| text).or(entry.prefill.message.as_ref()).cloned();
        return Verdict::Is(state, Some((Reason::QuotaExceeded, message)));
    }
    if let Some(text) = job.unschedulable() {
        return Verdict::Is(state, Some((Reason::Unschedulable, Some(text))));
    }
    if job.input == InputSeen::Missing {
        // Deleted after the Job was admitted: no further pod of it could start.
        return Verdict::act(Action::CreateInput { task: PrefillTask::of(entry), job: job.job.clone() });
    }
    let since = job.since(Sight::Unstarted).unwrap_or(now);
    let deadline = since + rules.start_deadline + retry_delay(job);
    let hindrance = hindrance(job);
    if deadline <= now {
        let waited = rules.start_deadline.as_secs();
        let (reason, text) = hindrance
            .unwrap_or_else(|| (Reason::StartDeadline, "neither the pod nor its events say why".to_owned()));
        let again = match rules.start_again.get(failed_starts(entry)) {
            Some(pause) if is_failed_start(reason) => {
                format!("another attempt begins in {} min", pause.as_secs().div_ceil(60))
            }
            _ => "ask for the prefill again".to_owned(),
        };
        let text = reason::shorten(&text);
        return Verdict::failed(reason, format!("no pod ran within {waited} s ({again}): {text}"));
    }
    match hindrance {
        Some((reason, text)) => Verdict::IsUntil(state, Some((reason, Some(text))), deadline),
        None if job.is_decided() => Verdict::Soon(deadline),
        None => {
            let message = Some("the pod has been asked for, but does not run yet".to_owned());
            match settled(entry, state, Reason::Starting, message, since, rules, now) {
                Verdict::Is(state, because) => Verdict::IsUntil(state, because, deadline),
                soon => soon,
            }
        }
    }
}

/// A deadline that will pass is worth a word while it can still be raised.
fn running(job: &JobSeen, rules: &Rules, now: Moment) -> Verdict {
    let (Some(late), Some(since)) = (job.late, job.since(Sight::Late)) else {
        return Verdict::Is(PrefillState::Running, None);
    };
    let at = since + rules.late_after;
    if at > now {
        return Verdict::IsUntil(PrefillState::Running, None, at);
    }
    let [needs, left] = [late.needs, late.left].map(|time| time.as_secs().div_ceil(60));
    let message = format!(
        "at its speed of late it takes {needs} min more at least, and Kubernetes ends its Job in {left} min \
         (prefill.config.activeDeadlineSeconds): raise that, cancel it and ask again, or look why the directory is slow"
    );
    Verdict::Is(PrefillState::Running, Some((Reason::DeadlineTooShort, Some(message))))
}

/// What is missing may come later: a Secret, an image, a rule that is corrected. At night nobody asks again.
fn start_again(observed: &Observed, entry: &Subscription, rules: &Rules, now: Moment) -> Verdict {
    if !entry.prefill.reason.is_some_and(is_failed_start) {
        return Verdict::Nothing;
    }
    // The attempt that has failed now is among them.
    let Some(pause) = rules.start_again.get(failed_starts(entry).saturating_sub(1)) else {
        return Verdict::Nothing;
    };
    let at = observed.failed_since.unwrap_or(now) + *pause;
    if at > now {
        return Verdict::Soon(at);
    }
    Verdict::act(Action::StartAgain(Identity::from(&PrefillTask::of(entry))))
}

/// Whether an attempt that failed for this has done nothing at all.
pub(crate) fn is_failed_start(reason: Reason) -> bool {
    matches!(reason, Reason::ImagePull | Reason::PodConfig | Reason::PodRefused | Reason::StartDeadline)
}

/// How many of the last attempts of this round could not start.
fn failed_starts(entry: &Subscription) -> usize {
    let round = entry.prefill.round;
    let failed = |past: &&model::prefill::PastAttempt| {
        past.round == round && past.state == PrefillState::Failed && past.reason.is_some_and(is_failed_start)
    };
    entry.prefill.attempts.iter().rev().take_while(failed).count()
}

/// A reason is written once it has lasted a moment, or at once when it replaces another one, which is wrong by now.
fn settled(
    entry: &Subscription,
    state: PrefillState,
    reason: Reason,
    message: Option<String>,
    since: Moment,
    rules: &Rules,
    now: Moment,
) -> Verdict {
    let fresh = entry.prefill.reason.is_none() && entry.prefill.state == state;
    if fresh && since + rules.settle > now {
        return Verdict::Soon(since + rules.settle);
    }
    Verdict::Is(state, Some((reason, message)))
}

/// What keeps the pod from running, by the pod itself, by events, or by the try before.
fn hindrance(job: &JobSeen) -> Option<(Reason, String)> {
    let said = job.living_pods().find_map(|pod| match &pod.phase {
        PodPhase::Pending(Some((reason, text))) if !pod.terminating => {
            Some((*reason, format!("pod {}: {text}", pod.name)))
        }
        _ => None,
    });
    said.or_else(|| job.evidence.clone()).or_else(|| {
        let end = job.last_end().filter(|_| !job.is_decided())?;
        // Between two tries.
        job.living_pods().next().is_none().then(|| reason::of_retry(end))
    })
}

/// Kubernetes waits 10 s · 2^(failures − 1) between tries, at most 10 min (`DefaultJobPodFailureBackOff`,
/// `MaxJobPodFailureBackOff`): time in which no pod is to be expected.
fn retry_delay(job: &JobSeen) -> Duration {
    let failures = job.failures.max(u32::try_from(job.ended_badly()).unwrap_or(u32::MAX));
    match failures {
        0 => Duration::ZERO,
        n => Duration::from_secs(10 << (n - 1).min(6)).min(Duration::from_secs(600)),
    }
}

fn stuck(entry: &Subscription, job: &JobSeen, since: Moment, rules: &Rules, now: Moment) -> Verdict {
    let deadline = since + rules.stuck_after;
    let after = rules.stuck_after.as_secs();
    let (reason, message) = match job.living_pods().find_map(|pod| pod.disrupted.as_ref()) {
        Some(why) => (
            Reason::Disrupted,
            format!("another pod follows when this one has ended, another attempt after {after} s: {why}"),
        ),
        None => (
            Reason::StuckTerminating,
            format!(
                "the pod was asked to end and does not, most often because its node is lost; another attempt begins \
                 after {after} s"
            ),
        ),
    };
    if deadline > now {
        return match settled(entry, entry.prefill.state, reason, Some(message), since, rules, now) {
            Verdict::Is(state, because) => Verdict::IsUntil(state, because, deadline),
            soon => soon,
        };
    }
    Verdict::act(Action::NextAttempt {
        identity: Identity::from(&PrefillTask::of(entry)),
        job: job.job.clone(),
        reason: Reason::StuckTerminating,
        message: "the pod did not end; another attempt takes over".to_owned(),
    })
}
