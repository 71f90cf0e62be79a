//! The queue on a real nats-server: creation, fence, copies, removal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use broker::{
    Broker, Claimed, Copier, Copy, CopyError, FenceHolder, FillError, LogItem, Queue, Removal, StreamLimits,
    testing::NatsServer,
};
use bytes::Bytes;
use futures::StreamExt;
use model::{
    Entry, Incarnation, RealmTopic, Subscription, SubscriptionName,
    checkpoint::{Epoch, Marker},
    dead_letter::{DeadLetter, DeadLetterReason, Origin},
    fence::{Counts, FenceState},
    resync::{KnownObject, KnownObjects},
    subscription::Registration,
};
use uuid::Uuid;

fn subscription(name: &str, number: u128, first_sequence: u64) -> Subscription {
    let registration = Registration {
        request_prefill: true,
        ..Registration::new(
            name.parse().unwrap(),
            vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
        )
    };
    // The first eight digits tell incarnations apart.
    let incarnation = Incarnation(Uuid::from_u128(number << 96));
    Subscription::reserve(registration, incarnation, first_sequence, "2026-01-01T00:00:00".parse().unwrap())
}

async fn registered(broker: &Broker, number: u128) -> (Subscription, Queue) {
    let s = subscription("mail", number, 1);
    broker.registry().create(&s).await.unwrap();
    let queue = broker.queue(&s.name, s.incarnation);
    queue.create(&s).await.unwrap();
    (s, queue)
}

fn payloads(texts: &[&str]) -> Vec<Bytes> {
    texts.iter().map(|t| Bytes::from((*t).to_owned())).collect()
}

async fn holder(queue: &Queue, attempt: u32) -> Box<FenceHolder> {
    match queue.claim_fence(1, attempt, "pod").await.unwrap() {
        Claimed::Holder(holder) => holder,
        other => panic!("expected to own the fence, got {other:?}"),
    }
}

#[tokio::test]
async fn creation_is_idempotent_also_at_once() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let s = subscription("mail", 1, 41);
    broker.registry().create(&s).await.unwrap();
    let queue = broker.queue(&s.name, s.incarnation);
    let (a, b) = tokio::join!(queue.create(&s), queue.create(&s));
    a.unwrap();
    b.unwrap();
    let fence = queue.fence().await.unwrap().unwrap();
    assert_eq!((fence.value.attempt, fence.value.state), (0, FenceState::Open));
    assert!(fence.revision >= 41, "numbers start at first_sequence");
    holder(&queue, 1).await.seal(Counts::default()).await.unwrap();
    // A late replica that completes the registration must not undo the seal.
    queue.create(&s).await.unwrap();
    assert!(queue.fence().await.unwrap().unwrap().value.seals(s.incarnation, 1));
}

#[tokio::test]
async fn an_overtaken_attempt_writes_purges_and_seals_nothing() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (_, queue) = registered(&broker, 1).await;
    let mut old = holder(&queue, 1).await;
    old.write(1, &payloads(&["a", "b", "c"])).await.unwrap();
    let mut new = holder(&queue, 2).await;
    new.purge_below().await.unwrap();
    new.write(1, &payloads(&["d", "e"])).await.unwrap();
    assert!(matches!(old.write(4, &payloads(&["x", "y"])).await, Err(FillError::Overtaken)));
    assert!(matches!(old.write(4, &payloads(&["x"])).await, Err(FillError::Overtaken)));
    assert!(matches!(old.seal(Counts::default()).await, Err(FillError::Overtaken)));
    old.purge_below().await.unwrap();
    assert_eq!(queue.pending().await.unwrap().unwrap().prefill, 2);
    new.seal(Counts { messages: 2, ..Counts::default() }).await.unwrap();
    assert!(matches!(queue.claim_fence(1, 2, "pod").await.unwrap(), Claimed::Sealed));
    assert!(matches!(queue.claim_fence(1, 1, "pod").await.unwrap(), Claimed::Overtaken));
}

#[tokio::test]
async fn a_twin_takes_the_fence_and_the_loser_knows() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (_, queue) = registered(&broker, 1).await;
    let mut first = holder(&queue, 1).await;
    let mut second = holder(&queue, 1).await;
    assert!(matches!(first.write(1, &payloads(&["a", "b"])).await, Err(FillError::LostToTwin)));
    second.write(1, &payloads(&["a", "b"])).await.unwrap();
    assert!(queue.cancel_fence(1).await.unwrap());
    assert!(matches!(second.write(3, &payloads(&["c"])).await, Err(FillError::Overtaken)));
    assert!(matches!(queue.claim_fence(1, 1, "pod").await.unwrap(), Claimed::Cancelled));
}

