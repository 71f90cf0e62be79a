//! What the directory was at which time, and what was posted when.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Event, Moment, Outcome, Record};

/// Directory and event log, as the producer knows them.
#[derive(Debug, Default)]
pub(super) struct World {
    objects: BTreeMap<String, Object>,
    pub(super) events: BTreeMap<u64, Posted>,
}

#[derive(Debug, Default)]
struct Object {
    topic: String,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    start: Moment,
    end: Moment,
    version: u64,
    present: bool,
    moved: bool,
}

/// A change's event.
#[derive(Clone, Debug, Default)]
pub(super) struct Posted {
    pub topic: String,
    pub object: String,
    /// Start of the try that was accepted.
    pub accepted: Option<Moment>,
    /// Start of the first try: one of unknown outcome may have been accepted from here on.
    pub first: Option<Moment>,
    /// End of the last try.
    pub last: Moment,
    /// Tries whose outcome is unknown.
    pub unknown: usize,
}

impl World {
    pub(super) fn new(history: &[Record]) -> Self {
        let mut world = Self::default();
        let mut of_number = HashMap::new();
        for Record { start, end, event } in history {
            match event {
                Event::Changed { number, object, topic, version, present, moved } => {
                    of_number.insert(*number, (object.clone(), topic.clone()));
                    let entry = world.objects.entry(object.clone()).or_default();
                    entry.topic.clone_from(topic);
                    let (start, end, version) = (*start, *end, *version);
                    entry.changes.push(Change { start, end, version, present: *present, moved: *moved });
                }
                Event::Posted { number, outcome } => {
                    let posted = world.events.entry(*number).or_default();
                    if let Some((object, topic)) = of_number.get(number) {
                        posted.object.clone_from(object);
                        posted.topic.clone_from(topic);
                    }
                    posted.first.get_or_insert(*start);
                    posted.last = *end;
                    match outcome {
                        Outcome::Done => posted.accepted = Some(*start),
                        _ => posted.unknown += 1,
                    }
                }
                _ => {}
            }
        }
        world
    }

    /// The least version that a look at or after `at` may show; 0 if it may show none.
    pub(super) fn at_least(&self, object: &str, at: Moment) -> u64 {
        let changes = self.changes(object).filter(|change| change.end <= at);
        changes.map(|change| change.version).max().unwrap_or(0)
    }

    /// The highest version that a look at or before `at` may show.
    pub(super) fn at_most(&self, object: &str, at: Moment) -> u64 {
        let changes = self.changes(object).filter(|change| change.start <= at);
        changes.map(|change| change.version).max().unwrap_or(0)
    }

    /// Was it gone for good at that time?
    pub(super) fn gone(&self, object: &str, at: Moment) -> bool {
        self.changes(object).any(|change| !change.present && change.end <= at)
    }

    /// Objects of these topics that were there all the time, under the same DN: each list shows them.
    pub(super) fn steady(&self, topics: &[String], from: Moment, to: Moment) -> impl Iterator<Item = &str> {
        self.objects.iter().filter_map(move |(name, object)| {
            let created = object.changes.first().is_some_and(|first| first.end <= from);
            let disturbed = object
                .changes
                .iter()
                .any(|change| (change.moved && change.end >= from || !change.present) && change.start <= to);
            (created && !disturbed && topics.contains(&object.topic)).then_some(name.as_str())
        })
    }

    /// The directory at the end, restricted to topics: object and version.
    pub(super) fn finally(&self, topics: &[String]) -> BTreeMap<&str, u64> {
        let there = self.objects.iter().filter(|(_, object)| topics.contains(&object.topic));
        there
            .filter_map(|(name, object)| {
                object.changes.last().filter(|last| last.present).map(|last| (name.as_str(), last.version))
            })
            .collect()
    }

    fn changes(&self, object: &str) -> impl Iterator<Item = &Change> {
        self.objects.get(object).into_iter().flat_map(|object| &object.changes)
    }
}
