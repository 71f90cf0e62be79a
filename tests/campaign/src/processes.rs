//! The processes: started, killed, stopped, continued, by their own id; all ended when this is dropped.

use std::{
    collections::HashMap,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context, Result};
use broker::testing::LossyProxy;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{
    client::Passwords,
    plan::{Plan, Target},
};

/// Programs and addresses of a run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The program under test.
    pub headstart: PathBuf,
    /// The server.
    pub nats_server: PathBuf,
}

/// All processes of a run.
#[derive(Debug)]
pub struct Processes {
    programs: Programs,
    folder: PathBuf,
    udm: String,
    nats_port: u16,
    api_ports: [u16; 2],
    running: HashMap<Target, Child>,
    twins: Vec<Child>,
    reads_primary: bool,
    lane_entries: usize,
    dispatchers: u8,
    /// Seconds that events wait for consumers that read the log.
    copy_after: &'static str,
    /// Between each process and the server.
    proxies: HashMap<Target, Arc<LossyProxy>>,
}

/// Every process that a run may consist of, the server first.
const ALL: [Target; 9] = [
    Target::Nats,
    Target::Api(0),
    Target::Api(1),
    Target::Dispatcher(0),
    Target::Dispatcher(1),
    Target::Dispatcher(2),
    Target::Worker(0),
    Target::Worker(1),
    Target::Controller,
];

impl Processes {
    /// Chooses ports; starts nothing yet.
    ///
    /// # Errors
    /// No port is free, or the folder can't be written.
    pub fn new(programs: Programs, folder: &Path, udm: String) -> Result<Self> {
        // Held together until all are chosen, so that they differ.
        let free = || TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1");
        let held = [free()?, free()?, free()?];
        let mut ports = [0; 3];
        for (port, listener) in ports.iter_mut().zip(&held) {
            *port = listener.local_addr()?.port();
        }
        let [nats_port, first, second] = ports;
        std::fs::create_dir_all(folder.join("logs"))?;
        let store = serde_json::to_string(&folder.join("jetstream"))?;
        let text = format!(
            "listen: \"127.0.0.1:{nats_port}\"\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {store}, sync_interval: always }}\n"
        );
        std::fs::write(folder.join("nats.conf"), text)?;
        Ok(Self {
            programs,
            folder: folder.to_owned(),
            udm,
            nats_port,
            api_ports: [first, second],
            running: HashMap::new(),
            twins: Vec::new(),
            reads_primary: false,
            lane_entries: 5_000,
            dispatchers: 2,
            copy_after: "2",
            proxies: HashMap::new(),
        })
    }

    /// Sets up what starts from now on as a plan wants it. Each process gets a wire of its own, which can be damaged.
    pub async fn set_up(&mut self, plan: &Plan) {
        self.reads_primary = plan.reads_primary;
        self.lane_entries = plan.lane_entries;
        self.dispatchers = plan.dispatchers;
        // Copied at once, about when consumers acknowledge, and as in production.
        self.copy_after = ["2", "0.001", "0.02", "0.2"][(plan.seed % 4) as usize];
        for target in self.all() {
            if !matches!(target, Target::Nats | Target::Controller) {
                self.proxies.insert(target, Arc::new(LossyProxy::to(self.nats_port).await));
            }
        }
    }

    /// Every process that the run consists of, the server first.
    #[must_use]
    pub fn all(&self) -> Vec<Target> {
        let here = |target: &Target| !matches!(target, Target::Dispatcher(n) if *n >= self.dispatchers);
        ALL.into_iter().filter(here).collect()
    }

    /// The wire of a process.
    pub fn proxy(&self, target: Target) -> Option<Arc<LossyProxy>> {
        self.proxies.get(&target).cloned()
    }

