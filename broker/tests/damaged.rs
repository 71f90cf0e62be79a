//! A NATS that holds what we did not write, or not the latest of what we wrote: foreign, deleted and unreadable keys,
//! and a store that was restored from a backup.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use async_nats::jetstream::{self, kv};
use broker::{
    Broker, Claimed, FillError, Removal,
    testing::{NatsServer, eventually, ready_subscription},
};
use bytes::Bytes;
use model::{
    Entry, Incarnation, PrefillState, Reason, Subscription, SubscriptionName,
    dead_letter::{DeadLetter, DeadLetterReason, Origin},
    fence::Counts,
    prefill::{PrefillTask, Progress},
};
use support::{Case, LONG, now, text};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const FOREIGN: &str = r#"{"name": "foreign", "realms_topics": [], "request_prefill": true}"#;

async fn store(server: &NatsServer, bucket: &str) -> kv::Store {
    let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    js.get_key_value(bucket).await.unwrap()
}

fn name(text: &str) -> SubscriptionName {
    text.parse().unwrap()
}

fn letter(s: &Subscription, origin: Origin) -> DeadLetter {
    DeadLetter {
        incarnation: s.incarnation,
        origin,
        reason: DeadLetterReason::TooLarge,
        problem: None,
        topic: "users/user".to_owned(),
        dn: None,
        size: 1,
        limit: 1,
        at: now(),
    }
}

#[tokio::test]
async fn keys_that_are_deleted_or_can_not_be_read_hide_no_other() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mail, _) = ready_subscription(&broker, &["users/user"]).await;
    let bucket = store(&server, "SUBSCRIPTIONS").await;
    for key in ["foreign", "no.name"] {
        bucket.put(key, FOREIGN.into()).await.unwrap();
    }
    bucket.put("empty", Bytes::new()).await.unwrap();
    for (key, purge) in [("deleted", false), ("purged", true), ("no.name.either", false)] {
        bucket.put(key, FOREIGN.into()).await.unwrap();
        if purge { bucket.purge(key).await.unwrap() } else { bucket.delete(key).await.unwrap() }
    }
    let listed = broker.registry().list().await.unwrap();
    let unreadable: Vec<&str> = listed.unreadable.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(unreadable, ["foreign", "no.name"]);
    assert!(listed.subscriptions().eq(std::iter::once(mail.clone())));

    let view = broker.registry().view(CancellationToken::new());
    view.synced().await;
    assert_eq!(view.unreadable(), ["foreign", "no.name"]);
    assert_eq!(view.all().len(), 1);

    // A deleted key is a name that is free, above all numbers that it can have had.
    for key in ["deleted", "purged", "empty"] {
        let found = broker.registry().get(&name(key)).await.unwrap().unwrap();
        let Entry::Tombstone(tombstone) = found.value else { panic!("{found:?}") };
        assert!(tombstone.next_sequence > 1_700_000_000_000_000);
        let again = Subscription {
            name: name(key),
            first_sequence: tombstone.next_sequence,
            incarnation: Incarnation(uuid::Uuid::new_v4()),
            ..mail.clone()
        };
        let entry = Entry::Subscription(again.clone());
        broker.registry().update(&again.name, &entry, found.revision).await.unwrap();
        let queue = broker.queue(&again.name, again.incarnation);
        queue.create(&again).await.unwrap();
        assert!(queue.fence().await.unwrap().unwrap().revision >= tombstone.next_sequence);
    }
    assert!(broker.registry().get(&name("foreign")).await.is_err());
}

