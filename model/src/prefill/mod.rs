//! The prefill of a subscription, as its entry has it.

pub(crate) mod history;
mod progress;
mod task;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Reason, Timestamp, resync::MaxRemovals};
pub use history::{ATTEMPTS_MAX, PastAttempt};
pub use progress::{Phase, Progress, Speed};
pub use task::PrefillTask;

/// State of the prefill, in the words of the wire contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrefillState {
    /// Asked for, not begun.
    Pending,
    /// An attempt is writing.
    Running,
    /// Given up; `reason` says why.
    Failed,
    /// Complete; also from the start when none was asked for.
    Done,
}

impl PrefillState {
    /// The word of the wire contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }
}

/// Why a paused prefill waits, for people.
pub const PAUSED_TEXT: &str = "the prefill is paused; it goes on when somebody resumes it";

/// What a prefill tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrefillMode {
    /// All that exists.
    #[default]
    Prefill,
    /// Also the removal of what the consumer was told of and what does not exist any more.
    Resync,
}

impl PrefillMode {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Resync => "resync",
        }
    }

    pub(crate) fn is_prefill(&self) -> bool {
        *self == Self::Prefill
    }
}

/// The prefill of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefill {
    /// Its state.
    pub state: PrefillState,
    /// What this round tells.
    #[serde(default, skip_serializing_if = "PrefillMode::is_prefill")]
    pub mode: PrefillMode,
    /// How many removals this round may tell without being approved; `None`: as the subscription has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_removals: Option<MaxRemovals>,
    /// This round only counts what a prefill would tell: the consumer does not notice it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Requested prefills so far: 1 is the one of the registration, 0 means none.
    pub round: u32,
    /// Place of this round's marker in `incoming`: events up to it belong to the snapshot (or the round before).
    /// `None` until the dispatcher has reached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary: Option<u64>,
    /// Current attempt; grows over all rounds, 0 means none.
    pub attempt: u32,
    /// When that attempt was asked for: it tells the attempt from another one of its number, which a store that was put
    /// back to an earlier time does not know any more. `None`: by a version that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Timestamp>,
    /// Since when the state holds.
    pub since: Timestamp,
    /// Why it waits or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The reason in a sentence, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// It is to wait, whatever else is so, until somebody resumes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The last attempts that have ended, oldest first; at most [`ATTEMPTS_MAX`](crate::prefill::ATTEMPTS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<PastAttempt>,
}

impl Prefill {
    /// Does it keep nothing back from the consumer? It is done, or it writes nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == PrefillState::Done || self.dry_run
    }

    /// Is its current attempt complete, and waits for its approval?
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state == PrefillState::Failed && self.reason == Some(Reason::TooManyRemovals)
    }

    /// Is it paused, and has whoever was to work on it seen that and stopped?
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.paused && self.reason == Some(Reason::Paused)
    }
}

/// What is asked for with a prefill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefillOrder {
    /// What it shall tell, if that is said.
    pub mode: Option<PrefillMode>,
    /// How many removals it may tell without being approved, if that is said.
    pub max_removals: Option<MaxRemovals>,
    /// Only count.
    pub dry_run: bool,
}
