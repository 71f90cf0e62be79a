//! Lanes that can't go on, and the others beside them, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::{
    Broker,
    testing::{NatsServer, eventually},
};
use dispatcher::Config;
use model::{RealmTopic, Subscription, limits::QueueLimits};
use support::{SOON, all_is_done, at_once, drain, holds, post, post_all, register, start, start_with};
use tokio::time::Instant;

/// Lanes with little memory, and queues with room for 300.
fn narrow() -> Config {
    Config {
        lane_entries_max: 50,
        limits: QueueLimits { messages: 300, ..QueueLimits::default() },
        ..at_once()
    }
}

/// A queue of everything that nobody reads, and 400 events for it.
async fn full_queue(broker: &Broker) -> Subscription {
    let slow = register(broker, "slow", "(users|groups)/.*").await;
    post_all(broker, "groups/group", 1..=400).await;
    slow
}

#[tokio::test]
async fn a_full_queue_stops_nobody_and_gets_everything_in_order_once_it_is_read() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let _running = start_with(&broker, narrow());
    let slow = full_queue(&broker).await;
    let quick = register(&broker, "quick", "users/user").await;
    // Twenty times as much as may wait in memory.
    let numbers: Vec<u64> = (401..=1400).collect();
    let posting = post_all(&broker, "users/user", numbers.clone());
    let (got, ()) = tokio::join!(drain(&broker, &quick, 1000), posting);
    assert_eq!(got, numbers);
    holds(&broker, &slow, 300).await;
    // The log keeps what is not copied: no more than the first 300, and the marker before them, may go.
    assert!(broker.position().get().await.unwrap().value <= 301);
    assert_eq!(drain(&broker, &slow, 1400).await, (1..=1400).collect::<Vec<_>>());
    all_is_done(&broker).await;
    // It has joined the others again.
    post(&broker, "users/user", 1401).await;
    assert_eq!(drain(&broker, &slow, 1).await, [1401]);
    assert_eq!(drain(&broker, &quick, 1).await, [1401]);
}

#[tokio::test]
async fn a_lane_that_is_behind_obeys_its_markers_and_survives_kills() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let first = start_with(&broker, narrow());
    let slow = full_queue(&broker).await;
    let topics = [RealmTopic { realm: "udm".into(), topic: "users/user".into() }];
    let changed = |s: &Subscription| s.with_topics(&topics);
    post_all(&broker, "groups/group", 401..=500).await;
    holds(&broker, &slow, 300).await;
    let modified = broker.registry().modify(&slow.name, slow.incarnation, changed).await.unwrap();
    let broker::Modified::Changed(entry) = modified else { panic!("{modified:?}") };
    let marker = broker.events().marker(&entry.value).await.unwrap();
    post_all(&broker, "groups/group", 501..=600).await;
    post_all(&broker, "users/user", 601..=700).await;
    let mut got = drain_some(&broker, &slow, 100).await;
    server.restart().await;
    got.append(&mut drain_some(&broker, &slow, 200).await);
    let rest = async || broker.queue(&slow.name, slow.incarnation).checkpoint().await.unwrap().unwrap().value;
    eventually("the end of the log", SOON, rest, |c| c.incoming_seq > marker + 199).await;
    drop(first);
    let _second = start(&broker);
    all_is_done(&broker).await;
    let left = broker.queue(&slow.name, slow.incarnation).pending().await.unwrap().unwrap().main;
    got.append(&mut drain(&broker, &slow, left as usize).await);
    assert_eq!(got, (1..=500).chain(601..=700).collect::<Vec<_>>());
    let entry = broker.registry().subscription(&slow.name).await.unwrap().unwrap().value;
    assert_eq!(entry.prefill.boundary, Some(marker));
}

/// Reads and acknowledges that many, while NATS may be away for a moment.
async fn drain_some(broker: &Broker, s: &Subscription, count: usize) -> Vec<u64> {
    let shutdown = tokio_util::sync::CancellationToken::new();
    let view = broker.registry().view(shutdown.clone());
    view.synced().await;
    let readers = broker::Readers::new(broker.clone(), view, broker::ReaderConfig::default());
    let mut got = Vec::new();
    let deadline = Instant::now() + SOON;
    while got.len() < count {
        assert!(Instant::now() < deadline, "only {got:?} of {count}");
        let wait = Duration::from_secs(1);
        if let Ok(Some(message)) = readers.next(&s.name, s.incarnation, wait, &shutdown, true).await {
            let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            got.push(json["n"].as_u64().unwrap());
        }
    }
    shutdown.cancel();
    got
}

#[tokio::test]
async fn a_removed_queue_that_was_full_keeps_the_log_no_longer() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let _running = start_with(&broker, narrow());
    let slow = full_queue(&broker).await;
    post_all(&broker, "users/user", 401..=500).await;
    holds(&broker, &slow, 300).await;
    broker.remove_subscription(&slow.name, slow.incarnation).await.unwrap();
    all_is_done(&broker).await;
}

#[tokio::test]
async fn two_busy_dispatchers_copy_each_event_once_and_in_order() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let mut queues = vec![];
    for name in ["a", "b", "c"] {
        queues.push(register(&broker, name, "users/.*").await);
    }
    let (one, two) = (server.broker().await, server.broker().await);
    let _running = [start_with(&one, narrow_lanes()), start_with(&two, narrow_lanes())];
    let mut posting = tokio::task::JoinSet::new();
    for topic in ["users/user", "users/ldap"] {
        let broker = server.broker().await;
        posting.spawn(async move { post_all(&broker, topic, 0..1000).await });
    }
    posting.join_all().await;
    let mut orders = vec![];
    for queue in &queues {
        orders.push(drain(&broker, queue, 2000).await);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "the queues differ");
    let mut numbers = orders.remove(0);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1000).flat_map(|n| [n, n]).collect::<Vec<u64>>());
    all_is_done(&broker).await;
}

/// Lanes with so little memory that they are often waited for.
fn narrow_lanes() -> Config {
    Config { lane_entries_max: 20, ..at_once() }
}

#[tokio::test]
async fn another_dispatcher_goes_on_where_one_was_killed() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let queue = register(&broker, "mail", "users/user").await;
    let mut running = std::collections::VecDeque::new();
    for replicas in [2, 1] {
        while running.len() < replicas {
            let own = server.broker().await;
            running.push_back(start(&own));
        }
        post(&broker, "users/user", 0).await;
        assert_eq!(drain(&broker, &queue, 1).await, [0]);
        running.pop_front().unwrap().0.abort();
        if running.is_empty() {
            let own = server.broker().await;
            running.push_back(start(&own));
        }
        post(&broker, "users/user", 1).await;
        holds(&broker, &queue, 1).await;
        assert_eq!(drain(&broker, &queue, 1).await, [1]);
    }
}

#[tokio::test]
async fn three_hundred_lanes_are_opened_and_have_their_copies() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let mut queues = vec![];
    for n in 0..300 {
        queues.push(register(&broker, &format!("s{n}"), "users/user").await);
    }
    let first = start(&broker);
    post_all(&broker, "users/user", 0..20).await;
    all_is_done(&broker).await;
    drop(first);
    let _second = start(&broker);
    post(&broker, "users/user", 20).await;
    all_is_done(&broker).await;
    for queue in &queues {
        holds(&broker, queue, 21).await;
    }
}
