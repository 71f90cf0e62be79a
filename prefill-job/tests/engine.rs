//! Attempts and workers on a real nats-server, with a dump as source.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{io::Write, sync::Arc, time::Duration};

use broker::{
    Broker, Copier, Delivered, Queue, ReaderConfig, Readers, TasksConfig,
    testing::{NatsServer, eventually, ready_subscription},
};
use model::{
    ExitCode, Incarnation, PrefillState, Reason, Selection, Subscription,
    fence::Counts,
    prefill::{Phase, PrefillTask},
    selection::Properties,
};
use prefill_job::{
    Failure, Metrics, Outcome, Shape, attempt,
    source::{
        Source,
        dump::Dump,
        udm::{self, Credentials, Retries, Udm},
    },
    worker,
};
use prometheus_client::registry::Registry;
use stand_in_udm::{Directory, Faults, Population, StandIn};
use tempfile::NamedTempFile;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);

fn dump(users: usize) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for n in 0..users {
        writeln!(file, r#"{{"dn":"uid=u{n},dc=x","objectType":"users/user","id":"u{n}","properties":{{}}}}"#)
            .unwrap();
    }
    writeln!(file, r#"{{"dn":"cn=g,dc=x","objectType":"groups/group","id":"g","properties":{{}}}}"#).unwrap();
    file
}

fn source(file: &NamedTempFile) -> Source {
    Source::Dump(Dump::new(file.path()))
}

async fn registered(broker: &Broker) -> (Subscription, Queue) {
    ready_subscription(broker, &["groups/group", "users/.*"]).await
}

async fn activate(s: &Subscription, queue: &Queue) {
    Copier::open(queue.clone()).await.unwrap().unwrap().mark(1, &s.marker()).await.unwrap();
}

async fn run(broker: &Broker, source: &Source, s: &Subscription) -> Outcome {
    attempt::run(broker, source, &PrefillTask::of(s), "pod", &CancellationToken::new()).await
}

async fn state(broker: &Broker, s: &Subscription) -> (PrefillState, Option<Reason>) {
    let prefill = broker.registry().subscription(&s.name).await.unwrap().unwrap().value.prefill;
    (prefill.state, prefill.reason)
}

async fn read_all(broker: &Broker, s: &Subscription) -> Vec<String> {
    let cancel = CancellationToken::new();
    let view = broker.registry().view(cancel.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    let mut ids = Vec::new();
    let wait = Duration::from_millis(100);
    while let Some(Delivered { payload, .. }) =
        readers.next(&s.name, s.incarnation, wait, &cancel, true).await.unwrap()
    {
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(json["publisher_name"], "udm-pre-fill");
        assert_eq!(json["topic"], json["body"]["new"]["objectType"]);
        ids.push(json["body"]["new"]["id"].as_str().unwrap().to_owned());
    }
    cancel.cancel();
    ids
}

fn expected(users: usize) -> Vec<String> {
    std::iter::once("g".to_owned()).chain((0..users).map(|n| format!("u{n}"))).collect()
}

#[tokio::test]
async fn an_attempt_waits_for_its_boundary_then_fills_in_the_order_of_the_topics() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    let file = dump(1200);
    let source = source(&file);
    let filling = run(&broker, &source, &s);
    tokio::pin!(filling);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut filling).await;
    assert!(early.is_err(), "it began before the queue showed its round: {early:?}");
    let progress = broker.progress().get(&s.name).await.unwrap().unwrap();
    assert_eq!((progress.phase, progress.done), (Phase::Waiting, 0));
    activate(&s, &queue).await;
    let outcome = tokio::time::timeout(SOON, filling).await.unwrap();
    assert_eq!(outcome, Outcome::Done(Some(Counts { messages: 1201, ..Counts::default() })));
    // Again: sealed, nothing is written twice.
    assert_eq!(run(&broker, &source, &s).await, outcome);
    let done = |s: &Subscription| s.with_prefill_state(PrefillState::Done, None, None, s.created.clone());
    broker.registry().modify(&s.name, s.incarnation, done).await.unwrap();
    assert_eq!(read_all(&broker, &s).await, expected(1200));
    // The attempt that found itself sealed has not written over it.
    let progress = broker.progress().get(&s.name).await.unwrap().unwrap();
    assert_eq!((progress.phase, progress.done, progress.total), (Phase::Done, 1201, Some(1201)));
    assert_eq!((progress.topic.as_deref(), progress.eta()), (None, Some(0.0)));
}