#[tokio::test]
async fn only_what_is_held_is_approved_and_what_is_sealed_is_not_cancelled() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, 1).await;
    let mut first = holder(&queue, 1).await;
    assert!(!queue.approve_fence(1).await.unwrap(), "it is not complete");
    first.hold(Counts::default(), vec![]).await.unwrap();
    assert!(!queue.approve_fence(2).await.unwrap());
    for _ in 0..2 {
        assert!(queue.approve_fence(1).await.unwrap());
    }
    assert!(!queue.cancel_fence(1).await.unwrap());
    assert!(queue.fence().await.unwrap().unwrap().value.seals(s.incarnation, 1));
    holder(&queue, 2).await.seal(Counts::default()).await.unwrap();
    for attempt in [1, 2] {
        assert!(!queue.cancel_fence(attempt).await.unwrap() && !queue.approve_fence(attempt).await.unwrap());
    }
    assert!(queue.fence().await.unwrap().unwrap().value.seals(s.incarnation, 2));
}

#[tokio::test]
async fn what_an_attempt_has_written_is_found_by_its_place() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let s = Subscription { track: true, ..subscription("mail", 1, 1) };
    let queue = broker.queue(&s.name, s.incarnation);
    queue.create(&s).await.unwrap();
    let mut holder = holder(&queue, 1).await;
    holder.write(1, &payloads(&["a", "b", "c"])).await.unwrap();
    let known =
        KnownObjects { objects: KnownObject::named_by(object("d").as_bytes()), ..KnownObjects::default() };
    holder.write_knowing(4, &payloads(&["d", "e"]), &[known]).await.unwrap();
    for (index, expected) in (1..).zip(["a", "b", "c", "d", "e"]) {
        assert_eq!(holder.message(index).await.unwrap().unwrap(), expected);
    }
    for index in [0, 6] {
        assert_eq!(holder.message(index).await.unwrap(), None, "{index}");
    }
}

#[tokio::test]
async fn copies_are_written_once_whoever_writes_them() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, 1).await;
    let copies: Vec<Copy> = (5..9)
        .map(|n| Copy { incoming_seq: n, accepted: None, payload: Bytes::from(format!("{n}")) })
        .collect();
    let mut one = Copier::open(queue.clone()).await.unwrap().unwrap();
    let mut two = Copier::open(queue.clone()).await.unwrap().unwrap();
    one.mark(4, &s.marker()).await.unwrap();
    assert!(matches!(two.mark(4, &s.marker()).await, Err(CopyError::Stale)));
    two.reload().await.unwrap();
    two.mark(4, &s.marker()).await.unwrap();
    one.copy(&copies[..2]).await.unwrap();
    assert!(matches!(two.copy(&copies).await, Err(CopyError::Stale)));
    two.reload().await.unwrap();
    two.copy(&copies).await.unwrap();
    // Its checkpoint's number was worked out, not read: the next write proves that it was right.
    two.copy(&[Copy { incoming_seq: 9, accepted: None, payload: Bytes::from_static(b"9") }]).await.unwrap();
    two.copy(&copies).await.unwrap();
    assert_eq!(queue.pending().await.unwrap().unwrap().main, 5);
    assert_eq!(queue.checkpoint().await.unwrap().unwrap().value.incoming_seq, 9);
}

