//! Live messages that wait longer than the operator allows are removed, counted and told.
//!
//! Several dispatchers may sweep at once: NATS tells each what it has removed itself. Who dies between the removal and
//! the entry loses the count, not a message more.

use std::{convert::Infallible, time::Duration};

use broker::Broker;
use futures::{StreamExt, TryStreamExt};
use model::{Entry, Lifecycle, Subscription, chain};

use crate::metrics::Metrics;

/// Queues that are looked at at once.
const AT_ONCE: usize = 8;

/// How often to look, for this age: a tenth of it, within reason.
fn every(age: Duration) -> Duration {
    (age / 10).clamp(Duration::from_millis(100), Duration::from_secs(60))
}

/// Sweeps for ever.
pub(crate) async fn run(broker: &Broker, age: Duration, metrics: &Metrics) -> Infallible {
    loop {
        tokio::time::sleep(every(age)).await;
        if let Err(error) = sweep(broker, age, metrics).await {
            tracing::warn!(error = chain(&error), "old messages could not be swept; it is tried again");
        }
    }
}

async fn sweep(broker: &Broker, age: Duration, metrics: &Metrics) -> Result<(), broker::Error> {
    let subscriptions =
        broker.registry().list().await?.into_iter().filter_map(|(_, entry)| match entry.value {
            Entry::Subscription(s) if s.lifecycle == Lifecycle::Ready && s.given_up.is_none() => Some(s),
            Entry::Subscription(_) | Entry::Tombstone(_) => None,
        });
    futures::stream::iter(subscriptions)
        .map(|s| sweep_one(broker, s, age, metrics))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn sweep_one(
    broker: &Broker,
    subscription: Subscription,
    age: Duration,
    metrics: &Metrics,
) -> Result<(), broker::Error> {
    let Subscription { name, incarnation, .. } = &subscription;
    let swept = broker.queue(name, *incarnation).sweep(age).await?;
    if swept > 0 {
        metrics.swept.inc_by(swept);
        tracing::warn!(
            subscription = %name, %incarnation, messages = swept, age = ?age,
            "live messages were not read in time and are removed"
        );
        broker.registry().modify(name, *incarnation, |s| Some(s.with_swept(swept))).await?;
    }
    Ok(())
}
