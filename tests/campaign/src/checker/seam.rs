//! Prefill and live: what may come when, and whether a prefill is complete.
//!
//! A consumer does not see rounds. So the messages of prefills are gathered until a live message comes that surely
//! belongs after a round; the *last part* of what was gathered must then be that round's whole prefill. What came
//! before may be the rest of rounds that were overtaken.

use std::collections::HashSet;

use super::{Promise, directory::World};
use crate::history::{Message, Moment};

/// A prefill that was, or may have been, asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Start of the first try.
    pub start: Moment,
    /// When it was answered that a new one begins; `None`: nobody knows whether it did.
    pub answered: Option<Moment>,
    /// The one of the registration: all live messages come after it.
    pub first: bool,
}

/// Where a consumer is between prefills and live messages.
#[derive(Debug, Default)]
pub(super) struct Seam {
    pub rounds: Vec<Round>,
    /// Messages of prefills since the last live message that left no question open.
    run: Vec<Got>,
    /// How many of them came before the last live message.
    old: usize,
    /// Rounds that are surely read, or surely overtaken.
    served: usize,
    /// Rounds of which nothing can be among the gathered messages.
    closed: usize,
}

#[derive(Clone, Debug)]
struct Got {
    message: Message,
    end: Moment,
}

type Complaints = Vec<(Promise, String)>;

/// The end of what was gathered, which should be one prefill.
struct Split {
    parts: usize,
    begin: usize,
    /// Fine if there were several prefills.
    breaks: Complaints,
    /// Never fine.
    wrong: Complaints,
}

impl Seam {
    /// Rounds that may have begun.
    fn possible(&self, by: Moment) -> usize {
        self.rounds.iter().filter(|round| round.start < by).count()
    }

    /// May what is unread of a prefill be dropped, because another one was asked for?
    pub(super) fn dropped(&self, by: Moment) -> bool {
        self.possible(by) > self.served + 1 || self.old > 0
    }

    /// A message of a prefill came for the first time.
    pub(super) fn prefill(&mut self, topics: &[String], message: &Message, end: Moment) -> Complaints {
        let object = &message.object;
        let place = |topic: &str| topics.iter().position(|t| t == topic);
        // As long as it can only be one prefill, it need not be whole to be judged.
        let one = self.possible(end) == self.served + 1 && self.old == 0;
        let follows = |last: &Got| {
            place(&last.message.topic) <= place(&message.topic)
                && last.message.sequence < message.sequence
                && !self.run.iter().any(|got| got.message.object == *object)
        };
        let mut complaints = Vec::new();
        if one && self.run.last().is_some_and(|last| !follows(last)) {
            let text = format!("{object} of {} comes after a later topic, or twice", message.topic);
            complaints.push((Promise::PrefillOrder, text));
        }
        self.run.push(Got { message: message.clone(), end });
        if self.run.len() == 1 && self.possible(end) <= self.served {
            complaints.push((Promise::PrefillUnasked, format!("{object} of a prefill again")));
        }
        complaints
    }

    /// A live message came for the first time. `posted`: when its first POST began.
    pub(super) fn live(
        &mut self,
        world: &World,
        topics: &[String],
        posted: Option<Moment>,
        end: Moment,
    ) -> Complaints {
        let possible = self.possible(end);
        // The last round that this message surely comes after.
        let after = |r: &Round| r.first || r.answered.zip(posted).is_some_and(|(at, posted)| at <= posted);
        let surely = self.rounds.iter().rposition(after).map_or(0, |place| place + 1);
        let new = self.run.len() > self.old;
        if surely > self.served && possible == surely
            || surely <= self.served && new && possible == self.served + 1
        {
            // Complete, or the message came too early. In the second case it was posted while the prefill was being
            // asked for; but it follows messages that can only be that prefill's.
            return self.close(world, topics, possible - 1, end, false);
        }
        // A round that may have begun since may have dropped the rest.
        self.served = self.served.max(surely);
        self.old = self.run.len();
        Vec::new()
    }

    /// The end: all that was asked for has come.
    pub(super) fn finish(&mut self, world: &World, topics: &[String], end: Moment) -> Complaints {
        match self.rounds.iter().rposition(|round| round.first || round.answered.is_some()) {
            Some(place) if place >= self.served => self.close(world, topics, place, end, true),
            _ => Vec::new(),
        }
    }

    /// Is the last part of what came a whole prefill of that round?
    fn close(
        &mut self,
        world: &World,
        topics: &[String],
        round: usize,
        end: Moment,
        finally: bool,
    ) -> Complaints {
        let Some(Round { start, .. }) = self.rounds.get(round).copied() else { return Vec::new() };
        let Split { parts, begin, breaks, wrong } = split(world, topics, &self.run, start);
        let mut complaints = wrong;
        // What came before may be of rounds that were overtaken, one part each.
        let rounds = self.possible(end).saturating_sub(self.closed);
        if parts > rounds {
            complaints.extend(breaks);
        }
        let prefill = &self.run[begin..];
        // It was whole before its first message came. Which one that is, is not sure if there may be more than one.
        let surely = if rounds == 1 { prefill.first() } else { prefill.last() };
        let until = surely.map_or(end, |got| got.end);
        let there: HashSet<&str> = prefill.iter().map(|got| got.message.object.as_str()).collect();
        let missing: Vec<&str> =
            world.steady(topics, start, until).filter(|object| !there.contains(object)).collect();
        if let Some(example) = missing.first() {
            let promise = match (prefill.is_empty(), finally) {
                (true, false) => Promise::LiveBeforePrefill,
                _ => Promise::ObjectMissing,
            };
            let (missing, there) = (missing.len(), there.len());
            complaints
                .push((promise, format!("{missing} objects are missing beside {there}, such as {example}")));
        }
        self.served = self.possible(end);
        self.closed = self.served;
        self.run.clear();
        self.old = 0;
        complaints
    }
}

/// Cuts what came into as few parts as may each be of one prefill. From the end backwards: the last prefill is whole, so
/// the part that ends there holds it, and perhaps something of the one before.
fn split(world: &World, topics: &[String], run: &[Got], start: Moment) -> Split {
    let mut split = Split { parts: 1, begin: 0, breaks: Vec::new(), wrong: Vec::new() };
    let mut objects: HashSet<&str> = HashSet::new();
    let topic_of = |message: &Message| topics.iter().position(|t| *t == message.topic).unwrap_or(usize::MAX);
    let mut next = (usize::MAX, u64::MAX);
    for (place, Got { message, end }) in run.iter().enumerate().rev() {
        let (object, version) = (message.object.as_str(), message.version);
        let here = (topic_of(message), message.sequence);
        if here.0 > next.0 || here.1 > next.1 || !objects.insert(object) {
            if split.parts == 1 {
                split.begin = place + 1;
            }
            split.parts += 1;
            objects = HashSet::from([object]);
            let text = format!("{object} of {} comes before an earlier topic, or twice", message.topic);
            split.breaks.push((Promise::PrefillOrder, text));
        }
        next = here;
        let least = world.at_least(object, start);
        if version < least || world.gone(object, start) {
            let text = format!("{object} version {version} is older than when asked for (version {least})");
            split.breaks.push((Promise::PrefillOutdated, text));
            // Of a former prefill, as all that came before it: the last one begins behind it.
            if split.parts == 1 {
                split.begin = place + 1;
                split.parts += 1;
                objects = HashSet::new();
                next = (usize::MAX, u64::MAX);
            }
        }
        if version > world.at_most(object, *end) {
            split.wrong.push((Promise::PrefillOutdated, format!("{object} version {version} never was")));
        }
    }
    split
}
