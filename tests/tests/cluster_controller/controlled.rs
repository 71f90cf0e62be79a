//! A controller of the test's own, in this process, with a NATS of its own and a namespace in a real Kubernetes. Its
//! pods only wait: what a prefill pod does to the queue, the test does.

use std::{sync::Mutex, time::Duration};

use anyhow::{Context, Result, ensure};
use broker::{Broker, Revised, testing::NatsServer};
use controller::{Config, LeaseConfig, Metrics, Rules, WriteHook};
use e2e::{Namespace, eventually};
use manifests::JobTemplate;
use model::{
    Entry, Incarnation, PrefillState, RealmTopic, Reason, Subscription, SubscriptionName,
    subscription::{Lifecycle, Registration},
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;

use crate::{log, recorder::Recorder, test_subscription::TestSubscription};

/// Long enough for a machine that does other things, too.
pub const SOON: Duration = Duration::from_secs(60);

pub struct Controlled {
    pub namespace: Namespace,
    pub broker: Broker,
    template: Value,
    rules: Rules,
    pub max_running: usize,
    stop: CancellationToken,
    /// What was seen of the Jobs, by a watch of the test's own.
    pub seen: Recorder,
    figures: Mutex<Vec<Registry>>,
    pub before_write: Option<WriteHook>,
    nats: NatsServer,
    _node: Node,
}

/// There is one node: most tests share it, a few want it for themselves. Each begins by taking this.
static NODE: RwLock<()> = RwLock::const_new(());

/// Our part of the node.
enum Node {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Own(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

/// Deadlines that a test can wait for; but a busy machine may take its time to start a pod.
pub fn quick() -> Rules {
    Rules {
        start_deadline: Duration::from_secs(50),
        // What has failed is to be seen as failed.
        start_again: vec![],
        stuck_after: Duration::from_secs(4),
        late_after: Duration::from_secs(300),
        settle: Duration::from_millis(500),
        linger: Duration::from_secs(4),
        grace: Duration::from_secs(1),
        retention_done: Duration::from_secs(3600),
        retention_failed: Duration::from_secs(3600),
        refused: Duration::from_secs(2),
        progress_every: Duration::from_secs(1),
    }
}

/// A pod that waits until it is asked to end, and then is not complete. The image is the cluster's own, so nothing has to be built.
pub fn waiting_pod() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"labels": {"app.kubernetes.io/name": "headstart", "app.kubernetes.io/instance": "test"}},
        "spec": {"template": {"spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            "containers": [{
                "name": "prefill", "image": "localhost/pause:dev", "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "DO", "value": "work"}],
                "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
            }],
        }}},
    })
}

/// The pod of a template.
pub fn pod(template: &mut Value) -> &mut Value {
    &mut template["spec"]["template"]["spec"]
}

/// Its container.
pub fn container(template: &mut Value) -> &mut Value {
    &mut pod(template)["containers"][0]
}

/// Does the Job wait?
pub fn suspended(job: &Value) -> bool {
    job["spec"]["suspend"] == true
}

/// A pod that does what the ConfigMap `do` says when it starts: see `tests/cluster/pause`.
pub fn obedient_pod() -> Value {
    let mut template = waiting_pod();
    container(&mut template)["env"][0] =
        json!({"name": "DO", "valueFrom": {"configMapKeyRef": {"name": "do", "key": "do"}}});
    template
}

impl Controlled {
    /// A namespace and a NATS, without a controller yet.
    pub async fn new(test: &str, template: Value, rules: Rules, max_running: usize) -> Result<Self> {
        let node = Node::Shared(NODE.read().await);
        Self::on(node, test, template, rules, max_running).await
    }

    /// The same with a controller, while no other test uses the node.
    pub async fn start_alone(test: &str, template: Value, rules: Rules, max_running: usize) -> Result<Self> {
        let node = Node::Own(NODE.write().await);
        let controlled = Self::on(node, test, template, rules, max_running).await?;
        controlled.run_controller(&controlled.stop).await?;
        Ok(controlled)
    }

    async fn on(node: Node, test: &str, template: Value, rules: Rules, max_running: usize) -> Result<Self> {
        let namespace = Namespace::create(test)?;
        let nats = NatsServer::start().await;
        let broker = nats.broker().await;
        log::listen();
        let stop = CancellationToken::new();
        let seen = Recorder::start(&namespace.name, &stop).await?;
        let (figures, before_write) = (Mutex::default(), None);
        Ok(Self {
            namespace,
            broker,
            template,
            rules,
            max_running,
            stop,
            seen,
            figures,
            before_write,
            nats,
            _node: node,
        })
    }

    /// The same with a controller.
    pub async fn start(test: &str, template: Value, rules: Rules, max_running: usize) -> Result<Self> {
        let controlled = Self::new(test, template, rules, max_running).await?;
        controlled.run_controller(&controlled.stop).await?;
        Ok(controlled)
    }

    /// Starts a (further) controller.
    pub async fn run_controller(&self, stop: &CancellationToken) -> Result<Metrics> {
        self.run_controller_by(self.rules.clone(), stop).await
    }

