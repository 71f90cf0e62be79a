//! Finding a subscription, and what is answered when there is none.

use broker::Revised;
use model::{Lifecycle, Subscription, Timestamp};

use crate::{
    access::Caller,
    code::Code,
    error::{ApiError, WRONG_CREDENTIALS},
    state::App,
};

/// The subscription, as the leader knows it.
pub(crate) async fn existing(
    app: &App,
    name: &str,
    caller: &Caller,
) -> Result<Revised<Subscription>, ApiError> {
    let entry = app.find(name).await?;
    let shown = |s: &Subscription| s.lifecycle != Lifecycle::Deleting && caller.may_see(s.incarnation);
    entry.filter(|e| shown(&e.value)).ok_or_else(|| gone(name, caller))
}

/// 404; but a subscription that is gone can't log in any more, whatever a replica still remembers.
pub(crate) fn gone(name: &str, caller: &Caller) -> ApiError {
    match caller {
        Caller::Role(_) => not_found(name),
        Caller::Subscriber(_) => WRONG_CREDENTIALS,
    }
}

fn not_found(name: &str) -> ApiError {
    ApiError::NotFound(Code::NoSubscription, format!("Subscription not found: '{name}'"))
}

/// A ready subscription must have its queue.
pub(crate) async fn check_queue(app: &App, subscription: &Subscription) -> Result<(), ApiError> {
    let Subscription { name, incarnation, .. } = subscription;
    if !subscription.is_broken() && app.broker.queue(name, *incarnation).exists().await? {
        return Ok(());
    }
    // Its events are lost: only a person can decide that this does not matter.
    Err(ApiError::Conflict(
        Code::QueueLost,
        format!(
            "The queue of the subscription {name} is lost (broken): remove the subscription and register it again"
        ),
    ))
}

/// The time, for people.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_utc(jiff::Timestamp::now())
}
