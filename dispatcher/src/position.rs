//! Moving the position, and purging what is below it. Beside the reading of the log, which never waits for it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use broker::{Broker, Error, Revised, WriteError};
use model::error_chain;
use tokio::{sync::watch, time::Instant};

use crate::{Config, lane::Pace, metrics::Metrics};

/// How often the log is purged, and looked how far it is.
const PURGED_EVERY: Duration = Duration::from_secs(1);
/// Entries below the position that are kept at most for a dispatcher that just starts.
const KEPT_ENTRIES: u64 = 10_000;
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The position has gone back: an older state of NATS was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WentBack;

/// Where the position was at which time.
#[derive(Debug, Default)]
struct Passed(VecDeque<(Instant, u64)>);

impl Passed {
    fn note(&mut self, now: Instant, position: u64) {
        if self.0.back().is_none_or(|(_, known)| *known < position) {
            self.0.push_back((now, position));
        }
    }

    /// What may be purged: who starts has loaded a position, and reads on from there some seconds later.
    fn purgeable(&mut self, now: Instant, kept_for: Duration) -> Option<u64> {
        let newest = self.0.back()?.1;
        let mut through = None;
        while let Some((at, position)) = self.0.front()
            && (now - *at >= kept_for || position + KEPT_ENTRIES < newest)
        {
            through = Some(*position);
            self.0.pop_front();
        }
        through
    }
}

/// Moves the position to what is done.
pub(crate) struct Mover {
    pub config: Config,
    pub broker: Broker,
    pub metrics: Metrics,
    pub pace: Arc<Pace>,
    /// How far it may move.
    pub done: watch::Receiver<u64>,
    /// Where it is, as far as we know.
    pub position: watch::Sender<Revised<u64>>,
}

impl Mover {
    /// Works for ever. What fails is tried again: the log keeps a little more meanwhile.
    pub(crate) async fn run(mut self) -> WentBack {
        let mut passed = Passed::default();
        passed.note(Instant::now(), self.position.borrow().value);
        let (mut next_purge, mut pause, mut next_move) = (Instant::now(), PAUSE, Instant::now());
        loop {
            let done = *self.done.borrow_and_update();
            let behind = self.position.borrow().value < done;
            tokio::select! {
                changed = self.done.changed(), if !behind => if changed.is_err() {
                    // The session is over.
                    std::future::pending::<()>().await;
                },
                () = tokio::time::sleep_until(next_move), if behind => {
                    next_move = Instant::now() + self.config.position_interval;
                    match self.move_to(done).await {
                        Ok(moved) => {
                            if moved < done && !self.is_ahead(moved) {
                                return WentBack;
                            }
                            pause = PAUSE;
                        }
                        Err(error) => {
                            tracing::warn!(error = %error_chain(&error), "the position could not be moved; it is tried again");
                            next_move = Instant::now() + pause;
                            pause = (pause * 2).min(PAUSE_MAX);
                        }
                    }
                    passed.note(Instant::now(), self.position.borrow().value);
                }
                () = tokio::time::sleep_until(next_purge) => {
                    self.purge(&mut passed).await;
                    next_purge = Instant::now() + PURGED_EVERY;
                }
            }
        }
    }

    /// Is what was found not before what we knew?
    fn is_ahead(&self, found: u64) -> bool {
        found >= self.position.borrow().value
    }

    /// Where the position is then.
    async fn move_to(&mut self, done: u64) -> Result<u64, Error> {
        let known = self.position.borrow().clone();
        let moved = match self.broker.position().set(done, known.revision).await {
            Ok(revision) => Revised { value: done, revision },
            // Another dispatcher was faster; or our own write, whose answer was lost.
            Err(WriteError::Conflict) => self.broker.position().get().await?,
            Err(WriteError::Other(error)) => return Err(error),
        };
        let value = moved.value;
        if value >= known.value {
            self.metrics.position.set(value);
            self.position.send_replace(moved);
        }
        Ok(value)
    }

    async fn purge(&self, passed: &mut Passed) {
        if let Some(through) = passed.purgeable(Instant::now(), self.config.purge_after)
            && let Err(error) = self.broker.event_log().purge_through(through).await
        {
            // The next one takes it along.
            tracing::debug!(error = %error_chain(&error), "the event log could not be purged");
        }
        if let Ok(last) = self.broker.event_log().last_sequence().await {
            self.pace.set_last(last);
            self.metrics.log_last.set(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_passed_is_kept_for_a_while() {
        let (began, kept_for) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut passed = Passed::default();
        for (second, position) in [(0, 5), (1, 7), (2, 7), (5, 9)] {
            passed.note(at(second), position);
        }
        for (second, expected) in
            [(9, None), (10, Some(5)), (12, Some(7)), (12, None), (15, Some(9)), (99, None)]
        {
            assert_eq!(passed.purgeable(at(second), kept_for), expected, "{second}");
        }
        // Under load it is not kept for long.
        passed.note(at(100), 10);
        passed.note(at(100), 10 + KEPT_ENTRIES);
        assert_eq!(passed.purgeable(at(100), kept_for), None);
        passed.note(at(100), 11 + KEPT_ENTRIES);
        assert_eq!(passed.purgeable(at(100), kept_for), Some(10));
    }
}
