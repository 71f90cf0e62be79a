//! What is damaged, missing or not ours, and the others beside it, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use broker::{
    Broker, ReadError, ReaderConfig, Readers,
    testing::{NatsServer, eventually, lose_queue, publish_raw},
};
use dispatcher::Config;
use model::{Subscription, SubscriptionName};
use support::{
    SOON, all_is_done, at_once, drain, entry, holds, post, post_all, register, start_watched, start_with,
    take,
};
use tokio_util::sync::CancellationToken;

fn hasty() -> Config {
    Config { lost_after: Duration::from_millis(300), ..at_once() }
}

fn patient() -> Config {
    Config { lost_after: Duration::from_secs(600), ..at_once() }
}

/// Where the server keeps a queue, and where it does not find it.
fn folders(server: &NatsServer, s: &Subscription) -> (PathBuf, PathBuf) {
    let streams = server.storage().join("$G/streams");
    let name = format!("stream:{}:{}", s.name, s.incarnation.short());
    (streams.join(&name), server.storage().join("away"))
}

async fn is_broken(broker: &Broker, s: &Subscription) -> bool {
    let shutdown = CancellationToken::new();
    let view = broker.registry().view(shutdown.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    let next = readers.next(&s.name, s.incarnation, Duration::from_millis(100), &shutdown, false).await;
    shutdown.cancel();
    matches!(next, Err(ReadError::Broken))
}

async fn lost_from(broker: &Broker, s: &Subscription) -> u64 {
    let lost = async || entry(broker, s).await.lost;
    eventually("the loss to be recorded", SOON, lost, Option::is_some).await.unwrap().incoming_seq
}

#[tokio::test]
async fn a_queue_that_is_not_found_is_broken_from_then_on_also_when_it_comes_back() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let running = start_with(&broker, hasty());
    let (hurt, whole) = (register(&broker, "hurt", ".*").await, register(&broker, "whole", ".*").await);
    post(&broker, "users/user", 1).await;
    all_is_done(&broker).await;
    drop(running);
    let (folder, away) = folders(&server, &hurt);
    server.kill();
    std::fs::rename(&folder, &away).unwrap();
    server.restart().await;
    let broker = server.broker().await;
    let (_running, figures) = start_watched(&broker, hasty());
    post(&broker, "users/user", 2).await;
    let last = broker.event_log().last_sequence().await.unwrap();
    assert_eq!(lost_from(&broker, &hurt).await, last);
    assert_eq!(drain(&broker, &whole, 2).await, [1, 2]);
    all_is_done(&broker).await;
    assert_eq!(figures.of("headstart_dispatcher_queues_lost_total"), 1);
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"missing\"}", 0).await;
    figures.reach("headstart_dispatcher_lanes", 1).await;
    server.kill();
    std::fs::rename(&away, &folder).unwrap();
    server.restart().await;
    post(&broker, "users/user", 3).await;
    assert_eq!(drain(&broker, &whole, 1).await, [3]);
    assert!(is_broken(&broker, &hurt).await, "it has a hole");
    assert_eq!(broker.queue(&hurt.name, hurt.incarnation).pending().await.unwrap().unwrap().main, 1);
}

#[tokio::test]
async fn a_queue_that_comes_back_in_time_gets_everything() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let (_running, figures) = start_watched(&broker, patient());
    let (hurt, whole) = (register(&broker, "hurt", ".*").await, register(&broker, "whole", ".*").await);
    post(&broker, "users/user", 1).await;
    all_is_done(&broker).await;
    let (folder, away) = folders(&server, &hurt);
    server.kill();
    std::fs::rename(&folder, &away).unwrap();
    server.restart().await;
    post_all(&broker, "users/user", 2..=20).await;
    assert_eq!(drain(&broker, &whole, 20).await, (1..=20).collect::<Vec<_>>());
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"missing\"}", 1).await;
    server.kill();
    std::fs::rename(&away, &folder).unwrap();
    server.restart().await;
    assert_eq!(drain(&broker, &hurt, 20).await, (1..=20).collect::<Vec<_>>());
    all_is_done(&broker).await;
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"missing\"}", 0).await;
    assert_eq!(entry(&broker, &hurt).await.lost, None);
}

