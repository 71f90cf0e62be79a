//! Prefill and live: what may come when, and whether a prefill is complete.
//!
//! A consumer does not see rounds: a request whose outcome it does not know may have begun one or not, and one that
//! was begun drops what is unread of the one before. So all that may be so is followed side by side, as a set of
//! [`State`]s. What contradicts one of them ends it, and what contradicts the last one breaks a promise.

use std::collections::HashSet;

use super::{
    Promise,
    directory::{Posted, World},
    wanted::Wanted,
};
use crate::history::{Message, Moment};

/// A prefill that was, or may have been, asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    /// Start of the request.
    pub start: Moment,
    /// When it was answered that it begins; `None`: nobody knows whether it did.
    pub answered: Option<Moment>,
    /// What was accepted before belongs before it. (Another attempt of the same round has that round's place.)
    pub place: Moment,
    /// Is there a prefill? Only a registration may have none.
    pub prefill: bool,
    /// When it was answered that it is cancelled: nothing of it comes after that.
    pub cancelled: Option<Moment>,
    /// It drops what is unread of the round before; another attempt of that round does not.
    pub drops: bool,
    /// It tells of what is gone, too.
    pub resync: bool,
    /// It may be held, and then the next one is another attempt of its round.
    pub brake: bool,
    /// It only counts: the consumer sees nothing of it.
    pub silent: bool,
}

/// One way in which everything so far can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// What is read belongs to this round.
    round: usize,
    /// Its prefill is being read: nothing of it can have been removed unread.
    reading: bool,
    /// Where its prefill begins in what was gathered.
    begin: usize,
    /// The rest of its prefill was dropped, so a later round must exist.
    owes: bool,
    /// Was one prefill read to its end, since the registration?
    whole: bool,
}

/// Where a consumer is between prefills and live messages.
#[derive(Debug, Default)]
pub(super) struct Seam {
    rounds: Vec<Round>,
    states: Vec<State>,
    /// Messages of prefills, since none of them is wholly read for sure.
    run: Vec<Got>,
    /// Prefills that were surely found whole.
    pub checked: usize,
    /// What was posted up to here may have been held by a prefill that was dropped unread.
    pub skipped: Moment,
}

#[derive(Clone, Debug)]
struct Got {
    message: Message,
    end: Moment,
}

type Complaint = (Promise, String);

impl Seam {
    /// The registration.
    pub(super) fn begin(&mut self, start: Moment, answered: Moment, prefill: bool) {
        let answered = Some(answered);
        let place = 0;
        self.rounds = vec![Round { start, answered, place, prefill, ..Round::default() }];
        self.states = vec![State { round: 0, reading: prefill, begin: 0, owes: false, whole: false }];
    }

    /// A prefill was asked for: it begins, or perhaps. `start` and `answered` are its request's.
    pub(super) fn ask(&mut self, round: Round) {
        // After a cancelled one, or one that is held, another attempt of its round begins.
        // What was asked in between may not have begun.
        let failed = self
            .rounds
            .iter()
            .rev()
            .take_while(|round| round.cancelled.is_some() || round.brake || round.answered.is_none());
        let (mut place, mut resync) = (round.start, round.resync);
        for round in failed {
            place = place.min(round.place);
            resync |= round.resync;
        }
        let drops = self.rounds.last().is_none_or(|last| last.cancelled.is_none());
        self.rounds.push(Round { place, resync, drops, prefill: true, ..round });
    }

    /// The prefill that was under way was cancelled: it is of the last round that surely began, or of a later one.
    pub(super) fn cancel(&mut self, at: Moment) {
        for round in self.rounds.iter_mut().rev() {
            round.cancelled = Some(at);
            if round.answered.is_some() {
                return;
            }
        }
    }

    /// It was answered that a prefill is pending or running. Can that be?
    pub(super) fn can_be_open(&self, start: Moment) -> bool {
        self.states.iter().any(|state| {
            let unread = state.reading && state.begin == self.run.len();
            unread || self.later(state.round, start).next().is_some()
        })
    }

    /// May what is unread of a prefill be gone, because another one was asked for?
    pub(super) fn dropped(&self, by: Moment) -> bool {
        let first = self.states.iter().map(|state| state.round).min().unwrap_or(0);
        self.later(first, by).next().is_some() || self.states.iter().any(|state| state.owes)
    }

    /// Has it surely read a whole prefill?
    pub(super) fn is_whole(&self) -> bool {
        !self.states.is_empty() && self.states.iter().all(|state| state.whole)
    }

    /// Is nothing open between prefill and live?
    pub(super) fn is_live(&self) -> bool {
        let last = self.rounds.iter().rposition(|round| !round.silent).unwrap_or(0);
        self.states.iter().all(|state| !state.reading && !state.owes && state.round == last)
    }

