//! Password hashes beside the other requests, a bounded number at once.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{error::ApiError, lanes::Turn, password};

/// Hashes that are computed at once: each takes a core and 7 MiB for some fifteen milliseconds.
const AT_ONCE: usize = 2;
/// How long a hash may wait for its turn before the request is answered with 503.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Turns for hashes.
pub(crate) struct Hashing {
    turns: Arc<Semaphore>,
    /// Hashes that were begun.
    #[cfg(test)]
    pub begun: std::sync::atomic::AtomicUsize,
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            #[cfg(test)]
            begun: std::sync::atomic::AtomicUsize::default(),
        }
    }
}

impl Hashing {
    /// Does the stored hash belong to this password? The turn of its address, if it needs one, ends with the work.
    pub(crate) async fn verify(
        &self,
        hash: String,
        password: &str,
        turn: Option<Turn>,
    ) -> Result<bool, ApiError> {
        let given = password.to_owned();
        let verify = move || {
            let right = password::verify(&hash, &given);
            if let Some(turn) = turn.filter(|_| right) {
                turn.right();
            }
            Some(right)
        };
        self.in_turn(verify).await
    }

    /// Hashes a new password.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, ApiError> {
        let given = password.to_owned();
        self.in_turn(move || password::hash(&given)).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let failed = |cause: String| ApiError::Unavailable {
            detail: "The password could not be checked at the moment; try again",
            cause,
        };
        let turn = tokio::time::timeout(TURN_WITHIN, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| failed(format!("no turn within {TURN_WITHIN:?}")))?;
        let turn = turn.map_err(|e| failed(e.to_string()))?;
        #[cfg(test)]
        self.begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        // The turn goes with the work: a client that goes away does not make room for a third one.
        let work = move || {
            let result = work();
            drop(turn);
            result
        };
        let result = tokio::task::spawn_blocking(work).await.map_err(|e| failed(e.to_string()))?;
        result.ok_or_else(|| failed("argon2 failed".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    };

    #[tokio::test]
    async fn two_at_once_also_when_clients_go_away() {
        let hashing = Hashing::default();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let work = || {
            let (running, most, gate, started) =
                (running.clone(), most.clone(), gate.clone(), started.clone());
            move || {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                started.send(()).ok();
                gate.lock().ok()?.recv().ok();
                running.fetch_sub(1, SeqCst);
                Some(())
            }
        };
        // Both clients go away as soon as their hashes have begun.
        for _ in 0..AT_ONCE {
            tokio::select! {
                _ = hashing.in_turn(work()) => panic!("it is not released"),
                begun = starts.recv() => begun.unwrap(),
            }
        }
        let others: Vec<_> = (0..6).map(|_| Box::pin(hashing.in_turn(work()))).collect();
        let mut others = futures::future::join_all(others);
        assert!(futures::poll!(&mut others).is_pending());
        assert_eq!((hashing.turns.available_permits(), running.load(SeqCst)), (0, AT_ONCE));
        (0..AT_ONCE + 6).for_each(|_| release.send(()).unwrap());
        assert!(others.await.iter().all(Result::is_ok));
        assert_eq!(most.load(SeqCst), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_is_503() {
        let hashing = Hashing::default();
        let _taken = hashing.turns.clone().acquire_many_owned(AT_ONCE as u32).await.unwrap();
        let waited = hashing.hash("secret").await;
        assert!(matches!(waited, Err(ApiError::Unavailable { .. })), "{waited:?}");
    }
}
