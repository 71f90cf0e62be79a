//! Copies that wait for consumers that read the event log themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use broker::testing::NatsServer;
use dispatcher::Config;
use model::{PrefillState, RealmTopic, Subscription, SubscriptionName};
use support::{all_is_done, drain, entry, holds, post, post_all, register, start_watched, start_with};

/// Nothing is copied because of the time.
fn patient() -> Config {
    Config { copy_after: Duration::from_secs(600), ..Config::default() }
}

#[tokio::test]
async fn what_is_acknowledged_in_time_is_never_copied() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    // More than half of ten is much, and then it is looked what was acknowledged.
    let (_running, figures) = start_watched(&broker, Config { lane_entries_max: 10, ..patient() });
    let keeps_up = register(&broker, "keeps-up", "users/user").await;
    for n in 1..=60 {
        post(&broker, "users/user", n).await;
        assert_eq!(drain(&broker, &keeps_up, 1).await, [n]);
    }
    let last = broker.event_log().last_sequence().await.unwrap();
    let position = async || broker.position().get().await.unwrap().value;
    broker::testing::eventually("the position", support::SOON, position, |p| *p + 6 >= last).await;
    assert_eq!(figures.of("headstart_dispatcher_copies_total"), 0);
}

#[tokio::test]
async fn what_nobody_acknowledges_is_copied() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let config = Config { copy_after: Duration::from_millis(300), ..Config::default() };
    let _running = start_with(&broker, config);
    let away = register(&broker, "away", "users/user").await;
    post_all(&broker, "users/user", 1..=3).await;
    holds(&broker, &away, 3).await;
    all_is_done(&broker).await;
    assert_eq!(drain(&broker, &away, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn much_that_waits_is_copied_at_once() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let _running = start_with(&broker, Config { lane_entries_max: 10, ..patient() });
    let away = register(&broker, "away", "users/user").await;
    post_all(&broker, "users/user", 1..=6).await;
    holds(&broker, &away, 6).await;
}

#[tokio::test]
async fn nothing_waits_while_a_prefill_is_on_its_way_before_a_marker_or_where_it_is_tracked() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let _running = start_with(&broker, patient());
    let s = register(&broker, "mail", "users/user").await;
    let change = |s: &Subscription| s.with_prefill_again("2026-01-01T00:00:00".parse().unwrap());
    broker.registry().modify(&s.name, s.incarnation, change).await.unwrap();
    let s = entry(&broker, &s).await;
    broker.events().marker(&s).await.unwrap();
    post(&broker, "users/user", 1).await;
    holds(&broker, &s, 1).await;
    let at = || "2026-01-01T00:00:00".parse().unwrap();
    for state in [PrefillState::Running, PrefillState::Done] {
        let change = |s: &Subscription| s.with_prefill_state(state, None, None, at());
        broker.registry().modify(&s.name, s.incarnation, change).await.unwrap();
    }
    // It takes a second until the dispatcher asks again, and then what comes waits: for its consumer, or for a marker.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    post(&broker, "users/user", 2).await;
    let topics = [RealmTopic { realm: "udm".into(), topic: "groups/group".into() }];
    broker.registry().modify(&s.name, s.incarnation, |s| s.with_topics(&topics)).await.unwrap();
    broker.events().marker(&entry(&broker, &s).await).await.unwrap();
    holds(&broker, &s, 2).await;

    let tracked =
        support::register_with(&broker, "tracked", "users/user", |registration| registration.track = true);
    let tracked = tracked.await;
    post(&broker, "users/user", 3).await;
    holds(&broker, &tracked, 1).await;
}

/// Copies of queues that nobody reads that have begun, and whether the first of them may go on.
static BEGUN: AtomicU32 = AtomicU32::new(0);
static MAY_GO_ON: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn queues_that_nobody_reads_are_copied_one_after_the_other_and_hold_up_nobody() {
    fn first_waits(name: &SubscriptionName) {
        let first = name.as_str().starts_with("away") && BEGUN.fetch_add(1, Ordering::SeqCst) == 0;
        for _ in 0..6_000 {
            if !first || MAY_GO_ON.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let config = Config {
        copy_after: Duration::from_millis(200),
        lane_entries_max: 10,
        before_copy: Some(first_waits),
        ..Config::default()
    };
    let (_running, figures) = start_watched(&broker, config);
    let mut away = vec![];
    for n in 0..4 {
        away.push(register(&broker, &format!("away{n}"), "users/user").await);
    }
    let tracked =
        support::register_with(&broker, "tracked", "users/user", |registration| registration.track = true);
    let tracked = tracked.await;
    post_all(&broker, "users/user", 1..=100).await;
    // A consumer that reads copies only has them, and a new subscription takes effect.
    assert_eq!(drain(&broker, &tracked, 100).await, (1..=100).collect::<Vec<_>>());
    let later = register(&broker, "later", "users/user").await;
    let boundaries = async |of: &[Subscription]| {
        let mut count = 0;
        for s in of {
            count += usize::from(entry(&broker, s).await.prefill.boundary.is_some());
        }
        count
    };
    let with_boundary = async |of: &[Subscription], wanted: usize| {
        let look = async || boundaries(of).await;
        broker::testing::eventually("boundaries", support::SOON, look, |seen| *seen == wanted).await;
    };
    with_boundary(&[later], 1).await;
    let begun = async || BEGUN.load(Ordering::SeqCst);
    broker::testing::eventually("a copy", support::SOON, begun, |begun| *begun == 1).await;
    // A new prefill needs what comes before it, so these lanes do not wait for their turn.
    let change = |s: &Subscription| s.with_prefill_again("2026-01-01T00:00:00".parse().unwrap());
    for s in &away {
        broker.registry().modify(&s.name, s.incarnation, change).await.unwrap();
        broker.events().marker(&entry(&broker, s).await).await.unwrap();
    }
    // One of them has its turn, and is stopped there.
    with_boundary(&away, 3).await;
    MAY_GO_ON.store(true, Ordering::SeqCst);
    with_boundary(&away, 4).await;
    for s in &away {
        holds(&broker, s, 100).await;
    }
    figures.reach("headstart_dispatcher_lanes_catching_up", 0).await;
    all_is_done(&broker).await;
}
