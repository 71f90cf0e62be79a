//! The protocol of registration: each step is idempotent and carries the incarnation, so that a request that died
//! half-way is completed by sending it again, by any replica.
//!
//! reserve → queue → credentials → Job and ConfigMap (or task) → ready → marker → 201

use axum::http::StatusCode;
use broker::{Modified, Revised, WriteError};
use model::{
    Entry, Incarnation, Lifecycle, PrefillState, PrefillTask, Registration, RegistrationOutcome,
    Subscription, Timestamp, compare_registration,
};
use uuid::Uuid;

use crate::{app::App, config::Step, error::ApiError};

/// Rounds of "somebody else was faster" before giving up.
const TRIES: u32 = 20;

/// Registers, completes what a former request began, or says why not. Answers 201 when this request made the
/// subscription ready, 200 when it was before.
pub(crate) async fn register(
    app: &App,
    registration: Registration,
    password: String,
) -> Result<StatusCode, ApiError> {
    for _ in 0..TRIES {
        let found = app.broker.registry().get(&registration.name).await?;
        match found {
            None => {
                if let Some(reserved) = reserve(app, &registration, 1, 0).await? {
                    return complete(app, reserved, &password).await;
                }
            }
            Some(Revised { value: Entry::Tombstone(tombstone), revision }) => {
                if let Some(reserved) = reserve(app, &registration, tombstone.next_sequence, revision).await?
                {
                    return complete(app, reserved, &password).await;
                }
            }
            Some(Revised { value: Entry::Subscription(existing), .. }) => {
                if existing.lifecycle == Lifecycle::Deleting {
                    app.broker.remove_subscription(&existing.name, existing.incarnation).await?;
                    continue;
                }
                compare(app, &existing, &registration, &password).await?;
                return complete(app, existing, &password).await;
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
) -> Result<Option<Subscription>, ApiError> {
    app.before(Step::Reserve).await;
    let incarnation = Incarnation(Uuid::new_v4());
    let subscription = Subscription::reserve(registration.clone(), incarnation, first_sequence, now());
    let entry = Entry::Subscription(subscription.clone());
    match app.broker.registry().update(&registration.name, &entry, revision).await {
        Ok(_) => Ok(Some(subscription)),
        Err(WriteError::Conflict) => Ok(None),
        Err(WriteError::Other(error)) => Err(error.into()),
    }
}

/// Is it the same request as the one that is registered?
async fn compare(
    app: &App,
    existing: &Subscription,
    asked: &Registration,
    password: &str,
) -> Result<(), ApiError> {
    let differs = |field: &str| {
        Err(ApiError::Conflict(format!(
            "A subscription named {} is registered with another value of {field}; remove it first to change it",
            existing.name
        )))
    };
    match compare_registration(existing, asked) {
        RegistrationOutcome::TopicsDiffer => return differs("realms_topics (their order counts)"),
        RegistrationOutcome::PrefillDiffers => return differs("request_prefill"),
        RegistrationOutcome::Same => {}
    }
    // Missing: a former request died before it was written; it will be.
    let Some(hash) = own_credential(app, existing).await? else { return Ok(()) };
    if app.auth.verify(hash, password).await { Ok(()) } else { differs("password") }
}

async fn own_credential(app: &App, subscription: &Subscription) -> Result<Option<String>, ApiError> {
    let stored = app.broker.credentials().get(&subscription.name).await?;
    Ok(stored.filter(|s| s.incarnation == Some(subscription.incarnation)).map(|s| s.hash))
}

/// Makes everything that is missing.
async fn complete(app: &App, subscription: Subscription, password: &str) -> Result<StatusCode, ApiError> {
    let Subscription { name, incarnation, .. } = &subscription;
    let queue = app.broker.queue(name, *incarnation);
    let was_ready = subscription.lifecycle == Lifecycle::Ready;
    if was_ready && !queue.exists().await? {
        // Its events are lost: only a person can decide that this does not matter.
        return Err(ApiError::Conflict(format!(
            "The queue of the subscription {name} is lost (broken): remove the subscription and register it again"
        )));
    }
    if !was_ready {
        app.before(Step::Queue).await;
        queue.create(&subscription).await?;
        app.before(Step::Credentials).await;
        if own_credential(app, &subscription).await?.is_none() {
            let hash = app.auth.hash(password).await?;
            app.broker.credentials().put(name, *incarnation, &hash).await?;
        }
        if subscription.prefill.state == PrefillState::Pending {
            app.before(Step::Launch).await;
            app.launcher.launch(&PrefillTask::of(&subscription)).await?;
        }
        app.before(Step::Ready).await;
        let ready = |s: &Subscription| {
            (s.lifecycle == Lifecycle::Registering)
                .then(|| Subscription { lifecycle: Lifecycle::Ready, ..s.clone() })
        };
        match app.broker.registry().modify(name, *incarnation, ready).await? {
            Modified::Changed(s) | Modified::Unchanged(s) if s.value.lifecycle == Lifecycle::Ready => {}
            // Removed while it was being registered.
            _ => {
                return Err(ApiError::Conflict(format!(
                    "The subscription {name} was removed meanwhile; try again"
                )));
            }
        }
    }
    if subscription.prefill.boundary.is_none() {
        app.before(Step::Marker).await;
        app.events.marker(name, *incarnation, subscription.prefill.round).await?;
    }
    app.before(Step::Answer).await;
    if was_ready {
        return Ok(StatusCode::OK);
    }
    tracing::info!(subscription = %name, %incarnation, prefill = subscription.request_prefill, "registered");
    Ok(StatusCode::CREATED)
}

/// The time, for people.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_utc(jiff::Timestamp::now())
}
