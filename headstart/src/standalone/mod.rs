//! `headstart standalone`: API, dispatcher and worker in one process, on a nats-server of its own or a given one.

pub mod nats_server;
mod passwords;

use std::{path::Path, sync::Arc};

use anyhow::Context;
use broker::{Broker, NatsConfig, Secret};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{commands, settings};
use nats_server::NatsServer;

/// Runs everything until `shutdown`.
pub async fn run(settings: settings::Standalone, shutdown: CancellationToken) -> anyhow::Result<()> {
    let data_dir = &settings.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("can't make {} (--data-dir, DATA_DIR)", data_dir.display()))?;
    let data_dir = data_dir
        .canonicalize()
        .with_context(|| format!("can't use {} (--data-dir, DATA_DIR)", data_dir.display()))?;
    let _lock = nats_server::lock(&data_dir)?;
    let source = Arc::new(settings.source.open(&settings.udm)?);
    let listener = crate::listen::listen(settings.listen, "--listen, LISTEN")?;
    let roles = roles(&settings.roles, &data_dir)?;

    let nats_shutdown = CancellationToken::new();
    let mut nats = JoinSet::new();
    let nats_config = match &settings.nats_url {
        Some(url) => settings.nats_access.config(url.clone(), "standalone")?,
        None => {
            anyhow::ensure!(
                settings.nats_access.nats_user.is_none(),
                "--nats-user (NATS_USER) is for a server that is named with --nats (NATS_URL)"
            );
            let server = NatsServer::prepare(settings.nats_server.as_deref(), &data_dir).await?;
            let config = server.config();
            nats.spawn(server.supervise(nats_shutdown.clone()));
            config
        }
    };
    let ended = tokio::select! {
        ended = work(&settings, roles, source, listener, nats_config, shutdown.clone()) => ended,
        Some(ended) = nats.join_next() => ended.context("nats-server")?,
    };
    // The components have ended, so nothing writes any more.
    nats_shutdown.cancel();
    while let Some(stopped) = nats.join_next().await {
        stopped.context("nats-server")??;
    }
    ended
}

async fn work(
    settings: &settings::Standalone,
    roles: api::Roles,
    source: Arc<prefill_job::source::Source>,
    listener: TcpListener,
    nats: NatsConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let metrics = dispatcher::Metrics::register(&mut registry);
    let beginning = commands::Beginning::new(&shutdown);
    let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let stop = shutdown.child_token();
    // The API answers from the first moment.
    let (give, given) = tokio::sync::oneshot::channel::<Broker>();
    parts.spawn({
        let config = commands::api_config(roles, &settings.http, &settings.queues);
        let broker = async move {
            let broker = given.await.ok();
            anyhow::Ok(broker.map(|broker| (broker.clone(), api::Launcher::queue(broker.tasks()))))
        };
        let not_ready = Arc::new(commands::dispatching(metrics.clone()));
        let start = api::Start { parts: broker, waiting: beginning.waiting.clone(), not_ready };
        let running = api::run_from_start(listener, config, start, stop.clone());
        async move { running.await.context("API") }
    });
    let connecting = async {
        let Some(broker) = beginning.connect(&nats).await? else { return Ok(None) };
        beginning.with_layout(broker, &settings.log, &settings.queues).await
    };
    let broker = tokio::select! {
        broker = connecting => broker,
        // It has ended before: its reason comes below.
        () = stop.cancelled() => Ok(None),
        Some(ended) = parts.join_next() => ended.context("a part of headstart").and_then(|ended| ended).map(|()| None),
    };
    let broker = match broker {
        Ok(Some(broker)) => broker,
        ended => {
            stop.cancel();
            while parts.join_next().await.is_some() {}
            beginning.close().await;
            return ended.map(drop);
        }
    };
    give.send(broker.clone()).ok();
    parts.spawn({
        let config = commands::dispatcher_config(&settings.queues);
        let running = dispatcher::run(config, broker.clone(), metrics, stop.clone());
        async move { running.await.context("dispatcher") }
    });
    parts.spawn({
        let worker = commands::worker_config(
            &settings.attempts,
            &settings.shape,
            &settings.removals,
            "standalone".to_owned(),
        );
        let running = prefill_job::worker::run(worker, broker.clone(), source, stop.clone());
        async move {
            running.await;
            Ok(())
        }
    });
    let figures = controller::Metrics::register(&mut registry);
    parts.spawn(commands::sweep(broker.clone(), figures, stop.clone()));
    tracing::info!(address = %settings.listen, data = %settings.data_dir.display(), "headstart is running");
    // The first part that ends, for whatever reason, ends the others.
    let mut first = Ok(());
    while let Some(ended) = parts.join_next().await {
        stop.cancel();
        let ended = ended.context("a part of headstart").and_then(|ended| ended);
        if first.is_ok() {
            first = ended;
        }
    }
    broker.close().await;
    first
}

/// The users of the API. Passwords that were not given are generated, kept, and printed once.
fn roles(given: &settings::Roles, data_dir: &Path) -> anyhow::Result<api::Roles> {
    let folder = data_dir.join("passwords");
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let mut news = Vec::new();
    let roles = given.users(|variable, user| {
        let path = folder.join(passwords::file_of(variable));
        let kept = passwords::keep(&path)?;
        if kept.generated {
            news.push(format!("  {user}: {} ({variable}; kept in {})", kept.value, path.display()));
        }
        Ok(Secret::new(kept.value))
    })?;
    if !news.is_empty() {
        // Whoever does not read them finds them in the files.
        commands::say(&format!("Passwords were generated; they are shown only now:\n{}\n", news.join("\n")));
    }
    Ok(roles)
}
