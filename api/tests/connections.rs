//! How much of a replica clients may take: connections, time, streams, polls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use api::{Bounds, Config};
use broker::testing::eventually;
use reqwest::{Method, StatusCode};
use support::{Answer, Server, answer, config, described, replica};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

const SOON: Duration = Duration::from_secs(20);
/// `mail:pw` asks for itself.
const LOGIN: &[u8] =
    b"GET /v1/subscriptions/mail HTTP/1.1\r\nHost: x\r\nAuthorization: Basic bWFpbDpwdw==\r\n\r\n";
const HEAD: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n";

struct Replica<'a> {
    server: &'a Server,
    base: String,
    _shutdown: DropGuard,
}

impl<'a> Replica<'a> {
    async fn new(server: &'a Server, bounds: Bounds) -> Self {
        let shutdown = CancellationToken::new();
        let bounds = Bounds { refused_after: Duration::ZERO, ..bounds };
        let config = Config { bounds, ..config(None) };
        let base = replica(&server.broker, config, shutdown.clone()).await;
        Self { server, base, _shutdown: shutdown.drop_guard() }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        // Each request over a connection of its own.
        let client = reqwest::Client::builder().no_proxy().timeout(3 * SOON).build().unwrap();
        client.get(format!("{}{path}", self.base)).basic_auth("mail", Some("pw"))
    }

    async fn answer(&self, path: &str) -> Answer {
        answer(self.get(path)).await
    }

    /// A connection that has sent something.
    async fn raw(&self, sent: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.base.trim_start_matches("http://")).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream
    }

    async fn metric(&self, name: &str) -> String {
        let client = &self.server.client;
        let text = answer(client.get(format!("{}/metrics", self.base))).await.text;
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    }
}

/// All that comes until the connection is closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    tokio::time::timeout(SOON, stream.read_to_end(&mut text)).await.expect("it is not closed").ok();
    String::from_utf8(text).unwrap()
}

