//! Settings of the API.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use broker::{ReaderConfig, Secret};
use model::limits::QueueLimits;

use crate::origin::Network;

/// The fixed users.
#[derive(Clone, Debug)]
pub struct Roles {
    /// Who registers and removes subscriptions.
    pub admin: RoleCredentials,
    /// Who sends events.
    pub events: RoleCredentials,
    /// Who may set the state of a prefill.
    pub prefill: RoleCredentials,
}

#[cfg(test)]
impl Roles {
    /// The users that the chart has, with one password.
    pub(crate) fn for_tests() -> Self {
        let role =
            |user: &str| RoleCredentials { username: user.to_owned(), password: Secret::new("secret") };
        Self { admin: role("admin"), events: role("udm"), prefill: role("prefill") }
    }
}

/// One of the fixed users.
#[derive(Clone, Debug)]
pub struct RoleCredentials {
    /// User name.
    pub username: String,
    /// Password. A file is read every two seconds.
    pub password: Secret,
}

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct Config {
    /// The fixed users.
    pub roles: Roles,
    /// HTTPS instead of HTTP.
    pub tls: Option<TlsFiles>,
    /// How much clients may take.
    pub bounds: Bounds,
    /// Prefix under which a proxy shows the API; requests are served with and without it.
    pub root_path: String,
    /// Allow requests from the pages of any origin.
    pub cors_all: bool,
    /// How queues are read.
    pub reader: ReaderConfig,
    /// How much a queue may hold, as the dispatcher keeps it; to be shown.
    pub limits: QueueLimits,
    /// After how long without a message a stream says that it is alive.
    pub stream_heartbeat: Duration,
    /// How long requests are still taken after the stop: until nobody sends any more.
    pub shutdown_delay: Duration,
    /// For tests of crashes: called before each step of a registration.
    pub before_step: Option<StepHook>,
}

/// Certificate and key of the server (PEM). They are read again every few seconds; connections stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How much clients may take of a replica at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections; those beyond are told so with 503.
    pub connections: usize,
    /// Open streams of a subscription; those beyond are told so with 429.
    pub streams_per_subscription: usize,
    /// Waiting polls of a subscription; those beyond are told so with 429.
    pub polls_per_subscription: usize,
    /// How long the head of a request may take, counted from the answer before: so it is also how long a connection may
    /// be idle. Above the 60 s for which proxies keep one, and the 15 s of existing clients.
    pub head_within: Duration,
    /// As long as nobody has logged in over a connection, how long it may be idle.
    pub first_head_within: Duration,
    /// A client that takes nothing of an answer for so long is cut off.
    pub taken_within: Duration,
    /// While NATS is away: how long consumers' requests outlast the time in which they would be answered otherwise.
    /// Existing clients end at a 503, and NATS is back after seconds when it is restarted. With the poll's own time it
    /// stays below the 60 s after which proxies give up.
    pub outage_outlasted: Duration,
    /// After what time at least a wrong password is answered. It hides that some hashes take longer than others.
    pub refused_after: Duration,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // With heads of 64 KiB and buffers for TLS half of the memory that the chart gives.
            connections: 1024,
            streams_per_subscription: 16,
            polls_per_subscription: 100,
            head_within: Duration::from_secs(75),
            first_head_within: Duration::from_secs(10),
            taken_within: Duration::from_secs(60),
            outage_outlasted: Duration::from_secs(30),
            // A hash of the former software takes some 240 ms.
            refused_after: Duration::from_millis(300),
            trusted_proxies: Vec::new(),
        }
    }
}

/// The steps of a registration, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The name is reserved.
    Reserve,
    /// Stream, first fence, first checkpoint.
    Queue,
    /// The password's hash.
    Credentials,
    /// Job and ConfigMap, or the task.
    Launch,
    /// The entry becomes `ready`.
    Ready,
    /// The marker goes into the event log.
    Marker,
    /// The answer.
    Answer,
}

impl Step {
    /// All steps, in their order.
    pub const ALL: [Self; 7] = [
        Self::Reserve,
        Self::Queue,
        Self::Credentials,
        Self::Launch,
        Self::Ready,
        Self::Marker,
        Self::Answer,
    ];
}

/// Called before each step; `true` stops the request there for ever, as a kill of the process would.
#[derive(Clone)]
pub struct StepHook(pub Arc<dyn Fn(Step) -> bool + Send + Sync>);

impl fmt::Debug for StepHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StepHook")
    }
}
