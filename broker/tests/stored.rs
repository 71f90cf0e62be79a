//! A queue that the first release has left in NATS, byte by byte: an upgrade goes on with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use async_nats::{
    HeaderMap,
    jetstream::{self, stream},
};
use broker::{Claimed, Copier, ReaderConfig, Readers, testing::NatsServer};
use model::{Incarnation, SubscriptionName, dead_letter::DeadLetterReason, prefill::PrefillTask};
use support::{LONG, text};
use tokio_util::sync::CancellationToken;

const MINE: &str = "00000001-0000-0000-0000-000000000000";
const TOPICS: &str = r#"[{"realm":"udm","topic":"users/user"}]"#;

#[tokio::test]
async fn a_queue_of_the_first_release_is_read_and_goes_on() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let put = async |bucket: &str, key: &str, value: String| {
        js.get_key_value(bucket).await.unwrap().put(key, value.into()).await.unwrap();
    };
    let prefill = r#"{"state":"done","round":1,"boundary":1,"attempt":1,"since":"2026-01-01T00:00:01"}"#;
    let entry = format!(
        r#"{{"kind":"subscription","name":"mail","incarnation":"{MINE}","realms_topics":{TOPICS},
            "request_prefill":true,"lifecycle":"ready","first_sequence":7,"created":"2026-01-01T00:00:00",
            "prefill":{prefill}}}"#
    );
    put("SUBSCRIPTIONS", "mail", entry).await;
    put("SUBSCRIPTIONS", "gone", r#"{"kind":"tombstone","next_sequence":1000009}"#.to_owned()).await;
    put("CREDENTIALS", "mail", format!(r#"{{"incarnation":"{MINE}","hash":"$argon2id$x"}}"#)).await;
    put("CREDENTIALS", "bare", "$2b$x".to_owned()).await;
    put("DISPATCHER", "position", r#"{"incoming_seq":3}"#.to_owned()).await;
    let progress = r#""attempt":1,"topic":null,"done":2,"total":2,"skipped":0,"rate":1.0"#;
    put("PREFILL", "mail", format!(r#"{{"incarnation":"{MINE}",{progress}}}"#)).await;
    js.create_stream(stream::Config {
        name: "stream:mail:00000001".to_owned(),
        subjects: ["main", "prefill", "fence", "copied"].map(|part| format!("mail.{part}")).to_vec(),
        first_sequence: Some(7),
        allow_direct: true,
        allow_rollup: true,
        allow_atomic_publish: true,
        ..stream::Config::default()
    })
    .await
    .unwrap();
    let publish = async |subject: &str, headers: &[(&str, &str)], payload: String| {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        js.publish_with_headers(subject.to_owned(), map, payload.into()).await.unwrap().await.unwrap();
    };
    let (of, round) = (("Headstart-Incarnation", MINE), ("Headstart-Round", "1"));
    let event = |t: &str| format!(r#"{{"t":"{t}"}}"#);
    publish("mail.main", &[of, round, ("Headstart-Incoming-Seq", "3")], event("live")).await;
    for (index, t) in [("1", "a"), ("2", "b")] {
        let place = [of, round, ("Headstart-Attempt", "1"), ("Headstart-Index", index)];
        publish("mail.prefill", &place, event(t)).await;
    }
    let counts = r#"{"messages":2,"skipped":0}"#;
    let fence = format!(
        r#"{{"incarnation":"{MINE}","round":1,"attempt":1,"holder":"pod:0123abcd","state":"sealed","counts":{counts}}}"#
    );
    publish("mail.fence", &[], fence).await;
    let copied = format!(
        r#"{{"incarnation":"{MINE}","incoming_seq":3,"round":1,"realms_topics":{TOPICS},"active":true}}"#
    );
    publish("mail.copied", &[], copied).await;
    let letter = r#""reason":"TooLarge","topic":"users/user","size":4,"limit":3,"at":"2026-01-01T00:00:00""#;
    let letter =
        format!(r#"{{"incarnation":"{MINE}","origin":{{"from":"live","incoming_seq":2}},{letter}}}"#);
    publish("dead-letters.mail.00000001.live.2", &[("Headstart-Parts", "1")], letter).await;
    publish("dead-letters.mail.00000001.live.2.part", &[("Headstart-Parts", "0")], "huge".to_owned()).await;
    let marker =
        format!(r#"{{"subscription":"mail","incarnation":"{MINE}","round":1,"realms_topics":{TOPICS}}}"#);
    publish("incoming.marker", &[], marker).await;
    let task = format!(
        r#"{{"subscription":"mail","incarnation":"{MINE}","round":1,"attempt":1,"realms_topics":{TOPICS}}}"#
    );
    publish("tasks.prefill.mail", &[], task).await;

    broker.create_layout().await.unwrap();
    let name: SubscriptionName = "mail".parse().unwrap();
    let s = broker.registry().subscription(&name).await.unwrap().unwrap().value;
    assert_eq!(s.incarnation, Incarnation(MINE.parse().unwrap()));
    let listed = broker.registry().list().await.unwrap();
    assert_eq!((listed.entries.len(), listed.unreadable.len()), (2, 0));
    let hash = broker.credentials().get(&name).await.unwrap().unwrap();
    assert_eq!((hash.incarnation, hash.hash.as_str()), (Some(s.incarnation), "$argon2id$x"));
    let bare = broker.credentials().get(&"bare".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((bare.incarnation, bare.hash.as_str()), (None, "$2b$x"));
    assert_eq!(broker.position().get().await.unwrap().value, 3);
    assert_eq!(broker.progress().get(&name).await.unwrap().unwrap().done, 2);
    assert!(broker.tasks().contains(&PrefillTask::of(&s)).await.unwrap());
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].letter.reason), (1, DeadLetterReason::TooLarge));
    assert_eq!(broker.dead_letters().message(&letters[0]).await.unwrap().unwrap(), "huge");

    let queue = broker.queue(&s.name, s.incarnation);
    assert!(queue.exists().await.unwrap());
    assert!(matches!(queue.claim_fence(1, 1, "pod").await.unwrap(), Claimed::Sealed));
    let copier = Copier::open(queue.clone()).await.unwrap().unwrap();
    assert!(copier.checkpoint().active && copier.checkpoint().incoming_seq == 3);
    let stop = CancellationToken::new();
    let view = broker.registry().view(stop.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    for expected in ["a", "b", "live"] {
        let got = readers.next(&s.name, s.incarnation, LONG, &stop, true).await.unwrap().unwrap();
        assert_eq!(text(&got), expected);
    }
    // It goes on.
    let mut copier = copier;
    let copy = broker::Copy { incoming_seq: 4, accepted: None, payload: event("next").into() };
    copier.copy(&[copy]).await.unwrap();
    let got = readers.next(&s.name, s.incarnation, LONG, &stop, true).await.unwrap().unwrap();
    assert_eq!(text(&got), "next");
    stop.cancel();
}