    /// Starts one that goes by rules of its own.
    pub async fn run_controller_by(&self, rules: Rules, stop: &CancellationToken) -> Result<Metrics> {
        let client = controller::client(kube::Config::infer().await?)?;
        let metrics = self.spawn(Config { rules, ..self.config()? }, client, stop);
        Self::await_ready(&metrics).await?;
        Ok(metrics)
    }

    /// Starts one that talks to the API server in a way of its own, and does not wait until it is ready.
    pub fn run_controller_with(&self, client: kube::Client, stop: &CancellationToken) -> Result<Metrics> {
        Ok(self.spawn(self.config()?, client, stop))
    }

    fn spawn(&self, config: Config, client: kube::Client, stop: &CancellationToken) -> Metrics {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        self.figures.lock().unwrap().push(registry);
        let (broker, told, stop) = (self.broker.clone(), metrics.clone(), stop.child_token());
        tokio::spawn(controller::run(config, broker, client, told, stop));
        metrics
    }

    /// Starts one that works only while it holds the Lease.
    pub async fn run_candidate(&self, holder: &str, stop: &CancellationToken) -> Result<Metrics> {
        let client = kube::Client::try_default().await?;
        let (metrics, config) = (Metrics::default(), self.config()?);
        let lease = LeaseConfig {
            namespace: config.namespace.clone(),
            name: "controller".to_owned(),
            holder: holder.to_owned(),
            owner: None,
        };
        let (broker, figures, stop) = (self.broker.clone(), metrics.clone(), stop.child_token());
        tokio::spawn(async move {
            let work = |stop| controller::run(config, broker, client.clone(), figures.clone(), stop);
            controller::lead(client.clone(), &lease, &figures, &stop, work).await
        });
        Self::await_ready(&metrics).await?;
        Ok(metrics)
    }

    fn config(&self) -> Result<Config> {
        Ok(Config {
            namespace: self.namespace.name.clone(),
            template: JobTemplate::parse(&self.template.to_string())?,
            max_running: self.max_running,
            rules: self.rules.clone(),
            reporter: "test".to_owned(),
            owner: None,
            before_write: self.before_write.clone(),
        })
    }

    /// Tells pods of [`obedient_pod`] what to do from now on.
    pub fn tell_pods(&self, what: &str) -> Result<()> {
        self.namespace.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "do"},
                                     "data": {"do": what}}))
    }

    /// How often controllers of this test have counted that change.
    pub fn counted(&self, state: PrefillState, reason: Option<Reason>) -> u64 {
        let word = reason.map_or("", Reason::as_str);
        let line =
            format!("headstart_prefill_changes_total{{state=\"{}\",reason=\"{word}\"}} ", state.as_str());
        let mut text = String::new();
        for registry in self.figures.lock().unwrap().iter() {
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        }
        text.lines().filter_map(|l| l.strip_prefix(&line)?.parse::<u64>().ok()).sum()
    }

    pub async fn await_ready(metrics: &Metrics) -> Result<()> {
        eventually("the controller to be ready", SOON, async || {
            ensure!(metrics.is_ready());
            Ok(())
        })
        .await
    }

    /// A ready subscription whose API died before it made the Job.
    pub async fn subscribe(&self, name: &str) -> Result<TestSubscription<'_>> {
        let registration = Registration {
            request_prefill: true,
            ..Registration::new(
                name.parse()?,
                vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            )
        };
        let incarnation = Incarnation(uuid::Uuid::new_v4());
        let registry = self.broker.registry();
        let (revision, first) = match registry.get(&registration.name).await? {
            Some(Revised { value: Entry::Tombstone(former), revision }) => (revision, former.next_sequence),
            Some(taken) => anyhow::bail!("the name is taken: {taken:?}"),
            None => (0, 1),
        };
        let mut entry =
            Subscription::reserve(registration, incarnation, first, "2026-01-01T00:00:00".parse()?);
        entry.lifecycle = Lifecycle::Ready;
        self.broker.queue(&entry.name, incarnation).create(&entry).await?;
        registry.update(&entry.name, &Entry::Subscription(entry.clone()), revision).await?;
        Ok(TestSubscription { world: self, name: entry.name, incarnation })
    }

    /// The same with its boundary known: it may start.
    pub async fn subscribe_and_activate(&self, name: &str) -> Result<TestSubscription<'_>> {
        let subject = self.subscribe(name).await?;
        subject.activate().await?;
        Ok(subject)
    }

    /// A subscription that was made before.
    pub fn subject(&self, name: SubscriptionName, incarnation: Incarnation) -> TestSubscription<'_> {
        TestSubscription { world: self, name, incarnation }
    }

    pub fn kill_nats(&mut self) {
        self.nats.kill();
    }

    pub async fn restart_nats(&mut self) {
        self.nats.restart().await;
    }

    /// A controller that is told to stop by this ends with the test.
    pub fn stop(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Jobs of the test's namespace.
    pub fn jobs(&self) -> Result<Vec<Value>> {
        Ok(self.namespace.get(&["jobs"])?["items"].as_array().context("no list")?.clone())
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
