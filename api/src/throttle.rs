//! Failed logins: how many of them before the next one has to wait. Pure: no clock, no names, no passwords.
//!
//! Failures are counted by user *and* address, so that nobody can lock out a consumer from elsewhere; and by address
//! alone, so that invented names do not help. A login counts as failed from the moment at which it is admitted, and no
//! longer once it was right: so those that are under way, and those whose client has hung up, count.
//!
//! Behind a proxy all addresses may be the same. So a throttle that is closed does not lock out: it only says that a
//! password is to be looked at where that costs nothing, or in turn (`lanes.rs`).

use std::{collections::HashMap, hash::Hash, net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::origin::network_of;

/// How many failures are free, and after how long one of them is forgotten.
#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    forgotten_after: Duration,
}

/// Of one user from one address: a person's typing errors and a consumer that restarts are below it.
const LOGIN: Rate = Rate { burst: 10, forgotten_after: Duration::from_secs(6) };
/// Of all users from one address: an unknown name costs as much as a known one, so this bounds that cost.
const ADDRESS: Rate = Rate { burst: 100, forgotten_after: Duration::from_millis(500) };
/// Most users, and most addresses, that are remembered: some 100 bytes each.
const REMEMBERED_MAX: usize = 10_000;
/// How often it is looked for what counts no more: it takes a look at all.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often it is reported that a throttle is closed.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Who tries: a user, by a hash that nobody else can compute, and where from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    pub user: u64,
    pub address: IpAddr,
}

impl Attempt {
    pub(crate) fn new(user: u64, address: IpAddr) -> Self {
        Self { user, address: network_of(address) }
    }
}

/// What may be done about a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Look at the password.
    Free,
    /// Look where that costs nothing, or in turn; if it is wrong, the next one is free after this time.
    Slow(Duration),
}

/// How much one login counts until it is given back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    login: Duration,
    address: Duration,
}

/// Failures so far.
#[derive(Default)]
pub(crate) struct Throttle {
    /// When all failures will be forgotten.
    logins: Times<Attempt>,
    addresses: Times<IpAddr>,
    /// When it was reported for the last time that a throttle is closed.
    reported: Times<Attempt>,
    reported_addresses: Times<IpAddr>,
}

impl Throttle {
    /// Admits a login, and counts it as failed until it is given back.
    pub(crate) fn admit(&mut self, attempt: &Attempt, now: Instant) -> (Admission, Counted) {
        let of_login = LOGIN.wait(self.logins.get(attempt), now);
        let of_address = ADDRESS.wait(self.addresses.get(&attempt.address), now);
        let counted = Counted {
            login: LOGIN.count(&mut self.logins, *attempt, now),
            address: ADDRESS.count(&mut self.addresses, attempt.address, now),
        };
        (of_login.max(of_address).map_or(Admission::Free, Admission::Slow), counted)
    }

    /// As [`admit`](Self::admit), for somebody who asks for what is not theirs, whatever the password is.
    pub(crate) fn admit_elsewhere(&mut self, address: IpAddr, now: Instant) -> Admission {
        let address = network_of(address);
        let wait = ADDRESS.wait(self.addresses.get(&address), now);
        ADDRESS.count(&mut self.addresses, address, now);
        wait.map_or(Admission::Free, Admission::Slow)
    }

    /// The login was right, or could not be looked at.
    pub(crate) fn give_back(&mut self, attempt: &Attempt, counted: Counted, now: Instant) {
        self.logins.bring_forward(attempt, counted.login, now);
        self.addresses.bring_forward(&attempt.address, counted.address, now);
    }

    /// The user has another password from now on.
    pub(crate) fn forget(&mut self, user: u64) {
        self.logins.times.retain(|attempt, _| attempt.user != user);
    }

    /// How many failures count, if that has closed a throttle and was not reported lately.
    pub(crate) fn closed_now(&mut self, attempt: &Attempt, now: Instant) -> Option<u32> {
        let lately =
            |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY);
        let counts = |at: Instant| now.saturating_duration_since(at) < REPORT_EVERY;
        let (login, address) = (self.logins.get(attempt), self.addresses.get(&attempt.address));
        if LOGIN.wait(login, now).is_some() && !lately(self.reported.get(attempt)) {
            self.reported.set(*attempt, now, now, counts);
            return Some(LOGIN.failures(login, now));
        }
        if ADDRESS.wait(address, now).is_some() && !lately(self.reported_addresses.get(&attempt.address)) {
            self.reported_addresses.set(attempt.address, now, now, counts);
            return Some(ADDRESS.failures(address, now));
        }
        None
    }
}

