//! The subcommands: from settings to running components.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use broker::{Broker, NatsConfig, ReaderConfig, TasksConfig};
use manifests::JobTemplate;
use model::RealmTopic;
use prefill_job::{
    Failure, Outcome, job,
    source::{Source, SourceEvent},
    worker,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    health,
    settings::{self, Attempts, Command, Http, Jobs, LauncherKind, Log, Queues, Roles},
    shutdown, standalone,
};

/// How long a component waits for NATS at its start before it gives up and lets Kubernetes start it again.
const NATS_WITHIN: Duration = Duration::from_secs(60);
/// How long a look at what the API makes is repeated.
const LAYOUT_EVERY: Duration = Duration::from_millis(500);

/// Runs a subcommand. This is the one place where errors become exit codes.
pub async fn run(command: Command) -> ExitCode {
    let shutdown = match shutdown::token() {
        Ok(token) => token,
        Err(error) => {
            tracing::error!(%error, "signals can't be watched");
            return ExitCode::FAILURE;
        }
    };
    let ended = match command {
        Command::Prefill(settings) => return prefill(settings, shutdown).await,
        Command::Api(settings) => api(settings, shutdown).await,
        Command::Dispatcher(settings) => dispatcher(settings, shutdown).await,
        Command::Controller(settings) => controller(settings, shutdown).await,
        Command::Worker(settings) => worker(settings, shutdown).await,
        Command::Standalone(settings) => standalone::run(settings, shutdown).await,
        Command::Validate(settings) => validate(settings, shutdown).await,
        Command::GuardedNatsServer(arguments) => {
            return standalone::nats_server::become_nats_server(&arguments);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn api(settings: settings::Api, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = listen(settings.listen).await?;
    let broker = connect(&settings.nats.config("api"), NATS_WITHIN, &shutdown).await?;
    let broker = with_layout(broker, &settings.log, &settings.queues).await?;
    let launcher = match settings.launcher {
        LauncherKind::Queue => api::Launcher::queue(broker.tasks()),
        LauncherKind::Kubernetes => {
            let template = template(&settings.jobs)?;
            let (client, namespace) = kubernetes(&settings.jobs).await?;
            api::Launcher::kubernetes(client, namespace, template)
        }
    };
    let config = api_config(&settings.roles, &settings.http, &settings.queues);
    api::run(listener, config, broker.clone(), launcher, shutdown).await?;
    broker.close().await;
    Ok(())
}

async fn dispatcher(settings: settings::Dispatcher, shutdown: CancellationToken) -> anyhow::Result<()> {
    let broker = connect_with_layout(&settings.nats.config("dispatcher"), &shutdown).await?;
    let mut registry = Registry::default();
    let metrics = dispatcher::Metrics::register(&mut registry);
    let (seen, nats) = (metrics.clone(), broker.clone());
    let ready = Box::new(move || seen.is_ready() && nats.is_connected());
    health::serve(settings.probes.health_listen, ready, registry, shutdown.clone()).await?;
    dispatcher::run(dispatcher_config(&settings.queues), broker.clone(), metrics, shutdown).await?;
    broker.close().await;
    Ok(())
}

async fn controller(settings: settings::Controller, shutdown: CancellationToken) -> anyhow::Result<()> {
    let broker = connect_with_layout(&settings.nats.config("controller"), &shutdown).await?;
    let mut registry = Registry::default();
    let metrics = controller::Metrics::register(&mut registry);
    let (seen, nats) = (metrics.clone(), broker.clone());
    // Without Jobs there is nothing to list first.
    let lists = settings.launcher == LauncherKind::Kubernetes;
    let ready = Box::new(move || nats.is_connected() && (seen.is_ready() || !lists));
    health::serve(settings.probes.health_listen, ready, registry, shutdown.clone()).await?;
    match settings.launcher {
        LauncherKind::Queue => sweep(broker.clone(), shutdown).await?,
        LauncherKind::Kubernetes => {
            let template = template(&settings.jobs)?;
            let (client, namespace) = kubernetes(&settings.jobs).await?;
            let lease = settings.lease_name.map(|name| controller::LeaseConfig {
                namespace: namespace.clone(),
                name,
                holder: settings.pod_name.clone(),
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
pub async fn sweep(broker: Broker, shutdown: CancellationToken) -> anyhow::Result<()> {
    let view = broker.registry().view(shutdown.clone());
    let config = controller::sweep::SweepConfig {
        // A task is queued before its registration is ready, so this is for what nobody thought of.
        task_after: Some(Duration::from_secs(30)),
        ..controller::sweep::SweepConfig::default()
    };
    controller::sweep::run(broker, view, config, shutdown).await;
    Ok(())
}

async fn prefill(settings: settings::Prefill, shutdown: CancellationToken) -> ExitCode {
    let config = job::Config {
        task: settings.task.clone(),
        holder: settings.pod_name.clone(),
        termination_log: settings.termination_log.clone(),
    };
    let outcome = match prefill_parts(&settings, &shutdown).await {
        Ok((broker, source)) => job::run(&config, &broker, &source, &shutdown).await,
        Err(failure) => Outcome::Failed(failure),
    };
    job::report(&config, &outcome);
    ExitCode::from(outcome.exit_code() as u8)
}

async fn prefill_parts(
    settings: &settings::Prefill,
    shutdown: &CancellationToken,
) -> Result<(Broker, Source), Failure> {
    let source = settings.source.open(&settings.udm).map_err(|e| Failure {
        code: model::ExitCode::BadRequest,
        reason: model::Reason::BadRequest,
        message: format!("{e:#}"),
        lost_to_twin: false,
    })?;
    let broker =
        connect(&settings.nats.config("prefill"), NATS_WITHIN, shutdown).await.map_err(|e| Failure {
            code: model::ExitCode::Transient,
            reason: model::Reason::Internal,
            message: format!("{e:#}"),
            lost_to_twin: false,
        })?;
    Ok((broker, source))
}

async fn worker(settings: settings::Worker, shutdown: CancellationToken) -> anyhow::Result<()> {
    let source = Arc::new(settings.source.open(&settings.udm)?);
    let broker = connect_with_layout(&settings.nats.config("worker"), &shutdown).await?;
    let nats = broker.clone();
    let ready = Box::new(move || nats.is_connected());
    health::serve(settings.probes.health_listen, ready, Registry::default(), shutdown.clone()).await?;
    let config = worker_config(&settings.attempts, settings.pod_name);
    worker::run(config, broker.clone(), source, shutdown).await;
    broker.close().await;
    Ok(())
}

/// Reads the whole source as a prefill would, and writes nothing.
async fn validate(settings: settings::Validate, shutdown: CancellationToken) -> anyhow::Result<()> {
    let source = settings.source.open(&settings.udm)?;
    if let Source::Dump(dump) = &source {
        let summary = dump.validate().await?;
        for (object_type, of_type) in &summary.types {
            println!("{object_type}: {} objects, {} bytes", of_type.objects, of_type.bytes);
        }
        for problem in &summary.problems {
            println!("line {}: {}", problem.line, problem.problem);
        }
        anyhow::ensure!(
            summary.problem_count == 0,
            "{} lines of the dump are no objects",
            summary.problem_count
        );
        return Ok(());
    }
    let topics: Vec<RealmTopic> = settings
        .topic
        .iter()
        .map(|topic| RealmTopic { realm: model::UDM_REALM.to_owned(), topic: topic.clone() })
        .collect();
    let (sender, mut events) = tokio::sync::mpsc::channel(1000);
    let count = async {
        let mut counts = std::collections::BTreeMap::<String, (u64, u64)>::new();
        while let Some(event) = events.recv().await {
            match event {
                SourceEvent::Object(object) => counts.entry(object.topic).or_default().0 += 1,
                SourceEvent::Skipped { topic } => counts.entry(topic).or_default().1 += 1,
                SourceEvent::Broken { topic, dn, problem } => {
                    println!("{topic}: {dn} can't be read: {problem}");
                }
                SourceEvent::NoModule { topic } => {
                    println!("{topic}: no module of the directory matches this");
                }
                SourceEvent::Retrying { error } => tracing::warn!(error, "trying again"),
                SourceEvent::TopicStarted { .. } | SourceEvent::TopicFinished { .. } => {}
            }
        }
        counts
    };
    let (read, counts) = tokio::select! {
        both = async { tokio::join!(source.read(&topics, sender), count) } => both,
        () = shutdown.cancelled() => anyhow::bail!("stopped"),
    };
    for (topic, (objects, gone)) in &counts {
        println!("{topic}: {objects} objects, {gone} vanished while they were read");
    }
    Ok(read?)
}

/// The configuration of the API.
pub fn api_config(roles: &Roles, http: &Http, queues: &Queues) -> api::Config {
    let user = |name: &str, password: &str| api::RoleCredentials {
        username: name.to_owned(),
        password: broker::Secret::new(password),
    };
    api::Config {
        admin: user(&roles.admin_username, &roles.admin_password),
        events: user(&roles.events_username_udm, &roles.events_password_udm),
        prefill: user(&roles.prefill_username, &roles.prefill_password),
        root_path: http.root_path.clone(),
        cors_all: http.cors_all,
        reader: ReaderConfig { redelivery_delay: http.redelivery_delay },
        limits: queues.limits(),
        stream_heartbeat: STREAM_HEARTBEAT,
        before_step: None,
    }
}

/// The configuration of the dispatcher.
pub fn dispatcher_config(queues: &Queues) -> dispatcher::Config {
    dispatcher::Config { limits: queues.limits(), ..dispatcher::Config::default() }
}

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

/// Below the 30 to 60 s after which proxies take a silent connection for dead.
const STREAM_HEARTBEAT: Duration = Duration::from_secs(15);

/// The configuration of a worker.
pub fn worker_config(attempts: &Attempts, holder: String) -> worker::Config {
    worker::Config {
        parallel: usize::from(attempts.parallel_prefills),
        tries_max: u64::try_from(attempts.max_prefill_attempts).ok(),
        holder,
        tasks: TasksConfig::default(),
    }
}

/// Listens on an address.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("can't listen on {address} (--listen, LISTEN)"))
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
async fn connect_with_layout(config: &NatsConfig, shutdown: &CancellationToken) -> anyhow::Result<Broker> {
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

fn template(jobs: &Jobs) -> anyhow::Result<JobTemplate> {
    let path = &jobs.job_template;
    let named = || format!("the Job template {} (--job-template, JOB_TEMPLATE)", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    JobTemplate::parse(&text).with_context(named)
}

async fn kubernetes(jobs: &Jobs) -> anyhow::Result<(kube::Client, String)> {
    let config = kube::Config::infer().await.context(
        "no way to reach Kubernetes: run in a pod with a service account token, or with KUBECONFIG; without \
         Kubernetes use --launcher queue (LAUNCHER)",
    )?;
    let namespace = jobs.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    Ok((kube::Client::try_from(config).context("connecting to Kubernetes")?, namespace))
}
