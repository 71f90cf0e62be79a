//! A controller of the test's own, in this process, with a NATS of its own and a namespace in a real Kubernetes. Its
//! pods only wait: what a prefill pod does to the queue, the test does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use broker::{Broker, Claimed, Modified, testing::NatsServer};
use controller::{Config, LeaseConfig, Metrics, Rules};
use e2e::{Namespace, eventually};
use manifests::{JobTemplate, job_name};
use model::{
    Counts, Incarnation, Lifecycle, PrefillState, RealmTopic, Reason, Registration, Subscription,
    SubscriptionName,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Long enough for a machine that does other things, too.
pub const SOON: Duration = Duration::from_secs(60);

pub struct Controlled {
    pub namespace: Namespace,
    pub broker: Broker,
    template: Value,
    rules: Rules,
    max_running: usize,
    stop: CancellationToken,
    nats: NatsServer,
}

/// Deadlines that a test can wait for.
pub fn quick() -> Rules {
    Rules {
        start_deadline: Duration::from_secs(6),
        stuck_after: Duration::from_secs(4),
        settle: Duration::from_millis(500),
        linger: Duration::from_secs(4),
        grace: Duration::from_secs(1),
        retention_done: Duration::from_secs(3600),
        retention_failed: Duration::from_secs(3600),
        progress_every: Duration::from_secs(1),
    }
}

/// A pod that waits until it is asked to end. The image is the cluster's own, so nothing has to be built.
pub fn waiting_pod() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"labels": {"app.kubernetes.io/name": "headstart", "app.kubernetes.io/instance": "test"}},
        "spec": {"template": {"spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            "containers": [{
                "name": "prefill", "image": "localhost/pause:dev", "imagePullPolicy": "IfNotPresent",
                "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
            }],
        }}},
    })
}

impl Controlled {
    /// A namespace and a NATS, without a controller yet.
    pub async fn new(test: &str, template: Value, rules: Rules, max_running: usize) -> Result<Self> {
        let namespace = Namespace::create(test)?;
        let nats = NatsServer::start().await;
        let broker = nats.broker().await;
        let stop = CancellationToken::new();
        Ok(Self { namespace, broker, template, rules, max_running, stop, nats })
    }

    /// The same with a controller.
    pub async fn start(test: &str, template: Value, rules: Rules, max_running: usize) -> Result<Self> {
        let controlled = Self::new(test, template, rules, max_running).await?;
        controlled.run_controller(&controlled.stop).await?;
        Ok(controlled)
    }

    /// Starts a (further) controller.
    pub async fn run_controller(&self, stop: &CancellationToken) -> Result<Metrics> {
        let client = kube::Client::try_default().await?;
        let metrics = Metrics::default();
        let config = self.config()?;
        tokio::spawn(controller::run(
            config,
            self.broker.clone(),
            client,
            metrics.clone(),
            stop.child_token(),
        ));
        Self::await_ready(&metrics).await?;
        Ok(metrics)
    }

    /// Starts one that works only while it holds the Lease.
    pub async fn run_candidate(&self, holder: &str, stop: &CancellationToken) -> Result<Metrics> {
        let client = kube::Client::try_default().await?;
        let (metrics, config) = (Metrics::default(), self.config()?);
        let lease = LeaseConfig {
            namespace: config.namespace.clone(),
            name: "controller".to_owned(),
            holder: holder.to_owned(),
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
        })
    }

    async fn await_ready(metrics: &Metrics) -> Result<()> {
        eventually("the controller to be ready", SOON, async || {
            ensure!(metrics.is_ready());
            Ok(())
        })
        .await
    }

    /// A ready subscription whose API died before it made the Job.
    pub async fn subscribe(&self, name: &str) -> Result<Subject<'_>> {
        let registration = Registration {
            name: name.parse()?,
            realms_topics: vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            request_prefill: true,
            selection: None,
        };
        let incarnation = Incarnation(uuid::Uuid::new_v4());
        let mut entry = Subscription::reserve(registration, incarnation, 1, "2026-01-01T00:00:00".parse()?);
        entry.lifecycle = Lifecycle::Ready;
        self.broker.queue(&entry.name, incarnation).create(&entry).await?;
        self.broker.registry().create(&entry).await?;
        Ok(Subject { world: self, name: entry.name, incarnation })
    }

    /// The same with its boundary known: it may start.
    pub async fn subscribe_and_activate(&self, name: &str) -> Result<Subject<'_>> {
        let subject = self.subscribe(name).await?;
        subject.activate().await?;
        Ok(subject)
    }

    /// A subscription that was made before.
    pub fn subject(&self, name: SubscriptionName, incarnation: Incarnation) -> Subject<'_> {
        Subject { world: self, name, incarnation }
    }

    pub fn kill_nats(&mut self) {
        self.nats.kill();
    }

    pub async fn restart_nats(&mut self) {
        self.nats.restart().await;
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

/// One subscription.
pub struct Subject<'a> {
    pub world: &'a Controlled,
    pub name: SubscriptionName,
    pub incarnation: Incarnation,
}

