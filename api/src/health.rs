//! `/healthz`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::state::Shared;

pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// How long a probe waits for NATS: shorter than the second that Kubernetes waits for a probe.
const LOOK_WITHIN: Duration = Duration::from_millis(800);

/// Ready: connected, the streams and buckets are there, and not about to end.
pub(crate) async fn readyz(State(app): Shared) -> (StatusCode, &'static str) {
    if app.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    if !app.broker.is_connected() {
        return (StatusCode::SERVICE_UNAVAILABLE, "NATS is away\n");
    }
    match tokio::time::timeout(LOOK_WITHIN, app.broker.await_layout()).await {
        Ok(Ok(())) => (StatusCode::OK, "ready\n"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "NATS does not have our streams\n")
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "NATS does not answer\n"),
    }
}

pub(crate) async fn metrics(State(app): Shared) -> Response {
    match app.metrics.text(app.view.unreadable().len()) {
        Some(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
