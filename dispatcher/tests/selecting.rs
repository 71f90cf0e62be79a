//! Selections of live events, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::{
    Broker, ReaderConfig, Readers,
    testing::{NatsServer, eventually},
};
use bytes::Bytes;
use dispatcher::Config;
use model::{Selection, Subscription, selection::Properties};
use serde_json::{Value, json};
use support::{
    SOON, all_is_done, at_once, holds, register, register_selecting, start, start_watched, start_with,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn user(mail: Option<&str>, n: u64) -> Value {
    json!({"dn": "uid=a,dc=x", "objectType": "users/user", "properties": {"mail": mail, "n": n, "pw": "h"}})
}

async fn post(broker: &Broker, old: &Value, new: &Value) {
    let event = json!({
        "publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": "users/user",
        "body": {"old": old, "new": new},
    });
    let event = Bytes::from(event.to_string());
    let publisher = broker.events();
    let publish = async || publisher.publish(event.clone(), Instant::now()).await;
    eventually("the event to be accepted", SOON, publish, |r| r.is_ok()).await.unwrap();
}

/// What waits, as (n of old, n of new).
async fn changes(broker: &Broker, s: &Subscription) -> Vec<(Option<u64>, Option<u64>)> {
    all_is_done(broker).await;
    let shutdown = CancellationToken::new();
    let view = broker.registry().view(shutdown.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    let mut got = Vec::new();
    let wait = Duration::from_millis(100);
    while let Some(message) = readers.next(&s.name, s.incarnation, wait, &shutdown, true).await.unwrap() {
        let body = serde_json::from_slice::<Value>(&message.payload).unwrap()["body"].take();
        let of = |side: &str| body[side]["properties"]["n"].as_u64();
        for side in ["old", "new"] {
            assert_eq!(body[side]["properties"].get("pw"), None, "{body}");
        }
        got.push((of("old"), of("new")));
    }
    shutdown.cancel();
    got
}

fn with_mail() -> Selection {
    Selection {
        filter: Some("(mail=*)".to_owned()),
        position: Some("DC=X".to_owned()),
        properties: Some(Properties::Strip(vec!["pw".to_owned()])),
    }
}

/// Made without an address, gets one, keeps it, loses it, gets one again, is deleted; then nothing that is seen.
async fn live(broker: &Broker) {
    let none = json!({});
    let states = [
        none.clone(),
        user(None, 1),
        user(Some("m"), 2),
        user(Some("m"), 3),
        user(None, 4),
        user(Some("m"), 5),
        none,
    ];
    for pair in states.windows(2) {
        post(broker, &pair[0], &pair[1]).await;
    }
    post(broker, &json!({}), &user(None, 7)).await;
}

const SEEN: [(Option<u64>, Option<u64>); 5] =
    [(None, Some(2)), (Some(2), Some(3)), (Some(3), None), (None, Some(5)), (Some(5), None)];

#[tokio::test]
async fn an_object_that_enters_is_new_and_one_that_leaves_is_deleted() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let running = start(&broker);
    let selecting = register_selecting(&broker, "selecting", "users/user", Some(with_mail())).await;
    let all = register(&broker, "all", "users/user").await;
    live(&broker).await;
    assert_eq!(changes(&broker, &selecting).await, SEEN);
    holds(&broker, &all, 7).await;
    // Another dispatcher takes over: it has never seen the marker, and selects all the same.
    drop(running);
    let _running = start(&broker);
    live(&broker).await;
    assert_eq!(changes(&broker, &selecting).await, SEEN);
    holds(&broker, &all, 14).await;
}

#[tokio::test]
async fn a_lane_that_catches_up_selects_as_well() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    // Few live messages, and one entry in memory: it has to read the log itself.
    let mut config = Config { lane_entries_max: 1, ..at_once() };
    config.limits.messages = 3;
    let _running = start_with(&broker, config);
    let selecting = register_selecting(&broker, "selecting", "users/user", Some(with_mail())).await;
    for _ in 0..3 {
        live(&broker).await;
    }
    let shutdown = CancellationToken::new();
    let view = broker.registry().view(shutdown.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    let mut got = Vec::new();
    let deadline = Instant::now() + SOON;
    while got.len() < 15 {
        assert!(Instant::now() < deadline, "{got:?}");
        let wait = Duration::from_secs(1);
        let next = readers.next(&selecting.name, selecting.incarnation, wait, &shutdown, true).await.unwrap();
        let Some(message) = next else { continue };
        let body = serde_json::from_slice::<Value>(&message.payload).unwrap()["body"].take();
        let of = |side: &str| body[side]["properties"]["n"].as_u64();
        got.push((of("old"), of("new")));
    }
    assert_eq!(got, SEEN.repeat(3));
    shutdown.cancel();
}

#[tokio::test]
async fn what_was_looked_at_before_is_not_selected_a_second_time() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let s = register_selecting(&broker, "selecting", "users/user", Some(with_mail())).await;
    post(&broker, &json!({}), &user(None, 1)).await;
    post(&broker, &json!({}), &user(Some("m"), 2)).await;
    let not_selected = "headstart_dispatcher_not_selected_total";
    let keeping = Config { purge_after: SOON * 30, ..at_once() };
    let ((running, guard), figures) = start_watched(&broker, keeping);
    assert_eq!(changes(&broker, &s).await, [(None, Some(2))]);
    assert_eq!(figures.of(not_selected), 1);
    drop(guard);
    running.await.unwrap().unwrap();
    // As after a crash that came before the position was moved.
    let position = broker.position().get().await.unwrap();
    broker.position().set(1, position.revision).await.unwrap();
    post(&broker, &json!({}), &user(Some("m"), 3)).await;
    let (_running, figures) = start_watched(&broker, at_once());
    assert_eq!(changes(&broker, &s).await, [(None, Some(3))]);
    assert_eq!(figures.of(not_selected), 0);
}
