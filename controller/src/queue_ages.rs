//! How long the oldest message of each queue waits, as figures: one series a subscription, so only where that is wanted.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use broker::{Broker, RegistryView};
use futures::StreamExt;
use model::{Incarnation, Subscription, SubscriptionName, error_chain, subscription::Lifecycle};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Metrics;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(15);
/// Between two, also when subscriptions come and go.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Queues that are looked at at once.
const AT_ONCE: usize = 8;
/// Name of the figure; the format adds the unit.
const OLDEST: &str = "headstart_queue_oldest";

/// Ages of queues; clones share them.
#[derive(Clone, Debug, Default)]
pub struct QueueAges {
    /// `None`: none waits.
    oldest: Arc<Mutex<BTreeMap<SubscriptionName, Option<Seen>>>>,
}

/// How long the oldest message had waited when it was looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    age: Duration,
    at: Instant,
}

impl Collector for QueueAges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Time since the oldest message that its consumer may read was written; 0: there is none";
        let mut family = encoder.encode_descriptor(OLDEST, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        let oldest = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, seen) in oldest.iter() {
            let age = seen.map_or(0.0, |seen| (seen.age + seen.at.elapsed()).as_secs_f64());
            let labels = [("subscription", name.as_str())];
            ConstGauge::new(age).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl QueueAges {
    /// Registers the figure.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let ages = Self::default();
        registry.register_collector(Box::new(ages.clone()));
        ages
    }

    /// Keeps the figures until `shutdown`, while this controller leads. Those of a queue that can't be looked at go on
    /// from its last look.
    pub async fn keep(self, broker: Broker, controller: Metrics, shutdown: CancellationToken) {
        let view = broker.registry().view(shutdown.clone());
        let mut changes = view.changes();
        loop {
            changes.mark_unchanged();
            if controller.is_leading() {
                self.look(&broker, &view).await;
            } else {
                self.oldest.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
            // Not at every change, but soon after one.
            let next = async {
                tokio::time::sleep(AT_LEAST).await;
                tokio::time::timeout(EVERY - AT_LEAST, changes.changed()).await
            };
            if shutdown.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    async fn look(&self, broker: &Broker, view: &RegistryView) {
        let entries = view.all();
        let shown = entries.iter().map(|entry| &entry.value).filter(|s| is_shown(s));
        let shown: Vec<(SubscriptionName, Incarnation, bool)> =
            shown.map(|s| (s.name.clone(), s.incarnation, s.prefill.is_open())).collect();
        let names: HashSet<SubscriptionName> = shown.iter().map(|(name, ..)| name.clone()).collect();
        let looks = shown.into_iter().map(async |(name, incarnation, is_open)| {
            let age = if is_open { broker.queue(&name, incarnation).oldest_age().await } else { Ok(None) };
            (name, age)
        });
        let seen: Vec<_> = futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        let mut oldest = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        oldest.retain(|name, _| names.contains(name));
        for (name, age) in seen {
            match age {
                Ok(age) => {
                    oldest.insert(name, age.map(|age| Seen { age, at: Instant::now() }));
                }
                Err(error) => {
                    tracing::debug!(subscription = %name, error = error_chain(&error), "the age of its queue is not known");
                }
            }
        }
    }
}

/// Is there a queue that a consumer may have to read?
fn is_shown(subscription: &Subscription) -> bool {
    subscription.lifecycle == Lifecycle::Ready && !subscription.is_broken()
}

#[cfg(test)]
mod tests {
    use broker::{
        Copier, Copy,
        testing::{NatsServer, eventually},
    };
    use model::{PrefillState, RealmTopic, checkpoint::Marker, subscription::Registration};
    use prometheus_client::encoding::text::encode;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shown(registry: &Registry) -> BTreeMap<String, f64> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let series = text
            .lines()
            .filter_map(|line| line.strip_prefix("headstart_queue_oldest_seconds{subscription=\""));
        let parts = series.map(|line| line.split_once("\"} ").unwrap());
        parts.map(|(name, age)| (name.to_owned(), age.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn each_queue_that_its_consumer_may_read_says_how_long_its_oldest_message_waits() {
        let nats = NatsServer::start().await;
        let broker = nats.broker().await;
        for (name, state, messages) in [
            ("old", PrefillState::Done, 2),
            ("new", PrefillState::Done, 0),
            ("filling", PrefillState::Running, 1),
        ] {
            let registration = Registration::new(
                name.parse().unwrap(),
                vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            );
            let incarnation = model::Incarnation(uuid::Uuid::new_v4());
            let mut entry =
                Subscription::reserve(registration, incarnation, 1, "2026-01-01T00:00:00".parse().unwrap());
            entry.lifecycle = Lifecycle::Ready;
            entry.prefill.state = state;
            let queue = broker.queue(&entry.name, incarnation);
            queue.create(&entry).await.unwrap();
            broker.registry().create(&entry).await.unwrap();
            let mut copier = Copier::open(queue).await.unwrap().unwrap();
            let marker: Marker = entry.marker();
            copier.mark(1, &marker).await.unwrap();
            let copy = |n: u64| Copy { incoming_seq: 2 + n, accepted: None, payload: "{}".into() };
            copier.copy(&(0..messages).map(copy).collect::<Vec<_>>()).await.unwrap();
        }
        let mut registry = Registry::default();
        let ages = QueueAges::register(&mut registry);
        let controller = Metrics::default();
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(ages.clone().keep(broker.clone(), controller.clone(), stop.clone()));
        controller.leads(true);
        let view = broker.registry().view(stop.clone());
        view.synced().await;
        let look = async || {
            ages.look(&broker, &view).await;
            shown(&registry)
        };
        let first = eventually("all queues", SOON, look, |shown| shown.len() == 3).await;
        assert!(first["old"] > 0.0, "{first:?}");
        assert_eq!((first["new"], first["filling"]), (0.0, 0.0), "nothing that may be read");
        let older = shown(&registry);
        assert!(older["old"] > first["old"], "it grows between two looks");
        // Another one leads: this one shows nothing.
        controller.leads(false);
        stop.cancel();
        keeping.await.unwrap();
    }
}
