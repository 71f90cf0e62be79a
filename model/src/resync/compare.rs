//! What was known, compared with a snapshot.
//!
//! **The rules**, of an object that was known (the first row that fits counts; `tests.rs` holds them as a table):
//!
//! | the object | a resync | a prefill |
//! | --- | --- | --- |
//! | its removal was told, and that was read | is forgotten | is forgotten |
//! | its type was not read to the end | stays | stays |
//! | the snapshot has it, at the same place | is forgotten: it was recorded again | same |
//! | its place named by a live event meanwhile, or vanished while it was read, or too young | stays | stays |
//! | another one is in its place, and it is elsewhere | is forgotten: the snapshot told of both | same |
//! | another one is in its place, and it is nowhere | removal, then the other one again | stays |
//! | its place is empty, and it is elsewhere | a change, from the former place to where it is | stays |
//! | its place is empty, and it is nowhere | removal | stays |
//! | the same, but a live event names it elsewhere | removal of the place alone, without a key | stays |
//!
//! *The same*, or *elsewhere*: an object of the snapshot has the same UUID or the same identifier; of an object of which
//! neither is known, the same `id`, unless that one was where it is before: others may have the same name. A removal
//! carries no key that any object of the snapshot has. So whatever a consumer finds its objects by, nothing that lives is
//! removed. One of whose identity nothing is known is the one in its place.
//!
//! UDM invents an identifier at each answer where the directory has none, and live events carry no UUID. So an identifier
//! that nobody has, named by an event at the place of an entry whose UUID was there before, is another name of that
//! entry, and forgotten.

use std::{
    collections::{BTreeSet, HashSet},
    hash::BuildHasher,
};

use super::KnownObject;
use crate::resync::{Removals, RemovalsByType};

/// A key of an object, as a hash of 64 bits. Packed, since there are three for each object.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct Key {
    hash: u64,
    object: u32,
}

/// The places and keys that a snapshot holds: some 55 bytes an object. That two of 1,000,000 have the same hash is less
/// likely than one in ten million, and would only leave one removal untold.
#[derive(Debug)]
pub struct Present<S> {
    hasher: S,
    places: Vec<Key>,
    keys: Vec<Key>,
    /// By number of the object.
    objects: Vec<Object>,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    /// Number of its message in the attempt; 0: it has none.
    message: u32,
    has_uuid: bool,
    has_keys: bool,
    /// It was known at this place before.
    was_here: bool,
    /// And so was its UUID.
    confirmed: bool,
    /// It was known at other places, too.
    wandered: bool,
    /// It was known before, and is counted.
    counted: bool,
}

impl<S: BuildHasher> Present<S> {
    /// Nothing yet. The hasher should be seeded at random.
    pub fn new(hasher: S) -> Self {
        Self { hasher, places: Vec::new(), keys: Vec::new(), objects: Vec::new() }
    }

    /// The snapshot holds this object, in the message of that number in the attempt, if there is one.
    pub fn saw(&mut self, object: &KnownObject, message: Option<u64>) {
        // More than 4,000,000,000 objects: the rest is as if it could not be read.
        let Ok(number) = u32::try_from(self.objects.len()) else { return };
        self.places.push(Key { hash: hash_place(&self.hasher, object), object: number });
        let keys = Keys::of(&self.hasher, object);
        let before = self.keys.len();
        let mut distinct: Vec<u64> = keys.all().collect();
        distinct.dedup();
        self.keys.extend(distinct.into_iter().map(|hash| Key { hash, object: number }));
        self.objects.push(Object {
            message: message.and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
            has_uuid: object.uuid.is_some(),
            has_keys: self.keys.len() > before,
            was_here: false,
            confirmed: false,
            wandered: false,
            counted: false,
        });
    }