#[tokio::test]
async fn an_entry_that_can_not_be_read_is_removed_with_all_that_belongs_to_it() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mail, queue) = ready_subscription(&broker, &["users/user"]).await;
    broker.credentials().put(&mail.name, mail.incarnation, "hash").await.unwrap();
    broker.tasks().submit(&PrefillTask::of(&mail)).await.unwrap();
    broker
        .dead_letters()
        .set_aside(&mail.name, &letter(&mail, Origin::Live { incoming_seq: 7 }), b"x")
        .await
        .unwrap();
    // What can be read is removed otherwise; and this is no key, but all of them.
    for key in ["mail", ">", "*", "mail.", "never", ""] {
        assert_eq!(broker.remove_unreadable(key).await.unwrap(), Removal::Gone, "{key}");
    }
    let last = queue.fence().await.unwrap().unwrap().revision;
    let bucket = store(&server, "SUBSCRIPTIONS").await;
    for key in ["mail", "no.name"] {
        bucket.put(key, FOREIGN.into()).await.unwrap();
    }
    for key in ["mail", "no.name"] {
        assert_eq!(broker.remove_unreadable(key).await.unwrap(), Removal::Removed, "{key}");
        assert_eq!(broker.remove_unreadable(key).await.unwrap(), Removal::Gone, "{key}");
    }
    let Entry::Tombstone(tombstone) = broker.registry().get(&mail.name).await.unwrap().unwrap().value else {
        panic!()
    };
    assert!(tombstone.next_sequence > last);
    assert!(!queue.exists().await.unwrap());
    assert_eq!(broker.credentials().get(&mail.name).await.unwrap(), None);
    assert!(!broker.tasks().contains(&PrefillTask::of(&mail)).await.unwrap());
    assert!(broker.dead_letters().list(&mail, 0, 10).await.unwrap().is_empty());
    assert_eq!(broker.registry().list().await.unwrap().unreadable, []);
}

#[tokio::test]
async fn what_can_not_be_read_in_any_bucket_keeps_no_subscription_from_being_removed_or_registered() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mail, _) = ready_subscription(&broker, &["users/user"]).await;
    for (bucket, key) in [("CREDENTIALS", "mail"), ("PREFILL", "mail"), ("DISPATCHER", "position")] {
        store(&server, bucket).await.put(key, "{".into()).await.unwrap();
    }
    assert_eq!(broker.progress().get(&mail.name).await.unwrap(), None::<Progress>);
    // The first password of a name that has such a credential.
    let stored = broker.credentials().create(&mail.name, mail.incarnation, "hash").await.unwrap();
    assert_eq!(broker.credentials().get(&mail.name).await.unwrap(), Some(stored));
    store(&server, "CREDENTIALS").await.put("mail", "{".into()).await.unwrap();
    assert_eq!(broker.remove_subscription(&mail.name, mail.incarnation).await.unwrap(), Removal::Removed);
    assert_eq!(broker.credentials().get(&mail.name).await.unwrap(), None);

    // The position follows from what is left of the log: nothing is left out.
    let events = broker.events();
    for _ in 0..5 {
        events.publish(Bytes::from_static(b"{}"), Instant::now()).await.unwrap();
    }
    broker.event_log().purge_through(3).await.unwrap();
    let position = broker.position().get().await.unwrap();
    assert_eq!(position.value, 3);
    let revision = broker.position().set(4, position.revision).await.unwrap();
    store(&server, "DISPATCHER").await.delete("position").await.unwrap();
    let deleted = broker.position().get().await.unwrap();
    assert!(deleted.value == 3 && deleted.revision > revision);
    broker.position().set(5, deleted.revision).await.unwrap();
}

#[tokio::test]
async fn a_word_of_a_newer_version_leaves_the_entry_readable() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mail, _) = ready_subscription(&broker, &["users/user"]).await;
    let mut json = serde_json::to_value(Entry::Subscription(mail.clone())).unwrap();
    json["prefill"]["state"] = "failed".into();
    json["prefill"]["reason"] = "MoonInTheWay".into();
    json["new_member"] = 7.into();
    store(&server, "SUBSCRIPTIONS").await.put("mail", json.to_string().into()).await.unwrap();
    let found = broker.registry().subscription(&mail.name).await.unwrap().unwrap().value;
    assert_eq!(found.prefill.reason, Some(Reason::Unknown));
}

