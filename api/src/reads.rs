//! Noting when consumers ask for messages, so that every replica can tell: once a minute of each, since it is for
//! people only.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use broker::LastReads;
use model::{Incarnation, Subscription, error_chain};
use tokio::time::Instant;

/// Between two notes of one consumer.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// So many are looked through for those that are due again.
const FEW: usize = 256;

/// When this replica noted that a consumer asks, of each that did within a minute.
#[derive(Debug, Default)]
pub(crate) struct Reads(Mutex<HashMap<Incarnation, Instant>>);

impl Reads {
    /// The consumer asks for messages. Nobody waits for the note.
    pub(crate) fn note(&self, reads: LastReads, of: &Subscription) {
        if !self.is_due(of.incarnation, Instant::now()) {
            return;
        }
        let (name, incarnation) = (of.name.clone(), of.incarnation);
        tokio::spawn(async move {
            if let Err(error) = reads.note(&name, incarnation).await {
                tracing::debug!(subscription = %name, error = error_chain(&error), "that it is read is not noted");
            }
        });
    }

    fn is_due(&self, incarnation: Incarnation, now: Instant) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |at: &Instant| now.saturating_duration_since(*at) >= NOTED_EVERY;
        if noted.get(&incarnation).is_some_and(|at| !due(at)) {
            return false;
        }
        if noted.len() >= FEW {
            noted.retain(|_, at| !due(at));
        }
        noted.insert(incarnation, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_read_is_noted_once_a_minute_and_forgotten_after_it() {
        let reads = Reads::default();
        let (start, of) = (Instant::now(), |n| Incarnation(Uuid::from_u128(n)));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(reads.is_due(of(1), at(0)));
        assert!(!reads.is_due(of(1), at(59)));
        assert!(reads.is_due(of(2), at(59)), "each has its own");
        assert!(reads.is_due(of(1), at(60)));
        for n in 0..2000 {
            assert!(reads.is_due(of(100 + n), at(100 + u64::try_from(n).unwrap())));
        }
        assert!(reads.0.lock().unwrap().len() <= FEW + 60, "only those of a minute are remembered");
    }
}