    /// The snapshot is complete.
    pub fn compare(mut self, rules: Rules) -> Comparison<S> {
        self.places.sort_unstable_by_key(|key| key.hash);
        self.keys.sort_unstable_by_key(|key| key.hash);
        Comparison {
            present: self,
            rules,
            spared: HashSet::new(),
            told: HashSet::new(),
            kept: HashSet::new(),
            counted: HashSet::new(),
            removals: RemovalsByType::new(),
        }
    }
}

/// The objects with that hash.
fn found(sorted: &[Key], hash: u64) -> impl Iterator<Item = u32> {
    let first = sorted.partition_point(|key| key.hash < hash);
    sorted[first..].iter().take_while(move |key| { key.hash } == hash).map(|key| key.object)
}

fn hash_place<S: BuildHasher>(hasher: &S, object: &KnownObject) -> u64 {
    hasher.hash_one(object.place())
}

/// The hashes of what an object is found by.
#[derive(Clone, Copy)]
struct Keys {
    uuid: Option<u64>,
    identifier: Option<u64>,
    /// As an identifier, which it is in live events.
    id: Option<u64>,
    /// As a name, which is one of its type only.
    name: Option<u64>,
}

impl Keys {
    fn of<S: BuildHasher>(hasher: &S, object: &KnownObject) -> Self {
        let plain = |text: &Option<String>| text.as_ref().map(|text| hasher.hash_one(text));
        Self {
            uuid: plain(&object.uuid),
            identifier: plain(&object.identifier),
            id: plain(&object.id),
            name: object.id.as_ref().map(|id| hasher.hash_one((&object.topic, id))),
        }
    }

    /// All that lookups may ask for. An `id` counts as a name, and where it is an identifier it is one.
    fn all(self) -> impl Iterator<Item = u64> {
        [self.uuid, self.identifier, self.name].into_iter().flatten()
    }

    /// Is it recognised by what no other object ever has?
    fn is_sure(self) -> bool {
        self.uuid.is_some() || self.identifier.is_some()
    }

    /// What it is recognised by, the surest first.
    fn identity(self) -> impl Iterator<Item = u64> {
        let sure = self.is_sure();
        let by_id = [self.id, self.name].map(|key| key.filter(|_| !sure));
        [self.uuid, self.identifier].into_iter().chain(by_id).flatten()
    }
}

/// What is done about objects that a snapshot lacks.
#[derive(Debug)]
pub struct Rules {
    /// Are removals told?
    pub tell: bool,
    /// The types of which all was read: names, no patterns. What is of others may well exist.
    pub read: BTreeSet<String>,
    /// Has the consumer read all of the last prefill, and so the removals that it told?
    pub former_was_read: bool,
}

/// Where an object of the former set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// A live message named it.
    Live,
    /// A snapshot held it, or took it over because nothing could be said of it.
    Snapshot,
    /// A snapshot did not hold it ([`KnownObjects::absent`](super::KnownObjects)).
    Absent,
    /// A resync told its removal.
    Removed,
}

/// An object of the former set.
#[derive(Clone, Debug)]
pub struct Named {
    /// As it was known.
    pub object: KnownObject,
    /// Who named it.
    pub whence: Whence,
    /// It may be younger than what the directory shows.
    pub recent: bool,
}

/// What to do about an object that was known before the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The set need not hold it any more.
    Forget,
    /// It stays in the set. `absent`: the snapshot did not hold it.
    Keep {
        /// As in [`KnownObjects`](super::KnownObjects).
        absent: bool,
    },
    /// Its removal is told, and it stays in the set as such.
    Remove {
        /// What is told of it: nothing that an object of the snapshot has, but for the place.
        told: KnownObject,
        /// The message, by its number in the attempt, of what is in its place now: told again behind the removal, since
        /// a consumer that finds objects by their DN has removed it.
        again: Option<u64>,
    },
    /// It has moved, which is told as a change; it stays in the set like one whose removal was told.
    Move {
        /// The message of where it is now, by its number in the attempt.
        to: u64,
    },
}

