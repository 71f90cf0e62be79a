//! The controller against a real Kubernetes: what its decisions are made of really looks like that, and what it does
//! really works.
//!
//! * [`controlled`]: a controller of the test's own, with a NATS and a namespace; [`subject`]: one subscription there;
//!   [`recorder`], [`log`]: what was to be
//!   seen of it; [`faults`]: what goes wrong between it and the API server;
//! * [`way`]: without trouble; [`start`]: pods that don't come up; [`tries`]: pods that fail; [`disrupted`]: pods that
//!   are taken away, [`node`]: with their node; [`by_hand`]: what people do with kubectl; [`many`]: many at once; [`gone`]: subscriptions that are
//!   removed; [`crashes`]: controllers that die, an API server that is away, answers that go wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod by_hand;
mod concurrency;
mod controlled;
mod crashes;
mod disrupted;
mod failing_pods;
mod faults;
mod log;
mod node;
mod ordinary_course;
mod recorder;
mod removal;
mod start;
mod test_subscription;
