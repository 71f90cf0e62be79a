//! `/healthz`, `/readyz`, `/metrics`.

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::{
    body_memory::{BODIES, BodyMemory, OF_STRANGERS, OF_SUBSCRIBERS},
    state::Shared,
};

pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: connected, the streams and buckets are there, and not about to end.
pub(crate) async fn readyz(State(app): Shared) -> (StatusCode, String) {
    let problem = if app.life.stopping.is_cancelled() {
        Some("shutting down".to_owned())
    } else {
        match app.readiness.look(&app.broker).await {
            Ok(()) => (app.not_ready)(),
            Err(why) => Some(why.to_owned()),
        }
    };
    match problem {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
    }
}

pub(crate) async fn metrics(State(app): Shared) -> Response {
    let bodies = [&BODIES, &OF_SUBSCRIBERS, &OF_STRANGERS].map(BodyMemory::held).iter().sum();
    app.metrics.set_held(app.connections.count(), bodies, app.answers.bytes());
    match app.metrics.text(app.view.unreadable().len()) {
        Some(text) => ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