impl Rate {
    /// How long until a failure is forgotten, if as many as are free have been made.
    fn wait(self, forgotten: Option<Instant>, now: Instant) -> Option<Duration> {
        let remaining = forgotten?.saturating_duration_since(now);
        let free = self.forgotten_after * (self.burst - 1);
        remaining.checked_sub(free).filter(|wait| !wait.is_zero())
    }

    /// Counts a failure, and answers how much that was: what is owed is bounded, so that the wait is, too.
    fn count<K: Hash + Eq>(self, failures: &mut Times<K>, key: K, now: Instant) -> Duration {
        let owed = failures.get(&key).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let most = self.forgotten_after * (2 * self.burst - 1);
        let more = (owed + self.forgotten_after).min(most).saturating_sub(owed);
        failures.set(key, now + owed + more, now, |at| at > now);
        more
    }

    fn failures(self, forgotten: Option<Instant>, now: Instant) -> u32 {
        let owed = forgotten.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        (owed.as_millis().div_ceil(self.forgotten_after.as_millis())).try_into().unwrap_or(u32::MAX)
    }
}

/// A time for each of a bounded number of keys.
struct Times<K> {
    times: HashMap<K, Instant>,
    /// When those that count no more were dropped.
    swept: Option<Instant>,
}

impl<K> Default for Times<K> {
    fn default() -> Self {
        Self { times: HashMap::new(), swept: None }
    }
}

impl<K: Hash + Eq> Times<K> {
    fn get(&self, key: &K) -> Option<Instant> {
        self.times.get(key).copied()
    }

    fn bring_forward(&mut self, key: &K, by: Duration, now: Instant) {
        let Some(at) = self.times.get_mut(key) else { return };
        match at.checked_sub(by).filter(|at| *at > now) {
            Some(earlier) => *at = earlier,
            None => {
                self.times.remove(key);
            }
        }
    }