#[tokio::test]
async fn a_stream_that_vanishes_under_a_working_lane_is_recorded_before_the_log_lets_it_go() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let _running = start_with(&broker, hasty());
    let (hurt, whole) = (register(&broker, "hurt", ".*").await, register(&broker, "whole", ".*").await);
    post(&broker, "users/user", 1).await;
    all_is_done(&broker).await;
    lose_queue(&broker.queue(&hurt.name, hurt.incarnation)).await;
    post_all(&broker, "users/user", 2..=9).await;
    let last = broker.event_log().last_sequence().await.unwrap();
    assert_eq!(drain(&broker, &whole, 9).await, (1..=9).collect::<Vec<_>>());
    let missed = lost_from(&broker, &hurt).await;
    assert_eq!(missed, last - 7);
    assert!(is_broken(&broker, &hurt).await);
    all_is_done(&broker).await;
    // Removed and registered again it is whole.
    broker.remove_subscription(&hurt.name, hurt.incarnation).await.unwrap();
    let again = register(&broker, "hurt", ".*").await;
    post(&broker, "users/user", 10).await;
    assert_eq!(drain(&broker, &again, 1).await, [10]);
}

#[tokio::test]
async fn a_checkpoint_that_can_not_be_read_holds_the_log_and_stops_nobody_else() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let running = start_with(&broker, at_once());
    let (hurt, whole) = (register(&broker, "hurt", ".*").await, register(&broker, "whole", ".*").await);
    post(&broker, "users/user", 1).await;
    all_is_done(&broker).await;
    drop(running);
    let queue = broker.queue(&hurt.name, hurt.incarnation);
    let checkpoint = queue.checkpoint().await.unwrap().unwrap();
    publish_raw(&broker, "hurt.copied", r#"{"by": "a newer version"}"#).await;
    let (_running, figures) = start_watched(&broker, at_once());
    post_all(&broker, "users/user", 2..=9).await;
    assert_eq!(drain(&broker, &whole, 9).await, (1..=9).collect::<Vec<_>>());
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"unreadable\"}", 1).await;
    assert_eq!(figures.metrics.stopped(), None, "dispatching runs");
    let position = broker.position().get().await.unwrap().value;
    assert_eq!(position, checkpoint.value.incoming_seq);
    let last = broker.event_log().last_sequence().await.unwrap();
    figures.reach("headstart_log_last", last).await;
    publish_raw(&broker, "hurt.copied", serde_json::to_vec(&checkpoint.value).unwrap()).await;
    assert_eq!(drain(&broker, &hurt, 9).await, (1..=9).collect::<Vec<_>>());
    all_is_done(&broker).await;
}

#[tokio::test]
async fn a_marker_that_can_not_be_read_holds_what_follows_for_its_subscription_alone() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let running = start_watched(&broker, at_once());
    let (held, whole) = (register(&broker, "held", ".*").await, register(&broker, "whole", ".*").await);
    post(&broker, "users/user", 1).await;
    publish_raw(&broker, "incoming.marker", "no JSON at all").await;
    let newer = format!(r#"{{"subscription": "held", "incarnation": "{}", "new": 1}}"#, held.incarnation);
    publish_raw(&broker, "incoming.marker", newer.clone()).await;
    let marker = broker.event_log().last_sequence().await.unwrap();
    post_all(&broker, "users/user", 2..=9).await;
    assert_eq!(drain(&broker, &whole, 9).await, (1..=9).collect::<Vec<_>>());
    assert_eq!(drain(&broker, &held, 1).await, [1]);
    let waits = "headstart_dispatcher_lanes_waiting{reason=\"unreadable\"}";
    running.1.reach(waits, 1).await;
    drop(running);
    // The next one holds it, too.
    let (_running, figures) = start_watched(&broker, at_once());
    figures.reach(waits, 1).await;
    eventually(
        "the position before the marker",
        SOON,
        async || broker.position().get().await.unwrap().value,
        |p| *p == marker - 1,
    )
    .await;
    broker.remove_subscription(&held.name, held.incarnation).await.unwrap();
    all_is_done(&broker).await;
    figures.reach(waits, 0).await;
}

