//! What a replica holds of the event log, and what a queue would get of it. Pure: no I/O, no clock of its own.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use model::{Incarnation, checkpoint::Epoch};
use tokio::time::Instant;

use crate::{Head, LogEntry, LogItem, Matcher};

/// Topics that are told apart by their address. Beyond this somebody invents topics.
const TOPICS_MAX: usize = 10_000;

/// How much is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub entries: usize,
    pub bytes: usize,
}

/// An event that a queue gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its sequence in the log.
    pub place: u64,
    pub accepted: SystemTime,
    pub payload: Bytes,
}

/// Whose events are looked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub incarnation: Incarnation,
    /// What is in effect where the search begins.
    pub epoch: Epoch,
    pub matcher: &'a Matcher,
    /// Largest event that a queue takes, in bytes.
    pub largest: usize,
}

/// What a queue gets behind a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub events: Vec<Event>,
    /// All up to here was looked at.
    pub through: u64,
    /// The next entry is one that only the dispatcher may pass: a marker of this subscription, or an event that becomes
    /// a dead letter.
    pub barred: bool,
}

#[derive(Clone, Debug)]
enum Item {
    Event {
        topic: Arc<Head>,
        accepted: SystemTime,
        payload: Bytes,
    },
    Large {
        topic: Arc<Head>,
    },
    Letter {
        incarnation: Incarnation,
        accepted: SystemTime,
        payload: Bytes,
    },
    Marker {
        incarnation: Incarnation,
        epoch: Epoch,
    },
    /// It can't be read. `None`: nobody can tell whose it is.
    Unreadable(Option<Incarnation>),
    /// Nobody gets it.
    Nothing,
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Self::Event { payload, .. } | Self::Letter { payload, .. } => payload.len(),
            Self::Large { .. } | Self::Marker { .. } | Self::Unreadable(_) | Self::Nothing => 0,
        }
    }
}

/// Who has to look when an entry has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Concerns {
    Topic(Arc<Head>),
    Queue(Incarnation),
    Nobody,
}

/// The entries behind a place, without a gap.
#[derive(Debug)]
pub(crate) struct Entries {
    bound: Bound,
    /// Everything behind this place is held, as far as the log was read.
    base: u64,
    held: VecDeque<(Instant, Item)>,
    bytes: usize,
    topics: HashSet<Arc<Head>>,
}

impl Entries {
    pub(crate) fn new(bound: Bound, base: u64) -> Self {
        Self { bound, base, held: VecDeque::new(), bytes: 0, topics: HashSet::new() }
    }

    /// The place behind which everything is held.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The last entry that was read.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.held.len() as u64
    }

    /// Takes the next entry of the log. `None`: it is not the next one.
    pub(crate) fn push(&mut self, entry: LogEntry, now: Instant) -> Option<Concerns> {
        if entry.sequence != self.end() + 1 {
            return None;
        }
        let accepted = entry.accepted;
        // What came is a part of a large buffer, which would be kept as a whole.
        let own = |payload: Bytes| Bytes::copy_from_slice(&payload);
        let (item, concerns) = match entry.item {
            LogItem::Event(payload) => match Head::of(&payload) {
                Ok(head) => {
                    let topic = self.topic(head);
                    let item = Item::Event { topic: topic.clone(), accepted, payload: own(payload) };
                    (item, Concerns::Topic(topic))
                }
                // The dispatcher says so, and skips it.
                Err(_) => (Item::Nothing, Concerns::Nobody),
            },
            LogItem::TooLarge(event) => {
                let topic = self.topic(Head { realm: event.realm, topic: event.topic });
                (Item::Large { topic: topic.clone() }, Concerns::Topic(topic))
            }
            LogItem::Letter(letter) => {
                let incarnation = letter.whose.incarnation;
                let item = Item::Letter { incarnation, accepted, payload: own(letter.message) };
                (item, Concerns::Queue(incarnation))
            }
            LogItem::Marker(marker) => {
                let (incarnation, epoch) = (marker.incarnation, marker.epoch);
                (Item::Marker { incarnation, epoch }, Concerns::Queue(incarnation))
            }
            LogItem::Unreadable(whose) => (Item::Unreadable(whose.map(|w| w.incarnation)), Concerns::Nobody),
        };
        self.bytes += item.size();
        self.held.push_back((now, item));
        while self.held.len() > self.bound.entries || self.bytes > self.bound.bytes {
            self.drop_first();
        }
        Some(concerns)
    }

    /// Drops what was read before a time and is at or below a place: nobody reads it here any more.
    pub(crate) fn forget(&mut self, before: Instant, place: u64) {
        while self.base < place && self.held.front().is_some_and(|(at, _)| *at < before) {
            self.drop_first();
        }
        if self.held.is_empty() {
            self.held = VecDeque::new();
            self.topics.clear();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, item)) = self.held.pop_front() {
            self.bytes -= item.size();
            self.base += 1;
        }
    }

    fn topic(&mut self, head: Head) -> Arc<Head> {
        if let Some(known) = self.topics.get(&head) {
            return known.clone();
        }
        if self.topics.len() >= TOPICS_MAX {
            self.topics.clear();
        }
        let topic = Arc::new(head);
        self.topics.insert(topic.clone());
        topic
    }

    /// What a queue gets behind `after` and up to `until`: at most so many events, and no further one beyond so many
    /// bytes. `None`: some of it is not held.
    pub(crate) fn ahead(&self, wanted: &Wanted<'_>, after: u64, until: u64, most: Bound) -> Option<Ahead> {
        let skipped = usize::try_from(after.checked_sub(self.base)?).ok()?;
        let mut ahead = Ahead { events: Vec::new(), through: after, barred: false };
        let mut bytes = 0;
        // Topics by their address: an expression is asked once.
        let mut asked: HashMap<*const Head, bool> = HashMap::new();
        let mut is_match = |topic: &Arc<Head>| {
            let matches = || wanted.matcher.route.is_match(&topic.realm, &topic.topic);
            *asked.entry(Arc::as_ptr(topic)).or_insert_with(matches)
        };
        for (place, (_, item)) in (after + 1..=until).zip(self.held.iter().skip(skipped)) {
            let event = match item {
                Item::Event { topic, accepted, payload } if is_match(topic) => {
                    // One that can't be read is not selected; the dispatcher says so.
                    let seen = wanted.matcher.see(payload.clone()).unwrap_or_default();
                    seen.map(|payload| Event { place, accepted: *accepted, payload })
                }
                Item::Letter { incarnation, accepted, payload } if *incarnation == wanted.incarnation => {
                    Some(Event { place, accepted: *accepted, payload: payload.clone() })
                }
                item => {
                    ahead.barred = match item {
                        Item::Large { topic } => is_match(topic),
                        Item::Marker { incarnation, epoch } => {
                            // An older one never takes effect.
                            *incarnation == wanted.incarnation && *epoch >= wanted.epoch
                        }
                        Item::Unreadable(Some(incarnation)) => *incarnation == wanted.incarnation,
                        Item::Event { .. } | Item::Letter { .. } | Item::Unreadable(None) | Item::Nothing => {
                            false
                        }
                    };
                    None
                }
            };
            if event.as_ref().is_some_and(|event| event.payload.len() > wanted.largest) {
                ahead.barred = true;
            }
            if ahead.barred {
                break;
            }
            if let Some(event) = event {
                bytes += event.payload.len();
                ahead.events.push(event);
            }
            ahead.through = place;
            if ahead.events.len() >= most.entries || bytes >= most.bytes {
                break;
            }
        }
        Some(ahead)
    }
}

#[cfg(test)]
mod tests;