/// Compares what was known with a snapshot, object by object; one may come several times. The whole set is gone through
/// twice before the verdicts: [`learn`](Self::learn), [`count`](Self::count), [`judge`](Self::judge).
#[derive(Debug)]
pub struct Comparison<S> {
    present: Present<S>,
    rules: Rules,
    spared: HashSet<u64>,
    told: HashSet<u64>,
    kept: HashSet<u64>,
    counted: HashSet<u64>,
    removals: RemovalsByType,
}

impl<S: BuildHasher> Comparison<S> {
    /// Nothing is told of this object: a live message names it while the snapshot is read, and tells its fate; or it
    /// vanished between list and read.
    pub fn spare(&mut self, object: &KnownObject) {
        let place = self.place(object);
        self.spared.extend(self.keys(object).identity().chain([place]));
    }

    /// The first time through: which objects of the snapshot were known before, and where; and what is too young.
    pub fn learn(&mut self, Named { object, recent, .. }: &Named) {
        if *recent {
            self.spare(object);
        }
        let (place, keys) = (self.place(object), self.keys(object));
        let here = found(&self.present.places, place).next();
        let same: Vec<u32> = self.same_as(keys).collect();
        let uuids: Vec<u32> =
            keys.uuid.into_iter().flat_map(|uuid| found(&self.present.keys, uuid)).collect();
        let unknown = here.filter(|_| keys.identity().next().is_none());
        for number in same.iter().copied().chain(unknown) {
            let Some(present) = self.present.objects.get_mut(number as usize) else { continue };
            if Some(number) == here {
                present.was_here = true;
                present.confirmed |= uuids.contains(&number);
            } else {
                present.wandered = true;
            }
            if !std::mem::replace(&mut present.counted, true) {
                self.removals.entry(object.topic.clone()).or_default().known += 1;
            }
        }
    }

    /// The second time: how much would be told as removed.
    pub fn count(&mut self, named: &Named) {
        let keys = self.keys(&named.object);
        let gone = match self.verdict(named) {
            Verdict::Forget | Verdict::Move { .. } => return,
            // It was counted with what was read.
            Verdict::Keep { .. } if self.same_as(keys).next().is_some() => return,
            Verdict::Keep { .. } => false,
            Verdict::Remove { .. } => !self.is_spared(keys),
        };
        let place = self.place(&named.object);
        // An `id` alone is a name that others may have elsewhere: then each place counts, as it is told for each.
        let keys = if keys.is_sure() { keys.identity().collect() } else { vec![place] };
        let known_already = keys.iter().any(|key| self.counted.contains(key));
        self.counted.extend(keys);
        if !known_already {
            let of = self.removals.entry(named.object.topic.clone()).or_default();
            *of = Removals { known: of.known + 1, removed: of.removed + u64::from(gone) };
        }
    }

    /// What was known and what is gone, by type, of the types of which all was read.
    #[must_use]
    pub fn removals(&self) -> RemovalsByType {
        let all = self.removals.iter().filter(|(topic, _)| self.rules.read.contains(*topic));
        all.map(|(topic, of)| (topic.clone(), *of)).collect()
    }

    /// The third time: what to do about an object. What is told is told once.
    pub fn judge(&mut self, named: &Named) -> Verdict {
        let verdict = self.verdict(named);
        let place = self.place(&named.object);
        let keys = self.keys(&named.object);
        let mut pairs: Vec<u64> =
            keys.identity().map(|key| self.present.hasher.hash_one((place, key))).collect();
        if pairs.is_empty() {
            pairs.push(place);
        }
        let once = match verdict {
            Verdict::Forget => return verdict,
            Verdict::Keep { .. } => &mut self.kept,
            Verdict::Remove { .. } | Verdict::Move { .. } => &mut self.told,
        };
        let is_new = pairs.iter().any(|pair| !once.contains(pair));
        once.extend(pairs);
        if is_new { verdict } else { Verdict::Forget }
    }

