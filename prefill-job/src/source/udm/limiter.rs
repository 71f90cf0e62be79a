//! How many objects to ask for at once: found from what the answers take. Decisions only, no clock and no network.
//!
//! More at once is worth it only if it brings more objects a second: a UDM of one process serves one request at a time, and
//! more than two only make everybody wait, other clients of UDM too. So each step up is tried, and taken back unless it
//! brings a good part of its share; and now and then a step down is tried, and kept if it costs hardly anything. What
//! answers take is compared between two limits that follow each other, never with what it once was: objects come in
//! stretches of small and large ones. Half when UDM, or what stands before it, pushes back.

use std::time::Duration;

/// Requests at once in the beginning.
const START: usize = 4;
/// Fewer than so many at once are not tried: with two, UDM has the next request at hand when it ends one.
const TRIED_MIN: usize = 2;
/// Answers that a decision needs at least; and twice as many as requests at once.
const ANSWERS_MIN: usize = 32;
/// Percent of its share in the limit that a step up must bring, and a step down may cost: a quarter more at once for a
/// tenth more objects a second.
const WORTH: f64 = 0.4;
/// Decisions from a step that was taken back to the next one, up or down.
const PAUSE: u32 = 4;

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

/// A step that is being tried.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The limit before, and the objects a second that it gave.
    from: usize,
    rate: f64,
}

/// Finds the limit. Times are counted from any fixed moment.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: usize,
    limit_max: usize,
    /// The step that led to this limit, while it is not known whether it was worth it.
    trying: Option<Step>,
    /// Was every step up worth it until now? Then the next one is a large one.
    starting: bool,
    /// Is the next step one up?
    upwards: bool,
    /// Decisions until then.
    pause: u32,
    /// What was asked under another limit tells nothing of this one.
    changed_at: Duration,
    /// What was asked before is pushed back for the same reason.
    pushed_at: Duration,
    /// Answers under this limit, and the sum of the logarithms of what they took.
    answers: u32,
    logs: f64,
    full: u32,
}

impl Limiter {
    /// Starts with 4, or with `limit_max` if that is less.
    pub fn new(limit_max: usize) -> Self {
        let limit_max = limit_max.max(1);
        Self {
            limit: START.min(limit_max),
            limit_max,
            trying: None,
            starting: true,
            upwards: true,
            pause: 0,
            changed_at: Duration::ZERO,
            pushed_at: Duration::ZERO,
            answers: 0,
            logs: 0.0,
            full: 0,
        }
    }

    /// Requests that may be under way.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Objects of another type follow, which take UDM another time.
    pub fn other_type(&mut self, now: Duration) {
        // What the last type took is no measure for a step.
        self.trying = None;
        self.pause = 0;
        self.changed_at = now;
        self.forget();
    }

    /// Learns how a request ended that was sent at `asked`.
    pub fn learn(&mut self, seen: Seen, asked: Duration, now: Duration) {
        match seen {
            Seen::Answered { took, full } if asked >= self.changed_at => {
                self.answers += 1;
                self.logs += took.max(Duration::from_micros(1)).as_secs_f64().ln();
                self.full += u32::from(full);
                if self.answers as usize >= (2 * self.limit).max(ANSWERS_MIN) {
                    self.decide(now);
                }
            }
            Seen::PushedBack if asked >= self.pushed_at => {
                self.pushed_at = now;
                self.trying = None;
                self.starting = false;
                self.upwards = true;
                self.pause = PAUSE;
                self.set((self.limit / 2).max(1), now);
            }
            Seen::Answered { .. } | Seen::PushedBack => {}
        }
    }

    fn decide(&mut self, now: Duration) {
        // Of what answers took, the logarithm is averaged: a few large objects among small ones change it little.
        let rate = self.limit as f64 / (self.logs / f64::from(self.answers)).exp();
        let busy = self.full * 2 >= self.answers;
        match self.trying.take() {
            Some(Step { from, rate: before }) if !is_worth(from, self.limit, before, rate) => {
                self.starting = false;
                self.upwards = self.limit < from;
                self.pause = PAUSE;
                return self.set(from, now);
            }
            Some(_) | None => {}
        }
        self.forget();
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let next = match self.upwards {
            true if busy && self.starting => (self.limit * 2).min(self.limit_max),
            true if busy => (self.limit + (self.limit / 4).max(1)).min(self.limit_max),
            true => self.limit,
            false => (self.limit - (self.limit / 8).max(1)).max(TRIED_MIN.min(self.limit)),
        };
        if next == self.limit {
            self.upwards = !self.upwards;
            self.pause = PAUSE;
            return;
        }
        self.trying = Some(Step { from: self.limit, rate });
        self.set(next, now);
    }

