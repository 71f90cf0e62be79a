//! Whole attempts: UDM as source, a real nats-server, and either of them in trouble.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{sync::Arc, time::Duration};

use broker::{
    Broker, Copier, Delivered, Queue, ReaderConfig, Readers, TasksConfig,
    testing::{NatsServer, eventually, ready_subscription},
};
use model::{
    ExitCode, PrefillState, Subscription, dead_letter::DeadLetterReason, fence::Counts, prefill::PrefillTask,
};
use prefill_job::{
    Failure, Metrics, Outcome, Shape, attempt,
    source::{
        Source,
        udm::{BrokenObjects, Config, Credentials, MissingTypes, Retries, Udm},
    },
    worker,
};
use stand_in_udm::{Directory, Effect, Faults, On, Population, Rule, Settings, StandIn};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(60);
const USERS: u32 = 400;

async fn stand_in() -> StandIn {
    let population = Population { users: USERS, groups: 3, photos_per_mille: 20, ..Population::default() };
    // So slow that something can happen in between.
    let faults = Faults { get_delay_ms: 20, ..Faults::default() };
    StandIn::start(Directory::generated(population), faults).await.unwrap()
}

fn source(udm: &StandIn, change: impl FnOnce(&mut Config)) -> Source {
    let credentials = Credentials::Basic { username: "cn=admin".into(), password: "univention".into() };
    let mut config = Config::new(udm.base_url(), credentials);
    config.retries = Retries {
        first_wait: Duration::from_millis(5),
        usual_wait_max: Duration::from_millis(100),
        ..Retries::default()
    };
    config.missing_wait = Duration::from_millis(50);
    change(&mut config);
    Source::Udm(Udm::new(config).unwrap())
}

async fn registered(broker: &Broker, topics: &[&str]) -> (Subscription, Queue) {
    let (s, queue) = ready_subscription(broker, topics).await;
    Copier::open(queue.clone()).await.unwrap().unwrap().mark(1, &s.marker()).await.unwrap();
    (s, queue)
}

async fn run(broker: &Broker, source: &Source, s: &Subscription) -> Outcome {
    attempt::run(broker, source, &PrefillTask::of(s), "pod", &CancellationToken::new()).await
}

async fn written(queue: &Queue) -> u64 {
    queue.pending().await.ok().flatten().map_or(0, |pending| pending.prefill)
}

/// DNs as a consumer reads them.
async fn dns(broker: &Broker, s: &Subscription) -> Vec<String> {
    let done = |s: &Subscription| s.with_prefill_state(PrefillState::Done, None, None, s.created.clone());
    broker.registry().modify(&s.name, s.incarnation, done).await.unwrap();
    let cancel = CancellationToken::new();
    let view = broker.registry().view(cancel.clone());
    view.synced().await;
    let readers = Readers::new(broker.clone(), view, ReaderConfig::default());
    let (mut dns, wait) = (Vec::new(), Duration::from_millis(200));
    while let Some(Delivered { payload, .. }) =
        readers.next(&s.name, s.incarnation, wait, &cancel, true).await.unwrap()
    {
        let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        dns.push(message["body"]["new"]["dn"].as_str().unwrap().to_owned());
    }
    cancel.cancel();
    dns
}

fn done(messages: u32) -> Outcome {
    Outcome::Done(Some(Counts { messages: messages.into(), ..Counts::default() }))
}

#[tokio::test]
async fn udm_is_started_again_in_the_middle_and_all_comes_once_in_order() {
    let (server, udm) = (NatsServer::start().await, stand_in().await);
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, &["groups/group", "users/user"]).await;
    let (address, directory) = (udm.address(), udm.directory().clone());
    let source = source(&udm, |_| {});
    let restart = async {
        eventually("some users are written", SOON, async || written(&queue).await, |n| *n > 50).await;
        udm.stop().await.unwrap();
        let settings = Settings { listen: address, ..Settings::default() };
        StandIn::start_with(settings, directory.clone(), Faults::default()).await.unwrap()
    };
    let (outcome, _udm) = tokio::join!(run(&broker, &source, &s), restart);
    assert_eq!(outcome, done(USERS + 4));
    let expected = [directory.dns("groups/group"), directory.dns("users/user")].concat();
    assert_eq!(dns(&broker, &s).await, expected);
}

