//! Lets as many requests through at once as the [`Limiter`] says, and as many bytes as [`ReadAhead`] has room for: those of
//! the first objects first, since all others wait behind them.
//!
//! **Invariant**: the object whose turn it is waits neither for a place nor for room, whatever the others hold. Without
//! that a prefill stands still for ever: those that have places wait for room, which is free only when the first has
//! been sent, and the first, which has to be asked for again, waits for a place.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::limiter::{Limiter, Seen};
use super::read_ahead::{ReadAhead, Reservation};

/// Where requests wait.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
    room: ReadAhead,
    opened: Instant,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    /// Requests under way.
    inside: usize,
    /// Those that wait, by their place in the list.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    /// The object that all others wait behind.
    turn: u64,
    /// Nobody passes before: UDM asked for it.
    not_before: Instant,
}

/// A place; given back when it is dropped.
pub(super) struct Pass<'a> {
    permits: &'a Permits,
    asked: Duration,
    full: bool,
}

impl Permits {
    /// At most `limit_max` at once, and one more: the object whose turn it is.
    pub fn new(limit_max: usize) -> Self {
        Self::with_room(limit_max, ReadAhead::new())
    }

    fn with_room(limit_max: usize, room: ReadAhead) -> Self {
        let opened = Instant::now();
        let limiter = Limiter::new(limit_max);
        let state = State { limiter, inside: 0, waiting: BTreeMap::new(), turn: 0, not_before: opened };
        Self { state: Mutex::new(state), room, opened }
    }

    /// A reservation for the bytes of the object of this number.
    pub fn reservation(&self, number: u64) -> Reservation {
        self.room.reservation(number)
    }

    /// It is this object's turn: those before it are gone.
    pub fn turn(&self, number: u64) {
        let mut state = self.state();
        state.turn = number;
        state.let_in();
        drop(state);
        self.room.turn(number);
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
        let mut pass = Pass { permits: self, asked: Duration::ZERO, full: false };
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
        while let Some(first) = self.waiting.first_entry() {
            if self.inside >= self.limiter.limit() && *first.key() > self.turn {
                return;
            }
            // Who has given up is passed over.
            self.inside += usize::from(first.remove().send(()).is_ok());
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
        self.permits.state().limiter.learn(seen, self.asked, self.permits.opened.elapsed());
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        state.inside -= 1;
        state.let_in();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::{collection, prelude::*};

    use super::*;

    async fn enter(permits: &Permits, number: u64) -> Option<Pass<'_>> {
        tokio::time::timeout(Duration::from_millis(1), permits.enter(number)).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_pass_as_the_limiter_says() {
        let permits = Permits::new(8);
        let mut passes = Vec::new();
        while let Some(pass) = enter(&permits, passes.len() as u64).await {
            passes.push(pass);
        }
        assert_eq!(passes.len(), 4);
        assert!(!passes[0].full && passes[3].full);
        // Half of them, and nobody passes before more than half were given back.
        passes.pop().unwrap().pushed_back();
        assert_eq!(permits.limit(), 2);
        drop(passes.pop());
        assert!(enter(&permits, 9).await.is_none());
        drop(passes.pop());
        assert!(enter(&permits, 9).await.is_some());
        drop(passes);
        // And more again.
        for _ in 0..16 {
            enter(&permits, 9).await.unwrap().answered(Duration::from_millis(5));
        }
        let passes = [enter(&permits, 1).await, enter(&permits, 2).await, enter(&permits, 3).await];
        assert_eq!(passes.into_iter().flatten().count(), permits.limit());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_object_goes_first_whenever_it_comes() {
        let permits = Permits::new(1);
        let inside = permits.enter(0).await;
        let seen = Mutex::new(Vec::new());
        let come = async |number: u64| {
            let _pass = permits.enter(number).await;
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
    async fn the_object_whose_turn_it_is_passes_although_all_places_are_taken() {
        let permits = Permits::new(1);
        let inside = permits.enter(7).await;
        assert!(enter(&permits, 5).await.is_none());
        let waits = permits.enter(6);
        permits.turn(6);
        assert!(tokio::time::timeout(Duration::from_millis(1), waits).await.is_ok());
        assert!(enter(&permits, 6).await.is_some(), "again, when it has to be asked for again");
        assert!(enter(&permits, 8).await.is_none());
        drop(inside);
    }

    /// What happens to one object: its pieces, and after how many pieces its first tries fail.
    #[derive(Clone, Debug)]
    struct Story {
        pieces: Vec<usize>,
        fails_after: Vec<usize>,
    }

    fn story() -> impl Strategy<Value = Story> {
        let pieces = collection::vec(prop_oneof![1..200_usize, 4_000..40_000_usize], 1..9);
        let fails_after = prop_oneof![4 => Just(Vec::new()), 1 => collection::vec(0..9_usize, 1..4)];
        (pieces, fails_after).prop_map(|(pieces, fails_after)| Story { pieces, fails_after })
    }

    /// Asks for an object as often as it takes.
    async fn ask(permits: Arc<Permits>, number: u64, story: Story) -> Reservation {
        let mut reservation = permits.reservation(number);
        for fails_after in story.fails_after.into_iter().map(Some).chain([None]) {
            let pass = permits.enter(number).await;
            let mut bytes = 0;
            for piece in story.pieces.iter().take(fails_after.unwrap_or(usize::MAX)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                bytes += piece;
                reservation.hold(bytes).await;
            }
            match fails_after {
                None => pass.answered(Duration::from_millis(5)),
                Some(n) => {
                    reservation.clear();
                    if n % 2 == 0 {
                        pass.pushed_back()
                    } else {
                        drop(pass)
                    }
                    tokio::time::sleep(Duration::from_secs(n as u64)).await;
                }
            }
        }
        reservation
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

        #[test]
        fn whatever_fails_it_ends(
            stories in collection::vec(story(), 1..80), limit_max in 1..9_usize, window in 1..40_usize,
            units in 1..30_usize,
        ) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1_000_000), async {
                let permits = Arc::new(Permits::with_room(limit_max, ReadAhead::of(units)));
                let mut asked = stories.into_iter().enumerate().map(|(n, story)| {
                    tokio::spawn(ask(Arc::clone(&permits), n as u64, story))
                });
                let mut reading: VecDeque<_> = asked.by_ref().take(window).collect();
                let mut sent = 0;
                while let Some(task) = reading.pop_front() {
                    permits.turn(sent);
                    drop(task.await.unwrap());
                    sent += 1;
                    reading.extend(asked.next());
                }
            }).await });
            prop_assert!(ended.is_ok(), "it stands still");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_while_it_is_closed() {
        let permits = Permits::new(8);
        let began = Instant::now();
        permits.close_for(Duration::from_secs(15));
        permits.close_for(Duration::from_secs(3));
        drop(permits.enter(1).await);
        assert!(began.elapsed() >= Duration::from_secs(15));
        drop(permits.enter(2).await);
        assert!(began.elapsed() < Duration::from_secs(16));
    }
}
