//! Reasons: one word for why a prefill waits or failed, the same in KV, API, Event, annotation, metric and log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a prefill waits or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// Waits for the dispatcher to reach the marker of this round.
    WaitingForBoundary,
    /// Waits for a free place: the limit of prefills at once is reached.
    Queued,
    /// The Job is suspended by somebody else.
    Suspended,
    /// The pod has been asked for, but does not run yet.
    Starting,
    /// A quota, limit range, admission rule or service account keeps the pod from being made.
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
    /// Too many tries of this attempt failed.
    BackoffLimitExceeded,
    /// The container was killed because it needed more memory than its limit.
    OutOfMemory,
    /// The Job was deleted by somebody else.
    JobDeleted,
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
    /// Somebody cancelled the prefill.
    Cancelled,
    /// Set through `PATCH …/prefill`.
    SetByRequest,
    /// The queue's stream is gone: its events are lost; delete and register again.
    Broken,
    /// An error of our own.
    Internal,
}

impl Reason {
    /// The word itself, for labels, annotations and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForBoundary => "WaitingForBoundary",
            Self::Queued => "Queued",
            Self::Suspended => "Suspended",
            Self::Starting => "Starting",
            Self::PodRefused => "PodRefused",
            Self::ImagePull => "ImagePull",
            Self::PodConfig => "PodConfig",
            Self::Unschedulable => "Unschedulable",
            Self::StartDeadline => "StartDeadline",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::BackoffLimitExceeded => "BackoffLimitExceeded",
            Self::OutOfMemory => "OutOfMemory",
            Self::JobDeleted => "JobDeleted",
            Self::EndedWithoutSeal => "EndedWithoutSeal",
            Self::StuckTerminating => "StuckTerminating",
            Self::BadRequest => "BadRequest",
            Self::CredentialsRefused => "CredentialsRefused",
            Self::SourceUnavailable => "SourceUnavailable",
            Self::BadData => "BadData",
            Self::Cancelled => "Cancelled",
            Self::SetByRequest => "SetByRequest",
            Self::Broken => "Broken",
            Self::Internal => "Internal",
        }
    }
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
        for reason in [Reason::Queued, Reason::ImagePull, Reason::Internal, Reason::EndedWithoutSeal] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
