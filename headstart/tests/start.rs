//! Components begin in any order, before NATS does, and hear the stop meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::process::{Child, Command, Stdio};

use broker::testing::{NatsServer, eventually, free_port, nats_server_binary};
use reqwest::{Client, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use support::{Running, SOON, headstart};

struct Component {
    running: Running,
    address: String,
    client: Client,
}

impl Component {
    fn start(kind: &str, nats: &NatsServer) -> Self {
        Self::start_with(kind, nats, |command| command)
    }

    fn start_with(kind: &str, nats: &NatsServer, change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let address = format!("127.0.0.1:{}", free_port());
        let listen = if ["api", "standalone"].contains(&kind) { "--listen" } else { "--health-listen" };
        let mut command = headstart(&[kind, listen, &address]);
        let command = change(&mut command)
            .env("NATS_URL", nats.url())
            .env("LAUNCHER", "queue")
            .env("ADMIN_PASSWORD", "a")
            .env("EVENTS_PASSWORD_UDM", "e")
            .env("PREFILL_PASSWORD", "p")
            .env("SOURCE", "http://127.0.0.1:1/udm/")
            .env("UDM_PASSWORD", "u")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let client = Client::builder().no_proxy().timeout(SOON).build().unwrap();
        Self { running: Running(command.spawn().unwrap()), address, client }
    }

    async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let answer = self.client.get(format!("http://{}{path}", self.address)).send().await.ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    }

    /// Waits until a probe says so.
    async fn says(&self, path: &str, status: StatusCode, words: &str) {
        let good = |seen: &Option<(StatusCode, String)>| {
            seen.as_ref().is_some_and(|(found, text)| *found == status && text.contains(words))
        };
        eventually(words, SOON, async || self.get(path).await, good).await;
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.running.0), Signal::TERM).unwrap();
    }

    async fn ends_well(mut self) {
        let child: &mut Child = &mut self.running.0;
        let ended =
            eventually("its end", SOON, || std::future::ready(child.try_wait().unwrap()), Option::is_some)
                .await;
        assert!(ended.unwrap().success(), "{ended:?}");
    }
}

#[tokio::test]
async fn components_are_alive_before_nats_and_ready_after_it() {
    let mut nats = NatsServer::start().await;
    nats.kill();
    let components = ["api", "dispatcher", "controller", "worker"].map(|kind| Component::start(kind, &nats));
    for component in &components {
        component.says("/healthz", StatusCode::OK, "ok").await;
        component.says("/readyz", StatusCode::SERVICE_UNAVAILABLE, "waiting for NATS").await;
    }
    components[0].says("/v1/subscriptions", StatusCode::SERVICE_UNAVAILABLE, "starting").await;
    // A server that has no JetStream, or none yet.
    let port = nats.url().rsplit(':').next().unwrap().to_owned();
    let mut bare = Command::new(nats_server_binary());
    let bare = bare.args(["-a", "127.0.0.1", "-p", &port]).stdout(Stdio::null()).stderr(Stdio::null());
    let bare = Running(bare.spawn().unwrap());
    let waits = StatusCode::SERVICE_UNAVAILABLE;
    components[0].says("/readyz", waits, "waiting for streams and buckets in NATS").await;
    for component in &components[1..] {
        component.says("/readyz", waits, "waiting for what the API makes in NATS").await;
    }
    for component in &components {
        component.says("/healthz", StatusCode::OK, "ok").await;
    }
    drop(bare);
    nats.restart().await;
    for component in &components {
        component.says("/readyz", StatusCode::OK, "ready").await;
    }
    nats.kill();
    for component in &components {
        component.says("/readyz", waits, "NATS is away").await;
        component.says("/healthz", StatusCode::OK, "ok").await;
    }
    nats.restart().await;
    for component in &components {
        component.says("/readyz", StatusCode::OK, "ready").await;
    }
    let mut components = components.into_iter();
    // The API that is whole still answers for a while (`SHUTDOWN_DELAY`), but is not ready any more.
    let api = components.next().unwrap();
    api.terminate();
    api.says("/readyz", StatusCode::SERVICE_UNAVAILABLE, "shutting down").await;
    api.says("/healthz", StatusCode::OK, "ok").await;
    api.ends_well().await;
    for component in components {
        component.terminate();
        component.ends_well().await;
    }
}

#[tokio::test]
async fn a_component_that_waits_hears_the_stop() {
    let mut nats = NatsServer::start().await;
    nats.kill();
    for kind in ["api", "dispatcher"] {
        let component = Component::start(kind, &nats);
        component.says("/readyz", StatusCode::SERVICE_UNAVAILABLE, "waiting for NATS").await;
        component.terminate();
        component.ends_well().await;
    }
}

#[tokio::test]
async fn a_second_stop_ends_a_component_at_once() {
    let nats = NatsServer::start().await;
    let mut api = Component::start_with("api", &nats, |command| command.env("SHUTDOWN_DELAY", "600"));
    api.says("/readyz", StatusCode::OK, "ready").await;
    api.terminate();
    // It still serves, as long as somebody asks.
    api.says("/readyz", StatusCode::SERVICE_UNAVAILABLE, "shutting down").await;
    api.terminate();
    let child = &mut api.running.0;
    let look = || std::future::ready(child.try_wait().unwrap());
    let ended = eventually("its end", SOON, look, Option::is_some).await.unwrap();
    assert_eq!(ended.code(), Some(130));
}

#[tokio::test]
async fn standalone_is_not_ready_while_dispatching_does_not_run() {
    // Nobody may read the position of the dispatcher, so it can't begin; everything else works.
    let users = "authorization { users: [{ user: a, password: a, \
        permissions: { publish: { deny: [\"$JS.API.STREAM.MSG.GET.KV_DISPATCHER\"] } } }] }";
    let mut nats = NatsServer::start_with(users).await;
    let data = tempfile::tempdir().unwrap();
    let standalone = Component::start_with("standalone", &nats, |command| {
        command.env("DATA_DIR", data.path()).env("NATS_USER", "a").env("NATS_PASSWORD", "a")
    });
    let not = StatusCode::SERVICE_UNAVAILABLE;
    standalone.says("/readyz", not, "dispatching does not run").await;
    standalone.says("/healthz", StatusCode::OK, "ok").await;
    // The reason, when the dispatcher has one.
    standalone.says("/readyz", not, "dispatching does not run: NATS did not answer").await;
    nats.restart_with("8MB", "authorization { users: [{ user: a, password: a }] }").await;
    standalone.says("/readyz", StatusCode::OK, "ready").await;
    standalone.terminate();
    standalone.ends_well().await;
}

#[test]
fn logs_are_json_lines_unless_text_is_asked_for() {
    for (format, json) in [("json", true), ("auto", true), ("text", false)] {
        // It ends at once, for want of a password.
        let output = headstart(&["api"]).env("LOG_FORMAT", format).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("ADMIN_PASSWORD") && output.stdout.is_empty(), "{format}: {text}");
        for line in text.lines() {
            let parsed = serde_json::from_str::<serde_json::Value>(line);
            assert_eq!(parsed.is_ok(), json, "{format}: {line}");
            if let Ok(line) = parsed {
                assert!(line["timestamp"].is_string() && line["message"].is_string(), "{line}");
                assert_eq!(line["level"], "ERROR");
            }
        }
    }
}