impl Subject<'_> {
    pub async fn modify(&self, change: impl FnMut(&Subscription) -> Option<Subscription>) -> Result<()> {
        let modified = self.world.broker.registry().modify(&self.name, self.incarnation, change).await?;
        ensure!(matches!(modified, Modified::Changed(_)), "{modified:?}");
        Ok(())
    }

    /// What the dispatcher does at the marker.
    pub async fn activate(&self) -> Result<()> {
        self.modify(|s| s.with_boundary(s.incarnation, s.prefill.round, 1)).await
    }

    /// Asked again after a failure, by an API that died before it made the Job.
    pub async fn retry(&self) -> Result<()> {
        self.modify(|s| s.with_prefill_again("2026-01-02T00:00:00".parse().ok()?)).await
    }

    pub async fn entry(&self) -> Result<Subscription> {
        Ok(self.world.broker.registry().subscription(&self.name).await?.context("no entry")?.value)
    }

    /// Waits for a state with that reason.
    pub async fn expect(&self, state: PrefillState, reason: Option<Reason>) -> Result<Subscription> {
        let what = format!("{} to be {} {reason:?}", self.name, state.as_str());
        eventually(&what, SOON, async || {
            let entry = self.entry().await?;
            ensure!((entry.prefill.state, entry.prefill.reason) == (state, reason), "{:?}", entry.prefill);
            Ok(entry)
        })
        .await
    }

    /// What a pod does that has written everything.
    pub async fn seal(&self) -> Result<()> {
        let attempt = self.entry().await?.prefill.attempt;
        let queue = self.world.broker.queue(&self.name, self.incarnation);
        let Claimed::Holder(mut holder) = queue.claim_fence(1, attempt, "test").await? else {
            anyhow::bail!("no fence")
        };
        holder.seal(Counts::default()).await.map_err(Into::into)
    }

    pub fn job_name(&self, attempt: u32) -> String {
        job_name(&self.name, self.incarnation, attempt)
    }

    pub fn job(&self, attempt: u32) -> Result<Value> {
        self.world.namespace.get(&["job", &self.job_name(attempt)])
    }

    /// Waits until the Job satisfies a condition.
    pub async fn await_job(&self, what: &str, attempt: u32, good: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(what, SOON, async || {
            let job = self.job(attempt)?;
            ensure!(good(&job), "{job:#}");
            Ok(job)
        })
        .await
    }

    pub async fn await_job_gone(&self, attempt: u32) -> Result<()> {
        let name = self.job_name(attempt);
        eventually("the Job to be gone", SOON, async || {
            let left = self.world.namespace.kubectl(&["get", "jobs,configmaps", "-o", "name"])?;
            ensure!(!left.contains(&name), "{left}");
            Ok(())
        })
        .await
    }

    pub fn patch_job(&self, attempt: u32, patch: &Value) -> Result<()> {
        let (name, patch) = (self.job_name(attempt), patch.to_string());
        self.world.namespace.kubectl(&["patch", "job", &name, "--type=merge", "-p", &patch]).map(drop)
    }

    /// Waits for an Event on the Job with that word.
    pub async fn expect_event(&self, attempt: u32, word: &str) -> Result<()> {
        let selector = format!("involvedObject.name={},reason={word}", self.job_name(attempt));
        eventually(&format!("an Event {word}"), SOON, async || {
            let events = self.world.namespace.get(&["events", "--field-selector", &selector])?;
            ensure!(events["items"].as_array().is_some_and(|items| !items.is_empty()), "none");
            Ok(())
        })
        .await
    }
}
