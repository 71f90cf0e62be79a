//! Sources: where the objects of a prefill come from.
//!
//! ```text
//!  topics ─► Plan ─► modules, in order ─┐
//!  UDM REST: index ─► list ─► GETs ─────┼─► RawObject (without `_links`) ─► SourceEvent ─► engine
//!  dump: scan ─► a pass for each type ──┘
//! ```
//!
//! **Invariants**: objects come in the order of the requested topics, and of a type in the order of the source. An
//! object's bytes are those of the source, less `_links`. A type is read once, at the first topic that matches it,
//! and its topic is the object's own `objectType`: the word that live events carry. What vanished between list and
//! read is skipped, because its deletion is in the queue behind the prefill. Nothing is left out in silence: a
//! source that can't bring all of it ends with an error, or says what it left out where it was told to.

pub mod dump;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod object;
mod outlet;
mod plan;
mod strip_links;
pub mod udm;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use model::RealmTopic;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

pub use error::SourceError;
use plan::Plan;

/// An object as it was when it was read.
#[derive(Clone, Debug)]
pub struct SnapshotObject {
    /// The object's own `objectType`.
    pub topic: String,
    /// The object, byte by byte as the source gave it, less `_links`.
    pub object: Box<RawValue>,
    /// The event that had been accepted, with all before it, when the object was asked for: their changes are in it.
    /// `None` where nobody can tell.
    pub as_of: Option<u64>,
}

/// Tells a source which events have been accepted by now. It only grows.
#[derive(Clone, Debug, Default)]
pub struct AsOf(Arc<AtomicU64>);

impl AsOf {
    /// The last event that is known to be accepted, by its number in the event log; `None` before the first is known.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|sequence| *sequence > 0)
    }

    pub(crate) fn set(&self, sequence: u64) {
        self.0.fetch_max(sequence, Ordering::Release);
    }
}

/// What happens while a source is read.
#[derive(Clone, Debug)]
pub enum SourceEvent {
    /// The objects of a type follow.
    TopicStarted {
        /// The type: a name, never a pattern.
        topic: String,
        /// Objects that were listed; some may be gone by the time they are read.
        total: Option<u64>,
    },
    /// One object of the type that was started last.
    Object(SnapshotObject),
    /// One object of the type that was started last is not there any more, or is of a type that nobody asked for.
    Skipped {
        /// The type that it was listed with.
        topic: String,
        /// The DN that it was listed with.
        dn: String,
        /// The directory was asked once more, by the entry's UUID, and has no such object. False where it could not
        /// be asked, or where the object exists under another type.
        confirmed: bool,
    },
    /// One object of the type that was started last is listed but can't be read, and is left out.
    Broken {
        /// The type.
        topic: String,
        /// Its DN; or its UUID, in the form of one, if nobody can tell the DN.
        dn: String,
        /// Its UUID.
        uuid: Option<uuid::Uuid>,
        /// What is wrong, in UDM's words, which may hold values of the object.
        problem: String,
    },
    /// The directory knows no type that a requested topic matches, and the topic is left out. Of a dump: it holds no
    /// object of such a type.
    NoModule {
        /// As it was requested.
        topic: String,
    },
    /// That was all of the type: its list was read to its end, and each of its entries was sent, skipped or broken.
    TopicFinished {
        /// The type.
        topic: String,
    },
    /// A request failed and will be sent again: for the progress that people see. Left out while the channel is
    /// full.
    Retrying {
        /// What failed, and how.
        error: String,
    },
}

/// A source of one of the two kinds.
#[derive(Debug)]
pub enum Source {
    /// The UDM REST API.
    Udm(udm::Udm),
    /// A dump of the directory.
    Dump(dump::Dump),
}

impl Source {
    /// Does an object that is read from it hold every change whose event was accepted before? Only then can an event
    /// be left out.
    #[must_use]
    pub fn is_current(&self) -> bool {
        match self {
            Self::Udm(udm) => udm.is_current(),
            Self::Dump(_) => false,
        }
    }

    /// How far it may be behind the events: what was accepted before may be missing in a list for so long.
    #[must_use]
    pub fn lag(&self) -> Duration {
        match self {
            Self::Udm(udm) => udm.lag(),
            Self::Dump(_) => Duration::ZERO,
        }
    }

    /// Does it show the directory as it is, and not as it was when somebody wrote it down?
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Udm(_))
    }

    /// Reads all objects of the topics, in their order. Topics of realms other than `udm` have no snapshot and are
    /// passed over.
    ///
    /// # Errors
    /// [`SourceError`]; what was sent by then is part of an incomplete snapshot.
    ///
    /// # Cancel safety
    /// Dropping the future ends all requests.
    pub async fn read(
        &self,
        topics: &[RealmTopic],
        out: mpsc::Sender<SourceEvent>,
    ) -> Result<(), SourceError> {
        self.read_as_of(topics, out, &AsOf::default()).await
    }

    /// As [`read`](Self::read); each object is marked with what `as_of` tells when it is asked for.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_as_of(
        &self,
        topics: &[RealmTopic],
        out: mpsc::Sender<SourceEvent>,
        as_of: &AsOf,
    ) -> Result<(), SourceError> {
        let plan = Plan::new(topics)?;
        if plan.is_empty() {
            return Ok(());
        }
        match self {
            Self::Udm(udm) => udm.read(plan, out, as_of).await,
            Self::Dump(dump) => dump.read(plan, out).await,
        }
    }
}
