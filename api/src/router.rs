//! The table of routes, and what holds for all of them: root path, request id, CORS, the shape of errors.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    handler::Handler,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONNECTION, CONTENT_TYPE, LOCATION, ORIGIN, VARY,
        },
        uri::PathAndQuery,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use tower::ServiceExt;
use tracing::Instrument;

use crate::{
    access::Access::{self, AdminOrSubscriber, Public, Subscriber},
    admission::let_in,
    code::Code,
    dead_letters, docs,
    error::{ApiError, method_not_allowed},
    health, messages,
    metrics::{Request as RequestLabels, Route as RouteLabel},
    prefill,
    request_id::{REQUEST_ID, request_id},
    roles::Role,
    state::{App, Shared},
    stream, subscriptions,
};

/// One operation: who may ask, and what answers.
struct Route {
    path: &'static str,
    access: Access,
    method: MethodRouter<Arc<App>>,
}

fn route<H, T>(method: MethodFilter, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    Route { path, access, method: on(method, handler) }
}

/// Every route, with who may ask for it. Each operation stands in the description, too; tests compare them.
#[rustfmt::skip]
fn routes() -> Vec<Route> {
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PATCH: MethodFilter = MethodFilter::PATCH;
    const DELETE: MethodFilter = MethodFilter::DELETE;
    const ADMIN: Access = Access::Role(Role::Admin);
    vec![
        route(GET, "/v1/subscriptions", ADMIN, subscriptions::list),
        route(POST, "/v1/subscriptions", ADMIN, subscriptions::create),
        route(GET, "/v1/subscriptions/{name}", AdminOrSubscriber, subscriptions::get),
        route(PATCH, "/v1/subscriptions/{name}", AdminOrSubscriber, subscriptions::change),
        route(DELETE, "/v1/subscriptions/{name}", AdminOrSubscriber, subscriptions::delete),
        route(GET, "/v1/subscriptions/{name}/prefill", AdminOrSubscriber, prefill::get),
        route(POST, "/v1/subscriptions/{name}/prefill", AdminOrSubscriber, prefill::ask),
        route(PATCH, "/v1/subscriptions/{name}/prefill", Access::Role(Role::Prefill), prefill::set),
        route(DELETE, "/v1/subscriptions/{name}/prefill", AdminOrSubscriber, prefill::cancel),
        route(POST, "/v1/subscriptions/{name}/prefill/pause", AdminOrSubscriber, prefill::pause),
        route(POST, "/v1/subscriptions/{name}/prefill/resume", AdminOrSubscriber, prefill::resume),
        route(POST, "/v1/subscriptions/{name}/prefill/approve", ADMIN, prefill::approve),
        route(GET, "/v1/subscriptions/{name}/messages", Subscriber, messages::batch),
        route(GET, "/v1/subscriptions/{name}/messages/next", Subscriber, messages::next),
        route(GET, "/v1/subscriptions/{name}/messages/stream", Subscriber, stream::open),
        route(POST, "/v1/subscriptions/{name}/messages/acknowledgements", Subscriber, messages::acknowledge_through),
        route(PATCH, "/v1/subscriptions/{name}/messages/{seq_num}/status", Subscriber, messages::acknowledge),
        route(GET, "/v1/subscriptions/{name}/dead-letters", AdminOrSubscriber, dead_letters::list),
        route(DELETE, "/v1/subscriptions/{name}/dead-letters/{id}", AdminOrSubscriber, dead_letters::delete),
        route(POST, "/v1/subscriptions/{name}/dead-letters/{id}/redelivery", AdminOrSubscriber, dead_letters::redeliver),
        route(POST, "/v1/messages", Access::Role(Role::Events), messages::publish),
        route(GET, "/healthz", Public, health::healthz),
        route(GET, "/readyz", Public, health::readyz),
        route(GET, "/metrics", Public, health::metrics),
        route(GET, "/openapi.json", Public, docs::description),
        route(GET, "/docs", Public, docs::page),
    ]
}