#[tokio::test]
async fn nats_is_started_again_in_the_middle_and_all_comes_once_in_order() {
    let (mut server, udm) = (NatsServer::start().await, stand_in().await);
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, &["users/user"]).await;
    let source = source(&udm, |_| {});
    let restart = async {
        eventually("some users are written", SOON, async || written(&queue).await, |n| *n > 50).await;
        server.restart().await;
    };
    let (outcome, ()) = tokio::join!(run(&broker, &source, &s), restart);
    assert_eq!(outcome, done(USERS));
    assert_eq!(dns(&broker, &s).await, udm.directory().dns("users/user"));
}

/// The prefill takes longer than the pause after which NATS hands its task to somebody else.
#[tokio::test]
async fn a_worker_keeps_its_task_as_long_as_it_works() {
    let server = NatsServer::start().await;
    let users = 50;
    let population = Population { users, groups: 0, ..Population::default() };
    let slow = Faults { get_delay_ms: 100, ..Faults::default() };
    let udm = StandIn::start(Directory::generated(population), slow).await.unwrap();
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, &["users/user"]).await;
    broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
    let config = worker::Config {
        parallel: 2,
        tries_max: None,
        holder: "worker".to_owned(),
        tasks: TasksConfig { backoff: vec![Duration::from_secs(3)] },
        shape: Shape::default(),
        max_removals: model::resync::MaxRemovals::default(),
        metrics: Metrics::default(),
    };
    let one_by_one = source(&udm, |config| config.concurrency_max = 1);
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(worker::run(config, broker.clone(), Arc::new(one_by_one), stop));
    let state = async || broker.registry().subscription(&s.name).await.unwrap().unwrap().value.prefill.state;
    eventually("done", SOON, state, |state| *state == PrefillState::Done).await;
    assert_eq!(udm.counters().numbers().objects, u64::from(users), "each was asked for once");
    assert_eq!(written(&queue).await, u64::from(users));
}

#[tokio::test]
async fn nats_is_full_which_is_told_and_the_next_try_goes_through_when_there_is_room() {
    let account = |megabytes: u32| {
        format!(
            "accounts {{ A {{ jetstream {{ max_mem: 1GB, max_file: {megabytes}MB, max_streams: -1 }}, \
             users: [{{ user: a, password: a }}] }} }}\nno_auth_user: a"
        )
    };
    let mut server = NatsServer::start_with(&account(4_000)).await;
    let udm = stand_in().await;
    let broker = server.broker().await;
    let (s, _) = registered(&broker, &["users/user"]).await;
    // Less than the users take.
    let photos = Population { users: 100, photos_per_mille: 1000, ..Population::default() };
    let photos = StandIn::start(Directory::generated(photos), Faults::default()).await.unwrap();
    server.restart_with("8MB", &account(2)).await;
    let source_of_photos = source(&photos, |_| {});
    // A batch that was not written is tried again for a minute: room may be made.
    let outcome = tokio::time::timeout(SOON * 2, run(&broker, &source_of_photos, &s)).await.unwrap();
    let Outcome::Failed(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.code, ExitCode::Transient);
    assert!(failure.message.contains("resource") || failure.message.contains("full"), "{}", failure.message);
    server.restart_with("8MB", &account(4_000)).await;
    let outcome = tokio::time::timeout(SOON, run(&broker, &source(&udm, |_| {}), &s)).await.unwrap();
    assert_eq!(outcome, done(USERS));
    assert_eq!(dns(&broker, &s).await, udm.directory().dns("users/user"));
}

