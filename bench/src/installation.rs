//! A whole installation on this machine: nats-server and the components as processes of their own, as in production,
//! in a folder that goes with it.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use broker::{Broker, Copier, Copy, NatsConfig};
use futures::{TryStreamExt, stream};
use model::{SubscriptionName, prefill::PrefillTask};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    http::Connection,
    payload,
    process::{Process, Program, free_address},
    raw::Raw,
};

/// How long a start, or anything else that must happen, may take.
pub const SOON: Duration = Duration::from_secs(60);
/// Registrations in flight where many are made.
const IN_FLIGHT: usize = 8;

const ADMIN: (&str, &str) = ("admin", "admin-secret");
const EVENTS: (&str, &str) = ("udm", "events-secret");
const PASSWORD: &str = "pw";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `headstart`.
    pub headstart: PathBuf,
    /// `nats-server`.
    pub nats_server: PathBuf,
    /// `stand-in-udm`.
    pub stand_in: PathBuf,
    /// Dump of a directory, for prefills.
    pub dump: PathBuf,
    /// Where folders are made: on a disk, not in memory.
    pub folder: PathBuf,
}

/// When nats-server gives what it writes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    /// As the product configures it.
    Always,
    /// Only while queues are being filled.
    Lazily,
}

/// A running installation; everything ends and is removed when it is dropped.
pub struct Installation {
    programs: Programs,
    nats_address: SocketAddr,
    api_address: SocketAddr,
    /// nats-server.
    pub nats: Process,
    /// `headstart api`.
    pub api: Process,
    /// `headstart dispatcher`, with its address.
    pub dispatcher: Process,
    dispatcher_address: SocketAddr,
    // Last, so that it goes after the processes.
    folder: TempDir,
}

