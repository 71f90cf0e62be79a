use std::collections::BTreeSet;

use broker::{
    Revised,
    testing::{NatsServer, eventually},
};
use model::{Entry, RealmTopic, subscription::Registration};

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn entry(name: &str, lifecycle: Lifecycle) -> Subscription {
    let registration = Registration {
        request_prefill: true,
        ..Registration::new(
            name.parse().unwrap(),
            vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
        )
    };
    let incarnation = Incarnation(uuid::Uuid::new_v4());
    let mut entry =
        Subscription::reserve(registration, incarnation, 1, "2026-01-01T00:00:00".parse().unwrap());
    entry.lifecycle = lifecycle;
    entry
}

fn with_boundary(mut entry: Subscription) -> Subscription {
    entry.prefill.boundary = Some(3);
    entry
}

/// At which seconds the chore is due, when the entry stays as it is.
fn due_at(entry: &Subscription, config: &SweepConfig, until_s: u64) -> Vec<(u64, Chore)> {
    let mut sightings = Sightings::default();
    (0..=until_s)
        .flat_map(|s| {
            let now = Duration::from_secs(s);
            due(std::iter::once(entry), &mut sightings, config, now)
                .into_iter()
                .map(move |(_, chore)| (s, chore))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn what_lacks_something_for_a_while_is_due() {
    use Chore::{FinishRemoval, Marker, RollBack, Task};
    let jobs = SweepConfig::default();
    let tasks = SweepConfig { task_after: Some(Duration::from_secs(10)), ..jobs };
    let ready = || entry("mail", Lifecycle::Ready);
    let done = {
        let mut entry = with_boundary(ready());
        entry.prefill.state = PrefillState::Done;
        entry
    };
    let live_only = {
        let mut entry = ready();
        (entry.prefill.round, entry.prefill.attempt, entry.prefill.state) = (0, 0, PrefillState::Done);
        entry
    };
    for (name, entry, config, first) in [
        ("a round without a boundary", ready(), &jobs, Some((5, Marker))),
        ("no prefill asked for, not activated", live_only, &jobs, Some((5, Marker))),
        ("a prefill as a Job", with_boundary(ready()), &jobs, None),
        ("a prefill as a task", with_boundary(ready()), &tasks, Some((10, Task))),
        ("a prefill as a task, paused", with_boundary(ready()).with_paused(true).unwrap(), &tasks, None),
        ("a prefill that is done", done, &tasks, None),
        ("a removal", entry("mail", Lifecycle::Deleting), &jobs, Some((30, FinishRemoval))),
        ("a registration", entry("mail", Lifecycle::Registering), &jobs, Some((600, RollBack))),
    ] {
        assert_eq!(due_at(&entry, config, 600).first().copied(), first, "{name}");
    }
}

#[test]
fn a_dispatcher_that_is_away_does_not_fill_the_log_with_markers() {
    let seconds: Vec<u64> = due_at(&entry("mail", Lifecycle::Ready), &SweepConfig::default(), 3600)
        .into_iter()
        .map(|(second, _)| second)
        .collect();
    assert_eq!(seconds[..8], [5, 15, 35, 75, 155, 315, 615, 915]);
    assert_eq!(seconds.len(), 16, "every five minutes at last: {seconds:?}");
}

#[test]
fn a_new_incarnation_counts_anew() {
    let config = SweepConfig::default();
    let mut sightings = Sightings::default();
    let first = entry("mail", Lifecycle::Deleting);
    let second = entry("mail", Lifecycle::Deleting);
    let at = Duration::from_secs;
    assert!(due(std::iter::once(&first), &mut sightings, &config, at(0)).is_empty());
    assert!(due(std::iter::once(&second), &mut sightings, &config, at(30)).is_empty());
    assert_eq!(due(std::iter::once(&second), &mut sightings, &config, at(60)).len(), 1);
}

fn quick() -> SweepConfig {
    let at_once = Duration::from_millis(1);
    SweepConfig {
        every: Duration::from_millis(20),
        marker_after: at_once,
        marker_every_max: Duration::from_millis(100),
        deleting_grace: at_once,
        registering_grace: at_once,
        progress_grace: at_once,
        orphans_every: at_once,
        task_after: Some(at_once),
    }
}

struct Swept {
    broker: Broker,
    metrics: Metrics,
    stop: CancellationToken,
    _server: NatsServer,
}

impl Swept {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let stop = CancellationToken::new();
        let view = broker.registry().view(stop.clone());
        let metrics = Metrics::default();
        tokio::spawn(run(broker.clone(), view, quick(), metrics.clone(), stop.clone()));
        Self { broker, metrics, stop, _server: server }
    }

    async fn put(&self, entry: &Subscription) {
        self.broker.registry().create(entry).await.unwrap();
    }

    async fn entry(&self, name: &str) -> Option<Entry> {
        let name = name.parse().unwrap();
        self.broker.registry().get(&name).await.unwrap().map(|entry: Revised<Entry>| entry.value)
    }
}

impl Drop for Swept {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_marker_that_got_lost_is_sent_again_until_its_boundary_is_known() {
    let swept = Swept::start().await;
    let mail = entry("mail", Lifecycle::Ready);
    swept.put(&mail).await;
    let log = swept.broker.event_log();
    eventually("a marker", SOON, || async { log.last_sequence().await.unwrap() }, |last| *last >= 2).await;
    let registry = swept.broker.registry();
    registry.modify(&mail.name, mail.incarnation, |s| s.with_boundary(s.incarnation, 1, 1)).await.unwrap();
    // At most one more, which was under way; then none for several sweeps.
    let settled = eventually(
        "the markers to end",
        SOON,
        || async {
            let before = log.last_sequence().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            (before, log.last_sequence().await.unwrap())
        },
        |(before, after)| before == after,
    )
    .await;
    assert!(settled.0 >= 2);
}

#[tokio::test]
async fn a_removal_that_died_is_finished_with_all_that_belonged_to_it() {
    let swept = Swept::start().await;
    let mail = entry("mail", Lifecycle::Deleting);
    swept.broker.queue(&mail.name, mail.incarnation).create(&mail).await.unwrap();
    swept.put(&mail).await;
    let tombstone = |entry: &Option<Entry>| matches!(entry, Some(Entry::Tombstone(_)));
    eventually("the tombstone", SOON, || swept.entry("mail"), tombstone).await;
    assert!(!swept.broker.queue(&mail.name, mail.incarnation).exists().await.unwrap());
}

#[tokio::test]
async fn progress_that_comes_after_the_removal_is_removed_but_not_that_of_the_next_one() {
    let progress = |incarnation| model::prefill::Progress {
        done: 1,
        ..model::prefill::Progress::new(incarnation, 1, model::prefill::Phase::Reading)
    };
    let swept = Swept::start().await;
    let board = swept.broker.progress();
    let mail = with_boundary(entry("mail", Lifecycle::Ready));
    swept.broker.queue(&mail.name, mail.incarnation).create(&mail).await.unwrap();
    swept.put(&mail).await;
    swept.broker.remove_subscription(&mail.name, mail.incarnation).await.unwrap();
    board.put(&mail.name, &progress(mail.incarnation)).await.unwrap();
    // A sweep that begins later finds the tombstone.
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let view = swept.broker.registry().view(stop.clone());
    tokio::spawn(run(swept.broker.clone(), view, quick(), Metrics::default(), stop));
    eventually("it to be gone", SOON, async || board.get(&mail.name).await.unwrap(), Option::is_none).await;

    let chat = with_boundary(entry("chat", Lifecycle::Ready));
    swept.put(&chat).await;
    board.put(&chat.name, &progress(chat.incarnation)).await.unwrap();
    leftovers::clear(&swept.broker, &chat.name).await.unwrap();
    assert!(board.get(&chat.name).await.unwrap().is_some());
}

#[test]
fn what_is_gone_or_another_one_is_looked_at_after_the_grace() {
    let (first, second) = (entry("mail", Lifecycle::Ready), entry("mail", Lifecycle::Ready));
    let (at, grace) = (Duration::from_secs, Duration::from_secs(60));
    let mut leftovers = Leftovers::default();
    leftovers.note(std::iter::once(&first), at(0), grace);
    leftovers.note(std::iter::once(&first), at(1), grace);
    leftovers.note(std::iter::once(&second), at(2), grace);
    assert!(leftovers.take_due(at(61)).is_empty());
    assert_eq!(leftovers.take_due(at(62)), std::slice::from_ref(&first.name));
    assert!(leftovers.take_due(at(99)).is_empty());
    leftovers.note(std::iter::empty(), at(100), grace);
    assert_eq!(leftovers.take_due(at(160)), [first.name]);
}

#[tokio::test]
async fn a_registration_that_died_is_rolled_back_but_never_a_ready_one() {
    let swept = Swept::start().await;
    let dead = entry("dead", Lifecycle::Registering);
    swept.put(&dead).await;
    eventually("the tombstone", SOON, || swept.entry("dead"), |e| matches!(e, Some(Entry::Tombstone(_))))
        .await;

    // The client completes it while the sweep has decided to roll it back.
    let mail = entry("mail", Lifecycle::Registering);
    swept.stop.cancel();
    swept.put(&Subscription { lifecycle: Lifecycle::Ready, ..mail.clone() }).await;
    perform(&swept.broker, &mail, Chore::RollBack, &Metrics::default()).await.unwrap();
    match swept.entry("mail").await {
        Some(Entry::Subscription(found)) => assert_eq!(found.lifecycle, Lifecycle::Ready),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_task_that_was_never_queued_is_queued_once() {
    let swept = Swept::start().await;
    let names = ["a", "b"];
    for name in names {
        swept.put(&with_boundary(entry(name, Lifecycle::Ready))).await;
    }
    let tasks = swept.broker.tasks();
    let config = broker::TasksConfig { backoff: vec![Duration::from_secs(60)] };
    let mut taken = BTreeSet::new();
    let mut held = vec![];
    for _ in names {
        let task = tasks.next(&config, SOON).await.unwrap().expect("a task");
        taken.insert(task.request.clone().unwrap().subscription.to_string());
        held.push(task);
    }
    assert_eq!(taken, BTreeSet::from(names.map(ToOwned::to_owned)));
    // In the hands of workers now: not queued again.
    assert!(tasks.next(&config, Duration::from_millis(500)).await.unwrap().is_none());
}

/// The request that resumed it died before it queued the task.
#[tokio::test]
async fn a_paused_prefill_gets_no_task_and_a_resumed_one_gets_it() {
    let swept = Swept::start().await;
    let mail = with_boundary(entry("mail", Lifecycle::Ready));
    swept.put(&mail.with_paused(true).unwrap()).await;
    let there = async || swept.broker.tasks().contains(&PrefillTask::of(&mail)).await.unwrap();
    // As one that saw it before it was paused.
    perform(&swept.broker, &mail, Chore::Task, &Metrics::default()).await.unwrap();
    assert!(!there().await);
    let resume = |s: &Subscription| s.with_paused(false);
    swept.broker.registry().modify(&mail.name, mail.incarnation, resume).await.unwrap();
    eventually("the task", SOON, there, |there| *there).await;
}

/// With `launcher: queue` nobody else knows of all prefills.
#[tokio::test]
async fn whoever_sweeps_counts_the_prefills() {
    let swept = Swept::start().await;
    let failed = crate::decide::world::World::new().state(PrefillState::Failed, Some(model::Reason::BadData));
    swept.put(failed.entry()).await;
    let began = Instant::now();
    while swept.metrics.with_state("failed") != 1 {
        assert!(began.elapsed() < Duration::from_secs(20), "not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(swept.metrics.is_leading(), "an alert asks whether somebody works");
}
