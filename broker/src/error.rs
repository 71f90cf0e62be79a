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
        needed: String,
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
    /// NATS holds a stream or bucket of another software where ours would be.
    #[error(
        "{what} in NATS is not Headstart's: {problem}. Nothing was changed. Give Headstart a NATS server or an account \
         of its own (NATS_URL, NATS_USER), or remove what the other software has left"
    )]
    Foreign {
        /// Stream or bucket.
        what: String,
        /// How that can be seen.
        problem: String,
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
            Self::Tls { .. } | Self::Version { .. } | Self::Foreign { .. } | Self::Corrupt { .. } => false,
        }
    }

    pub(crate) fn unavailable(action: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unavailable { action: action.into(), source: source.into() }
    }

    pub(crate) fn corrupt(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Corrupt { what: what.into(), source: source.into() }
    }
}

/// States that pass: nothing of them is the fault of what was asked.
const TRANSIENT_CODES: [u64; 24] = [
    // No leader, no quorum, no peers, a cluster that forms or changes; a stream or consumer whose server is away.
    10004, 10005, 10007, 10008, 10009, 10041, 10074, 10118, 10119, 10194, 10195, 10202,
    // Resources and limits of account or server that are used up: streams, consumers, memory, disk, requests.
    10002, 10023, 10026, 10027, 10028, 10047, 10077, 10167,
    // JetStream is off: it is just starting, or has given up its disk until a restart.
    10039, 10076, // A batch that was cut by a change of leaders; too many batches at once.
    10176, 10210,
];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let of = |code| Error::Refused { action: String::new(), code, description: String::new() };
        for code in
            [10002, 10008, 10009, 10023, 10028, 10039, 10047, 10076, 10077, 10118, 10176, 10194, 10210]
        {
            assert!(of(code).is_transient(), "{code}");
        }
        // No stream; another one with that name; another last sequence; a setting that can't be.
        for code in [10052, 10058, 10059, 10065, 10071] {
            assert!(!of(code).is_transient(), "{code}");
        }
    }
}
