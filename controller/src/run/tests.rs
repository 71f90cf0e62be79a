//! The whole loop on a real NATS and a Kubernetes whose calls go wrong: each fault on each kind of call, by itself.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::{Modified, testing::NatsServer};
use manifests::{JobTemplate, job_name};
use model::{
    Incarnation, PrefillState, RealmTopic, Reason, Subscription, SubscriptionName, Timestamp,
    fence::Counts,
    subscription::{Lifecycle, Registration},
};
use tokio_util::sync::DropGuard;

use super::*;
use crate::{
    Rules, WriteHook,
    testing::{
        TEMPLATE,
        cluster::{FakeCluster, Fault, Plan},
    },
};

/// Far more than any of it takes; what is left for ever is left then, too.
const SOON: Duration = Duration::from_secs(60);

fn at() -> Timestamp {
    "2026-01-01T00:00:00".parse().unwrap()
}

struct Scene {
    broker: Broker,
    cluster: FakeCluster,
    metrics: Metrics,
    _stop: DropGuard,
    _nats: NatsServer,
}

impl Scene {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(before_write: Option<WriteHook>) -> Self {
        let nats = NatsServer::start().await;
        let broker = nats.broker().await;
        let (cluster, metrics, stop) = (FakeCluster::new(), Metrics::default(), CancellationToken::new());
        let short = Duration::from_millis(100);
        let rules = Rules {
            settle: short,
            linger: short,
            grace: short,
            refused: Duration::from_secs(1),
            ..Rules::default()
        };
        let config = Config {
            namespace: "test".to_owned(),
            template: JobTemplate::parse(TEMPLATE).unwrap(),
            max_running: 1000,
            rules,
            reporter: "test".to_owned(),
            owner: None,
            before_write,
        };
        let (client, figures) = (cluster.client(), metrics.clone());
        tokio::spawn(run(config, broker.clone(), client, figures, stop.clone()));
        Self { broker, cluster, metrics, _stop: stop.drop_guard(), _nats: nats }
    }

    /// One that runs, is cancelled, asked for again, done, and removed. Whatever goes wrong meanwhile, in the end nothing
    /// is left of it.
    async fn story(&self, name: &str) {
        let incarnation = Incarnation(uuid::Uuid::new_v4());
        let registration = Registration {
            request_prefill: true,
            ..Registration::new(
                name.parse().unwrap(),
                vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            )
        };
        let mut entry = Subscription::reserve(registration, incarnation, 1, at());
        entry.lifecycle = Lifecycle::Ready;
        entry.prefill.boundary = Some(1);
        let subject = Subject { scene: self, name: entry.name.clone(), incarnation };
        subject.queue().create(&entry).await.unwrap();
        self.broker.registry().create(&entry).await.unwrap();
        subject.expect(1, PrefillState::Running).await;
        assert!(subject.queue().cancel_fence(1).await.unwrap());
        subject
            .modify(|s| s.with_prefill_state(PrefillState::Failed, Some(Reason::Cancelled), None, at()))
            .await;
        subject.expect_nothing_left(1).await;
        subject.modify(|s| s.with_prefill_again(at())).await;
        subject.expect(2, PrefillState::Running).await;
        let claimed = subject.queue().claim_fence(1, 2, "pod").await.unwrap();
        let broker::Claimed::Holder(mut holder) = claimed else { panic!("{claimed:?}") };
        holder.seal(Counts { messages: 7, ..Counts::default() }).await.unwrap();
        subject.expect(2, PrefillState::Done).await;
        self.broker.remove_subscription(&entry.name, incarnation).await.unwrap();
        subject.expect_nothing_left(2).await;
    }
}

struct Subject<'a> {
    scene: &'a Scene,
    name: SubscriptionName,
    incarnation: Incarnation,
}

