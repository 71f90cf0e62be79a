//! Progress that is left of subscriptions that are gone: a pod may write its last figures after the removal.

use std::{collections::HashMap, time::Duration};

use broker::Broker;
use model::{Entry, Incarnation, Subscription, SubscriptionName};

use crate::observed::Moment;

/// Names whose subscription is gone, and when to look what is left of it.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    known: HashMap<SubscriptionName, Incarnation>,
    due: Vec<(Moment, SubscriptionName)>,
}

impl Leftovers {
    /// Those that were removed before we began, perhaps a moment before.
    pub(super) async fn of_former_lives(broker: &Broker, at: Moment) -> Result<Self, broker::Error> {
        let entries = broker.registry().list().await?.entries;
        let gone = entries.into_iter().filter(|(_, entry)| matches!(entry.value, Entry::Tombstone(_)));
        Ok(Self { known: HashMap::new(), due: gone.map(|(name, _)| (at, name)).collect() })
    }

    /// Notes what is gone since the last look, or is another incarnation.
    pub(super) fn note<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Subscription>,
        now: Moment,
        grace: Duration,
    ) {
        let next: HashMap<_, _> = entries.map(|entry| (entry.name.clone(), entry.incarnation)).collect();
        let gone = self.known.drain().filter(|(name, incarnation)| next.get(name) != Some(incarnation));
        self.due.extend(gone.map(|(name, _)| (now + grace, name)));
        self.known = next;
    }

    /// Names to look at now.
    pub(super) fn take_due(&mut self, now: Moment) -> Vec<SubscriptionName> {
        let (due, later) = self.due.drain(..).partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.due = later;
        due.into_iter().map(|(_, name)| name).collect()
    }

    /// To be looked at again: NATS was away.
    pub(super) fn put_back(&mut self, name: SubscriptionName, at: Moment) {
        self.due.push((at, name));
    }
}

/// Removes the progress of a name, and the note of its last read, unless they are of the subscription that has the name
/// now.
pub(super) async fn clear(broker: &Broker, name: &SubscriptionName) -> Result<(), broker::Error> {
    let board = broker.progress();
    let progress = board.get(name).await?;
    let current = broker.registry().subscription(name).await?;
    if current.is_none() {
        broker.last_reads().delete(name).await?;
    }
    let Some(progress) = progress else { return Ok(()) };
    if current.is_none_or(|current| current.value.incarnation != progress.incarnation) {
        board.delete(name).await?;
        tracing::debug!(subscription = %name, "the progress of a former {name} is removed");
    }
    Ok(())
}