/// The whole server, without a socket.
pub(crate) fn router(app: Arc<App>) -> Router {
    let routes = routes();
    let public = routes.iter().filter(|route| route.access == Public).map(|route| route.path);
    let public: Arc<[&'static str]> = public.collect();
    let routes = routes
        .into_iter()
        .fold(Router::new(), |router, Route { path, access, method }| {
            router.route(path, method.route_layer(from_fn_with_state((app.clone(), access), let_in)))
        })
        .route_layer(from_fn_with_state(app.clone(), count))
        .fallback(async || ApiError::NotFound(Code::NotFound, "Not Found".to_owned()))
        .with_state(app.clone());
    // The root path is cut off before a route is looked for, so this can't be a layer of the routes.
    Router::new()
        .fallback(async move |State(app): Shared, request: Request| {
            let id = request_id(request.headers());
            let span = tracing::info_span!(
                "request",
                request_id = id.to_str().unwrap_or_default(),
                method = %request.method(),
                path = request.uri().path(),
            );
            let mut answer = serve(&app, routes, &public, request).instrument(span).await;
            answer.headers_mut().insert(REQUEST_ID, id);
            if app.life.stopping.is_cancelled() {
                // The next request goes elsewhere.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        })
        .with_state(app)
}

async fn serve(app: &App, routes: Router, public: &[&str], mut request: Request) -> Response {
    if app.config.root_path.trim_end_matches('/').is_empty() {
        fold_leading_slashes(&mut request);
    }
    let origin = request.headers().get(ORIGIN).cloned().filter(|_| app.config.cors_all);
    let mut answer = match (&origin, preflight(request.method(), request.headers())) {
        (Some(_), Some(asked)) => allow(asked),
        _ => {
            if let Some(target) = without_trailing_slash(request.uri()) {
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, target)]).into_response()
            } else {
                strip_root_path(&mut request, &app.config.root_path);
                dispatch(routes, public, request).await
            }
        }
    };
    if let Some(origin) = origin {
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    answer
}

async fn dispatch(routes: Router, public: &[&str], mut request: Request) -> Response {
    // A name is one segment of text: an encoded slash is not part of it.
    let path = request.uri().path();
    if path.to_ascii_lowercase().contains("%2f") || percent_decode_str(path).decode_utf8().is_err() {
        return ApiError::NotFound(Code::NotFound, "Not Found".to_owned()).into_response();
    }
    // The former service answers HEAD and OPTIONS with 405; a GET's handler would run otherwise. Pages that ask for no
    // credentials are its GET without content, as load balancers ask for them.
    let is_public = public.contains(&path);
    if *request.method() == Method::OPTIONS || (*request.method() == Method::HEAD && !is_public) {
        *request.method_mut() = Method::TRACE;
    }
    let answer = match routes.oneshot(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    if answer.status() != StatusCode::METHOD_NOT_ALLOWED {
        return answer;
    }
    let mut told = method_not_allowed();
    let allowed = answer.headers().get(ALLOW).and_then(|methods| methods.to_str().ok()).unwrap_or_default();
    let allowed: Vec<&str> =
        allowed.split(',').map(str::trim).filter(|method| *method != "HEAD" || is_public).collect();
    if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
        told.headers_mut().insert(ALLOW, allowed);
    }
    told
}

/// Counts requests by route. The route is our own text, so its number is bounded.
async fn count(State(app): Shared, route: MatchedPath, request: Request, next: Next) -> Response {
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let began = Instant::now();
    let answer = next.run(request).await;
    let took = app.metrics.durations.get_or_create(&RouteLabel { method, route: route.as_str().to_owned() });
    took.observe(began.elapsed().as_secs_f64());
    let labels = RequestLabels { method, route: route.as_str().to_owned(), status: answer.status().as_u16() };
    app.metrics.requests.get_or_create(&labels).inc();
    answer
}

/// `/v1/subscriptions/` is answered with the address without the slash, before anything else. It is relative: behind a
/// proxy we do not know which scheme the client uses, and a password must not be sent over another one.
fn without_trailing_slash(uri: &Uri) -> Option<HeaderValue> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty() && !path.ends_with('/'))?;
    // `//name/path` would be an address at another host.
    let path = path.trim_start_matches('/');
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    HeaderValue::from_str(&format!("/{path}{query}")).ok()
}

/// `//v1/…` is what a client asks for whose base address ends in a slash.
fn fold_leading_slashes(request: &mut Request) {
    let path = request.uri().path();
    let folded = path.trim_start_matches('/');
    if folded.len() + 1 < path.len() {
        set_path(request, &format!("/{folded}"));
    }
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
    let path = path.to_owned();
    set_path(request, &path);
}

/// Another path; the query stays.
fn set_path(request: &mut Request, path: &str) {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = request.uri().clone().into_parts();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = openapi::document("/");
        let mut described: Vec<&str> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut served: Vec<&str> = routes().iter().map(|route| route.path).collect();
        described.sort_unstable();
        served.sort_unstable();
        served.dedup();
        assert_eq!(described, served);
    }

    #[test]
    fn slashes_at_the_end_and_at_the_beginning() {
        for (asked, target) in [
            ("/v1/subscriptions/", Some("/v1/subscriptions")),
            ("/a/b/v1/subscriptions/?x=1", Some("/a/b/v1/subscriptions?x=1")),
            ("//elsewhere.example/", Some("/elsewhere.example")),
            ("http://elsewhere.example/v1/", Some("/v1")),
            ("/v1/subscriptions", None),
            ("/", None),
            ("//", None),
        ] {
            let target = target.map(HeaderValue::from_static);
            assert_eq!(without_trailing_slash(&asked.parse().unwrap()), target, "{asked}");
        }
        for (asked, served) in [
            ("//v1/messages?x=//y", "/v1/messages?x=//y"),
            ("///v1//messages", "/v1//messages"),
            ("/v1//messages", "/v1//messages"),
            ("/", "/"),
            ("//", "/"),
        ] {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = asked.parse().unwrap();
            fold_leading_slashes(&mut request);
            assert_eq!(request.uri(), served, "{asked}");
        }
    }

    #[test]
    fn the_root_path_is_cut_off_where_it_is() {
        for (root_path, asked, served) in [
            ("/a/b", "/a/b/v1/messages?x=1", "/v1/messages?x=1"),
            ("/a/b/", "/a/b/v1/messages", "/v1/messages"),
            ("/a/b", "/v1/messages", "/v1/messages"),
            ("/a/b", "/a/bc/v1", "/a/bc/v1"),
            ("/a/b", "/a/b", "/a/b"),
            ("/", "/v1/messages", "/v1/messages"),
            ("", "/v1/messages", "/v1/messages"),
        ] {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = asked.parse().unwrap();
            strip_root_path(&mut request, root_path);
            assert_eq!(request.uri(), served, "{root_path} {asked}");
        }
    }
}