    /// Address of the server.
    #[must_use]
    pub fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.nats_port)
    }

    /// Addresses of the replicas.
    #[must_use]
    pub fn api_urls(&self) -> [String; 2] {
        self.api_ports.map(|port| format!("http://127.0.0.1:{port}"))
    }

    /// Starts one, unless it runs.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&mut self, target: Target) -> Result<()> {
        if self.running.contains_key(&target) {
            return Ok(());
        }
        let mut command = match target {
            Target::Nats => {
                let mut command = Command::new(&self.programs.nats_server);
                command.arg("-c").arg(self.folder.join("nats.conf"));
                command
            }
            Target::Api(n) => {
                let mut command = self.headstart(&["api", "--launcher", "queue"]);
                let port = self.api_ports[usize::from(n) % 2];
                command.args(["--listen", &format!("127.0.0.1:{port}"), "--redelivery-delay", "0.2"]);
                Passwords::set(&mut command);
                command
            }
            Target::Dispatcher(_) => self.headstart(&["dispatcher"]),
            Target::Controller => self.headstart(&["controller", "--launcher", "queue"]),
            Target::Worker(n) => {
                let name = format!("worker-{n}");
                // No limit of tries: a prefill that is tried again and again must end well at last.
                let mut command =
                    self.headstart(&["worker", "--pod-name", &name, "--max-prefill-attempts", "-1"]);
                command.args(["--source", &self.udm]).env("UDM_PASSWORD", "univention");
                command
            }
        };
        if let Some(proxy) = self.proxies.get(&target) {
            command.env("NATS_URL", format!("nats://{}", proxy.address()));
        }
        let child = self.spawn(&mut command, &target.to_string())?;
        self.running.insert(target, child);
        Ok(())
    }

    /// Starts another pod of an attempt; answers its number.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_twin(&mut self, task: &str) -> Result<usize> {
        let number = self.twins.len();
        let file = self.folder.join(format!("task-{number}.json"));
        std::fs::write(&file, task)?;
        let mut command = self.headstart(&["prefill", "--pod-name", &format!("twin-{number}"), "--task"]);
        command.arg(file).args(["--source", &self.udm]).env("UDM_PASSWORD", "univention");
        let child = self.spawn(&mut command, "twins")?;
        self.twins.push(child);
        Ok(number)
    }

    fn headstart(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.headstart);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LOG_LEVEL", "info,broker=debug")
            .env("NATS_URL", self.nats_url())
            .env("SHUTDOWN_DELAY", "0")
            .env("DISPATCHER_LANE_ENTRIES_MAX", self.lane_entries.to_string())
            .env("DISPATCHER_COPY_AFTER", self.copy_after)
            .env("UDM_READS_PRIMARY", self.reads_primary.to_string());
        command
    }

    fn spawn(&self, command: &mut Command, name: &str) -> Result<Child> {
        let path = self.folder.join("logs").join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("can't write {}", path.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C on a terminal is for us.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().with_context(|| format!("can't start {name}"))
    }

    /// SIGKILL; returns when it is gone.
    pub async fn kill(&mut self, target: Target) {
        if let Some(mut child) = self.running.remove(&target) {
            child.kill().await.ok();
        }
    }

    /// SIGTERM; what is ending.
    pub fn term(&mut self, target: Target) -> Option<Child> {
        let child = self.running.remove(&target)?;
        // One that is stopped would not notice.
        send(&child, Signal::CONT);
        send(&child, Signal::TERM);
        Some(child)
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, target: Target, signal: Signal) {
        if let Some(child) = self.running.get(&target) {
            send(child, signal);
        }
    }

    /// The same for a twin.
    pub fn signal_twin(&self, number: usize, signal: Signal) {
        if let Some(child) = self.twins.get(number) {
            send(child, signal);
        }
    }

    /// Those that have ended by themselves, with how; they can be started again.
    pub fn ended(&mut self) -> Vec<(Target, String)> {
        let mut ended = Vec::new();
        for (target, child) in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                ended.push((*target, status.to_string()));
            }
        }
        for (target, _) in &ended {
            self.running.remove(target);
        }
        // Reaps twins, so that their numbers are not taken for those of others.
        for twin in &mut self.twins {
            twin.try_wait().ok();
        }
        ended
    }

    /// Lets everything go on and starts what does not run.
    ///
    /// # Errors
    /// Something can't be started.
    pub fn heal(&mut self) -> Result<()> {
        for child in self.running.values().chain(&self.twins) {
            send(child, Signal::CONT);
        }
        self.start_all()
    }

    /// Starts each that does not run, the server first.
    ///
    /// # Errors
    /// One can't be started.
    pub fn start_all(&mut self) -> Result<()> {
        self.all().into_iter().try_for_each(|target| self.start(target))
    }
}

/// A child that was waited for has no id any more: nobody else's process is ever hit.
fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, signal).ok();
    }
}
