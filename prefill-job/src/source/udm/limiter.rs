//! How many objects to ask for at once: found from what the answers take. Decisions only, no clock and no network.
//!
//! One more at a time while answers take hardly longer than at few requests, and a quarter more as long as that was
//! never otherwise; fewer when they take much longer, since they then only wait for each other; half when UDM, or what
//! stands before it, pushes back. Now and then a few
//! requests alone tell anew what an answer takes when nobody waits, because that changes with load and type.

use std::time::Duration;

/// Requests at once in the beginning.
const START: usize = 4;
/// Answers that a decision needs at least; and as many as requests at once.
const ANSWERS_MIN: usize = 16;
/// One more while the median is up to this times what an answer takes when nobody waits, in eighths: 1.5.
const MORE_UP_TO: u32 = 12;
/// Fewer when it is above this, in eighths: 2.
const FEWER_ABOVE: u32 = 16;
/// Decisions from one look at what a lone answer takes to the next; the first is sooner.
const LOOK_EACH: u32 = 64;
const FIRST_LOOK: u32 = 8;
/// Requests at once while looking, at least.
const LOOK_MIN: usize = 2;

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// With an answer.
    Answered {
        /// From the request to the answer's end, without what we waited for ourselves.
        took: Duration,
        /// Were as many under way as may be?
        full: bool,
    },
    /// 429, 503 and their like, no answer in time, or no connection.
    PushedBack,
}

/// Finds the limit. Times are counted from any fixed moment.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: usize,
    limit_max: usize,
    /// What an answer takes when nobody waits.
    alone: Option<Duration>,
    /// Did more at once never make answers slower until now?
    starting: bool,
    /// While looking at lone answers: the limit to return to.
    returning_to: Option<usize>,
    decisions_to_look: u32,
    /// What was asked under another limit tells nothing of this one.
    changed_at: Duration,
    /// What was asked before is pushed back for the same reason.
    pushed_at: Duration,
    took: Vec<Duration>,
    full: usize,
}

impl Limiter {
    /// Starts with 4, or with `limit_max` if that is less.
    pub fn new(limit_max: usize) -> Self {
        let limit_max = limit_max.max(1);
        Self {
            limit: START.min(limit_max),
            limit_max,
            alone: None,
            starting: true,
            returning_to: None,
            decisions_to_look: FIRST_LOOK,
            changed_at: Duration::ZERO,
            pushed_at: Duration::ZERO,
            took: Vec::new(),
            full: 0,
        }
    }

    /// Requests that may be under way.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Objects of another type follow, which take UDM another time.
    pub fn other_type(&mut self, now: Duration) {
        let known = self.alone.take().is_some();
        if known && self.returning_to.is_none() {
            self.look(now);
        }
    }

    /// Learns how a request ended that was sent at `asked`.
    pub fn learn(&mut self, seen: Seen, asked: Duration, now: Duration) {
        match seen {
            Seen::Answered { took, full } if asked >= self.changed_at => {
                self.took.push(took);
                self.full += usize::from(full);
                if self.took.len() >= self.limit.max(ANSWERS_MIN) {
                    self.decide(now);
                }
            }
            Seen::PushedBack if asked >= self.pushed_at => {
                let limit = self.returning_to.take().unwrap_or(self.limit);
                self.pushed_at = now;
                self.starting = false;
                self.set((limit / 2).max(1), now);
            }
            Seen::Answered { .. } | Seen::PushedBack => {}
        }
    }

    fn decide(&mut self, now: Duration) {
        self.took.sort_unstable();
        let median = self.took[self.took.len() / 2];
        let busy = self.full * 2 >= self.took.len();
        if let Some(limit) = self.returning_to.take() {
            // A slow moment must not pass for what is usual.
            self.alone = Some(self.alone.map_or(median, |alone| median.min(alone * 3 / 2)));
            return self.set(limit, now);
        }
        let alone = match self.alone {
            Some(alone) if self.limit > 1 => alone.min(median),
            _ => median,
        };
        self.alone = Some(alone);
        let hardly_longer = median * 8 <= alone * MORE_UP_TO;
        self.starting &= hardly_longer;
        self.decisions_to_look = self.decisions_to_look.saturating_sub(1);
        let limit = if median * 8 > alone * FEWER_ABOVE {
            self.limit - (self.limit / 8).max(1).min(self.limit - 1)
        } else if hardly_longer && busy {
            let more = if self.starting { self.limit / 4 } else { 1 };
            (self.limit + more.max(1)).min(self.limit_max)
        } else {
            self.limit
        };
        self.set(limit, now);
        if self.decisions_to_look == 0 {
            self.look(now);
        }
    }

