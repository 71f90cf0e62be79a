//! The users of the programs that feed events today: what they need works, and nothing of ours is in their reach.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use broker::testing::NatsServer;
use futures::StreamExt;

use crate::rights::server_with;

const USERS: &[&str] =
    &["--set", "nats.extraUsers.udmListener.enabled=true,nats.extraUsers.udmTransformer.enabled=true"];

async fn connect(server: &NatsServer, user: &str, password: &str) -> jetstream::Context {
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    let client = options.connect(server.url()).await.unwrap();
    let mut context = jetstream::new(client);
    // What is forbidden is never answered.
    context.set_timeout(Duration::from_secs(2));
    context
}

#[tokio::test]
async fn listener_and_transformer_can_do_their_work() {
    let server = server_with(USERS).await;
    let listener = connect(&server, "udm-listener", "EXTRA_UDMLISTENER").await;
    let config = || stream::Config {
        name: "stream:ldap-producer".to_owned(),
        subjects: vec!["ldap-producer".to_owned()],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    listener.get_or_create_stream(config()).await.unwrap();
    for change in ["first", "second"] {
        listener.publish("ldap-producer", change.into()).await.unwrap().await.unwrap();
    }

    let transformer = connect(&server, "udm-transformer", "EXTRA_UDMTRANSFORMER").await;
    let changes = transformer.get_or_create_stream(config()).await.unwrap();
    let durable = jetstream::consumer::pull::Config {
        durable_name: Some("durable_name:ldap-producer".to_owned()),
        ..Default::default()
    };
    let consumer = changes.get_or_create_consumer("durable_name:ldap-producer", durable).await.unwrap();
    let mut messages = consumer.fetch().max_messages(2).messages().await.unwrap();
    for change in ["first", "second"] {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.payload, change);
        message.double_ack().await.unwrap();
    }
    // As the Python client makes a bucket: without direct gets.
    let bucket = stream::Config {
        name: "KV_CACHE".to_owned(),
        subjects: vec!["$KV.CACHE.>".to_owned()],
        max_messages_per_subject: 1,
        allow_rollup: true,
        deny_delete: true,
        ..stream::Config::default()
    };
    let cache = transformer.create_stream(bucket).await.unwrap();
    transformer.publish("$KV.CACHE.3f1d", "{}".into()).await.unwrap().await.unwrap();
    assert_eq!(cache.get_last_raw_message_by_subject("$KV.CACHE.3f1d").await.unwrap().payload, "{}");
}

#[tokio::test]
async fn listener_and_transformer_reach_nothing_of_ours() {
    let server = server_with(USERS).await;
    let api = crate::rights::connect(&server, "api").await;
    api.create_layout().await.unwrap();
    for (user, password) in
        [("udm-listener", "EXTRA_UDMLISTENER"), ("udm-transformer", "EXTRA_UDMTRANSFORMER")]
    {
        let context = connect(&server, user, password).await;
        let event = context.publish("incoming.event", "{}".into()).await;
        assert!(event.unwrap().await.is_err(), "{user} published an event");
        for stream in ["incoming", "KV_SUBSCRIPTIONS", "KV_CREDENTIALS"] {
            assert!(context.get_stream(stream).await.is_err(), "{user} looked at {stream}");
            assert!(context.delete_stream(stream).await.is_err(), "{user} deleted {stream}");
        }
        // An answer goes wherever the asker says: nobody else may ask for one that is as it was stored.
        let direct = context.get_stream_no_info("KV_CACHE").await.unwrap();
        assert!(
            direct.direct_get_last_for_subject("$KV.CACHE.3f1d").await.is_err(),
            "{user} had a direct get"
        );
        let own = stream::Config {
            name: "mine".to_owned(),
            subjects: vec!["*.main".to_owned()],
            ..stream::Config::default()
        };
        assert!(context.create_stream(own).await.is_err(), "{user} made a stream");
    }
    // All is still there.
    api.await_layout().await.unwrap();
}
