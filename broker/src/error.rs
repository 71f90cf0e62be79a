//! Errors of the broker. A caller asks `is_transient()` to choose between trying again and giving up.

use std::error::Error as StdError;

type Source = Box<dyn StdError + Send + Sync>;

/// Why something with NATS did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// NATS can't be reached or does not answer. Of a write the outcome is unknown.
    #[error("NATS did not answer while {action}")]
    Unavailable {
        /// What was tried.
        action: String,
        /// What the client says.
        #[source]
        source: Source,
    },
    /// The server refuses the address or the credentials.
    #[error(
        "can't connect to NATS at {url}: check the URL (NATS_URL) and the credentials (NATS_USER; NATS_PASSWORD or \
         NATS_PASSWORD_FILE)"
    )]
    Connect {
        /// Address, without credentials.
        url: String,
        /// What the client says.
        #[source]
        source: Source,
    },
    /// TLS with the server does not come about, and won't before a setting, a file or the server changes.
    #[error("no TLS with NATS at {url}: {problem}")]
    Tls {
        /// Address, without credentials.
        url: String,
        /// What is wrong, with the setting.
        problem: String,
        /// What the client says.
        #[source]
        source: Source,
    },
    /// The server is too old.
    #[error("nats-server {found} is too old: {needed} or newer is needed for atomic batches (ADR-50)")]
    Version {
        /// Version of the server.
        found: String,
        /// Version that is needed.
        needed: &'static str,
    },
    /// JetStream refused.
    #[error("JetStream refused {action}: {description} ({code})")]
    Refused {
        /// What was tried.
        action: String,
        /// `err_code` of JetStream.
        code: u64,
        /// The server's words.
        description: String,
    },
    /// A stream or bucket that the API makes is not there.
    #[error("{what} does not exist in NATS yet: it is made when the API starts")]
    LayoutMissing {
        /// Stream or bucket.
        what: String,
    },
    /// A stored value can't be read.
    #[error("{what} in NATS can't be read: it was written by something else, or by a newer version")]
    Corrupt {
        /// Where the value is.
        what: String,
        /// What the parser says.
        #[source]
        source: Source,
    },
}

impl Error {
    /// May the same call succeed later?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::LayoutMissing { .. } | Self::Connect { .. } => true,
            Self::Refused { code, .. } => TRANSIENT_CODES.contains(code),
            Self::Tls { .. } | Self::Version { .. } | Self::Corrupt { .. } => false,
        }
    }

    pub(crate) fn unavailable(action: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unavailable { action: action.into(), source: source.into() }
    }

    pub(crate) fn corrupt(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Corrupt { what: what.into(), source: source.into() }
    }
}

/// No leader, no quorum, resources used up, server shutting down: states that pass.
const TRANSIENT_CODES: [u64; 6] = [10008, 10009, 10023, 10047, 10074, 10077];

/// A conditional write that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The key exists already, or has changed since it was read.
    #[error("somebody else has written this key meanwhile")]
    Conflict,
    /// Anything else; after `Unavailable` the outcome is unknown.
    #[error(transparent)]
    Other(#[from] Error),
}
