//! What a consumer has been told of, so that a resync can tell what it must remove.
//!
//! The set of a subscription only grows between two prefills: what was named by a message is in it, also when the same
//! message, or its deletion, was queued long ago. So a crash or an overtaken writer can only make it too large, and
//! what is told for too much is the removal of something that does not exist.

use std::{
    collections::HashSet,
    hash::{BuildHasher, Hash},
};

use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use crate::{Dn, Members, Route, UDM_REALM};

/// An object that messages of a subscription have named: as much of it as a consumer needs to find it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub struct KnownObject {
    /// Its type.
    pub topic: String,
    /// Its DN, as it was last written.
    pub dn: String,
    /// Its `id`, as consumers were told it.
    pub id: Option<String>,
    /// What stays when it is moved or renamed: `univentionObjectIdentifier`, or `uuid` where it has none.
    pub identifier: Option<String>,
}

/// Its form in NATS: an array, since there are many.
type Row = (String, String, Option<String>, Option<String>);

impl From<Row> for KnownObject {
    fn from((topic, dn, id, identifier): Row) -> Self {
        Self { topic, dn, id, identifier }
    }
}

impl From<KnownObject> for Row {
    fn from(KnownObject { topic, dn, id, identifier }: KnownObject) -> Self {
        (topic, dn, id, identifier)
    }
}

/// The value of a message on `<name>.known.…`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownObjects {
    /// Their removal was told by a resync; they are told again until that resync has been read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// The objects.
    pub objects: Vec<KnownObject>,
}

