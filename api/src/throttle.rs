//! Failed logins: how many of them before the next one has to wait. Pure: no clock, no names, no passwords.
//!
//! Failures are counted by user *and* address, so that nobody can lock out a consumer from elsewhere; and by address
//! alone, so that invented names do not help. Behind a proxy all addresses are the same (headers that tell another one
//! could be anybody's): there, and everywhere, a user who has logged in from an address before is not refused
//! together with somebody who guesses: its password is still looked at, though only where that costs next to nothing.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::time::Instant;

/// How many failures are free, and after how long one of them is forgotten.
#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    forgotten_after: Duration,
}

/// Of one user from one address: a person's typing errors and a consumer that restarts are below it, and whoever guesses
/// gets ten tries a minute.
const LOGIN: Rate = Rate { burst: 10, forgotten_after: Duration::from_secs(6) };
/// Of all users from one address: an unknown name costs as much as a known one, so this bounds that cost.
const ADDRESS: Rate = Rate { burst: 100, forgotten_after: Duration::from_millis(500) };
/// Most users, and most addresses, that are remembered: some 100 bytes each.
const REMEMBERED_MAX: usize = 10_000;
/// How often it is looked for what counts no more: it takes a look at all.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a login that was right is remembered when there is no room.
const TRUSTED_FOR: Duration = Duration::from_secs(3600);

/// Who tries: a user, by a hash that nobody else can compute, and where from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    pub user: u64,
    pub address: IpAddr,
}

impl Attempt {
    pub(crate) fn new(user: u64, address: IpAddr) -> Self {
        Self { user, address: origin(address) }
    }
}

/// What may be done about a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Look at the password.
    Free,
    /// Look, but compute no hash, and if it is wrong say that it is too early, with this time to wait.
    Cheap(Duration),
    /// Do not look. Again after this time.
    Later(Duration),
}

/// Failures and successes so far.
#[derive(Default)]
pub(crate) struct Throttle {
    /// When all failures will be forgotten.
    logins: Times<Attempt>,
    addresses: Times<IpAddr>,
    /// When a login was right for the last time.
    trusted: Times<Attempt>,
}

impl Throttle {
    pub(crate) fn admission(&self, attempt: &Attempt, now: Instant) -> Admission {
        let of_login = LOGIN.wait(self.logins.get(attempt), now);
        let of_address = ADDRESS.wait(self.addresses.get(&attempt.address), now);
        match of_login.max(of_address) {
            None => Admission::Free,
            Some(wait) if self.trusted.get(attempt).is_some() => Admission::Cheap(wait),
            Some(wait) => Admission::Later(wait),
        }
    }

    pub(crate) fn failed(&mut self, attempt: &Attempt, now: Instant) {
        LOGIN.count(&mut self.logins, *attempt, now);
        ADDRESS.count(&mut self.addresses, attempt.address, now);
    }

    pub(crate) fn succeeded(&mut self, attempt: &Attempt, now: Instant) {
        self.logins.remove(attempt);
        self.trusted.set(*attempt, now, now, |at| now.saturating_duration_since(at) < TRUSTED_FOR);
    }
}

impl Rate {
    /// How long until a failure is forgotten, if as many as are free have been made.
    fn wait(self, forgotten: Option<Instant>, now: Instant) -> Option<Duration> {
        let remaining = forgotten?.saturating_duration_since(now);
        let free = self.forgotten_after * (self.burst - 1);
        remaining.checked_sub(free).filter(|wait| !wait.is_zero())
    }

