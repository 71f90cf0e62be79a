//! The dispatcher on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use broker::{
    Broker, LargeEvent, Modified,
    testing::{LossyProxy, NatsServer, eventually},
};
use bytes::Bytes;
use dispatcher::Config;
use model::{RealmTopic, Subscription};
use support::{SOON, all_is_done, at_once, drain, holds, post, register, start, start_with};
use tokio::time::Instant;

#[tokio::test]
async fn events_after_the_marker_are_copied_in_order_to_whom_asked() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    post(&broker, "users/user", 0).await;
    let users = register(&broker, "users", "users/user").await;
    let all = register(&broker, "all", "(users|groups)/.*").await;
    for n in 1..=30 {
        post(&broker, if n % 3 == 0 { "groups/group" } else { "users/user" }, n).await;
    }
    let late = register(&broker, "late", "users/user").await;
    post(&broker, "users/user", 31).await;
    post(&broker, "computers/linux", 32).await;
    let _running = start(&broker);
    assert_eq!(drain(&broker, &users, 21).await, (1..=31).filter(|n| n % 3 != 0).collect::<Vec<_>>());
    assert_eq!(drain(&broker, &all, 31).await, (1..=31).collect::<Vec<_>>());
    assert_eq!(drain(&broker, &late, 1).await, [31]);
    let last = broker.event_log().last_sequence().await.unwrap();
    eventually("the position", SOON, async || broker.position().get().await.unwrap().value, |p| *p == last)
        .await;
    let entry = broker.registry().subscription(&users.name).await.unwrap().unwrap();
    assert_eq!(entry.value.prefill.boundary, Some(2));
}

#[tokio::test]
async fn two_dispatchers_and_a_killed_server_copy_each_event_once_and_in_order() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let one = register(&broker, "one", "users/user").await;
    let two = register(&broker, "two", ".*").await;
    let mut running: Vec<_> = (0..2).map(|_| start(&broker)).collect();
    for n in 0..300 {
        post(&broker, "users/user", n).await;
        if n == 100 {
            server.restart().await;
        }
        if n == 200 {
            // One goes away without a word, another comes.
            running.remove(0).0.abort();
            running.push(start(&broker));
        }
    }
    let expected: Vec<u64> = (0..300).collect();
    assert_eq!(drain(&broker, &one, 300).await, expected);
    assert_eq!(drain(&broker, &two, 300).await, expected);
}

#[tokio::test]
async fn a_removed_subscription_stops_nobody_and_its_name_begins_anew() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let _running = start(&broker);
    let gone = register(&broker, "gone", "users/user").await;
    let stays = register(&broker, "stays", "users/user").await;
    post(&broker, "users/user", 1).await;
    broker.remove_subscription(&gone.name, gone.incarnation).await.unwrap();
    post(&broker, "users/user", 2).await;
    let again = register(&broker, "gone", "users/user").await;
    post(&broker, "users/user", 3).await;
    assert_eq!(drain(&broker, &stays, 3).await, [1, 2, 3]);
    assert_eq!(drain(&broker, &again, 1).await, [3]);
}

#[tokio::test]
async fn a_log_that_ends_before_the_position_is_refused() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    broker.position().set(7, 0).await.unwrap();
    let (running, _guard) = start(&broker);
    let ended = tokio::time::timeout(SOON, running).await.unwrap().unwrap();
    assert!(matches!(ended, Err(dispatcher::Error::Behind { last: 0, position: 7 })), "{ended:?}");
}

#[tokio::test]
async fn lost_entries_are_refused() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    for n in 0..5 {
        post(&broker, "users/user", n).await;
    }
    // Purged, although nobody has moved the position so far.
    broker.position().set(1, 0).await.unwrap();
    broker.event_log().purge_through(3).await.unwrap();
    let (running, _guard) = start(&broker);
    let ended = tokio::time::timeout(SOON, running).await.unwrap().unwrap();
    assert!(matches!(ended, Err(dispatcher::Error::Hole { from: 2, to: 3 })), "{ended:?}");
}

#[tokio::test]
async fn an_event_that_nats_does_not_carry_any_more_stops_nobody_and_can_be_sent_again() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let s = register(&broker, "mail", "users/user").await;
    post(&broker, "users/user", 1).await;
    let huge = format!(r#"{{"realm":"udm","topic":"users/user","n":2,"x":"{}"}}"#, "x".repeat(2 << 20));
    broker.events().publish(Bytes::from(huge.clone()), Instant::now()).await.unwrap();
    post(&broker, "users/user", 3).await;
    server.restart_with("1MB", "").await;
    let broker = server.broker().await;
    let keeping = Config { purge_after: SOON * 30, ..at_once() };
    let (running, guard) = start_with(&broker, keeping);
    assert_eq!(drain(&broker, &s, 2).await, [1, 3]);
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.letter.topic.as_str(), letter.letter.size), ("users/user", huge.len() as u64));
    drop(guard);
    running.await.unwrap().unwrap();
    // As after a crash that came before the position was moved: what is in the queue, or was set aside, is no news.
    let position = broker.position().get().await.unwrap();
    broker.position().set(1, position.revision).await.unwrap();
    post(&broker, "users/user", 4).await;
    let (running, guard) = start(&broker);
    assert_eq!(drain(&broker, &s, 1).await, [4]);
    assert_eq!(broker.dead_letters().list(&s, 0, 10).await.unwrap().len(), 1);
    drop(guard);
    running.await.unwrap().unwrap();
    server.restart_with("8MB", "").await;
    let broker = server.broker().await;
    let message = broker.dead_letters().message(letter).await.unwrap().unwrap();
    assert_eq!(message, huge.as_bytes());
    broker.redeliver(&s.name, letter, message).await.unwrap();
    assert!(broker.dead_letters().list(&s, 0, 10).await.unwrap().is_empty());
    let (_running, _guard) = start(&broker);
    let done = |s: &model::Subscription| s.with_boundary(s.incarnation, 0, 1);
    broker.registry().modify(&s.name, s.incarnation, done).await.unwrap();
    assert_eq!(drain(&broker, &s, 1).await, [2]);
}

