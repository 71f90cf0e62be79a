//! One life of a subscription: its records in order, and what they break.

use std::collections::BTreeMap;

use super::{
    Promise, Violation,
    directory::World,
    queue::Window,
    seam::{Round, Seam},
};
use crate::history::{Event, Life, Message, Moment, Outcome, Record};

/// What came of the check.
pub(super) struct Checked {
    pub violations: Vec<Violation>,
    /// Lowest number that was delivered, and when.
    pub lowest: Option<(u64, Moment)>,
    pub highest: u64,
}

/// Most violations told of one life: after a first one the others mostly follow from it.
const TOLD: usize = 8;

struct Check<'a> {
    world: &'a World,
    life: &'a Life,
    topics: Vec<String>,
    prefill: bool,
    /// Start of the first try to register, and when it was answered.
    registering: Moment,
    registered: Option<Moment>,
    window: Window,
    seam: Seam,
    /// Number of the last live message, and how often its event came.
    live: (u64, usize),
    /// Objects as the consumer knows them: version, or none.
    picture: BTreeMap<String, Option<u64>>,
    checked: Checked,
}

/// Checks the records of one life, in the order of their ends.
pub(super) fn check(world: &World, life: &Life, records: &[&Record], ended: bool) -> Checked {
    let mut check = Check {
        world,
        life,
        topics: Vec::new(),
        prefill: false,
        registering: Moment::MAX,
        registered: None,
        window: Window::default(),
        seam: Seam::default(),
        live: (0, 0),
        picture: BTreeMap::new(),
        checked: Checked { violations: Vec::new(), lowest: None, highest: 0 },
    };
    let (mut drained, mut removed) = (false, false);
    for record in records {
        removed |= matches!(record.event, Event::Removed { .. });
        drained |= matches!(record.event, Event::Drained { .. });
        check.record(record);
    }
    let at = records.last().map_or(0, |record| record.end);
    if drained {
        check.finish(at);
    } else if ended && !removed {
        let last = check.live.0;
        check.complain(at, Promise::Stopped, format!("the last event did not come; the last one was {last}"));
    }
    check.checked.violations.truncate(TOLD);
    check.checked
}

