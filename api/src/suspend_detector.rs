//! Whether this process has slept. What a process that was stopped finds on its sockets when it goes on looks new, but
//! may have waited there for minutes; meanwhile its sender has gone to another replica.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time between two beats.
const EVERY: Duration = Duration::from_millis(100);
/// A longer pause between two beats counts as sleep.
const SLEPT: Duration = Duration::from_secs(1);
/// For so long after a sleep, what is read may have come in during it.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Beats while the process runs.
pub(crate) struct SuspendDetector(Mutex<Beats>);

#[derive(Clone, Copy)]
struct Beats {
    last: Instant,
    /// The last sleep: from, to.
    sleep: Option<(Instant, Instant)>,
}

impl SuspendDetector {
    /// Beats until `shutdown`.
    pub(crate) fn start(shutdown: CancellationToken) -> Arc<Self> {
        let detector = Arc::new(Self(Mutex::new(Beats { last: Instant::now(), sleep: None })));
        let beating = Arc::clone(&detector);
        tokio::spawn(shutdown.run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                beating.beats().beat(Instant::now());
            }
        }));
        detector
    }

    /// When a request can have come in at the earliest that was read at `read`.
    pub(crate) fn arrival(&self, read: Instant) -> Instant {
        self.beats().arrival(read)
    }

    fn beats(&self) -> std::sync::MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beats {
    fn beat(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last) > SLEPT {
            self.sleep = Some((self.last, now));
        }
        self.last = now;
    }

    fn arrival(self, read: Instant) -> Instant {
        // Not beaten yet since it went on.
        if read.saturating_duration_since(self.last) > SLEPT {
            return self.last;
        }
        match self.sleep {
            Some((from, to)) if read > from && read.saturating_duration_since(to) < AFTERWARDS => from,
            _ => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the crash campaign: an event that had waited on the socket of a stopped replica counted as fresh when
    /// that went on, and was put after newer ones, which its sender had meanwhile sent through the other replica.
    #[test]
    fn what_is_read_after_a_sleep_may_have_come_in_before_it() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut beats = Beats { last: at(0), sleep: None };
        beats.beat(at(100));
        assert_eq!(beats.arrival(at(150)), at(150));
        assert_eq!(beats.arrival(at(8000)), at(100), "read before the first beat after the sleep");
        beats.beat(at(8000));
        for (read, arrival) in [(7999, 100), (8001, 100), (8900, 100), (50, 50)] {
            assert_eq!(beats.arrival(at(read)), at(arrival), "{read}");
        }
        beats.beat(at(8900));
        assert_eq!(beats.arrival(at(9500)), at(9500), "a late beat is no sleep");
    }
}