#[tokio::test]
async fn a_running_view_and_publisher_live_through_a_restored_store() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let events = broker.events();
    let publish = async || events.publish(Bytes::from_static(b"{}"), Instant::now()).await;
    publish().await.unwrap();
    let (mail, _) = ready_subscription(&broker, &["users/user"]).await;
    let view = broker.registry().view(CancellationToken::new());
    view.synced().await;
    let again = |s: &Subscription| Some(Subscription { topics_version: s.topics_version + 1, ..s.clone() });
    let known = async || view.get("mail").map(|entry| (entry.value.topics_version, entry.revision));
    let backup = server.backup();
    server.restart().await;
    for _ in 0..5 {
        broker.registry().modify(&mail.name, mail.incarnation, again).await.unwrap();
        publish().await.unwrap();
    }
    let later = Subscription { name: name("later"), ..mail.clone() };
    broker.registry().create(&later).await.unwrap();
    eventually(
        "all to be known",
        LONG,
        async || (known().await, view.all().len()),
        |seen| *seen == (Some((5, 6)), 2),
    )
    .await;
    server.restore(backup.path()).await;
    eventually(
        "the former state",
        LONG,
        async || (known().await, view.all().len()),
        |seen| *seen == (Some((0, 1)), 1),
    )
    .await;
    // Numbers that were used before the restoration.
    broker.registry().modify(&mail.name, mail.incarnation, again).await.unwrap();
    eventually("a change", LONG, known, |seen| *seen == Some((1, 2))).await;
    assert_eq!(publish().await.unwrap(), 2);
}

#[tokio::test]
async fn a_view_notices_a_key_that_is_purged_from_the_stream() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mail, _) = ready_subscription(&broker, &["users/user"]).await;
    let view = broker.registry().view(CancellationToken::new());
    view.synced().await;
    let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = js.get_stream("KV_SUBSCRIPTIONS").await.unwrap();
    stream.purge().filter("$KV.SUBSCRIPTIONS.mail").await.unwrap();
    eventually("the key to be gone", LONG, async || view.all().len(), |known| *known == 0).await;
    assert_eq!(broker.registry().list().await.unwrap().entries, []);
    assert_eq!(broker.registry().get(&mail.name).await.unwrap(), None);
}

#[tokio::test]
async fn readers_forget_what_a_restored_queue_does_not_know() {
    let mut server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["a", "b"], true).await;
    case.state(PrefillState::Done).await;
    case.live(2, "early").await;
    let mut stream = case.stream(1, None).await;
    assert_eq!(text(&stream.next(LONG).await.unwrap()[0]), "a");
    let backup = server.backup();
    server.restart().await;
    for expected in ["a", "b", "early"] {
        assert_eq!(case.text_then_ack().await, expected);
    }
    case.live(3, "later").await;
    assert_eq!(text(&stream.next(LONG).await.unwrap()[0]), "later");
    assert_eq!(case.text_then_ack().await, "later");
    server.restore(backup.path()).await;
    eventually("the connection", LONG, async || case.broker.is_connected(), |up| *up).await;
    // The prefill that was seen drained is there again, and comes first again.
    assert_eq!(text(&stream.next(LONG).await.unwrap()[0]), "a");
    for expected in ["a", "b", "early"] {
        assert_eq!(case.text_then_ack().await, expected);
    }
}

#[tokio::test]
async fn an_attempt_whose_queue_went_back_is_to_be_tried_again() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let (_, queue) = ready_subscription(&broker, &["users/user"]).await;
    let backup = server.backup();
    server.restart().await;
    let Claimed::Holder(mut holder) = queue.claim_fence(1, 2, "pod").await.unwrap() else { panic!() };
    server.restore(backup.path()).await;
    let written = holder.write(1, &[Bytes::from_static(b"{}")]).await;
    assert!(matches!(&written, Err(FillError::Broker(error)) if error.is_transient()), "{written:?}");
    let Claimed::Holder(mut again) = queue.claim_fence(1, 2, "pod").await.unwrap() else { panic!() };
    again.write(1, &[Bytes::from_static(b"{}")]).await.unwrap();
    again.seal(Counts { messages: 1, ..Counts::default() }).await.unwrap();
}

