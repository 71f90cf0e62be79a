//! The `headstart standalone` of the demo: started, killed, started again, ended.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::api;
use crate::commands;

/// How long it may take to end when it is asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A server with its data; ended when it is dropped.
pub struct Server {
    headstart: PathBuf,
    nats_server: PathBuf,
    folder: PathBuf,
    dump: PathBuf,
    address: String,
    child: Child,
    dice: u64,
}

impl Server {
    /// Starts it on port 7777, or another one if that is taken, with its data in `folder`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(headstart: &Path, nats_server: &Path, folder: &Path, dump: &Path) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:7777").or_else(|_| TcpListener::bind("127.0.0.1:0"));
        let listen = free.and_then(|listener| listener.local_addr()).context("no free port")?;
        let address = format!("http://{listen}");
        let child = spawn(headstart, nats_server, folder, dump, &address)?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            headstart: headstart.to_owned(),
            nats_server: nats_server.to_owned(),
            folder: folder.to_owned(),
            dump: dump.to_owned(),
            address,
            child,
            dice: since_1970.map(|since| u64::from(since.subsec_nanos())).unwrap_or_default() | 1,
        })
    }

    /// `http://<address>:<port>`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Address and process ids.
    pub fn describe(&self) -> String {
        let nats = self.nats_pid().map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        format!("{} (headstart is process {}, its nats-server {nats})", self.address, self.child.id())
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn died(&mut self) -> Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }

    /// Starts it again with the same data.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.headstart, &self.nats_server, &self.folder, &self.dump, &self.address)?;
        Ok(())
    }

    /// Kills headstart or its nats-server, as it comes, and says which.
    ///
    /// # Errors
    /// There is nothing to kill.
    pub fn kill_one(&mut self) -> Result<String> {
        let (name, pid) = match self.nats_pid() {
            Some(pid) if self.dice() < 0.5 => ("nats-server", pid),
            _ => ("headstart", self.child.id()),
        };
        if let Some(target) = Pid::from_raw(pid.cast_signed()) {
            // One that died in this moment is as good.
            kill_process(target, Signal::KILL).ok();
        }
        Ok(format!("{pid} ({name})"))
    }

    /// A number from 0 up to 1 (xorshift: what is killed when need not be secret).
    pub fn dice(&mut self) -> f64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        f64::from((self.dice >> 40) as u32) / f64::from(1_u32 << 24)
    }

    /// The nats-server's process id; only while it is this folder's.
    fn nats_pid(&self) -> Option<u32> {
        let folder = self.folder.join("data/nats");
        let pid: u32 = fs::read_to_string(folder.join("nats-server.pid")).ok()?.trim().parse().ok()?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&command_line).contains(&*folder.to_string_lossy()).then_some(pid)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.join("headstart.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(15)).map(|line| format!("{line}\n")).collect()
    }

    /// Asks it to end, and soon makes it.
    pub fn stop(&mut self) {
        let asked = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            let signal = if asked.elapsed() < ENDS_WITHIN { Signal::TERM } else { Signal::KILL };
            if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
                kill_process(pid, signal).ok();
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(headstart: &Path, nats_server: &Path, folder: &Path, dump: &Path, address: &str) -> Result<Child> {
    // It must not outlive the demo, also when that is killed.
    let mut command = match commands::find("setpriv") {
        Some(setpriv) => {
            let mut guarded = Command::new(setpriv);
            guarded.args(["--pdeathsig", "KILL", "--"]).arg(headstart);
            guarded
        }
        None => Command::new(headstart),
    };
    let log = File::options().create(true).append(true).open(folder.join("headstart.log"))?;
    command
        .args(["standalone", "--listen", address.trim_start_matches("http://"), "--data-dir"])
        .arg(folder.join("data"))
        .arg("--source")
        .arg(dump)
        .env("ADMIN_PASSWORD", api::ADMIN_PASSWORD)
        .env("EVENTS_PASSWORD_UDM", api::EVENTS_PASSWORD)
        .env("PREFILL_PASSWORD", api::PREFILL_PASSWORD)
        .env("HEADSTART_NATS_SERVER", nats_server)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().with_context(|| format!("could not start {}", headstart.display()))
}
