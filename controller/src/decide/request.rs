//! What people ask for by the annotation `headstart/request` of a Job: the same as through the API, for those who have
//! kubectl at hand.

use model::{PrefillState, Reason, Subscription};

use super::Action;
use crate::observed::Observed;

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Begin another attempt, or after one that is done another round.
    Retry,
    /// Give the attempt up.
    Cancel,
    /// Let it wait.
    Pause,
    /// Let it go on.
    Resume,
    /// Let it be read, although it tells many removals.
    Approve,
}

impl Request {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "retry" => Some(Self::Retry),
            "cancel" => Some(Self::Cancel),
            "pause" => Some(Self::Pause),
            "resume" => Some(Self::Resume),
            "approve" => Some(Self::Approve),
            _ => None,
        }
    }

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
        }
    }
}

/// The answer to what is asked for on the Job of the current attempt.
pub(super) fn answer(observed: &Observed, entry: &Subscription) -> Option<Action> {
    let job = observed.current_job().filter(|job| !job.being_deleted)?;
    let text = job.request.as_deref()?.trim();
    let job = job.job.clone();
    Some(match judge(entry, text) {
        Ok(request) => Action::Obey { job, request },
        Err(why) => Action::Refuse { job, asked: text.to_owned(), why },
    })
}

fn judge(entry: &Subscription, text: &str) -> Result<Request, &'static str> {
    let request = Request::parse(text)
        .ok_or("there is no such request: retry, cancel, pause, resume and approve are known")?;
    let prefill = &entry.prefill;
    let open = entry.awaits_prefill();
    match request {
        Request::Retry if open => Err("the prefill is pending or running: there is nothing to retry"),
        Request::Cancel if prefill.reason == Some(Reason::Cancelled) => {
            Err("the prefill is cancelled already")
        }
        Request::Cancel if prefill.is_held() => Ok(request),
        Request::Approve if !prefill.is_held() => Err("the prefill is not held: there is nothing to approve"),
        Request::Cancel | Request::Pause if !open => Err(match prefill.state {
            PrefillState::Done => "the prefill is done",
            _ => "the prefill has failed",
        }),
        Request::Pause if prefill.paused => Err("the prefill is paused already"),
        Request::Resume if !prefill.paused => Err("the prefill is not paused"),
        request => Ok(request),
    }
}
