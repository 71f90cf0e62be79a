//! What a server answers before it can do its work: it is alive, and says what it waits for.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::{code::Code, error::before_routes};

/// What a process waits for before it can do its work. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<RwLock<Option<String>>>);

impl Waiting {
    /// It waits for this.
    pub fn set(&self, what: impl Into<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    }

    /// It waits for nothing any more.
    pub fn over(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What it waits for.
    #[must_use]
    pub fn what(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Routes that answer for others until these are there.
pub(crate) fn front(router: watch::Receiver<Option<Router>>, waiting: Waiting) -> Router {
    Router::new().fallback(move |request: Request| {
        let (router, waiting) = (router.borrow().clone(), waiting.clone());
        async move {
            match router {
                Some(router) => router.oneshot(request).await.into_response(),
                None => not_yet(&request, &waiting),
            }
        }
    })
}

fn not_yet(request: &Request, waiting: &Waiting) -> Response {
    let text = [(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
    match request.uri().path() {
        path if path.ends_with("/healthz") => (text, "ok\n").into_response(),
        path if path.ends_with("/readyz") => {
            let what = waiting.what().unwrap_or_else(|| "the start".to_owned());
            (StatusCode::SERVICE_UNAVAILABLE, text, format!("waiting for {what}\n")).into_response()
        }
        _ => before_routes(Code::Unavailable, "The server is starting; try again", request.headers()),
    }
}
