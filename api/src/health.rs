//! `/healthz`, `/readyz`, `/metrics`.

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::app::Shared;

pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: connected, and not about to end.
pub(crate) async fn readyz(State(app): Shared) -> (StatusCode, &'static str) {
    if app.shutdown.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else if app.broker.is_connected() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "NATS is away\n")
    }
}

pub(crate) async fn metrics(State(app): Shared) -> Response {
    match app.metrics.text() {
        Some(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