impl Installation {
    /// Starts nats-server, API and dispatcher, and waits until they are ready.
    pub async fn start(programs: &Programs) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&programs.folder)?;
        let (nats_address, api_address, dispatcher_address) =
            (free_address()?, free_address()?, free_address()?);
        write_nats_config(folder.path(), nats_address, Sync::Always)?;
        let nats = Process::start(Program {
            name: "nats-server".to_owned(),
            arguments: guarded(
                programs,
                &programs.nats_server,
                &["-c".into(), nats_config(folder.path()).into()],
            ),
            environment: Vec::new(),
            folder: folder.path().to_owned(),
        })?;
        let component = |name: &str, component: &str, variables: &[(&str, OsString)]| {
            start_component(programs, folder.path(), nats_address, name, component, variables)
        };
        let api = component("api", "api", &[("LISTEN", api_address.to_string().into())])?;
        let health = [("HEALTH_LISTEN", dispatcher_address.to_string().into())];
        let dispatcher = component("dispatcher", "dispatcher", &health)?;
        let programs = programs.clone();
        let mut installation =
            Self { programs, nats_address, api_address, nats, api, dispatcher, dispatcher_address, folder };
        installation.ready().await?;
        Ok(installation)
    }

    /// Starts a further component, such as a controller, and answers it with its address once it is ready.
    pub async fn start_more(&self, component: &str, name: &str) -> Result<(Process, SocketAddr)> {
        let (mut process, address) = self.begin_more(component, name)?;
        await_ready(address, &mut process).await?;
        Ok((process, address))
    }

    /// Starts a further component, and answers it with its address, whether it is ready or not.
    pub fn begin_more(&self, component: &str, name: &str) -> Result<(Process, SocketAddr)> {
        let address = free_address()?;
        let variables =
            [("HEALTH_LISTEN", address.to_string().into()), ("SOURCE", self.programs.dump.clone().into())];
        let (folder, nats) = (self.folder.path(), self.nats_address);
        let process = start_component(&self.programs, folder, nats, name, component, &variables)?;
        Ok((process, address))
    }

    /// Registers a consumer that asks for a prefill of these topics, waits until it may begin, and answers its task.
    /// `track`: it is recorded what it is told of.
    pub async fn ask_for_prefill(&self, name: &str, topics: &[&str], track: bool) -> Result<PrefillTask> {
        let topics: Vec<_> = topics.iter().map(|topic| json!({"realm": "udm", "topic": topic})).collect();
        let body = json!({"name": name, "password": PASSWORD, "request_prefill": true, "realms_topics": topics,
                          "track": track});
        let body = body.to_string();
        self.admin().await?.expect(201, "POST", "/v1/subscriptions", body.as_bytes()).await?;
        let (registry, name) = (self.broker().await?.registry(), name.parse::<SubscriptionName>()?);
        let began = Instant::now();
        loop {
            let entry = registry.subscription(&name).await?.context("no such subscription")?.value;
            if entry.prefill.boundary.is_some() {
                return Ok(PrefillTask::of(&entry));
            }
            anyhow::ensure!(began.elapsed() < SOON, "the prefill of {name} may not begin");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts `headstart prefill`, as a Job's pod does.
    pub fn start_prefill(&self, task: &PrefillTask, variables: &[(&str, OsString)]) -> Result<Process> {
        let name = format!("prefill-{}", task.subscription);
        let file = self.folder.path().join(format!("{name}.json"));
        fs::write(&file, serde_json::to_vec(task)?)?;
        let variables = [&[("PREFILL_TASK", file.into())], variables].concat();
        start_component(&self.programs, self.folder.path(), self.nats_address, &name, "prefill", &variables)
    }

    /// Waits until API and dispatcher are ready.
    pub async fn ready(&mut self) -> Result<()> {
        await_ready(self.api_address, &mut self.api).await?;
        await_ready(self.dispatcher_address, &mut self.dispatcher).await
    }

    /// Runs nats-server without syncing each write while `work` fills queues, then again as the product configures it.
    pub async fn while_filling<T>(&mut self, work: impl AsyncFnOnce(&Self) -> Result<T>) -> Result<T> {
        self.restart_nats(Sync::Lazily).await?;
        let done = work(self).await?;
        self.restart_nats(Sync::Always).await?;
        Ok(done)
    }

    async fn restart_nats(&mut self, sync: Sync) -> Result<()> {
        self.nats.stop().await?;
        write_nats_config(self.folder.path(), self.nats_address, sync)?;
        self.nats.start_again()?;
        // A dispatcher that was cut off says for a moment longer that it is ready.
        sleep(Duration::from_millis(1_500)).await;
        self.ready().await
    }

    /// A connection for a broker of our own.
    pub async fn broker(&self) -> Result<Broker> {
        let url = format!("nats://{}", self.nats_address);
        Ok(Broker::connect(&NatsConfig::new(url, "bench")).await?)
    }

    /// A connection for raw JetStream.
    pub async fn raw(&self) -> Result<Raw> {
        Raw::connect(&format!("nats://{}", self.nats_address)).await
    }

    /// Where the API is.
    pub fn api_door(&self) -> Door {
        Door(self.api_address)
    }

    /// A connection of the administrator.
    pub async fn admin(&self) -> Result<Connection> {
        Connection::open(self.api_address, ADMIN.0, ADMIN.1).await
    }

    /// A connection of the producer of events.
    pub async fn producer(&self) -> Result<Connection> {
        self.api_door().producer().await
    }

    /// A connection of a consumer.
    pub async fn consumer(&self, name: &str) -> Result<Connection> {
        self.api_door().consumer(name).await
    }

    /// Does the API have this path?
    pub async fn has_path(&self, path: &str) -> Result<bool> {
        let document = self.admin().await?.expect(200, "GET", "/openapi.json", &[]).await?;
        let document: serde_json::Value = serde_json::from_slice(&document)?;
        Ok(!document["paths"][path].is_null())
    }

    /// Registers consumers of one topic each, without a prefill, and waits until events reach them.
    pub async fn register(&self, names: &[String], topic: &str) -> Result<()> {
        self.register_all(names, topic, false).await
    }

    /// As [`register`](Self::register), with a prefill that nobody makes. While that is on its way, the dispatcher copies
    /// each event at once; otherwise it waits for consumers that may read it from the log.
    pub async fn register_with_prefill(&self, names: &[String], topic: &str) -> Result<()> {
        self.register_all(names, topic, true).await
    }

    async fn register_all(&self, names: &[String], topic: &str, prefill: bool) -> Result<()> {
        let chunk = names.len().div_ceil(IN_FLIGHT).max(1);
        stream::iter(names.chunks(chunk).map(Ok::<_, anyhow::Error>))
            .try_for_each_concurrent(None, async |names| {
                let mut admin = self.admin().await?;
                for name in names {
                    register(&mut admin, name, topic, prefill).await?;
                }
                Ok(())
            })
            .await?;
        let registry = self.broker().await?.registry();
        for name in names {
            let name: SubscriptionName = name.parse()?;
            let began = Instant::now();
            while registry.subscription(&name).await?.is_none_or(|s| s.value.prefill.boundary.is_none()) {
                anyhow::ensure!(began.elapsed() < SOON, "{name} gets no events");
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Puts messages into a queue as the dispatcher would, but for no events: their consumer must be one of a topic
    /// that nothing happens in.
    pub async fn fill(&self, name: &str, count: usize, size: usize) -> Result<()> {
        let broker = self.broker().await?;
        let subscription: SubscriptionName = name.parse()?;
        let entry = broker.registry().subscription(&subscription).await?.context("no such subscription")?;
        let queue = broker.queue(&subscription, entry.value.incarnation);
        let mut copier = Copier::open(queue).await?.context("no queue")?;
        let first = copier.checkpoint().incoming_seq + 1;
        let numbers: Vec<usize> = (0..count).collect();
        for numbers in numbers.chunks(Copier::LARGEST_BATCH) {
            let copies: Vec<Copy> = numbers
                .iter()
                .map(|n| Copy {
                    incoming_seq: first + *n as u64,
                    accepted: None,
                    payload: payload::event("bench/none", *n, size),
                })
                .collect();
            copier.copy(&copies).await?;
        }
        broker.close().await;
        Ok(())
    }

    /// Name of a queue's stream.
    pub async fn stream_of(&self, name: &str) -> Result<String> {
        self.raw().await?.stream_of(&format!("{name}.main")).await
    }

    /// A figure of the dispatcher.
    pub async fn dispatcher_metric(&self, connection: &mut Connection, name: &str) -> Result<u64> {
        let text = connection.expect(200, "GET", "/metrics", &[]).await?;
        let text = String::from_utf8(text)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.with_context(|| format!("the dispatcher does not tell {name}"))
    }

    /// A connection to the dispatcher's probes.
    pub async fn dispatcher_probes(&self) -> Result<Connection> {
        Connection::open(self.dispatcher_address, "", "").await
    }

    /// Starts the stopped dispatcher and answers a connection to its probes in the moment when it begins to read the
    /// log.
    pub async fn start_dispatcher(&mut self) -> Result<Connection> {
        self.dispatcher.start_again()?;
        let began = Instant::now();
        loop {
            if let Ok(mut probes) = self.dispatcher_probes().await {
                while probes.send("GET", "/readyz", &[]).await?.status != 200 {
                    anyhow::ensure!(began.elapsed() < SOON, "the dispatcher is not ready");
                    sleep(Duration::from_millis(1)).await;
                }
                return Ok(probes);
            }
            self.dispatcher.check()?;
            anyhow::ensure!(began.elapsed() < SOON, "the dispatcher does not listen");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Where the API is: for those who come back while it is being killed.
#[derive(Clone, Copy)]
pub struct Door(SocketAddr);

impl Door {
    /// A connection of the producer of events.
    pub async fn producer(&self) -> Result<Connection> {
        Connection::open(self.0, EVENTS.0, EVENTS.1).await
    }

    /// A connection of a consumer.
    pub async fn consumer(&self, name: &str) -> Result<Connection> {
        Connection::open(self.0, name, PASSWORD).await
    }
}

/// Registers a consumer.
pub async fn register(admin: &mut Connection, name: &str, topic: &str, prefill: bool) -> Result<()> {
    let body = json!({
        "name": name, "password": PASSWORD, "request_prefill": prefill,
        "realms_topics": [{"realm": "udm", "topic": topic}],
    });
    admin.expect(201, "POST", "/v1/subscriptions", body.to_string().as_bytes()).await.map(drop)
}

/// Removes a consumer.
pub async fn remove(admin: &mut Connection, name: &str) -> Result<()> {
    admin.expect(200, "DELETE", &format!("/v1/subscriptions/{name}"), &[]).await.map(drop)
}

/// Does a component say that it is ready?
pub async fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut probes) = Connection::open(address, "", "").await else { return false };
    probes.send("GET", "/readyz", &[]).await.is_ok_and(|answer| answer.status == 200)
}

/// Waits until a component says that it is ready.
pub async fn await_ready(address: SocketAddr, process: &mut Process) -> Result<()> {
    let began = Instant::now();
    loop {
        if is_ready(address).await {
            return Ok(());
        }
        process.check()?;
        if began.elapsed() > SOON {
            bail!("{} is not ready", process.name());
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn start_component(
    programs: &Programs,
    folder: &Path,
    nats: SocketAddr,
    name: &str,
    component: &str,
    variables: &[(&str, OsString)],
) -> Result<Process> {
    let mut environment = vec![
        ("NATS_URL".to_owned(), format!("nats://{nats}").into()),
        ("LAUNCHER".to_owned(), "queue".into()),
        ("LOG_FORMAT".to_owned(), "json".into()),
        ("ADMIN_PASSWORD".to_owned(), ADMIN.1.into()),
        ("EVENTS_PASSWORD_UDM".to_owned(), EVENTS.1.into()),
        ("PREFILL_PASSWORD".to_owned(), "prefill-secret".into()),
    ];
    environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Process::start(Program {
        name: name.to_owned(),
        arguments: guarded(programs, &programs.headstart, &[component.into()]),
        environment,
        folder: folder.to_owned(),
    })
}

/// A command line by which the system kills the process when we die, whatever kills us.
pub fn guarded(programs: &Programs, program: &Path, arguments: &[OsString]) -> Vec<OsString> {
    let guard = [programs.headstart.clone().into(), "guarded-nats-server".into(), program.into()];
    guard.into_iter().chain(arguments.iter().cloned()).collect()
}

fn nats_config(folder: &Path) -> PathBuf {
    folder.join("nats.conf")
}

/// As `headstart standalone` writes it, without users.
fn write_nats_config(folder: &Path, address: SocketAddr, sync: Sync) -> Result<()> {
    let store = serde_json::to_string(&folder.join("jetstream").to_string_lossy())?;
    let interval = if sync == Sync::Always { "always" } else { "\"2m\"" };
    let text = format!(
        "listen: \"{address}\"\nmax_payload: 8MB\njetstream {{\n  store_dir: {store}\n  sync_interval: {interval}\n}}\n"
    );
    fs::write(nats_config(folder), text).context("writing nats.conf")
}
