//! Flags and environment variables, in one scheme: the flag `--nats-url` is the variable `NATS_URL`.
//!
//! What installations have today (`NATS_HOST`, `ADMIN_PASSWORD`, `UDM_USERNAME` …) keeps its name. This is what was
//! typed; each group turns into the typed configuration of its component here, and nowhere else.

mod dump;
mod limits;
mod nats;
mod register;
mod removals;
mod roles;
mod secret;
mod serving;
mod shape;
mod source;
mod watch;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub use dump::{Export, Validate};
pub use limits::{Log, Queues};
pub use nats::{Nats, NatsAccess};
pub use register::{IfDifferent, Register};
pub use removals::Removals;
pub use roles::{Admin, Roles};
pub use serving::Serving;
pub use shape::Shape;
pub use source::{SourceAddress, Udm};
pub use watch::Watch;

/// Delivers every user and group of the directory to the applications of openDesk and Nubus: first everything that
/// already exists, then each change, in order and without loss.
#[derive(Debug, Parser)]
#[command(name = "headstart", version, max_term_width = 100, propagate_version = true)]
#[command(
    after_help = "Most flags are also environment variables, which the help of each command lists: --nats-url is \
    NATS_URL.\n\
    Try it on a laptop: headstart standalone --source dump.jsonl"
)]
pub struct Cli {
    #[command(flatten)]
    pub logging: Logging,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Logging {
    /// error, warn, info, debug or trace, or directives such as info,broker=debug.
    #[arg(long, env, value_name = "LEVEL", default_value = "info", global = true,
          value_parser = crate::logging::directives)]
    pub log_level: String,
    /// JSON lines or readable text. auto: text on a terminal.
    #[arg(long, env, value_name = "FORMAT", default_value = "auto", global = true)]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    Auto,
    Json,
    Text,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API: registration, messages, events.
    Api(Api),
    /// Copy events into the queues of the subscriptions that want them.
    Dispatcher(Dispatcher),
    /// Run prefills as Kubernetes Jobs: start, watch, retry, record and clean up.
    Controller(Controller),
    /// Run one attempt of a prefill, as the pod of a Job does.
    Prefill(Prefill),
    /// Run prefills from the NATS task queue, without Kubernetes.
    Worker(Worker),
    /// Run everything in one process, with its own nats-server. Missing passwords are generated, kept in the data
    /// directory and printed once.
    Standalone(Standalone),
    /// Check a directory dump, or that UDM is reachable, without writing anything.
    Validate(Validate),
    /// Register the consumers whose registrations are in a folder.
    Register(Register),
    /// Write a dump of the directory as JSON lines, for use as a source.
    Export(Export),
    /// Show the progress of a prefill until it is done (exits with 0) or has failed (1). Exits with 2 if the API
    /// refuses the request, with 3 after --timeout.
    Watch(Watch),
    /// Become nats-server, and end with the parent (used by `standalone` only).
    #[command(hide = true)]
    GuardedNatsServer(GuardedNatsServer),
}