    /// Asks for a quarter at once for a while; for two at least, so that one slow object does not hold up all.
    fn look(&mut self, now: Duration) {
        self.decisions_to_look = LOOK_EACH;
        if self.limit > LOOK_MIN {
            self.returning_to = Some(self.limit);
            self.set((self.limit / 4).max(LOOK_MIN), now);
        }
    }

    fn set(&mut self, limit: usize, now: Duration) {
        if limit != self.limit {
            self.changed_at = now;
        }
        self.limit = limit;
        self.took.clear();
        self.full = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// As many answers as a decision needs, of requests that are sent now.
    fn answers(limiter: &mut Limiter, took: Duration, full: bool, now: Duration) {
        for _ in 0..limiter.limit().max(ANSWERS_MIN) {
            limiter.learn(Seen::Answered { took, full }, now, now);
        }
    }

    #[test]
    fn each_decision() {
        for (name, took_us, full, expected) in [
            ("hardly longer: one more", 5_000, true, 9),
            ("up to half longer: one more", 7_500, true, 9),
            ("longer: as it is", 9_000, true, 8),
            ("much longer: an eighth less", 10_001, true, 7),
            ("nobody asks for more: as it is", 5_000, false, 8),
        ] {
            let starting = false;
            let mut limiter = Limiter { limit: 8, alone: Some(us(5_000)), starting, ..Limiter::new(64) };
            answers(&mut limiter, us(took_us), full, us(1));
            assert_eq!(limiter.limit(), expected, "{name}");
        }
    }

    #[test]
    fn a_quarter_more_until_that_makes_answers_slower_for_the_first_time() {
        let mut limiter = Limiter { decisions_to_look: 1000, ..Limiter::new(64) };
        let mut limits = Vec::new();
        for (n, took_us) in [5_000, 5_000, 5_000, 5_000, 5_000, 5_000, 8_000, 5_000].into_iter().enumerate() {
            answers(&mut limiter, us(took_us), true, us(n as u64 + 1));
            limits.push(limiter.limit());
        }
        assert_eq!(limits, [5, 6, 7, 8, 10, 12, 12, 13]);
    }

    #[test]
    fn it_begins_with_four_and_keeps_the_limit() {
        assert_eq!([0, 1, 3, 4, 64].map(|max| Limiter::new(max).limit()), [1, 1, 3, 4, 4]);
        let mut limiter = Limiter { decisions_to_look: 1000, ..Limiter::new(9) };
        for n in 1..100 {
            answers(&mut limiter, us(5_000), true, us(n));
        }
        assert_eq!(limiter.limit(), 9);
    }

    #[test]
    fn half_when_pushed_back_and_once_for_all_that_was_under_way() {
        let mut limiter = Limiter { limit: 40, ..Limiter::new(64) };
        for _ in 0..40 {
            limiter.learn(Seen::PushedBack, us(1), us(9));
        }
        assert_eq!(limiter.limit(), 20);
        limiter.learn(Seen::PushedBack, us(10), us(20));
        assert_eq!(limiter.limit(), 10);
        for n in 0..20 {
            limiter.learn(Seen::PushedBack, us(30 + n), us(30 + n));
        }
        assert_eq!(limiter.limit(), 1);
    }

    #[test]
    fn what_was_asked_under_another_limit_does_not_count() {
        let starting = false;
        let mut limiter = Limiter { limit: 8, alone: Some(us(5_000)), starting, ..Limiter::new(64) };
        answers(&mut limiter, us(5_000), true, us(10));
        assert_eq!((limiter.limit(), limiter.changed_at), (9, us(10)));
        for _ in 0..100 {
            limiter.learn(Seen::Answered { took: us(90_000), full: true }, us(9), us(11));
        }
        assert_eq!(limiter.limit(), 9);
    }

    #[test]
    fn another_type_is_looked_at_anew() {
        let mut limiter = Limiter { limit: 20, alone: Some(us(2_000)), ..Limiter::new(64) };
        limiter.other_type(us(1));
        assert_eq!(limiter.limit(), 5);
        answers(&mut limiter, us(30_000), true, us(2));
        assert_eq!((limiter.limit(), limiter.alone), (20, Some(us(30_000))));
        answers(&mut limiter, us(31_000), true, us(3));
        assert_eq!(limiter.limit(), 25);
    }

    /// A UDM: an answer takes `alone_us`, of which `serial_us` for one request at a time in each of `pods`; the serial
    /// part grows by `crowding` percent for each request in a pod, as threads get in each other's way.
    #[derive(Clone, Copy, Debug)]
    struct Model {
        alone_us: u64,
        serial_us: u64,
        pods: u64,
        crowding: u64,
    }

    impl Model {
        /// What an answer takes at so many requests at once, in µs.
        fn took(self, at_once: usize) -> f64 {
            let here = (at_once as f64 / self.pods as f64).max(1.0);
            let serial = self.serial_us as f64 * (1.0 + self.crowding as f64 / 100.0 * (here - 1.0));
            (self.alone_us as f64 + serial).max(here * serial)
        }

        fn rate(self, at_once: usize) -> f64 {
            at_once as f64 * 1e6 / self.took(at_once)
        }

        fn best(self, limit_max: usize) -> f64 {
            (1..=limit_max).map(|n| self.rate(n)).fold(0.0, f64::max)
        }

        /// Objects a second over all of `objects`, from the moment `now` on; noise of up to `noise` percent.
        fn run(self, limiter: &mut Limiter, objects: usize, noise: u64, now: &mut f64) -> f64 {
            let (began, mut done, mut state) = (*now, 0, 7_u64);
            while done < objects {
                let limit = limiter.limit();
                let took = self.took(limit);
                *now += took / limit as f64;
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let noise = (state >> 33) as f64 / f64::from(u32::MAX / 2) * noise as f64 / 100.0;
                let took = us((took * (1.0 + noise)) as u64);
                let at = us(*now as u64);
                // Answers under way when a limit changes are left out: `asked` is now.
                limiter.learn(Seen::Answered { took, full: true }, at, at);
                done += 1;
            }
            done as f64 * 1e6 / (*now - began)
        }
    }

    #[test]
    fn it_finds_what_a_directory_can_do_without_being_told() {
        for (alone_us, serial_us, pods, crowding) in [
            (0, 1_000, 1, 0),
            (0, 1_000, 1, 5),
            (5_000, 0, 1, 0),
            (5_000, 500, 1, 2),
            (5_000, 500, 3, 2),
            (20_000, 500, 1, 2),
            (20_000, 2_000, 2, 5),
            (40_000, 5_000, 1, 10),
            (40_000, 40_000, 1, 1),
        ] {
            let model = Model { alone_us, serial_us, pods, crowding };
            for noise in [0, 30] {
                let mut limiter = Limiter::new(64);
                let rate = model.run(&mut limiter, 20_000, noise, &mut 0.0);
                let best = model.best(64);
                assert!(
                    rate >= 0.8 * best,
                    "{model:?} {noise}: {rate:.0} of {best:.0}, at {}",
                    limiter.limit()
                );
            }
        }
    }

    #[test]
    fn it_follows_a_directory_that_becomes_slower_and_recovers() {
        let (fast, slow) = (
            Model { alone_us: 5_000, serial_us: 500, pods: 4, crowding: 2 },
            Model { alone_us: 20_000, serial_us: 5_000, pods: 1, crowding: 5 },
        );
        let (mut limiter, mut now) = (Limiter::new(64), 0.0);
        for model in [fast, slow, fast] {
            let warm = model.run(&mut limiter, 20_000, 20, &mut now);
            let rate = model.run(&mut limiter, 20_000, 20, &mut now);
            assert!(
                rate >= 0.8 * model.best(64),
                "{model:?}: {warm:.0}, then {rate:.0} of {:.0}",
                model.best(64)
            );
        }
    }

    proptest! {
        #[test]
        fn the_limit_is_always_within_its_bounds_and_falls_at_each_new_push(
            limit_max in 1..70_usize,
            steps in proptest::collection::vec((0..3_u8, 0..100_000_u64, any::<bool>(), 0..50_u64), 0..400),
        ) {
            let mut limiter = Limiter::new(limit_max);
            let mut now = Duration::ZERO;
            for (kind, took, full, ago) in steps {
                now += us(took / 7);
                let asked = now.saturating_sub(us(ago));
                let before = limiter.returning_to.unwrap_or(limiter.limit());
                match kind {
                    0 => {
                        let first = asked >= limiter.pushed_at;
                        limiter.learn(Seen::PushedBack, asked, now);
                        prop_assert!(!first || limiter.limit() == (before / 2).max(1));
                    }
                    1 => limiter.other_type(now),
                    _ => (0..16).for_each(|_| limiter.learn(Seen::Answered { took: us(took), full }, asked, now)),
                }
                prop_assert!((1..=limit_max).contains(&limiter.limit()));
                prop_assert!(limiter.returning_to.is_none_or(|limit| limit <= limit_max));
            }
        }
    }
}
