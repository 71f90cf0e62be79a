//! A real `headstart standalone` for tests, and a consumer that knows only the wire contract.
#![allow(dead_code, reason = "each of the tests uses a part")]

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const SOON: Duration = Duration::from_secs(60);

/// A command without our own environment's settings.
pub fn headstart(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headstart"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub struct Standalone {
    child: Option<Child>,
    pub folder: TempDir,
    port: u16,
    pub client: Client,
    /// Address of a UDM, instead of the dump in the folder.
    udm: Option<String>,
    /// Further environment variables.
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Standalone {
    /// Starts it with a UDM that reads the LDAP primary.
    pub async fn with_udm(url: &str) -> Self {
        Self::launch(tempfile::tempdir().unwrap(), Some(url.to_owned())).await
    }

    /// Prepares a directory of groups and users, and starts.
    pub async fn start(groups: usize, users: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut dump = std::fs::File::create(folder.path().join("directory.jsonl")).unwrap();
        for n in 0..users {
            let dn = format!("uid=u{n},cn=users,dc=example,dc=org");
            let object =
                json!({"dn": dn, "objectType": "users/user", "id": format!("u{n}"), "properties": {}});
            writeln!(dump, "{object}").unwrap();
        }
        for n in 0..groups {
            let dn = format!("cn=g{n},cn=groups,dc=example,dc=org");
            let object =
                json!({"dn": dn, "objectType": "groups/group", "id": format!("g{n}"), "properties": {}});
            writeln!(dump, "{object}").unwrap();
        }
        Self::launch(folder, None).await
    }

    async fn launch(folder: TempDir, udm: Option<String>) -> Self {
        // reqwest wants one, although only plain HTTP is spoken here.
        rustls::crypto::ring::default_provider().install_default().ok();
        let port = broker::testing::free_port();
        // The server closes a connection after 75 s without a request, perhaps just when the next one is sent.
        let client = Client::builder().pool_idle_timeout(Duration::from_secs(30)).no_proxy();
        let client = client.timeout(Duration::from_secs(40)).build().unwrap();
        let mut standalone = Self { child: None, folder, port, client, udm, settings: Vec::new() };
        standalone.restart().await;
        standalone
    }

    pub fn command(&self) -> Command {
        let mut command = headstart(&["standalone", "--listen", &format!("127.0.0.1:{}", self.port)]);
        let dump = || self.folder.path().join("directory.jsonl").into();
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .arg("--source")
            .arg(self.udm.as_ref().map_or_else(dump, std::ffi::OsString::from))
            .env("UDM_PASSWORD", "univention")
            .env("UDM_READS_PRIMARY", "true")
            .env("HEADSTART_NATS_SERVER", broker::testing::nats_server_binary())
            .env("ADMIN_PASSWORD", "admin-secret")
            .env("EVENTS_PASSWORD_UDM", "events-secret")
            .env("PREFILL_PASSWORD", "prefill-secret")
            .env("SHUTDOWN_DELAY", "0")
            .envs(self.settings.iter().copied());
        command
    }

    /// Kills it like a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Starts it (again) and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("headstart.log"))
            .unwrap();
        self.child =
            Some(self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + SOON;
        loop {
            if let Ok(answer) = self.client.get(self.url("/readyz")).send().await
                && answer.status() == StatusCode::OK
            {
                return;
            }
            let ended = self.child.as_mut().and_then(|c| c.try_wait().ok()).flatten();
            assert!(ended.is_none() && Instant::now() < deadline, "not ready ({ended:?}):\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it to end, and answers its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Process of the nats-server that it started.
    pub fn nats_pid(&self) -> Option<rustix::process::Pid> {
        let text = std::fs::read_to_string(self.folder.path().join("data/nats/nats-server.pid")).ok()?;
        rustix::process::Pid::from_raw(text.trim().parse().ok()?)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("headstart.log")).unwrap_or_default()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        (user, password): (&str, &str),
        body: Option<Value>,
    ) -> reqwest::Result<Response> {
        let request = self.client.request(method, self.url(path)).basic_auth(user, Some(password));
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
        .send()
        .await
    }

    /// Registers until it is answered: a request that dies half-way is completed by sending it again.
    pub async fn register(&self, name: &str, topics: &[&str], prefill: bool) -> StatusCode {
        let topics: Vec<Value> = topics.iter().map(|t| json!({"realm": "udm", "topic": t})).collect();
        let body =
            json!({"name": name, "password": "pw", "realms_topics": topics, "request_prefill": prefill});
        let deadline = Instant::now() + SOON;
        loop {
            let admin = ("admin", "admin-secret");
            let answer = self.request(Method::POST, "/v1/subscriptions", admin, Some(body.clone())).await;
            match answer {
                Ok(answer) if !answer.status().is_server_error() => return answer.status(),
                other => assert!(Instant::now() < deadline, "{other:?}\n{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends an event; true if it was accepted for sure.
    pub async fn post(&self, number: usize) -> bool {
        let body = json!({
            "publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": "users/user",
            "body": {"old": {}, "new": {"objectType": "users/user", "id": format!("live{number}")}},
        });
        let answer = self.request(Method::POST, "/v1/messages", ("udm", "events-secret"), Some(body)).await;
        answer.is_ok_and(|a| a.status() == StatusCode::ACCEPTED)
    }

    /// One message, or `None`; also while nothing answers.
    pub async fn next(&self, name: &str, timeout: f64) -> Option<Value> {
        let path = format!("/v1/subscriptions/{name}/messages/next?timeout={timeout}");
        let answer = self.request(Method::GET, &path, (name, "pw"), None).await.ok()?;
        if answer.status() != StatusCode::OK {
            assert!(answer.status().is_server_error(), "{answer:?}");
            return None;
        }
        answer.json::<Option<Value>>().await.ok()?
    }

    pub async fn ack(&self, name: &str, sequence: u64) -> Option<StatusCode> {
        let path = format!("/v1/subscriptions/{name}/messages/{sequence}/status");
        let answer = self.request(Method::PATCH, &path, (name, "pw"), Some(json!({"status": "ok"}))).await;
        answer.ok().map(|a| a.status()).filter(|status| !status.is_server_error())
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        self.kill();
        // On Linux the nats-server dies with it; elsewhere it is ended here.
        if let Some(pid) = self.nats_pid() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}