/// One whole answer, as text.
async fn whole(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                return text;
            }
        }
        let read = tokio::time::timeout(SOON, stream.read_buf(&mut bytes)).await.expect("no answer").unwrap();
        assert!(read > 0, "closed: {text}");
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_so() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    // Half of them for those who have not logged in, and half of those for one address.
    let replica = Replica::new(&server, Bounds { connections: 6, ..Bounds::default() }).await;
    let mut known = replica.raw(LOGIN).await;
    whole(&mut known).await;
    let (first, mut second) = (replica.raw(HEAD).await, replica.raw(HEAD).await);
    let full = async || replica.answer("/openapi.json").await;
    let refused = eventually("both are taken", SOON, full, |a| a.status != StatusCode::OK).await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("connections"), "{refused:?}");
    assert_eq!(refused.header("x-request-id").len(), 32);
    known.write_all(LOGIN).await.unwrap();
    assert!(whole(&mut known).await.starts_with("HTTP/1.1 200"), "who has logged in has a place of its own");
    assert_eq!(replica.answer("/healthz").await.status, StatusCode::OK, "it is alive");
    assert_eq!(replica.answer("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE, "but not ready");
    second.write_all(b"Connection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200"), "who was there before is served");
    drop(first);
    let free = async || replica.answer("/openapi.json").await;
    eventually("there is room again", SOON, free, |a| a.status == StatusCode::OK).await;
    assert_ne!(replica.metric("headstart_api_connections ").await, "");
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let server = Server::start().await;
    let bounds = Bounds { head_within: Duration::from_millis(200), ..Bounds::default() };
    let replica = Replica::new(&server, bounds).await;
    for sent in [&b""[..], b"GET /healthz HTT", HEAD] {
        let mut slow = replica.raw(sent).await;
        assert!(!rest(&mut slow).await.contains("200 OK"));
    }
    // One that sends its head a byte at a time is no better.
    let mut slow = replica.raw(b"").await;
    let (mut read, mut write) = slow.split();
    let trickle = async {
        for byte in HEAD.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut closed = Vec::new();
    tokio::select! {
        ended = tokio::time::timeout(SOON, read.read_to_end(&mut closed)) => { ended.unwrap().ok(); }
        () = trickle => {}
    }
    // A large one is refused, whoever sends it.
    let mut large = replica.raw(HEAD).await;
    let line = format!("x: {}\r\n", "x".repeat(100 * 1024));
    large.write_all(line.as_bytes()).await.ok();
    let told = rest(&mut large).await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 431"), "{told}");
    assert_eq!(replica.answer("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_subscription_has_so_many_streams() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let replica = Replica::new(&server, Bounds { streams_per_subscription: 2, ..Bounds::default() }).await;
    let path = "/v1/subscriptions/mail/messages/stream";
    let open = async || replica.get(path).send().await.unwrap();
    let (first, second) = (open().await, open().await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let refused = described(&Method::GET, path, replica.answer(path).await);
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "2"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("2 streams"), "{refused:?}");
    let next = replica.answer("/v1/subscriptions/mail/messages/next?timeout=0.1").await;
    assert_eq!(next.status, StatusCode::OK, "polls are counted apart");
    drop(first);
    let again = async || open().await.status();
    eventually("there is room again", SOON, again, |status| *status == StatusCode::OK).await;
}

#[tokio::test]
async fn a_subscription_has_so_many_polls() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let replica = Replica::new(&server, Bounds { polls_per_subscription: 1, ..Bounds::default() }).await;
    let poll = tokio::spawn(replica.get("/v1/subscriptions/mail/messages/next?timeout=60").send());
    let waiting = async || replica.metric("headstart_api_polls_waiting").await;
    eventually("the poll waits", SOON, waiting, |polls| polls == "1").await;
    for path in
        ["/v1/subscriptions/mail/messages/next?timeout=1", "/v1/subscriptions/mail/messages?timeout=1"]
    {
        let refused = described(&Method::GET, path, replica.answer(path).await);
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.json()["detail"].as_str().unwrap().contains("1 polls"), "{refused:?}");
    }
    poll.abort();
    let again = async || replica.answer("/v1/subscriptions/mail/messages/next?timeout=0.1").await.status;
    eventually("there is room again", SOON, again, |status| *status == StatusCode::OK).await;
}

#[tokio::test]
async fn a_stranger_s_connection_is_closed_when_it_is_idle() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let bounds = Bounds { first_head_within: Duration::from_millis(500), ..Bounds::default() };
    let replica = Replica::new(&server, bounds).await;
    let mut known = replica.raw(LOGIN).await;
    whole(&mut known).await;
    for sent in [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stranger = replica.raw(sent).await;
        let answers = rest(&mut stranger).await;
        assert_eq!(answers.starts_with("HTTP/1.1 200"), !sent.is_empty(), "{answers}");
    }
    known.write_all(LOGIN).await.unwrap();
    assert!(whole(&mut known).await.starts_with("HTTP/1.1 200"), "it has logged in");
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_their_places_until_they_are_given_up() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    // More than sockets hold: 30 messages of 100 KB in each batch.
    let large = "x".repeat(100_000);
    let ids: Vec<String> = (0..30).map(|n| format!("{n}-{large}")).collect();
    server.fill("mail", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let done = serde_json::json!({"status": "done"});
    server.send(Method::PATCH, "/v1/subscriptions/mail/prefill", support::PREFILL, Some(&done)).await;
    let bounds =
        Bounds { polls_per_subscription: 2, taken_within: Duration::from_secs(3), ..Bounds::default() };
    let replica = Replica::new(&server, bounds).await;
    let address = replica.base.trim_start_matches("http://").parse().unwrap();
    let mut unread = Vec::new();
    for _ in 0..2 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let asked = "GET /v1/subscriptions/mail/messages?timeout=20 HTTP/1.1\r\nHost: x\r\n\
            Authorization: Basic bWFpbDpwdw==\r\n\r\n";
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        unread.push(stream);
    }
    let path = "/v1/subscriptions/mail/messages/next?timeout=0.1";
    let third = replica.answer(path).await;
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS, "{}", third.text);
    let held = async || replica.metric("headstart_api_answer_bytes_held ").await.parse::<u64>().unwrap();
    assert!(held().await > 1_000_000);
    // Nobody takes anything: they are cut off.
    let next = async || replica.answer(path).await.status;
    eventually("the places to be free", SOON, next, |status| *status == StatusCode::OK).await;
    eventually("the bytes to be free", SOON, held, |bytes| *bytes == 0).await;
}

#[tokio::test]
async fn a_large_body_is_only_read_of_those_who_may_send_it() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let replica = Replica::new(&server, Bounds::default()).await;
    let ask = async |login: &str, size: usize| {
        let mut stream = replica
            .raw(
                format!(
                    "POST /v1/subscriptions/mail/prefill HTTP/1.1\r\nHost: x\r\n{login}\
                     Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n{{"
                )
                .as_bytes(),
            )
            .await;
        // Answered although the body does not come.
        whole(&mut stream).await
    };
    let (mail, wrong) = ("Authorization: Basic bWFpbDpwdw==\r\n", "Authorization: Basic bWFpbDp4\r\n");
    for (login, size, status) in [("", 1 << 20, 401), (wrong, 65_537, 401), (mail, 65_537, 413)] {
        let answer = ask(login, size).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{login}{size}: {answer}");
    }
    // What strangers send does not take the room of others.
    let mut open = Vec::new();
    for _ in 0..150 {
        let begun = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n{}",
            " ".repeat(65_000)
        );
        open.push(replica.raw(begun.as_bytes()).await);
    }
    let sent = server.client.post(format!("{}/v1/messages", replica.base));
    let event = support::event("users/user", "1");
    let sent = answer(sent.basic_auth(support::EVENTS.0, Some(support::EVENTS.1)).json(&event)).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.text);
}