#[tokio::test]
async fn a_removed_name_starts_above_all_numbers_it_ever_had() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, 1).await;
    broker.credentials().put(&s.name, s.incarnation, "hash").await.unwrap();
    holder(&queue, 1).await.write(1, &payloads(&["a", "b"])).await.unwrap();
    let last = queue.fence().await.unwrap().unwrap().revision;
    assert_eq!(broker.remove_subscription(&s.name, s.incarnation).await.unwrap(), Removal::Removed);
    assert_eq!(broker.remove_subscription(&s.name, s.incarnation).await.unwrap(), Removal::Gone);
    assert_eq!(broker.credentials().get(&s.name).await.unwrap(), None);
    let entry = broker.registry().get(&s.name).await.unwrap().unwrap();
    let Entry::Tombstone(tombstone) = entry.value else { panic!("{entry:?}") };
    assert!(tombstone.next_sequence > last + 100_000, "what is written until the stream is deleted, too");
    assert!(matches!(queue.claim_fence(1, 1, "zombie").await.unwrap(), Claimed::Gone));
    // Another incarnation; the old one's pod finds nothing of its own.
    let again = subscription("mail", 2, tombstone.next_sequence);
    broker.registry().update(&s.name, &Entry::Subscription(again.clone()), entry.revision).await.unwrap();
    let new_queue = broker.queue(&again.name, again.incarnation);
    new_queue.create(&again).await.unwrap();
    assert!(matches!(queue.claim_fence(1, 1, "zombie").await.unwrap(), Claimed::Gone));
    assert!(new_queue.fence().await.unwrap().unwrap().revision >= tombstone.next_sequence);
    // And its late removal and credential do nothing.
    assert_eq!(broker.remove_subscription(&s.name, s.incarnation).await.unwrap(), Removal::Gone);
    assert!(broker.credentials().put(&s.name, s.incarnation, "old").await.is_err());
    let credentials = broker.credentials();
    credentials.put(&again.name, again.incarnation, "new").await.unwrap();
    credentials.delete(&s.name, s.incarnation).await.unwrap();
    assert_eq!(credentials.get(&s.name).await.unwrap().unwrap().hash, "new");
    assert!(new_queue.exists().await.unwrap());
}

#[tokio::test]
async fn what_a_former_incarnation_left_behind_is_replaced() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, old_queue) = registered(&broker, 1).await;
    // A removal that died after the entry: the stream is still there.
    let revision = broker.registry().get(&s.name).await.unwrap().unwrap().revision;
    let again = subscription("mail", 2, 1000);
    broker.registry().update(&s.name, &Entry::Subscription(again.clone()), revision).await.unwrap();
    let queue = broker.queue(&again.name, again.incarnation);
    queue.create(&again).await.unwrap();
    assert!(queue.exists().await.unwrap() && !old_queue.exists().await.unwrap());
    // The old one does not get its place back.
    assert!(old_queue.create(&s).await.is_err());
    assert!(queue.exists().await.unwrap());
}

#[tokio::test]
async fn a_half_done_removal_keeps_the_next_number() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, 1).await;
    holder(&queue, 1).await.write(1, &payloads(&["a", "b"])).await.unwrap();
    broker
        .registry()
        .modify(&s.name, s.incarnation, |s| {
            Some(Subscription { next_sequence: Some(5_000_000), ..s.clone() })
        })
        .await
        .unwrap();
    broker.remove_subscription(&s.name, s.incarnation).await.unwrap();
    let entry = broker.registry().get(&s.name).await.unwrap().unwrap().value;
    assert!(matches!(entry, Entry::Tombstone(t) if t.next_sequence == 5_000_000));
    let names: Vec<SubscriptionName> =
        broker.registry().list().await.unwrap().entries.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [s.name]);
}

