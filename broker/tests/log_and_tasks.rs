//! The event log, the task queue and the view of the registry on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use broker::{
    LogItem, PublishError, TasksConfig, WriteError,
    testing::{NatsServer, eventually},
};
use bytes::Bytes;
use futures::StreamExt;
use model::{
    Incarnation, PrefillState, RealmTopic, Reason, Subscription, prefill::PrefillTask,
    subscription::Registration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn registered() -> Subscription {
    let registration = Registration {
        request_prefill: true,
        ..Registration::new(
            "mail".parse().unwrap(),
            vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
        )
    };
    let now = "2026-01-01T00:00:00".parse().unwrap();
    Subscription::reserve(registration, Incarnation(Uuid::from_u128(1)), 1, now)
}

fn task(attempt: u32) -> PrefillTask {
    PrefillTask {
        subscription: "mail".parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(1)),
        round: 1,
        attempt,
        realms_topics: vec![],
        selection: None,
        track: false,
        mode: model::prefill::PrefillMode::Prefill,
        max_removals: None,
        dry_run: false,
    }
}

#[tokio::test]
async fn two_replicas_append_and_one_reads_in_order() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (one, two) = (broker.events(), broker.events());
    for n in 0..20u64 {
        let publisher = if n % 3 == 0 { &two } else { &one };
        let seq = publisher.publish(Bytes::from(n.to_string()), Instant::now()).await.unwrap();
        assert_eq!(seq, n + 1);
    }
    let mail = registered();
    assert_eq!(one.marker(&mail).await.unwrap(), 21);
    assert_eq!(one.publish(Bytes::from_static(b"20"), Instant::now()).await.unwrap(), 22);
    let mut log = broker.event_log().follow(1).await.unwrap();
    for n in 0..20u64 {
        let entry = log.next().await.unwrap().unwrap();
        assert_eq!(entry.sequence, n + 1);
        assert!(matches!(entry.item, LogItem::Event(payload) if payload == n.to_string()));
    }
    let marker = log.next().await.unwrap().unwrap();
    assert!(matches!(&marker.item, LogItem::Marker(found) if *found == mail.marker()), "{marker:?}");
    broker.event_log().purge_through(21).await.unwrap();
    let mut log = broker.event_log().follow(1).await.unwrap();
    assert_eq!(log.next().await.unwrap().unwrap().sequence, 22);
}

#[tokio::test]
async fn what_arrived_long_ago_is_refused() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let long_ago = Instant::now() - Duration::from_secs(3);
    let late = broker.events().publish(Bytes::from_static(b"x"), long_ago).await;
    assert!(matches!(late, Err(PublishError::Late)), "{late:?}");
    let huge = broker.events().publish(Bytes::from(vec![b'x'; 8_388_000]), Instant::now()).await;
    assert!(matches!(huge, Err(PublishError::TooLarge { .. })), "{huge:?}");
    assert_eq!(broker.event_log().last_sequence().await.unwrap(), 0);
}

#[tokio::test]
async fn the_position_moves_by_compare_and_set() {
    let server = NatsServer::start().await;
    let position = server.broker().await.position();
    let first = position.get().await.unwrap();
    assert_eq!((first.value, first.revision), (0, 0));
    let revision = position.set(5, 0).await.unwrap();
    assert!(matches!(position.set(4, 0).await, Err(WriteError::Conflict)));
    position.set(6, revision).await.unwrap();
    assert_eq!(position.get().await.unwrap().value, 6);
}

#[tokio::test]
async fn a_task_comes_again_when_its_worker_dies_and_not_while_it_works() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let tasks = broker.tasks();
    let config = TasksConfig { backoff: vec![Duration::from_secs(1), Duration::from_secs(2)] };
    tasks.submit(&task(1)).await.unwrap();
    tasks.submit(&task(1)).await.unwrap();
    assert!(tasks.contains(&task(1)).await.unwrap());
    let wait = Duration::from_secs(5);
    let held = tasks.next(&config, wait).await.unwrap().unwrap();
    assert_eq!((held.request.as_ref().unwrap(), held.tries), (&task(1), 1));
    // Longer than it may be silent, and each time far shorter.
    for _ in 0..5 {
        held.in_progress().await.unwrap();
        assert!(tasks.next(&config, Duration::from_millis(300)).await.unwrap().is_none());
    }
    // Silence: somebody else gets it.
    let again = tasks.next(&config, wait).await.unwrap().unwrap();
    assert_eq!(again.tries, 2);
    again.finish().await.unwrap();
    assert!(!tasks.contains(&task(1)).await.unwrap());
    tasks.submit(&task(2)).await.unwrap();
    tasks.submit(&task(3)).await.unwrap();
    // A request that was slow does not bring the former attempt back.
    tasks.submit(&task(2)).await.unwrap();
    let newest = tasks.next(&config, wait).await.unwrap().unwrap();
    assert_eq!(newest.request.as_ref().unwrap(), &task(3), "an overtaken task is replaced");
    tasks.remove(&task(3).subscription, task(3).incarnation).await.unwrap();
    assert!(!tasks.contains(&task(3)).await.unwrap());
}

#[tokio::test]
async fn the_view_follows_the_registry_over_a_kill_of_the_server() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let shutdown = CancellationToken::new();
    let view = broker.registry().view(shutdown.clone());
    view.synced().await;
    for name in ["one", "two"] {
        let registration = Registration::new(name.parse().unwrap(), vec![]);
        let now = "2026-01-01T00:00:00".parse().unwrap();
        let s = Subscription::reserve(registration, Incarnation(Uuid::new_v4()), 1, now);
        let _created = eventually(
            "the entry",
            Duration::from_secs(20),
            async || broker.registry().create(&s).await,
            |r| r.is_ok() || matches!(r, Err(WriteError::Conflict)),
        )
        .await;
        eventually("the view", Duration::from_secs(20), async || view.get(name), Option::is_some).await;
        server.restart().await;
    }
    assert_eq!(view.all().len(), 2);
    // What is changed by way of it needs no watch to be known.
    shutdown.cancel();
    let one = view.get("one").unwrap();
    let cancel = |s: &Subscription| {
        s.with_prefill_state(PrefillState::Failed, Some(Reason::Cancelled), None, s.created.clone())
    };
    view.modify(&one.value.name, one.value.incarnation, cancel).await.unwrap();
    assert_eq!(view.get("one").unwrap().value.prefill.reason, Some(Reason::Cancelled));
}
