//! The subscriptions as a replica knows them: a cache kept by a watch. It only wakes; decisions read the leader.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt;
use model::{Incarnation, Subscription, SubscriptionName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Error, Modified, Registry, Revised, bucket, bucket::Item, names, registry, wire::Wire};

/// How often the leader is asked whether what is watched is all that there is.
const LOOK_EVERY: Duration = Duration::from_secs(3);

type Cached = Arc<Revised<Subscription>>;

/// All subscriptions, some milliseconds old.
#[derive(Clone, Debug)]
pub struct RegistryView {
    registry: Registry,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Std locks: nothing awaits under them.
    entries: RwLock<Entries>,
    /// Ticks at each change of any entry, and of one. Whoever waits for one name is not woken for others.
    changes: watch::Sender<u64>,
    changes_of: Mutex<HashMap<String, watch::Sender<u64>>>,
    synced: watch::Sender<bool>,
}

/// What is known, by name.
///
/// A bucket may be an older one than it was, with the same numbers for other values: NATS was restored from a backup,
/// or a server has lost its last writes. So numbers are compared only within one watch, and each watch begins with all
/// that there is.
#[derive(Debug, Default)]
struct Entries {
    /// Tombstones are kept with their revision, so that a late event can't bring a removed subscription back.
    known: HashMap<String, Known>,
    /// Which watch this is.
    watch: u64,
}

#[derive(Clone, Debug)]
struct Known {
    revision: u64,
    /// The watch during which it was heard of.
    watch: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Subscription(Cached),
    Tombstone,
    Unreadable,
}

impl Entries {
    /// Keeps the newer of what is known and what is told; true if that is something else than before.
    fn put(&mut self, name: &str, revision: u64, what: What) -> bool {
        let watch = self.watch;
        match self.known.get(name) {
            Some(known) if known.watch == watch && known.revision >= revision => false,
            former => {
                let changed = former.is_none_or(|former| former.revision != revision);
                self.known.insert(name.to_owned(), Known { revision, watch, what });
                changed
            }
        }
    }

    /// A watch begins: what was known before may not hold.
    fn begin(&mut self) {
        self.watch += 1;
    }

    /// All that the bucket holds has been told: nothing else is there. Answers the names that have changed.
    fn all(&mut self, told: HashMap<String, (u64, What)>) -> Vec<String> {
        let watch = self.watch;
        let before: HashSet<&String> = self.known.keys().collect();
        let mut changed: Vec<String> =
            before.into_iter().filter(|name| !told.contains_key(*name)).cloned().collect();
        // What was read from the leader meanwhile is newer.
        changed.retain(|name| self.known.get(name).is_some_and(|known| known.watch != watch));
        for name in &changed {
            self.known.remove(name);
        }
        for (name, (revision, what)) in told {
            if self.put(&name, revision, what) {
                changed.push(name);
            }
        }
        changed
    }
}

impl Registry {
    /// Starts a watch that ends with `shutdown`.
    #[must_use]
    pub fn view(&self, shutdown: CancellationToken) -> RegistryView {
        let shared = Arc::new(Shared::default());
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
        match &self.shared.lock().known.get(name)?.what {
            What::Subscription(cached) => Some(cached.clone()),
            What::Tombstone | What::Unreadable => None,
        }
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
                let what = cached.clone().map_or(What::Tombstone, What::Subscription);
                self.shared.store(name.as_str(), revision, what);
                Ok(cached)
            }
        }
    }

    /// Changes a subscription as [`Registry::modify`] does, and knows the outcome before the watch tells it: who decides
    /// by this view does not go back behind what it has written.
    ///
    /// # Errors
    /// As [`Registry::modify`].
    pub async fn modify(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        change: impl FnMut(&Subscription) -> Option<Subscription>,
    ) -> Result<Modified, Error> {
        let modified = self.registry.modify(name, incarnation, change).await?;
        if let Modified::Changed(entry) | Modified::Unchanged(entry) = &modified {
            let what = What::Subscription(Arc::new(entry.clone()));
            self.shared.store(name.as_str(), entry.revision, what);
        }
        Ok(modified)
    }

    /// All subscriptions.
    #[must_use]
    pub fn all(&self) -> Vec<Cached> {
        let subscription = |known: &Known| match &known.what {
            What::Subscription(cached) => Some(cached.clone()),
            What::Tombstone | What::Unreadable => None,
        };
        self.shared.lock().known.values().filter_map(subscription).collect()
    }

    /// Keys of the bucket that can't be read, in alphabetical order.
    #[must_use]
    pub fn unreadable(&self) -> Vec<String> {
        let entries = self.shared.lock();
        let unreadable = entries.known.iter().filter(|(_, known)| matches!(known.what, What::Unreadable));
        let mut names: Vec<String> = unreadable.map(|(name, _)| name.clone()).collect();
        drop(entries);
        names.sort_unstable();
        names
    }

    /// Ticks at each change of any subscription.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Ticks at each change of this one.
    #[must_use]
    pub fn changes_of(&self, name: &SubscriptionName) -> watch::Receiver<u64> {
        let mut waited_for = lock(&self.shared.changes_of);
        waited_for.entry(name.as_str().to_owned()).or_default().subscribe()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, name: &str, revision: u64, what: What) {
        if self.write().put(name, revision, what) {
            self.tell(&[name.to_owned()]);
        }
    }

    fn tell(&self, changed: &[String]) {
        if changed.is_empty() {
            return;
        }
        self.changes.send_modify(|n| *n += 1);
        let mut waited_for = lock(&self.changes_of);
        for name in changed {
            if let Some(of_it) = waited_for.get(name) {
                of_it.send_modify(|n| *n += 1);
                if of_it.receiver_count() == 0 {
                    waited_for.remove(name);
                }
            }
        }
    }
}

