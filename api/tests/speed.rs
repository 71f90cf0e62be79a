//! How fast a queue is drained, beside what NATS itself gives on the same machine. Not run with the other tests:
//! `cargo test --release -p api --test speed -- --ignored --nocapture --test-threads 1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use broker::{Copier, Copy};
use bytes::Bytes;
use futures::StreamExt;
use model::Subscription;
use serde_json::{Value, json};
use support::Server;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const SINGLE: u64 = 5_000;
const MANY: u64 = 50_000;

/// One kept-alive connection of the consumer `mail`.
struct Consumer(BufReader<TcpStream>);

impl Consumer {
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.url("").trim_start_matches("http://")).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::with_capacity(1 << 20, stream))
    }

    async fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        let credentials = STANDARD.encode("mail:pw");
        let request = format!(
            "{method} /v1/subscriptions/mail/messages{path} HTTP/1.1\r\nHost: api\r\n{headers}\
             Authorization: Basic {credentials}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads the head of an answer, and answers the length of its body.
    async fn head(&mut self) -> usize {
        let mut length = 0;
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        assert!(line.contains(" 200 "), "{line}");
        loop {
            line.clear();
            self.0.read_line(&mut line).await.unwrap();
            if line.trim_end().is_empty() {
                return length;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Vec<u8> {
        self.send(method, path, "", body).await;
        let mut body = vec![0; self.head().await];
        self.0.read_exact(&mut body).await.unwrap();
        body
    }
}

/// Fills the live part of the queue.
async fn fill(server: &Server, count: u64) -> Subscription {
    let entry = server.broker.registry().subscription(&"mail".parse().unwrap()).await.unwrap().unwrap().value;
    let mut copier =
        Copier::open(server.broker.queue(&entry.name, entry.incarnation)).await.unwrap().unwrap();
    let mut event = support::event("users/user", "1");
    event["body"]["new"]["padding"] = json!("x".repeat(2800));
    let payload = Bytes::from(event.to_string());
    let first = copier.checkpoint().incoming_seq.max(1_000_000) + 1;
    let numbers: Vec<u64> = (first..first + count).collect();
    for numbers in numbers.chunks(Copier::LARGEST_BATCH) {
        let copies: Vec<Copy> = numbers
            .iter()
            .map(|n| Copy { incoming_seq: *n, accepted: None, payload: payload.clone() })
            .collect();
        copier.copy(&copies).await.unwrap();
    }
    entry
}

fn told(what: &str, count: u64, began: Instant) {
    println!("{what:58} {:9.0} messages/s", count as f64 / began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn draining() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let client = async_nats::connect(server.nats.url()).await.unwrap();
    let js = jetstream::new(client.clone());
    for run in 1..=3 {
        println!("run {run}");
        let entry = fill(&server, SINGLE).await;
        let name = format!("stream:mail:{}", entry.incarnation.short());
        let stream = js.get_stream(&name).await.unwrap();
        let began = Instant::now();
        for _ in 0..SINGLE {
            let get = stream.raw_message_builder().sequence(1).next_by_subject("mail.main".to_owned());
            let message = get.send().await.unwrap();
            let ask = json!({"seq": message.sequence, "no_erase": true});
            let _: Value = js.request(format!("STREAM.MSG.DELETE.{name}"), &ask).await.unwrap();
        }
        told("NATS alone, get and remove one", SINGLE, began);

        fill(&server, SINGLE).await;
        let mut consumer = Consumer::connect(&server).await;
        let began = Instant::now();
        for _ in 0..SINGLE {
            let message: Value =
                serde_json::from_slice(&consumer.ask("GET", "/next?timeout=10", "").await).unwrap();
            let path = format!("/{}/status", message["sequence_number"]);
            consumer.ask("PATCH", &path, r#"{"status":"ok"}"#).await;
        }
        told("next and acknowledgement", SINGLE, began);

        fill(&server, MANY).await;
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            filter_subject: "mail.main".into(),
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let began = Instant::now();
        let mut messages = consumer.stream().max_messages_per_batch(500).messages().await.unwrap();
        for _ in 0..MANY {
            messages.next().await.unwrap().unwrap();
        }
        told("NATS alone, a consumer that acknowledges nothing", MANY, began);
        drop(messages);

        let began = Instant::now();
        let (mut from, mut seen) = (1, 0);
        while seen < MANY {
            let inbox = client.new_inbox();
            let mut answers = client.subscribe(inbox.clone()).await.unwrap();
            let ask = json!({"seq": from, "batch": 100, "next_by_subj": "mail.main"}).to_string();
            client.publish_with_reply(format!("$JS.API.DIRECT.GET.{name}"), inbox, ask.into()).await.unwrap();
            while let Some(message) = answers.next().await {
                if message.status.is_some() {
                    break;
                }
                from = message.headers.unwrap().get("Nats-Sequence").unwrap().as_str().parse().unwrap();
                seen += 1;
            }
            from += 1;
        }
        told("NATS alone, direct gets of 100", MANY, began);

        for direct in [true, false] {
            if !direct {
                fill(&server, MANY).await;
            }
            let mut config = stream.cached_info().config.clone();
            config.allow_direct = direct;
            js.update_stream(config).await.unwrap();
            let mut consumer = Consumer::connect(&server).await;
            let began = Instant::now();
            let mut seen = 0;
            while seen < MANY {
                let body = consumer.ask("GET", "?limit=100&timeout=10", "").await;
                let messages: Vec<Value> = serde_json::from_slice(&body).unwrap();
                seen += messages.len() as u64;
                let through = json!({"through": messages.last().unwrap()["sequence_number"]});
                consumer.ask("POST", "/acknowledgements", &through.to_string()).await;
            }
            let what = if direct { "direct gets" } else { "from the leader" };
            told(&format!("batches of 100 and acknowledgement, {what}"), MANY, began);
        }
        let mut config = stream.cached_info().config.clone();
        config.allow_direct = true;
        js.update_stream(config).await.unwrap();

        fill(&server, MANY).await;
        let mut acknowledging = Consumer::connect(&server).await;
        let mut reading = Consumer::connect(&server).await;
        let began = Instant::now();
        reading.send("GET", "/stream?window=1000", "Accept: application/x-ndjson\r\n", "").await;
        reading.head().await;
        let (mut seen, mut line) = (0, String::new());
        while seen < MANY {
            line.clear();
            reading.0.read_line(&mut line).await.unwrap();
            // Chunks end where lines end; their sizes are on lines of their own.
            if !line.starts_with('{') {
                continue;
            }
            let message: Value = serde_json::from_str(&line).unwrap();
            seen += 1;
            if seen % 100 == 0 {
                let through = json!({"through": message["sequence_number"]}).to_string();
                acknowledging.ask("POST", "/acknowledgements", &through).await;
            }
        }
        told("stream, acknowledged every 100", MANY, began);
    }
}

/// What eight waiting polls cost this process, clients included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn idling() {
    let server = Server::start().await;
    for n in 0..8 {
        server.register(&format!("mail{n}"), &["users/user"], false).await;
    }
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().filter_map(|f| f.parse().ok()).collect();
        // utime and stime, in 1/100 s; the field before the numbers is the state.
        fields[10] + fields[11]
    };
    let polls = futures::future::join_all((0..8).map(async |n| {
        let name = format!("mail{n}");
        let url = server.url(&format!("/v1/subscriptions/{name}/messages/next?timeout=50"));
        server.client.get(url).basic_auth(&name, Some("pw")).send().await.unwrap().text().await.unwrap()
    }));
    let measured = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (before, began) = (ticks(), Instant::now());
        tokio::time::sleep(Duration::from_secs(40)).await;
        let share = (ticks() - before) as f64 / began.elapsed().as_secs_f64();
        println!("eight waiting polls: {share:.2} % of a core");
    };
    let (answers, ()) = tokio::join!(polls, measured);
    assert!(answers.iter().all(|a| a == "null"));
}
