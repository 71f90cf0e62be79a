//! How much of something each subscription may have at once: polls that wait, streams.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use model::SubscriptionName;

/// The limits of all subscriptions, at this replica.
#[derive(Clone)]
pub(crate) struct ConcurrencyLimits {
    each: usize,
    /// Only subscriptions with a place that is taken. A std lock: nothing awaits under it.
    taken: Arc<Mutex<HashMap<SubscriptionName, usize>>>,
}

/// A place that is taken, until this is dropped.
pub(crate) struct ConcurrencyPermit {
    name: SubscriptionName,
    taken: Arc<Mutex<HashMap<SubscriptionName, usize>>>,
}

impl ConcurrencyLimits {
    pub(crate) fn new(each: usize) -> Self {
        Self { each, taken: Arc::default() }
    }

    /// How many places a subscription has.
    pub(crate) fn each(&self) -> usize {
        self.each
    }

    /// Takes a place; `None`: all are taken.
    pub(crate) fn take(&self, name: &SubscriptionName) -> Option<ConcurrencyPermit> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(name).copied().unwrap_or_default();
        if count >= self.each {
            return None;
        }
        taken.insert(name.clone(), count + 1);
        Some(ConcurrencyPermit { name: name.clone(), taken: self.taken.clone() })
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_and_given_back() {
        let places = ConcurrencyLimits::new(2);
        let (mail, chat) = ("mail".parse().unwrap(), "chat".parse().unwrap());
        let (first, second) = (places.take(&mail), places.take(&mail));
        assert!(first.is_some() && second.is_some() && places.take(&mail).is_none());
        assert!(places.take(&chat).is_some(), "another subscription");
        drop(first);
        let third = places.take(&mail);
        assert!(third.is_some() && places.take(&mail).is_none());
        drop((second, third));
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }
}
