//! One cluster from outside: start, look, use, end.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{binaries::Binaries, cgroup, node, pki};
use crate::{
    commands::{self, output},
    workspace,
};

/// How long a cluster may take to be ready; about 5 s on 2 idle cores.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How long a running cluster may take to be ready again (a killed component is back after seconds) before it is
/// replaced.
const WELL_AGAIN_WITHIN: Duration = Duration::from_secs(40);

/// How long the kernel may take to end all processes of a node.
const DEAD_WITHIN: Duration = Duration::from_secs(20);

/// A cluster by its id; whether it runs is found out each time.
#[derive(Clone)]
pub struct Cluster {
    id: String,
    run: PathBuf,
}

/// How long a cluster that was started lives.
#[derive(Clone, Copy, PartialEq)]
pub enum Lifetime {
    /// Until somebody ends it.
    UntilDown,
    /// As long as the [`Lifeline`] that [`Cluster::up`] gave, and so never longer than this process.
    AsThisProcess,
}

/// The cluster that was started with it ends when this is dropped, or when its process is killed.
pub struct Lifeline(#[expect(dead_code, reason = "held, never written to")] ChildStdin);

impl Cluster {
    /// The cluster of that id.
    ///
    /// # Errors
    /// The id is not made of up to 24 lower-case letters, digits and hyphens.
    pub fn named(id: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if id.is_empty() || id.len() > 24 || !id.chars().all(fits) {
            bail!("an id of a cluster is up to 24 lower-case letters, digits and hyphens");
        }
        Ok(Self { id: id.to_owned(), run: runs().join(id) })
    }

    /// A cluster for a test run: the first of `test-1`, `test-2`… that no other run holds.
    ///
    /// # Errors
    /// The lock files can't be made.
    pub fn for_tests() -> Result<(Self, File)> {
        for number in 1.. {
            let cluster = Self::named(&format!("test-{number}"))?;
            let file = commands::open_lock(&cluster.lock_path())?;
            if file.try_lock().is_ok() {
                return Ok((cluster, file));
            }
        }
        bail!("no number left")
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Keeps others from starting and ending this cluster; waits for those who do.
    ///
    /// # Errors
    /// The lock file can't be made.
    pub fn lock(&self) -> Result<File> {
        commands::lock_file(&self.lock_path())
    }

    fn lock_path(&self) -> PathBuf {
        self.run.with_extension("lock")
    }

    /// Starts the cluster, or waits until the running one is well. One that does not get well is replaced, with all
    /// that was in it. To be called under [`Cluster::lock`].
    ///
    /// # Errors
    /// It does not get ready; it is taken down again then.
    pub fn up(&self, binaries: &Binaries, lifetime: Lifetime) -> Result<Option<Lifeline>> {
        if self.node().is_some() {
            if self.wait_started(WELL_AGAIN_WITHIN).is_ok() {
                return Ok(None);
            }
            println!("the cluster {} runs but is not well: it is replaced", self.id);
        }
        self.down()?;
        self.prepare(binaries).with_context(|| format!("could not prepare {}", self.run.display()))?;
        let lifeline = self.start(binaries, lifetime)?;
        match self.wait_started(READY_WITHIN) {
            Ok(()) => Ok(lifeline),
            Err(error) => {
                let logs = self.log_tails();
                self.down()?;
                Err(error.context(format!("the cluster {} did not start:\n{logs}", self.id)))
            }
        }
    }

    fn prepare(&self, binaries: &Binaries) -> Result<()> {
        for folder in ["config/cni", "var/log", "var/tmp", "var/lib/etcd", "images"] {
            fs::create_dir_all(self.run.join(folder))?;
        }
        symlink("/run", self.run.join("var/run"))?;
        symlink(&binaries.0, self.run.join("bin"))?;
        let source = workspace::root().join("tests/cluster/config");
        for file in [
            "audit-policy.yaml",
            "containerd.toml",
            "cni/10-pods.conflist",
            "kubelet.yaml",
            "Corefile",
            "kubeconfig.yaml",
        ] {
            fs::copy(source.join(file), self.run.join("config").join(file))
                .with_context(|| format!("tests/cluster/config/{file}"))?;
        }
        pki::create(&self.run)?;
        cgroup::create(&self.cgroup())
    }

    /// A cgroup is named for the run folder, since another checkout on the machine may use the same id.
    fn cgroup(&self) -> String {
        let mut hash = DefaultHasher::new();
        self.run.hash(&mut hash);
        format!("headstart-{}-{:08x}", self.id, hash.finish() & 0xffff_ffff)
    }

    fn start(&self, binaries: &Binaries, lifetime: Lifetime) -> Result<Option<Lifeline>> {
        let log = File::create(self.run.join("var/log/node.log"))?;
        let mut node = Command::new("setsid");
        node.args(["unshare", "--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child", "--"])
            .arg(std::env::current_exe()?)
            .args(["cluster", "node"])
            .args([&self.run, &binaries.0])
            .arg(self.cgroup())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if lifetime == Lifetime::AsThisProcess {
            node.arg("--lifeline").stdin(Stdio::piped());
        }
        let child = node.spawn().context("could not start unshare")?;
        Ok(child.stdin.map(Lifeline))
    }

    /// Waits until the node is ready, and sees to its sandbox image: whoever started it may have died before.
    fn wait_started(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let node = eventually(left(), "the first process of the node", || self.node())?;
        let socket = PathBuf::from(format!("/proc/{node}/root/run/containerd/containerd.sock"));
        eventually(left(), "containerd's socket", || socket.exists().then_some(()))?;
        self.import(&self.run.join("bin/pause.tar"))?;
        self.wait_ready(node, left())
    }

    fn wait_ready(&self, node: u32, within: Duration) -> Result<()> {
        let ready = || {
            // Gone for good: no use to wait any longer.
            if self.node() != Some(node) {
                return Some(Err(anyhow::anyhow!("the node ended")));
            }
            let mut kubectl = self.command("kubectl").ok()?;
            let arguments =
                ["wait", "--for=condition=Ready", "node/node1", "--timeout=1s", "--request-timeout=3s"];
            commands::succeeds(kubectl.args(arguments)).then_some(Ok(()))
        };
        eventually(within, "the node to be Ready", ready)?
    }

    /// Ends the cluster if it runs, and removes all that it left. To be called under [`Cluster::lock`].
    ///
    /// # Errors
    /// A process of the node does not die, or something can't be removed.
    pub fn down(&self) -> Result<()> {
        if let Some(pid) = self.node_pid() {
            if let Some(node) = self.node() {
                let node = Pid::from_raw(node.cast_signed()).context("no process id")?;
                kill_process(node, Signal::KILL).context("could not kill the node")?;
            }
            // The first process goes last: when it is gone, the kernel has ended all others.
            let gone = || (self.node().is_none() && !is_ending(pid)).then_some(());
            eventually(DEAD_WITHIN, "the node's processes to end", gone)?;
        }
        cgroup::remove(&self.cgroup())?;
        if self.run.exists() {
            fs::remove_dir_all(&self.run)
                .with_context(|| format!("could not remove {}", self.run.display()))?;
        }
        Ok(())
    }

    /// The process id of the node's first process, if it lives. A process that has got a dead one's number does not
    /// have our run folder on its command line.
    pub fn node(&self) -> Option<u32> {
        let pid = self.node_pid()?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let run = self.run.as_os_str().as_encoded_bytes();
        command_line.split(|byte| *byte == 0).any(|argument| argument == run).then_some(pid)
    }

    fn node_pid(&self) -> Option<u32> {
        fs::read_to_string(self.run.join("node.pid")).ok()?.parse().ok()
    }

    fn living_node(&self) -> Result<u32> {
        self.node().with_context(|| format!("no cluster {0} runs: cargo xtask cluster --id {0} up", self.id))
    }

    /// A command in the cluster's network namespace, with its environment.
    ///
    /// # Errors
    /// The cluster does not run.
    pub fn command(&self, program: &str) -> Result<Command> {
        let node = self.living_node()?;
        let bin = self.run.join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("nsenter");
        command
            .args([&format!("--target={node}"), "--net", "--", program])
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("KUBECONFIG", self.kubeconfig())
            .env("HEADSTART_KUBECTL", bin.join("kubectl"))
            .env("HEADSTART_HELM", bin.join("helm"))
            .env("HEADSTART_AUDIT_LOG", self.run.join("var/log/audit.log"))
            .env("HEADSTART_NODE_PID", node.to_string());
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        Ok(command)
    }

    /// A command on the node itself: in its network, among its processes, with its mounts.
    ///
    /// # Errors
    /// The cluster does not run.
    pub fn node_command(&self, program: &str) -> Result<Command> {
        let node = self.living_node()?;
        let mut command = node::on_node(Command::new("/usr/bin/nsenter"));
        command.args([&format!("--target={node}"), "--net", "--pid", "--mount", "--ipc", "--", program]);
        Ok(command)
    }

    /// The administrator's kubeconfig; it works in the cluster's network only.
    pub fn kubeconfig(&self) -> PathBuf {
        self.run.join("admin.kubeconfig")
    }

    /// Gives the cluster the images of an OCI archive.
    ///
    /// # Errors
    /// The cluster does not run, or containerd does not take the archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let content = File::open(archive).with_context(|| format!("no archive {}", archive.display()))?;
        let mut ctr = self.node_command("ctr")?;
        output(ctr.args(["-n", "k8s.io", "images", "import", "-"]).stdin(content)).map(drop)
    }

    /// The last lines of each component's log.
    fn log_tails(&self) -> String {
        let mut tails = String::new();
        for entry in fs::read_dir(self.run.join("var/log")).into_iter().flatten().flatten() {
            let Ok(log) = fs::read(entry.path()) else { continue };
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            let last = lines.iter().skip(lines.len().saturating_sub(8));
            tails += &format!("--- {}\n", entry.file_name().display());
            last.for_each(|line| tails += &format!("{}\n", line.chars().take(300).collect::<String>()));
        }
        tails
    }
}

/// Whether a node is on its way out: it has no memory any more, so no command line, but still waits for the kernel to
/// end the rest of its namespace. (A zombie has that behind it.)
fn is_ending(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let own_name = fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let alive = |state: &str| !state.starts_with(['Z', 'X']);
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command_line| command_line.is_empty())
        && stat.split_once(&format!(" ({}) ", own_name.trim_end())).is_some_and(|(_, state)| alive(state))
}