fn object(id: &str) -> String {
    format!(r#"{{"topic":"users/user","body":{{"old":{{}},"new":{{"dn":"uid={id},dc=x","id":"{id}"}}}}}}"#)
}

#[tokio::test]
async fn what_a_consumer_is_told_of_is_recorded_with_what_tells_it_whatever_the_limit_of_messages() {
    let server = NatsServer::start().await;
    // Two messages of each kind are all that the queue takes; but what was told of is not one of them.
    let limits = StreamLimits { queue_messages: 2, ..StreamLimits::default() };
    let broker = server.broker().await.with_limits(limits);
    let s = Subscription { track: true, ..subscription("mail", 1, 1) };
    broker.registry().create(&s).await.unwrap();
    let queue = broker.queue(&s.name, s.incarnation);
    queue.create(&s).await.unwrap();
    let mut copier = Copier::open(queue.clone()).await.unwrap().unwrap().tracking(true);
    copier.mark(1, &s.marker()).await.unwrap();
    let copies = |seqs: std::ops::Range<u64>| -> Vec<Copy> {
        seqs.map(|n| Copy { incoming_seq: n, accepted: None, payload: object(&format!("live{n}")).into() })
            .collect()
    };
    for seqs in [2..3, 3..4] {
        copier.copy(&copies(seqs)).await.unwrap();
    }
    // Not written, so not told of; a stale writer neither.
    assert!(matches!(copier.copy(&copies(4..5)).await, Err(CopyError::Full(_))));
    let mut stale = Copier::open(queue.clone()).await.unwrap().unwrap().tracking(true);
    copier.mark(5, &Marker { epoch: Epoch { round: 2, ..s.epoch() }, ..s.marker() }).await.unwrap();
    assert!(matches!(stale.copy(&copies(6..7)).await, Err(CopyError::Stale)));
    let mut old = holder(&queue, 1).await;
    let named = |id: &str| KnownObject::named_by(object(id).as_bytes());
    let known = |id: &str| [KnownObjects { objects: named(id), ..KnownObjects::default() }];
    old.write_knowing(1, &[object("a").into()], &known("a")).await.unwrap();
    let mut new = holder(&queue, 2).await;
    assert!(matches!(old.write_knowing(2, &[], &known("late")).await, Err(FillError::Overtaken)));
    new.write_knowing(
        2,
        &[],
        &[KnownObjects { removed: true, objects: named("told"), ..KnownObjects::default() }],
    )
    .await
    .unwrap();
    let all = async |live| -> Vec<String> {
        let chunks = queue.known_from(1, live).await.unwrap();
        chunks.into_iter().flat_map(|chunk| chunk.known.objects).filter_map(|object| object.id).collect()
    };
    assert_eq!(all(true).await, ["live2", "live3"]);
    assert_eq!(all(false).await, ["live2", "live3", "a", "told"]);
    // Only what was before the attempt goes, whoever asks and when.
    old.forget_known().await.unwrap();
    assert_eq!(all(false).await, ["a", "told"]);
    new.forget_known().await.unwrap();
    old.forget_known().await.unwrap();
    assert_eq!(all(false).await, ["told"]);
    let pending = queue.pending().await.unwrap().unwrap();
    assert_eq!((pending.main, pending.prefill), (2, 1));
}

/// One server has no other leader that might know better; with several the write is what asks all of them.
#[tokio::test]
async fn a_checkpoint_is_confirmed_by_a_write_where_there_are_several_replicas() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, 1).await;
    let revision = async || queue.checkpoint().await.unwrap().unwrap().revision;
    let before = revision().await;
    Copier::open(queue.clone()).await.unwrap().unwrap().confirm().await.unwrap();
    assert_eq!(revision().await, before);

    let several =
        Broker::connect(&broker::NatsConfig { replicas: 3, ..server.config("test") }).await.unwrap();
    let mut old = Copier::open(several.queue(&s.name, s.incarnation)).await.unwrap().unwrap();
    old.confirm().await.unwrap();
    assert!(revision().await > before);
    let mut other = Copier::open(queue.clone()).await.unwrap().unwrap();
    other.mark(5, &s.marker()).await.unwrap();
    assert!(!old.checkpoint().active);
    assert!(matches!(old.confirm().await, Err(CopyError::Stale)));
    assert_eq!(old.checkpoint().incoming_seq, 5, "and what it missed was read");
    old.confirm().await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_that_is_sent_again_is_recorded_too() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let s = Subscription { track: true, ..subscription("mail", 1, 1) };
    let queue = broker.queue(&s.name, s.incarnation);
    queue.create(&s).await.unwrap();
    let letter = DeadLetter {
        incarnation: s.incarnation,
        origin: Origin::Live { incoming_seq: 7 },
        reason: DeadLetterReason::TooLarge,
        problem: None,
        topic: "users/user".to_owned(),
        dn: None,
        size: 1,
        limit: 1,
        at: s.created.clone(),
    };
    let message = Bytes::from(object("late"));
    broker.dead_letters().set_aside(&s.name, &letter, &message).await.unwrap();
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    broker.redeliver(&s.name, &letters[0], message.clone()).await.unwrap();
    assert!(broker.dead_letters().list(&s, 0, 10).await.unwrap().is_empty());
    // It takes its place in the log, for this subscription alone.
    let entry = broker.event_log().follow(1).await.unwrap().next().await.unwrap().unwrap();
    let LogItem::Letter(letter) = entry.item else { panic!("{entry:?}") };
    assert_eq!((letter.whose.incarnation, &letter.message), (s.incarnation, &message));
    let mut copier = Copier::open(queue.clone()).await.unwrap().unwrap().tracking(true);
    copier.copy(&[Copy { incoming_seq: 1, accepted: None, payload: letter.message }]).await.unwrap();
    let chunks = queue.known_from(1, true).await.unwrap();
    assert_eq!(chunks[0].known.objects[0].id.as_deref(), Some("late"));
    assert_eq!(queue.pending().await.unwrap().unwrap().main, 1);
}
