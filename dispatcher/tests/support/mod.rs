//! Subscriptions, events and readers around a dispatcher on a real nats-server.
#![allow(dead_code)] // each test target uses its part

use std::time::Duration;

use broker::{Broker, EventPublisher, ReaderConfig, Readers, testing::eventually};
use bytes::Bytes;
use dispatcher::{Config, Metrics};
use model::{
    Entry, Incarnation, RealmTopic, Selection, Subscription, SubscriptionName,
    subscription::{Lifecycle, Registration},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub const SOON: Duration = Duration::from_secs(20);

/// Everything is copied at once, whoever reads.
pub fn at_once() -> Config {
    Config { copy_after: Duration::ZERO, ..Config::default() }
}

pub fn start(broker: &Broker) -> (JoinHandle<Result<(), dispatcher::Error>>, DropGuard) {
    start_with(broker, at_once())
}

pub fn start_with(broker: &Broker, config: Config) -> (JoinHandle<Result<(), dispatcher::Error>>, DropGuard) {
    start_watched(broker, config).0
}

/// The same, with its figures.
pub fn start_watched(broker: &Broker, config: Config) -> (Running, Figures) {
    let shutdown = CancellationToken::new();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let running = dispatcher::run(config, broker.clone(), metrics.clone(), shutdown.clone());
    ((tokio::spawn(running), shutdown.drop_guard()), Figures { registry, metrics })
}

pub type Running = (JoinHandle<Result<(), dispatcher::Error>>, DropGuard);

/// What a dispatcher tells of itself.
pub struct Figures {
    registry: Registry,
    pub metrics: Metrics,
}

impl Figures {
    /// The value of a line of `/metrics`, by what stands before it.
    pub fn of(&self, name: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    pub async fn reach(&self, name: &str, value: u64) {
        eventually(name, SOON, async || self.of(name), |seen| *seen == value).await;
    }
}

/// The entry of a subscription.
pub async fn entry(broker: &Broker, s: &Subscription) -> Subscription {
    broker.registry().subscription(&s.name).await.unwrap().unwrap().value
}

pub async fn register(broker: &Broker, name: &str, topic: &str) -> Subscription {
    register_selecting(broker, name, topic, None).await
}

pub async fn register_selecting(
    broker: &Broker,
    name: &str,
    topic: &str,
    selection: Option<Selection>,
) -> Subscription {
    register_with(broker, name, topic, |registration| registration.selection = selection).await
}

pub async fn register_with(
    broker: &Broker,
    name: &str,
    topic: &str,
    change: impl FnOnce(&mut Registration),
) -> Subscription {
    let name: SubscriptionName = name.parse().unwrap();
    let topics = vec![RealmTopic { realm: "udm".into(), topic: topic.into() }];
    let mut registration = Registration::new(name.clone(), topics);
    change(&mut registration);
    let now = "2026-01-01T00:00:00".parse().unwrap();
    let (first, revision) = match broker.registry().get(&name).await.unwrap() {
        Some(entry) => match entry.value {
            Entry::Tombstone(t) => (t.next_sequence, entry.revision),
            Entry::Subscription(s) => panic!("{s:?}"),
        },
        None => (1, 0),
    };
    let s = Subscription::reserve(registration, Incarnation(Uuid::new_v4()), first, now);
    broker.registry().update(&name, &Entry::Subscription(s.clone()), revision).await.unwrap();
    broker.queue(&s.name, s.incarnation).create(&s).await.unwrap();
    let ready = |s: &Subscription| Some(Subscription { lifecycle: Lifecycle::Ready, ..s.clone() });
    broker.registry().modify(&s.name, s.incarnation, ready).await.unwrap();
    broker.events().marker(&s).await.unwrap();
    s
}

pub async fn post(broker: &Broker, topic: &str, n: u64) {
    post_all(broker, topic, n..=n).await;
}

/// Events with these numbers, one after the other.
pub async fn post_all(broker: &Broker, topic: &str, numbers: impl IntoIterator<Item = u64>) {
    let publisher = broker.events();
    for n in numbers {
        post_one(&publisher, topic, n).await;
    }
}

async fn post_one(publisher: &EventPublisher, topic: &str, n: u64) {
    let event = Bytes::from(format!(r#"{{"realm":"udm","topic":"{topic}","n":{n}}}"#));
    eventually(
        "the event to be accepted",
        SOON,
        async || publisher.publish(event.clone(), Instant::now()).await,
        |r| r.is_ok(),
    )
    .await
    .unwrap();
}

/// Reads and acknowledges until `count` messages came, and checks that nothing else follows.
pub async fn drain(broker: &Broker, s: &Subscription, count: usize) -> Vec<u64> {
    read(broker, s, count, true).await
}

/// Reads and acknowledges until `count` messages came.
pub async fn take(broker: &Broker, s: &Subscription, count: usize) -> Vec<u64> {
    read(broker, s, count, false).await
}

async fn read(broker: &Broker, s: &Subscription, count: usize, all: bool) -> Vec<u64> {
    let shutdown = CancellationToken::new();
    let view = broker.registry().view(shutdown.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    let mut got = Vec::new();
    let deadline = Instant::now() + SOON;
    while got.len() < count {
        let wait = Duration::from_secs(1);
        let next = readers.next(&s.name, s.incarnation, wait, &shutdown, true).await.unwrap();
        if let Some(message) = next {
            let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            got.push(json["n"].as_u64().unwrap());
        }
        assert!(Instant::now() < deadline, "only {got:?} of {count}");
    }
    if all {
        let soon = Duration::from_millis(100);
        let more = readers.next(&s.name, s.incarnation, soon, &shutdown, true).await.unwrap();
        assert_eq!(more, None, "more than the {count} expected");
    }
    shutdown.cancel();
    got
}

/// Waits until the position is at the end of the log.
pub async fn all_is_done(broker: &Broker) {
    let last = broker.event_log().last_sequence().await.unwrap();
    eventually("the position", SOON, async || broker.position().get().await.unwrap().value, |p| *p >= last)
        .await;
}

/// Waits until a queue holds so many live messages.
pub async fn holds(broker: &Broker, s: &Subscription, count: u64) {
    let queue = broker.queue(&s.name, s.incarnation);
    let what = format!("{count} messages in the queue of {}", s.name);
    eventually(&what, SOON, async || queue.pending().await.unwrap().unwrap().main, |main| *main == count)
        .await;
}
