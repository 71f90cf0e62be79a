//! The domain of Headstart as pure types and functions.
//!
//! ```text
//!  POST /v1/subscriptions ──► Subscription (KV entry) ──► Job or task ──► prefill messages ─┐
//!  POST /v1/messages ──► event in the log `incoming` ──► dispatcher ──► live messages ──────┴─► queue
//! ```
//!
//! The words (subscription, topic, event, message, prefill, attempt, round, marker, boundary, fence, seal,
//! checkpoint, incarnation) are explained in `docs/architecture.md`; each has its type here.
//!
//! **Invariants**: no I/O, no async, no clock, no randomness. Whatever is decided here is decided from the
//! arguments alone, so that each decision can be tested as a table. What is written to NATS or to Kubernetes is
//! defined here by its serde types; where it is written is known to `broker` and `manifests` only.

mod chain;
mod checkpoint;
mod dead_letter;
mod delivery;
mod dn;
mod exit;
mod fence;
mod history;
pub mod json;
mod known;
mod limits;
mod members;
mod message;
mod name;
mod prefill;
mod prepare;
mod progress;
mod reason;
mod registration;
mod removals;
mod seam;
mod selection;
mod shorten;
mod subscription;
mod task;
mod timestamp;
mod topic;
mod window;

pub use chain::chain;
pub use checkpoint::{Checkpoint, Epoch, Marker};
pub use dead_letter::{DeadLetter, DeadLetterReason, Origin};
pub use delivery::{
    AfterMain, AfterPrefill, EventId, EventIdError, Kind, LIVE_NUMBERS, LiveTag, PrefillTag, Tag, after_main,
    after_prefill, live_number, may_acknowledge_prefill, may_go_on, place_in_log, prefill_decides,
};
pub use dn::{Dn, DnError};
pub use exit::ExitCode;
pub use fence::{Claim, Counts, Fence, FenceState, claim};
pub use history::{ATTEMPTS_MAX, PastAttempt};
pub use known::{
    Comparison, KnownObject, KnownObjects, Named, Present, Rules as ResyncRules, Verdict, Whence,
};
pub use limits::{GivenUp, Limit, Lost, QueueLimits, QueueUse, Room, WhenFull};
pub use members::Members;
pub use message::{Body, BodyError, Message, Publisher};
pub use name::{Incarnation, NameError, SubscriptionName};
pub use prefill::{PAUSED_TEXT, Prefill, PrefillMode, PrefillOrder, PrefillState};
pub use prepare::{attribute_name, without_accents};
pub use progress::{Phase, Progress, Speed};
pub use reason::Reason;
pub use registration::{Registration, RegistrationOutcome, compare_registration};
pub use removals::{
    MaxRemovals, Removals, RemovalsByType, Share as MaxRemovalsShare, held_text, removals_text,
};
pub use seam::Seam;
pub use selection::{
    Coverage, Crossing, LONGEST_FILTER, LONGEST_POSITION, LONGEST_PROPERTY, MOST_CONDITIONS, Properties,
    Seen, Selection, SelectionError, Selector,
};
pub use shorten::shorten;
pub use subscription::{Entry, Lifecycle, Subscription, Tombstone};
pub use task::PrefillTask;
pub use timestamp::{Timestamp, TimestampError};
pub use topic::{LONGEST as LONGEST_TOPIC, RealmTopic, Route, TopicError, TopicPattern, UDM_REALM};
pub use window::Window;
