//! The protocol of registration: each step is idempotent and carries the incarnation, so that a request that died
//! half-way is completed by sending it again, by any replica.
//!
//! reserve → queue → credentials → Job and ConfigMap (or task) → ready → marker → 201
//!
//! Most requests are for a new name, so each step begins with the conditional write that is right then, and looks only
//! when that is refused. The password's hash, which takes longest, is computed while the queue is made.

use axum::http::StatusCode;
use broker::{Modified, Revised, WriteError};
use model::{
    Entry, Incarnation, PrefillState, Subscription,
    subscription::{Lifecycle, Registration, RegistrationOutcome, compare_registration},
};
use uuid::Uuid;

use crate::{
    code::Code,
    config::Step,
    error::ApiError,
    lookup::{check_queue, now},
    state::{App, unreadable},
};

/// Rounds of "somebody else was faster" before giving up.
const TRIES: u32 = 20;

/// Registers, completes what a former request began, or says why not. Answers 201 when this request made the
/// subscription ready, 200 when it was before.
pub(crate) async fn register(
    app: &App,
    registration: Registration,
    password: String,
) -> Result<StatusCode, ApiError> {
    if let Some(reserved) = reserve(app, &registration, 1, 0).await? {
        return complete(app, reserved, Some(&password)).await;
    }
    for _ in 0..TRIES {
        let found = app.broker.registry().get(&registration.name).await;
        let found = found.map_err(|error| unreadable(&registration.name, error))?;
        match found {
            None => {
                if let Some(reserved) = reserve(app, &registration, 1, 0).await? {
                    return complete(app, reserved, Some(&password)).await;
                }
            }
            Some(Revised { value: Entry::Tombstone(tombstone), revision }) => {
                if let Some(reserved) = reserve(app, &registration, tombstone.next_sequence, revision).await?
                {
                    return complete(app, reserved, Some(&password)).await;
                }
            }
            Some(Revised { value: Entry::Subscription(existing), revision }) => {
                if existing.lifecycle == Lifecycle::Deleting {
                    app.broker.remove_subscription(&existing.name, existing.incarnation).await?;
                    continue;
                }
                let known = compare(app, &existing, &registration, &password).await?;
                let existing = Revised { value: existing, revision };
                return complete(app, existing, (!known).then_some(password.as_str())).await;
            }
        }
    }
    Err(ApiError::Unavailable {
        detail: "The subscription is being changed by others; try again",
        cause: "lost every race for the entry".to_owned(),
    })
}

/// Reserves the name; `None` if somebody else was faster.
async fn reserve(
    app: &App,
    registration: &Registration,
    first_sequence: u64,
    revision: u64,
) -> Result<Option<Revised<Subscription>>, ApiError> {
    app.before(Step::Reserve).await;
    let incarnation = Incarnation(Uuid::new_v4());
    let subscription = Subscription::reserve(registration.clone(), incarnation, first_sequence, now());
    let entry = Entry::Subscription(subscription.clone());
    match app.broker.registry().update(&registration.name, &entry, revision).await {
        Ok(revision) => Ok(Some(Revised { value: subscription, revision })),
        Err(WriteError::Conflict) => Ok(None),
        Err(WriteError::Other(error)) => Err(error.into()),
    }
}

/// Is it the same request as the one that is registered? False: it is, but its password is not stored yet.
async fn compare(
    app: &App,
    existing: &Subscription,
    asked: &Registration,
    password: &str,
) -> Result<bool, ApiError> {
    match compare_registration(existing, asked) {
        RegistrationOutcome::TopicsDiffer => {
            return Err(differs(existing, Code::TopicsDiffer, "realms_topics (their order counts)"));
        }
        RegistrationOutcome::PrefillDiffers => {
            return Err(differs(existing, Code::PrefillDiffers, "request_prefill"));
        }
        RegistrationOutcome::SelectionDiffers => {
            return Err(differs(existing, Code::SelectionDiffers, "selection"));
        }
        RegistrationOutcome::TrackDiffers => return Err(differs(existing, Code::TrackDiffers, "track")),
        RegistrationOutcome::MaxRemovalsDiffers => {
            return Err(differs(existing, Code::MaxRemovalsDiffers, "max_removals"));
        }
        RegistrationOutcome::Same => {}
    }
    // Missing: a former request died before it was written; it will be.
    let Some(hash) = own_credential(app, existing).await? else { return Ok(false) };
    verified(app, existing, hash, password).await.map(|()| true)
}