#[derive(Debug, Args)]
pub struct Api {
    #[command(flatten)]
    pub nats: Nats,
    #[command(flatten)]
    pub roles: Roles,
    #[command(flatten)]
    pub http: Http,
    /// Address to listen on; [::] means all addresses, IPv4 and IPv6.
    #[arg(long, env, value_name = "ADDRESS", default_value = "[::]:7777")]
    pub listen: SocketAddr,
    /// How prefills run: as Kubernetes Jobs, or in workers on the NATS task queue.
    #[arg(long, env, value_name = "LAUNCHER", default_value = "kubernetes")]
    pub launcher: LauncherKind,
    #[command(flatten)]
    pub jobs: Jobs,
    #[command(flatten)]
    pub queues: Queues,
    #[command(flatten)]
    pub log: Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LauncherKind {
    Kubernetes,
    Queue,
}

#[derive(Debug, Args)]
pub struct Http {
    /// Prefix under which a reverse proxy serves the API; requests work with and without it.
    #[arg(long, env, value_name = "PATH", default_value = "/")]
    pub root_path: String,
    /// Allow requests from web pages of any origin.
    #[arg(long, env, value_name = "BOOL", default_value = "false", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub cors_all: bool,
    /// Seconds after which an unacknowledged message is delivered again.
    #[arg(long, env, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub redelivery_delay: Duration,
    #[command(flatten)]
    pub serving: Serving,
}

#[derive(Debug, Args)]
pub struct Jobs {
    /// Template of the prefill Jobs, as the chart renders it (YAML).
    #[arg(long, env, value_name = "FILE", default_value = "/etc/headstart/template/job.yaml")]
    pub job_template: PathBuf,
    /// ConfigMap that owns the Jobs, so that they are removed together with the release.
    #[arg(long, env, value_name = "NAME")]
    pub job_owner: Option<String>,
    /// Namespace of the Jobs; default: the namespace of the pod's service account.
    #[arg(long, env, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

#[derive(Debug, Args)]
pub struct Probes {
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env, value_name = "ADDRESS")]
    pub health_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub struct Dispatcher {
    #[command(flatten)]
    pub nats: Nats,
    #[command(flatten)]
    pub probes: Probes,
    #[command(flatten)]
    pub queues: Queues,
    /// Events that may wait in memory for one queue. For tests: a small one makes its lane read the log itself.
    #[arg(long, env = "DISPATCHER_LANE_ENTRIES_MAX", value_name = "N", hide = true)]
    pub lane_entries_max: Option<usize>,
    /// Seconds that an event may wait for consumers that read it from the event log, before it is copied. For tests.
    #[arg(long, env = "DISPATCHER_COPY_AFTER", value_name = "SECONDS", value_parser = seconds, hide = true)]
    pub copy_after: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct Controller {
    #[command(flatten)]
    pub nats: Nats,
    #[command(flatten)]
    pub probes: Probes,
    #[command(flatten)]
    pub jobs: Jobs,
    /// How prefills run. queue: the controller watches no Jobs and only completes interrupted operations.
    #[arg(long, env, value_name = "LAUNCHER", default_value = "kubernetes")]
    pub launcher: LauncherKind,
    /// Maximum number of concurrent prefills.
    #[arg(long, env, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_running_prefills: u32,
    /// Seconds within which the pod of a started Job must run.
    #[arg(long, env, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub start_deadline: Duration,
    /// Bytes that NATS may store, for the metric headstart_nats_store_limit_bytes: a client can't query this limit.
    #[arg(long, env, value_name = "BYTES")]
    pub nats_store_limit: Option<u64>,
    /// Show how long the oldest message of each queue waits: the metric headstart_queue_oldest_seconds, one series
    /// per subscription.
    #[arg(long, env, value_name = "BOOL", default_value = "false", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub queue_ages: bool,
    /// Name of the leader-election Lease; leave it out to disable leader election.
    #[arg(long, env, value_name = "NAME")]
    pub lease_name: Option<String>,
    /// Name of this pod, as shown in its Events.
    #[arg(long, env, value_name = "NAME", default_value = "headstart-controller")]
    pub pod_name: String,
}

#[derive(Debug, Args)]
pub struct Prefill {
    #[command(flatten)]
    pub nats: Nats,
    #[command(flatten)]
    pub source: SourceAddress,
    #[command(flatten)]
    pub udm: Udm,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub removals: Removals,
    /// The prefill request as JSON, from the Job's ConfigMap.
    #[arg(
        long,
        env = "PREFILL_TASK",
        value_name = "FILE",
        default_value = "/etc/headstart/prefill/task.json"
    )]
    pub task: PathBuf,
    /// Name of the pod, as shown to people.
    #[arg(long, env, value_name = "NAME", default_value = "prefill")]
    pub pod_name: String,
    /// File from which Kubernetes reads the termination message.
    #[arg(long, env, value_name = "FILE")]
    pub termination_log: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Worker {
    #[command(flatten)]
    pub nats: Nats,
    #[command(flatten)]
    pub probes: Probes,
    #[command(flatten)]
    pub source: SourceAddress,
    #[command(flatten)]
    pub udm: Udm,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub removals: Removals,
    #[command(flatten)]
    pub attempts: Attempts,
    /// Name of this worker, as shown to people.
    #[arg(long, env, value_name = "NAME", default_value = "worker")]
    pub pod_name: String,
}

#[derive(Debug, Args)]
pub struct Attempts {
    /// Tries before a prefill counts as failed; -1: no limit.
    #[arg(long, env, value_name = "N", default_value = "5", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..))]
    pub max_prefill_attempts: i64,
    /// Maximum number of concurrent prefills in one process.
    #[arg(long, env, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    pub parallel_prefills: u16,
}

#[derive(Debug, Args)]
pub struct Standalone {
    /// Address to listen on.
    #[arg(long, env, value_name = "ADDRESS", default_value = "127.0.0.1:7777")]
    pub listen: SocketAddr,
    /// Directory for all data; created if it does not exist.
    #[arg(long, env, value_name = "DIR", default_value = "headstart-data")]
    pub data_dir: PathBuf,
    /// Address of a running nats-server; otherwise one is started, with its data under --data-dir.
    #[arg(long = "nats", env = "NATS_URL", value_name = "URL")]
    pub nats_url: Option<String>,
    #[command(flatten)]
    pub nats_access: NatsAccess,
    /// The nats-server to start (2.12.3 or newer); default: next to this program, where `cargo xtask tools` puts it,
    /// or on PATH.
    #[arg(long, env = "HEADSTART_NATS_SERVER", value_name = "FILE")]
    pub nats_server: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceAddress,
    #[command(flatten)]
    pub udm: Udm,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub removals: Removals,
    #[command(flatten)]
    pub roles: Roles,
    #[command(flatten)]
    pub http: Http,
    #[command(flatten)]
    pub attempts: Attempts,
    #[command(flatten)]
    pub queues: Queues,
    #[command(flatten)]
    pub log: Log,
}

#[derive(Debug, Args)]
pub struct GuardedNatsServer {
    /// Program to run.
    pub program: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

impl Command {
    /// Is it somebody at a terminal who runs this, or a script of theirs, and no installation?
    pub fn is_for_people(&self) -> bool {
        matches!(self, Self::Validate(_) | Self::Export(_) | Self::Watch(_))
    }
}

/// The subcommand among arguments that are wrong, whatever flags stand before it.
pub fn subcommand<'a>(mut arguments: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    while let Some(argument) = arguments.next() {
        match argument {
            "--log-level" | "--log-format" => _ = arguments.next(),
            flag if flag.starts_with('-') => {}
            name => return Some(name),
        }
    }
    None
}

/// The environment variables of the required flags that are missing.
pub fn missing_variables(error: &clap::Error, subcommand: &str) -> Option<String> {
    if error.kind() != ErrorKind::MissingRequiredArgument {
        return None;
    }
    let Some(ContextValue::Strings(flags)) = error.get(ContextKind::InvalidArg) else { return None };
    let variables: Vec<String> = flags
        .iter()
        .filter_map(|flag| flag.strip_prefix("--")?.split(' ').next())
        .filter_map(|flag| variable(subcommand, flag))
        .collect();
    (!variables.is_empty()).then(|| variables.join(", "))
}

/// The environment variable of a flag.
fn variable(subcommand: &str, flag: &str) -> Option<String> {
    let cli = Cli::command();
    let argument =
        cli.find_subcommand(subcommand)?.get_arguments().find(|arg| arg.get_long() == Some(flag))?;
    Some(argument.get_env()?.to_string_lossy().into_owned())
}

/// Seconds, with fractions.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a number of seconds above 0, such as 1.5".to_owned())
}

/// As [`seconds`], but also none.
fn seconds_or_none(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<f64>() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => seconds(text).map_err(|_| "give a number of seconds from 0, such as 5 or 1.5".to_owned()),
    }
}
