//! `/healthz`, `/readyz` and `/metrics` of the components that have no API of their own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::{Bounds, NotReady};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

/// Most connections at once: a few probes, and those who read the figures.
const CONNECTIONS: usize = 64;
/// How long the head of a request may take, and a connection may be idle: longer than the pauses between two probes.
const HEAD_WITHIN: Duration = Duration::from_secs(60);

struct Probes {
    not_ready: NotReady,
    registry: Registry,
}

/// Serves the probes until `shutdown`. `None` as address: no probes.
pub async fn serve(
    listen: Option<SocketAddr>,
    not_ready: NotReady,
    registry: Registry,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(listen) = listen else { return Ok(()) };
    let listener = crate::listen::listen(listen, "--health-listen, HEALTH_LISTEN")?;
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Probes { not_ready, registry }));
    tokio::spawn(async move {
        let bounds = Bounds { connections: CONNECTIONS, head_within: HEAD_WITHIN, ..Bounds::default() };
        let served = api::serve(listener, router, &bounds, None, shutdown).await;
        if let Err(error) = served {
            tracing::error!(%error, "the probes have stopped");
        }
    });
    Ok(())
}

async fn readyz(State(probes): State<Arc<Probes>>) -> impl IntoResponse {
    match (probes.not_ready)() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(probes): State<Arc<Probes>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &probes.registry) {
        Ok(()) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
