//! The table of routes, and what holds for all of them: root path, request id, CORS, the shape of errors.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HOST, LOCATION, ORIGIN, VARY,
        },
        uri::PathAndQuery,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use serde_json::json;
use tower::ServiceExt;
use uuid::Uuid;

use crate::{
    app::{App, Shared},
    docs,
    error::{ApiError, json as json_answer},
    health, messages,
    metrics::Request as RequestLabels,
    openapi, prefill, subscriptions,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The whole server, without a socket.
pub(crate) fn router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/v1/subscriptions", get(subscriptions::list).post(subscriptions::create))
        .route("/v1/subscriptions/{name}", get(subscriptions::get).delete(subscriptions::delete))
        .route("/v1/subscriptions/{name}/prefill", get(prefill::get).patch(prefill::set))
        .route("/v1/subscriptions/{name}/messages/next", get(messages::next))
        .route("/v1/subscriptions/{name}/messages/{seq_num}/status", patch(messages::acknowledge))
        .route("/v1/messages", post(messages::publish))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::serve))
        .route("/docs", get(docs::serve))
        .route_layer(from_fn_with_state(app.clone(), count))
        .fallback(async || ApiError::NotFound("Not Found".to_owned()))
        .with_state(app.clone());
    // The root path is cut off before a route is looked for, so this can't be a layer of the routes.
    Router::new()
        .fallback(async move |State(app): Shared, request: Request| serve(&app, routes, request).await)
        .with_state(app)
}

async fn serve(app: &App, routes: Router, mut request: Request) -> Response {
    let id = request_id(request.headers());
    let origin = request.headers().get(ORIGIN).cloned().filter(|_| app.config.cors_all);
    let mut answer = match (&origin, preflight(request.method(), request.headers())) {
        (Some(_), Some(asked)) => allow(asked),
        _ => {
            if let Some(target) = without_trailing_slash(request.uri(), request.headers()) {
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, target)]).into_response()
            } else {
                strip_root_path(&mut request, &app.config.root_path);
                route(routes, request).await
            }
        }
    };
    let headers = answer.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    answer
}

async fn route(routes: Router, mut request: Request) -> Response {
    // A name is one segment: an encoded slash is not part of it.
    if request.uri().path().to_ascii_lowercase().contains("%2f") {
        return ApiError::NotFound("Not Found".to_owned()).into_response();
    }
    // The former service answers HEAD and OPTIONS with 405; a GET's handler would run otherwise.
    if matches!(*request.method(), Method::HEAD | Method::OPTIONS) {
        *request.method_mut() = Method::TRACE;
    }
    let answer = match routes.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    if answer.status() != StatusCode::METHOD_NOT_ALLOWED {
        return answer;
    }
    let mut told = json_answer(StatusCode::METHOD_NOT_ALLOWED, &json!({"detail": "Method Not Allowed"}));
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name == axum::http::header::ALLOW) {
        told.headers_mut().insert(name, value.clone());
    }
    told
}

/// Counts requests by route. The route is our own text, so its number is bounded.
async fn count(State(app): Shared, route: MatchedPath, request: Request, next: Next) -> Response {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let answer = next.run(request).await;
    let labels = RequestLabels { method, route: route.as_str().to_owned(), status: answer.status().as_u16() };
    app.metrics.requests.get_or_create(&labels).inc();
    answer
}

/// The client's id if it is a UUID, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given =
        headers.get(REQUEST_ID).filter(|v| v.to_str().is_ok_and(|text| Uuid::try_parse(text).is_ok()));
    given.cloned().unwrap_or_else(|| {
        let id = Uuid::new_v4().simple().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// `/v1/subscriptions/` is answered with the address without the slash, before anything else.
fn without_trailing_slash(uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty() && !path.ends_with('/'))?;
    let host = headers.get(HOST)?.to_str().ok()?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    HeaderValue::from_str(&format!("http://{host}{path}{query}")).ok()
}

/// Requests are served with and without the root path.
fn strip_root_path(request: &mut Request, root_path: &str) {
    let root_path = root_path.trim_end_matches('/');
    let uri = request.uri();
    let Some(path) =
        uri.path().strip_prefix(root_path).filter(|p| !root_path.is_empty() && p.starts_with('/'))
    else {
        return;
    };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    if let Ok(path) = format!("{path}{query}").parse::<PathAndQuery>() {
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// The headers that a browser asks for before the real request.
fn preflight(method: &Method, headers: &HeaderMap) -> Option<Option<HeaderValue>> {
    let asks = *method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    asks.then(|| headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned())
}

fn allow(asked: Option<HeaderValue>) -> Response {
    let mut answer =
        (StatusCode::OK, [(CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from("OK")).into_response();
    let headers = answer.headers_mut();
    let methods = HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(asked) = asked {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
    }
    answer
}
