//! What a worker makes of an entry and of an outcome: no NATS, no clock.

use std::time::Duration;

use model::{Prefill, PrefillState, Reason, fence::Counts, prefill::PAUSED_TEXT, resync::held_text};

use crate::outcome::{Failure, Outcome};

/// What the entry is to say: state, reason and sentence.
pub(super) type Told = (PrefillState, Option<Reason>, Option<String>);

/// What an entry wants of the worker that has the task of its current attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Work on it.
    Work,
    /// It is paused.
    Wait,
    /// It has ended.
    Nothing,
}

/// What becomes of a task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is over, and recorded.
    Finish,
    /// It is over until somebody resumes the prefill, and queues another one.
    Pause,
    /// It comes again after a pause.
    Retry(Duration),
    /// A twin works on it, or nothing is known: the server hands it out again by itself.
    Leave,
}

impl Fate {
    /// Does it not come again?
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Finish | Self::Pause)
    }
}

/// How a run of an attempt ended.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub outcome: &'a Outcome,
    /// It was stopped because the prefill was paused, and the entry said so.
    pub stopped: bool,
    /// It was the last try.
    pub last: bool,
    /// How long the next try waits.
    pub pause: Duration,
}

fn wish(now: &Prefill) -> Wish {
    match now.state {
        PrefillState::Pending | PrefillState::Running if now.paused => Wish::Wait,
        PrefillState::Pending | PrefillState::Running => Wish::Work,
        PrefillState::Failed | PrefillState::Done => Wish::Nothing,
    }
}

/// The worker has stopped, or has not begun.
fn waits(now: &Prefill) -> Told {
    (now.state, Some(Reason::Paused), Some(PAUSED_TEXT.to_owned()))
}

/// Before the work.
pub(super) fn begin(now: &Prefill) -> (Option<Told>, Wish) {
    let wish = wish(now);
    let told = match wish {
        Wish::Work => Some((PrefillState::Running, None, None)),
        Wish::Wait => Some(waits(now)),
        Wish::Nothing => None,
    };
    (told, wish)
}

/// During the work: is it to stop?
pub(super) fn stop(now: &Prefill) -> (Option<Told>, bool) {
    let stop = wish(now) == Wish::Wait;
    (stop.then(|| waits(now)), stop)
}

/// After the work.
pub(super) fn end(now: &Prefill, end: &End<'_>) -> (Option<Told>, Fate) {
    let End { outcome, stopped, last, pause } = *end;
    let (told, fate) = match outcome {
        Outcome::Done(counts) => {
            let (reason, message) = counts.as_ref().and_then(Counts::notable).unzip();
            (Some((PrefillState::Done, reason, message)), Fate::Finish)
        }
        // Nothing to be tried again: somebody has to decide.
        Outcome::Held(counts) => {
            let message = Some(held_text(&counts.removals));
            (Some((PrefillState::Failed, Some(Reason::TooManyRemovals), message)), Fate::Finish)
        }
        Outcome::Obsolete => (None, Fate::Finish),
        // Whoever cancels writes the fence first, and may have ended before the state was recorded.
        Outcome::Cancelled => {
            let message = Some("cancelled by a request".to_owned());
            (Some((PrefillState::Failed, Some(Reason::Cancelled), message)), Fate::Finish)
        }
        Outcome::Failed(failure) if failure.lost_to_twin => (None, Fate::Leave),
        Outcome::Failed(Failure { code, reason, message, .. }) => {
            let (reason, message) = (Some(*reason), Some(message.clone()));
            let waiting = wish(now) == Wish::Wait;
            if code.is_permanent() {
                (Some((PrefillState::Failed, reason, message)), Fate::Finish)
            } else if waiting || stopped {
                // It would have been tried again. Resumed meanwhile, it has another task, whose worker has the word.
                (waiting.then(|| waits(now)), Fate::Pause)
            } else if last {
                (Some((PrefillState::Failed, reason, message)), Fate::Finish)
            } else {
                // Still running, with what is wrong for all to see.
                (Some((PrefillState::Running, reason, message)), Fate::Retry(pause))
            }
        }
    };
    (told.filter(|(state, ..)| may_become(now, *state)), fate)
}

