//! The components: from settings to what runs until it is told to end.

use std::{sync::Arc, time::Duration};

use broker::{Broker, ReaderConfig, TasksConfig};
use prefill_job::worker;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::start::{Beginning, kubernetes, template};
use crate::{
    health,
    settings::{self, Attempts, Http, LauncherKind, Queues, Removals, Shape},
};

/// Below the 30 to 60 s after which proxies take a silent connection for dead.
const STREAM_HEARTBEAT: Duration = Duration::from_secs(15);

pub async fn api(settings: settings::Api, shutdown: CancellationToken) -> anyhow::Result<()> {
    let roles = settings.roles.given()?;
    let listener = crate::listen::listen(settings.listen, "--listen, LISTEN")?;
    let nats = settings.nats.config("api")?;
    let template = match settings.launcher {
        LauncherKind::Queue => None,
        LauncherKind::Kubernetes => Some(template(&settings.jobs)?),
    };
    let config = api_config(roles, &settings.http, &settings.queues);
    let beginning = Beginning::new(&shutdown);
    let parts = async {
        let Some(broker) = beginning.connect(&nats).await? else { return Ok(None) };
        let Some(broker) = beginning.with_layout(broker, &settings.log, &settings.queues).await? else {
            return Ok(None);
        };
        let launcher = match template {
            None => api::Launcher::queue(broker.tasks()),
            Some(template) => {
                let (client, namespace) = kubernetes(&settings.jobs).await?;
                api::Launcher::kubernetes(client, namespace, template, settings.jobs.job_owner.clone())
            }
        };
        anyhow::Ok(Some((broker, launcher)))
    };
    let start = api::Start { parts, waiting: beginning.waiting.clone(), not_ready: Arc::new(|| None) };
    api::run_from_start(listener, config, start, shutdown.clone()).await?;
    beginning.close().await;
    Ok(())
}

pub async fn dispatcher(settings: settings::Dispatcher, shutdown: CancellationToken) -> anyhow::Result<()> {
    let nats = settings.nats.config("dispatcher")?;
    let mut registry = Registry::default();
    let metrics = dispatcher::Metrics::register(&mut registry);
    let beginning = Beginning::new(&shutdown);
    let not_ready = beginning.not_ready(dispatching(metrics.clone()));
    health::serve(settings.probes.health_listen, not_ready, registry, shutdown.clone()).await?;
    let Some(broker) = beginning.connect_with_layout(&nats).await? else { return Ok(()) };
    dispatcher::run(dispatcher_alone_config(&settings), broker.clone(), metrics, shutdown).await?;
    broker.close().await;
    Ok(())
}

/// Why dispatching does not run.
pub fn dispatching(metrics: dispatcher::Metrics) -> impl Fn() -> Option<String> + Send + Sync + 'static {
    move || metrics.stopped().map(|why| format!("dispatching does not run: {why}"))
}

pub async fn controller(settings: settings::Controller, shutdown: CancellationToken) -> anyhow::Result<()> {
    let nats = settings.nats.config("controller")?;
    let template = match settings.launcher {
        LauncherKind::Queue => None,
        LauncherKind::Kubernetes => Some(template(&settings.jobs)?),
    };
    let mut registry = Registry::default();
    let metrics = controller::Metrics::register(&mut registry);
    let storage = controller::StorageMetrics::register(&mut registry, settings.nats_store_limit);
    let ages = settings.queue_ages.then(|| controller::QueueAges::register(&mut registry));
    let seen = metrics.clone();
    // Without Jobs there is nothing to list first.
    let lists = template.is_some();
    let beginning = Beginning::new(&shutdown);
    let not_ready = beginning.not_ready(move || {
        (lists && !seen.is_ready()).then(|| "waiting for the Jobs of Kubernetes, or for the Lease".to_owned())
    });
    health::serve(settings.probes.health_listen, not_ready, registry, shutdown.clone()).await?;
    let Some(broker) = beginning.connect_with_layout(&nats).await? else { return Ok(()) };
    tokio::spawn(storage.keep(broker.clone(), shutdown.clone()));
    if let Some(ages) = ages {
        tokio::spawn(ages.keep(broker.clone(), metrics.clone(), shutdown.clone()));
    }
    match template {
        None => sweep(broker.clone(), metrics, shutdown).await?,
        Some(template) => {
            let (client, namespace) = kubernetes(&settings.jobs).await?;
            let lease = lease_config(&settings, &namespace);
            let config = controller_config(settings, namespace, template);
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
    let nats = settings.nats.config("worker")?;
    let mut registry = Registry::default();
    let metrics = prefill_job::Metrics::register(&mut registry);
    let beginning = Beginning::new(&shutdown);
    let not_ready = beginning.not_ready(|| None);
    health::serve(settings.probes.health_listen, not_ready, registry, shutdown.clone()).await?;
    let Some(broker) = beginning.connect_with_layout(&nats).await? else { return Ok(()) };
    let config = worker_config(&settings.attempts, &settings.shape, &settings.removals, settings.pod_name);
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

/// The configuration of a dispatcher that is a process of its own.
pub fn dispatcher_alone_config(settings: &settings::Dispatcher) -> dispatcher::Config {
    let config = dispatcher_config(&settings.queues);
    let lane_entries_max = settings.lane_entries_max.unwrap_or(config.lane_entries_max);
    let copy_after = settings.copy_after.unwrap_or(config.copy_after);
    dispatcher::Config { lane_entries_max, copy_after, ..config }
}

/// The configuration of the controller, with the namespace of its Jobs.
pub fn controller_config(
    settings: settings::Controller,
    namespace: String,
    template: manifests::JobTemplate,
) -> controller::Config {
    controller::Config {
        namespace,
        template,
        max_running: settings.max_running_prefills as usize,
        rules: controller::Rules { start_deadline: settings.start_deadline, ..controller::Rules::default() },
        reporter: settings.pod_name,
        owner: settings.jobs.job_owner,
        before_write: None,
    }
}

/// The Lease by which one controller at a time works, if one is wanted.
pub fn lease_config(settings: &settings::Controller, namespace: &str) -> Option<controller::LeaseConfig> {
    Some(controller::LeaseConfig {
        namespace: namespace.to_owned(),
        name: settings.lease_name.clone()?,
        holder: settings.pod_name.clone(),
        owner: settings.jobs.job_owner.clone(),
    })
}

/// The configuration of a worker.
pub fn worker_config(
    attempts: &Attempts,
    shape: &Shape,
    removals: &Removals,
    holder: String,
) -> worker::Config {
    worker::Config {
        parallel: usize::from(attempts.parallel_prefills),
        tries_max: u64::try_from(attempts.max_prefill_attempts).ok(),
        holder,
        tasks: TasksConfig::default(),
        shape: shape.shape(),
        max_removals: removals.limit(),
        metrics: prefill_job::Metrics::default(),
    }
}
