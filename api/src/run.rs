//! The server's life.

use std::{sync::Arc, time::Duration};

use axum::Router;
use broker::Broker;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    connections::Connections,
    error::Error,
    launcher::Launcher,
    roles::KnownRoles,
    router, server,
    starting::{Waiting, front},
    state::{App, Life, NotReady},
};

/// How long requests that are under way may take after nothing more is accepted: together with the delay before that
/// below the 30 s that Kubernetes gives a pod, and above what a registration waits for Kubernetes.
const GRACE: Duration = Duration::from_secs(20);

/// How a server that answers from the first moment gets what it works with.
pub struct Start<F> {
    /// What it works with; `None` when it was stopped before.
    pub parts: F,
    /// What that waits for: `/readyz` says so meanwhile.
    pub waiting: Waiting,
    /// Why the process is not ready for other reasons.
    pub not_ready: NotReady,
}

/// Serves until `shutdown`. Then `/readyz` says no, polls and streams end, and every answer closes its connection; but
/// requests are still taken for [`Config::shutdown_delay`], since those who send them learn later that they should not.
/// After that no connection is accepted, and requests that are under way are answered, but for at most 20 s.
///
/// # Errors
/// A file with a password, a certificate or its key can't be read at the start.
pub async fn run(
    listener: TcpListener,
    config: Config,
    broker: Broker,
    launcher: Launcher,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let life = Life { stopping: shutdown, closing: CancellationToken::new() };
    // However this ends, what works for it in the background ends, too.
    let _guard = life.closing.clone().drop_guard();
    let (bounds, tls, delay) = (config.bounds.clone(), config.tls.clone(), config.shutdown_delay);
    let connections = Connections::new(bounds.connections);
    let app = App::new(config, broker, launcher, Arc::new(|| None), connections.clone(), life.clone())?;
    if life.stopping.run_until_cancelled(app.view.synced()).await.is_none() {
        return Ok(());
    }
    let (router, closing) = (router::router(app), life.closing.clone());
    tokio::select! {
        served = server::serve_counted(listener, router, connections, &bounds, tls.as_ref(), closing) => served,
        () = end(&life, || delay) => Ok(()),
    }
}

/// As [`run`], from the first moment: until NATS is there the server says that it is alive, what it waits for, and 503
/// to everything else. When it is stopped meanwhile it ends at once: nobody sends requests to it so far.
///
/// # Errors
/// As [`run`], and what comes instead of the parts.
pub async fn run_from_start<E: From<Error>>(
    listener: TcpListener,
    config: Config,
    start: Start<impl Future<Output = Result<Option<(Broker, Launcher)>, E>>>,
    shutdown: CancellationToken,
) -> Result<(), E> {
    let Start { parts, waiting, not_ready } = start;
    // What is wrong with a setting is said before anything is waited for.
    KnownRoles::read(&config.roles).map_err(Error::from)?;
    let life = Life { stopping: shutdown, closing: CancellationToken::new() };
    // However this ends, what works for it in the background ends, too.
    let _guard = life.closing.clone().drop_guard();
    let (bounds, tls, delay) = (config.bounds.clone(), config.tls.clone(), config.shutdown_delay);
    let connections = Connections::new(bounds.connections);
    let (install, router) = watch::channel(None::<Router>);
    let (routes, closing) = (front(router, waiting.clone()), life.closing.clone());
    let serving =
        server::serve_counted(listener, routes, connections.clone(), &bounds, tls.as_ref(), closing);
    let starting = async {
        if let Some((broker, launcher)) = parts.await? {
            let app = App::new(config, broker, launcher, not_ready, connections.clone(), life.clone())?;
            waiting.set("the subscriptions in NATS");
            if life.stopping.run_until_cancelled(app.view.synced()).await.is_some() {
                install.send_replace(Some(router::router(app)));
                waiting.over();
            }
        }
        // The serving ends with the stop.
        std::future::pending::<Result<(), E>>().await
    };
    let delay = || if install.borrow().is_some() { delay } else { Duration::ZERO };
    tokio::select! {
        served = serving => served?,
        failed = starting => failed?,
        () = end(&life, delay) => {}
    }
    Ok(())
}

/// From the stop on: requests are taken for the delay, and after that those that are under way have had their time.
async fn end(life: &Life, delay: impl FnOnce() -> Duration) {
    life.stopping.cancelled().await;
    let delay = delay();
    tracing::info!("requests are still taken for {delay:?}");
    tokio::time::sleep(delay).await;
    life.closing.cancel();
    tokio::time::sleep(GRACE).await;
    tracing::warn!("requests are cut off: they took longer than {GRACE:?} after the last was accepted");
}
