//! On three nats-servers, of which the one that leads is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{collections::HashSet, fmt::Debug, sync::Mutex, time::Duration};

use broker::{
    Broker, Claimed, FillError,
    testing::{NatsCluster, eventually},
};
use bytes::Bytes;
use model::{PrefillState, fence::Counts};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, Answer, EVENTS, PREFILL, answer, config, event, registration, replica};
use tokio_util::sync::CancellationToken;

/// The choice of a leader takes up to ten seconds, one after the other for streams that had theirs on one server.
const SOON: Duration = Duration::from_secs(90);
const MAIL: (&str, &str) = ("mail", "pw");

/// Two replicas of the API, each with its own connection.
struct Apis {
    client: Client,
    bases: [String; 2],
    /// What was read, of whom. An event that was sent again, because its answer was lost, may be in the log twice.
    read: Mutex<HashSet<(String, String)>>,
}

impl Apis {
    async fn once(
        &self,
        replica: usize,
        method: &Method,
        path: &str,
        (user, password): (&str, &str),
        body: Option<&Value>,
    ) -> Answer {
        let request = self.client.request(method.clone(), format!("{}{path}", self.bases[replica]));
        let request = request.basic_auth(user, Some(password));
        answer(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// As clients do: 503 is asked again, of whichever replica.
    async fn send(&self, method: Method, path: &str, who: (&str, &str), body: Option<&Value>) -> Answer {
        let mut turn = 0;
        let ask = || {
            turn += 1;
            self.once(turn % 2, &method, path, who, body)
        };
        eventually(path, SOON, ask, |answer| answer.status != StatusCode::SERVICE_UNAVAILABLE).await
    }

    async fn register(&self, name: &str, prefill: bool) {
        let body = registration(name, &["users/user"], prefill);
        let made = self.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
        // 200 if the answer to the request that made it was lost.
        assert!(made.status.is_success(), "{made:?}");
    }

    async fn post(&self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            let event = event("users/user", &format!("live{id}"));
            let sent = self.send(Method::POST, "/v1/messages", EVENTS, Some(&event)).await;
            assert_eq!(sent.status, StatusCode::ACCEPTED);
        }
    }

    /// Reads and acknowledges one after the other.
    async fn read(&self, name: &str, count: usize) -> Vec<String> {
        let (mut ids, mut numbers) = (Vec::<String>::new(), Vec::<u64>::new());
        while ids.len() < count {
            let path = format!("/v1/subscriptions/{name}/messages/next?timeout=10");
            let got = self.send(Method::GET, &path, (name, "pw"), None).await;
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
            let got = got.json();
            let Some(number) = got["sequence_number"].as_u64() else { continue };
            assert!(!numbers.contains(&number), "{number} comes again although it was acknowledged");
            let id = got["body"]["new"]["id"].as_str().unwrap().to_owned();
            let path = format!("/v1/subscriptions/{name}/messages/{number}/status");
            let done = self.send(Method::PATCH, &path, (name, "pw"), Some(&json!({"status": "ok"}))).await;
            // 404 if the answer to the first try was lost.
            assert!([StatusCode::OK, StatusCode::NOT_FOUND].contains(&done.status), "{done:?}");
            numbers.push(number);
            if self.read.lock().unwrap().insert((name.to_owned(), id.clone())) {
                ids.push(id);
            }
        }
        ids
    }
}

fn live(ids: std::ops::RangeInclusive<u32>) -> Vec<String> {
    ids.map(|id| format!("live{id}")).collect()
}

fn objects(ids: std::ops::RangeInclusive<u32>) -> Vec<Bytes> {
    ids.map(|id| event("users/user", &format!("old{id}")).to_string().into()).collect()
}

/// Tries again what is answered by nobody while there is no leader.
async fn tried<T: Debug, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, f: impl FnMut() -> F) -> T {
    eventually(what, SOON, f, Result::is_ok).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_stops_nothing_and_nothing_is_lost() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut cluster = NatsCluster::start().await;
    let broker = tried("a connection", || async { Broker::connect(&cluster.config("test")).await }).await;
    tried("the layout", || broker.create_layout()).await;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let mut bases = Vec::new();
    for _ in 0..2 {
        let own = Broker::connect(&cluster.config("test")).await.unwrap();
        bases.push(replica(&own, config(None), stop.clone()).await);
        let metrics = dispatcher::Metrics::default();
        tokio::spawn(dispatcher::run(dispatcher::Config::default(), own, metrics, stop.clone()));
    }
    let client = Client::builder().no_proxy().timeout(SOON).build().unwrap();
    let apis = Apis { client, bases: bases.try_into().unwrap(), read: Mutex::default() };

    apis.register("mail", true).await;
    apis.register("chat", false).await;
    let entry = broker.registry().subscription(&"mail".parse().unwrap()).await.unwrap().unwrap().value;
    let queue = broker.queue(&entry.name, entry.incarnation);
    let Claimed::Holder(mut first) = queue.claim_fence(1, 1, "first").await.unwrap() else { panic!() };
    first.write(1, &objects(1..=3)).await.unwrap();
    apis.post(1..=5).await;

    // The queue's leader, in the middle of an attempt, and of a consumer that reads.
    let name = format!("stream:mail:{}", entry.incarnation.short());
    let killed = cluster.leader(&broker, &name).await;
    assert_eq!(apis.read("chat", 2).await, live(1..=2));
    cluster.kill(killed);
    let batch = objects(4..=6);
    let (written, ()) = tokio::join!(first.write(4, &batch), apis.post(6..=10));
    written.unwrap();
    assert_eq!(queue.pending().await.unwrap().unwrap().prefill, 6, "once each");
    assert_eq!(apis.read("chat", 8).await, live(3..=10));

    // Another attempt takes over, with two servers of three.
    let failed = json!({"status": "failed"});
    let asked = apis.send(Method::PATCH, "/v1/subscriptions/mail/prefill", PREFILL, Some(&failed)).await;
    assert_eq!(asked.status, StatusCode::OK);
    let asked = apis.send(Method::POST, "/v1/subscriptions/mail/prefill", MAIL, None).await;
    assert!(asked.status.is_success(), "{asked:?}");
    let entry = broker.registry().subscription(&entry.name).await.unwrap().unwrap().value;
    let (round, attempt) = (entry.prefill.round, entry.prefill.attempt);
    assert_eq!(attempt, 2);
    let Claimed::Holder(mut second) = queue.claim_fence(round, attempt, "second").await.unwrap() else {
        panic!()
    };
    let late = first.write(7, &objects(7..=7)).await;
    assert!(matches!(late, Err(FillError::Overtaken)), "{late:?}");
    second.purge_below().await.unwrap();
    second.write(1, &objects(1..=4)).await.unwrap();

    // The server is back, and the leader of the event log goes.
    cluster.restart(killed).await;
    let killed = cluster.leader(&broker, "incoming").await;
    cluster.kill(killed);
    apis.register("late", false).await;
    apis.post(11..=15).await;
    second.seal(Counts { messages: 4, ..Counts::default() }).await.unwrap();
    let done =
        |s: &model::Subscription| s.with_prefill_state(PrefillState::Done, None, None, s.created.clone());
    let registry = broker.registry();
    tried("the state", || registry.modify(&entry.name, entry.incarnation, done)).await;
    let old: Vec<String> = (1..=4).map(|n| format!("old{n}")).collect();
    assert_eq!(apis.read("mail", 19).await, [old, live(1..=15)].concat());
    assert_eq!(apis.read("chat", 5).await, live(11..=15));
    assert_eq!(apis.read("late", 5).await, live(11..=15));
}
