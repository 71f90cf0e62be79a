//! A worker whose prefill is paused: it stops, others get its place, and nothing of it counts until it is resumed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{sync::Arc, time::Duration};

use broker::{
    Broker, Claimed, Copier, Modified, Queue, TasksConfig,
    testing::{NatsServer, eventually, ready_subscription_with},
};
use model::{
    Prefill, PrefillState, Reason, Subscription, fence::Counts, prefill::PrefillTask, resync::MaxRemovals,
};
use prefill_job::{
    Metrics, Shape,
    source::{
        Source,
        udm::{Config, Credentials, Udm},
    },
    worker,
};
use prometheus_client::registry::Registry;
use stand_in_udm::{Directory, Faults, Population, StandIn};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

const SOON: Duration = Duration::from_secs(60);
const USERS: u32 = 80;

struct Scene {
    server: NatsServer,
    broker: Broker,
    udm: StandIn,
    metrics: Metrics,
    figures: Registry,
}

impl Scene {
    async fn new() -> Self {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let population = Population { users: USERS, photos_per_mille: 0, ..Population::default() };
        // Some seconds, if one is read after the other.
        let faults = Faults { get_delay_ms: 50, ..Faults::default() };
        let udm = StandIn::start(Directory::generated(population), faults).await.unwrap();
        let mut figures = Registry::default();
        let metrics = Metrics::register(&mut figures);
        Self { server, broker, udm, metrics, figures }
    }

    /// With one place.
    fn worker(&self, tries_max: u64) -> (JoinHandle<()>, DropGuard) {
        let credentials = Credentials::Basic { username: "cn=admin".into(), password: "univention".into() };
        let one_by_one = Config { concurrency_max: 1, ..Config::new(self.udm.base_url(), credentials) };
        let source = Arc::new(Source::Udm(Udm::new(one_by_one).unwrap()));
        let config = worker::Config {
            parallel: 1,
            tries_max: Some(tries_max),
            holder: "worker".into(),
            tasks: TasksConfig { backoff: vec![Duration::from_millis(1500)] },
            shape: Shape::default(),
            max_removals: MaxRemovals::default(),
            metrics: self.metrics.clone(),
        };
        let shutdown = CancellationToken::new();
        let running = worker::run(config, self.broker.clone(), source, shutdown.clone());
        (tokio::spawn(running), shutdown.drop_guard())
    }

    /// A subscription whose prefill may begin, and its task.
    async fn asked(&self, name: &str, topic: &str) -> (Subscription, Queue) {
        let named =
            |registration: &mut model::subscription::Registration| registration.name = name.parse().unwrap();
        let (s, queue) = ready_subscription_with(&self.broker, &[topic], named).await;
        Copier::open(queue.clone()).await.unwrap().unwrap().mark(1, &s.marker()).await.unwrap();
        self.broker.tasks().submit(&PrefillTask::of(&s)).await.unwrap();
        (s, queue)
    }

    async fn prefill(&self, s: &Subscription) -> Prefill {
        self.broker.registry().subscription(&s.name).await.unwrap().unwrap().value.prefill
    }

    async fn state(&self, s: &Subscription) -> (PrefillState, Option<Reason>) {
        let prefill = self.prefill(s).await;
        (prefill.state, prefill.reason)
    }

    async fn is(&self, s: &Subscription, state: PrefillState, reason: Option<Reason>) {
        eventually("the state", SOON, async || self.state(s).await, |now| *now == (state, reason)).await;
    }

    async fn has_task(&self, s: &Subscription) -> bool {
        self.broker.tasks().contains(&PrefillTask::of(s)).await.unwrap()
    }

    async fn pause(&self, s: &Subscription) {
        let pause = |s: &Subscription| s.with_paused(true);
        let paused = self.broker.registry().modify(&s.name, s.incarnation, pause).await.unwrap();
        assert!(matches!(paused, Modified::Changed(_)));
    }

    /// As the API does it for one whose worker has stopped.
    async fn resume(&self, s: &Subscription) {
        let resume = |s: &Subscription| s.with_paused(false);
        let resumed = self.broker.registry().modify(&s.name, s.incarnation, resume).await.unwrap();
        assert!(matches!(resumed, Modified::Changed(_)));
        self.broker.tasks().withdraw(&PrefillTask::of(s)).await.unwrap();
        self.broker.tasks().submit(&PrefillTask::of(s)).await.unwrap();
    }

    async fn figure(&self, line: &str) {
        let text = async || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &self.figures).unwrap();
            text
        };
        eventually(line, SOON, text, |text| text.lines().any(|l| l == line)).await;
    }
}

async fn written(queue: &Queue) -> u64 {
    queue.pending().await.unwrap().unwrap().prefill
}

