//! The server's life.

use std::time::Duration;

use broker::Broker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    error::Error,
    launcher::Launcher,
    router, server,
    state::{App, Life},
};

/// How long requests that are under way may take after nothing more is accepted: together with the delay before that
/// below the 30 s that Kubernetes gives a pod, and above what a registration waits for Kubernetes.
const GRACE: Duration = Duration::from_secs(20);

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
    let delay = config.shutdown_delay;
    let life = Life { stopping: shutdown.clone(), closing: CancellationToken::new() };
    let closing = life.closing.clone();
    // However this ends, what works for it in the background ends, too.
    let _guard = closing.clone().drop_guard();
    let app = App::new(config, broker, launcher, life)?;
    if shutdown.run_until_cancelled(app.view.synced()).await.is_none() {
        return Ok(());
    }
    let (bounds, tls, connections) =
        (app.config.bounds.clone(), app.config.tls.clone(), app.connections.clone());
    let router = router::router(app);
    let serving =
        server::serve_counted(listener, router, connections, &bounds, tls.as_ref(), closing.clone());
    let end = async {
        shutdown.cancelled().await;
        tracing::info!("requests are still taken for {delay:?}");
        tokio::time::sleep(delay).await;
        closing.cancel();
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served?,
        () = end => tracing::warn!("requests are cut off: they took longer than {GRACE:?} after the last was accepted"),
    }
    Ok(())
}
