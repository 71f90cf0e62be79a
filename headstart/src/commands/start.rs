//! What components need to begin: a socket, NATS with its layout, Kubernetes.

use std::time::Duration;

use anyhow::Context;
use broker::{Broker, NatsConfig};
use manifests::JobTemplate;
use tokio_util::sync::CancellationToken;

use crate::settings::{Jobs, Log, Queues};

/// How long a component waits for NATS at its start before it gives up and lets Kubernetes start it again.
pub const NATS_WITHIN: Duration = Duration::from_secs(60);
/// How long a look at what the API makes is repeated.
const LAYOUT_EVERY: Duration = Duration::from_millis(500);

/// Makes what all share in NATS, with these limits, which queues that exist follow.
pub async fn with_layout(broker: Broker, log: &Log, queues: &Queues) -> anyhow::Result<Broker> {
    let broker = broker.with_limits(log.streams(queues));
    broker.create_layout().await.context("preparing NATS")?;
    if let Err(error) = broker.raise_queue_limits().await {
        // The next start does it; until then queues are full a little earlier.
        tracing::warn!("limits of queues could not be raised: {:#}", anyhow::Error::from(error));
    }
    Ok(broker)
}

/// Connects to NATS, again and again for a while: at the start of an installation everything starts at once.
pub async fn connect(
    config: &NatsConfig,
    within: Duration,
    shutdown: &CancellationToken,
) -> anyhow::Result<Broker> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        match Broker::connect(config).await {
            Ok(broker) => return Ok(broker),
            Err(error) if !error.is_transient() || tokio::time::Instant::now() > deadline => {
                return Err(error.into());
            }
            Err(error) => tracing::debug!("{:#}; trying again", anyhow::Error::from(error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => anyhow::bail!("stopped while waiting for NATS"),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

/// Connects, and waits for the streams and buckets that the API makes.
pub async fn connect_with_layout(
    config: &NatsConfig,
    shutdown: &CancellationToken,
) -> anyhow::Result<Broker> {
    let broker = connect(config, NATS_WITHIN, shutdown).await?;
    let mut told = false;
    loop {
        match broker.await_layout().await {
            Ok(()) => return Ok(broker),
            Err(error) if error.is_transient() => {
                if !told {
                    tracing::info!("waiting for the API: {:#}", anyhow::Error::from(error));
                    told = true;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = shutdown.cancelled() => anyhow::bail!("stopped while waiting for the API"),
            () = tokio::time::sleep(LAYOUT_EVERY) => {}
        }
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
