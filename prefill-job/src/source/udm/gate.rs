//! Lets as many requests through at once as the [`Limiter`] says: those of the first objects first, since all others
//! wait behind them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::limiter::{Limiter, Seen};

/// Where requests wait.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    opened: Instant,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    /// Requests under way.
    inside: usize,
    /// Those that wait, by their place in the list.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    /// Nobody passes before: UDM asked for it.
    not_before: Instant,
}

/// A place; given back when it is dropped.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    asked: Duration,
    full: bool,
}

impl Gate {
    /// At most `limit_max` at once.
    pub fn new(limit_max: usize) -> Self {
        let opened = Instant::now();
        let limiter = Limiter::new(limit_max);
        let state = State { limiter, inside: 0, waiting: BTreeMap::new(), not_before: opened };
        Self { state: Mutex::new(state), opened }
    }

    /// Requests that may be under way now.
    pub fn limit(&self) -> usize {
        self.state().limiter.limit()
    }

    /// Waits for a place for the object of this number. Numbers of objects that are being asked for differ.
    ///
    /// # Cancel safety
    /// Whoever gives up just when it is let through keeps the place: a gate is for one snapshot, which then ends.
    pub async fn enter(&self, number: u64) -> Pass<'_> {
        let turn = {
            let mut state = self.state();
            let (tell, turn) = oneshot::channel();
            state.waiting.insert(number, tell);
            state.let_in();
            turn
        };
        // The sender is dropped only together with the gate, or by another object of this number.
        _ = turn.await;
        let mut pass = Pass { gate: self, asked: Duration::ZERO, full: false };
        loop {
            let not_before = self.state().not_before;
            if not_before <= Instant::now() {
                break;
            }
            tokio::time::sleep_until(not_before).await;
        }
        let state = self.state();
        pass.full = state.inside >= state.limiter.limit();
        pass.asked = self.opened.elapsed();
        pass
    }

    /// Lets nobody pass for a time.
    pub fn close_for(&self, time: Duration) {
        let mut state = self.state();
        state.not_before = state.not_before.max(Instant::now() + time);
    }

    /// Objects of another type follow.
    pub fn other_type(&self) {
        self.state().limiter.other_type(self.opened.elapsed());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets in who may.
    fn let_in(&mut self) {
        while self.inside < self.limiter.limit() {
            let Some((_, turn)) = self.waiting.pop_first() else { return };
            // Who has given up is passed over.
            self.inside += usize::from(turn.send(()).is_ok());
        }
    }
}

impl Pass<'_> {
    /// Tells that UDM answered.
    pub fn answered(self, took: Duration) {
        let full = self.full;
        self.learn(Seen::Answered { took, full });
    }

    /// UDM, or what stands before it, could not serve the request.
    pub fn pushed_back(self) {
        self.learn(Seen::PushedBack);
    }

    fn learn(&self, seen: Seen) {
        self.gate.state().limiter.learn(seen, self.asked, self.gate.opened.elapsed());
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.inside -= 1;
        state.let_in();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn enter(gate: &Gate, number: u64) -> Option<Pass<'_>> {
        tokio::time::timeout(Duration::from_millis(1), gate.enter(number)).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_pass_as_the_limiter_says() {
        let gate = Gate::new(8);
        let mut passes = Vec::new();
        while let Some(pass) = enter(&gate, passes.len() as u64).await {
            passes.push(pass);
        }
        assert_eq!(passes.len(), 4);
        assert!(!passes[0].full && passes[3].full);
        // Half of them, and nobody passes before more than half were given back.
        passes.pop().unwrap().pushed_back();
        assert_eq!(gate.limit(), 2);
        drop(passes.pop());
        assert!(enter(&gate, 9).await.is_none());
        drop(passes.pop());
        assert!(enter(&gate, 9).await.is_some());
        drop(passes);
        // And more again.
        for _ in 0..16 {
            enter(&gate, 9).await.unwrap().answered(Duration::from_millis(5));
        }
        let passes = [enter(&gate, 1).await, enter(&gate, 2).await, enter(&gate, 3).await];
        assert_eq!(passes.into_iter().flatten().count(), gate.limit());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_object_goes_first_whenever_it_comes() {
        let gate = Gate::new(1);
        let inside = gate.enter(0).await;
        let seen = Mutex::new(Vec::new());
        let come = async |number: u64| {
            let _pass = gate.enter(number).await;
            seen.lock().unwrap().push(number);
        };
        let leave = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(inside);
        };
        tokio::join!(come(7), come(3), come(5), come(1), leave);
        assert_eq!(*seen.lock().unwrap(), [1, 3, 5, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_while_it_is_closed() {
        let gate = Gate::new(8);
        let began = Instant::now();
        gate.close_for(Duration::from_secs(15));
        gate.close_for(Duration::from_secs(3));
        drop(gate.enter(1).await);
        assert!(began.elapsed() >= Duration::from_secs(15));
        drop(gate.enter(2).await);
        assert!(began.elapsed() < Duration::from_secs(16));
    }
}