async fn set_aside(broker: &Broker, s: &Subscription, origin: Origin) {
    broker.dead_letters().set_aside(&s.name, &letter(s, origin), b"some bytes").await.unwrap();
}

#[tokio::test]
async fn dead_letters_of_overtaken_attempts_go_and_those_that_count_are_shown_page_by_page() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mut s, queue) = ready_subscription(&broker, &["users/user"]).await;
    let letters = broker.dead_letters();
    for attempt in [1, 2] {
        for _ in 0..3 {
            set_aside(&broker, &s, Origin::Prefill { attempt }).await;
        }
    }
    // Two dispatchers set the same event aside.
    for incoming_seq in [7, 7, 8] {
        set_aside(&broker, &s, Origin::Live { incoming_seq }).await;
    }
    s.prefill.attempt = 2;
    assert_eq!(letters.count(&s).await.unwrap(), 5);
    let first = letters.list(&s, 0, 2).await.unwrap();
    let second = letters.list(&s, first[1].id, 10).await.unwrap();
    let ids: Vec<u64> = first.iter().chain(&second).map(|letter| letter.id).collect();
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted());
    assert_eq!(letters.message(&second[0]).await.unwrap().unwrap(), "some bytes");
    let stream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let kept = async || stream.get_stream("dead-letters").await.unwrap().cached_info().state.messages;
    assert_eq!(kept().await, 16, "records and parts");
    // Only a sealed attempt has said everything again.
    queue.remove_contained(2).await.unwrap();
    assert_eq!(kept().await, 16);
    let Claimed::Holder(mut holder) = queue.claim_fence(1, 2, "pod").await.unwrap() else { panic!() };
    holder.seal(Counts::default()).await.unwrap();
    queue.remove_contained(2).await.unwrap();
    assert_eq!(kept().await, 10);
    assert_eq!(letters.count(&s).await.unwrap(), 5);
    assert!(letters.get(&s.name, s.incarnation, ids[0]).await.unwrap().is_some());
    assert!(letters.get(&s.name, s.incarnation, ids[0] + 1).await.unwrap().is_none(), "a part is no letter");
}

#[tokio::test]
async fn what_no_subscription_owns_is_found_and_removed() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = ready_subscription(&broker, &["users/user"]).await;
    set_aside(&broker, &s, Origin::Live { incoming_seq: 7 }).await;
    assert_eq!(broker.orphans().await.unwrap(), []);
    broker.remove_subscription(&s.name, s.incarnation).await.unwrap();
    assert_eq!(broker.orphans().await.unwrap(), []);
    // A slow registration and a slow writer, after the removal.
    queue.create(&s).await.unwrap();
    set_aside(&broker, &s, Origin::Live { incoming_seq: 8 }).await;
    let found = broker.orphans().await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(broker.remove_orphan(&found[0]).await.unwrap());
    assert!(!queue.exists().await.unwrap());
    assert_eq!(broker.dead_letters().count(&s).await.unwrap(), 0);
    assert_eq!(broker.orphans().await.unwrap(), []);
    // It is asked again at the removal whether an entry names it by now.
    let revision = broker.registry().get(&s.name).await.unwrap().unwrap().revision;
    broker.registry().update(&s.name, &Entry::Subscription(s.clone()), revision).await.unwrap();
    queue.create(&s).await.unwrap();
    assert!(!broker.remove_orphan(&found[0]).await.unwrap());
    assert!(queue.exists().await.unwrap());
}

#[tokio::test]
async fn a_larger_limit_of_nats_counts_without_a_restart() {
    let mut server = NatsServer::start_with("").await;
    server.restart_with("200KB", "").await;
    let broker = server.broker().await;
    let events = broker.events();
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    assert!(events.publish(large.clone(), Instant::now()).await.is_err());
    server.restart_with("8MB", "").await;
    let told = async || broker.largest_message();
    eventually("the limit to be known", LONG, told, |limit| *limit > large.len()).await;
    tokio::time::timeout(Duration::from_secs(20), events.publish(large, Instant::now()))
        .await
        .unwrap()
        .unwrap();
}
