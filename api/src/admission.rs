//! The one order of every request:
//!
//! ```text
//! header ─► throttle ─► password ─► may this caller ask for this route? ─► body ─► validation (the handler)
//! ```
//!
//! Of somebody who is not let in little is read, into memory of its own, and nothing is looked at but whether it is
//! JSON: the former service reports broken JSON before it asks who sends it.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, RawPathParams, Request, State},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    access::{Access, Caller, LoggedIn},
    body::{Allowance, JsonBody},
    error::ApiError,
    peer::Peer,
    roles::Role,
    state::App,
};

/// Lets a request in, or answers why not. What comes behind it knows its [`Caller`].
pub(crate) async fn let_in(
    State((app, access)): State<(Arc<App>, Access)>,
    path: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    if access == Access::Public {
        return next.run(request).await;
    }
    let name = path.iter().find(|(key, _)| *key == "name").map_or("", |(_, name)| name);
    let peer = Peer::of(request.extensions());
    match app.auth.caller(request.headers(), peer, access, name).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refuse(refused, request).await.into_response(),
    }
}

async fn refuse(refused: ApiError, request: Request) -> ApiError {
    let (parts, body) = request.into_parts();
    match JsonBody::read(&parts.headers, body, Allowance::STRANGER).await {
        Err(broken @ ApiError::Invalid(_)) => broken,
        Ok(_) | Err(_) => refused,
    }
}

fn nobody_was_let_in() -> ApiError {
    ApiError::Internal {
        cause: "a route asks for a caller that its access policy does not let in".to_owned(),
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(nobody_was_let_in)
    }
}

impl<S: Sync> FromRequestParts<S> for LoggedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Caller::from_request_parts(parts, state).await? {
            Caller::Subscriber(own) => Ok(own),
            Caller::Role(_) => Err(nobody_was_let_in()),
        }
    }
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let allowance = match parts.extensions.get() {
            // The stored form may be longer than the request by the spelling of `ts`: the publisher checks again.
            Some(Caller::Role(Role::Events)) => Allowance::event(app.broker.largest_message()),
            Some(Caller::Role(_)) => Allowance::ROLE,
            Some(Caller::Subscriber(_)) => Allowance::SUBSCRIBER,
            None => Allowance::STRANGER,
        };
        Self::read(&parts.headers, body, allowance).await
    }
}
