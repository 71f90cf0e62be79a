//! The nats-server that `standalone` starts: found, checked, configured, watched, ended.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use broker::{NatsConfig, OLDEST_SERVER, Secret};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::settings::GuardedNatsServer;

const USER: &str = "standalone";
/// Pauses before a nats-server that has ended is started again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that has run this long had started well.
const RAN_WELL: Duration = Duration::from_secs(10);

/// A nats-server of our own.
pub struct NatsServer {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    password: String,
}

impl NatsServer {
    /// Finds and checks the program, and writes its configuration under the data directory.
    pub async fn prepare(given: Option<&Path>, data_dir: &Path) -> anyhow::Result<Self> {
        let program = find(given).await?;
        let folder = data_dir.join("nats");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("can't make {} (--data-dir, DATA_DIR)", folder.display()))?;
        let password = super::passwords::keep(&folder.join("password"))?;
        let server = Self { program, folder, port: free_port()?, password: password.value };
        server.end_left_over()?;
        server.write_configuration()?;
        Ok(server)
    }

    /// How to connect to it.
    pub fn config(&self) -> NatsConfig {
        NatsConfig {
            user: Some(USER.to_owned()),
            password: Some(Secret::new(&self.password)),
            ..NatsConfig::new(format!("nats://127.0.0.1:{}", self.port), "standalone")
        }
    }

    /// Keeps it running: a server that dies is started again at once, on the same port and data; one that does not even
    /// start, with growing pauses.
    pub async fn supervise(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let started = Instant::now();
            let mut child = self.spawn()?;
            if let Some(pid) = child.id() {
                std::fs::write(self.pid_file(), pid.to_string()).ok();
            }
            tokio::select! {
                ended = child.wait() => {
                    pause = next_pause(pause, started.elapsed());
                    let said = last_words(&std::fs::read(self.log_file()).unwrap_or_default());
                    tracing::error!(status = ?ended.ok(), said, log = %self.log_file().display(),
                        "nats-server has ended by itself; it is being started again in {pause:?}");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = shutdown.cancelled() => return Ok(()),
                    }
                }
                () = shutdown.cancelled() => {
                    self.stop(&mut child).await;
                    return Ok(());
                }
            }
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file());
        let log = log.with_context(|| format!("can't write {}", self.log_file().display()))?;
        let own = std::env::current_exe().context("can't find our own program")?;
        Command::new(own)
            .arg("guarded-nats-server")
            .arg(&self.program)
            .arg("-c")
            .arg(self.folder.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C on a terminal is for us: the server must outlive the last write.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {}", self.program.display()))
    }

    /// Asks it to end; after some seconds it is killed, which loses nothing either.
    async fn stop(&self, child: &mut Child) {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        if tokio::time::timeout(Duration::from_secs(5), child.wait()).await.is_err() {
            child.kill().await.ok();
        }
        std::fs::remove_file(self.pid_file()).ok();
    }

    /// Ends the server of a former run that was killed, where the system did not do so: it holds the data.
    fn end_left_over(&self) -> anyhow::Result<()> {
        let Ok(text) = std::fs::read_to_string(self.pid_file()) else { return Ok(()) };
        let Some(pid) = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw) else {
            return Ok(());
        };
        let ours = || {
            // The number may belong to somebody else by now: look at what it runs.
            let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&*self.folder.join("nats.conf").to_string_lossy())
        };
        for _ in 0..100 {
            if !ours() {
                return Ok(());
            }
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the nats-server of a former run (process {text}) can't be ended; end it and try again")
    }

    fn write_configuration(&self) -> anyhow::Result<()> {
        let quoted = |path: &Path| serde_json::to_string(&path.to_string_lossy());
        let store = quoted(&self.folder.join("jetstream"))?;
        let password = serde_json::to_string(&self.password)?;
        // Without a limit the server takes three quarters of what is free now, and counts what is stored already
        // against it: a disk that is half full would refuse every write.
        let limit =
            self.store_limit().map_or_else(String::new, |bytes| format!("  max_file_store: {bytes}\n"));
        let port = self.port;
        let text = format!(
            "# Written by `headstart standalone` at each start.\n\
             listen: \"127.0.0.1:{port}\"\n\
             max_payload: 17MB\n\
             jetstream {{\n  store_dir: {store}\n  # What is acknowledged survives a power cut.\n  sync_interval: always\n\
             {limit}}}\n\
             authorization {{ user: \"{USER}\", password: {password} }}\n"
        );
        let path = self.folder.join("nats.conf");
        super::passwords::write_private(&path, &text)
    }

    /// What the store may hold in bytes: what it holds, and nine tenths of what is free. `None` where the system does
    /// not say.
    fn store_limit(&self) -> Option<u64> {
        let free = rustix::fs::statvfs(&self.folder).ok()?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        Some(bytes_in(&self.folder.join("jetstream")).saturating_add(free / 10 * 9))
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("nats-server.pid")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("nats-server.log")
    }
}

