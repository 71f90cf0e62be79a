//! What was asked for, for tests to look at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Requests that are remembered one by one.
const REMEMBERED: usize = 10_000;

/// Numbers since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// Requests of the index.
    pub index: u64,
    /// Requests of lists, by module.
    pub lists: BTreeMap<String, u64>,
    /// Requests of objects.
    pub objects: u64,
    /// All others.
    pub other: u64,
    /// Answers by status; an answer that never came is not counted.
    pub statuses: BTreeMap<u16, u64>,
    /// GETs of objects that are being served.
    pub objects_now: u64,
    /// The most GETs of objects that were served at the same time.
    pub objects_at_once_max: u64,
}

/// A request that came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Method.
    pub method: String,
    /// Path and query as they came, i.e. quoted.
    pub target: String,
    /// Headers by lower-case name, without `authorization`, of which only the scheme is kept.
    pub headers: BTreeMap<String, String>,
}

/// The counters of a running server. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    state: Arc<Mutex<(Numbers, VecDeque<Asked>)>>,
}

impl Counters {
    /// All numbers.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.with(|(numbers, _)| numbers.clone())
    }

    /// The last 10,000 requests, oldest first.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.with(|(_, asked)| asked.iter().cloned().collect())
    }

    /// Starts at nothing again.
    pub fn reset(&self) {
        self.with(|(numbers, asked)| {
            *numbers = Numbers { objects_now: numbers.objects_now, ..Numbers::default() };
            asked.clear();
        });
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Numbers)) {
        self.with(|(numbers, _)| count(numbers));
    }

    pub(crate) fn remember(&self, request: Asked) {
        self.with(|(_, asked)| {
            if asked.len() == REMEMBERED {
                asked.pop_front();
            }
            asked.push_back(request);
        });
    }

    /// Counts a GET of an object as being served until the guard is dropped.
    pub(crate) fn object(&self) -> ObjectGuard {
        self.count(|numbers| {
            numbers.objects += 1;
            numbers.objects_now += 1;
            numbers.objects_at_once_max = numbers.objects_at_once_max.max(numbers.objects_now);
        });
        ObjectGuard { counters: self.clone() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut (Numbers, VecDeque<Asked>)) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One GET that is being served.
pub(crate) struct ObjectGuard {
    counters: Counters,
}

impl Drop for ObjectGuard {
    fn drop(&mut self) {
        self.counters.count(|numbers| numbers.objects_now -= 1);
    }
}