#[tokio::test]
async fn objects_are_selected_and_shaped_on_their_way() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    activate(&s, &queue).await;
    let file = dump(700);
    let selection = Selection {
        filter: None,
        position: Some("DC=X".into()),
        properties: Some(Properties::Keep(vec!["id".into()])),
    };
    let task = PrefillTask { selection: Some(selection), ..PrefillTask::of(&s) };
    let nowhere = Selection { position: Some("uid=u7,dc=x".into()), ..Selection::default() };
    let options = attempt::Options { shape: Shape::Live, ..attempt::Options::default() };
    let run = async |task: &PrefillTask| {
        let shutdown = CancellationToken::new();
        attempt::run_with(&broker, &source(&file), task, "pod", &shutdown, options.clone()).await
    };
    // No object of this dump has the property that is kept.
    let Outcome::Done(Some(counts)) = run(&task).await else { panic!("it is done") };
    assert!(matches!(&counts.warnings[..], [warning] if warning.contains("property id")), "{counts:?}");
    assert_eq!(Counts { warnings: vec![], ..counts }, Counts { messages: 701, ..Counts::default() });
    // The next attempt has another selection: one object of all.
    let again = PrefillTask { attempt: 2, selection: Some(nowhere), ..task.clone() };
    let Outcome::Done(Some(counts)) = run(&again).await else { panic!("it is done") };
    let expected = Counts { messages: 1, not_selected: 700, ..Counts::default() };
    assert_eq!(Counts { warnings: vec![], ..counts }, expected);
    let progress = broker.progress().get(&s.name).await.unwrap().unwrap();
    assert_eq!((progress.done, progress.total, progress.not_selected), (1, Some(701), 700));
    let entry = |s: &Subscription| {
        let mut s = s.with_prefill_state(PrefillState::Done, None, None, s.created.clone())?;
        s.prefill.attempt = 2;
        Some(s)
    };
    broker.registry().modify(&s.name, s.incarnation, entry).await.unwrap();
    // In the shape of live events the identifier is the id, and these have none.
    assert_eq!(read_all(&broker, &s).await, [""]);
    // What can't be evaluated never was in a registration; it does not fill a queue with all there is.
    let bad = Selection { filter: Some("no filter".into()), ..Selection::default() };
    let failed = run(&PrefillTask { attempt: 3, selection: Some(bad), ..task }).await;
    let Outcome::Failed(Failure { code, message, .. }) = failed else { panic!("{failed:?}") };
    assert!(code == ExitCode::BadRequest && message.contains("filter"), "{message}");
}

#[tokio::test]
async fn what_can_not_work_ends_with_its_code() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mut s, queue) = registered(&broker).await;
    activate(&s, &queue).await;
    let mut broken = NamedTempFile::new().unwrap();
    writeln!(broken, "{{\"objectType\": ").unwrap();
    let code = |outcome: &Outcome| outcome.exit_code();
    assert_eq!(code(&run(&broker, &source(&broken), &s).await), ExitCode::BadData);
    let missing = Source::Dump(Dump::new("/does/not/exist.jsonl"));
    let outcome = run(&broker, &missing, &s).await;
    assert!(
        matches!(&outcome, Outcome::Failed(Failure { message, .. }) if message.contains("/does/not/exist"))
    );
    assert_eq!(code(&outcome), ExitCode::BadRequest);
    s.incarnation = Incarnation(Uuid::new_v4());
    assert_eq!(code(&run(&broker, &source(&dump(1)), &s).await), ExitCode::SubscriptionGone);
}

