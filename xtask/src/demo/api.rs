//! The HTTP API of Headstart, as much of it as the demo uses.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use ureq::{Agent, http::Request};

/// Passwords of the demo, for the fixed users and for the consumer.
pub const ADMIN_PASSWORD: &str = "admin-secret";
pub const EVENTS_PASSWORD: &str = "events-secret";
pub const PREFILL_PASSWORD: &str = "prefill-secret";
pub const CONSUMER_PASSWORD: &str = "mail-secret";

/// Longer than any request of the demo is held.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// In whose name a request is sent.
#[derive(Clone, Copy)]
pub enum Role {
    Admin,
    Consumer,
    Events,
}

impl Role {
    /// User and password, as in a URL.
    pub fn credentials(self) -> String {
        match self {
            Self::Admin => format!("admin:{ADMIN_PASSWORD}"),
            Self::Consumer => format!("{}:{CONSUMER_PASSWORD}", super::CONSUMER),
            Self::Events => format!("udm:{EVENTS_PASSWORD}"),
        }
    }
}

/// Status and JSON body of an answer.
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// A client of one server.
pub struct Api {
    agent: Agent,
    authority: String,
    /// Requests that had no proper answer: whether they were carried out is unknown.
    pub failures: u64,
}

impl Api {
    /// A client of the server at `http://<authority>`.
    pub fn new(address: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(ANSWERS_WITHIN))
            .build();
        let authority = address.trim_start_matches("http://").to_owned();
        Self { agent: config.new_agent(), authority, failures: 0 }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// There was no complete answer.
    pub fn call(&self, role: Role, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}@{}{path}", role.credentials(), self.authority))
            .header("Content-Type", "application/json");
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body.to_string())?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let text = response.body_mut().read_to_string()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status: response.status().as_u16(), body })
    }

    /// Whether the server says that it is ready.
    pub fn ready(&self) -> bool {
        let answer = self.agent.get(format!("http://{}/readyz", self.authority)).call();
        answer.is_ok_and(|answer| answer.status() == 200)
    }
}
