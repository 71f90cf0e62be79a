//! What became of the attempts: kept in the entry, apart from the Jobs, which may be deleted by anybody.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Prefill, PrefillState, Reason, Timestamp, shorten};

/// Attempts that are remembered: enough for a night of retries, little enough for an entry that is read often.
pub const ATTEMPTS_MAX: usize = 10;

/// Longest sentence that is remembered of each, in bytes.
const LONGEST: usize = 300;

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastAttempt {
    /// Its number.
    pub attempt: u32,
    /// The round that it belonged to.
    pub round: u32,
    /// How it ended: done or failed.
    pub state: PrefillState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The reason in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was first seen to run; `None` if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When its end was recorded.
    pub ended: Timestamp,
    /// Messages that it wrote, if it is done and told so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
}

/// The past attempts after a prefill went from one state to another. An attempt stands there once: one that failed and
/// turns out to be sealed is done.
pub(crate) fn after(from: &Prefill, to: &Prefill, now: &Timestamp) -> Vec<PastAttempt> {
    let mut past = from.attempts.clone();
    if to.attempt == 0 || !matches!(to.state, PrefillState::Done | PrefillState::Failed) {
        return past;
    }
    let before = past.iter().position(|known| known.attempt == to.attempt).map(|at| past.remove(at));
    let running = (from.state == PrefillState::Running).then(|| from.since.clone());
    past.push(PastAttempt {
        attempt: to.attempt,
        round: to.round,
        state: to.state,
        reason: to.reason,
        message: to.message.as_deref().map(|text| shorten(text, LONGEST)),
        started: running.or_else(|| before.and_then(|known| known.started)),
        ended: now.clone(),
        objects: None,
    });
    let surplus = past.len().saturating_sub(ATTEMPTS_MAX);
    past.drain(..surplus);
    past
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incarnation, Subscription, subscription::Registration};

    fn at(second: u32) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}").parse().unwrap()
    }

    fn subscription() -> Subscription {
        let registration =
            Registration { request_prefill: true, ..Registration::new("mail".parse().unwrap(), vec![]) };
        Subscription::reserve(registration, Incarnation(uuid::Uuid::from_u128(1)), 1, at(0))
    }

    fn to(s: &Subscription, state: PrefillState, reason: Option<Reason>, second: u32) -> Subscription {
        s.with_prefill_state(state, reason, reason.map(|r| format!("{r}!")), at(second)).unwrap()
    }

    #[test]
    fn an_attempt_is_remembered_with_its_times_and_its_end() {
        use PrefillState::{Done, Failed, Running};
        let s = to(&subscription(), Running, None, 1);
        assert_eq!(s.prefill.attempts, [], "it has not ended");
        let s = to(&s, Running, Some(Reason::SourceUnavailable), 2);
        let s = to(&s, Failed, Some(Reason::BackoffLimitExceeded), 3);
        let s = s.with_prefill_again(at(4)).unwrap();
        let s = to(&s, Done, None, 5).with_objects(7);
        let past: Vec<_> = s
            .prefill
            .attempts
            .iter()
            .map(|a| (a.attempt, a.state, a.reason, a.started.clone(), a.ended.clone(), a.objects))
            .collect();
        assert_eq!(
            past,
            [
                (1, Failed, Some(Reason::BackoffLimitExceeded), Some(at(1)), at(3), None),
                (2, Done, None, None, at(5), Some(7)),
            ]
        );
    }

    #[test]
    fn one_that_failed_and_is_sealed_after_all_is_done() {
        let s = to(&subscription(), PrefillState::Running, None, 1);
        let s = to(&s, PrefillState::Failed, Some(Reason::DeadlineExceeded), 2);
        assert_eq!(
            s.with_prefill_state(PrefillState::Failed, s.prefill.reason, s.prefill.message.clone(), at(9)),
            None
        );
        let s = to(&s, PrefillState::Done, None, 3);
        let [only] = s.prefill.attempts.as_slice() else { panic!("{s:?}") };
        assert_eq!((only.state, only.reason, only.started.clone()), (PrefillState::Done, None, Some(at(1))));
    }

    #[test]
    fn their_number_and_their_sentences_are_bounded() {
        let mut s = subscription();
        for second in 1..30 {
            let long = Some("ä".repeat(1000));
            s = s
                .with_prefill_state(PrefillState::Failed, Some(Reason::ImagePull), long, at(second))
                .unwrap();
            s = s.with_prefill_again(at(second)).unwrap();
        }
        let numbers: Vec<u32> = s.prefill.attempts.iter().map(|a| a.attempt).collect();
        assert_eq!(numbers, (20..30).collect::<Vec<_>>());
        let length = |a: &PastAttempt| a.message.as_ref().unwrap().len();
        assert!(s.prefill.attempts.iter().all(|a| length(a) <= LONGEST && length(a) > LONGEST - 4));
    }
}