#[tokio::test]
async fn a_paused_prefill_stops_gives_its_place_to_others_and_goes_on_when_it_is_resumed() {
    let scene = Scene::new().await;
    let (s, queue) = scene.asked("mail", "users/user").await;
    // Nothing may be tried twice.
    let _worker = scene.worker(1);
    eventually("some are written", SOON, async || written(&queue).await, |n| *n > 3).await;
    scene.pause(&s).await;
    scene.is(&s, PrefillState::Running, Some(Reason::Paused)).await;
    eventually("no task", SOON, async || scene.has_task(&s).await, |there| !there).await;
    scene.figure("headstart_worker_attempts_running 0").await;
    scene.figure(r#"headstart_worker_attempts_total{outcome="paused"} 1"#).await;
    let so_far = (written(&queue).await, scene.udm.counters().numbers().objects);
    assert!(so_far.0 < u64::from(USERS), "all {} were written", so_far.0);

    let (other, _) = scene.asked("chat", "groups/group").await;
    scene.is(&other, PrefillState::Done, None).await;
    let groups = scene.udm.directory().dns("groups/group").len() as u64;
    let now = (written(&queue).await, scene.udm.counters().numbers().objects - groups);
    assert_eq!(now, so_far, "something was read or written of what is paused");
    assert_eq!(scene.prefill(&s).await.attempts, []);

    scene.resume(&s).await;
    scene.is(&s, PrefillState::Done, None).await;
    assert_eq!(written(&queue).await, u64::from(USERS), "all of them, once");
    let ended: Vec<_> = scene.prefill(&s).await.attempts.iter().map(|a| (a.attempt, a.state)).collect();
    assert_eq!(ended, [(1, PrefillState::Done)]);
    eventually("no task", SOON, async || scene.has_task(&s).await, |there| !there).await;
}

#[tokio::test]
async fn who_is_paused_before_a_worker_takes_the_task_does_not_begin() {
    let scene = Scene::new().await;
    let (s, queue) = scene.asked("mail", "groups/group").await;
    scene.pause(&s).await;
    let _worker = scene.worker(1);
    scene.is(&s, PrefillState::Pending, Some(Reason::Paused)).await;
    eventually("no task", SOON, async || scene.has_task(&s).await, |there| !there).await;
    assert_eq!(queue.fence().await.unwrap().unwrap().value.attempt, 0);
    scene.resume(&s).await;
    assert_eq!(scene.prefill(&s).await.message, None, "it is not paused any more");
    scene.is(&s, PrefillState::Done, None).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_while_it_is_paused_costs_no_try() {
    let mut scene = Scene::new().await;
    let (s, queue) = scene.asked("mail", "users/user").await;
    let (first, _guard) = scene.worker(1);
    eventually("some are written", SOON, async || written(&queue).await, |n| *n > 3).await;
    scene.pause(&s).await;
    // Before it has seen that, or after; either way the task is not to stay.
    first.abort();
    let (second, _guard) = scene.worker(1);
    scene.is(&s, PrefillState::Running, Some(Reason::Paused)).await;
    eventually("no task", SOON, async || scene.has_task(&s).await, |there| !there).await;
    second.abort();
    scene.server.restart().await;
    scene.resume(&s).await;
    // The third, and it may try once.
    let _third = scene.worker(1);
    scene.is(&s, PrefillState::Done, None).await;
    assert_eq!(written(&queue).await, u64::from(USERS));
}

/// The worker died after the fence was written, and before the entry was.
#[tokio::test]
async fn what_had_ended_when_it_was_paused_is_seen_when_it_is_resumed() {
    for (end, expected) in [
        ("sealed", (PrefillState::Done, None)),
        ("held", (PrefillState::Failed, Some(Reason::TooManyRemovals))),
        ("cancelled", (PrefillState::Failed, Some(Reason::Cancelled))),
    ] {
        let scene = Scene::new().await;
        let (s, queue) = scene.asked("mail", "users/user").await;
        let Claimed::Holder(mut fence) = queue.claim_fence(1, 1, "dead").await.unwrap() else {
            panic!("nobody else has it")
        };
        match end {
            "sealed" => fence.seal(Counts::default()).await.unwrap(),
            "held" => fence.hold(Counts::default(), vec![]).await.unwrap(),
            _ => assert!(queue.cancel_fence(1).await.unwrap()),
        }
        scene.pause(&s).await;
        let _worker = scene.worker(1);
        scene.is(&s, PrefillState::Pending, Some(Reason::Paused)).await;
        scene.resume(&s).await;
        eventually(end, SOON, async || scene.state(&s).await, |now| *now == expected).await;
        assert!(!scene.prefill(&s).await.paused);
        assert_eq!(scene.udm.counters().numbers().objects, 0, "{end}: nothing is read again");
    }
}