#[tokio::test]
async fn what_is_broken_or_missing_is_in_dead_letters_progress_and_result() {
    let (server, udm) = (NatsServer::start().await, stand_in().await);
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, &["no/.*", "users/user"]).await;
    let all = udm.directory().dns("users/user");
    udm.faults().update(|faults| faults.get_delay_ms = 0);
    udm.faults().add(Rule::new(Effect::Status { code: 500 }).dn(&all[7]));
    udm.faults().add(Rule::new(Effect::Vanish).dn(&all[8]));
    let strict = source(&udm, |config| {
        (config.missing_types, config.broken_objects) = (MissingTypes::Fail, BrokenObjects::Fail);
    });
    let as_they_are = run(&broker, &strict, &s).await;
    let Outcome::Failed(failure) = &as_they_are else { panic!("{as_they_are:?}") };
    assert!(failure.code == ExitCode::Transient && failure.message.contains("no/.*"), "{}", failure.message);
    let outcome = run(&broker, &source(&udm, |_| {}), &s).await;
    let missing = vec!["no/.*".to_owned()];
    let counts =
        Counts { messages: u64::from(USERS) - 2, skipped: 1, set_aside: 1, missing, ..Counts::default() };
    assert_eq!(outcome, Outcome::Done(Some(counts)));
    assert!(outcome.termination_message().message.contains("no/.*"));
    let progress = broker.progress().get(&s.name).await.unwrap().unwrap();
    assert_eq!((progress.set_aside, progress.missing.as_slice()), (1, &["no/.*".to_owned()][..]));
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    let [stored] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(
        (stored.letter.reason, stored.letter.dn.as_deref()),
        (DeadLetterReason::Unreadable, Some(all[7].as_str()))
    );
    assert!(
        stored.letter.problem.as_ref().is_some_and(|problem| problem.contains("500")) && !stored.is_kept()
    );
    let fence = queue.fence().await.unwrap().unwrap().value;
    assert_eq!(fence.counts.map(|counts| counts.missing.len()), Some(1));
    let expected: Vec<_> = all.iter().filter(|dn| **dn != all[7] && **dn != all[8]).cloned().collect();
    assert_eq!(dns(&broker, &s).await, expected);
}

#[tokio::test]
async fn a_group_larger_than_nats_carries_is_a_dead_letter_and_the_rest_is_there() {
    let server = NatsServer::start_with("").await;
    let broker = server.broker().await;
    let population = Population { users: 140_000, groups: 5, photos_per_mille: 0, ..Population::default() };
    let udm = StandIn::start(Directory::generated(population), Faults::default()).await.unwrap();
    let (s, queue) = registered(&broker, &["groups/group"]).await;
    let outcome = tokio::time::timeout(SOON, run(&broker, &source(&udm, |_| {}), &s)).await.unwrap();
    let counts = Counts { messages: 5, set_aside: 1, ..Counts::default() };
    assert_eq!(outcome, Outcome::Done(Some(counts)));
    assert_eq!(written(&queue).await, 5);
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    assert_eq!(letters[0].letter.reason, DeadLetterReason::TooLarge);
    assert!(letters[0].is_kept() && letters[0].letter.size > 8 << 20);
}

/// Runs an attempt like a pod that is killed when so many messages are in the queue.
async fn killed_after(messages: u64, broker: &Broker, source: &Source, s: &Subscription, queue: &Queue) {
    tokio::select! {
        outcome = run(broker, source, s) => panic!("too fast to be killed: {outcome:?}"),
        _ = eventually("enough is written", SOON, async || written(queue).await, |n| *n >= messages) => {}
    }
}

#[tokio::test]
async fn the_next_pod_begins_anew_after_a_kill_and_nothing_comes_twice() {
    let (server, udm) = (NatsServer::start().await, stand_in().await);
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, &["groups/group", "users/user"]).await;
    let source = source(&udm, |_| {});
    killed_after(200, &broker, &source, &s, &queue).await;
    // What was read already is not there any more, and something is there that was not.
    udm.directory().remove(&udm.directory().dns("users/user")[0]).unwrap();
    udm.directory().put(r#"{"dn":"uid=new,dc=x","objectType":"users/user"}"#).unwrap();
    assert_eq!(run(&broker, &source, &s).await, done(USERS + 4));
    let expected = [udm.directory().dns("groups/group"), udm.directory().dns("users/user")].concat();
    assert_eq!(dns(&broker, &s).await, expected);
}