    /// Since when is a prefill surely due that is not cancelled?
    pub(super) fn due_since(&self) -> Option<Moment> {
        let last = self.rounds.iter().rposition(|round| !round.silent)?;
        let round = self.rounds.get(last).filter(|round| round.prefill && round.cancelled.is_none())?;
        let unread = |state: &State| state.round < last || state.reading && state.begin == self.run.len();
        self.states.iter().all(unread).then_some(round.answered).flatten()
    }

    /// Rounds behind one that may have begun.
    fn later(&self, round: usize, by: Moment) -> impl Iterator<Item = (usize, &Round)> {
        self.rounds
            .iter()
            .enumerate()
            .skip(round + 1)
            .filter(move |(_, other)| other.start < by && !other.silent)
    }

    /// A message of a prefill came for the first time, in an answer that was asked for at `start`.
    pub(super) fn prefill(
        &mut self,
        world: &World,
        wanted: &Wanted,
        message: &Message,
        (start, end): (Moment, Moment),
    ) -> Option<Complaint> {
        let (mut next, mut complaints) = (Vec::new(), Vec::new());
        let mut skipped = self.skipped;
        for state in &self.states {
            if state.reading {
                match self.goes_on(world, wanted, state, message, (start, end)) {
                    Ok(()) => next.push(state.clone()),
                    Err(complaint) => complaints.push(complaint),
                }
            } else {
                let text = format!("{} of a prefill again", message.object);
                complaints.push((Promise::PrefillUnasked, text));
            }
            for (round, later) in self.later(state.round, end) {
                let begin = self.run.len();
                let state = State { round, reading: true, begin, owes: false, whole: state.whole };
                match self.goes_on(world, wanted, &state, message, (start, end)) {
                    Ok(()) => {
                        skipped = skipped.max(later.answered.unwrap_or(end));
                        next.push(state);
                    }
                    Err(complaint) => complaints.push(complaint),
                }
            }
        }
        self.skipped = skipped;
        self.run.push(Got { message: message.clone(), end });
        let complaint = if next.is_empty() { complaints.pop() } else { None };
        if complaint.is_some() {
            let last = self.later(0, end).last().map_or(0, |(round, _)| round);
            let begin = self.run.len();
            let reading = self.states.iter().any(|state| state.reading || state.round < last);
            next = vec![State { round: last, reading, begin, owes: false, whole: false }];
        }
        self.settle(next);
        complaint
    }

    /// Can this message be the next of the prefill that is read?
    fn goes_on(
        &self,
        world: &World,
        wanted: &Wanted,
        state: &State,
        message: &Message,
        (start, end): (Moment, Moment),
    ) -> Result<(), Complaint> {
        let Some(round) = self.rounds.get(state.round) else {
            return Err((Promise::PrefillUnasked, format!("{} of no prefill", message.object)));
        };
        let object = &message.object;
        let known = self.later(state.round, start).find(|(_, r)| r.answered.is_some_and(|at| at <= start));
        if known.is_some() || round.cancelled.is_some_and(|at| at <= start) {
            let text = format!("{object} of a prefill that was overtaken or cancelled before it was read");
            return Err((Promise::PrefillUnasked, text));
        }
        if message.after && !round.resync {
            let text = format!("{object} as it was before, although no resync was asked for");
            return Err((Promise::PrefillUnasked, text));
        }
        if let Some(last) = self.run.get(state.begin..).and_then(<[Got]>::last) {
            let order = wanted.order(round.start, end);
            let place = |m: &Message| {
                let place = order.and_then(|topics| topics.iter().position(|t| *t == m.topic));
                // What is gone, or elsewhere, is told behind all objects.
                if m.after { usize::MAX } else { place.unwrap_or(0) }
            };
            let mut run = self.run.iter().skip(state.begin);
            let twice = !message.after && run.any(|got| got.message.object == *object);
            if place(&last.message) > place(message) || last.message.sequence >= message.sequence || twice {
                let text = format!("{object} of {} comes after a later topic, or twice", message.topic);
                return Err((Promise::PrefillOrder, text));
            }
        }
        if message.deleted {
            return if world.may_lack(object, round.start, end) {
                Ok(())
            } else {
                Err((Promise::PrefillOutdated, format!("{object} is told as gone, but was there")))
            };
        }
        let shows = world.shows(object, message.version, round.start, end);
        shows.map_err(|text| (Promise::PrefillOutdated, text))
    }

