//! Each component does its work with the rights that its user has on the chart's NATS server, and no more.

use std::time::Duration;

use broker::{
    Broker, Claimed, NatsConfig, ReaderConfig, Readers, Removal, Secret, StreamLimits, TasksConfig,
    testing::{NatsServer, eventually},
};
use bytes::Bytes;
use model::{
    Incarnation, PrefillState, RealmTopic, Subscription,
    dead_letter::{DeadLetter, DeadLetterReason, Origin},
    fence::Counts,
    prefill::{PrefillTask, Progress},
    resync::{KnownObject, KnownObjects},
    subscription::{Lifecycle, Registration},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::helm::{kind, name, render_with};

const SOON: Duration = Duration::from_secs(20);

/// A nats-server with the users of that launcher.
pub async fn server(launcher: &str) -> NatsServer {
    server_with(&["--set", &format!("launcher={launcher}")]).await
}

/// A nats-server with the users of the rendered configuration.
pub async fn server_with(options: &[&str]) -> NatsServer {
    let objects = render_with("minimal", options);
    let config = objects.iter().find(|o| kind(o) == "ConfigMap" && name(o).ends_with("-nats")).unwrap();
    let config = config["data"]["nats.conf"].as_str().unwrap();
    let users = &config[config.find("authorization {").unwrap()..];
    // Passwords are the components' names here. The test's own look at the server is nobody in particular.
    let users = users.replace("$NATS_PASSWORD_", "").replacen(
        "users: [",
        "users: [ {user: nobody, password: nobody}",
        1,
    );
    NatsServer::start_with(&format!("no_auth_user: nobody\n{users}")).await
}

pub async fn connect(server: &NatsServer, component: &'static str) -> Broker {
    let config = NatsConfig {
        user: Some(component.to_owned()),
        password: Some(Secret::new(component.to_uppercase())),
        ..server.config(component)
    };
    Broker::connect(&config).await.unwrap()
}

/// What the API does for a registration.
async fn register(api: &Broker, name: &str) -> Subscription {
    let registration = Registration {
        request_prefill: true,
        track: true,
        ..Registration::new(
            name.parse().unwrap(),
            vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
        )
    };
    let now = "2026-01-01T00:00:00".parse().unwrap();
    let s = Subscription::reserve(registration, Incarnation(Uuid::new_v4()), 1, now);
    api.registry().create(&s).await.unwrap();
    api.queue(&s.name, s.incarnation).create(&s).await.unwrap();
    api.credentials().put(&s.name, s.incarnation, "$argon2id$x").await.unwrap();
    let ready = |s: &Subscription| Some(Subscription { lifecycle: Lifecycle::Ready, ..s.clone() });
    api.registry().modify(&s.name, s.incarnation, ready).await.unwrap();
    api.events().marker(&s).await.unwrap();
    s
}

/// What an attempt does.
async fn fill(writer: &Broker, s: &Subscription) {
    writer.await_layout().await.unwrap();
    let queue = writer.queue(&s.name, s.incarnation);
    assert!(queue.checkpoint().await.unwrap().is_some());
    let Claimed::Holder(mut holder) = queue.claim_fence(1, 1, "pod").await.unwrap() else {
        panic!("the fence is free")
    };
    holder.purge_below().await.unwrap();
    let object = Bytes::from_static(EVENT);
    let known = KnownObjects { objects: KnownObject::named_by(EVENT), ..KnownObjects::default() };
    let (messages, known) = ([object.clone(), object], [known]);
    // What is not allowed is tried for long.
    let written = tokio::time::timeout(SOON, holder.write_knowing(1, &messages, &known)).await;
    written.expect("an attempt can't write").unwrap();
    // What the dispatcher has recorded, and what the attempt has.
    assert_eq!(queue.known_from(1, true).await.unwrap()[0].known.objects.len(), 2);
    assert_eq!(queue.known_from(holder.claimed_at(), false).await.unwrap().len(), 1);
    let progress = Progress {
        done: 2,
        total: Some(2),
        rate: 1.0,
        ..Progress::new(s.incarnation, 1, model::prefill::Phase::Reading)
    };
    writer.progress().put(&s.name, &progress).await.unwrap();
    let contained = queue.live_from(1).await.unwrap().unwrap().sequence;
    holder.seal_leaving_out(Counts { messages: 2, ..Counts::default() }, vec![contained]).await.unwrap();
    holder.forget_known().await.unwrap();
    assert_eq!(queue.known_from(1, false).await.unwrap().len(), 1);
}

/// What controller and worker do when they find the seal.
async fn record_done(broker: &Broker, s: &Subscription) {
    assert_eq!(broker.queue(&s.name, s.incarnation).remove_contained(1).await.unwrap(), 1);
    let now: model::Timestamp = "2026-01-02T00:00:00".parse().unwrap();
    let done = |s: &Subscription| s.with_prefill_state(PrefillState::Done, None, None, now.clone());
    broker.registry().modify(&s.name, s.incarnation, done).await.unwrap();
}

async fn dispatch(dispatcher: &Broker, s: &Subscription) {
    let shutdown = CancellationToken::new();
    let metrics = dispatcher::Metrics::default();
    let running =
        dispatcher::run(dispatcher::Config::default(), dispatcher.clone(), metrics, shutdown.clone());
    let running = tokio::spawn(running);
    let queue = dispatcher.queue(&s.name, s.incarnation);
    eventually(
        "the events in the queue",
        SOON,
        async || queue.pending().await.unwrap().unwrap().main,
        |main| *main == 2,
    )
    .await;
    eventually(
        "the boundary",
        SOON,
        async || dispatcher.registry().subscription(&s.name).await.unwrap(),
        |s| s.as_ref().is_some_and(|s| s.value.prefill.boundary.is_some()),
    )
    .await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// The dispatcher sets a message aside, and the API sends it again.
async fn send_again(dispatcher: &Broker, api: &Broker, s: &Subscription) {
    let letter = DeadLetter {
        incarnation: s.incarnation,
        origin: Origin::Live { incoming_seq: 1 },
        reason: DeadLetterReason::TooLarge,
        problem: None,
        topic: "users/user".into(),
        dn: None,
        size: EVENT.len() as u64,
        limit: 1,
        at: s.created.clone(),
    };
    dispatcher.dead_letters().set_aside(&s.name, &letter, EVENT).await.unwrap();
    let letters = api.dead_letters().list(s, 0, 10).await.unwrap();
    let message = api.dead_letters().message(&letters[0]).await.unwrap().unwrap();
    let last = api.event_log().last_sequence().await.unwrap();
    api.redeliver(&s.name, &letters[0], message).await.unwrap();
    assert_eq!(api.event_log().last_sequence().await.unwrap(), last + 1);
    assert!(api.dead_letters().list(s, 0, 10).await.unwrap().is_empty());
}

/// What the dispatcher does at the limits.
async fn removing(dispatcher: &Broker, s: &Subscription) {
    let queue = dispatcher.queue(&s.name, s.incarnation);
    queue.sweep(Duration::ZERO).await.unwrap();
    // Of an entry that it can't read.
    assert!(dispatcher.has_queue_of(&s.name).await.unwrap());
    let at = "2026-01-03T00:00:00".parse().unwrap();
    let given_up = model::limits::GivenUp { at, limit: model::limits::Limit::Bytes, live: 0, prefill: 0 };
    assert!(dispatcher.give_up(&s.name, s.incarnation, &given_up).await.unwrap());
}

const EVENT: &[u8] =
    br#"{"realm":"udm","topic":"users/user","body":{"old":{},"new":{"dn":"uid=a,dc=x","objectType":"users/user"}}}"#;

async fn post_events(api: &Broker) {
    let event = Bytes::from_static(EVENT);
    for _ in 0..2 {
        api.events().publish(event.clone(), Instant::now()).await.unwrap();
    }
}

/// Reads and acknowledges two messages of the prefill, and the one live message that is left.
async fn consume(api: &Broker, s: &Subscription) {
    let shutdown = CancellationToken::new();
    let view = api.registry().view(shutdown.clone());
    view.synced().await;
    let readers = Readers::new(api.clone(), view, ReaderConfig::default());
    let message = readers.next(&s.name, s.incarnation, SOON, &shutdown, false).await.unwrap().unwrap();
    assert!(readers.acknowledge(&s.name, s.incarnation, message.id.sequence).await.unwrap());
    let batch = readers.batch(&s.name, s.incarnation, SOON, &shutdown, 10).await.unwrap();
    assert_eq!(batch.len(), 1, "the rest of the prefill");
    // A stream hears of an acknowledgement, and goes on.
    let stream = readers.stream(&s.name, s.incarnation, 1, None, shutdown.clone()).await;
    let mut stream = stream.unwrap().unwrap();
    assert_eq!(stream.next(SOON).await.unwrap().len(), 1);
    let through = readers.acknowledge_through(&s.name, s.incarnation, batch[0].id.sequence).await;
    assert_eq!(through.unwrap(), 1);
    let live = stream.next(SOON).await.unwrap();
    assert!(readers.acknowledge(&s.name, s.incarnation, live[0].id.sequence).await.unwrap());
    // Waits at the end of the queue, which takes a consumer.
    let more = readers.next(&s.name, s.incarnation, Duration::from_millis(300), &shutdown, false).await;
    assert!(more.unwrap().is_none());
    shutdown.cancel();
}

#[tokio::test]
async fn with_kubernetes_each_component_does_its_work() {
    let server = server("kubernetes").await;
    let api = connect(&server, "api").await;
    api.create_layout().await.unwrap();
    api.create_layout().await.unwrap();
    let mail = register(&api, "mail").await;
    post_events(&api).await;
    dispatch(&connect(&server, "dispatcher").await, &mail).await;
    fill(&connect(&server, "prefill").await, &mail).await;

    let controller = connect(&server, "controller").await;
    controller.await_layout().await.unwrap();
    let shutdown = CancellationToken::new();
    controller.registry().view(shutdown.clone()).synced().await;
    shutdown.cancel();
    assert!(controller.queue(&mail.name, mail.incarnation).fence().await.unwrap().is_some());
    controller.progress().get(&mail.name).await.unwrap();
    record_done(&controller, &mail).await;
    controller.events().marker(&mail).await.unwrap();
    assert_eq!(controller.registry().list().await.unwrap().entries.len(), 1);
    consume(&api, &mail).await;
    let dispatcher = connect(&server, "dispatcher").await;
    send_again(&dispatcher, &api, &mail).await;
    removing(&dispatcher, &mail).await;
    api.raise_queue_limits().await.unwrap();
    assert_eq!(api.remove_subscription(&mail.name, mail.incarnation).await.unwrap(), Removal::Removed);

    let chat = register(&api, "chat").await;
    assert!(controller.queue(&chat.name, chat.incarnation).cancel_fence(1).await.unwrap());
    assert_eq!(controller.remove_subscription(&chat.name, chat.incarnation).await.unwrap(), Removal::Removed);
}

#[tokio::test]
async fn with_the_task_queue_each_component_does_its_work() {
    let server = server("queue").await;
    let api = connect(&server, "api").await;
    api.create_layout().await.unwrap();
    let mail = register(&api, "mail").await;
    post_events(&api).await;
    api.tasks().submit(&PrefillTask::of(&mail)).await.unwrap();
    dispatch(&connect(&server, "dispatcher").await, &mail).await;

    let worker = connect(&server, "worker").await;
    let task = worker.tasks().next(&TasksConfig::default(), SOON).await.unwrap().unwrap();
    task.in_progress().await.unwrap();
    fill(&worker, &mail).await;
    record_done(&worker, &mail).await;
    task.finish().await.unwrap();
    let shutdown = CancellationToken::new();
    worker.registry().view(shutdown.clone()).synced().await;
    shutdown.cancel();
    consume(&api, &mail).await;
    assert_eq!(api.remove_subscription(&mail.name, mail.incarnation).await.unwrap(), Removal::Removed);

    // A removal that died before its task was gone.
    let chat = register(&api, "chat").await;
    api.tasks().submit(&PrefillTask::of(&chat)).await.unwrap();
    let controller = connect(&server, "controller").await;
    assert_eq!(controller.remove_subscription(&chat.name, chat.incarnation).await.unwrap(), Removal::Removed);
}

/// NATS answers what is not allowed with silence, so each of these takes the time of a call.
#[tokio::test]
async fn nobody_does_the_work_of_others() {
    let server = server("kubernetes").await;
    let api = connect(&server, "api").await;
    api.create_layout().await.unwrap();
    let mail = register(&api, "mail").await;
    let (prefill, dispatcher) = (connect(&server, "prefill").await, connect(&server, "dispatcher").await);
    // What is there already would have to be changed.
    let limits = StreamLimits { log_bytes: Some(1 << 20), ..StreamLimits::default() };
    let controller = connect(&server, "controller").await.with_limits(limits);
    let (pn, pc, dc) = (prefill.registry(), prefill.credentials(), dispatcher.credentials());
    let (ps, es, de) = (prefill.queue(&mail.name, mail.incarnation), prefill.events(), dispatcher.events());
    let change = |s: &Subscription| Some(Subscription { lifecycle: Lifecycle::Deleting, ..s.clone() });
    let (entries, hashes, hashes_too, entry, marker, marker_too, layout, queue) = tokio::join!(
        pn.get(&mail.name),
        pc.get(&mail.name),
        dc.get(&mail.name),
        pn.modify(&mail.name, mail.incarnation, change),
        es.marker(&mail),
        de.marker(&mail),
        controller.create_layout(),
        ps.create(&mail),
    );
    assert!(entries.is_err(), "a prefill reads the subscriptions");
    assert!(hashes.is_err() && hashes_too.is_err(), "only API and controller read password hashes");
    assert!(entry.is_err(), "a prefill changes a subscription");
    assert!(marker.is_err() && marker_too.is_err(), "only API and controller send markers");
    assert!(layout.is_err(), "only the API makes streams");
    assert!(queue.is_err(), "a prefill makes a queue");
    assert_eq!(api.registry().get(&mail.name).await.unwrap().map(|e| e.revision > 0), Some(true));
}