#[tokio::test]
async fn an_object_that_nats_does_not_carry_is_set_aside_and_the_others_are_written() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    activate(&s, &queue).await;
    let mut file = dump(2);
    let huge = "x".repeat(broker.largest_message() + 1);
    writeln!(file, r#"{{"dn":"uid=huge,dc=x","objectType":"users/user","id":"{huge}","properties":{{}}}}"#)
        .unwrap();
    writeln!(file, r#"{{"dn":"uid=u2,dc=x","objectType":"users/user","id":"u2","properties":{{}}}}"#)
        .unwrap();
    let outcome = run(&broker, &source(&file), &s).await;
    assert_eq!(outcome, Outcome::Done(Some(Counts { messages: 4, set_aside: 1, ..Counts::default() })));
    let done = |s: &Subscription| s.with_prefill_state(PrefillState::Done, None, None, s.created.clone());
    broker.registry().modify(&s.name, s.incarnation, done).await.unwrap();
    assert_eq!(read_all(&broker, &s).await, expected(3));
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    let told: Vec<_> = letters.iter().map(|l| (l.letter.dn.as_deref(), l.is_kept())).collect();
    assert_eq!(told, [(Some("uid=huge,dc=x"), true)]);
    let kept = broker.dead_letters().message(&letters[0]).await.unwrap().unwrap();
    assert_eq!(kept.len() as u64, letters[0].letter.size);
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["body"]["new"]["id"], huge);
}

#[tokio::test]
async fn a_higher_attempt_ends_the_lower_one() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (mut s, queue) = registered(&broker).await;
    activate(&s, &queue).await;
    let file = dump(10);
    let source = source(&file);
    s.prefill.attempt = 2;
    assert!(matches!(run(&broker, &source, &s).await, Outcome::Done(_)));
    s.prefill.attempt = 1;
    assert_eq!(run(&broker, &source, &s).await, Outcome::Obsolete);
}

#[tokio::test]
async fn a_kill_of_the_server_in_the_middle_loses_and_repeats_nothing() {
    let mut server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    activate(&s, &queue).await;
    let file = dump(60_000);
    let source = source(&file);
    let filling = run(&broker, &source, &s);
    tokio::pin!(filling);
    // Until something is written.
    let begun = async {
        loop {
            if queue.pending().await.is_ok_and(|p| p.is_some_and(|p| p.prefill > 1000)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        () = begun => {}
        early = &mut filling => panic!("too fast to be interrupted: {early:?}"),
    }
    server.restart().await;
    // Not by another try: what was on its way is looked for, or written again.
    let outcome = tokio::time::timeout(Duration::from_secs(90), filling).await.unwrap();
    assert_eq!(outcome, Outcome::Done(Some(Counts { messages: 60_001, ..Counts::default() })));
    assert_eq!(queue.pending().await.unwrap().unwrap().prefill, 60_001);
}

fn start_worker(broker: &Broker, source: Source, tries_max: u64) -> (tokio::task::JoinHandle<()>, DropGuard) {
    start_worker_with(broker, source, tries_max, Metrics::default())
}

fn start_worker_with(
    broker: &Broker,
    source: Source,
    tries_max: u64,
    metrics: Metrics,
) -> (tokio::task::JoinHandle<()>, DropGuard) {
    let config = worker::Config {
        max_removals: model::resync::MaxRemovals::default(),
        parallel: 1,
        tries_max: Some(tries_max),
        holder: "worker".into(),
        tasks: TasksConfig { backoff: vec![Duration::from_millis(400), Duration::from_millis(800)] },
        shape: Shape::default(),
        metrics,
    };
    let shutdown = CancellationToken::new();
    let running = worker::run(config, broker.clone(), Arc::new(source), shutdown.clone());
    (tokio::spawn(running), shutdown.drop_guard())
}

#[tokio::test]
async fn a_worker_takes_the_task_and_records_the_end() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
    let file = dump(50);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let _worker = start_worker_with(&broker, source(&file), 3, metrics);
    eventually("running", SOON, async || state(&broker, &s).await.0, |s| *s == PrefillState::Running).await;
    activate(&s, &queue).await;
    eventually("done", SOON, async || state(&broker, &s).await.0, |s| *s == PrefillState::Done).await;
    assert_eq!(read_all(&broker, &s).await, expected(50));
    let gone = async || broker.tasks().contains(&PrefillTask::of(&s)).await.unwrap();
    eventually("the task to be finished", SOON, gone, |there| !there).await;
    // The task comes again, as after an answer that was lost: what is done stays so, and nobody is kept waiting.
    let entry = async || broker.registry().subscription(&s.name).await.unwrap().unwrap();
    let before = entry().await;
    broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
    eventually("the task to be finished again", SOON, gone, |there| !there).await;
    assert_eq!(entry().await, before);
    let figures = async || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let lines = [
        r#"headstart_worker_attempts_total{outcome="done"} 1"#,
        "headstart_worker_attempts_running 0",
        "headstart_worker_objects_written_total 51",
    ];
    let told = |text: &String| lines.iter().all(|line| text.lines().any(|l| l == *line));
    eventually("the figures", SOON, figures, told).await;
}

#[tokio::test]
async fn a_worker_that_dies_is_followed_by_another() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
    let file = dump(50);
    let (first, _guard) = start_worker(&broker, source(&file), 3);
    eventually("running", SOON, async || state(&broker, &s).await.0, |s| *s == PrefillState::Running).await;
    first.abort();
    let _second = start_worker(&broker, source(&file), 3);
    activate(&s, &queue).await;
    eventually("done", SOON, async || state(&broker, &s).await.0, |s| *s == PrefillState::Done).await;
    assert_eq!(read_all(&broker, &s).await, expected(50));
}

