//! Messages as they come, as server-sent events and as lines of JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use broker::testing::eventually;
use futures::{StreamExt, stream::BoxStream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, EVENTS, PREFILL, Server, config, replica};
use tokio_util::sync::CancellationToken;

const MAIL: (&str, &str) = ("mail", "pw");
const STREAM: &str = "/v1/subscriptions/mail/messages/stream";
const EVENT_STREAM: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";

/// An open stream, cut into events or lines.
struct Reading {
    chunks: BoxStream<'static, String>,
    text: String,
    format: &'static str,
}

#[derive(Debug, PartialEq)]
enum Part {
    Message { id: String, message: Value },
    Heartbeat,
    Prefill(Value),
    End(String),
}

impl Reading {
    async fn open(
        server: &Server,
        base: &str,
        query: &str,
        format: &'static str,
        last: Option<&str>,
    ) -> Self {
        let request = server.client.get(format!("{base}{STREAM}{query}")).basic_auth("mail", Some("pw"));
        let request = request.header("accept", format);
        let request = match last {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], format);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["x-accel-buffering"], "no", "a proxy would hold messages back");
        let chunks = answer.bytes_stream();
        let chunks = chunks.map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).boxed();
        Self { chunks, text: String::new(), format }
    }

    /// The next event or line; `None` at the end of the answer.
    async fn part(&mut self) -> Option<Part> {
        let end = if self.format == LINES { "\n" } else { "\n\n" };
        loop {
            if let Some((part, rest)) = self.text.split_once(end) {
                let parsed = if self.format == LINES { line(part) } else { event(part) };
                self.text = rest.to_owned();
                return Some(parsed);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.chunks.next()).await;
            match chunk.expect("not even a heartbeat") {
                Some(chunk) => self.text.push_str(&chunk),
                None => return None,
            }
        }
    }

    async fn message(&mut self) -> (String, Value) {
        loop {
            match self.part().await.expect("a message") {
                Part::Message { id, message } => return (id, message),
                Part::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.push(self.message().await.1["body"]["new"]["id"].as_str().unwrap().to_owned());
        }
        ids
    }

    /// Nothing but heartbeats.
    async fn silent(&mut self) {
        for _ in 0..2 {
            assert_eq!(self.part().await, Some(Part::Heartbeat));
        }
    }

    async fn prefill(&mut self) -> Value {
        loop {
            match self.part().await.expect("the state of the prefill") {
                Part::Prefill(state) => return state,
                Part::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn end(&mut self) -> String {
        loop {
            match self.part().await.expect("an end with its reason") {
                Part::End(reason) => {
                    assert_eq!(self.part().await, None, "nothing comes behind the end");
                    return reason;
                }
                Part::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn event(text: &str) -> Part {
    if text.starts_with(':') {
        return Part::Heartbeat;
    }
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(": ").to_owned())
    };
    let data: Value = serde_json::from_str(&field("data").unwrap()).unwrap();
    match field("event").as_deref() {
        Some("prefill") => Part::Prefill(data),
        Some("end") => Part::End(data["reason"].as_str().unwrap().to_owned()),
        Some("message") => {
            support::fits("ProvisioningMessage", &data);
            Part::Message { id: field("id").unwrap(), message: data }
        }
        other => panic!("{other:?}"),
    }
}

fn line(text: &str) -> Part {
    if text.is_empty() {
        return Part::Heartbeat;
    }
    let data: Value = serde_json::from_str(text).unwrap();
    if let Some(reason) = data["end"].as_str() {
        return Part::End(reason.to_owned());
    }
    if data["prefill"].is_object() {
        return Part::Prefill(data["prefill"].clone());
    }
    support::fits("StreamedMessage", &data);
    Part::Message { id: data["event_id"].as_str().unwrap().to_owned(), message: data }
}

async fn acknowledge(server: &Server, base: &str, message: &Value) {
    let url = format!("{base}/v1/subscriptions/mail/messages/{}/status", message["sequence_number"]);
    let request = server.client.patch(url).basic_auth("mail", Some("pw")).json(&json!({"status": "ok"}));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

async fn done(server: &Server) {
    let done = json!({"status": "done"});
    let set = server.send(Method::PATCH, "/v1/subscriptions/mail/prefill", PREFILL, Some(&done)).await;
    assert_eq!(set.status, StatusCode::OK);
}

#[tokio::test]
async fn prefill_and_live_in_both_formats_resumed_and_acknowledged_elsewhere() {
    for format in [EVENT_STREAM, LINES] {
        let server = Server::start().await;
        let shutdown = CancellationToken::new();
        let _guard = shutdown.clone().drop_guard();
        let other_broker = server.nats.broker().await;
        let other = replica(&other_broker, config(None), shutdown).await;
        server.register("mail", &["users/user"], true).await;
        server.event("live").await;
        let mut stream = Reading::open(&server, &server.url(""), "?window=2", format, None).await;
        stream.silent().await;
        server.fill("mail", &["1", "2", "3"]).await;
        done(&server).await;
        let (first_id, first) = stream.message().await;
        assert_eq!((&first["body"]["new"]["id"], &first["num_delivered"]), (&json!("1"), &json!(1)));
        assert_eq!(first_id, format!("p{}", first["sequence_number"]));
        assert_eq!(stream.ids(1).await, ["2"]);
        stream.silent().await;
        acknowledge(&server, &other, &first).await;
        let (third_id, third) = stream.message().await;
        assert_eq!(third["body"]["new"]["id"], "3");
        // At another replica, behind the first: "2" and "3" come again there.
        let mut again = Reading::open(&server, &other, "", format, Some(&first_id)).await;
        assert_eq!(again.ids(2).await, ["2", "3"]);
        let query = format!("?after={third_id}");
        let mut behind = Reading::open(&server, &other, &query, format, None).await;
        behind.silent().await;
        let through = json!({"through": third["sequence_number"]});
        let path = "/v1/subscriptions/mail/messages/acknowledgements";
        assert_eq!(server.send(Method::POST, path, MAIL, Some(&through)).await.text, r#"{"removed":2}"#);
        for stream in [&mut stream, &mut again, &mut behind] {
            let (id, live) = stream.message().await;
            assert_eq!(live["body"]["new"]["id"], "live");
            assert!(id.starts_with('l'), "{id}");
        }
        let text = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        assert!(text.lines().any(|l| l == "headstart_api_streams_open 1"), "{text}");
        drop(stream);
        let figures =
            async || server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        eventually("the end of the stream", Duration::from_secs(20), figures, |text| {
            text.lines().any(|l| l == "headstart_api_streams_open 0")
        })
        .await;
        // It ends with the subscription, and says so.
        server.send(Method::DELETE, "/v1/subscriptions/mail", ADMIN, None).await;
        assert_eq!(again.end().await, "removed");
        assert_eq!(behind.end().await, "removed");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_before_the_stream_begins() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    for (query, field) in [
        ("window=0", "window"),
        ("window=1001", "window"),
        ("window=x", "window"),
        ("after=7", "after"),
        ("after=", "after"),
        // The queue never had that number.
        ("after=l100000", "after"),
    ] {
        let answer = server.send(Method::GET, &format!("{STREAM}?{query}"), MAIL, None).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(answer.json()["errors"][0]["loc"], json!(["query", field]), "{query}");
    }
    let ask = |name: &'static str, value: &'static str| {
        let request = server.client.get(server.url(STREAM)).basic_auth("mail", Some("pw"));
        support::answer(request.header(name, value))
    };
    let refused = support::described(&Method::GET, STREAM, ask("last-event-id", "x").await);
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.json()["errors"][0]["loc"], json!(["header", "last-event-id"]));
    let refused = support::described(&Method::GET, STREAM, ask("accept", "application/json").await);
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
    assert!(refused.text.contains("text/event-stream"), "{}", refused.text);
    let wrong = server.send(Method::GET, STREAM, ("mail", "wrong"), None).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_stream_ends_with_its_password() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let mut silent = Reading::open(&server, &server.url(""), "", EVENT_STREAM, None).await;
    silent.silent().await;
    let change = json!({"password": "new"});
    let changed = server.send(Method::PATCH, "/v1/subscriptions/mail", ADMIN, Some(&change)).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(silent.end().await, "password");
}

#[tokio::test]
async fn a_stream_reports_a_failed_prefill_at_its_beginning_and_when_that_changes() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let set = async |state: &str| {
        let state = json!({"status": state});
        let set = server.send(Method::PATCH, "/v1/subscriptions/mail/prefill", PREFILL, Some(&state)).await;
        assert_eq!(set.status, StatusCode::OK);
    };
    let (failed, running) =
        (json!({"state": "failed", "reason": "SetByRequest"}), json!({"state": "running"}));
    for format in [EVENT_STREAM, LINES] {
        let mut before = Reading::open(&server, &server.url(""), "", format, None).await;
        before.silent().await;
        set("failed").await;
        assert_eq!(before.prefill().await, failed);
        let mut behind = Reading::open(&server, &server.url(""), "", format, None).await;
        assert_eq!(behind.part().await, Some(Part::Prefill(failed.clone())));
        let request = server.client.get(server.url(STREAM)).basic_auth("mail", Some("pw"));
        let header = request.send().await.unwrap().headers()["prefill-status"].clone();
        assert_eq!(header, "failed; reason=\"SetByRequest\"");
        set("running").await;
        for stream in [&mut before, &mut behind] {
            assert_eq!(stream.prefill().await, running);
            stream.silent().await;
        }
    }
}

#[tokio::test]
async fn a_stop_of_the_server_ends_streams() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let shutdown = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let launcher = api::Launcher::queue(server.broker.tasks());
    let running =
        tokio::spawn(api::run(listener, config(None), server.broker.clone(), launcher, shutdown.clone()));
    let mut events = Reading::open(&server, &base, "", EVENT_STREAM, None).await;
    let mut lines = Reading::open(&server, &base, "", LINES, None).await;
    events.silent().await;
    shutdown.cancel();
    assert_eq!(events.end().await, "stopping");
    assert_eq!(lines.end().await, "stopping");
    tokio::time::timeout(Duration::from_secs(15), running).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_outlasts_a_kill_of_nats() {
    let mut server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    server.event("1").await;
    let mut stream = Reading::open(&server, &server.url(""), "", EVENT_STREAM, None).await;
    assert_eq!(stream.ids(1).await, ["1"]);
    server.nats.restart().await;
    let event = support::event("users/user", "2");
    let send = async || server.send(Method::POST, "/v1/messages", EVENTS, Some(&event)).await.status;
    eventually("NATS to be back", Duration::from_secs(30), send, |s| *s == StatusCode::ACCEPTED).await;
    assert_eq!(stream.ids(1).await, ["2"]);
}

#[tokio::test]
async fn a_slow_reader_is_not_read_ahead_for() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    // Far more than what sockets hold: 300 messages of 200 KB.
    let large = "x".repeat(200_000);
    let ids: Vec<String> = (0..300).map(|n| format!("{n}-{large}")).collect();
    let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
    server.fill("mail", &refs).await;
    done(&server).await;
    let mut stream = Reading::open(&server, &server.url(""), "?window=1000", LINES, None).await;
    let first = stream.message().await.1;
    assert_eq!(first["body"]["new"]["id"], *ids[0]);
    let delivered = async || {
        let text = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("headstart_api_messages_delivered_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    // It stands still while nobody reads: for a whole second.
    let (mut last, mut since) = (delivered().await, Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        let now = delivered().await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    assert!(last < 200, "{last} messages were read ahead");
    for id in &ids[1..] {
        assert_eq!(stream.message().await.1["body"]["new"]["id"], **id);
    }
}