/// Watches for ever. Each watch tells everything again, so nothing is missed.
async fn keep_watching(wire: &Wire, shared: &Shared) {
    let mut pause = Duration::from_millis(50);
    loop {
        let began = tokio::time::Instant::now();
        if let Err(error) = watch_once(wire, shared).await {
            tracing::debug!(error = model::error_chain(&error), "the watch of the subscriptions broke off");
        }
        // One that broke off at once is begun again more and more slowly.
        pause = if began.elapsed() > LOOK_EVERY {
            Duration::from_millis(50)
        } else {
            (pause * 2).min(Duration::from_secs(2))
        };
        tokio::time::sleep(pause).await;
    }
}

async fn watch_once(wire: &Wire, shared: &Shared) -> Result<(), Error> {
    shared.write().begin();
    let end = bucket::end(wire, names::SUBSCRIPTIONS).await?;
    let mut items = bucket::follow(wire, names::SUBSCRIPTIONS).await?;
    let mut seen = Seen::default();
    let mut told = HashMap::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.reset();
    let mut whole = false;
    loop {
        if !whole && seen.last >= end {
            whole = true;
            let changed = shared.write().all(std::mem::take(&mut told));
            shared.tell(&changed);
            shared.synced.send_replace(true);
        }
        tokio::select! {
            item = items.next() => {
                let Some(item) = item else { return Ok(()) };
                let item: Item = item?;
                seen.last = seen.last.max(item.revision);
                let what = what(&item);
                if whole {
                    shared.store(&item.key, item.revision, what);
                } else {
                    told.insert(item.key, (item.revision, what));
                }
            }
            _ = look.tick() => {
                if !seen.goes_on(bucket::end(wire, names::SUBSCRIPTIONS).await?) {
                    tracing::info!("the subscriptions are watched from the beginning again");
                    return Ok(());
                }
            }
        }
    }
}

fn what(item: &Item) -> What {
    let revision = item.revision;
    let parsed = match item.key.parse::<SubscriptionName>() {
        Ok(_) => registry::entry(item),
        // Deleted, and never a name.
        Err(_) if item.value.is_empty() => return What::Tombstone,
        Err(error) => Err(Error::corrupt(format!("the key {}", item.key), error)),
    };
    match parsed.map(|value| registry::subscription(Revised { value, revision })) {
        Ok(Some(subscription)) => What::Subscription(Arc::new(subscription)),
        Ok(None) => What::Tombstone,
        Err(error) => {
            // One unreadable entry must not blind us for the others.
            let error = model::error_chain(&error);
            tracing::error!(
                subscription = item.key,
                error,
                "an entry is left out: an administrator may delete it"
            );
            What::Unreadable
        }
    }
}

/// How far a watch is, beside how far the leader is.
#[derive(Debug, Default)]
struct Seen {
    last: u64,
    /// What the leader had at the last look.
    leader: u64,
}

impl Seen {
    /// May this watch go on? Not where the bucket went back, and not where what the leader had a while ago has not
    /// come: then the consumer sits on a replica that is stalled.
    fn goes_on(&mut self, end: u64) -> bool {
        let former = std::mem::replace(&mut self.leader, end);
        end >= self.last && self.last >= former
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(items: &[(&str, u64)]) -> HashMap<String, (u64, What)> {
        items.iter().map(|(name, revision)| ((*name).to_owned(), (*revision, What::Tombstone))).collect()
    }

    fn known(entries: &Entries) -> Vec<(&str, u64)> {
        let mut known: Vec<_> =
            entries.known.iter().map(|(name, known)| (name.as_str(), known.revision)).collect();
        known.sort_unstable();
        known
    }

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort_unstable();
        names
    }

    #[test]
    fn within_a_watch_the_newer_value_stays() {
        let mut entries = Entries::default();
        entries.begin();
        assert!(entries.put("a", 7, What::Tombstone));
        assert!(!entries.put("a", 6, What::Tombstone));
        assert!(!entries.put("a", 7, What::Tombstone));
        assert!(entries.put("a", 8, What::Tombstone));
    }

    #[test]
    fn a_watch_replaces_what_was_known_but_not_what_was_read_meanwhile() {
        let mut entries = Entries::default();
        entries.begin();
        entries.all(told(&[("gone", 1), ("back", 9), ("same", 2), ("read", 4)]));
        entries.begin();
        // From the leader, after the watch was asked for.
        entries.put("read", 5, What::Tombstone);
        entries.put("new", 6, What::Tombstone);
        let changed = entries.all(told(&[("back", 3), ("same", 2), ("read", 4)]));
        assert_eq!(known(&entries), [("back", 3), ("new", 6), ("read", 5), ("same", 2)]);
        assert_eq!(sorted(changed), ["back", "gone"]);
    }

    #[test]
    fn a_watch_goes_on_while_it_follows_the_leader() {
        for (last, former, end, expected) in [
            (7, 7, 7, true),
            (7, 5, 7, true),
            // Behind, but not yet for long.
            (7, 7, 9, true),
            (7, 8, 9, false),
            // The bucket went back.
            (7, 7, 6, false),
            (7, 0, 0, false),
            (0, 0, 0, true),
        ] {
            let mut seen = Seen { last, leader: former };
            assert_eq!(seen.goes_on(end), expected, "{last} {former} {end}");
            assert_eq!(seen.leader, end);
        }
    }
}