    /// A live message came for the first time. `unread`: something of a prefill before it is not acknowledged.
    pub(super) fn live(
        &mut self,
        world: &World,
        wanted: &Wanted,
        posted: &Posted,
        unread: bool,
        (start, end): (Moment, Moment),
    ) -> Option<Complaint> {
        let (mut next, mut complaints) = (Vec::new(), Vec::new());
        for state in self.ways(end) {
            let Some(round) = self.rounds.get(state.round) else { continue };
            let (object, before) = (&posted.object, posted.last() <= round.place && posted.unknown == 0);
            let mut later = self.later(state.round, Moment::MAX);
            if later.any(|(_, r)| r.answered.is_some_and(|at| at <= posted.first)) {
                let text = format!("{object} was posted after a prefill was asked for, but comes before it");
                complaints.push((Promise::LiveBeforePrefill, text));
            } else if before && round.prefill {
                let text =
                    format!("{object} was accepted before a prefill was asked for, and comes after it");
                complaints.push((Promise::LiveOrder, text));
            } else if !state.reading {
                next.push(state);
            } else {
                match self.whole(world, wanted, &state, end, false) {
                    _ if round.cancelled.is_some_and(|at| at <= start) => {
                        let text = format!("{object} comes although its prefill was cancelled");
                        complaints.push((Promise::LiveBeforePrefill, text));
                    }
                    _ if unread => {
                        let text = format!("{object} comes before the prefill is acknowledged");
                        complaints.push((Promise::LiveBeforePrefill, text));
                    }
                    Ok(()) => next.push(State { reading: false, whole: true, ..state.clone() }),
                    Err(complaint) => complaints.push(complaint),
                }
                // A round that may have begun since may have dropped the rest.
                if self.later(state.round, end).any(|(_, later)| later.drops) {
                    next.push(State { reading: false, owes: true, ..state });
                }
            }
        }
        let complaint = if next.is_empty() { complaints.pop() } else { None };
        if complaint.is_some() {
            let round = self.later(0, end).last().map_or(0, |(round, _)| round);
            next = vec![State { round, reading: false, begin: 0, owes: false, whole: false }];
        }
        let was = self.states.iter().any(|state| state.reading);
        if next.iter().any(|state| state.owes) {
            self.skipped = end;
        }
        self.settle(next);
        if was && complaint.is_none() && self.states.iter().all(|state| !state.reading && !state.owes) {
            self.checked += 1;
        }
        complaint
    }

    /// The end: all that was asked for has come.
    pub(super) fn finish(&mut self, world: &World, wanted: &Wanted, end: Moment) -> Option<Complaint> {
        let mut complaints = Vec::new();
        for state in self.ways(end) {
            let due = self.later(state.round, Moment::MAX).find(|(_, round)| round.answered.is_some());
            let cancelled = self.rounds.get(state.round).is_some_and(|round| round.cancelled.is_some());
            if due.is_some() || state.owes {
                let text = "a prefill that was asked for did not come".to_owned();
                complaints.push((Promise::ObjectMissing, text));
            } else if !state.reading || cancelled {
                return None;
            } else {
                match self.whole(world, wanted, &state, end, true) {
                    Ok(()) => {
                        self.checked += 1;
                        return None;
                    }
                    Err(complaint) => complaints.push(complaint),
                }
            }
        }
        complaints.pop()
    }

    /// The states, and those with later rounds that have dropped what was before them.
    fn ways(&self, by: Moment) -> Vec<State> {
        let mut ways: Vec<State> = Vec::new();
        for state in &self.states {
            ways.push(state.clone());
            for (round, _) in self.later(state.round, by) {
                let begin = self.run.len();
                ways.push(State { round, reading: true, begin, owes: false, whole: state.whole });
            }
        }
        ways
    }

    /// Is what was gathered since its beginning the whole prefill of a state's round?
    fn whole(
        &self,
        world: &World,
        wanted: &Wanted,
        state: &State,
        end: Moment,
        finally: bool,
    ) -> Result<(), Complaint> {
        let Some(start) = self.rounds.get(state.round).map(|round| round.start) else { return Ok(()) };
        let prefill = self.run.get(state.begin..).unwrap_or_default();
        // It was whole before its first message came.
        let until = prefill.first().map_or(end, |got| got.end);
        let there: HashSet<&str> = prefill.iter().map(|got| got.message.object.as_str()).collect();
        let topics = wanted.always(start, until);
        let missing: Vec<&str> =
            world.steady(&topics, start, until).filter(|object| !there.contains(object)).collect();
        let Some(example) = missing.first() else { return Ok(()) };
        let promise = match (prefill.is_empty(), finally) {
            (true, false) => Promise::LiveBeforePrefill,
            _ => Promise::ObjectMissing,
        };
        let (missing, there) = (missing.len(), there.len());
        Err((promise, format!("{missing} objects are missing beside {there}, such as {example}")))
    }

    fn settle(&mut self, states: Vec<State>) {
        self.states.clear();
        for state in states {
            if !self.states.contains(&state) {
                self.states.push(state);
            }
        }
        if !self.states.iter().any(|state| state.reading) {
            self.run.clear();
            self.states.iter_mut().for_each(|state| state.begin = 0);
            self.states.dedup();
        }
    }
}
