//! HTTP to one of two replicas. A request that is given up on is not taken back: it may still be carried out, minutes
//! later, by a replica that was stopped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, Method};
use serde_json::Value;
use tokio::process::Command;

/// Passwords of the fixed users. Loopback only, and gone with the run.
pub struct Passwords;

impl Passwords {
    /// Gives them to an API.
    pub fn set(command: &mut Command) {
        command
            .env("ADMIN_PASSWORD", "admin-secret")
            .env("EVENTS_PASSWORD_UDM", "events-secret")
            .env("PREFILL_PASSWORD", "prefill-secret");
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Role<'a> {
    Admin,
    Events,
    /// By name and password.
    Consumer(&'a str, &'a str),
}

/// How long an answer is waited for: longer than the API's own time-out, so that most answers are seen, and shorter
/// than most stops.
pub const PATIENCE: Duration = Duration::from_secs(7);
/// After how long a request that was given up on is really over.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(60);

/// Status and body; `None`: no whole answer came.
pub type Answer = Option<(u16, Value)>;

/// A client of both replicas.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    urls: [String; 2],
    /// The replica that was asked last for what makes a task.
    asked: Arc<AtomicUsize>,
    /// The one that the producer posts to.
    posted: Arc<AtomicUsize>,
    /// Which one the producer leaves alone, plus one; 0: none.
    avoided: Arc<AtomicUsize>,
}

impl Api {
    /// A client.
    ///
    /// # Errors
    /// The client can't be made.
    pub fn new(urls: [String; 2]) -> reqwest::Result<Self> {
        // reqwest wants one, although only plain HTTP is spoken here.
        rustls::crypto::ring::default_provider().install_default().ok();
        Ok(Self {
            client: Client::builder().timeout(LEFT_ALONE_FOR).no_proxy().build()?,
            urls,
            asked: Arc::default(),
            posted: Arc::default(),
            avoided: Arc::default(),
        })
    }

    /// Sends one request to a replica.
    pub async fn call(
        &self,
        replica: usize,
        role: Role<'_>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        // Removing, registering and asking say nothing of which life or round they mean: a late one would be a request
        // of its own, so its end is waited for.
        let patience = if matches!(role, Role::Admin) { LEFT_ALONE_FOR } else { PATIENCE };
        if matches!(role, Role::Admin) && method == Method::POST {
            self.asked.store(replica, Ordering::SeqCst);
        }
        if matches!(role, Role::Events) {
            self.posted.store(replica, Ordering::SeqCst);
        }
        let request = self.request(replica, role, method, path, body);
        // In a task of its own: giving up here must not close the connection, or the server might notice.
        let sent = tokio::spawn(async move {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let text = response.text().await.ok()?;
            Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
        });
        tokio::time::timeout(patience, sent).await.ok()?.ok()?
    }

    /// Prepares one request to a replica.
    pub fn request(
        &self,
        replica: usize,
        role: Role<'_>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::RequestBuilder {
        let (user, password) = match role {
            Role::Admin => ("admin", "admin-secret"),
            Role::Events => ("udm", "events-secret"),
            Role::Consumer(name, password) => (name, password),
        };
        let url = format!("{}{path}", self.urls[replica % 2]);
        let request = self.client.request(method, url).basic_auth(user, Some(password));
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
    }

    /// The replica that was asked last by an administrator.
    pub fn asked(&self) -> u8 {
        u8::from(self.asked.load(Ordering::SeqCst) % 2 == 1)
    }

    /// The replica that the producer posts to.
    pub fn posted(&self) -> u8 {
        u8::from(self.posted.load(Ordering::SeqCst) % 2 == 1)
    }

    /// Lets the producer leave a replica alone, or none.
    pub fn avoid(&self, replica: Option<u8>) {
        self.avoided.store(replica.map_or(0, |replica| usize::from(replica) + 1), Ordering::SeqCst);
    }

    /// The replica that the producer takes, where it would take this one.
    pub fn instead(&self, replica: usize) -> usize {
        match self.avoided.load(Ordering::SeqCst) {
            0 => replica,
            avoided => avoided % 2,
        }
    }

    /// Is a replica ready?
    pub async fn ready(&self, replica: usize) -> bool {
        let get =
            self.client.get(format!("{}/readyz", self.urls[replica % 2])).timeout(Duration::from_secs(2));
        get.send().await.is_ok_and(|answer| answer.status().is_success())
    }
}