    fn set(&mut self, limit: usize, now: Duration) {
        if limit != self.limit {
            self.changed_at = now;
        }
        self.limit = limit;
        self.forget();
    }

    fn forget(&mut self) {
        (self.answers, self.logs, self.full) = (0, 0.0, 0);
    }
}

/// Was a step worth it: did more at once bring more objects a second, or did fewer cost hardly any?
fn is_worth(from: usize, to: usize, before: f64, rate: f64) -> bool {
    let share = to as f64 / from as f64 - 1.0;
    rate >= before * (1.0 + WORTH * share)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// As many answers as a decision needs, of requests that are sent now.
    fn answers(limiter: &mut Limiter, took: Duration, full: bool, now: Duration) {
        for _ in 0..(2 * limiter.limit()).max(ANSWERS_MIN) {
            limiter.learn(Seen::Answered { took, full }, now, now);
        }
    }

    /// The limits that follow each other when answers take so long at a limit.
    fn limits(limiter: &mut Limiter, took: impl Fn(usize) -> u64, decisions: u64) -> Vec<usize> {
        let decided = |n| {
            answers(limiter, us(took(limiter.limit())), true, us(n));
            limiter.limit()
        };
        (1..=decisions).map(decided).collect()
    }

    #[test]
    fn twice_as_many_as_long_as_that_is_worth_it_and_then_a_quarter_more() {
        let mut limiter = Limiter::new(64);
        // Side by side until ten are served at once.
        let took = |limit: usize| if limit <= 10 { 5_000 } else { limit as u64 * 500 };
        // Sixteen are not worth it; after a pause nor are seven for eight; then up to ten.
        let expected = [8, 16, 8, 8, 8, 8, 8, 7, 8, 8, 8, 8, 8, 10, 12, 10];
        assert_eq!(limits(&mut limiter, took, 16), expected);
    }

    #[test]
    fn with_one_process_that_serves_one_by_one_it_ends_at_two() {
        let mut limiter = Limiter::new(64);
        let limits = limits(&mut limiter, |limit| limit as u64 * 4_000, 200);
        let last = &limits[100..];
        assert!(last.iter().all(|limit| *limit <= 3), "{limits:?}");
        assert!(last.iter().filter(|limit| **limit == 2).count() > 80, "{limits:?}");
    }

    #[test]
    fn nobody_asks_for_more_than_is_needed() {
        let mut limiter = Limiter::new(64);
        for n in 1..20 {
            answers(&mut limiter, us(5_000), false, us(n));
            assert!(limiter.limit() <= START);
        }
    }

    #[test]
    fn it_begins_with_four_and_keeps_the_limit() {
        assert_eq!([0, 1, 3, 4, 64].map(|max| Limiter::new(max).limit()), [1, 1, 3, 4, 4]);
        let mut limiter = Limiter::new(9);
        assert!(limits(&mut limiter, |_| 5_000, 100).iter().all(|limit| *limit <= 9));
        let mut limiter = Limiter::new(1);
        assert!(limits(&mut limiter, |_| 5_000, 100).iter().all(|limit| *limit == 1));
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
    fn what_was_asked_under_another_limit_or_of_another_type_does_not_count() {
        let mut limiter = Limiter::new(64);
        answers(&mut limiter, us(5_000), true, us(10));
        assert_eq!((limiter.limit(), limiter.changed_at), (8, us(10)));
        for _ in 0..100 {
            limiter.learn(Seen::Answered { took: us(90_000), full: true }, us(9), us(11));
        }
        assert_eq!((limiter.limit(), limiter.answers), (8, 0));
        // Objects of the other type take longer: no reason to take a step back that was never compared.
        limiter.other_type(us(12));
        answers(&mut limiter, us(90_000), true, us(13));
        assert_eq!(limiter.limit(), 16);
    }

    /// Numbers that look random.
    struct Random(u64);

    impl Random {
        /// Between 0 and 1.
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// Of mean 1, with a heavy tail.
        fn heavy(&mut self) -> f64 {
            let (radius, angle) = (self.next().max(1e-12), self.next());
            let normal = (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos();
            (normal - 0.5).exp()
        }
    }

    /// What an object takes, in ms: side by side with others, and one at a time in its pod.
    type Cost = fn(usize, &mut Random) -> (f64, f64);

    /// A directory that serves requests one after the other in each pod, as they come, and what is asked for at once.
    fn simulate(cost: Cost, pods: usize, objects: usize, limiter: &mut Limiter, fixed: Option<usize>) -> f64 {
        let mut random = Random(88_172_645_463_325_252);
        let (mut now, mut free) = (0_u64, vec![0_f64; pods]);
        let mut under_way = BinaryHeap::new();
        let mut asked = 0;
        for _ in 0..objects {
            let limit = fixed.unwrap_or_else(|| limiter.limit());
            while under_way.len() < limit && asked < objects {
                let (beside, alone) = cost(asked, &mut random);
                let pod = asked % pods;
                free[pod] = free[pod].max(now as f64 / 1e3) + alone;
                let end = ((free[pod] + beside) * 1e3) as u64;
                under_way.push(Reverse((end, asked, now, under_way.len() + 1 >= limit)));
                asked += 1;
            }
            let Some(Reverse((end, _, begin, full))) = under_way.pop() else { break };
            now = now.max(end);
            let took = us(end - begin);
            limiter.learn(Seen::Answered { took, full }, us(begin), us(now));
        }
        objects as f64 / (now as f64 / 1e6)
    }

    #[test]
    fn it_finds_what_a_directory_can_do_whatever_its_objects_are_like() {
        let costs: [(&str, Cost, usize, f64); 12] = [
            ("one process, one by one", |_, _| (0.0, 4.0), 1, 0.95),
            ("and as they really are", |_, random| (0.0, 2.8 + 2.4 * random.next()), 1, 0.95),
            ("with some work beside", |_, _| (2.0, 4.0), 1, 0.95),
            ("three pods", |_, _| (2.0, 4.0), 3, 0.9),
            ("three pods, heavy tails", |_, random| (0.0, 4.0 * random.heavy()), 3, 0.65),
            (
                "either small or large",
                |_, random| (if random.next() < 0.5 { 5.0 } else { 20.0 }, 0.0),
                1,
                0.75,
            ),
            ("heavy tails", |_, random| (10.0 * random.heavy(), 0.0), 1, 0.75),
            ("long stretches", |n, _| (if n / 3000 % 2 == 0 { 5.0 } else { 20.0 }, 0.0), 1, 0.85),
            ("short stretches", |n, _| (if n / 500 % 2 == 0 { 5.0 } else { 20.0 }, 0.0), 1, 0.8),
            ("short stretches, one by one", |n, _| (if n / 500 % 2 == 0 { 5.0 } else { 20.0 }, 0.5), 1, 0.8),
            ("much beside", |_, _| (20.0, 0.5), 1, 0.85),
            ("three pods, much beside", |_, _| (5.0, 0.5), 3, 0.85),
        ];
        for (name, cost, pods, share) in costs {
            let best = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
                .map(|fixed| simulate(cost, pods, 20_000, &mut Limiter::new(64), Some(fixed)));
            let best = best.into_iter().fold(0.0, f64::max);
            let mut limiter = Limiter::new(64);
            let found = simulate(cost, pods, 20_000, &mut limiter, None);
            assert!(found >= share * best, "{name}: {found:.0} of {best:.0}, at {}", limiter.limit());
        }
    }

    #[test]
    fn it_follows_a_directory_that_becomes_slower_and_recovers() {
        // 20,000 objects each of three pods, of one slow one, and of three again.
        let changing: Cost = |n, _| if (20_000..40_000).contains(&n) { (20.0, 15.0) } else { (5.0, 1.5) };
        let mut limiter = Limiter::new(64);
        let found = simulate(changing, 3, 60_000, &mut limiter, None);
        let best = simulate(changing, 3, 60_000, &mut Limiter::new(64), Some(16));
        assert!(found >= 0.85 * best, "{found:.0} of {best:.0}");
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
                let before = limiter.limit();
                match kind {
                    0 => {
                        let first = asked >= limiter.pushed_at;
                        limiter.learn(Seen::PushedBack, asked, now);
                        prop_assert!(!first || limiter.limit() == (before / 2).max(1));
                    }
                    1 => limiter.other_type(now),
                    _ => (0..32).for_each(|_| limiter.learn(Seen::Answered { took: us(took), full }, asked, now)),
                }
                prop_assert!((1..=limit_max).contains(&limiter.limit()));
                prop_assert!(limiter.trying.is_none_or(|step| step.from <= limit_max));
            }
        }
    }
}
