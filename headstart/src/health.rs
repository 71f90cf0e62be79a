//! `/healthz`, `/readyz` and `/metrics` of the components that have no API of their own.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio_util::sync::CancellationToken;

/// Answers "is it ready?".
pub type Ready = Box<dyn Fn() -> bool + Send + Sync>;

struct Probes {
    ready: Ready,
    registry: Registry,
}

/// Serves the probes until `shutdown`. `None` as address: no probes.
pub async fn serve(
    listen: Option<SocketAddr>,
    ready: Ready,
    registry: Registry,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Some(listen) = listen else { return Ok(()) };
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("can't listen on {listen} (--health-listen, HEALTH_LISTEN)"))?;
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Probes { ready, registry }));
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the probes have stopped");
        }
    });
    Ok(())
}

async fn readyz(State(probes): State<Arc<Probes>>) -> impl IntoResponse {
    if (probes.ready)() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
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
