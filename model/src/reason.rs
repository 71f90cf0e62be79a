//! Reasons: one word for why a prefill waits or failed, or what it lacks, the same in KV, API, Event, annotation, metric and log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The enum, its words and the list of all of them, from one list.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $word:ident,)+) => {
        /// Why a prefill waits or failed, or what one that is done lacks. `docs/reference/reasons.md` says what to do about each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Reason {
            $($(#[doc = $doc])+ $word,)+
            /// A word of a newer version, which an older one reads as this.
            #[serde(other)]
            Unknown,
        }

        impl Reason {
            /// All that are written.
            pub const ALL: &[Self] = &[$(Self::$word,)+];

            /// The word itself, for labels, annotations and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)+
                    Self::Unknown => "Unknown",
                }
            }
        }
    };
}

reasons! {
    /// Waits for the dispatcher to reach the marker of this round.
    WaitingForBoundary,
    /// Waits for a free place: the limit of prefills at once is reached.
    Queued,
    /// Somebody paused the prefill, through the API or by an annotation.
    Paused,
    /// The Job is suspended by somebody else.
    Suspended,
    /// The pod has been asked for, but does not run yet.
    Starting,
    /// A quota of the namespace is used up: waits, without a deadline, until there is room.
    QuotaExceeded,
    /// A limit range, admission rule, right or service account keeps the Job or its pod from being made or started.
    PodRefused,
    /// The image can't be pulled.
    ImagePull,
    /// A ConfigMap, Secret or volume of the pod is missing.
    PodConfig,
    /// No node has room for the pod.
    Unschedulable,
    /// No pod was ready within the start deadline, for no reason that could be read.
    StartDeadline,
    /// The attempt took longer than its deadline.
    DeadlineExceeded,
    /// The attempt goes on, and at its speed it is not complete before its deadline.
    DeadlineTooShort,
    /// Too many tries of this attempt failed.
    BackoffLimitExceeded,
    /// The container was killed because it needed more memory than its limit.
    OutOfMemory,
    /// The pod was evicted, drained or preempted; another one follows.
    Disrupted,
    /// The Job was deleted by somebody else.
    JobDeleted,
    /// A Job of the attempt's name exists that is not the attempt's.
    NameTaken,
    /// The Job or the task ended without a seal.
    EndedWithoutSeal,
    /// The pod is terminating and does not end.
    StuckTerminating,
    /// The request can't be worked with.
    BadRequest,
    /// The source refused our credentials.
    CredentialsRefused,
    /// The source can't be reached, or breaks off.
    SourceUnavailable,
    /// The source holds data that can't be read.
    BadData,
    /// The prefill is complete, but has more removals than allowed: approve it, or cancel it.
    TooManyRemovals,
    /// The prefill is done, without objects that could not be read or carried: they are dead letters.
    ObjectsSetAside,
    /// The prefill is done, without topics that the source knows no object type of.
    TopicsMissing,
    /// The prefill is done, and something about it should be looked at.
    DoneWithWarnings,
    /// Somebody cancelled the prefill.
    Cancelled,
    /// Set through `PATCH …/prefill`.
    SetByRequest,
    /// The queue's stream is gone: its events are lost; delete and register again.
    Broken,
    /// An error of our own.
    Internal,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_serialised_form() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn a_word_of_a_newer_version_is_read() {
        assert_eq!(serde_json::from_str::<Reason>("\"MoonInTheWay\"").unwrap(), Reason::Unknown);
    }

    #[test]
    fn the_reference_of_reasons_names_each_and_no_other() {
        let docs = include_str!("../../docs/reference/reasons.md");
        let table = docs.split("\n## ").next();
        let told: Vec<&str> = table
            .expect("the table of reasons")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(word, _)| word))
            .collect();
        let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(told, words);
    }
}