/// May a prefill get this state from a worker? A task may come again after its end was recorded, or after somebody has
/// cancelled it: what has ended stays so. An attempt that was sealed is done, whatever was recorded before.
fn may_become(now: &Prefill, state: PrefillState) -> bool {
    match now.state {
        PrefillState::Done => state == PrefillState::Done,
        PrefillState::Failed => state == PrefillState::Done && now.reason != Some(Reason::Cancelled),
        PrefillState::Pending | PrefillState::Running => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PrefillState::{Done, Failed, Pending, Running};
    use model::ExitCode;

    const PAUSE: Duration = Duration::from_secs(3);

    fn prefill(state: PrefillState, reason: Option<Reason>, paused: bool) -> Prefill {
        let registration = model::subscription::Registration {
            request_prefill: true,
            ..model::subscription::Registration::new("mail".parse().unwrap(), vec![])
        };
        let now = "2026-01-01T00:00:00".parse().unwrap();
        let incarnation = model::Incarnation(uuid::Uuid::from_u128(1));
        let s = model::Subscription::reserve(registration, incarnation, 1, now);
        Prefill { state, reason, paused, ..s.prefill }
    }

    fn word(told: Option<Told>) -> Option<(PrefillState, Option<Reason>)> {
        told.map(|(state, reason, _)| (state, reason))
    }

    /// Whatever comes late: what has ended stays so, unless it turns out to be complete.
    #[test]
    fn what_has_ended_stays_so() {
        for (state, reason, may) in [
            (Pending, None, [true, true, true]),
            (Running, Some(Reason::SourceUnavailable), [true, true, true]),
            (Done, None, [false, true, false]),
            (Failed, Some(Reason::BackoffLimitExceeded), [false, true, false]),
            (Failed, Some(Reason::Cancelled), [false, false, false]),
        ] {
            let prefill = prefill(state, reason, false);
            assert_eq!(
                [Running, Done, Failed].map(|next| may_become(&prefill, next)),
                may,
                "{state:?} {reason:?}"
            );
        }
    }

    #[test]
    fn who_is_paused_does_not_begin_and_stops() {
        let paused = Some(Reason::Paused);
        for (state, is_paused, wished, begun, stopped) in [
            (Pending, false, Wish::Work, Some((Running, None)), None),
            (Running, false, Wish::Work, Some((Running, None)), None),
            (Pending, true, Wish::Wait, Some((Pending, paused)), Some((Pending, paused))),
            (Running, true, Wish::Wait, Some((Running, paused)), Some((Running, paused))),
            (Done, false, Wish::Nothing, None, None),
            (Failed, false, Wish::Nothing, None, None),
        ] {
            let now = prefill(state, None, is_paused);
            let (told, wish) = begin(&now);
            assert_eq!((word(told), wish), (begun, wished), "{state:?} {is_paused}");
            let (told, stop) = stop(&now);
            assert_eq!((word(told), stop), (stopped, stopped.is_some()), "{state:?} {is_paused}");
        }
    }

    #[test]
    fn outcomes_and_fates() {
        let transient = || Failure::transient(Reason::SourceUnavailable, "away");
        let permanent =
            || Failure::permanent(ExitCode::CredentialsRefused, Reason::CredentialsRefused, "401");
        let twin = || Failure { lost_to_twin: true, ..transient() };
        let set_aside = Counts { set_aside: 1, ..Counts::default() };
        let away = Some(Reason::SourceUnavailable);
        for (outcome, last, told, fate) in [
            (Outcome::Done(None), false, Some((Done, None)), Fate::Finish),
            (
                Outcome::Held(Counts::default()),
                false,
                Some((Failed, Some(Reason::TooManyRemovals))),
                Fate::Finish,
            ),
            (
                Outcome::Done(Some(set_aside)),
                false,
                Some((Done, Some(Reason::ObjectsSetAside))),
                Fate::Finish,
            ),
            (Outcome::Obsolete, false, None, Fate::Finish),
            (Outcome::Cancelled, false, Some((Failed, Some(Reason::Cancelled))), Fate::Finish),
            (Outcome::Failed(twin()), true, None, Fate::Leave),
            (
                Outcome::Failed(permanent()),
                false,
                Some((Failed, Some(Reason::CredentialsRefused))),
                Fate::Finish,
            ),
            (Outcome::Failed(transient()), false, Some((Running, away)), Fate::Retry(PAUSE)),
            (Outcome::Failed(transient()), true, Some((Failed, away)), Fate::Finish),
        ] {
            let ended = End { outcome: &outcome, stopped: false, last, pause: PAUSE };
            let (said, what) = end(&prefill(Running, None, false), &ended);
            assert_eq!((word(said), what), (told, fate), "{outcome:?}");
            // What would be tried again, or was tried in vain, waits; all else is as if nobody had paused it.
            let waits = matches!(&outcome, Outcome::Failed(f) if !f.code.is_permanent() && !f.lost_to_twin);
            for stopped in [false, true] {
                let ended = End { outcome: &outcome, stopped, last, pause: PAUSE };
                let (said, what) = end(&prefill(Running, None, true), &ended);
                let (told, fate) = match waits {
                    true => (Some((Running, Some(Reason::Paused))), Fate::Pause),
                    false => (told, end(&prefill(Running, None, false), &ended).1),
                };
                assert_eq!((word(said), what), (told, fate), "{outcome:?}, paused, {stopped}");
            }
        }
    }

    /// The worker that stopped has said so, and has the task no more that somebody works on now.
    #[test]
    fn who_stopped_says_nothing_of_what_was_resumed() {
        let outcome = Outcome::Failed(Failure::transient(Reason::Internal, "stopped"));
        for last in [false, true] {
            let ended = End { outcome: &outcome, stopped: true, last, pause: PAUSE };
            let (told, fate) = end(&prefill(Running, None, false), &ended);
            assert_eq!((word(told), fate), (None, Fate::Pause), "{last}");
        }
    }
}
