//! The components: from settings to what runs until it is told to end.

use std::{sync::Arc, time::Duration};

use broker::{Broker, ReaderConfig, TasksConfig};
use prefill_job::worker;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::start::{NATS_WITHIN, connect, connect_with_layout, kubernetes, template, with_layout};
use crate::{
    health,
    settings::{self, Attempts, Http, LauncherKind, Queues, Shape},
};

/// Below the 30 to 60 s after which proxies take a silent connection for dead.
const STREAM_HEARTBEAT: Duration = Duration::from_secs(15);

pub async fn api(settings: settings::Api, shutdown: CancellationToken) -> anyhow::Result<()> {
    let roles = settings.roles.given()?;
    let listener = crate::listen::listen(settings.listen, "--listen, LISTEN")?;
    let broker = connect(&settings.nats.config("api")?, NATS_WITHIN, &shutdown).await?;
    let broker = with_layout(broker, &settings.log, &settings.queues).await?;
    let launcher = match settings.launcher {
        LauncherKind::Queue => api::Launcher::queue(broker.tasks()),
        LauncherKind::Kubernetes => {
            let template = template(&settings.jobs)?;
            let (client, namespace) = kubernetes(&settings.jobs).await?;
            api::Launcher::kubernetes(client, namespace, template, settings.jobs.job_owner.clone())
        }
    };
    let config = api_config(roles, &settings.http, &settings.queues);
    api::run(listener, config, broker.clone(), launcher, shutdown).await?;
    broker.close().await;
    Ok(())
}

pub async fn dispatcher(settings: settings::Dispatcher, shutdown: CancellationToken) -> anyhow::Result<()> {
    let broker = connect_with_layout(&settings.nats.config("dispatcher")?, &shutdown).await?;
    let mut registry = Registry::default();
    let metrics = dispatcher::Metrics::register(&mut registry);
    let (seen, nats) = (metrics.clone(), broker.clone());
    let ready = Box::new(move || seen.stopped().is_none() && nats.is_connected());
    health::serve(settings.probes.health_listen, ready, registry, shutdown.clone()).await?;
    dispatcher::run(dispatcher_config(&settings.queues), broker.clone(), metrics, shutdown).await?;
    broker.close().await;
    Ok(())
}

pub async fn controller(settings: settings::Controller, shutdown: CancellationToken) -> anyhow::Result<()> {
    let broker = connect_with_layout(&settings.nats.config("controller")?, &shutdown).await?;
    let mut registry = Registry::default();
    let metrics = controller::Metrics::register(&mut registry);
    let storage = controller::StorageMetrics::register(&mut registry, settings.nats_store_limit);
    tokio::spawn(storage.keep(broker.clone(), shutdown.clone()));
    let (seen, nats) = (metrics.clone(), broker.clone());
    // Without Jobs there is nothing to list first.
    let lists = settings.launcher == LauncherKind::Kubernetes;
    let ready = Box::new(move || nats.is_connected() && (seen.is_ready() || !lists));
    health::serve(settings.probes.health_listen, ready, registry, shutdown.clone()).await?;
    match settings.launcher {
        LauncherKind::Queue => sweep(broker.clone(), metrics, shutdown).await?,
        LauncherKind::Kubernetes => {
            let template = template(&settings.jobs)?;
            let (client, namespace) = kubernetes(&settings.jobs).await?;
            let lease = settings.lease_name.map(|name| controller::LeaseConfig {
                namespace: namespace.clone(),
                name,
                holder: settings.pod_name.clone(),
                owner: settings.jobs.job_owner.clone(),
            });
            let config = controller::Config {
                namespace,
                template,
                max_running: settings.max_running_prefills as usize,
                rules: controller::Rules {
                    start_deadline: settings.start_deadline,
                    ..controller::Rules::default()
                },
                reporter: settings.pod_name,
                owner: settings.jobs.job_owner.clone(),
                before_write: None,
            };
            let nats = broker.clone();
            let (api_server, figures) = (client.clone(), metrics.clone());
            let work = |stop| controller::run(config, nats, client, metrics, stop);
            match &lease {
                None => work(shutdown).await?,
                Some(lease) => controller::lead(api_server, lease, &figures, &shutdown, work).await?,
            }
        }
    }
    broker.close().await;
    Ok(())
}

/// Finishes what died half-way, without Kubernetes.
pub async fn sweep(
    broker: Broker,
    metrics: controller::Metrics,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let view = broker.registry().view(shutdown.clone());
    let config = controller::sweep::SweepConfig {
        // A task is queued before its registration is ready, so this is for what nobody thought of.
        task_after: Some(Duration::from_secs(30)),
        ..controller::sweep::SweepConfig::default()
    };
    controller::sweep::run(broker, view, config, metrics, shutdown).await;
    Ok(())
}

pub async fn worker(settings: settings::Worker, shutdown: CancellationToken) -> anyhow::Result<()> {
    let source = Arc::new(settings.source.open(&settings.udm)?);
    let broker = connect_with_layout(&settings.nats.config("worker")?, &shutdown).await?;
    let nats = broker.clone();
    let ready = Box::new(move || nats.is_connected());
    let mut registry = Registry::default();
    let metrics = prefill_job::Metrics::register(&mut registry);
    health::serve(settings.probes.health_listen, ready, registry, shutdown.clone()).await?;
    let config = worker_config(&settings.attempts, &settings.shape, settings.pod_name);
    let config = worker::Config { metrics, ..config };
    worker::run(config, broker.clone(), source, shutdown).await;
    broker.close().await;
    Ok(())
}

/// The configuration of the API.
pub fn api_config(roles: api::Roles, http: &Http, queues: &Queues) -> api::Config {
    api::Config {
        roles,
        tls: http.serving.tls(),
        bounds: http.serving.bounds(),
        root_path: http.root_path.clone(),
        cors_all: http.cors_all,
        reader: ReaderConfig { redelivery_delay: http.redelivery_delay },
        limits: queues.limits(),
        stream_heartbeat: STREAM_HEARTBEAT,
        shutdown_delay: http.serving.shutdown_delay,
        before_step: None,
    }
}

/// The configuration of the dispatcher.
pub fn dispatcher_config(queues: &Queues) -> dispatcher::Config {
    dispatcher::Config { limits: queues.limits(), ..dispatcher::Config::default() }
}

/// The configuration of a worker.
pub fn worker_config(attempts: &Attempts, shape: &Shape, holder: String) -> worker::Config {
    worker::Config {
        parallel: usize::from(attempts.parallel_prefills),
        tries_max: u64::try_from(attempts.max_prefill_attempts).ok(),
        holder,
        tasks: TasksConfig::default(),
        shape: shape.shape(),
        metrics: prefill_job::Metrics::default(),
    }
}
