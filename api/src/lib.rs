//! The HTTP server: registration, events in, messages out.
//!
//! ```text
//!  connection ─► server (bounds, TLS) ─► request ─► router (root path, request id, CORS) ─► admission (who calls) ─► handler (body, validation, action) ─► answer
//!                                                       │
//!      subscriptions ─► registration ─► broker, launcher (Jobs or tasks)
//!      messages      ─► broker::Readers, broker::EventPublisher
//!      stream        ─► broker::QueueStream
//!      prefill       ─► broker::Registry, broker::ProgressBoard
//! ```
//!
//! **Invariants**
//! * Existing clients work unchanged: paths, statuses and bodies are those of the former service; what is added is
//!   told by `/openapi.json`.
//! * No replica keeps state that another one needs: any replica answers any request.
//! * An answer never holds a password, nor what the client sent.
//! * What clients may take is bounded, known or not: connections, time, memory, streams, polls, failed logins.
//! * Bad input is 422 and names the field; trouble behind us is 503 with `Retry-After`.

mod access;
mod admission;
mod answers;
mod auth;
mod body;
mod body_memory;
mod change;
mod code;
mod concurrency_limits;
mod config;
mod connections;
mod dead_letters;
mod docs;
mod error;
mod failed_prefill;
mod fields;
mod hashing;
mod health;
mod lanes;
mod large_event;
mod launcher;
mod lookup;
mod messages;
mod metrics;
mod openapi;
mod origin;
mod outage;
mod password;
mod prefill;
mod query;
mod readiness;
mod reads;
mod registration;
mod request;
mod request_id;
mod roles;
mod router;
mod run;
mod selection;
mod server;
mod starting;
mod state;
mod stream;
mod subscriptions;
mod suspend_detector;
mod throttle;
mod views;

pub use config::{Bounds, Config, RoleCredentials, Roles, Step, StepHook, TlsFiles};
pub use error::Error;
pub use launcher::Launcher;
pub use openapi::document as openapi_document;
pub use origin::{Network, NetworkError};
pub use run::{Start, run, run_from_start};
pub use server::serve;
pub use starting::Waiting;
pub use state::NotReady;
