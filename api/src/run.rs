//! The server's life.

use std::time::Duration;

use broker::Broker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, error::Error, launcher::Launcher, router, server, state::App};

/// How long requests that are under way may take after the stop: below the 30 s that Kubernetes gives a pod, and
/// above what a registration waits for Kubernetes.
const GRACE: Duration = Duration::from_secs(20);

/// Serves until `shutdown`: then no connection is taken any more, polls end with "nothing", and requests that are
/// under way are answered, but for at most 20 s.
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
    let app = App::new(config, broker, launcher, shutdown.clone())?;
    app.view.synced().await;
    let (bounds, tls) = (app.config.bounds.clone(), app.config.tls.clone());
    let serving = server::serve(listener, router::router(app), &bounds, tls.as_ref(), shutdown.clone());
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served?,
        () = too_long => tracing::warn!("requests are cut off: they took longer than {GRACE:?} after the stop"),
    }
    Ok(())
}
