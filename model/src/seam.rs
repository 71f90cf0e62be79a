//! The seam between a snapshot and the live events behind it: which events does the snapshot provably hold already?
//!
//! While a snapshot is read, events of the same objects are copied into the queue. An object that was read *after* an
//! event was accepted holds that event's change; the event then comes as an older state after a newer one. It may be
//! left out if nothing else needs it, which is decided here, from three facts: which events there are (in order),
//! which objects each of them touches, and as of which event each object was read.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{Dn, Message};

/// Events of a round that are looked at. Beyond it all stay in the queue: that costs a repeat, never a change.
const SEAM_EVENTS_MAX: usize = 10_000;

/// What is known of the events behind a snapshot, and of the snapshot's objects that they touch.
#[derive(Debug, Default)]
pub struct Seam {
    events: Vec<SeamEvent>,
    /// As of which event an object was read, by its DN; only of objects that an event touches.
    read: HashMap<Arc<str>, Option<u64>>,
    /// Are the events those of a selection? Then an object that leaves it, moves and comes back is told as one that goes
    /// here, and one that comes there.
    selecting: bool,
}

#[derive(Debug)]
struct SeamEvent {
    sequence: u64,
    incoming_seq: u64,
    touches: Touches,
}

#[derive(Debug)]
enum Touches {
    /// One object, before and after.
    One(Arc<str>),
    /// One that comes.
    Comes(Arc<str>),
    /// One that goes.
    Goes(Arc<str>),
    /// An object that was moved: neither of its names tells the whole story.
    Moved(Arc<str>, Arc<str>),
    /// Nobody knows.
    Unknown,
}

/// An object may be named in several writings of its DN.
fn key(dn: &str) -> Arc<str> {
    Dn::key(dn).into()
}

fn touches(stored: &[u8]) -> Touches {
    let Some((old, new)) = Message::dns(stored) else { return Touches::Unknown };
    match (old.as_deref().map(key), new.as_deref().map(key)) {
        (Some(old), Some(new)) if old == new => Touches::One(old),
        (Some(old), Some(new)) => Touches::Moved(old, new),
        (None, Some(dn)) => Touches::Comes(dn),
        (Some(dn), None) => Touches::Goes(dn),
        (None, None) => Touches::Unknown,
    }
}

impl Touches {
    /// The one name that it is about.
    fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::One(dn) | Self::Comes(dn) | Self::Goes(dn) => Some(dn),
            Self::Moved(..) | Self::Unknown => None,
        }
    }
}

impl Seam {
    /// One whose events are those of a selection, or not.
    #[must_use]
    pub fn new(selecting: bool) -> Self {
        Self { selecting, ..Self::default() }
    }

    /// Notes a live message of the snapshot's round; `sequence` is its number in the queue, `stored` its payload.
    /// They come in the order of the queue. False: there are too many, and this one and all later ones stay.
    pub fn note(&mut self, sequence: u64, incoming_seq: u64, stored: &[u8]) -> bool {
        if self.events.len() >= SEAM_EVENTS_MAX {
            return false;
        }
        let touches = touches(stored);
        if let Some(dn) = touches.name() {
            self.read.entry(dn.clone()).or_default();
        }
        self.events.push(SeamEvent { sequence, incoming_seq, touches });
        true
    }

    /// Does any event wait that an object read as of this event could hold?
    #[must_use]
    pub fn may_hold(&self, as_of: u64) -> bool {
        self.events.first().is_some_and(|event| event.incoming_seq <= as_of)
    }

    /// Notes that the snapshot holds an object that was read after the event `as_of` was accepted. All events up to
    /// `as_of` must have been noted before.
    pub fn wrote(&mut self, dn: &str, as_of: u64) {
        if let Some(known) = self.read.get_mut(&key(dn)) {
            *known = Some(known.map_or(as_of, |known| known.max(as_of)));
        }
    }

