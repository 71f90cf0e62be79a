//! Lanes that work, but slower than the log is read: the reading waits for them, as long as they get on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::Incarnation;
use tokio::time::Instant;

use crate::lane::Inlet;

/// How long a lane may do nothing before the others go on without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The lanes that are waited for.
#[derive(Debug, Default)]
pub(crate) struct Crowd(HashMap<Incarnation, Sight>);

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

fn verdict(crowded: bool, stepped: bool, idle: Duration) -> Verdict {
    match (crowded, stepped) {
        (false, _) => Verdict::GoOn,
        (true, false) if idle > PATIENCE => Verdict::Shut,
        (true, _) => Verdict::Wait,
    }
}

impl Crowd {
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

    /// Looks at them again.
    pub(crate) fn look(&mut self, lanes: &HashMap<Incarnation, Arc<Inlet>>) {
        let now = Instant::now();
        self.0.retain(|lane, sight| {
            let Some(inlet) = lanes.get(lane) else { return false };
            inlet.with(|mailbox| {
                let stepped = mailbox.steps() != sight.steps;
                let verdict = verdict(mailbox.is_crowded(true), stepped, now - sight.since);
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

    #[test]
    fn only_a_lane_that_gets_on_is_waited_for() {
        let (soon, late) = (Duration::ZERO, PATIENCE * 2);
        for (crowded, stepped, idle, expected) in [
            (false, false, late, Verdict::GoOn),
            (false, true, soon, Verdict::GoOn),
            (true, true, late, Verdict::Wait),
            (true, false, soon, Verdict::Wait),
            (true, false, late, Verdict::Shut),
        ] {
            assert_eq!(verdict(crowded, stepped, idle), expected, "{crowded} {stepped} {idle:?}");
        }
    }
}
