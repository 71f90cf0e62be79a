//! `stand-in-udm`: the stand-in as a server of its own, and as a source of dumps.

use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use stand_in_udm::{Credentials, Directory, Faults, Population, Settings, StandIn};

/// Plays the UDM REST API.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the directory to standard output, one object a line.
    Dump(Dump),
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    population: PopulationArguments,
    /// Address to listen on.
    #[arg(long, env = "STAND_IN_UDM_LISTEN", default_value = "0.0.0.0:9979")]
    listen: SocketAddr,
    /// Path before /udm/.
    #[arg(long, env = "STAND_IN_UDM_PREFIX", default_value = "/univention")]
    prefix: String,
    /// User that may read.
    #[arg(long, env = "STAND_IN_UDM_USERNAME", default_value = "cn=admin")]
    username: String,
    /// The user's password.
    #[arg(long, env = "STAND_IN_UDM_PASSWORD", default_value = "univention", hide_env_values = true)]
    password: String,
    /// Time that each GET of an object takes, in milliseconds.
    #[arg(long, env = "STAND_IN_UDM_DELAY_MS", default_value_t = 0)]
    delay_ms: u64,
    /// Time that each GET of an object takes besides, in microseconds, in which its process serves no other.
    #[arg(long, env = "STAND_IN_UDM_SERIAL_US", default_value_t = 0)]
    serial_us: u64,
    /// Percent by which that grows for each other GET that the process is busy with.
    #[arg(long, env = "STAND_IN_UDM_CROWDING_PERCENT", default_value_t = 0)]
    crowding_percent: u32,
    /// Processes that serve; connections take turns with them.
    #[arg(long, env = "STAND_IN_UDM_BACKENDS", default_value_t = 1)]
    backends: usize,
    /// Time that each list takes, in milliseconds.
    #[arg(long, env = "STAND_IN_UDM_LIST_DELAY_MS", default_value_t = 0)]
    list_delay_ms: u64,
    /// Objects that a process reads at the same time; more have to wait.
    #[arg(long, env = "STAND_IN_UDM_WORKERS", default_value_t = 35)]
    workers: usize,
    /// Lists of more entries fail.
    #[arg(long, env = "STAND_IN_UDM_SIZE_LIMIT")]
    size_limit: Option<usize>,
}

#[derive(Args)]
struct Dump {
    #[command(flatten)]
    population: PopulationArguments,
    /// Addresses in the objects begin with this.
    #[arg(long, default_value = "http://localhost:9979/univention")]
    uri_base: String,
}

#[derive(Args)]
struct PopulationArguments {
    /// Number of users.
    #[arg(long, env = "STAND_IN_UDM_USERS", default_value_t = 100)]
    users: u32,
    /// Number of groups, besides Domain Users.
    #[arg(long, env = "STAND_IN_UDM_GROUPS", default_value_t = 20)]
    groups: u32,
    /// The same seed gives the same directory.
    #[arg(long, env = "STAND_IN_UDM_SEED", default_value_t = 1)]
    seed: u64,
    /// Users with a photo (20 to 400 KB), of a thousand.
    #[arg(long, env = "STAND_IN_UDM_PHOTOS_PER_MILLE", default_value_t = 20)]
    photos_per_mille: u32,
    /// Members of Domain Users; all users if not given.
    #[arg(long, env = "STAND_IN_UDM_DOMAIN_USERS")]
    domain_users: Option<u32>,
    /// LDAP base.
    #[arg(long, env = "STAND_IN_UDM_BASE", default_value = "dc=swp-ldap,dc=internal")]
    base: String,
}

impl PopulationArguments {
    fn directory(self) -> Directory {
        let Self { users, groups, seed, photos_per_mille, domain_users, base } = self;
        Directory::generated(Population { users, groups, seed, photos_per_mille, domain_users, base })
    }
}

fn main() -> anyhow::Result<()> {
    let Arguments { command, serve } = Arguments::parse();
    match command {
        Some(Command::Dump(Dump { population, uri_base })) => {
            let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            stand_in_udm::dump::write(&population.directory(), &uri_base, &mut out)
                .context("writing the dump")?;
            Ok(out.flush()?)
        }
        None => tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(serve)),
    }
}

async fn run(arguments: Serve) -> anyhow::Result<()> {
    let Serve {
        population,
        listen,
        prefix,
        username,
        password,
        delay_ms,
        serial_us,
        crowding_percent,
        backends,
        list_delay_ms,
        workers,
        size_limit,
    } = arguments;
    let credentials = Credentials { username, password, token: None };
    let opened_per_object = Duration::from_millis(delay_ms.max(4));
    let settings =
        Settings { listen, prefix, credentials, backends, workers, opened_per_object, ..Settings::default() };
    let faults = Faults {
        get_delay_ms: delay_ms,
        get_serial_us: serial_us,
        crowding_percent,
        list_delay_ms,
        size_limit,
        ..Faults::default()
    };
    let server = StandIn::start_with(settings, population.directory(), faults)
        .await
        .with_context(|| format!("listening on {listen}"))?;
    println!("serving {} with {} users", server.base_url(), server.directory().count("users/user"));
    server.run_until(ended()).await.context("serving")
}

/// SIGTERM or Ctrl-C.
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
        }
        Err(_) => _ = tokio::signal::ctrl_c().await,
    }
}
