//! Live messages that wait longer than the operator allows are removed, counted and told.
//!
//! Several dispatchers may sweep at once: NATS tells each what it has removed itself. Who dies between the removal and
//! the entry loses the count, not a message more.

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Duration};

use broker::Broker;
use futures::{FutureExt, StreamExt};
use model::{Subscription, error_chain, subscription::Lifecycle};

use crate::{keeper, metrics::Metrics};

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
        match AssertUnwindSafe(sweep(broker, age, metrics)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %error_chain(&error), "old messages could not be swept; it is tried again");
            }
            Err(panic) => {
                metrics.panics.inc();
                tracing::error!(panic = keeper::words(&*panic), "the sweep has a fault; it is tried again");
            }
        }
    }
}

/// One queue that can't be swept keeps the others from nothing.
async fn sweep(broker: &Broker, age: Duration, metrics: &Metrics) -> Result<(), broker::Error> {
    let subscriptions = broker
        .registry()
        .list()
        .await?
        .subscriptions()
        .filter(|s| s.lifecycle == Lifecycle::Ready && !s.is_broken());
    futures::stream::iter(subscriptions)
        .for_each_concurrent(AT_ONCE, async |s| {
            let name = s.name.clone();
            if let Err(error) = sweep_one(broker, s, age, metrics).await {
                tracing::warn!(
                    subscription = %name, error = %error_chain(&error),
                    "old messages of this queue could not be swept; it is tried again"
                );
            }
        })
        .await;
    Ok(())
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