impl Check<'_> {
    fn record(&mut self, record: &Record) {
        let Record { start, end, event } = record;
        let (start, end) = (*start, *end);
        match event {
            Event::Registered { topics, prefill, outcome, .. } => {
                if self.registering == Moment::MAX {
                    self.registering = start;
                    self.topics.clone_from(topics);
                    self.prefill = *prefill;
                }
                if *outcome != Outcome::Unknown && self.registered.is_none() {
                    self.registered = Some(end);
                    if *prefill {
                        let start = self.registering;
                        self.seam.rounds.push(Round { start, answered: Some(end), first: true });
                    }
                }
            }
            Event::Asked { outcome, .. } => self.ask(*outcome, start, end),
            Event::Delivered { from_head, messages, .. } => {
                self.delivered(*from_head, messages, end);
            }
            Event::Acknowledged { through, outcome, .. } => {
                let dropped = self.seam.dropped(end);
                if let Some((promise, text)) = self.window.acknowledge(*through, *outcome, dropped) {
                    self.complain(end, promise, text);
                }
            }
            Event::Unexpected { what, .. } => self.complain(end, Promise::Unexpected, what.clone()),
            Event::Removed { .. } | Event::Drained { .. } => {}
            Event::Changed { .. } | Event::Posted { .. } | Event::Fault { .. } => {}
        }
    }

    /// Each try that was not answered may have begun a round, and a later try another one, if the first was done by
    /// then. 200: none was begun.
    fn ask(&mut self, outcome: Outcome, start: Moment, end: Moment) {
        if outcome != Outcome::Already {
            let answered = (outcome == Outcome::Done).then_some(end);
            self.seam.rounds.push(Round { start, answered, first: false });
        }
    }

    fn delivered(&mut self, from_head: bool, messages: &[Message], end: Moment) {
        let dropped = self.seam.dropped(end);
        let (new, complaints) = self.window.deliver(from_head, dropped, messages);
        self.complain_all(end, complaints);
        if messages.iter().any(|m| m.prefill) && messages.iter().any(|m| !m.prefill) && from_head {
            self.complain(end, Promise::LiveBeforePrefill, "prefill and live in one batch".to_owned());
        }
        for message in new {
            self.new_message(message, end);
        }
    }

    fn new_message(&mut self, message: &Message, end: Moment) {
        let sequence = message.sequence;
        self.checked.highest = self.checked.highest.max(sequence);
        if self.checked.lowest.is_none_or(|(lowest, _)| sequence < lowest) {
            self.checked.lowest = Some((sequence, end));
        }
        if !self.topics.contains(&message.topic) {
            self.complain(end, Promise::Foreign, format!("{} was not asked for", message.topic));
        }
        if message.prefill {
            let complaints = self.seam.prefill(&self.topics, message, end);
            self.complain_all(end, complaints);
            self.picture.insert(message.object.clone(), Some(message.version));
            return;
        }
        let posted = self.world.events.get(&message.number);
        let first = posted.and_then(|posted| posted.first);
        if posted.is_none_or(|p| p.unknown == 0 && p.last < self.registering) {
            let text = format!("event {} is from before this registration", message.number);
            self.complain(end, Promise::Foreign, text);
        }
        let complaints = self.seam.live(self.world, &self.topics, first, end);
        self.complain_all(end, complaints);
        self.live_order(message.number, end);
        self.picture.insert(message.object.clone(), (!message.deleted).then_some(message.version));
    }

    fn live_order(&mut self, number: u64, end: Moment) {
        let (last, times) = self.live;
        if number < last {
            self.complain(end, Promise::LiveOrder, format!("event {number} comes after event {last}"));
            return;
        }
        if number == last {
            let tries = self.world.events.get(&number).map_or(0, |posted| posted.unknown);
            if times > tries {
                let text = format!("event {number} comes {} times, of {tries} unknown tries", times + 1);
                self.complain(end, Promise::LiveOrder, text);
            }
            self.live.1 += 1;
            return;
        }
        self.missing(last, number, end);
        self.live = (number, 1);
    }

    /// Events that must have come between two others.
    fn missing(&mut self, after: u64, before: u64, end: Moment) {
        let Some(registered) = self.registered else { return };
        let must = |posted: &super::directory::Posted| {
            self.topics.contains(&posted.topic) && posted.accepted.is_some_and(|at| at >= registered)
        };
        let missing: Vec<u64> = self
            .world
            .events
            .range((std::ops::Bound::Excluded(after), std::ops::Bound::Excluded(before)))
            .filter(|(_, posted)| must(posted))
            .map(|(number, _)| *number)
            .collect();
        if let Some(first) = missing.first() {
            let object = self.world.events.get(first).map_or("", |posted| posted.object.as_str());
            let text = format!("{} events did not come, such as {first} ({object})", missing.len());
            self.complain(end, Promise::EventMissing, text);
        }
    }

    fn finish(&mut self, at: Moment) {
        self.missing(self.live.0, u64::MAX, at);
        let complaints = self.seam.finish(self.world, &self.topics, at);
        self.complain_all(at, complaints);
        let directory = self.world.finally(&self.topics);
        let wrong: Vec<String> = if self.prefill {
            let names = directory.keys().copied().chain(self.picture.keys().map(String::as_str));
            let names: std::collections::BTreeSet<&str> = names.collect();
            names.into_iter().filter_map(|name| self.differs(&directory, name)).collect()
        } else {
            self.picture.keys().filter_map(|name| self.differs(&directory, name)).collect()
        };
        if let Some(first) = wrong.first() {
            let text = format!("{} objects differ from the directory, such as {first}", wrong.len());
            self.complain(at, Promise::PictureDiffers, text);
        }
    }

    fn differs(&self, directory: &BTreeMap<&str, u64>, name: &str) -> Option<String> {
        let is = directory.get(name).copied();
        let seen = self.picture.get(name).copied().flatten();
        let word = |version: Option<u64>| version.map_or("absent".to_owned(), |v| format!("version {v}"));
        (is != seen).then(|| format!("{name}: {} instead of {}", word(seen), word(is)))
    }

    fn complain_all(&mut self, at: Moment, complaints: Vec<(Promise, String)>) {
        for (promise, text) in complaints {
            self.complain(at, promise, text);
        }
    }

    fn complain(&mut self, at: Moment, promise: Promise, text: String) {
        self.checked.violations.push(Violation { at, life: self.life.clone(), promise, text });
    }
}
