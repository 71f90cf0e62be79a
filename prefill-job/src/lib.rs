//! The prefill engine: reads all that exists from a source and writes it into a queue.
//!
//! ```text
//!  Job:    ConfigMap ─► job::run ─┐                                     ┌─► batches ─► seal ─► outcome
//!  worker: task queue ─► worker ──┴─► attempt::run: fence ─► source ────┘        (progress once a second)
//! ```
//!
//! An [attempt](attempt) is the same in both: it waits until the queue shows its round, takes the fence, removes what
//! earlier attempts left, writes atomic batches under the fence, and seals. `headstart prefill` runs one attempt and
//! exits by the contract of [`model::ExitCode`]; `headstart worker` takes attempts from the task queue and records
//! their outcome itself.
//!
//! **Invariants**: an attempt that has lost its fence writes nothing more. Nothing is written before the queue's
//! checkpoint shows the round, so no list can be older than the first live event. The engine needs no Kubernetes API.

pub mod attempt;
mod dead_letter;
mod delivered_objects;
pub mod job;
mod metrics;
mod outcome;
mod progress;
mod seam;
mod shape;
pub mod source;
pub mod worker;

pub use metrics::Metrics;
pub use outcome::{Failure, Outcome, TerminationMessage};
pub use progress::Told;
pub use shape::Shape;
