//! What can go wrong with a source, and whether it may pass.

use std::io;
use std::path::PathBuf;

use model::ExitCode;

use super::udm::Failure;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A setting can't be worked with.
    #[error("the setting {setting} can't be used: {problem}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// A topic that can never be prefilled.
    #[error("the topic {topic:?} can't be prefilled: {problem}")]
    Topic {
        /// As it was requested.
        topic: String,
        /// What is wrong.
        problem: String,
    },
    /// A topic that nothing in the directory matches, at least for now: extensions are loaded late.
    #[error(
        "no module of the directory matches the topic {topic:?}: check its spelling, or install the extension that \
         brings it and let UDM reload"
    )]
    NoModule {
        /// As it was requested.
        topic: String,
    },
    /// 401, repeatedly.
    #[error(
        "UDM refused the credentials of {account} for {what}: check them, and that the account still exists"
    )]
    CredentialsRefused {
        /// User name, or that it is a token.
        account: String,
        /// Request.
        what: String,
    },
    /// An answer that will not change by asking again.
    #[error("UDM refused {what} with status {status}{message}: {advice}")]
    Refused {
        /// Request.
        what: String,
        /// HTTP status.
        status: u16,
        /// UDM's own words, after `, `; empty for objects, whose messages name people.
        message: String,
        /// What to do.
        advice: &'static str,
    },
    /// A request that failed too often.
    #[error("gave up {what} after {tries} tries")]
    Unavailable {
        /// Request.
        what: String,
        /// How often it was sent.
        tries: u32,
        /// How it failed the last time.
        source: Failure,
    },
    /// More objects that can't be read than a healthy directory has.
    #[error(
        "{all} objects can't be read, the last {in_a_row} of them one after the other: that is UDM, not the objects; \
         the last one: {problem}"
    )]
    TooManyBroken {
        /// One after the other.
        in_a_row: u32,
        /// In all.
        all: u32,
        /// Of the last one.
        problem: String,
    },
    /// An object that UDM lists and can't show.
    #[error("{what} can't be read (asked {tries} times)")]
    BrokenObject {
        /// Request.
        what: String,
        /// How often it was sent.
        tries: u32,
        /// How it failed the last time.
        source: Failure,
    },
    /// An answer that is not what UDM gives, repeatedly.
    #[error("the answer to {what} can't be read: {problem}")]
    Unreadable {
        /// Request.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// A record of a dump that is no object.
    #[error("{}, line {line}: {problem}", path.display())]
    DumpLine {
        /// The dump.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A dump that can't be read.
    #[error("can't read the dump {}{}", path.display(), at_line(*line))]
    DumpFile {
        /// The dump.
        path: PathBuf,
        /// Last line that was begun; 0 if it could not be opened.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// A dump without a single object: rather a copy that went wrong than a directory.
    #[error("the dump {} holds no object{}", path.display(), without_type(*untyped))]
    DumpEmpty {
        /// The dump.
        path: PathBuf,
        /// LDAP entries without a type.
        untyped: u64,
    },
    /// A dump that was written to while it was read.
    #[error("the dump {} changed while it was read: {problem}", path.display())]
    DumpChanged {
        /// The dump.
        path: PathBuf,
        /// What is not as before.
        problem: String,
    },
    /// The engine does not take any more.
    #[error("nobody takes the objects any more")]
    ReceiverGone,
}

/// The place where a dump can't be read any further.
fn at_line(line: u64) -> String {
    if line == 0 { String::new() } else { format!(" (at line {line})") }
}

/// The likely reason of a dump without objects.
fn without_type(untyped: u64) -> String {
    match untyped {
        0 => String::new(),
        _ => format!(": {untyped} entries have no univentionObjectType, so they are none that UDM knows"),
    }
}

impl SourceError {
    /// How an attempt that ends with this error exits: the one place where errors are sorted.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Setting { .. } | Self::Topic { .. } | Self::Refused { .. } => ExitCode::BadRequest,
            Self::CredentialsRefused { .. } => ExitCode::CredentialsRefused,
            Self::Unreadable { .. } | Self::DumpLine { .. } | Self::DumpEmpty { .. } => ExitCode::BadData,
            Self::DumpFile { source, .. } => match source.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotSeekable => ExitCode::BadRequest,
                // What the decompressor says of a file that is cut or damaged.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                    ExitCode::BadData
                }
                _ => ExitCode::Transient,
            },
            Self::NoModule { .. }
            | Self::Unavailable { .. }
            | Self::BrokenObject { .. }
            | Self::TooManyBroken { .. }
            | Self::DumpChanged { .. }
            | Self::ReceiverGone => ExitCode::Transient,
        }
    }

    /// Does it come from one object rather than from UDM as a whole?
    pub(super) fn is_of_one_object(&self) -> bool {
        matches!(self, Self::BrokenObject { .. })
    }

    /// May another attempt succeed?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !self.exit_code().is_permanent()
    }
}
