//! The crash campaign: real processes, a real nats-server, and whatever may happen to them.
//!
//! ```text
//!  seed ─► Plan ─► Workload (directory, events) ─┐
//!               ├► Consumers (register … delete) ├─► History ─► Checker ─► violations
//!               └► Nemesis (kill, stop, twins) ──┘
//!                        └─► Processes
//! ```
//!
//! The plan is pure: the same seed gives the same changes, actions and faults at the same times. What the processes
//! make of them is not, so a seed replays its plan and not each interleaving; a violation's folder keeps the history.
//!
//! The checker is pure, too: it reads only what a consumer and a producer can see, and knows nothing of streams,
//! fences or attempts. What it proves is told in `checker`.
//!
//! **Not covered**: several NATS servers, power cuts (a killed process loses nothing that it gave to the kernel), full
//! disks and full queues, Kubernetes (the controller runs without Jobs; `tests/cluster_*` have those), objects of a
//! prefill that NATS does not carry, clocks that jump.

pub mod checker;
mod client;
mod consumers;
pub mod coverage;
pub mod history;
mod inside;
mod nemesis;
pub mod plan;
mod processes;
pub mod run;
mod workload;
