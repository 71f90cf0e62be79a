//! What the directory was at which time, and what was posted when.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Event, Moment, Outcome, Record, Selection};

/// Directory and event log, as the producer knows them.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    objects: BTreeMap<String, Object>,
    /// By number of the change: the object, and the place in its changes.
    numbers: HashMap<u64, (String, usize)>,
    pub(super) events: BTreeMap<u64, Posted>,
    /// Those that NATS does not carry, by a number of their own.
    pub(super) larges: BTreeMap<u64, Posted>,
}

#[derive(Clone, Debug, Default)]
struct Object {
    topic: String,
    changes: Vec<Change>,
}

/// What an object was made.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub start: Moment,
    pub end: Moment,
    pub number: u64,
    pub version: u64,
    /// Is it there, for whoever looks at this world?
    pub present: bool,
    /// Does its event concern whoever looks at this world?
    pub wanted: bool,
    pub moved: bool,
    pub shade: String,
    place: u64,
}

/// A change's event.
#[derive(Clone, Debug, Default)]
pub(super) struct Posted {
    pub topic: String,
    pub object: String,
    /// Start and end of the try that was accepted.
    pub accepted: Option<(Moment, Moment)>,
    /// Start of the first try: one of unknown outcome may have been accepted from here on.
    pub first: Moment,
    /// Tries whose outcome is unknown.
    pub unknown: usize,
    /// Does it concern whoever looks at this world?
    pub wanted: bool,
}

impl Posted {
    fn tried(&mut self, outcome: Outcome, when: (Moment, Moment)) {
        match outcome {
            Outcome::Done | Outcome::Already => self.accepted = Some(when),
            Outcome::Unknown => self.unknown += 1,
            Outcome::Refused | Outcome::Missing => {}
        }
    }

    /// When it can have been accepted at the latest.
    pub(super) fn last(&self) -> Moment {
        self.accepted.map_or(Moment::MAX, |(_, end)| end)
    }
}

impl World {
    pub(super) fn new(history: &[Record]) -> Self {
        let mut world = Self::default();
        for Record { start, end, event } in history {
            match event {
                Event::Changed { number, object, topic, version, present, moved, shade, place } => {
                    let entry = world.objects.entry(object.clone()).or_default();
                    entry.topic.clone_from(topic);
                    world.numbers.insert(*number, (object.clone(), entry.changes.len()));
                    entry.changes.push(Change {
                        start: *start,
                        end: *end,
                        number: *number,
                        version: *version,
                        present: *present,
                        wanted: true,
                        moved: *moved,
                        shade: shade.clone(),
                        place: *place,
                    });
                }
                Event::Posting { number } => drop(world.posted(*number, *start)),
                Event::Posted { number, outcome } => {
                    world.posted(*number, *start).tried(*outcome, (*start, *end));
                }
                Event::Large { large, topic, outcome } => {
                    let new = || Posted { topic: topic.clone(), first: *start, ..Posted::default() };
                    let posted = world.larges.entry(*large).or_insert_with(new);
                    posted.tried(*outcome, (*start, *end));
                }
                _ => {}
            }
        }
        world
    }

    fn posted(&mut self, number: u64, start: Moment) -> &mut Posted {
        let Self { objects, numbers, events, .. } = self;
        events.entry(number).or_insert_with(|| {
            let object = numbers.get(&number).map(|(object, _)| object.clone()).unwrap_or_default();
            let topic = objects.get(&object).map(|object| object.topic.clone()).unwrap_or_default();
            Posted { topic, object, first: start, wanted: true, ..Posted::default() }
        })
    }

    /// As it looks through a selection: what is not selected is not there.
    pub(super) fn selected(&self, selection: &Selection) -> Self {
        let mut world = self.clone();
        for object in world.objects.values_mut() {
            let mut before = false;
            for change in &mut object.changes {
                change.present = change.present
                    && selection.shade.as_ref().is_none_or(|shade| change.shade.contains(shade.as_str()))
                    && selection.place.is_none_or(|place| place == change.place);
                change.wanted = change.present || before;
                before = change.present;
            }
        }
        for (number, posted) in &mut world.events {
            let change = world.numbers.get(number).and_then(|(o, at)| world.objects.get(o)?.changes.get(*at));
            posted.wanted = change.is_none_or(|change| change.wanted);
        }
        world
    }

    /// The change of that number.
    pub(super) fn change(&self, number: u64) -> Option<&Change> {
        let (object, place) = self.numbers.get(&number)?;
        self.objects.get(object)?.changes.get(*place)
    }

    /// When the first event after this one was accepted, as far as is known: this one can't be accepted later.
    pub(super) fn overtaken(&self, number: u64) -> Option<Moment> {
        self.events.range(number + 1..).find_map(|(_, posted)| posted.accepted).map(|(_, end)| end)
    }

    /// May whoever looks between two moments see this version? Answers what is wrong with it.
    pub(super) fn shows(&self, object: &str, version: u64, from: Moment, to: Moment) -> Result<(), String> {
        let changes: Vec<&Change> = self.changes(object).collect();
        let Some(place) = changes.iter().position(|c| c.version == version && c.start <= to) else {
            return Err(format!("{object} version {version} never was"));
        };
        match changes.get(place + 1) {
            _ if !changes.get(place).is_some_and(|change| change.present) => {
                Err(format!("{object} version {version} was not there"))
            }
            Some(next) if next.end < from => {
                let least = changes.iter().rev().find(|change| change.end < from);
                let least = least.map_or(0, |change| change.version);
                Err(format!("{object} version {version} is older than when asked for (version {least})"))
            }
            _ => Ok(()),
        }
    }

    /// May whoever looks between two moments find nothing?
    pub(super) fn may_lack(&self, object: &str, from: Moment, to: Moment) -> bool {
        let changes: Vec<&Change> = self.changes(object).collect();
        let place = changes.iter().rposition(|change| change.end < from);
        let before = place.is_some_and(|place| changes.get(place).is_some_and(|change| change.present));
        let during = changes.iter().any(|c| c.end >= from && c.start <= to && (!c.present || c.moved));
        !before || during
    }

    /// Objects of these topics that were there all the time, under the same DN: each list shows them.
    pub(super) fn steady(&self, topics: &[String], from: Moment, to: Moment) -> impl Iterator<Item = &str> {
        let of_topics = self.objects.iter().filter(|(_, object)| topics.contains(&object.topic));
        of_topics.map(|(name, _)| name.as_str()).filter(move |name| !self.may_lack(name, from, to))
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

    /// An object's type.
    pub(super) fn topic(&self, object: &str) -> &str {
        self.objects.get(object).map_or("", |object| object.topic.as_str())
    }

    /// All objects of these topics.
    pub(super) fn objects(&self, topics: &[String]) -> impl Iterator<Item = &str> {
        let of_topics = self.objects.iter().filter(|(_, object)| topics.contains(&object.topic));
        of_topics.map(|(name, _)| name.as_str())
    }

    pub(super) fn changes(&self, object: &str) -> impl Iterator<Item = &Change> {
        self.objects.get(object).into_iter().flat_map(|object| &object.changes)
    }
}
