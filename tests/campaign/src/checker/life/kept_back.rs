//! What is kept from a consumer, or from others: paused prefills, former passwords, and messages that NATS does not carry.

use std::collections::BTreeMap;

use super::{Check, Promise};
use crate::history::{Moment, Outcome};

/// So long a former password may count after the answer.
const PASSWORD_WITHIN: Moment = 1_000_000;

/// Is the prefill paused?
#[derive(Debug, Default)]
pub(super) struct Pausing {
    /// When it was, or may have been, paused first; it was not surely resumed since.
    since: Option<Moment>,
    /// When it was seen to wait.
    pub waits: Option<Moment>,
    /// When it was resumed last.
    resumed: Moment,
}

impl Pausing {
    /// Since when a prefill is due that was asked for at this moment; `None`: it may be paused.
    pub(super) fn due(&self, asked: Moment) -> Option<Moment> {
        self.since.is_none().then_some(asked.max(self.resumed))
    }
}

impl Check<'_> {
    pub(super) fn paused(&mut self, outcome: Outcome, (start, end): (Moment, Moment)) {
        self.only_again(outcome, Outcome::Already, end, "was paused before anybody paused it");
        // Refused: only a try before can have taken effect, and what it paused has ended.
        self.pausing.since = (outcome != Outcome::Missing).then(|| self.pausing.since.unwrap_or(start));
        self.pausing.waits = None;
    }

    pub(super) fn resumed(&mut self, outcome: Outcome, when: (Moment, Moment)) {
        if outcome == Outcome::Missing {
            self.while_paused("a prefill ended", when);
        }
        self.only_again(
            outcome,
            Outcome::Already,
            when.1,
            "was not paused any more before anybody resumed it",
        );
        // Also a try of unknown outcome may have done it.
        self.pausing.waits = None;
        if outcome != Outcome::Unknown {
            (self.pausing.since, self.pausing.resumed) = (None, when.1);
        }
    }

    /// Something happened that can't while a prefill is paused.
    pub(super) fn while_paused(&mut self, what: &str, (start, end): (Moment, Moment)) {
        let Some(since) = self.pausing.since else { return };
        // Whoever was stopped when it was paused may go on later, and complete it.
        if self.pausing.waits.is_some_and(|waits| waits <= start)
            && self.health.undisturbed_writers(since, end)
        {
            self.complain(end, Promise::PrefillPaused, format!("{what} while it is paused"));
        }
    }

    pub(super) fn logged_in(&mut self, former: bool, outcome: Outcome, (start, end): (Moment, Moment)) {
        let Some(changed) = self.password.filter(|changed| *changed <= start) else { return };
        let text = match (former, outcome) {
            (false, Outcome::Refused) => "the new password is refused",
            (true, Outcome::Done) if changed + PASSWORD_WITHIN <= start => "the former password is let in",
            _ => return,
        };
        self.complain(end, Promise::Password, text.to_owned());
    }

    /// These are the dead letters. Those from before the last event that came must be among them.
    pub(super) fn letters(&mut self, found: &[u64], end: Moment) {
        let Some(registered) = self.registered else { return };
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        for large in found {
            *times.entry(*large).or_default() += 1;
        }
        let world = self.world;
        let read = world.events.get(&self.live.0).map_or(0, |last| last.first);
        for (large, posted) in &world.larges {
            let times = times.remove(large).unwrap_or(0);
            let due = posted.accepted.is_some_and(|(start, end)| start >= registered && end <= read);
            // Nobody knows what a selection says of one that is not there.
            let wanted = !self.selects && self.wanted.surely(&posted.topic, posted.first, posted.last());
            let (least, most) = (usize::from(due && wanted), 1 + posted.unknown);
            let may = self.wanted.perhaps(&posted.topic, posted.first, posted.last())
                && (posted.unknown > 0 || posted.last() >= self.registering);
            if times < least {
                self.complain(end, Promise::LetterMissing, format!("large event {large} is no dead letter"));
            } else if times > 0 && !may {
                self.complain(end, Promise::Foreign, format!("large event {large} was not asked for"));
            } else if times > most {
                let text = format!("large event {large} is there {times} times, of {most} tries");
                self.complain(end, Promise::LiveOrder, text);
            }
        }
        for large in times.keys() {
            self.complain(end, Promise::Foreign, format!("large event {large} was never posted"));
        }
    }
}
