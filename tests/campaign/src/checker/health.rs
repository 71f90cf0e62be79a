//! What was disturbed when: only where enough was well for long enough, something must have gone on.

use std::collections::BTreeMap;

use crate::history::{Event, Moment, Record};

/// Disturbances by process.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    troubles: BTreeMap<String, Vec<(Moment, Option<Moment>)>>,
}

impl Health {
    pub(super) fn new(history: &[Record]) -> Self {
        let mut health = Self::default();
        for Record { end, event, .. } in history {
            let Event::Fault { target: Some(target), over, .. } = event else { continue };
            let troubles = health.troubles.entry(target.clone()).or_default();
            match troubles.iter_mut().find(|(_, until)| *over && until.is_none()) {
                Some((_, until)) => *until = Some(*end),
                None if *over => {}
                None => troubles.push((*end, None)),
            }
        }
        health
    }

    fn calm(&self, target: &str, from: Moment, to: Moment) -> bool {
        let troubles = self.troubles.get(target).into_iter().flatten();
        troubles.into_iter().all(|(start, end)| *start > to || end.is_some_and(|end| end < from))
    }

    /// Could events be copied and read all the time?
    pub(super) fn copies(&self, from: Moment, to: Moment) -> bool {
        let one = |name: &str| [0, 1].iter().any(|n| self.calm(&format!("{name}-{n}"), from, to));
        self.calm("nats", from, to) && one("dispatcher")
    }

    /// Was nobody disturbed who writes prefills?
    pub(super) fn undisturbed_writers(&self, from: Moment, to: Moment) -> bool {
        ["worker-0", "worker-1", "twin", "nats"].iter().all(|target| self.calm(target, from, to))
    }

    /// Could prefills be written all the time?
    pub(super) fn fills(&self, from: Moment, to: Moment) -> bool {
        let workers = [0, 1].iter().any(|n| self.calm(&format!("worker-{n}"), from, to));
        self.copies(from, to) && workers && self.calm("twin", from, to) && self.calm("udm", from, to)
    }
}
