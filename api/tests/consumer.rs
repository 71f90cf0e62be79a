//! A consumer that knows nothing but the wire contract, on a bare socket: no HTTP library that forgives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use broker::testing::eventually;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, PREFILL, Server, config, replica};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

/// One kept-alive connection of the consumer `mail`.
struct Consumer {
    stream: BufReader<TcpStream>,
}

impl Consumer {
    async fn connect(base: &str) -> Self {
        let address = base.trim_start_matches("http://");
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    /// Sends a request; answers the status line and the body, which must be JSON with its length.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (String, Value) {
        let credentials = STANDARD.encode("mail:pw");
        let request = format!(
            "{method} /v1/subscriptions/mail{path} HTTP/1.1\r\nHost: api\r\nAccept: */*\r\n\
             Authorization: Basic {credentials}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let (mut status, mut length) = (String::new(), None);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            let line = line.trim_end();
            if line.is_empty() {
                break;
            } else if status.is_empty() {
                status = line.to_owned();
            } else if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = Some(value.parse().unwrap()),
                    "content-type" => assert_eq!(value, "application/json"),
                    "transfer-encoding" | "content-encoding" => panic!("{line}"),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length.expect("content-length")];
        self.stream.read_exact(&mut body).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn next(&mut self, timeout: &str) -> Value {
        let (status, message) = self.ask("GET", &format!("/messages/next?timeout={timeout}"), "").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        message
    }

    async fn acknowledge(&mut self, message: &Value) {
        let path = format!("/messages/{}/status", message["sequence_number"]);
        let answer = self.ask("PATCH", &path, r#"{"status":"ok"}"#).await;
        assert_eq!(answer, ("HTTP/1.1 200 OK".to_owned(), Value::Null));
    }

    /// What existing consumers do all day.
    async fn read_all(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let message = self.next("10").await;
            assert!(!message.is_null(), "only {ids:?} came");
            ids.push(message["body"]["new"]["id"].as_str().unwrap().to_owned());
            self.acknowledge(&message).await;
        }
        assert_eq!(self.next("0.2").await, Value::Null);
        ids
    }
}

#[tokio::test]
async fn prefill_first_then_live_in_order() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let mut consumer = Consumer::connect(&server.url("")).await;
    for id in ["live-1", "live-2"] {
        server.event(id).await;
    }
    server.fill("mail", &["old-1", "old-2", "old-3"]).await;
    // Written, but not known as done: nothing is shown.
    assert_eq!(consumer.next("0.5").await, Value::Null);
    let path = "/v1/subscriptions/mail/prefill";
    let poll = consumer.next("20");
    let state = json!({"status": "done"});
    let done = server.send(Method::PATCH, path, PREFILL, Some(&state));
    let (first, done) = tokio::join!(poll, done);
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(first["body"]["new"]["id"], "old-1", "a poll wakes when the prefill becomes done");
    consumer.acknowledge(&first).await;
    assert_eq!(consumer.read_all(4).await, ["old-2", "old-3", "live-1", "live-2"]);
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_with_the_same_number() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    for id in ["1", "2"] {
        server.event(id).await;
    }
    let mut consumer = Consumer::connect(&server.url("")).await;
    let first = consumer.next("10").await;
    assert_eq!(first["num_delivered"], 1);
    // Not at once: a client that never acknowledges must not spin.
    assert_eq!(consumer.next("0.2").await, Value::Null);
    let again = consumer.next("10").await;
    assert_eq!(again["num_delivered"], 2);
    assert_eq!(again["sequence_number"], first["sequence_number"]);
    consumer.acknowledge(&again).await;
    assert_eq!(consumer.read_all(1).await, ["2"]);
}

#[tokio::test]
async fn pop_removes_on_delivery() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    server.event("1").await;
    let mut consumer = Consumer::connect(&server.url("")).await;
    let (_, message) = consumer.ask("GET", "/messages/next?timeout=10&pop=true", "").await;
    assert_eq!(message["body"]["new"]["id"], "1");
    let path = format!("/messages/{}/status", message["sequence_number"]);
    let (status, _) = consumer.ask("PATCH", &path, r#"{"status":"ok"}"#).await;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert_eq!(consumer.next("1.5").await, Value::Null);
}

#[tokio::test]
async fn at_the_stop_polls_end_with_nothing_and_the_server_ends() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let shutdown = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let launcher = api::Launcher::queue(server.broker.tasks());
    let running =
        tokio::spawn(api::run(listener, config(None), server.broker.clone(), launcher, shutdown.clone()));
    let mut consumer = Consumer::connect(&base).await;
    // The connection is in use: its credentials are known, the next poll waits.
    assert_eq!(consumer.next("0.1").await, Value::Null);
    let began = Instant::now();
    let poll = consumer.next("60");
    let stop = async {
        let url = format!("{base}/metrics");
        let figures = async || server.client.get(&url).send().await.unwrap().text().await.unwrap();
        eventually("the poll to wait", Duration::from_secs(20), figures, |text| {
            text.contains("headstart_api_polls_waiting 1")
        })
        .await;
        shutdown.cancel();
    };
    let (answer, ()) = tokio::join!(poll, stop);
    assert_eq!(answer, Value::Null);
    let ended = tokio::time::timeout(Duration::from_secs(15), running).await;
    ended.expect("it ends without waiting for idle connections").unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(15));
    assert!(TcpStream::connect(base.trim_start_matches("http://")).await.is_err());
}

#[tokio::test]
async fn any_origin_may_ask_where_that_is_wanted() {
    let server = Server::start().await;
    let shutdown = CancellationToken::new();
    let _guard = shutdown.clone().drop_guard();
    let open = replica(&server.broker, api::Config { cors_all: true, ..config(None) }, shutdown).await;
    for (base, allowed) in [(open.as_str(), true), (&server.url(""), false)] {
        let url = format!("{base}/v1/subscriptions");
        let origin = "https://portal.example.org";
        let asked = server.client.get(&url).basic_auth(ADMIN.0, Some(ADMIN.1)).header("origin", origin);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let told = answer.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap());
        assert_eq!(told, allowed.then_some(origin));
        let preflight = server.client.request(Method::OPTIONS, &url).header("origin", origin);
        let preflight = preflight
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization")
            .send()
            .await
            .unwrap();
        let expected = if allowed { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
        assert_eq!(preflight.status(), expected);
        if allowed {
            assert_eq!(preflight.headers()["access-control-allow-headers"], "authorization");
            assert_eq!(preflight.headers()["access-control-max-age"], "600");
            assert_eq!(preflight.text().await.unwrap(), "OK");
        }
    }
}

#[tokio::test]
async fn figures_are_told() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    server.event("1").await;
    let mut consumer = Consumer::connect(&server.url("")).await;
    consumer.read_all(1).await;
    let text = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "headstart_api_events_accepted_total 1",
        "headstart_api_messages_delivered_total 1",
        "headstart_api_messages_acknowledged_total 1",
        r#"headstart_api_requests_total{method="POST",route="/v1/subscriptions",status="201"} 1"#,
        r#"headstart_api_request_duration_seconds_count{method="POST",route="/v1/messages"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}