#[tokio::test]
async fn a_pod_that_was_overtaken_while_it_was_thought_dead_adds_nothing() {
    let (server, udm) = (NatsServer::start().await, stand_in().await);
    let broker = server.broker().await;
    let (s, queue) = registered(&broker, &["users/user"]).await;
    let source = source(&udm, |_| {});
    let twin = async {
        eventually("the first has begun", SOON, async || written(&queue).await, |n| *n >= 100).await;
        run(&broker, &source, &s).await
    };
    let (first, second) = tokio::join!(run(&broker, &source, &s), twin);
    assert!(matches!(first, Outcome::Failed(Failure { lost_to_twin: true, .. })), "{first:?}");
    assert_eq!(second, done(USERS));
    assert_eq!(dns(&broker, &s).await, udm.directory().dns("users/user"));
}

#[tokio::test]
async fn a_replica_that_lags_is_waited_for_before_anything_is_listed() {
    let (server, udm) = (NatsServer::start().await, stand_in().await);
    let broker = server.broker().await;
    let (s, _) = registered(&broker, &["users/user"]).await;
    udm.faults().update(|faults| faults.get_delay_ms = 0);
    let lagging = source(&udm, |config| config.lag = Duration::from_secs(2));
    let arrives = async {
        let phase = async || broker.progress().get(&s.name).await.unwrap().map(|progress| progress.phase);
        eventually("it waits", SOON, phase, |phase| *phase == Some(model::prefill::Phase::Waiting)).await;
        assert_eq!(udm.counters().numbers().index, 0);
        udm.directory().put(r#"{"dn":"uid=late,dc=x","objectType":"users/user"}"#).unwrap();
    };
    let (outcome, ()) = tokio::join!(run(&broker, &lagging, &s), arrives);
    assert_eq!(outcome, done(USERS + 1));
    // Where UDM reads the primary there is nothing to wait for.
    let primary = source(&udm, |config| {
        (config.lag, config.reads_primary) = (Duration::from_secs(3600), true);
    });
    let again = PrefillTask { attempt: 2, ..PrefillTask::of(&s) };
    let outcome = attempt::run(&broker, &primary, &again, "pod", &CancellationToken::new()).await;
    assert_eq!(outcome, done(USERS + 1));
}

#[tokio::test]
async fn many_objects_that_are_gone_are_a_warning_and_what_nobody_could_read_a_dead_letter() {
    let (server, udm) = (NatsServer::start().await, stand_in().await);
    let broker = server.broker().await;
    let (s, _) = registered(&broker, &["groups/group", "test/thing"]).await;
    let half = r#"{"dn":"cn=half,dc=x","objectType":"test/thing","properties":{"note":"HALF"}}"#;
    udm.directory().put(half).unwrap();
    // The stand-in keeps an object's bytes, and reads them first: so the half comes from its answer.
    udm.faults().add(Rule::new(Effect::VanishAfter).on(On::List).module("groups/group"));
    udm.faults()
        .add(Rule::new(Effect::Replace { from: "HALF".into(), to: "\\ud800".into() }).dn("cn=half,dc=x"));
    let outcome = run(&broker, &source(&udm, |_| {}), &s).await;
    let Outcome::Done(Some(counts)) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((counts.skipped, counts.set_aside, counts.warnings.len()), (4, 1, 1));
    assert!(counts.warnings[0].contains("4 of 4 objects of groups/group"), "{:?}", counts.warnings);
    assert!(outcome.termination_message().message.contains("groups/group"));
    let progress = broker.progress().get(&s.name).await.unwrap().unwrap();
    assert_eq!(progress.warnings, counts.warnings);
    let letters = broker.dead_letters().list(&s, 0, 10).await.unwrap();
    let letter = &letters[0].letter;
    assert_eq!(letter.dn.as_deref(), Some("cn=half,dc=x"));
    assert!(letter.problem.as_deref().is_some_and(|problem| problem.contains("surrogate")), "{letter:?}");
}
