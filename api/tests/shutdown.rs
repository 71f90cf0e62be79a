//! A replica that ends: nobody's request fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use api::{Config, Launcher};
use reqwest::{Client, StatusCode};
use support::{ADMIN, Server, answer, config};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const NEXT: &str = "/v1/subscriptions/mail/messages/next";

struct Replica {
    base: String,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), api::Error>>,
}

impl Replica {
    async fn start(server: &Server, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let config = Config { shutdown_delay: delay, ..config(None) };
        let launcher = Launcher::queue(server.broker.tasks());
        let running =
            tokio::spawn(api::run(listener, config, server.broker.clone(), launcher, shutdown.clone()));
        Self { base, shutdown, running }
    }

    async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(60), self.running).await.expect("it ends").unwrap().unwrap();
    }
}

#[tokio::test]
async fn who_comes_after_the_stop_is_served_for_a_while() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let replica = Replica::start(&server, Duration::from_secs(3)).await;
    let get = |path: &str, (user, password): (&str, &str)| {
        let client = Client::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", replica.base)).basic_auth(user, Some(password))
    };
    let (before, after) = (format!("{NEXT}?timeout=60"), format!("{NEXT}?timeout=30"));
    let poll = tokio::spawn(answer(get(&before, ("mail", "pw"))));
    let figures = async || answer(get("/metrics", ADMIN)).await.text;
    broker::testing::eventually("the poll waits", Duration::from_secs(20), figures, |text| {
        text.lines().any(|line| line == "headstart_api_polls_waiting 1")
    })
    .await;
    replica.shutdown.cancel();
    let ended = poll.await.unwrap();
    assert_eq!(
        (ended.status, ended.text.as_str(), ended.header("connection")),
        (StatusCode::OK, "null", "close")
    );
    let ready = answer(get("/readyz", ADMIN)).await;
    assert_eq!((ready.status, ready.text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"));
    let list = answer(get("/v1/subscriptions", ADMIN)).await;
    assert_eq!((list.status, list.header("connection")), (StatusCode::OK, "close"));
    // A poll that comes now would come back at once, so it is held until the end.
    let held = answer(get(&after, ("mail", "pw"))).await;
    assert_eq!(
        (held.status, held.text.as_str(), held.header("connection")),
        (StatusCode::OK, "null", "close")
    );
    let base = replica.base.clone();
    replica.ended().await;
    assert!(server.client.get(format!("{base}/healthz")).send().await.is_err(), "nobody listens any more");
}

/// What stands before the replicas sends requests to each in turn, and learns late that one ends.
#[tokio::test]
async fn no_poller_of_two_replicas_fails_while_one_is_restarted() {
    let server = Server::start().await;
    let names: Vec<String> = (0..10).map(|n| format!("consumer{n}")).collect();
    for name in &names {
        server.register(name, &["users/user"], false).await;
    }
    let delay = Duration::from_secs(5);
    let first = Replica::start(&server, delay).await;
    let second = Replica::start(&server, delay).await;
    let backends = Arc::new(Mutex::new(vec![first.base.clone(), second.base.clone()]));
    let (stop, turn) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let pollers: Vec<JoinHandle<usize>> = names
        .into_iter()
        .map(|name| {
            let (backends, stop, turn) = (backends.clone(), stop.clone(), turn.clone());
            // It keeps its connections, one to each replica.
            let client = Client::builder().no_proxy().build().unwrap();
            tokio::spawn(async move {
                let mut polls = 0;
                while !stop.load(SeqCst) {
                    let base = {
                        let backends = backends.lock().unwrap();
                        backends[turn.fetch_add(1, SeqCst) % backends.len()].clone()
                    };
                    let url = format!("{base}/v1/subscriptions/{name}/messages/next?timeout=0.3");
                    let answer = client.get(url).basic_auth(&name, Some("pw")).send().await;
                    let answer = answer.unwrap_or_else(|e| panic!("{}", model::error_chain(&e)));
                    assert_eq!(answer.status(), StatusCode::OK);
                    assert_eq!(answer.text().await.unwrap(), "null");
                    polls += 1;
                }
                polls
            })
        })
        .collect();
    let asked = async || turn.load(SeqCst);
    broker::testing::eventually("polls of both", Duration::from_secs(20), asked, |n| *n > 40).await;
    first.shutdown.cancel();
    tokio::time::sleep(Duration::from_secs(2)).await;
    backends.lock().unwrap().remove(0);
    first.ended().await;
    let again = Replica::start(&server, Duration::ZERO).await;
    backends.lock().unwrap().push(again.base.clone());
    let before = turn.load(SeqCst);
    broker::testing::eventually("polls again", Duration::from_secs(20), asked, |n| *n > before + 40).await;
    stop.store(true, SeqCst);
    for poller in pollers {
        assert!(poller.await.unwrap() > 0);
    }
}