#[tokio::test]
async fn tries_are_limited_and_the_reason_is_recorded() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    activate(&s, &queue).await;
    broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
    // Nobody listens there.
    let credentials = Credentials::Basic { username: "cn=admin".into(), password: "secret".into() };
    let once = Retries { away: Duration::ZERO, ..Retries::default() };
    let config =
        udm::Config { retries: once, ..udm::Config::new("http://127.0.0.1:9/univention/udm/", credentials) };
    let _worker = start_worker(&broker, Source::Udm(Udm::new(config).unwrap()), 2);
    let failed =
        eventually("failed", SOON, async || state(&broker, &s).await, |s| s.0 == PrefillState::Failed).await;
    assert_eq!(failed.1, Some(Reason::SourceUnavailable));
    let prefill = broker.registry().subscription(&s.name).await.unwrap().unwrap().value.prefill;
    let message = prefill.message.unwrap();
    assert!(message.contains("gave up") && !message.contains("secret"), "{message}");
}

#[tokio::test]
async fn a_cancelled_prefill_stays_cancelled_whoever_was_first() {
    // The request that cancels may end between the fence and the entry.
    for entry_too in [true, false] {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let (s, queue) = registered(&broker).await;
        activate(&s, &queue).await;
        broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
        assert!(queue.cancel_fence(s.prefill.attempt).await.unwrap());
        if entry_too {
            let cancelled = |s: &Subscription| {
                s.with_prefill_state(PrefillState::Failed, Some(Reason::Cancelled), None, s.created.clone())
            };
            broker.registry().modify(&s.name, s.incarnation, cancelled).await.unwrap();
        }
        let revision = async || broker.registry().subscription(&s.name).await.unwrap().unwrap().revision;
        let before = revision().await;
        let file = dump(5);
        let _worker = start_worker(&broker, source(&file), 3);
        let queued = async || broker.tasks().contains(&PrefillTask::of(&s)).await.unwrap();
        eventually("the task to be gone", SOON, queued, |there| !there).await;
        assert_eq!(state(&broker, &s).await, (PrefillState::Failed, Some(Reason::Cancelled)), "{entry_too}");
        assert!(!entry_too || revision().await == before, "it was running in between");
    }
}

