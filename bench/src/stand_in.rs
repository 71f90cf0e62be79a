//! The stand-in for UDM as a process of its own, and what it can serve to a cheap client.

use std::{fs::File, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    http::Connection,
    installation::{Programs, SOON, guarded},
    process::{Process, Program, free_address},
};

const CREDENTIALS: (&str, &str) = ("cn=admin", "univention");
/// The path before `/udm/`.
const PREFIX: &str = "/univention";

/// How a directory is, and how long it takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Directory {
    /// Users, of some 3 KB.
    pub users: u32,
    /// Members of the one large group; all users if `None`.
    pub members: Option<u32>,
    /// What an object takes beside others.
    pub delay_ms: u64,
    /// What an object takes alone.
    pub serial_us: u64,
    /// By how many percent that grows for each other object that is being asked for.
    pub crowding_percent: u32,
    /// Processes.
    pub backends: u32,
}

/// A running stand-in.
pub struct StandIn {
    address: SocketAddr,
    // Before the folder that its log is in.
    process: Process,
    _folder: TempDir,
}

impl Directory {
    fn population(self) -> Vec<String> {
        let mut arguments = ["--users", &self.users.to_string(), "--groups", "0", "--photos-per-mille", "0"]
            .map(str::to_owned)
            .to_vec();
        if let Some(members) = self.members {
            arguments.extend(["--domain-users".to_owned(), members.to_string()]);
        }
        arguments
    }

    /// Starts a stand-in of this directory.
    pub async fn serve(self, programs: &Programs) -> Result<StandIn> {
        let folder = tempfile::Builder::new().prefix("bench-udm-").tempdir_in(&programs.folder)?;
        let address = free_address()?;
        let mut arguments = self.population();
        for (name, value) in [
            ("--listen", address.to_string()),
            ("--delay-ms", self.delay_ms.to_string()),
            ("--serial-us", self.serial_us.to_string()),
            ("--crowding-percent", self.crowding_percent.to_string()),
            ("--backends", self.backends.max(1).to_string()),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        let arguments: Vec<_> = arguments.into_iter().map(Into::into).collect();
        let process = Process::start(Program {
            name: "stand-in-udm".to_owned(),
            arguments: guarded(programs, &programs.stand_in, &arguments),
            environment: Vec::new(),
            folder: folder.path().to_owned(),
        })?;
        let mut stand_in = StandIn { address, process, _folder: folder };
        let began = Instant::now();
        while stand_in.connect().await.is_err() {
            stand_in.process.check()?;
            ensure!(began.elapsed() < SOON, "the stand-in does not listen");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(stand_in)
    }

    /// Writes this directory into a file, an object a line.
    pub fn dump(self, programs: &Programs, file: &Path) -> Result<()> {
        let out = File::create(file).with_context(|| format!("could not write {}", file.display()))?;
        let mut command = std::process::Command::new(&programs.stand_in);
        let status = command.arg("dump").args(self.population()).stdin(Stdio::null()).stdout(out).status()?;
        ensure!(status.success(), "stand-in-udm dump has ended with {status}");
        Ok(())
    }
}

impl StandIn {
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}{PREFIX}/udm/", self.address)
    }

    async fn connect(&self) -> Result<Connection> {
        Connection::open(self.address, CREDENTIALS.0, CREDENTIALS.1).await
    }

    /// Objects a second that a cheap client gets over so many connections, each asking for one object after the other.
    pub async fn serves(&self, at_once: usize, dns: &[String], window: Duration) -> Result<f64> {
        let mut connections = try_join_all((0..at_once).map(|_| self.connect())).await?;
        let (began, mut served, next) = (Instant::now(), 0_usize, std::cell::Cell::new(0));
        let work = connections.iter_mut().map(async |connection| {
            let mut got = 0;
            while began.elapsed() < window {
                let dn = dns.get(next.get() % dns.len().max(1)).context("no objects")?;
                next.set(next.get() + 1);
                connection.expect(200, "GET", &format!("{PREFIX}/udm/users/user/{dn}"), &[]).await?;
                got += 1;
            }
            Ok::<_, anyhow::Error>(got)
        });
        for got in try_join_all(work).await? {
            served += got;
        }
        Ok(served as f64 / began.elapsed().as_secs_f64())
    }

    /// The quoted DNs of some users.
    pub async fn dns(&self) -> Result<Vec<String>> {
        let path = format!("{PREFIX}/udm/users/user/?opened=0&properties=dn");
        let list = self.connect().await?.expect(200, "GET", &path, &[]).await?;
        let list: serde_json::Value = serde_json::from_slice(&list)?;
        let entries = list["_embedded"]["udm:object"].as_array().context("no list")?;
        let quoted = |entry: &serde_json::Value| {
            entry["uri"].as_str()?.split_once("/users/user/").map(|(_, dn)| dn.to_owned())
        };
        Ok(entries.iter().filter_map(quoted).collect())
    }
}
