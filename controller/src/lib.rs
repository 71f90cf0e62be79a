//! The reconciler: it makes the prefill of each subscription happen, as Kubernetes Jobs.
//!
//! ```text
//!  Jobs, Pods ── watch ─┐
//!  entries ───── watch ─┼─► observe ─► decide ─► act ─► entry (compare-and-set), Jobs (UID, resourceVersion)
//!  fence, ConfigMap ────┘   (thin)     (pure)   (thin)  └─► Event, annotations, metric, log: one word for the reason
//! ```
//!
//! **Invariants**
//! * Level-triggered: a decision uses what is observed, never what was done before. A restart is another observation.
//! * The fence is looked at before the Job: sealed is done, whatever else is seen.
//! * Each action is idempotent or conditional, so two controllers at once, or a late one, are harmless.
//! * What is absent or overdue in a cache is looked up at the API server before anything is given up for it.
//! * Deadlines count on the monotonic clock from our first sight.
//!
//! * A state is told of (Event, annotation, metric, log) by whoever writes it into the entry, and where that was
//!   somebody else, by whoever writes it on the Job.
//!
//! The modules:
//! * `observed`: the picture of one subscription, free of Kubernetes' types; `decide`: from it to actions;
//! * [`lead`]: one controller at a time, by a Lease;
//! * [`annotations`]: what Jobs show, and what people ask for there;
//! * `reason`: pod status, events and exit codes as one word;
//! * [`sweep`]: what needs no Kubernetes: markers, removals and registrations that died half-way.

mod act;
pub mod annotations;
mod announce;
mod cluster;
mod config;
mod decide;
mod error;
mod lease;
mod memory;
mod metrics;
mod observe;
mod observed;
mod queue_ages;
mod reason;
mod run;
mod storage;
pub mod sweep;
#[cfg(test)]
mod testing;
mod work;

pub use config::{Config, WriteHook};
pub use decide::Rules;
pub use error::Error;
pub use lease::{LeaseConfig, lead};
pub use metrics::Metrics;
pub use observe::watch::client;
pub use queue_ages::QueueAges;
pub use run::run;
pub use storage::StorageMetrics;
