//! Lanes that work, but slower than the log is read: the reading waits for them, as long as they get on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::Incarnation;
use tokio::time::Instant;

use crate::lane::Inlet;

/// How long a lane may do nothing before the others go on without it: longer where all are slow, since a lane's turn
/// comes after those of the others.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a lane may do nothing when the slowest batch of late took so long.
fn patience(slowest: Duration) -> Duration {
    PATIENCE.max(slowest.saturating_mul(3))
}

/// The lanes that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Backpressure(HashMap<Incarnation, Sight>);

/// What was seen of a lane, and since when.
#[derive(Clone, Copy, Debug)]
struct Sight {
    steps: u64,
    since: Instant,
}

/// What is to be done about a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    GoOn,
    Shut,
}

fn verdict(crowded: bool, stepped: bool, too_long: bool) -> Verdict {
    match (crowded, stepped) {
        (false, _) => Verdict::GoOn,
        (true, false) if too_long => Verdict::Shut,
        (true, _) => Verdict::Wait,
    }
}

impl Backpressure {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Something was put into this mailbox.
    pub(crate) fn put(&mut self, lane: Incarnation, inlet: &Inlet) {
        let (crowded, steps) = inlet.with(|mailbox| (mailbox.is_crowded(false), mailbox.steps()));
        if crowded {
            self.0.entry(lane).or_insert_with(|| Sight { steps, since: Instant::now() });
        }
    }

    pub(crate) fn remove(&mut self, lane: Incarnation) {
        self.0.remove(&lane);
    }

    /// Looks at them again. `slowest`: how long a batch took at most, of late.
    pub(crate) fn look(&mut self, lanes: &HashMap<Incarnation, Arc<Inlet>>, slowest: Duration) {
        let now = Instant::now();
        self.0.retain(|lane, sight| {
            let Some(inlet) = lanes.get(lane) else { return false };
            inlet.with(|mailbox| {
                let stepped = mailbox.steps() != sight.steps;
                let too_long = mailbox.is_stuck() || now - sight.since > patience(slowest);
                let verdict = verdict(mailbox.is_crowded(true), stepped, too_long);
                if stepped {
                    *sight = Sight { steps: mailbox.steps(), since: now };
                }
                if verdict == Verdict::Shut {
                    mailbox.shut();
                }
                verdict == Verdict::Wait
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Bound, Item, Mailbox, Taken};

    #[test]
    fn only_a_lane_that_gets_on_is_waited_for() {
        for (crowded, stepped, too_long, expected) in [
            (false, false, true, Verdict::GoOn),
            (false, true, false, Verdict::GoOn),
            (true, true, true, Verdict::Wait),
            (true, false, false, Verdict::Wait),
            (true, false, true, Verdict::Shut),
        ] {
            assert_eq!(verdict(crowded, stepped, too_long), expected, "{crowded} {stepped} {too_long}");
        }
    }

    #[test]
    fn where_all_are_slow_nobody_is_shut_out_for_it() {
        assert_eq!(patience(Duration::from_millis(20)), PATIENCE);
        assert_eq!(patience(Duration::from_secs(2)), Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_hangs_loses_its_backlog_and_the_others_go_on() {
        let lane = Incarnation(uuid::Uuid::from_u128(1));
        let inlet = Inlet::new(Mailbox::new(Bound { entries: 1, bytes: 1 << 20 }));
        let lanes = HashMap::from([(lane, inlet.clone())]);
        let mut backpressure = Backpressure::default();
        for sequence in 1..=3 {
            let payload = bytes::Bytes::from_static(b"{}");
            inlet.put(Item::Event { sequence, accepted: std::time::UNIX_EPOCH, payload });
            backpressure.put(lane, &inlet);
        }
        backpressure.look(&lanes, Duration::ZERO);
        assert!(!backpressure.is_empty(), "it may be working");
        tokio::time::advance(PATIENCE * 2).await;
        backpressure.look(&lanes, Duration::from_secs(5));
        assert!(!backpressure.is_empty(), "all are slow");
        backpressure.look(&lanes, Duration::ZERO);
        assert!(backpressure.is_empty());
        assert_eq!(inlet.with(|mailbox| mailbox.take(9, 9)), Taken::Behind { from: 1 });
    }
}
