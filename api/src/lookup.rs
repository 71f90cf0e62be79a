//! Finding a subscription, and what is answered when there is none.

use broker::Revised;
use model::{Subscription, Timestamp, subscription::Lifecycle};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::LoggedIn,
        config::{Bounds, Config, Roles},
        connections::Connections,
        launcher::Launcher,
        state::Life,
        subscriptions,
    };
    use axum::extract::{Path, State};
    use broker::{
        Broker, ReaderConfig,
        testing::{NatsServer, ready_subscription},
    };
    use model::{Entry, Incarnation, limits::QueueLimits};
    use std::{sync::Arc, time::Duration};
    use tokio_util::sync::CancellationToken;

    fn app(broker: &Broker) -> Arc<App> {
        let config = Config {
            roles: Roles::for_tests(),
            tls: None,
            bounds: Bounds::default(),
            root_path: String::new(),
            cors_all: false,
            reader: ReaderConfig::default(),
            limits: QueueLimits::default(),
            stream_heartbeat: Duration::from_secs(1),
            shutdown_delay: Duration::ZERO,
            before_step: None,
        };
        let life = Life { stopping: CancellationToken::new(), closing: CancellationToken::new() };
        let launcher = Launcher::queue(broker.tasks());
        App::new(config, broker.clone(), launcher, Arc::new(|| None), Connections::new(1), life).unwrap()
    }

    /// Its password was looked at a moment ago, by a replica that had not heard of the new registration.
    #[tokio::test]
    async fn a_former_subscription_neither_sees_nor_removes_the_one_that_has_its_name() {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let (former, _) = ready_subscription(&broker, &["users/user"]).await;
        let (app, registry) = (app(&broker), broker.registry());
        let entry = registry.subscription(&former.name).await.unwrap().unwrap();
        let caller = Caller::Subscriber(LoggedIn { entry: Arc::new(entry.clone()), revision: 1 });
        assert_eq!(existing(&app, "mail", &caller).await.unwrap().value, former);
        let again = Subscription { incarnation: Incarnation(uuid::Uuid::new_v4()), ..former };
        let new = Entry::Subscription(again.clone());
        registry.update(&again.name, &new, entry.revision).await.unwrap();
        let seen = existing(&app, "mail", &caller).await;
        assert!(matches!(seen, Err(ApiError::Unauthorized(_))), "{seen:?}");
        let removed = subscriptions::delete(State(app), Path("mail".to_owned()), caller).await;
        assert!(matches!(removed, Err(ApiError::Unauthorized(_))), "{removed:?}");
        assert_eq!(registry.subscription(&again.name).await.unwrap().unwrap().value, again);
    }
}