    /// Numbers of the messages that the snapshot holds already, in order.
    ///
    /// An event is one of them if it touches one object only, the snapshot holds that object, and it was read after
    /// the event was accepted. But once an event of an object stays, all later ones of that object stay, too: a
    /// deletion that stays would otherwise undo what the snapshot brought. In a selection any object that comes later may
    /// be the one that went, under another name.
    #[must_use]
    pub fn contained(&self) -> Vec<u64> {
        let mut contained = Vec::new();
        let mut kept: HashSet<&str> = HashSet::new();
        let mut went = false;
        for event in &self.events {
            match &event.touches {
                Touches::One(dn) | Touches::Comes(dn) | Touches::Goes(dn) => {
                    let read = self.read.get(dn).copied().flatten();
                    let held = read.is_some_and(|as_of| event.incoming_seq <= as_of);
                    let back = went && matches!(event.touches, Touches::Comes(_));
                    if held && !back && !kept.contains(&**dn) {
                        contained.push(event.sequence);
                    } else {
                        kept.insert(dn);
                        went |= self.selecting && matches!(event.touches, Touches::Goes(_));
                    }
                }
                Touches::Moved(old, new) => {
                    kept.extend([&**old, &**new]);
                }
                // It may be about any object.
                Touches::Unknown => break,
            }
        }
        contained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(old: Option<&str>, new: Option<&str>) -> Vec<u8> {
        let side = |dn: Option<&str>| dn.map_or(serde_json::json!({}), |dn| serde_json::json!({ "dn": dn }));
        serde_json::json!({ "body": { "old": side(old), "new": side(new) } }).to_string().into_bytes()
    }

    /// Events as (old, new), numbered from 1 in the log and from 101 in the queue; objects as (dn, as of).
    fn contained(events: &[(Option<&str>, Option<&str>)], objects: &[(&str, u64)]) -> Vec<u64> {
        contained_by(Seam::new(false), events, objects)
    }

    fn contained_by(
        mut seam: Seam,
        events: &[(Option<&str>, Option<&str>)],
        objects: &[(&str, u64)],
    ) -> Vec<u64> {
        for (incoming_seq, (old, new)) in (1..).zip(events) {
            assert!(seam.note(100 + incoming_seq, incoming_seq, &event(*old, *new)));
        }
        for (dn, as_of) in objects {
            seam.wrote(dn, *as_of);
        }
        seam.contained()
    }

    #[test]
    fn what_stays_and_what_goes() {
        let (a, b, upper) = (Some("uid=a"), Some("uid=b"), Some("UID=A"));
        for (what, events, objects, expected) in [
            ("nothing was read", vec![(a, a)], vec![], vec![]),
            ("read after it", vec![(a, a)], vec![("uid=a", 1)], vec![101]),
            ("read before it", vec![(a, a), (a, a)], vec![("uid=a", 1)], vec![101]),
            ("another object", vec![(b, b)], vec![("uid=a", 1)], vec![]),
            ("case does not matter", vec![(upper, upper)], vec![("uid=a", 1)], vec![101]),
            (
                "deleted and made again",
                vec![(None, a), (a, None), (None, a)],
                vec![("uid=a", 3)],
                vec![101, 102, 103],
            ),
            ("a deletion after the read", vec![(None, a), (a, None)], vec![("uid=a", 1)], vec![101]),
            ("deleted, never read", vec![(a, None)], vec![], vec![]),
            ("a move stays, and what follows", vec![(a, b), (b, b)], vec![("uid=b", 2)], vec![]),
            ("before a move", vec![(a, a), (a, b)], vec![("uid=a", 1)], vec![101]),
            (
                "an event about nobody knows whom",
                vec![(a, a), (None, None), (a, a)],
                vec![("uid=a", 3)],
                vec![101],
            ),
        ] {
            assert_eq!(contained(&events, &objects), expected, "{what}");
        }
    }

    #[test]
    fn an_object_that_left_a_selection_may_come_back_under_another_name() {
        let (a, b, c) = (Some("uid=a"), Some("uid=b"), Some("uid=c"));
        let selected = |events: &[_], objects: &[_]| contained_by(Seam::new(true), events, objects);
        // The deletion stays, since nothing of that name was read; so the creation must come after it.
        let back = [(a, None), (None, b), (b, b)];
        assert_eq!(selected(&back, &[("uid=b", 3)]), Vec::<u64>::new());
        assert_eq!(contained(&back, &[("uid=b", 3)]), [102, 103]);
        // It is under its own name again, or came before: nothing is undone.
        assert_eq!(selected(&[(a, None), (None, a)], &[("uid=a", 2)]), [101, 102]);
        assert_eq!(selected(&[(None, b), (a, None), (c, c)], &[("uid=b", 3), ("uid=c", 3)]), [101, 103]);
    }

    #[test]
    fn there_is_a_limit() {
        let mut seam = Seam::default();
        let body = event(None, Some("uid=a"));
        for n in 1..=SEAM_EVENTS_MAX as u64 {
            assert!(seam.note(n, n, &body));
        }
        assert!(!seam.note(0, 0, &body));
        assert!(seam.may_hold(1));
        assert!(!seam.may_hold(0));
    }

    /// A directory of four names whose objects hold the number of their last change.
    type Directory = std::collections::BTreeMap<u8, u64>;

    proptest! {
        /// Whatever happens while a snapshot is read: who applies the snapshot and then what is left of the events has
        /// the directory, and no event that is left out was the only one to tell of a change.
        #[test]
        fn the_last_word_is_right(steps in prop::collection::vec((0u8..4, 0u8..4, 0u8..4), 1..40)) {
            let name = |n: u8| format!("uid={n}");
            let mut directory = Directory::from([(0, 0), (1, 0)]);
            let mut seam = Seam::default();
            let mut events: Vec<(Option<u8>, Option<u8>, u64)> = Vec::new();
            let mut snapshot = Directory::new();
            let (mut to_read, mut last) = (vec![3u8, 2, 1, 0], 0u64);
            for (kind, one, other) in steps {
                match kind {
                    // Something is read: once each, as a list would have it.
                    0 => {
                        let next = to_read.pop();
                        if let Some((next, version)) = next.and_then(|n| Some((n, directory.get(&n)?))) {
                            snapshot.insert(next, *version);
                            seam.wrote(&name(next), last);
                        }
                    }
                    kind => {
                        let change = match (directory.contains_key(&one), kind) {
                            (false, _) => (None, Some(one)),
                            (true, 1) => (Some(one), None),
                            (true, 2) if !directory.contains_key(&other) => (Some(one), Some(other)),
                            (true, _) => (Some(one), Some(one)),
                        };
                        last += 1;
                        if let Some(old) = change.0 { directory.remove(&old); }
                        if let Some(new) = change.1 { directory.insert(new, last); }
                        let text = |side: Option<u8>| side.map(name);
                        let (old, new) = (text(change.0), text(change.1));
                        seam.note(last, last, &event(old.as_deref(), new.as_deref()));
                        events.push((change.0, change.1, last));
                    }
                }
            }
            // What was not read by now is read at the end.
            while let Some(next) = to_read.pop() {
                if let Some(version) = directory.get(&next) {
                    snapshot.insert(next, *version);
                    seam.wrote(&name(next), last);
                }
            }
            let contained = seam.contained();
            let mut consumer = snapshot;
            for (old, new, number) in events {
                if contained.contains(&number) {
                    continue;
                }
                if let Some(old) = old { consumer.remove(&old); }
                if let Some(new) = new { consumer.insert(new, number); }
            }
            prop_assert_eq!(consumer, directory);
        }
    }
}
