//! One process of the installation: started, looked at, killed, ended.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end when it is asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Ticks of a second in /proc: the same on every Linux.
const TICKS: f64 = 100.0;

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name, for people and for its log.
    pub name: String,
    /// Command line.
    pub arguments: Vec<OsString>,
    /// Environment; it gets nothing of ours.
    pub environment: Vec<(String, OsString)>,
    /// Where its log goes.
    pub folder: PathBuf,
}

/// A running process; killed when it is dropped.
pub struct Process {
    program: Program,
    child: Child,
}

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory in MiB.
    pub resident_mib: f64,
    /// Processor time since its start, in seconds.
    pub cpu: f64,
}

impl Process {
    /// Starts a program.
    pub fn start(program: Program) -> Result<Self> {
        let child = spawn(&program)?;
        Ok(Self { program, child })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Kills it like a crash would, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.program)?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process id")?;
        if self.child.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM).ok();
        }
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > ENDS_WITHIN {
                return self.kill();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until it has ended well by itself; the most memory that it had, in MiB, as often as it could be looked at.
    pub async fn ends_well(&mut self, within: Duration) -> Result<f64> {
        let (began, mut peak) = (Instant::now(), 0.0_f64);
        loop {
            peak = peak.max(self.peak_mib().unwrap_or_default());
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(peak),
                Some(status) => bail!("{} has ended ({status}):\n{}", self.program.name, self.log_tail()),
                None if began.elapsed() > within => {
                    bail!("{} has not ended within {within:?}:\n{}", self.program.name, self.log_tail());
                }
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// The most resident memory that it had until now, in MiB.
    pub fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        mib(&status, "VmHWM:").with_context(|| format!("no VmHWM of {}", self.program.name))
    }

    /// An error if it has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended ({status}):\n{}", self.program.name, self.log_tail());
        }
        Ok(())
    }

    /// What it has used until now.
    pub fn usage(&self) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let read = |file: &str| {
            fs::read_to_string(folder.join(file))
                .with_context(|| format!("no {file} of {}", self.program.name))
        };
        parse_usage(&read("status")?, &read("stat")?)
            .with_context(|| format!("usage of {}", self.program.name))
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(log_file(&self.program)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(15)).map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

fn parse_usage(status: &str, stat: &str) -> Option<Usage> {
    // After the name, which may hold anything: state is field 3, utime 14 and stime 15.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some(Usage { resident_mib: mib(status, "VmRSS:")?, cpu: (ticks(14)? + ticks(15)?) / TICKS })
}

fn mib(status: &str, field: &str) -> Option<f64> {
    let kib = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(kib.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

fn log_file(program: &Program) -> PathBuf {
    program.folder.join(format!("{}.log", program.name))
}

fn spawn(program: &Program) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log_file(program))?;
    let (first, rest) = program.arguments.split_first().context("no command")?;
    Command::new(first)
        .args(rest)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("could not start {}", Path::new(first).display()))
}

/// A free address of loopback.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "17 (a (b) c) S 1 17 17 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 3 0 1234 0 0";
        let usage = parse_usage("Name:\tx\nVmRSS:\t   15360 kB\n", stat).unwrap();
        assert!((usage.resident_mib - 15.0).abs() < 1e-9 && (usage.cpu - 3.0).abs() < 1e-9, "{usage:?}");
        assert!(parse_usage("", "").is_none());
    }
}
