//! The HTTP server: registration, events in, messages out.
//!
//! ```text
//!  request ─► router (root path, request id, CORS) ─► handler ─► auth ─► validation ─► action ─► answer
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
//! * Bad input is 422 and names the field; trouble behind us is 503 with `Retry-After`.

mod app;
mod auth;
mod change;
mod config;
mod dead_letters;
mod docs;
mod error;
mod health;
mod launcher;
mod messages;
mod metrics;
mod openapi;
mod password;
mod prefill;
mod pulse;
mod query;
mod registration;
mod request;
mod router;
mod selection;
mod stream;
mod subscriptions;

pub use app::run;
pub use config::{Config, RoleCredentials, Step, StepHook};
pub use error::Error;
pub use launcher::Launcher;
pub use openapi::document as openapi_document;