fn differs(existing: &Subscription, code: Code, field: &str) -> ApiError {
    ApiError::Conflict(
        code,
        format!(
            "A subscription named {} is registered with another value of {field}; remove it first to change it",
            existing.name
        ),
    )
}

/// The hash that counts for this incarnation. A bare one of the former software belongs to a subscription that is
/// ready; to one that is being registered it is a left-over.
async fn own_credential(app: &App, subscription: &Subscription) -> Result<Option<String>, ApiError> {
    let stored = app.broker.credentials().get(&subscription.name).await?;
    let ready = subscription.lifecycle == Lifecycle::Ready;
    let own = stored.filter(|s| s.incarnation.map_or(ready, |i| i == subscription.incarnation));
    Ok(own.map(|s| s.hash))
}

/// Makes everything that is missing. 201 is for the request that made the subscription ready, so of several at once
/// only one gets it. `password`: what is to be stored, unless it is known to be.
async fn complete(
    app: &App,
    entry: Revised<Subscription>,
    password: Option<&str>,
) -> Result<StatusCode, ApiError> {
    let subscription = &entry.value;
    let was_ready = subscription.lifecycle == Lifecycle::Ready;
    let queue = async {
        if was_ready {
            return check_queue(app, subscription).await;
        }
        app.before(Step::Queue).await;
        app.broker.queue(&subscription.name, subscription.incarnation).create(subscription).await?;
        Ok(())
    };
    let hash = async {
        match password {
            Some(password) => Ok(Some((app.auth.hash(password).await?, password))),
            None => Ok(None),
        }
    };
    let ((), hash) = tokio::try_join!(queue, hash)?;
    if let Some((hash, password)) = hash {
        app.before(Step::Credentials).await;
        ensure_credential(app, subscription, hash, password).await?;
    }
    let mut status = StatusCode::OK;
    if !was_ready {
        if subscription.prefill.state == PrefillState::Pending {
            app.before(Step::Launch).await;
            app.launcher.launch(subscription).await?;
        }
        app.before(Step::Ready).await;
        if make_ready(app, &entry).await? {
            app.auth.registered(&subscription.name);
            status = StatusCode::CREATED;
        }
    }
    if subscription.prefill.boundary.is_none() {
        app.before(Step::Marker).await;
        app.events.marker(subscription).await?;
    }
    app.before(Step::Answer).await;
    Ok(status)
}

/// Stores the password's hash, unless there is one. The one that is stored counts: two requests at once with
/// different passwords must not both be told that theirs does.
async fn ensure_credential(
    app: &App,
    subscription: &Subscription,
    hash: String,
    password: &str,
) -> Result<(), ApiError> {
    let Subscription { name, incarnation, .. } = subscription;
    let stored = app.broker.credentials().create(name, *incarnation, &hash).await?;
    if stored.hash == hash { Ok(()) } else { verified(app, subscription, stored.hash, password).await }
}

async fn verified(
    app: &App,
    subscription: &Subscription,
    hash: String,
    password: &str,
) -> Result<(), ApiError> {
    if app.auth.verify(hash, password).await? {
        Ok(())
    } else {
        Err(differs(subscription, Code::PasswordDiffers, "password"))
    }
}

/// False: a request beside this one did it.
async fn make_ready(app: &App, entry: &Revised<Subscription>) -> Result<bool, ApiError> {
    let Subscription { name, incarnation, request_prefill, .. } = &entry.value;
    let ready = |s: &Subscription| {
        (s.lifecycle == Lifecycle::Registering)
            .then(|| Subscription { lifecycle: Lifecycle::Ready, ..s.clone() })
    };
    let registry = app.broker.registry();
    let written = match ready(&entry.value) {
        Some(next) => registry.update(name, &Entry::Subscription(next), entry.revision).await,
        None => Err(WriteError::Conflict),
    };
    let changed = match written {
        Ok(_) => true,
        Err(WriteError::Other(error)) => return Err(error.into()),
        // Somebody else has changed it meanwhile.
        Err(WriteError::Conflict) => match registry.modify(name, *incarnation, ready).await? {
            Modified::Changed(_) => true,
            Modified::Unchanged(s) if s.value.lifecycle == Lifecycle::Ready => false,
            Modified::Unchanged(_) | Modified::Gone => {
                return Err(ApiError::Unavailable {
                    detail: "The subscription was removed while it was being registered; send the request again",
                    cause: format!("{name} was removed meanwhile"),
                });
            }
        },
    };
    if changed {
        tracing::info!(subscription = %name, %incarnation, prefill = request_prefill, "registered");
    }
    Ok(changed)
}
