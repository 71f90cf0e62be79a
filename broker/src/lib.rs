//! All of NATS: no other crate names a stream, a subject or a header.
//!
//! ```text
//!  EventPublisher ──► incoming ──► EventLog ──► Copier ──► <name>.main    ─┐
//!                     (events and markers)      (one checkpoint a queue)   ├─► Readers ──► consumers
//!  Tasks ──► worker ──► FenceHolder ──────────────────────► <name>.prefill ─┘
//!                       (one writer)
//!  both record on <name>.known.… what they tell the consumer of, where the subscription wants that
//!  Registry (KV SUBSCRIPTIONS) ── RegistryView (its watch)   Credentials   ProgressBoard   Position
//! ```
//!
//! **Invariants**
//! * A decision is made by a conditional write, never by what was read before it.
//! * What is read for a decision is read from whom takes himself for the leader (`STREAM.MSG.GET`), never by a direct
//!   get. A list of a bucket is read up to the leader's last number, whichever replica tells it.
//! * What is remembered of a server holds for one connection: the next one may lead to an older store (a backup).
//! * Nothing is removed that has not been delivered or that belongs to another incarnation: streams carry the
//!   incarnation in their names, and every publish says which stream it expects.
//! * There are no durable consumers on queues or on the event log: nothing that can get stuck.
//!
//! Needs nats-server 2.12.3 or newer (atomic batches, ADR-50).

mod backoff;
mod batch_read;
mod bucket;
mod connection;
mod copier;
mod credentials;
mod dead_letters;
mod delivered_objects;
mod error;
mod events;
mod fence;
mod follow;
mod layout;
mod limits;
mod matching;
mod names;
mod orphans;
mod progress;
mod queue;
mod reader;
mod reads;
mod registry;
mod removal;
mod routes;
mod secret;
mod storage;
mod superseded;
mod sweeping;
mod tail;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod view;
mod wire;

pub use connection::{Broker, NatsConfig, OLDEST_SERVER};
pub use copier::{Copier, Copy, CopyError};
pub use credentials::{Credentials, StoredCredential};
pub use dead_letters::{DeadLetters, Stored as StoredDeadLetter};
pub use delivered_objects::KnownChunk;
pub use error::{Error, WriteError};
pub use events::{
    EventLog, EventPublisher, LargeEvent, Letter, LogEntry, LogItem, Position, PublishError, Whose,
};
pub use fence::{Claimed, FenceHolder, FillError};
pub use follow::{Watcher, WentBack};
pub use limits::StreamLimits;
pub use matching::{Matcher, MatcherError};
pub use orphans::Orphan;
pub use progress::ProgressBoard;
pub use queue::{Queue, QueueCounts};
pub use reader::{Delivered, QueueStream, ReadError, ReaderConfig, Readers, StreamEnd};
pub use reads::LastReads;
pub use registry::{Listed, Modified, Registry, Revised, Unreadable};
pub use removal::Removal;
pub use routes::{Head, Routes};
pub use secret::{Secret, SecretError};
pub use storage::Storage;
pub use superseded::LiveMessage;
pub use tasks::{Task, Tasks, TasksConfig};
pub use tls::{ClientCertificate, NatsTls};
pub use view::RegistryView;
