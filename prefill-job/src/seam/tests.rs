//! The watch on a real nats-server: what is copied while it runs.
#![allow(clippy::unwrap_used)]

use broker::{
    Broker, Copier, Copy,
    testing::{NatsServer, eventually},
};
use model::{Incarnation, PrefillState, RealmTopic, Subscription, subscription::Registration};
use uuid::Uuid;

use super::*;

const SOON: Duration = Duration::from_secs(30);

async fn registered(broker: &Broker) -> (Subscription, Copier) {
    let registration = Registration {
        request_prefill: true,
        ..Registration::new(
            "mail".parse().unwrap(),
            vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
        )
    };
    let now = "2026-01-01T00:00:00".parse().unwrap();
    let s = Subscription::reserve(registration, Incarnation(Uuid::new_v4()), 1, now);
    let queue = broker.queue(&s.name, s.incarnation);
    queue.create(&s).await.unwrap();
    let copier = Copier::open(queue).await.unwrap().unwrap();
    (s, copier)
}

fn changed(incoming_seq: u64, dn: &str) -> Copy {
    let body = serde_json::json!({ "body": { "old": { "dn": dn }, "new": { "dn": dn } } });
    Copy { incoming_seq, accepted: None, payload: body.to_string().into() }
}

fn object(dn: &str) -> Bytes {
    serde_json::json!({ "body": { "old": {}, "new": { "dn": dn } } }).to_string().into()
}

#[tokio::test]
async fn the_number_grows_with_what_is_copied_and_only_what_was_read_later_is_left_out() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, mut copier) = registered(&broker).await;
    let task = PrefillTask::of(&s);
    let queue = broker.queue(&task.subscription, task.incarnation);
    copier.mark(4, &s.marker()).await.unwrap();
    copier.copy(&[changed(5, "uid=a")]).await.unwrap();
    let watch = SeamWatch::start(&queue, &task).await;
    let as_of = watch.as_of();
    assert_eq!(as_of.now(), Some(5));
    let before = as_of.now();
    copier.copy(&[changed(7, "uid=a"), changed(9, "uid=b"), changed(10, "uid=c")]).await.unwrap();
    let after = eventually("the copies", SOON, async || as_of.now(), |now| *now == Some(10)).await;
    watch.wrote(before, &object("uid=a"));
    watch.wrote(after, &object("uid=b"));
    watch.wrote(None, &object("uid=c"));
    let mut contained = Vec::new();
    for sequence in watch.contained() {
        contained.push(queue.live_from(sequence).await.unwrap().unwrap().tag.unwrap().incoming_seq);
    }
    assert_eq!(contained, [5, 9]);
}

#[tokio::test]
async fn events_of_another_round_are_nobodys_business() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, mut copier) = registered(&broker).await;
    let task = PrefillTask::of(&s);
    let queue = broker.queue(&task.subscription, task.incarnation);
    copier.mark(4, &s.marker()).await.unwrap();
    copier.copy(&[changed(5, "uid=a")]).await.unwrap();
    let done = s.with_prefill_state(PrefillState::Done, None, None, s.created.clone()).unwrap();
    let second = done.with_prefill_again(s.created.clone()).unwrap();
    copier.mark(6, &second.marker()).await.unwrap();
    copier.copy(&[changed(7, "uid=a")]).await.unwrap();
    // A late attempt of the first round learns nothing.
    assert_eq!(SeamWatch::start(&queue, &task).await.as_of().now(), None);
    let watch = SeamWatch::start(&queue, &PrefillTask::of(&second)).await;
    watch.wrote(watch.as_of().now(), &object("uid=a"));
    assert_eq!(watch.contained().len(), 1);
}

#[tokio::test]
async fn a_letter_that_a_former_version_sent_again_is_never_left_out() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, mut copier) = registered(&broker).await;
    let task = PrefillTask::of(&s);
    let queue = broker.queue(&task.subscription, task.incarnation);
    copier.mark(4, &s.marker()).await.unwrap();
    copier.copy(&[changed(5, "uid=a")]).await.unwrap();
    // It has no place among the events, so nothing is known to be superfluous.
    broker::testing::letter_of_former_version(&queue, 1, changed(3, "uid=a").payload).await;
    copier.copy(&[changed(7, "uid=b")]).await.unwrap();
    let watch = SeamWatch::start(&queue, &task).await;
    watch.wrote(watch.as_of().now(), &object("uid=a"));
    assert!(watch.contained().is_empty());
}
