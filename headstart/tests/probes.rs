//! The probes of a component without an API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    process::Stdio,
};

use broker::testing::{NatsServer, eventually, free_port};
use reqwest::{Client, StatusCode};
use support::{Running, SOON, headstart};

#[tokio::test]
async fn whoever_holds_connections_does_not_make_a_component_look_dead() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let nats = NatsServer::start().await;
    nats.broker().await;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = headstart(&["dispatcher", "--health-listen", &address.to_string()]);
    let command = command.env("NATS_URL", nats.url()).stdin(Stdio::null()).stderr(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    let client = || Client::builder().no_proxy().timeout(SOON).build().unwrap();
    let get = async |path: &str| {
        let answer = client().get(format!("http://{address}{path}")).send().await;
        answer.map(|answer| answer.status()).ok()
    };
    for path in ["/readyz", "/healthz", "/metrics"] {
        eventually(path, SOON, async || get(path).await, |status| *status == Some(StatusCode::OK)).await;
    }
    let mut held = Vec::new();
    let expected = (Some(StatusCode::SERVICE_UNAVAILABLE), Some(StatusCode::OK));
    let mut seen = (None, None);
    // Connections of the requests before may still take places for a moment.
    while seen != expected && held.len() < 100 {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        held.push(connection);
        seen = (get("/metrics").await, get("/healthz").await);
    }
    assert_eq!(seen, expected, "with {} connections", held.len());
    // One address may take a quarter of the 64 places.
    assert!(held.len() > 10, "{}", held.len());
    drop(held);
    let free = async || get("/metrics").await;
    eventually("there is room again", SOON, free, |status| *status == Some(StatusCode::OK)).await;
}
