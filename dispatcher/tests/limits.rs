//! Limits of queues and of the event log, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::{
    Broker, PublishError, ReadError, ReaderConfig, Readers, StreamLimits,
    testing::{NatsServer, eventually, publish_raw},
};
use bytes::Bytes;
use dispatcher::Config;
use model::{
    Entry, Subscription,
    limits::{GivenUp, Limit, QueueLimits, WhenFull},
};
use support::{
    SOON, all_is_done, at_once, drain, holds, post, post_all, register, start_watched, start_with,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn limited(limits: QueueLimits) -> Config {
    Config { lane_entries_max: 50, limits, ..at_once() }
}

fn give_up(messages: u64) -> QueueLimits {
    QueueLimits { messages, when_full: WhenFull::GiveUp, ..QueueLimits::default() }
}

async fn given_up(broker: &Broker, s: &Subscription) -> GivenUp {
    let entry = async || broker.registry().subscription(&s.name).await.unwrap().unwrap().value.given_up;
    eventually("the queue to be given up", SOON, entry, Option::is_some).await.unwrap()
}

async fn next(broker: &Broker, s: &Subscription) -> Result<bool, ReadError> {
    let shutdown = CancellationToken::new();
    let view = broker.registry().view(shutdown.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    let next = readers.next(&s.name, s.incarnation, Duration::from_millis(100), &shutdown, false).await;
    shutdown.cancel();
    next.map(|message| message.is_some())
}

#[tokio::test]
async fn a_full_queue_is_given_up_where_the_operator_wants_it() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let _running = start_with(&broker, limited(give_up(100)));
    let dead = register(&broker, "dead", "groups/group").await;
    let reads = register(&broker, "reads", "users/user").await;
    post_all(&broker, "users/user", 1..=50).await;
    assert!(next(&broker, &dead).await.is_ok());
    post_all(&broker, "groups/group", 51..=200).await;
    let GivenUp { limit, live, prefill, .. } = given_up(&broker, &dead).await;
    assert_eq!((limit, live, prefill), (Limit::Messages, 100, 0));
    let queue = broker.queue(&dead.name, dead.incarnation);
    eventually("the stream to be deleted", SOON, async || queue.exists().await.unwrap(), |exists| !exists)
        .await;
    assert!(matches!(next(&broker, &dead).await, Err(ReadError::GivenUp)));
    // It holds the log no longer, and the others are untouched.
    all_is_done(&broker).await;
    assert_eq!(drain(&broker, &reads, 50).await, (1..=50).collect::<Vec<_>>());
    // Its numbers are not used again.
    let last_used = dead.first_sequence + 100;
    broker.remove_subscription(&dead.name, dead.incarnation).await.unwrap();
    let again = register(&broker, "dead", "groups/group").await;
    assert!(again.first_sequence > last_used, "{again:?}");
    post(&broker, "groups/group", 201).await;
    assert_eq!(drain(&broker, &again, 1).await, [201]);
}

#[tokio::test]
async fn giving_up_is_finished_by_the_next_dispatcher() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let first = start_with(&broker, limited(QueueLimits::default()));
    let dead = register(&broker, "dead", "groups/group").await;
    post_all(&broker, "groups/group", 1..=10).await;
    holds(&broker, &dead, 10).await;
    drop(first);
    // A dispatcher died between the entry and the stream.
    let at = "2026-01-01T00:00:00".parse().unwrap();
    let recorded = GivenUp { at, limit: Limit::Bytes, live: 10, prefill: 0 };
    let record = |s: &Subscription| s.with_given_up(&recorded, Some(5_000));
    broker.registry().modify(&dead.name, dead.incarnation, record).await.unwrap();
    assert!(matches!(next(&broker, &dead).await, Err(ReadError::GivenUp)));
    let _second = start_with(&broker, limited(QueueLimits::default()));
    let queue = broker.queue(&dead.name, dead.incarnation);
    eventually("the stream to be deleted", SOON, async || queue.exists().await.unwrap(), |exists| !exists)
        .await;
    assert_eq!(given_up(&broker, &dead).await, recorded);
    all_is_done(&broker).await;
    broker.remove_subscription(&dead.name, dead.incarnation).await.unwrap();
    let entry = broker.registry().get(&dead.name).await.unwrap().unwrap().value;
    assert!(matches!(entry, Entry::Tombstone(t) if t.next_sequence >= 5_000), "{entry:?}");
}