    /// The rules.
    fn verdict(&self, Named { object, whence, recent: _ }: &Named) -> Verdict {
        if *whence == Whence::Removed && self.rules.former_was_read {
            return Verdict::Forget;
        }
        if !self.rules.read.contains(&object.topic) {
            return Verdict::Keep { absent: *whence == Whence::Absent };
        }
        let (place, keys) = (self.place(object), self.keys(object));
        if found(&self.present.places, place).any(|here| self.is_same(here, keys, *whence)) {
            return Verdict::Forget;
        }
        let here = found(&self.present.places, place).next();
        let elsewhere = self.same_as(keys).find(|number| keys.is_sure() || !self.was_known_there(*number));
        let spared = self.is_spared(keys);
        if self.spared.contains(&place) || (spared && !self.rules.tell) {
            return Verdict::Keep { absent: *whence == Whence::Absent };
        }
        let verdict = match (here, elsewhere) {
            (Some(_), Some(_)) => return Verdict::Forget,
            (None, Some(there)) => match self.message(there) {
                Some(to) => Verdict::Move { to },
                // It was set aside: there is nothing to tell where it is.
                None => return Verdict::Keep { absent: *whence == Whence::Absent },
            },
            (here, None) => {
                let again = here.and_then(|here| self.message(here));
                let told = match spared {
                    // It lives, or its end is told behind: but no message names this place any more.
                    true => KnownObject::at(object.topic.clone(), object.dn.clone()),
                    false => self.dead_keys(object, keys),
                };
                Verdict::Remove { told, again }
            }
        };
        if self.rules.tell { verdict } else { Verdict::Keep { absent: true } }
    }

    /// Is the object of the snapshot in that place the one that was known there?
    fn is_same(&self, here: u32, keys: Keys, whence: Whence) -> bool {
        let Some(present) = self.present.objects.get(here as usize) else { return false };
        let nothing_known = keys.identity().next().is_none() || !present.has_keys;
        if nothing_known || self.same_as(keys).any(|number| number == here) {
            return true;
        }
        // The module's last rule. What a snapshot recorded without a UUID is of the first release.
        keys.uuid.is_none()
            && present.has_uuid
            && match whence {
                Whence::Live => present.confirmed && !present.wandered,
                Whence::Snapshot => true,
                Whence::Absent | Whence::Removed => false,
            }
    }

    /// The objects of the snapshot that are this one, the surest first.
    fn same_as(&self, keys: Keys) -> impl Iterator<Item = u32> {
        keys.identity().flat_map(|key| found(&self.present.keys, key))
    }

    /// Is it named, wherever, by what tells its fate?
    fn is_spared(&self, keys: Keys) -> bool {
        keys.identity().any(|key| self.spared.contains(&key))
    }

    fn was_known_there(&self, number: u32) -> bool {
        self.present.objects.get(number as usize).is_some_and(|present| present.was_here)
    }

    fn message(&self, number: u32) -> Option<u64> {
        let message = self.present.objects.get(number as usize)?.message;
        (message > 0).then_some(u64::from(message))
    }

    /// The object without keys that live on at others.
    fn dead_keys(&self, object: &KnownObject, keys: Keys) -> KnownObject {
        let dead = |key: Option<u64>| key.is_some_and(|key| found(&self.present.keys, key).next().is_none());
        KnownObject {
            topic: object.topic.clone(),
            dn: object.dn.clone(),
            id: object.id.clone().filter(|_| dead(keys.id) && dead(keys.name)),
            identifier: object.identifier.clone().filter(|_| dead(keys.identifier)),
            uuid: object.uuid.clone().filter(|_| dead(keys.uuid)),
        }
    }

    fn place(&self, object: &KnownObject) -> u64 {
        hash_place(&self.present.hasher, object)
    }

    fn keys(&self, object: &KnownObject) -> Keys {
        Keys::of(&self.present.hasher, object)
    }
}