impl Subject<'_> {
    fn queue(&self) -> broker::Queue {
        self.scene.broker.queue(&self.name, self.incarnation)
    }

    async fn modify(&self, change: impl FnMut(&Subscription) -> Option<Subscription>) {
        let modified = self.scene.broker.registry().modify(&self.name, self.incarnation, change).await;
        assert!(matches!(modified, Ok(Modified::Changed(_))), "{modified:?}");
    }

    async fn expect(&self, attempt: u32, state: PrefillState) {
        let began = Instant::now();
        loop {
            let entry = self.scene.broker.registry().subscription(&self.name).await.unwrap().unwrap().value;
            let prefill = &entry.prefill;
            if (prefill.attempt, prefill.state) == (attempt, state) {
                return;
            }
            assert!(began.elapsed() < SOON, "{}: {prefill:?} is not {state:?} of {attempt}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn expect_nothing_left(&self, attempt: u32) {
        let began = Instant::now();
        loop {
            let left = self.scene.cluster.left_of(&job_name(&self.name, self.incarnation, attempt));
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < SOON, "{}: {left:?} is left", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A 409 on a deletion, for one, left the Job of a removed subscription for ever.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_about_a_job_may_fail_in_each_way() {
    let scene = Scene::new().await;
    let mut names = vec![];
    let calls = [
        ("POST jobs", 1),
        ("POST configmaps", 1),
        ("GET jobs", 1),
        ("GET configmaps", 1),
        ("PATCH jobs", 3),
        ("DELETE jobs", 2),
    ];
    for (kind, times) in calls {
        for (after, fault) in (0..times).flat_map(|n| Fault::OF_CALLS.iter().map(move |fault| (n, *fault))) {
            let name = format!("s{}", names.len());
            let about = format!("-{name}-");
            scene.cluster.plan(Plan { kind, about: about.clone(), after, fault });
            let undone = !matches!(fault, Fault::AnswerLost | Fault::AnswerNever);
            if kind == "DELETE jobs" && after > 0 && undone {
                // At the removal, and when the entry is gone: there is no third occasion.
                scene.cluster.plan(Plan { kind, about, after: 0, fault });
            }
            names.push(name);
        }
    }
    futures::future::join_all(names.iter().map(|name| scene.story(name))).await;
    let unplayed = scene.cluster.unplayed();
    assert!(unplayed.is_empty(), "{unplayed:?}");
    let made = scene.cluster.made();
    assert!(made.len() == 2 * names.len() && made.values().all(|times| *times == 1), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_list_and_each_watch_may_fail_in_each_way() {
    let kinds = ["LIST jobs", "WATCH jobs", "LIST pods", "WATCH pods"];
    futures::future::join_all(kinds.map(async |kind| {
        let scene = Scene::new().await;
        for (number, fault) in Fault::OF_STREAMS.iter().enumerate() {
            let plan = Plan { kind, about: String::new(), after: 0, fault: *fault };
            if let Some(resource) = kind.strip_prefix("LIST ") {
                let kind = if resource == "jobs" { "WATCH jobs" } else { "WATCH pods" };
                scene.cluster.plan(Plan { kind, fault: Fault::Expired, ..plan.clone() });
            }
            scene.cluster.plan(plan);
            scene.cluster.cut();
            scene.story(&format!("s{number}")).await;
        }
        let unplayed = scene.cluster.unplayed();
        assert!(unplayed.is_empty(), "{unplayed:?}");
        assert!(scene.metrics.watch_interruptions.get() >= Fault::OF_STREAMS.len() as u64 / 2);
        assert!(scene.cluster.made().values().all(|times| *times == 1), "{:?}", scene.cluster.made());
    }))
    .await;
}

/// A fault of ours in a look costs that look only: it is counted, its place is given back, and the next look finds what is
/// left to be done.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_look_costs_that_look_only() {
    let panicked = Arc::new(Mutex::new(HashSet::new()));
    let seen = panicked.clone();
    let hook = WriteHook(Arc::new(move |what| {
        let first = seen.lock().unwrap_or_else(|error| error.into_inner()).insert(what.to_owned());
        assert!(!first, "a panic of the test");
        false
    }));
    let scene = Scene::with(Some(hook)).await;
    let names: Vec<_> = (0..2 * AT_ONCE).map(|number| format!("s{number}")).collect();
    futures::future::join_all(names.iter().map(|name| scene.story(name))).await;
    let kinds = panicked.lock().unwrap().len();
    assert!(kinds >= 5, "{kinds} kinds of writes");
    assert_eq!(scene.metrics.panics(), kinds as u64);
    assert!(scene.metrics.is_alive());
}
