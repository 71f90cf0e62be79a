//! One password at a time of each address whose logins have failed too often: slow, but not locked out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::OwnedMutexGuard, time::Instant};

use crate::origin::network_of;

/// After a password that was wrong, the next one is looked at so much later.
const REST: Duration = Duration::from_millis(500);
/// Those that wait for their turn, and the one whose turn it is.
const WAITING_MAX: usize = 8;
/// How long one waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// Most addresses that have a lane.
const LANES_MAX: usize = 1000;

/// A lane for each address that needs one.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<IpAddr, Lane>>);

#[derive(Clone, Default)]
struct Lane {
    waiting: Arc<AtomicUsize>,
    /// When the next turn may begin.
    free_at: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

/// The turn of one password, until this is dropped.
pub(crate) struct Turn {
    free_at: OwnedMutexGuard<Option<Instant>>,
    right: bool,
    _waiting: Waiting,
}

struct Waiting(Arc<AtomicUsize>);

impl Lanes {
    /// Waits for a turn; `None`: too many wait already.
    pub(crate) async fn turn(&self, address: IpAddr) -> Option<Turn> {
        let (lane, waiting) = self.enter(network_of(address))?;
        let turn = async {
            let free_at = lane.free_at.lock_owned().await;
            if let Some(at) = *free_at {
                tokio::time::sleep_until(at).await;
            }
            Turn { free_at, right: false, _waiting: waiting }
        };
        tokio::time::timeout(TURN_WITHIN, turn).await.ok()
    }

    fn enter(&self, address: IpAddr) -> Option<(Lane, Waiting)> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() >= LANES_MAX && !lanes.contains_key(&address) {
            let now = Instant::now();
            lanes.retain(|_, lane| {
                lane.free_at.try_lock().map_or(true, |free_at| free_at.is_some_and(|at| at > now))
            });
            if lanes.len() >= LANES_MAX {
                return None;
            }
        }
        let lane = lanes.entry(address).or_default().clone();
        if lane.waiting.fetch_add(1, SeqCst) >= WAITING_MAX {
            lane.waiting.fetch_sub(1, SeqCst);
            return None;
        }
        let waiting = Waiting(lane.waiting.clone());
        Some((lane, waiting))
    }
}

impl Turn {
    /// The password was right: the next one need not rest.
    pub(crate) fn right(mut self) {
        self.right = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.free_at = (!self.right).then(|| Instant::now() + REST);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_and_not_too_many() {
        let (lanes, here) = (Lanes::default(), IpAddr::from([10, 0, 0, 1]));
        let began = Instant::now();
        let first = lanes.turn(here).await.unwrap();
        assert!(lanes.turn(IpAddr::from([10, 0, 0, 2])).now_or_never().is_some(), "another address");
        let mut waiting: Vec<_> = (1..WAITING_MAX).map(|_| Box::pin(lanes.turn(here))).collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none());
        }
        assert!(lanes.turn(here).await.is_none(), "the lane is full");
        first.right();
        assert!(waiting.remove(0).await.is_some());
        assert_eq!(began.elapsed(), Duration::ZERO, "no rest after a right one");
        for (n, turn) in (1..).zip(waiting) {
            assert!(turn.await.is_some());
            assert_eq!(began.elapsed(), REST * n, "a rest after a wrong one");
        }
        let stuck = lanes.turn(here).await.unwrap();
        assert!(lanes.turn(here).await.is_none(), "nobody waits for ever");
        drop(stuck);
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_that_nobody_needs_make_room() {
        let lanes = Lanes::default();
        for n in 0..LANES_MAX as u32 {
            lanes.turn(IpAddr::V4(n.into())).await.unwrap();
        }
        let other = IpAddr::from([10, 0, 0, 1]);
        assert!(lanes.turn(other).await.is_none());
        tokio::time::sleep(REST).await;
        assert!(lanes.turn(other).await.is_some());
        assert_eq!(lanes.0.lock().unwrap().len(), 1);
    }
}
