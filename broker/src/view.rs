//! The subscriptions as a replica knows them: a cache kept by a watch. It only wakes; decisions read the leader.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use futures::StreamExt;
use model::{Subscription, SubscriptionName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Error, Registry, Revised, names, registry, wire::Wire};

type Cached = Arc<Revised<Subscription>>;

/// All subscriptions, some milliseconds old.
#[derive(Clone, Debug)]
pub struct RegistryView {
    registry: Registry,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// A std lock: nothing awaits under it. Tombstones are kept with their revision, so that a late watch event
    /// can't bring a removed subscription back.
    entries: RwLock<HashMap<String, (u64, Option<Cached>)>>,
    changes: watch::Sender<u64>,
    synced: watch::Sender<bool>,
}

impl Registry {
    /// Starts a watch that ends with `shutdown`.
    #[must_use]
    pub fn view(&self, shutdown: CancellationToken) -> RegistryView {
        let shared = Arc::new(Shared {
            entries: RwLock::default(),
            changes: watch::Sender::new(0),
            synced: watch::Sender::new(false),
        });
        let view = RegistryView { registry: self.clone(), shared: shared.clone() };
        let wire = self.wire();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = keep_watching(&wire, &shared) => {}
            }
        });
        view
    }
}

impl RegistryView {
    /// Returns when the initial values are in.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `self`, so this can't fail.
        if synced.wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The subscription as last heard of; `None` if there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cached> {
        self.shared.lock().get(name).and_then(|(_, cached)| cached.clone())
    }

    /// The subscription as it is, from the leader.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub async fn read(&self, name: &SubscriptionName) -> Result<Option<Cached>, Error> {
        match self.registry.get(name).await? {
            None => Ok(None),
            Some(entry) => {
                let revision = entry.revision;
                let cached = registry::subscription(entry).map(Arc::new);
                self.shared.store(name.as_str(), revision, cached.clone());
                Ok(cached)
            }
        }
    }

    /// All subscriptions.
    #[must_use]
    pub fn all(&self) -> Vec<Cached> {
        self.shared.lock().values().filter_map(|(_, cached)| cached.clone()).collect()
    }

    /// Ticks at each change of any subscription.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, (u64, Option<Cached>)>> {
        self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Keeps the newer of what is known and what is told.
    fn store(&self, name: &str, revision: u64, cached: Option<Cached>) {
        let mut entries = self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = entries.get(name).map_or(0, |(revision, _)| *revision);
        if revision > known {
            entries.insert(name.to_owned(), (revision, cached));
            drop(entries);
            self.changes.send_modify(|n| *n += 1);
        }
    }
}

/// Watches for ever. An `Err` item is not the end of a watch, `None` is; after either the next watch tells
/// everything again, so nothing is missed (entries are never deleted, removal writes a tombstone).
async fn keep_watching(wire: &Wire, shared: &Shared) {
    let mut pause = Duration::from_millis(50);
    loop {
        match watch_once(wire, shared).await {
            Ok(()) => pause = Duration::from_millis(50),
            Err(error) => {
                tracing::debug!(error = %error, "the watch of the subscriptions broke off; it is being tried again");
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn watch_once(wire: &Wire, shared: &Shared) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let store = wire.js.get_key_value(names::SUBSCRIPTIONS).await?;
    let empty = store.status().await?.values() == 0;
    let mut watch = store.watch_with_history(">").await?;
    if empty {
        shared.synced.send_replace(true);
    }
    while let Some(entry) = watch.next().await {
        let entry = entry?;
        match registry::parse(&entry.key, &entry.value) {
            Ok(value) => {
                let revised = Revised { value, revision: entry.revision };
                shared.store(&entry.key, entry.revision, registry::subscription(revised).map(Arc::new));
            }
            // One unreadable entry must not blind us for the others.
            Err(error) => tracing::error!(subscription = entry.key, %error, "an entry is ignored"),
        }
        if entry.seen_current {
            shared.synced.send_replace(true);
        }
    }
    Ok(())
}
