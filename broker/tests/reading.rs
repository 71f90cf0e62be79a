//! Reading queues on a real nats-server: gates, long polls, redelivery, acknowledgement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use broker::{
    Broker, Claimed, Copier, Copy, Delivered, Queue, ReadError, ReaderConfig, Readers,
    testing::{NatsServer, eventually},
};
use bytes::Bytes;
use model::{
    Counts, Incarnation, Lifecycle, PrefillState, RealmTopic, Registration, Subscription, Timestamp,
};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

struct Case {
    broker: Broker,
    readers: Readers,
    s: Subscription,
    queue: Queue,
    _shutdown: DropGuard,
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00".parse().unwrap()
}

impl Case {
    async fn new(server: &NatsServer, prefill: bool) -> Self {
        let broker = server.broker().await;
        let registration = Registration {
            name: "mail".parse().unwrap(),
            realms_topics: vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            request_prefill: prefill,
        };
        let mut s = Subscription::reserve(registration, Incarnation(Uuid::new_v4()), 1, now());
        s.lifecycle = Lifecycle::Ready;
        broker.registry().create(&s).await.unwrap();
        let queue = broker.queue(&s.name, s.incarnation);
        queue.create(&s).await.unwrap();
        let shutdown = CancellationToken::new();
        let view = broker.registry().view(shutdown.clone());
        view.synced().await;
        let config = ReaderConfig { redelivery_delay: Duration::from_millis(200) };
        let readers = Readers::new(broker.clone(), view, config);
        Self { broker, readers, s, queue, _shutdown: shutdown.drop_guard() }
    }

    async fn next(&self, wait_ms: u64) -> Option<Delivered> {
        self.try_next(wait_ms).await.unwrap()
    }

    async fn try_next(&self, wait_ms: u64) -> Result<Option<Delivered>, ReadError> {
        let cancel = CancellationToken::new();
        let wait = Duration::from_millis(wait_ms);
        self.readers.next(&self.s.name, self.s.incarnation, wait, &cancel, false).await
    }

    async fn ack(&self, sequence: u64) -> bool {
        self.readers.acknowledge(&self.s.name, self.s.incarnation, sequence).await.unwrap()
    }

    async fn text_then_ack(&self) -> String {
        let got = self.next(2000).await.expect("a message");
        assert!(self.ack(got.sequence).await);
        let json: serde_json::Value = serde_json::from_slice(&got.payload).unwrap();
        assert_eq!(json["sequence_number"], got.sequence);
        json["t"].as_str().unwrap().to_owned()
    }

    async fn live(&self, incoming_seq: u64, text: &str) {
        let mut copier = Copier::open(self.queue.clone()).await.unwrap().unwrap();
        if !copier.checkpoint().active {
            copier.mark(1, self.s.prefill.round).await.unwrap();
        }
        copier.copy(&[Copy { incoming_seq, payload: message(text) }]).await.unwrap();
    }

    async fn fill(&self, attempt: u32, texts: &[&str], seal: bool) {
        let Claimed::Holder(mut holder) = self.queue.claim_fence(1, attempt, "pod").await.unwrap() else {
            panic!("no holder")
        };
        holder.purge_below().await.unwrap();
        let messages: Vec<Bytes> = texts.iter().map(|t| message(t)).collect();
        holder.write(1, &messages).await.unwrap();
        if seal {
            holder.seal(Counts { messages: texts.len() as u64, skipped: 0 }).await.unwrap();
        }
    }

    async fn state(&self, state: PrefillState) {
        let change = |s: &Subscription| s.with_prefill_state(state, None, None, now());
        self.broker.registry().modify(&self.s.name, self.s.incarnation, change).await.unwrap();
    }
}

fn message(text: &str) -> Bytes {
    Bytes::from(format!("{{\"t\":\"{text}\"}}"))
}

#[tokio::test]
async fn the_prefill_comes_first_and_only_when_it_is_done() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.live(7, "live1").await;
    case.fill(1, &["a", "b"], true).await;
    assert_eq!(case.next(50).await, None);
    // Not even by its number.
    let heads: Vec<bool> = futures::future::join_all((1..6).map(|n| case.ack(n))).await;
    assert_eq!(heads.iter().filter(|acked| **acked).count(), 1, "only the live message: {heads:?}");
    case.live(8, "live2").await;
    case.state(PrefillState::Running).await;
    assert_eq!(case.next(50).await, None);
    case.state(PrefillState::Done).await;
    for expected in ["a", "b", "live2"] {
        assert_eq!(case.text_then_ack().await, expected);
    }
    assert_eq!(case.next(50).await, None);
}

#[tokio::test]
async fn a_waiting_poll_wakes_when_the_prefill_is_done() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["a"], true).await;
    let began = Instant::now();
    let (got, ()) = tokio::join!(case.next(20_000), case.state(PrefillState::Done));
    assert!(got.is_some());
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for its time-out");
}

#[tokio::test]
async fn a_waiting_poll_wakes_when_an_event_arrives_also_after_a_kill_of_the_server() {
    let mut server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    for round in 0..3u64 {
        let began = Instant::now();
        let text = format!("live{round}");
        let (got, ()) = tokio::join!(case.next(20_000), async {
            // The poll is waiting by then, or not: both must work.
            tokio::task::yield_now().await;
            case.live(7 + round, &text).await;
        });
        assert!(case.ack(got.expect("the event").sequence).await);
        assert!(began.elapsed() < Duration::from_secs(10), "it waited for its time-out");
        server.restart().await;
        eventually(
            "the connection",
            Duration::from_secs(20),
            async || case.queue.exists().await.ok(),
            |e| *e == Some(true),
        )
        .await;
    }
}