/// The nats-server to start: the one given, else beside our own program, else where `cargo xtask tools` puts it, else
/// on PATH.
async fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mut candidates = Vec::new();
    match given {
        Some(path) => candidates.push(path.to_owned()),
        None => {
            let own = std::env::current_exe().unwrap_or_default();
            // target/release/headstart → target/tools/nats-server
            candidates.extend(own.parent().map(|folder| folder.join("nats-server")));
            candidates
                .extend(own.parent().and_then(Path::parent).map(|folder| folder.join("tools/nats-server")));
            candidates.push(PathBuf::from("nats-server"));
        }
    }
    let mut old = None;
    for program in candidates {
        match version(&program).await {
            Some(found) if found >= OLDEST_SERVER => return Ok(program),
            Some(found) => old = Some((program, found)),
            None => {}
        }
    }
    let (major, minor, patch) = OLDEST_SERVER;
    if let Some((program, (x, y, z))) = old {
        bail!("{} has version {x}.{y}.{z}; {major}.{minor}.{patch} or newer is needed", program.display());
    }
    bail!(
        "no nats-server {major}.{minor}.{patch} or newer was found: run `cargo xtask tools`, put one on PATH, name one \
         with --nats-server (HEADSTART_NATS_SERVER), or use a running one with --nats URL (NATS_URL)"
    )
}

async fn version(program: &Path) -> Option<(i64, i64, i64)> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().await.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// "nats-server: v2.15.2" → (2, 15, 2). What follows a hyphen, as in "v2.15.0-RC.1", does not count.
fn parse_version(text: &str) -> Option<(i64, i64, i64)> {
    let mut numbers = text.trim().split_once(": v")?.1.split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// Bytes of all files in a folder, those in folders in it included. What can't be read is left out.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Doubles while it does not start.
fn next_pause(former: Duration, ran: Duration) -> Duration {
    if ran >= RAN_WELL { SHORTEST_PAUSE } else { (former * 2).min(LONGEST_PAUSE) }
}

/// The end of a log: what the server said before it ended.
fn last_words(log: &[u8]) -> String {
    let end = &log[log.len().saturating_sub(2000)..];
    let text = String::from_utf8_lossy(end);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

/// Becomes nats-server, after asking the system to kill it when our parent dies: a killed `standalone` must not leave
/// a server behind that holds the data.
pub fn become_nats_server(arguments: &GuardedNatsServer) -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        eprintln!("headstart: nats-server will not end with its parent: {error}");
    }
    let error = std::process::Command::new(&arguments.program).args(&arguments.arguments).exec();
    eprintln!("headstart: can't run {}: {error}", arguments.program.display());
    ExitCode::FAILURE
}

/// Refuses a data directory that another process uses.
pub fn lock(data_dir: &Path) -> anyhow::Result<std::fs::File> {
    let path = data_dir.join("lock");
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("can't write {} (--data-dir, DATA_DIR)", path.display()))?;
    let locked = file.try_lock();
    ensure!(
        locked.is_ok(),
        "another headstart uses {}: end it, or give another --data-dir (DATA_DIR)",
        data_dir.display()
    );
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_holds_is_summed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("stream")).unwrap();
        std::fs::write(folder.path().join("stream/1.blk"), [0; 1000]).unwrap();
        std::fs::write(folder.path().join("meta.inf"), [0; 24]).unwrap();
        assert_eq!((bytes_in(folder.path()), bytes_in(&folder.path().join("none"))), (1024, 0));
    }

    #[test]
    fn a_server_that_does_not_start_is_tried_ever_less_often() {
        let quick = Duration::from_millis(50);
        let mut pause = SHORTEST_PAUSE;
        let pauses: Vec<u128> = std::iter::repeat_with(|| {
            pause = next_pause(pause, quick);
            pause.as_millis()
        })
        .take(10)
        .collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(next_pause(pause, RAN_WELL), SHORTEST_PAUSE);
        assert_eq!(
            last_words(b"one\ntwo\n\nthree\nlast: address in use\n"),
            "two; three; last: address in use"
        );
        assert_eq!(last_words(b""), "");
        assert!(last_words("ä".repeat(5000).as_bytes()).len() <= 2003);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("nats-server: v2.15.2\n"), Some((2, 15, 2)));
        assert_eq!(parse_version("nats-server: v2.9.10-preview.3"), Some((2, 9, 10)));
        assert_eq!(parse_version("something else"), None);
    }
}
