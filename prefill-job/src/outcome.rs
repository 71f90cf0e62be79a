//! How an attempt ends: exit code, termination message, and what it means for the subscription.

use broker::FillError;
use model::{ExitCode, Reason, error_chain, fence::Counts, resync::held_text, shorten};
use serde::{Deserialize, Serialize};

use crate::source::SourceError;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sealed, by this run or an earlier one of the same attempt.
    Done(Option<Counts>),
    /// Complete, with more removals than it may tell: it waits for its approval.
    Held(Counts),
    /// A later attempt has taken over: nothing is left to do.
    Obsolete,
    /// Somebody has cancelled this attempt: nothing is left to do.
    Cancelled,
    /// Not complete.
    Failed(Failure),
}

/// Why an attempt is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit code of the process: permanent or transient.
    pub code: ExitCode,
    /// The reason as one word.
    pub reason: Reason,
    /// The reason as a sentence, with its causes.
    pub message: String,
    /// The fence was lost to a twin of the same attempt, which goes on: whoever lost must not touch the task.
    pub lost_to_twin: bool,
}

/// Longest termination message that Kubernetes keeps, in bytes (`terminationMessagePath`).
const TERMINATION_MESSAGE_MAX: usize = 4096;
/// Topics that the termination message names one by one; the seal and the progress name all.
const MISSING_MAX: usize = 10;
/// Warnings that the termination message repeats, and bytes of each.
const WARNINGS_MAX: usize = 3;
const WARNING_MAX: usize = 200;
/// Room for everything but the sentence.
const SENTENCE_MAX: usize = TERMINATION_MESSAGE_MAX - 1024 - WARNINGS_MAX * WARNING_MAX;

/// What the container leaves in `/dev/termination-log`: a contract with the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationMessage {
    /// `done`, `held`, `obsolete`, or the class of the failure.
    pub class: String,
    /// A sentence for people.
    pub message: String,
    /// Messages written, if the attempt is complete.
    pub messages: Option<u64>,
    /// Objects that vanished between list and read, if the attempt is complete.
    pub skipped: Option<u64>,
    /// Objects that were set aside as dead letters, if the attempt is complete.
    #[serde(default)]
    pub set_aside: Option<u64>,
    /// Requested topics that were left out, because the directory knows no such type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What somebody should look at although the attempt is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Outcome {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Done(_) | Self::Held(_) | Self::Obsolete | Self::Cancelled => ExitCode::Done,
            Self::Failed(failure) => failure.code,
        }
    }

    /// The termination message; it always fits.
    #[must_use]
    pub fn termination_message(&self) -> TerminationMessage {
        let class = match self {
            Self::Done(_) => "done",
            Self::Held(_) => "held",
            Self::Obsolete | Self::Cancelled => "obsolete",
            Self::Failed(failure) => class(failure.code),
        };
        let (message, counts) = match self {
            Self::Done(counts) => (counts.clone().unwrap_or_default().to_string(), counts.as_ref()),
            Self::Held(counts) => (held_text(&counts.removals), Some(counts)),
            Self::Obsolete => ("a later attempt has taken over".to_owned(), None),
            Self::Cancelled => ("this attempt was cancelled".to_owned(), None),
            Self::Failed(failure) => (failure.message.clone(), None),
        };
        TerminationMessage {
            class: class.to_owned(),
            message: shorten(&message, SENTENCE_MAX),
            messages: counts.map(|c| c.messages),
            skipped: counts.map(|c| c.skipped),
            set_aside: counts.map(|c| c.set_aside),
            missing: counts.map_or_else(Vec::new, |c| c.missing.iter().take(MISSING_MAX).cloned().collect()),
            warnings: counts.map_or_else(Vec::new, |c| {
                c.warnings.iter().take(WARNINGS_MAX).map(|warning| shorten(warning, WARNING_MAX)).collect()
            }),
        }
    }
}

fn class(code: ExitCode) -> &'static str {
    match code {
        ExitCode::Done => "done",
        ExitCode::Transient => "transient",
        ExitCode::BadRequest => "bad_request",
        ExitCode::CredentialsRefused => "credentials_refused",
        ExitCode::SubscriptionGone => "subscription_gone",
        ExitCode::BadData => "bad_data",
    }
}

