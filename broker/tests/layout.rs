//! The layout beside what others have left in NATS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use async_nats::jetstream::{self, kv, stream};
use broker::{Broker, Error, testing::NatsServer};
use std::time::Duration;

const FORMER: &str =
    r#"{"name": "mail", "realms_topics": [], "request_prefill": true, "prefill_queue_status": "done"}"#;

fn named(name: &str) -> stream::Config {
    stream::Config { name: name.to_owned(), ..stream::Config::default() }
}

#[tokio::test]
async fn what_others_have_left_is_refused_by_name_before_anything_is_written() {
    let log = stream::Config { subjects: vec!["incoming.event".to_owned()], ..named("incoming") };
    let bucket = kv::Config { bucket: "SUBSCRIPTIONS".to_owned(), ..kv::Config::default() };
    for (what, words) in [
        ("a log with an age", "max_age"),
        ("a log that drops", "discard"),
        ("a queue", "stream:mail"),
        ("a bucket whose entries end", "KV_SUBSCRIPTIONS"),
        ("entries", "mail"),
    ] {
        let server = NatsServer::start().await;
        let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        let discard = stream::DiscardPolicy::New;
        match what {
            "a log with an age" => {
                let config = stream::Config { max_age: Duration::from_secs(60), discard, ..log.clone() };
                js.create_stream(config).await.unwrap();
            }
            "a log that drops" => drop(js.create_stream(log.clone()).await.unwrap()),
            "a queue" => {
                let config =
                    stream::Config { subjects: vec!["mail.main".to_owned()], ..named("stream:mail") };
                js.create_stream(config).await.unwrap();
            }
            "entries" => {
                let store = js.create_key_value(bucket.clone()).await.unwrap();
                store.put("mail", FORMER.into()).await.unwrap();
            }
            _ => {
                let config = kv::Config { max_age: Duration::from_secs(60), ..bucket.clone() };
                js.create_key_value(config).await.unwrap();
            }
        }
        let broker = Broker::connect(&server.config("test")).await.unwrap();
        let error = broker.create_layout().await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Foreign { .. }) && !error.is_transient(), "{what}: {text}");
        assert!(text.contains(words) && text.contains("NATS_URL"), "{what}: {text}");
        assert!(js.get_stream("tasks").await.is_err(), "{what}: something was written");
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_by_its_version() {
    let address = broker::testing::server_of_version("2.12.2").await;
    let config = broker::NatsConfig::new(format!("nats://{address}"), "test");
    let error = Broker::connect(&config).await.unwrap_err();
    assert!(matches!(error, Error::Version { .. }) && !error.is_transient(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("2.12.2 is too old") && text.contains("2.12.3 or newer"), "{text}");
    let config = broker::NatsConfig::new(
        format!("nats://{}", broker::testing::server_of_version("2.12.3").await),
        "test",
    );
    Broker::connect(&config).await.unwrap();
}

#[tokio::test]
async fn what_the_api_has_not_made_yet_is_waited_for_and_named() {
    let server = NatsServer::start().await;
    let broker = Broker::connect(&server.config("test")).await.unwrap();
    let error = broker.await_layout().await.unwrap_err();
    assert!(matches!(error, Error::LayoutMissing { .. }) && error.is_transient(), "{error:?}");
    broker.create_layout().await.unwrap();
    broker.await_layout().await.unwrap();
    // Each part of it.
    let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut parts = 0;
    for stream in ["incoming", "tasks", "dead-letters"]
        .into_iter()
        .map(str::to_owned)
        .chain(["SUBSCRIPTIONS", "CREDENTIALS", "DISPATCHER", "PREFILL"].map(|bucket| format!("KV_{bucket}")))
    {
        js.delete_stream(&stream).await.unwrap();
        let error = broker.await_layout().await.unwrap_err();
        let named = error.to_string().contains(stream.trim_start_matches("KV_"));
        assert!(named && error.is_transient(), "{stream}: {error}");
        broker.create_layout().await.unwrap();
        parts += 1;
    }
    use futures::TryStreamExt;
    let streams: Vec<String> = js.stream_names().try_collect().await.unwrap();
    assert_eq!(streams.len(), parts, "{streams:?}");
}

#[tokio::test]
async fn what_is_ours_is_followed_and_may_hold_one_foreign_entry() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    js.get_key_value("SUBSCRIPTIONS").await.unwrap().put("foreign", FORMER.into()).await.unwrap();
    let config = async |name: &str| js.get_stream(name).await.unwrap().cached_info().config.clone();
    let mut letters = config("dead-letters").await;
    letters.max_messages = 10;
    letters.subjects = vec!["dead-letters.*.*".to_owned()];
    js.update_stream(letters).await.unwrap();
    broker.create_layout().await.unwrap();
    let letters = config("dead-letters").await;
    assert_eq!((letters.max_messages, letters.subjects), (100_000, vec!["dead-letters.>".to_owned()]));
    broker.await_layout().await.unwrap();
}
