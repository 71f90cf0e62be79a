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
    body::{HttpBody, to_bytes},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request, State},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use model::SubscriptionName;
use tokio::time::Instant;

use crate::{
    access::{Access, Caller, LoggedIn},
    answers::{HoldsItsOwn, Owner, SMALL, keep},
    body::{Allowance, JsonBody},
    connections::Connection,
    error::ApiError,
    metrics::Refusal,
    origin::origin,
    outage::outlast,
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
        let answer = next.run(request).await;
        return within_bounds(&app, Owner::Stranger, answer).await;
    }
    let name = path.iter().find(|(key, _)| *key == "name").map_or("", |(_, name)| name);
    let peer = Connection::address_of(request.extensions());
    let origin = origin(peer, request.headers(), &app.config.bounds.trusted_proxies);
    let headers = request.headers();
    let look = || app.auth.caller(headers, origin, access, name);
    let caller = match access {
        // Only consumers ask for these.
        Access::Subscriber => {
            let until = Instant::now() + app.config.bounds.outage_outlasted;
            outlast(until, &app.life.closing, look).await
        }
        _ => look().await,
    };
    match caller {
        Ok(caller) => {
            if let Some(connection) = Connection::of(request.extensions()) {
                connection.logged_in(caller.subscription().map(SubscriptionName::as_str));
            }
            request.extensions_mut().insert(caller.clone());
            let answer = next.run(request).await;
            let owner = caller.subscription().map_or(Owner::Role, Owner::Subscription);
            within_bounds(&app, owner, answer).await
        }
        Err(refused) => {
            if let Some(reason) = Refusal::of(&refused, request.headers()) {
                app.metrics.logins_refused.get_or_create(&reason).inc();
            }
            refuse(refused, request).await.into_response()
        }
    }
}

/// Holds the bytes of an answer until the client has taken them. (What holds its own has no need of it.)
async fn within_bounds(app: &App, owner: Owner<'_>, answer: Response) -> Response {
    let size = answer.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let Some(size) = size.filter(|size| *size > SMALL && answer.extensions().get::<HoldsItsOwn>().is_none())
    else {
        return answer;
    };
    let held = match app.answers.hold(owner, size) {
        Ok(held) => held,
        Err(full) => return full.into_response(),
    };
    let (parts, body) = answer.into_parts();
    match to_bytes(body, size).await {
        Ok(bytes) => Response::from_parts(parts, keep(bytes, held).into()),
        Err(error) => ApiError::Internal { cause: model::error_chain(&error) }.into_response(),
    }
}

impl Refusal {
    /// Why a login was refused; `None`: there was none.
    fn of(refused: &ApiError, headers: &HeaderMap) -> Option<Self> {
        match refused {
            ApiError::Unauthorized(_) => {
                headers.contains_key(AUTHORIZATION).then_some(Self { reason: "wrong" })
            }
            ApiError::TooMany { .. } => Some(Self { reason: "throttled" }),
            _ => None,
        }
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

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let allowance = match parts.extensions.get() {
            Some(Caller::Role(Role::Events)) => Allowance::event(),
            Some(Caller::Role(_)) => Allowance::ROLE,
            Some(Caller::Subscriber(_)) => Allowance::SUBSCRIBER,
            None => Allowance::STRANGER,
        };
        Self::read(&parts.headers, body, allowance).await
    }
}
