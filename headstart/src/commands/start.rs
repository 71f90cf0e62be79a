//! What components need to begin: a socket, NATS with its layout, Kubernetes.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use api::{NotReady, Waiting};
use broker::{Broker, NatsConfig};
use manifests::JobTemplate;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::settings::{Jobs, Log, Queues};

/// How long a prefill's pod waits for NATS before it leaves the next try to Kubernetes.
pub const NATS_WITHIN: Duration = Duration::from_secs(60);
/// Pauses between two tries.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is logged what is waited for.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// How a component begins: it waits for NATS and what is in it without an end, says for what, and hears the stop
/// meanwhile.
#[derive(Clone)]
pub struct Beginning {
    pub waiting: Waiting,
    shutdown: CancellationToken,
    connected: Arc<OnceLock<Broker>>,
}

impl Beginning {
    pub fn new(shutdown: &CancellationToken) -> Self {
        let waiting = Waiting::default();
        waiting.set("the start");
        Self { waiting, shutdown: shutdown.clone(), connected: Arc::default() }
    }

    /// Why the component is not ready; `more`: beside what is needed for the beginning.
    pub fn not_ready(&self, more: impl Fn() -> Option<String> + Send + Sync + 'static) -> NotReady {
        let Self { waiting, connected, .. } = self.clone();
        Arc::new(move || match waiting.what() {
            Some(what) => Some(format!("waiting for {what}")),
            None if connected.get().is_some_and(|nats| !nats.is_connected()) => {
                Some("NATS is away".to_owned())
            }
            None => more(),
        })
    }

    /// Closes the connection, if there is one.
    pub async fn close(&self) {
        if let Some(broker) = self.connected.get() {
            broker.close().await;
        }
    }

    /// Connects to NATS. `None`: stopped before.
    pub async fn connect(&self, config: &NatsConfig) -> anyhow::Result<Option<Broker>> {
        let connect = async || Broker::connect(config).await;
        let Some(broker) = self.until("NATS", connect).await? else { return Ok(None) };
        self.connected.set(broker.clone()).ok();
        Ok(Some(broker))
    }

    /// Connects, and waits for the streams and buckets that the API makes.
    pub async fn connect_with_layout(&self, config: &NatsConfig) -> anyhow::Result<Option<Broker>> {
        let Some(broker) = self.connect(config).await? else { return Ok(None) };
        let found = self.until("what the API makes in NATS", async || broker.await_layout().await).await?;
        self.waiting.over();
        Ok(found.map(|()| broker))
    }

    /// Makes what all share in NATS, with these limits, which queues that exist follow.
    pub async fn with_layout(
        &self,
        broker: Broker,
        log: &Log,
        queues: &Queues,
    ) -> anyhow::Result<Option<Broker>> {
        let broker = broker.with_limits(log.streams(queues));
        let made = self.until("streams and buckets in NATS", async || broker.create_layout().await).await;
        if made.context("preparing NATS")?.is_none() {
            return Ok(None);
        }
        match self.shutdown.run_until_cancelled(broker.raise_queue_limits()).await {
            None => return Ok(None),
            Some(Ok(())) => {}
            Some(Err(error)) => {
                // The next start does it; until then queues are full a little earlier.
                tracing::warn!("limits of queues could not be raised: {:#}", anyhow::Error::from(error));
            }
        }
        Ok(Some(broker))
    }

    /// Tries until it succeeds, can't ever, or is stopped.
    async fn until<T>(
        &self,
        what: &str,
        tried: impl AsyncFn() -> Result<T, broker::Error>,
    ) -> anyhow::Result<Option<T>> {
        self.waiting.set(what);
        let (mut pause, mut told) = (PAUSE, None::<Instant>);
        loop {
            match self.shutdown.run_until_cancelled(tried()).await {
                None => return Ok(None),
                Some(Ok(found)) => return Ok(Some(found)),
                Some(Err(error)) if !error.is_transient() => return Err(error.into()),
                Some(Err(error)) => {
                    let error = anyhow::Error::from(error);
                    self.waiting.set(format!("{what}: {error:#}"));
                    if told.is_none_or(|at| at.elapsed() > TOLD_EVERY) {
                        tracing::warn!("waiting for {what}: {error:#}; it is being tried again");
                        told = Some(Instant::now());
                    }
                }
            }
            if self.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(None);
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Connects to NATS, again and again for a while.
pub async fn connect_within(
    config: &NatsConfig,
    within: Duration,
    shutdown: &CancellationToken,
) -> anyhow::Result<Broker> {
    let connecting = Beginning::new(shutdown);
    match tokio::time::timeout(within, connecting.connect(config)).await {
        Ok(connected) => connected?.context("stopped while waiting for NATS"),
        Err(_) => anyhow::bail!("waited {within:?} for {}", connecting.waiting.what().unwrap_or_default()),
    }
}

pub fn template(jobs: &Jobs) -> anyhow::Result<JobTemplate> {
    let path = &jobs.job_template;
    let named = || format!("the Job template {} (--job-template, JOB_TEMPLATE)", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    JobTemplate::parse(&text).with_context(named)
}

pub async fn kubernetes(jobs: &Jobs) -> anyhow::Result<(kube::Client, String)> {
    let config = kube::Config::infer().await.context(
        "no way to reach Kubernetes: run in a pod with a service account token, or with KUBECONFIG; without \
         Kubernetes use --launcher queue (LAUNCHER)",
    )?;
    let namespace = jobs.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok((controller::client(config).context("connecting to Kubernetes")?, namespace))
}