#[tokio::test]
async fn an_event_that_was_set_aside_and_settled_is_not_set_aside_again() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let s = register(&broker, "mail", "users/user").await;
    let huge = format!(r#"{{"realm":"udm","topic":"users/user","x":"{}"}}"#, "x".repeat(2 << 20));
    broker.events().publish(Bytes::from(huge), Instant::now()).await.unwrap();
    let (realm, topic) = ("udm".to_owned(), "users/user".to_owned());
    let larger = LargeEvent { realm, topic, dn: None, size: 9 << 20, limit: 8 << 20 };
    broker.events().publish_notice(&larger, Instant::now()).await.unwrap();
    post(&broker, "users/user", 1).await;
    server.restart_with("1MB", "").await;
    let broker = server.broker().await;
    let keeping = Config { purge_after: SOON * 30, ..at_once() };
    let (running, guard) = start_with(&broker, keeping);
    assert_eq!(drain(&broker, &s, 1).await, [1]);
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    for letter in &letters {
        broker.dead_letters().remove(letter).await.unwrap();
    }
    drop(guard);
    running.await.unwrap().unwrap();
    // As after a crash that came before the position was moved.
    let position = broker.position().get().await.unwrap();
    broker.position().set(1, position.revision).await.unwrap();
    post(&broker, "users/user", 2).await;
    let _running = start(&broker);
    assert_eq!(drain(&broker, &s, 1).await, [2]);
    assert!(broker.dead_letters().list(&s, 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn other_topics_count_from_their_marker_on_whenever_it_is_read() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let mail = register(&broker, "mail", "users/user").await;
    let first = start(&broker);
    all_is_done(&broker).await;
    drop(first);
    // Nobody dispatches. What was accepted before the change is still promised, whatever the entry says by now.
    post(&broker, "users/user", 1).await;
    let topics = |topic: &str| [RealmTopic { realm: "udm".into(), topic: topic.into() }];
    let (mut changed, mut marker) = (mail.clone(), 0);
    for (topic, number) in [("groups/group", 2), ("shares/.*", 4)] {
        let next = |s: &Subscription| s.with_topics(&topics(topic));
        let Modified::Changed(entry) =
            broker.registry().modify(&mail.name, mail.incarnation, next).await.unwrap()
        else {
            panic!("not changed")
        };
        changed = entry.value;
        marker = broker.events().marker(&changed).await.unwrap();
        post(&broker, "users/user", 90).await;
        post(&broker, &topic.replace(".*", "x"), number).await;
        // Sent again by a sweep that slept.
        broker.events().marker(&mail).await.unwrap();
        post(&broker, &topic.replace(".*", "x"), number + 1).await;
    }
    // Two at once, of which each may find what the other has written.
    let _others = [start(&broker), start(&broker)];
    assert_eq!(drain(&broker, &changed, 5).await, [1, 2, 3, 4, 5]);
    let boundary =
        async || broker.registry().subscription(&mail.name).await.unwrap().unwrap().value.prefill.boundary;
    // That of the topics that hold now, and not of an earlier marker.
    assert_eq!(eventually("the boundary", SOON, boundary, Option::is_some).await, Some(marker));
}

/// Dispatching begins with several looks at NATS. Between any two of them a subscription may be registered, and another
/// dispatcher may pass its marker.
#[tokio::test]
async fn a_subscription_that_is_registered_while_a_dispatcher_begins_has_its_events() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let proxy = LossyProxy::before(&server).await;
    for requests in 1..=8 {
        let slow = Broker::connect(&proxy.config("test")).await.unwrap();
        proxy.hold_after_requests(requests);
        let (begins, _shutdown) = start(&slow);
        proxy.holds().await;
        let s = register(&broker, &format!("mail-{requests}"), "users/user").await;
        let (other, shutdown) = start(&broker);
        all_is_done(&broker).await;
        drop(shutdown);
        other.await.unwrap().unwrap();
        proxy.release_requests();
        post(&broker, "users/user", requests.into()).await;
        holds(&broker, &s, 1).await;
        assert!(!begins.is_finished());
    }
}
