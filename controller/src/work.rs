//! Which subscriptions are to be looked at, and when: each one alone, a failing one after a growing pause, so that
//! it never stops the others.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use model::SubscriptionName;

use crate::observed::Moment;

/// First pause after an error.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// First pause after a look whose effect is still to be seen: most often a cache is some milliseconds behind.
const SOON: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The subscriptions that wait to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Work {
    dirty: BTreeSet<SubscriptionName>,
    busy: HashSet<SubscriptionName>,
    /// When a subscription is to be looked at without anything new.
    wake: HashMap<SubscriptionName, Moment>,
    /// Looks in a row that came to no rest, and when the next one is due, whatever is new.
    restless: HashMap<SubscriptionName, (u32, Moment)>,
}

impl Work {
    /// Something about it may have changed.
    pub(crate) fn mark(&mut self, name: SubscriptionName) {
        self.dirty.insert(name);
    }

    /// The next one to look at. It is busy until it is finished.
    pub(crate) fn next(&mut self, now: Moment) -> Option<SubscriptionName> {
        let due: Vec<SubscriptionName> =
            self.wake.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.wake.remove(&name);
            self.dirty.insert(name);
        }
        let may = |name: &&SubscriptionName| {
            !self.busy.contains(*name) && self.restless.get(*name).is_none_or(|(_, at)| *at <= now)
        };
        let name = self.dirty.iter().find(may)?.clone();
        self.dirty.remove(&name);
        self.busy.insert(name.clone());
        Some(name)
    }

    /// It was looked at; `again`: when a deadline passes.
    pub(crate) fn finished(&mut self, name: SubscriptionName, again: Option<Moment>) {
        self.busy.remove(&name);
        self.restless.remove(&name);
        match again {
            Some(at) => self.wake.insert(name, at),
            None => self.wake.remove(&name),
        };
    }

    /// What was done is still to be seen, or was overtaken: it is looked at again, less often each time.
    pub(crate) fn unsettled(&mut self, name: SubscriptionName, now: Moment) {
        self.pause(name, now, SOON);
    }

    /// It could not be looked at, or an action failed. Answers the pause.
    pub(crate) fn failed(&mut self, name: SubscriptionName, now: Moment) -> Duration {
        self.pause(name, now, PAUSE_MIN)
    }

    fn pause(&mut self, name: SubscriptionName, now: Moment, first: Duration) -> Duration {
        self.busy.remove(&name);
        let times = self.restless.get(&name).map_or(0, |(times, _)| *times) + 1;
        let pause = first.saturating_mul(1 << (times - 1).min(10)).min(PAUSE_MAX);
        self.restless.insert(name.clone(), (times, now + pause));
        self.dirty.insert(name);
        pause
    }

    /// How many are being looked at.
    pub(crate) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// When something gets due without anything new.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        let retries =
            self.restless.iter().filter(|(name, _)| self.dirty.contains(*name)).map(|(_, (_, at))| *at);
        self.wake.values().copied().chain(retries).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SubscriptionName {
        text.parse().unwrap()
    }

    const fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_one_is_looked_at_alone_and_again_if_it_changed_meanwhile() {
        let mut work = Work::default();
        work.mark(name("a"));
        work.mark(name("a"));
        assert_eq!(work.next(at(0)), Some(name("a")));
        work.mark(name("a"));
        assert_eq!((work.next(at(0)), work.busy()), (None, 1), "it is busy");
        work.finished(name("a"), None);
        assert_eq!(work.next(at(0)), Some(name("a")));
        work.finished(name("a"), None);
        assert_eq!((work.next(at(0)), work.next_due()), (None, None));
    }

    #[test]
    fn deadlines_wake() {
        let mut work = Work::default();
        work.mark(name("a"));
        work.next(at(0)).unwrap();
        work.finished(name("a"), Some(at(5)));
        assert_eq!((work.next(at(4)), work.next_due()), (None, Some(at(5))));
        assert_eq!(work.next(at(5)), Some(name("a")));
    }

    #[test]
    fn a_failing_one_waits_longer_each_time_and_others_go_on() {
        let mut work = Work::default();
        let mut now = at(0);
        let mut pauses = vec![];
        for _ in 0..9 {
            work.mark(name("bad"));
            work.mark(name("good"));
            assert_eq!(work.next(now), Some(name("bad")));
            pauses.push(work.failed(name("bad"), now).as_millis());
            work.mark(name("bad"));
            assert_eq!(work.next(now), Some(name("good")), "the bad one waits, whatever is new about it");
            work.finished(name("good"), None);
            assert_eq!(work.next(now), None);
            now = work.next_due().unwrap();
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(work.next(now), Some(name("bad")));
        work.finished(name("bad"), None);
        work.mark(name("bad"));
        work.next(now).unwrap();
        assert_eq!(work.failed(name("bad"), now).as_millis(), 500, "a success forgets");
    }

    /// A view that lags behind the leader for an hour must not cost five looks a second.
    #[test]
    fn what_comes_to_no_rest_is_looked_at_less_often_whatever_is_new() {
        let mut work = Work::default();
        let (mut now, mut looks) = (at(0), 0);
        while now < at(60) {
            // The loop marks whose turn it is at each of its turns.
            work.mark(name("a"));
            if work.next(now).is_some() {
                looks += 1;
                work.unsettled(name("a"), now);
            }
            now += Duration::from_millis(50);
        }
        assert!((5..=10).contains(&looks), "{looks}");
        work.mark(name("a"));
        assert_eq!(work.next(at(600)), Some(name("a")));
        work.finished(name("a"), None);
        work.mark(name("a"));
        assert_eq!(work.next(at(600)), Some(name("a")), "at once after a look that came to rest");
    }
}