#[tokio::test]
async fn a_task_that_is_withdrawn_from_a_worker_leaves_it_free_for_the_next_attempt() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = registered(&broker).await;
    let task = PrefillTask::of(&s);
    broker.tasks().submit(&task).await.unwrap();
    let file = dump(5);
    // It waits for the boundary, with the only worker.
    let _worker = start_worker(&broker, source(&file), 3);
    eventually("running", SOON, async || state(&broker, &s).await.0, |s| *s == PrefillState::Running).await;
    assert!(queue.cancel_fence(s.prefill.attempt).await.unwrap());
    let cancelled = |s: &Subscription| {
        s.with_prefill_state(PrefillState::Failed, Some(Reason::Cancelled), None, s.created.clone())
    };
    broker.registry().modify(&s.name, s.incarnation, cancelled).await.unwrap();
    let other = PrefillTask { attempt: 7, ..task.clone() };
    broker.tasks().withdraw(&other).await.unwrap();
    assert!(broker.tasks().contains(&task).await.unwrap(), "that is another attempt");
    broker.tasks().withdraw(&task).await.unwrap();
    assert!(!broker.tasks().contains(&task).await.unwrap());
    activate(&s, &queue).await;
    let again = |s: &Subscription| s.with_prefill_again(s.created.clone());
    broker.registry().modify(&s.name, s.incarnation, again).await.unwrap();
    let current = broker.registry().subscription(&s.name).await.unwrap().unwrap().value;
    broker.tasks().submit(&PrefillTask::of(&current)).await.unwrap();
    eventually("done", SOON, async || state(&broker, &s).await.0, |s| *s == PrefillState::Done).await;
    assert_eq!(read_all(&broker, &s).await, expected(5));
}

#[tokio::test]
async fn a_task_that_comes_again_after_its_end_changes_nothing() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = ready_subscription(&broker, &["users/user", "no/such"]).await;
    activate(&s, &queue).await;
    let file = dump(5);
    let _worker = start_worker(&broker, source(&file), 3);
    let queued = async || broker.tasks().contains(&PrefillTask::of(&s)).await.unwrap();
    let mut done = None;
    for _ in 0..2 {
        broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
        eventually("the task to be finished", SOON, queued, |there| !there).await;
        assert_eq!(state(&broker, &s).await, (PrefillState::Done, Some(Reason::TopicsMissing)));
        let now = broker.registry().subscription(&s.name).await.unwrap().unwrap().revision;
        assert_eq!(*done.get_or_insert(now), now, "done never goes back to running");
    }
}

#[tokio::test]
async fn a_worker_keeps_its_task_for_as_long_as_it_works() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = ready_subscription(&broker, &["users/user"]).await;
    activate(&s, &queue).await;
    let population = Population { users: 30, photos_per_mille: 0, ..Population::default() };
    // Three seconds, and the task would come again after one and a half.
    let faults = Faults { get_delay_ms: 100, ..Faults::default() };
    let udm = StandIn::start(Directory::generated(population), faults).await.unwrap();
    let credentials = Credentials::Basic { username: "cn=admin".into(), password: "univention".into() };
    let one_by_one = udm::Config { concurrency_max: 1, ..udm::Config::new(udm.base_url(), credentials) };
    let source = Arc::new(Source::Udm(Udm::new(one_by_one).unwrap()));
    let config = worker::Config {
        // A twin is there to take it.
        parallel: 2,
        tries_max: Some(3),
        holder: "worker".into(),
        tasks: TasksConfig { backoff: vec![Duration::from_millis(1500)] },
        shape: Shape::default(),
        max_removals: model::resync::MaxRemovals::default(),
        metrics: Metrics::default(),
    };
    broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
    let shutdown = CancellationToken::new();
    let _working = tokio::spawn(worker::run(config, broker.clone(), source, shutdown.clone()));
    let _end = shutdown.drop_guard();
    eventually("done", SOON, async || state(&broker, &s).await.0, |s| *s == PrefillState::Done).await;
    assert_eq!(udm.counters().numbers().objects, 30, "each object was asked for once");
    assert_eq!(udm.counters().numbers().lists["users/user"], 1);
}
