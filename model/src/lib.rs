//! The domain of Headstart as pure types and functions.
//!
//! ```text
//!  POST /v1/subscriptions ──► Subscription (KV entry) ──► Job or task ──► prefill messages ─┐
//!  POST /v1/messages ──► event in the log `incoming` ──► dispatcher ──► live messages ──────┴─► queue
//! ```
//!
//! The words (subscription, topic, event, message, prefill, attempt, round, marker, boundary, fence, seal,
//! checkpoint, incarnation) are explained in `docs/explanation/architecture.md`; each has its type here.
//!
//! **Invariants**: no I/O, no async, no clock, no randomness. Whatever is decided here is decided from the
//! arguments alone, so that each decision can be tested as a table. What is written to NATS or to Kubernetes is
//! defined here by its serde types; where it is written is known to `broker` and `manifests` only.

pub mod checkpoint;
pub mod dead_letter;
pub mod delivery;
pub mod dn;
mod error_chain;
mod exit;
pub mod fence;
pub mod json;
pub mod limits;
pub mod message;
pub mod name;
pub mod prefill;
mod reason;
pub mod resync;
mod seam;
pub mod selection;
mod shorten;
pub mod string_prep;
pub mod subscription;
pub mod timestamp;
pub mod topic;
mod window;

// What nearly every crate speaks of; everything else is found under its subject.
pub use dn::Dn;
pub use error_chain::error_chain;
pub use exit::ExitCode;
pub use message::Message;
pub use name::{Incarnation, SubscriptionName};
pub use prefill::{Prefill, PrefillState};
pub use reason::Reason;
pub use seam::Seam;
pub use selection::Selection;
pub use shorten::shorten;
pub use subscription::{Entry, Subscription};
pub use timestamp::Timestamp;
pub use topic::RealmTopic;
pub use window::Window;