#[tokio::test]
async fn an_unacknowledged_head_comes_again_after_the_delay() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    case.live(7, "one").await;
    case.live(8, "two").await;
    let first = case.next(1000).await.unwrap();
    assert_eq!(first.num_delivered, 1);
    let again = case.next(5000).await.unwrap();
    assert_eq!((again.sequence, again.num_delivered), (first.sequence, 2));
    assert!(case.ack(first.sequence).await);
    assert!(!case.ack(first.sequence).await, "the second acknowledgement finds nothing");
    assert_eq!(case.text_then_ack().await, "two");
}

#[tokio::test]
async fn messages_may_be_acknowledged_in_any_order() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    for n in 0..3 {
        case.live(7 + n, &format!("m{n}")).await;
    }
    let head = case.next(1000).await.unwrap().sequence;
    // Each copy has a checkpoint before it, so numbers have gaps: fence and checkpoint can't be acknowledged.
    let acked: Vec<u64> =
        futures::future::join_all((head + 1..head + 6).map(async |n| case.ack(n).await.then_some(n)))
            .await
            .into_iter()
            .flatten()
            .collect();
    assert_eq!(acked.len(), 2);
    assert!(case.ack(head).await);
    assert_eq!(case.next(50).await, None);
    assert!(case.queue.exists().await.unwrap());
}

#[tokio::test]
async fn only_the_done_attempt_is_delivered() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["old1", "old2"], false).await;
    case.fill(2, &["new"], true).await;
    case.broker
        .registry()
        .modify(&case.s.name, case.s.incarnation, |s| {
            let mut s = s.clone();
            s.prefill.attempt = 2;
            s.prefill.state = PrefillState::Done;
            Some(s)
        })
        .await
        .unwrap();
    assert_eq!(case.text_then_ack().await, "new");
    assert_eq!(case.next(50).await, None);
}

#[tokio::test]
async fn popping_removes_on_delivery() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    case.live(7, "one").await;
    let cancel = CancellationToken::new();
    let pop =
        || case.readers.next(&case.s.name, case.s.incarnation, Duration::from_millis(50), &cancel, true);
    assert!(pop().await.unwrap().is_some());
    assert_eq!(pop().await.unwrap(), None);
    assert_eq!(case.queue.pending().await.unwrap().unwrap().main, 0);
}

#[tokio::test]
async fn two_replicas_share_a_queue() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let shutdown = CancellationToken::new();
    let view = case.broker.registry().view(shutdown.clone());
    let other = Readers::new(case.broker.clone(), view, ReaderConfig::default());
    case.live(7, "one").await;
    case.live(8, "two").await;
    let head = case.next(1000).await.unwrap().sequence;
    assert!(other.acknowledge(&case.s.name, case.s.incarnation, head).await.unwrap());
    let wait = Duration::from_secs(5);
    let got = other.next(&case.s.name, case.s.incarnation, wait, &shutdown, false).await.unwrap().unwrap();
    assert_eq!(case.text_then_ack().await, "two");
    assert!(!other.acknowledge(&case.s.name, case.s.incarnation, got.sequence).await.unwrap());
    shutdown.cancel();
}

#[tokio::test]
async fn a_removed_subscription_is_gone_and_a_lost_queue_is_broken() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let (got, removed) = tokio::join!(case.try_next(20_000), async {
        tokio::task::yield_now().await;
        case.broker.remove_subscription(&case.s.name, case.s.incarnation).await
    });
    removed.unwrap();
    assert!(matches!(got, Err(ReadError::Gone)), "{got:?}");
    assert!(matches!(case.try_next(50).await, Err(ReadError::Gone)));

    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = format!("stream:mail:{}", case.s.incarnation.short());
    async_nats::jetstream::new(client).delete_stream(stream).await.unwrap();
    assert!(matches!(case.try_next(50).await, Err(ReadError::Broken)));
}

#[tokio::test]
async fn shutdown_ends_a_poll_with_nothing() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let cancel = CancellationToken::new();
    let wait = Duration::from_secs(60);
    let poll = case.readers.next(&case.s.name, case.s.incarnation, wait, &cancel, false);
    let (got, ()) = tokio::join!(poll, async { cancel.cancel() });
    assert_eq!(got.unwrap(), None);
}

/// Found by the crash campaign: a replica that had not heard of the new registration answered its consumer that the
/// subscription does not exist, which was the former one.
#[tokio::test]
async fn a_queue_of_a_former_registration_is_told_from_one_that_is_gone() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    case.live(2, "former").await;
    let sequence = case.next(2000).await.expect("a message").sequence;
    case.broker.remove_subscription(&case.s.name, case.s.incarnation).await.unwrap();
    assert!(matches!(case.try_next(50).await, Err(ReadError::Gone)));
    let Some(tombstone) = case.broker.registry().get(&case.s.name).await.unwrap() else {
        panic!("no tombstone")
    };
    let again = Subscription {
        incarnation: Incarnation(Uuid::new_v4()),
        first_sequence: 2_000_000,
        ..case.s.clone()
    };
    let entry = model::Entry::Subscription(again.clone());
    case.broker.registry().update(&again.name, &entry, tombstone.revision).await.unwrap();
    case.broker.queue(&again.name, again.incarnation).create(&again).await.unwrap();
    assert!(matches!(case.try_next(50).await, Err(ReadError::Replaced)));
    let late = case.readers.acknowledge(&case.s.name, case.s.incarnation, sequence).await;
    assert!(matches!(late, Err(ReadError::Replaced)), "{late:?}");
}
