//! `/control`: the switches and the directory over HTTP, for tests that run elsewhere than the server. No
//! credentials are asked for: this is a stand-in.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post, put};
use serde::Deserialize;

use crate::auth::Credentials;
use crate::faults::{Faults, Rule};
use crate::server::App;

/// Routes of the control API.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/control/health", get(async || "ok"))
        .route("/control/faults", get(faults).put(set_faults))
        .route("/control/faults/rules", post(add_rule))
        .route("/control/credentials", put(set_credentials))
        .route("/control/objects", get(object).put(put_object).delete(delete_object))
        .route("/control/objects/rename", post(rename_object))
        .route("/control/counters", get(counters).delete(reset_counters))
        .route("/control/requests", get(requests))
}

type Shared = State<Arc<App>>;

async fn faults(State(app): Shared) -> Json<Faults> {
    Json(app.switches.get())
}

async fn set_faults(State(app): Shared, Json(faults): Json<Faults>) -> StatusCode {
    app.switches.set(faults);
    StatusCode::NO_CONTENT
}

async fn add_rule(State(app): Shared, Json(rule): Json<Rule>) -> StatusCode {
    app.switches.add(rule);
    StatusCode::NO_CONTENT
}

async fn set_credentials(State(app): Shared, Json(credentials): Json<Credentials>) -> StatusCode {
    *app.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    StatusCode::NO_CONTENT
}

/// `?dn=…`: the object as it stands in the directory, without `uri` and `_links`. `?module=…`: the DNs of a list.
async fn object(State(app): Shared, Query(query): Query<HashMap<String, String>>) -> Response {
    if let Some(module) = query.get("module") {
        return Json(app.directory.dns(module)).into_response();
    }
    match query.get("dn").and_then(|dn| app.directory.get(dn)) {
        Some(object) => format!("{{{}}}", object.members).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The body is the object: its bytes are kept.
async fn put_object(State(app): Shared, body: String) -> Response {
    match app.directory.put(&body) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
    }
}

async fn delete_object(State(app): Shared, Query(query): Query<HashMap<String, String>>) -> StatusCode {
    match query.get("dn").and_then(|dn| app.directory.remove(dn)) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

#[derive(Deserialize)]
struct Rename {
    dn: String,
    to: String,
}

async fn rename_object(State(app): Shared, Json(Rename { dn, to }): Json<Rename>) -> StatusCode {
    match app.directory.rename(&dn, &to) {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::NOT_FOUND,
    }
}

async fn counters(State(app): Shared) -> Json<crate::counters::Numbers> {
    Json(app.counters.numbers())
}

async fn reset_counters(State(app): Shared) -> StatusCode {
    app.counters.reset();
    StatusCode::NO_CONTENT
}

async fn requests(State(app): Shared) -> Json<Vec<crate::counters::Asked>> {
    Json(app.counters.asked())
}