/// Prints each cluster of this workspace that runs, with the processes that its node started.
///
/// # Errors
/// The folder of the clusters can't be read.
pub fn print_status() -> Result<()> {
    let mut any = false;
    for entry in fs::read_dir(runs()).into_iter().flatten() {
        let Ok(cluster) = Cluster::named(&entry?.file_name().to_string_lossy()) else { continue };
        if !cluster.run.is_dir() {
            continue;
        }
        any = true;
        let Some(node) = cluster.node() else {
            println!("{}: dead (`up` replaces it, `down` removes what it left)", cluster.id);
            continue;
        };
        let state = if cluster.wait_ready(node, Duration::ZERO).is_ok() { "ready" } else { "not ready" };
        println!("{}: {state}, node {node}, {}", cluster.id, cluster.kubeconfig().display());
        for child in children(node).split_whitespace() {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            println!("  {child} {}", name.trim_end());
        }
    }
    if !any {
        println!("no cluster");
    }
    Ok(())
}

/// The processes that a node started; nothing on a kernel that does not tell.
fn children(node: u32) -> String {
    fs::read_to_string(format!("/proc/{node}/task/{node}/children")).unwrap_or_default()
}

fn runs() -> PathBuf {
    workspace::target().join("cluster/run")
}

/// Asks until there is an answer; at least once.
fn eventually<T>(within: Duration, awaited: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s for {awaited}", within.as_secs());
        }
        sleep(Duration::from_millis(100));
    }
}