    fn count<K: Hash + Eq>(self, failures: &mut Times<K>, key: K, now: Instant) {
        let forgotten = failures.get(&key).map_or(now, |at| at.max(now)) + self.forgotten_after;
        failures.set(key, forgotten, now, |at| at > now);
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

    fn remove(&mut self, key: &K) {
        self.times.remove(key);
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

/// Whoever has one address of IPv6 has 2^64 of them (RFC 6177).
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(user: u64, address: &str) -> Attempt {
        Attempt::new(user, address.parse().unwrap())
    }

    fn fail(throttle: &mut Throttle, attempt: &Attempt, times: u32, now: Instant) {
        (0..times).for_each(|_| throttle.failed(attempt, now));
    }

    #[test]
    fn ten_failures_then_one_in_six_seconds() {
        let (mut throttle, mail, start) = (Throttle::default(), attempt(1, "10.0.0.1"), Instant::now());
        for n in 0..10 {
            assert_eq!(throttle.admission(&mail, start), Admission::Free, "{n}");
            throttle.failed(&mail, start);
        }
        assert_eq!(throttle.admission(&mail, start), Admission::Later(Duration::from_secs(6)));
        let later = start + Duration::from_secs(4);
        assert_eq!(throttle.admission(&mail, later), Admission::Later(Duration::from_secs(2)));
        let later = start + Duration::from_secs(6);
        assert_eq!(throttle.admission(&mail, later), Admission::Free);
        throttle.failed(&mail, later);
        assert_eq!(throttle.admission(&mail, later), Admission::Later(Duration::from_secs(6)));
        let later = start + Duration::from_secs(3600);
        fail(&mut throttle, &mail, 9, later);
        assert_eq!(throttle.admission(&mail, later), Admission::Free, "all is forgotten after an hour");
    }

    #[test]
    fn others_are_not_concerned() {
        let (mut throttle, mail, now) = (Throttle::default(), attempt(1, "10.0.0.1"), Instant::now());
        fail(&mut throttle, &mail, 50, now);
        assert_eq!(throttle.admission(&attempt(2, "10.0.0.1"), now), Admission::Free, "another user");
        assert_eq!(throttle.admission(&attempt(1, "10.0.0.2"), now), Admission::Free, "another address");
        assert!(matches!(throttle.admission(&attempt(1, "::ffff:10.0.0.1"), now), Admission::Later(_)));
    }

    #[test]
    fn invented_names_count_together() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for user in 0..100 {
            assert_eq!(throttle.admission(&attempt(user, "2001:db8::1"), now), Admission::Free);
            // Each time another address of the same network.
            throttle.failed(&attempt(user, &format!("2001:db8::{user:x}")), now);
        }
        let (new, elsewhere) = (attempt(1000, "2001:db8::ffff"), attempt(1000, "2001:db8:0:1::1"));
        assert_eq!(throttle.admission(&new, now), Admission::Later(Duration::from_millis(500)));
        assert_eq!(throttle.admission(&elsewhere, now), Admission::Free);
    }

    #[test]
    fn whoever_was_right_before_is_not_refused_with_others() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let (mail, other) = (attempt(1, "10.0.0.1"), attempt(2, "10.0.0.1"));
        throttle.succeeded(&mail, now);
        fail(&mut throttle, &mail, 10, now);
        assert_eq!(throttle.admission(&mail, now), Admission::Cheap(Duration::from_secs(6)));
        fail(&mut throttle, &other, 200, now);
        assert!(matches!(throttle.admission(&mail, now), Admission::Cheap(_)));
        assert!(matches!(throttle.admission(&other, now), Admission::Later(_)));
        throttle.succeeded(&mail, now);
        fail(&mut throttle, &mail, 1, now);
        assert!(
            throttle.logins.get(&mail).unwrap() <= now + Duration::from_secs(6),
            "its failures were forgotten"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        for n in 0..25_000_u32 {
            let attempt = Attempt::new(u64::from(n), IpAddr::V4(n.into()));
            throttle.succeeded(&attempt, start);
            throttle.failed(&attempt, start);
        }
        let sizes = |t: &Throttle| [t.logins.times.len(), t.addresses.times.len(), t.trusted.times.len()];
        assert_eq!(sizes(&throttle), [REMEMBERED_MAX; 3]);
        let later = start + TRUSTED_FOR;
        let new = attempt(7, "10.9.9.9");
        throttle.succeeded(&new, later);
        throttle.failed(&new, later);
        assert_eq!(sizes(&throttle), [1; 3], "what counts no more made room");
    }
}
