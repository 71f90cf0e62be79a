//! Components begin in any order, before NATS does, and hear the stop meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use broker::testing::{NatsServer, eventually, nats_server_binary};
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
        rustls::crypto::ring::default_provider().install_default().ok();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let listen = if kind == "api" { "--listen" } else { "--health-listen" };
        let mut command = headstart(&[kind, listen, &address]);
        let command = command
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