#[tokio::test]
async fn an_entry_that_can_not_be_read_holds_the_log_if_it_has_a_queue() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let running = start_with(&broker, at_once());
    let (newer, whole) = (register(&broker, "newer", ".*").await, register(&broker, "whole", ".*").await);
    all_is_done(&broker).await;
    drop(running);
    let readable = entry(&broker, &newer).await;
    for (key, value) in [
        ("newer", r#"{"kind": "subscription", "name": "newer", "of": "a newer version"}"#),
        ("foreign", r#"{"name": "foreign", "realms_topics": []}"#),
        ("deleted", ""),
        ("not/a/name", "{}"),
    ] {
        publish_raw(&broker, &format!("$KV.SUBSCRIPTIONS.{key}"), value).await;
    }
    let (_running, figures) = start_watched(&broker, at_once());
    let before = broker.position().get().await.unwrap().value;
    post_all(&broker, "users/user", 1..=9).await;
    assert_eq!(drain(&broker, &whole, 9).await, (1..=9).collect::<Vec<_>>());
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"unreadable\"}", 1).await;
    assert_eq!(broker.position().get().await.unwrap().value, before);
    // The version that can read it.
    let value = serde_json::to_vec(&model::Entry::Subscription(readable)).unwrap();
    publish_raw(&broker, "$KV.SUBSCRIPTIONS.newer", value).await;
    assert_eq!(drain(&broker, &newer, 9).await, (1..=9).collect::<Vec<_>>());
    all_is_done(&broker).await;
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"unreadable\"}", 0).await;
}

static FAULTY: AtomicBool = AtomicBool::new(true);

#[tokio::test]
async fn a_fault_in_one_lane_stops_no_other_and_is_tried_again() {
    fn fault(name: &SubscriptionName) {
        assert!(name.as_str() != "hurt" || !FAULTY.load(Ordering::SeqCst), "as a test wants it");
    }
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let config = Config { before_copy: Some(fault), ..at_once() };
    let (_running, figures) = start_watched(&broker, config);
    let (hurt, whole) = (register(&broker, "hurt", ".*").await, register(&broker, "whole", ".*").await);
    post_all(&broker, "users/user", 1..=9).await;
    assert_eq!(drain(&broker, &whole, 9).await, (1..=9).collect::<Vec<_>>());
    figures.reach("headstart_dispatcher_lanes_waiting{reason=\"panic\"}", 1).await;
    assert!(figures.of("headstart_dispatcher_panics_total") > 0);
    FAULTY.store(false, Ordering::SeqCst);
    post_all(&broker, "users/user", 10..=19).await;
    assert_eq!(drain(&broker, &hurt, 19).await, (1..=19).collect::<Vec<_>>());
    all_is_done(&broker).await;
}

#[tokio::test]
async fn figures_say_what_waits_and_how_far_dispatching_is() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let limits = model::limits::QueueLimits { messages: 10, ..model::limits::QueueLimits::default() };
    let config = Config { lane_entries_max: 5, limits, ..at_once() };
    let (running, figures) = start_watched(&broker, config);
    figures.reach("headstart_dispatcher_running", 1).await;
    let full = register(&broker, "full", "users/user").await;
    post_all(&broker, "users/user", 1..=100).await;
    holds(&broker, &full, 10).await;
    let last = broker.event_log().last_sequence().await.unwrap();
    for (name, value) in [
        ("headstart_dispatcher_lanes", 1),
        ("headstart_dispatcher_lanes_waiting{reason=\"messages\"}", 1),
        ("headstart_dispatcher_read", last),
        ("headstart_log_last", last),
        ("headstart_dispatcher_copies_total", 10),
    ] {
        figures.reach(name, value).await;
    }
    let position = figures.of("headstart_dispatcher_position");
    assert!(position <= last - 90, "{position} of {last}");
    // It holds nothing in memory meanwhile, and reads the rest from the log.
    figures.reach("headstart_dispatcher_lanes_catching_up", 1).await;
    assert_eq!(take(&broker, &full, 30).await, (1..=30).collect::<Vec<_>>());
    assert_eq!(drain(&broker, &full, 70).await, (31..=100).collect::<Vec<_>>());
    for (name, value) in [
        ("headstart_dispatcher_lanes_waiting{reason=\"messages\"}", 0),
        ("headstart_dispatcher_lanes_catching_up", 0),
        ("headstart_dispatcher_position", last),
        ("headstart_dispatcher_dead_letters_total", 0),
        ("headstart_dispatcher_not_selected_total", 0),
        ("headstart_dispatcher_queues_given_up_total", 0),
        ("headstart_dispatcher_messages_swept_total", 0),
        ("headstart_dispatcher_panics_total", 0),
    ] {
        figures.reach(name, value).await;
    }
    // Those that were read from the log meanwhile need none: where the consumer is fast, all but the first.
    let copies = figures.of("headstart_dispatcher_copies_total");
    assert!((10..=100).contains(&copies), "{copies}");
    drop(running);
}