impl Failure {
    /// A failure that may pass.
    pub(crate) fn transient(reason: Reason, message: impl Into<String>) -> Self {
        Self { code: ExitCode::Transient, reason, message: message.into(), lost_to_twin: false }
    }

    /// A failure that would come again.
    pub(crate) fn permanent(code: ExitCode, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), lost_to_twin: false }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let code = error.exit_code();
        let reason = match code {
            ExitCode::BadRequest => Reason::BadRequest,
            ExitCode::CredentialsRefused => Reason::CredentialsRefused,
            ExitCode::BadData => Reason::BadData,
            ExitCode::Done | ExitCode::Transient | ExitCode::SubscriptionGone => Reason::SourceUnavailable,
        };
        Self { code, reason, message: error_chain(&error), lost_to_twin: false }
    }
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        // Even what is not transient may be mended by an operator: the limit of tries ends it.
        Self::transient(Reason::Internal, error_chain(&error))
    }
}

impl From<FillError> for Outcome {
    fn from(error: FillError) -> Self {
        let message = error_chain(&error);
        Self::Failed(match error {
            FillError::Overtaken => return Self::Obsolete,
            FillError::LostToTwin => {
                Failure { lost_to_twin: true, ..Failure::transient(Reason::Internal, message) }
            }
            FillError::Gone => gone(),
            FillError::Full(_) => Failure::transient(Reason::Internal, message),
            FillError::Broker(error) => error.into(),
        })
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The subscription does not exist any more.
pub(crate) fn gone() -> Failure {
    Failure::permanent(
        ExitCode::SubscriptionGone,
        Reason::Broken,
        "the subscription is gone, or its queue is lost",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termination_message_always_fits() {
        for text in ["short", &"ü".repeat(10_000), &"\"\n".repeat(10_000)] {
            let failure = Failure::transient(Reason::SourceUnavailable, text);
            let message = Outcome::Failed(failure).termination_message();
            assert_eq!(message.class, "transient");
            assert!(message.message.len() <= SENTENCE_MAX);
        }
    }

    #[test]
    fn it_says_what_a_complete_prefill_does_not_hold() {
        let message = |counts| Outcome::Done(counts).termination_message();
        for whole in [None, Some(Counts { messages: 5, skipped: 1, ..Counts::default() })] {
            assert_eq!(message(whole).message, "the prefill is complete");
        }
        let missing = vec!["oxmail/.*".to_owned(), "a/b".to_owned()];
        let told = message(Some(Counts {
            messages: 5,
            set_aside: 2,
            missing: missing.clone(),
            ..Counts::default()
        }));
        assert!(told.message.contains("2 objects were set aside"), "{}", told.message);
        assert!(told.message.ends_with("no such type: oxmail/.*, a/b"), "{}", told.message);
        assert_eq!((told.set_aside, told.missing), (Some(2), missing));
        let many = vec!["users/.*".to_owned(); 1000];
        let told = message(Some(Counts { missing: many, ..Counts::default() }));
        assert!(told.message.len() <= SENTENCE_MAX && told.missing.len() == MISSING_MAX);
    }

    #[test]
    fn outcomes_exit_by_the_contract() {
        let permanent = Failure::permanent(ExitCode::CredentialsRefused, Reason::CredentialsRefused, "401");
        for (outcome, code, class) in [
            (Outcome::Done(None), ExitCode::Done, "done"),
            (Outcome::Held(Counts::default()), ExitCode::Done, "held"),
            (Outcome::Obsolete, ExitCode::Done, "obsolete"),
            (Outcome::Cancelled, ExitCode::Done, "obsolete"),
            (Outcome::Failed(permanent), ExitCode::CredentialsRefused, "credentials_refused"),
            (FillError::Overtaken.into(), ExitCode::Done, "obsolete"),
            (FillError::LostToTwin.into(), ExitCode::Transient, "transient"),
            (FillError::Gone.into(), ExitCode::SubscriptionGone, "subscription_gone"),
        ] {
            assert_eq!((outcome.exit_code(), outcome.termination_message().class.as_str()), (code, class));
        }
    }
}
