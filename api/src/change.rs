//! Changing a subscription that is ready: the entry by compare-and-set, then whatever the new entry needs.
//!
//! The entry says what is to exist, so a request that dies half-way is completed by sending it again, or by the
//! controller: it makes a missing Job or task, and sends the marker of a round without a boundary again.

use axum::http::StatusCode;
use broker::{Modified, Revised};
use model::{PrefillState, Subscription, subscription::Lifecycle};

use crate::{
    access::Caller,
    code::Code,
    error::ApiError,
    lookup::{check_queue, gone},
    state::App,
};

/// Changes the entry, and makes what it needs from then on: the attempt's Job or task, and the marker. 202 if
/// something was changed, 200 if it was so before.
pub(crate) async fn apply(
    app: &App,
    subscription: Subscription,
    caller: &Caller,
    change: impl Fn(&Subscription) -> Option<Subscription>,
) -> Result<(StatusCode, Revised<Subscription>), ApiError> {
    let Subscription { name, incarnation, lifecycle, .. } = &subscription;
    if *lifecycle != Lifecycle::Ready {
        let detail =
            format!("The subscription {name} is being registered; send its registration again first");
        return Err(ApiError::Conflict(Code::NotReady, detail));
    }
    check_queue(app, &subscription).await?;
    let (status, entry) = match app.broker.registry().modify(name, *incarnation, change).await? {
        Modified::Changed(entry) => (StatusCode::ACCEPTED, entry),
        Modified::Unchanged(entry) => (StatusCode::OK, entry),
        Modified::Gone => return Err(gone(name.as_str(), caller)),
    };
    if entry.value.prefill.state == PrefillState::Pending {
        app.launcher.launch(&entry.value).await?;
    }
    if entry.value.prefill.boundary.is_none() {
        app.events.marker(&entry.value).await?;
    }
    Ok((status, entry))
}
