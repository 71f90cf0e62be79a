//! `/healthz`, `/readyz`, `/metrics`.

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::{
    budget::{BODIES, Budget, OF_STRANGERS, OF_SUBSCRIBERS},
    state::Shared,
};

pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: connected, the streams and buckets are there, and not about to end.
pub(crate) async fn readyz(State(app): Shared) -> (StatusCode, &'static str) {
    if app.life.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    match app.readiness.look(&app.broker).await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

pub(crate) async fn metrics(State(app): Shared) -> Response {
    let bodies = [&BODIES, &OF_SUBSCRIBERS, &OF_STRANGERS].map(Budget::held).iter().sum();
    app.metrics.set_held(app.connections.count(), bodies, app.answers.bytes());
    match app.metrics.text(app.view.unreadable().len()) {
        Some(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