impl KnownObject {
    /// What a stored message names: the object after the change, and before it where that was another DN. Of a
    /// deletion nothing: what a consumer has was named before.
    #[must_use]
    pub fn named_by(stored: &[u8]) -> Vec<Self> {
        #[derive(Deserialize)]
        struct Stored<'a> {
            topic: String,
            #[serde(borrow)]
            body: Sides<'a>,
        }
        #[derive(Deserialize)]
        struct Sides<'a> {
            #[serde(borrow)]
            old: &'a RawValue,
            #[serde(borrow)]
            new: &'a RawValue,
        }
        let Ok(Stored { topic, body }) = serde_json::from_slice(stored) else { return Vec::new() };
        let Some(after) = Self::of_object(&topic, body.new.get()) else { return Vec::new() };
        let before = Self::of_object(&topic, body.old.get());
        let moved = before.filter(|before| before.place() != after.place());
        moved.into_iter().chain([after]).collect()
    }

    fn of_object(topic: &str, object: &str) -> Option<Self> {
        let members = Members::of(object).ok()?;
        let text = |members: &Members<'_>, name| -> Option<String> {
            serde_json::from_str(members.get(name)?).ok().filter(|text: &String| !text.is_empty())
        };
        let dn = text(&members, "dn")?;
        let properties = members.get("properties").and_then(|text| Members::of(text).ok());
        let identifier = properties
            .and_then(|properties| text(&properties, "univentionObjectIdentifier"))
            .or_else(|| text(&members, "uuid"));
        Some(Self { topic: topic.to_owned(), dn, id: text(&members, "id"), identifier })
    }

    /// Bytes that it takes in NATS; rather too many.
    #[must_use]
    pub fn size(&self) -> usize {
        // Longer than itself is what JSON escapes: `\"`, `\u0000`.
        let escaped = |byte: u8| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        };
        let text = |text: &str| text.bytes().map(escaped).sum::<usize>() + 3;
        let optional = |value: &Option<String>| value.as_deref().map_or(5, text);
        text(&self.topic) + text(&self.dn) + optional(&self.id) + optional(&self.identifier) + 2
    }

    /// Where it is, in the one form of its DN.
    fn place(&self) -> Place<'_> {
        Dn::of_object(&self.dn).map_or(Place::Text(&self.dn), Place::Dn)
    }

    /// The object of a message that tells its removal. Of one that has `moved` only the former DN is told: a consumer
    /// that knows objects by their identifiers must not remove what is elsewhere now.
    #[must_use]
    pub fn removal(&self, moved: bool) -> Box<RawValue> {
        let mut object = json!({"dn": self.dn, "objectType": self.topic});
        if !moved {
            if let Some(id) = &self.id {
                object["id"] = json!(id);
            }
            if let Some(identifier) = &self.identifier {
                object["properties"] = json!({"univentionObjectIdentifier": identifier});
            }
        }
        // A `Value` is valid JSON.
        RawValue::from_string(object.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Place<'a> {
    Dn(Dn),
    /// Not a DN that we can read: it is compared as it is.
    Text(&'a str),
}

/// The DNs and identifiers that a snapshot holds, as hashes of 64 bits: 16 bytes an object. That two of 1,000,000 are
/// the same is less likely than one in ten million, and would only leave one removal untold.
#[derive(Debug)]
pub struct Present<S> {
    hasher: S,
    places: Vec<u64>,
    identifiers: Vec<u64>,
}

impl<S: BuildHasher> Present<S> {
    /// Nothing yet. The hasher should be seeded at random.
    pub fn new(hasher: S) -> Self {
        Self { hasher, places: Vec::new(), identifiers: Vec::new() }
    }

    /// The snapshot holds this object.
    pub fn saw(&mut self, object: &KnownObject) {
        self.places.push(self.hasher.hash_one(object.place()));
        self.identifiers.extend(object.identifier.as_ref().map(|text| self.hasher.hash_one(text)));
    }

    /// The snapshot is complete.
    pub fn compare(mut self, rules: Rules) -> Comparison<S> {
        self.places.sort_unstable();
        self.identifiers.sort_unstable();
        Comparison {
            present: self,
            rules,
            spared: HashSet::new(),
            told: HashSet::new(),
            kept: HashSet::new(),
        }
    }
}

/// What is done about objects that a snapshot lacks.
#[derive(Debug)]
pub struct Rules {
    /// Are removals told?
    pub tell: bool,
    /// The types that were read whole; what is of others may well exist.
    pub topics: Route,
    /// Those of them that the directory knows nothing of.
    pub missing: Route,
    /// Has the consumer read all of the last prefill, and so the removals that it told?
    pub former_was_read: bool,
}

/// What to do about an object that was known before the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The snapshot holds it, or its removal was told and read: the set need not hold it any more.
    Forget,
    /// It stays in the set; also what a resync told that nobody has read, since this prefill does not tell it.
    Keep,
    /// Its removal is told, and it stays in the set as such.
    Tell {
        /// Its identifier is in the snapshot, at another DN.
        moved: bool,
    },
}

/// Compares what was known with a snapshot, object by object; one may come several times.
#[derive(Debug)]
pub struct Comparison<S> {
    present: Present<S>,
    rules: Rules,
    spared: HashSet<u64>,
    told: HashSet<u64>,
    kept: HashSet<u64>,
}

impl<S: BuildHasher> Comparison<S> {
    /// A live message names the object while the snapshot is read: that message, which comes later, tells its fate.
    pub fn spare(&mut self, object: &KnownObject) {
        self.spared.insert(self.place(object));
    }

    /// What to do about an object; `removed` as in [`KnownObjects`]. `recent`: it may be younger than what the
    /// directory shows.
    pub fn judge(&mut self, object: &KnownObject, removed: bool, recent: bool) -> Verdict {
        let place = self.place(object);
        if self.present.places.binary_search(&place).is_ok() || (removed && self.rules.former_was_read) {
            return Verdict::Forget;
        }
        let asked = |route: &Route| route.is_match(UDM_REALM, &object.topic);
        let read = asked(&self.rules.topics) && !asked(&self.rules.missing);
        if self.rules.tell && read && !recent && !self.spared.contains(&place) {
            if !self.told.insert(place) {
                return Verdict::Forget;
            }
            let elsewhere = |text: &String| {
                self.present.identifiers.binary_search(&self.present.hasher.hash_one(text)).is_ok()
            };
            return Verdict::Tell { moved: object.identifier.as_ref().is_some_and(elsewhere) };
        }
        if self.kept.insert(place) { Verdict::Keep } else { Verdict::Forget }
    }

    fn place(&self, object: &KnownObject) -> u64 {
        self.present.hasher.hash_one(object.place())
    }
}

#[cfg(test)]
mod tests;