#[tokio::test]
async fn a_limit_of_bytes_makes_events_wait() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let limits = QueueLimits { bytes: Some(50_000), ..QueueLimits::default() };
    let _running = start_with(&broker, limited(limits));
    let s = register(&broker, "mail", "users/user").await;
    post_all(&broker, "users/user", 1..=1000).await;
    let queue = broker.queue(&s.name, s.incarnation);
    let bytes = async || queue.pending().await.unwrap().unwrap().bytes;
    // Whoever writes a little at a time passes the limit by less than a message.
    let near = |bytes: &u64| (40_000..55_000).contains(bytes);
    eventually("the limit to be reached", SOON, bytes, near).await;
    assert_eq!(drain(&broker, &s, 1000).await, (1..=1000).collect::<Vec<_>>());
    all_is_done(&broker).await;
}

#[tokio::test]
async fn a_limit_that_was_raised_holds_for_queues_that_exist_and_a_lower_one_removes_nothing() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let with = |queue_messages| StreamLimits { queue_messages, ..StreamLimits::default() };
    let s = register(&broker.clone().with_limits(with(10)), "mail", "users/user").await;
    let of = |messages| limited(QueueLimits { messages, ..QueueLimits::default() });
    let first = start_with(&broker, of(20));
    post_all(&broker, "users/user", 1..=100).await;
    // What the stream was made for.
    holds(&broker, &s, 10).await;
    broker.clone().with_limits(with(20)).raise_queue_limits().await.unwrap();
    holds(&broker, &s, 20).await;
    drop(first);
    broker.clone().with_limits(with(5)).raise_queue_limits().await.unwrap();
    let _second = start_with(&broker, of(5));
    assert_eq!(drain(&broker, &s, 100).await, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_others_have_put_into_a_queue_is_seen_when_nats_refuses_a_copy() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let small = broker.clone().with_limits(StreamLimits { queue_messages: 10, ..StreamLimits::default() });
    let s = register(&small, "mail", "users/user").await;
    let limits = QueueLimits { messages: 10, ..QueueLimits::default() };
    let (_running, figures) = start_watched(&broker, limited(limits));
    post_all(&broker, "users/user", 1..=5).await;
    holds(&broker, &s, 5).await;
    // Such as dead letters that are sent again.
    for _ in 6..=10 {
        publish_raw(&broker, "mail.main", "{}").await;
    }
    post(&broker, "users/user", 11).await;
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"messages\"}", 1).await;
}

#[tokio::test]
async fn old_messages_are_swept_and_counted() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let limits = QueueLimits { age: Some(Duration::from_secs(2)), ..QueueLimits::default() };
    let running = start_with(&broker, limited(QueueLimits::default()));
    let s = register(&broker, "mail", "users/user").await;
    post_all(&broker, "users/user", 1..=30).await;
    holds(&broker, &s, 30).await;
    drop(running);
    let running = start_with(&broker, limited(limits));
    let swept = async || broker.registry().subscription(&s.name).await.unwrap().unwrap().value.swept;
    eventually("old messages to be swept", SOON, swept, |swept| *swept == 30).await;
    holds(&broker, &s, 0).await;
    drop(running);
    let _running = start_with(&broker, limited(QueueLimits::default()));
    post(&broker, "users/user", 31).await;
    assert_eq!(drain(&broker, &s, 1).await, [31]);
    let checkpoint = broker.queue(&s.name, s.incarnation).checkpoint().await.unwrap();
    assert!(checkpoint.is_some(), "only live messages are swept");
}

#[tokio::test]
async fn a_full_log_refuses_events_until_there_is_room_again() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let s = register(&broker, "mail", "users/user").await;
    let log_bytes = |log_bytes| StreamLimits { log_bytes, ..StreamLimits::default() };
    broker.clone().with_limits(log_bytes(Some(20_000))).create_layout().await.unwrap();
    let publisher = broker.events();
    let event = Bytes::from_static(br#"{"realm":"udm","topic":"users/user","n":1}"#);
    let mut accepted = 0;
    let refusal = loop {
        match publisher.publish(event.clone(), Instant::now()).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1000, "the log has no limit");
    };
    assert!(matches!(refusal, PublishError::Full), "{refusal}");
    // Without a limit again.
    broker.clone().with_limits(log_bytes(None)).create_layout().await.unwrap();
    publisher.publish(event.clone(), Instant::now()).await.unwrap();
    broker.clone().with_limits(log_bytes(Some(20_000))).create_layout().await.unwrap();
    let _running = start_with(&broker, limited(QueueLimits::default()));
    drain(&broker, &s, accepted + 1).await;
    post(&broker, "users/user", 2).await;
    assert_eq!(drain(&broker, &s, 1).await, [2]);
}