    /// Where there is no room for another key, those that count no more go. If there is none then, the newcomer is not
    /// remembered: it takes thousands of addresses to come to that.
    fn set(&mut self, key: K, at: Instant, now: Instant, counts: impl Fn(Instant) -> bool) {
        let is_full = self.times.len() >= REMEMBERED_MAX && !self.times.contains_key(&key);
        if is_full && self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
            self.times.retain(|_, at| counts(*at));
            self.swept = Some(now);
        }
        if !is_full || self.times.len() < REMEMBERED_MAX {
            self.times.insert(key, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(user: u64, address: &str) -> Attempt {
        Attempt::new(user, address.parse().unwrap())
    }

    fn slow(seconds: u64) -> Admission {
        Admission::Slow(Duration::from_secs(seconds))
    }

    #[test]
    fn ten_failures_then_one_in_six_seconds() {
        let (mut throttle, mail, start) = (Throttle::default(), attempt(1, "10.0.0.1"), Instant::now());
        for n in 0..10 {
            assert_eq!(throttle.admit(&mail, start).0, Admission::Free, "{n}");
        }
        assert_eq!(throttle.admit(&mail, start).0, slow(6));
        let later = start + Duration::from_secs(12);
        assert_eq!(throttle.admit(&mail, later).0, Admission::Free);
        assert_eq!(throttle.admit(&mail, later).0, slow(6));
        let later = start + Duration::from_secs(3600);
        for n in 0..10 {
            assert_eq!(
                throttle.admit(&mail, later).0,
                Admission::Free,
                "{n}: all is forgotten after an hour"
            );
        }
    }

    #[test]
    fn what_is_owed_is_bounded() {
        let (mut throttle, mail, now) = (Throttle::default(), attempt(1, "10.0.0.1"), Instant::now());
        let last = (0..1000).map(|_| throttle.admit(&mail, now).0).last();
        assert_eq!(last, Some(slow(60)));
        assert_eq!(throttle.admit(&mail, now + Duration::from_secs(60)).0, Admission::Free);
    }

    #[test]
    fn what_was_right_is_given_back_and_nothing_else() {
        let (mut throttle, mail, now) = (Throttle::default(), attempt(1, "10.0.0.1"), Instant::now());
        for n in 0..1000 {
            let (admission, counted) = throttle.admit(&mail, now);
            assert_eq!(admission, Admission::Free, "{n}");
            throttle.give_back(&mail, counted, now);
        }
        assert!(throttle.logins.times.is_empty() && throttle.addresses.times.is_empty());
        for _ in 0..10 {
            throttle.admit(&mail, now);
        }
        // Somebody guesses from the same address: the right one in between does not help them.
        let (admission, counted) = throttle.admit(&mail, now);
        assert_eq!(admission, slow(6));
        throttle.give_back(&mail, counted, now);
        assert_eq!(throttle.admit(&mail, now).0, slow(6));
        // What did not count, because as much as possible was owed, is not given back.
        for _ in 0..100 {
            throttle.admit(&mail, now);
        }
        let counted = throttle.admit(&mail, now).1;
        throttle.give_back(&mail, counted, now);
        assert_eq!(throttle.admit(&mail, now).0, slow(60));
        throttle.forget(1);
        throttle.addresses.times.clear();
        assert_eq!(throttle.admit(&mail, now).0, Admission::Free, "it has another password");
    }

    #[test]
    fn others_are_not_concerned() {
        let (mut throttle, mail, now) = (Throttle::default(), attempt(1, "10.0.0.1"), Instant::now());
        for _ in 0..50 {
            throttle.admit(&mail, now);
        }
        assert_eq!(throttle.admit(&attempt(2, "10.0.0.1"), now).0, Admission::Free, "another user");
        assert_eq!(throttle.admit(&attempt(1, "10.0.0.2"), now).0, Admission::Free, "another address");
        assert!(matches!(throttle.admit(&attempt(1, "::ffff:10.0.0.1"), now).0, Admission::Slow(_)));
    }

    #[test]
    fn invented_names_count_together_and_so_do_others_subscriptions() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for user in 0..50 {
            // Each time another address of the same network.
            let address = format!("2001:db8::{user:x}");
            assert_eq!(throttle.admit(&attempt(user, &address), now).0, Admission::Free);
            assert_eq!(throttle.admit_elsewhere(address.parse().unwrap(), now), Admission::Free);
        }
        let (new, elsewhere) = (attempt(1000, "2001:db8::ffff"), attempt(1000, "2001:db8:0:1::1"));
        assert_eq!(throttle.admit(&new, now).0, Admission::Slow(Duration::from_millis(500)));
        assert!(matches!(throttle.admit_elsewhere(new.address, now), Admission::Slow(_)));
        assert_eq!(throttle.admit(&elsewhere, now).0, Admission::Free);
    }

    #[test]
    fn a_closed_throttle_is_reported_once_a_minute() {
        let (mut throttle, mail, start) = (Throttle::default(), attempt(1, "10.0.0.1"), Instant::now());
        for _ in 0..9 {
            throttle.admit(&mail, start);
            assert_eq!(throttle.closed_now(&mail, start), None);
        }
        throttle.admit(&mail, start);
        assert_eq!(throttle.closed_now(&mail, start), Some(10));
        throttle.admit(&mail, start);
        assert_eq!(throttle.closed_now(&mail, start), None);
        let later = start + REPORT_EVERY;
        assert_eq!(throttle.closed_now(&mail, later), None, "it is open again");
        for user in 2..110 {
            throttle.admit(&attempt(user, "10.0.0.1"), later);
        }
        assert_eq!(throttle.closed_now(&attempt(109, "10.0.0.1"), later), Some(108), "of the address");
        assert_eq!(throttle.closed_now(&attempt(108, "10.0.0.1"), later), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for n in 0..25_000_u32 {
            throttle.admit(&Attempt::new(u64::from(n), IpAddr::V4(n.into())), start);
        }
        let sizes = |t: &Throttle| [t.logins.times.len(), t.addresses.times.len()];
        assert_eq!(sizes(&throttle), [REMEMBERED_MAX; 2]);
        throttle.admit(&attempt(7, "10.9.9.9"), start + Duration::from_secs(3600));
        assert_eq!(sizes(&throttle), [1; 2], "what counts no more made room");
    }
}
