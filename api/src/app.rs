//! What all handlers share, and the server's life.

use std::sync::Arc;

use axum::{extract::State, serve::ListenerExt};
use broker::{Broker, EventPublisher, Readers, RegistryView, Revised};
use model::{Progress, Subscription, SubscriptionName};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Auth,
    config::{Config, Step},
    error::{ApiError, Error},
    launcher::Launcher,
    metrics::Metrics,
    router,
};

/// What all handlers share.
pub(crate) struct App {
    pub config: Config,
    pub broker: Broker,
    pub view: RegistryView,
    pub readers: Readers,
    pub events: EventPublisher,
    pub launcher: Launcher,
    pub auth: Auth,
    pub metrics: Metrics,
    /// Ends polls with "nothing".
    pub shutdown: CancellationToken,
}

/// The handlers' way to it.
pub(crate) type Shared = State<Arc<App>>;

impl App {
    pub(crate) fn new(
        config: Config,
        broker: Broker,
        launcher: Launcher,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let view = broker.registry().view(shutdown.clone());
        Arc::new(Self {
            readers: Readers::new(broker.clone(), view.clone(), config.reader),
            events: broker.events(),
            auth: Auth::new(config.clone(), broker.credentials(), view.clone()),
            metrics: Metrics::new(),
            config,
            broker,
            view,
            launcher,
            shutdown,
        })
    }

    /// The subscription of a name, from the leader; also one that is being removed.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Revised<Subscription>>, ApiError> {
        match name.parse::<SubscriptionName>() {
            Ok(name) => Ok(self.broker.registry().subscription(&name).await?),
            Err(_) => Ok(None),
        }
    }

    /// The last progress of a prefill, where there is one.
    pub(crate) async fn progress_of(
        &self,
        subscription: &Subscription,
    ) -> Result<Option<Progress>, ApiError> {
        if subscription.prefill.attempt == 0 {
            return Ok(None);
        }
        Ok(self.broker.progress().get(&subscription.name).await?)
    }

    /// For tests of crashes: stops here for ever if the test wants so.
    pub(crate) async fn before(&self, step: Step) {
        if self.config.before_step.as_ref().is_some_and(|hook| (hook.0)(step)) {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves until `shutdown`: then no connection is taken any more, polls end with "nothing", and requests that are
/// under way are answered.
///
/// # Errors
/// The socket fails.
pub async fn run(
    listener: TcpListener,
    config: Config,
    broker: Broker,
    launcher: Launcher,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let app = App::new(config, broker, launcher, shutdown.clone());
    app.view.synced().await;
    let listener = listener.tap_io(|stream| {
        // Small answers go out at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
    });
    axum::serve(listener, router::router(app)).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}
