//! `/v1/subscriptions/{name}/dead-letters`: what the queue could not carry, and sending it again.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use broker::StoredDeadLetter;
use model::{
    Subscription,
    dead_letter::{DeadLetter, DeadLetterReason},
    subscription::Lifecycle,
};
use serde::Serialize;

use crate::{
    access::Caller,
    code::Code,
    error::{ApiError, json, null},
    lookup::existing,
    query::{Pairs, Parameters},
    request,
    state::{App, Shared},
};

#[derive(Serialize)]
struct View<'a> {
    id: u64,
    /// Can it be sent again?
    kept: bool,
    #[serde(flatten)]
    letter: &'a DeadLetter,
}

pub(crate) async fn list(
    State(app): Shared,
    Path(name): Path<String>,
    caller: Caller,
    query: Pairs,
) -> Result<Response, ApiError> {
    let mut parameters = Parameters::new(query);
    let (after, limit) = (parameters.after_letter(), parameters.page());
    parameters.finish()?;
    let subscription = existing(&app, &name, &caller).await?.value;
    let letters = app.broker.dead_letters().list(&subscription, after, limit).await?;
    let shown: Vec<View<'_>> = letters
        .iter()
        .map(|stored| View { id: stored.id, kept: stored.is_kept(), letter: &stored.letter })
        .collect();
    Ok(json(StatusCode::OK, &shown))
}

pub(crate) async fn redeliver(
    State(app): Shared,
    Path((name, id)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let (subscription, stored) = find(&app, &name, &id, &caller).await?;
    if subscription.lifecycle != Lifecycle::Ready {
        return Err(ApiError::Conflict(Code::NotReady, format!("The subscription {name} is not ready")));
    }
    let Some(message) = app.broker.dead_letters().message(&stored).await? else {
        let when = match stored.letter.reason {
            DeadLetterReason::TooLarge => "when NATS carries more",
            DeadLetterReason::Unreadable | DeadLetterReason::Unknown => {
                "when the directory can show the object; a change of it comes by itself"
            }
        };
        return Err(ApiError::Conflict(
            Code::NotKept,
            format!("Only the record of dead letter {id} was kept: ask for the prefill again {when}"),
        ));
    };
    let limit = app.broker.largest_message();
    if message.len() > limit {
        return Err(ApiError::Conflict(
            Code::StillTooLarge,
            format!(
                "Dead letter {id} has {} bytes, and NATS carries {limit}: raise max_payload first",
                message.len()
            ),
        ));
    }
    app.broker.redeliver(&subscription.name, &stored, message).await?;
    tracing::info!(subscription = %subscription.name, id = stored.id, "a dead letter was sent again");
    Ok(null(StatusCode::ACCEPTED))
}

pub(crate) async fn delete(
    State(app): Shared,
    Path((name, id)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let (subscription, stored) = find(&app, &name, &id, &caller).await?;
    app.broker.dead_letters().remove(&stored).await?;
    tracing::info!(subscription = %subscription.name, id = stored.id, "a dead letter was removed");
    Ok(null(StatusCode::OK))
}

async fn find(
    app: &App,
    name: &str,
    id: &str,
    caller: &Caller,
) -> Result<(Subscription, StoredDeadLetter), ApiError> {
    let number = request::dead_letter(id)?;
    let subscription = existing(app, name, caller).await?.value;
    let stored = app.broker.dead_letters().get(&subscription.name, subscription.incarnation, number).await?;
    match stored {
        Some(stored) => Ok((subscription, stored)),
        None => Err(ApiError::NotFound(Code::NoDeadLetter, format!("{name} has no dead letter {number}"))),
    }
}
