//! What a consumer has been told of, so that a resync can tell what it must remove.
//!
//! The set of a subscription only grows between two prefills: what was named by a message is in it, also when the same
//! message, or its deletion, was queued long ago. So a crash or an overtaken writer can only make it too large, and
//! what is told for too much is the removal of something that does not exist.

mod compare;
mod removals;

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
    ser::SerializeSeq,
};
use serde_json::{Value, json, value::RawValue};

pub use compare::{Comparison, Named, Present, Rules, Verdict, Whence};
pub use removals::{MaxRemovals, Removals, RemovalsByType, Share, held_text, removals_text};

use crate::{Dn, json::Members};

/// An object that messages of a subscription have named: as much of it as a consumer needs to find it again.
///
/// Its form in NATS is an array, since there are many: type, DN, id, identifier, and the UUID if it is known. The first
/// release wrote four, with the UUID in place of an identifier that was missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownObject {
    /// Its type.
    pub topic: String,
    /// Its DN, as it was last written.
    pub dn: String,
    /// Its `id`, as consumers were told it.
    pub id: Option<String>,
    /// `univentionObjectIdentifier`. UDM invents one at each answer where the directory has none.
    pub identifier: Option<String>,
    /// `uuid`: the directory's own name of the entry, which stays for its whole life. Live events have none.
    pub uuid: Option<String>,
}

impl Serialize for KnownObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { topic, dn, id, identifier, uuid } = self;
        let mut row = serializer.serialize_seq(Some(4 + usize::from(uuid.is_some())))?;
        row.serialize_element(topic)?;
        row.serialize_element(dn)?;
        row.serialize_element(id)?;
        row.serialize_element(identifier)?;
        if let Some(uuid) = uuid {
            row.serialize_element(uuid)?;
        }
        row.end()
    }
}

impl<'de> Deserialize<'de> for KnownObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Row;

        impl<'de> Visitor<'de> for Row {
            type Value = KnownObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of type, DN, id, identifier and perhaps UUID")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<KnownObject, A::Error> {
                let missing = |n| serde::de::Error::invalid_length(n, &"four members or five");
                Ok(KnownObject {
                    topic: row.next_element()?.ok_or_else(|| missing(0))?,
                    dn: row.next_element()?.ok_or_else(|| missing(1))?,
                    id: row.next_element()?.ok_or_else(|| missing(2))?,
                    identifier: row.next_element()?.ok_or_else(|| missing(3))?,
                    uuid: row.next_element::<Option<String>>()?.flatten(),
                })
            }
        }

        deserializer.deserialize_seq(Row)
    }
}

/// The value of a message on `<name>.known.…`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownObjects {
    /// Their removal was told by a resync; they are told again until that resync has been read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// The snapshot of a prefill did not hold them, and nobody was told: whatever is in their place later is something
    /// else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
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

    /// What an object says of itself; `None` if it has no DN.
    #[must_use]
    pub fn of_object(topic: &str, object: &str) -> Option<Self> {
        let members = Members::of(object).ok()?;
        let dn = text(&members, "dn")?;
        let properties = members.get("properties").and_then(|text| Members::of(text).ok());
        let identifier = properties.and_then(|properties| text(&properties, "univentionObjectIdentifier"));
        let (id, uuid) = (text(&members, "id"), text(&members, "uuid"));
        Some(Self { topic: topic.to_owned(), dn, id, identifier, uuid })
    }

    /// The same object with the `id` of the form in which the consumer gets it. Everything else is better taken from
    /// the object before anything is stripped from it.
    #[must_use]
    pub fn told_as(self, object: &str) -> Self {
        let id = Members::of(object).ok().and_then(|members| text(&members, "id"));
        Self { id, ..self }
    }

    /// An object of which nothing but the place is known.
    #[must_use]
    pub fn at(topic: String, dn: String) -> Self {
        Self { topic, dn, id: None, identifier: None, uuid: None }
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
        let ids = optional(&self.id) + optional(&self.identifier) + optional(&self.uuid);
        text(&self.topic) + text(&self.dn) + ids + 2
    }

    /// Where it is, in the one form of its DN.
    fn place(&self) -> Place<'_> {
        Dn::of_object(&self.dn).map_or(Place::Text(&self.dn), Place::Dn)
    }

    /// As much of the object as is known, as the `old` of a message: what existing consumers read of one is there,
    /// `properties` in any case.
    #[must_use]
    pub fn head(&self) -> Box<RawValue> {
        let mut object = json!({"dn": self.dn, "objectType": self.topic});
        for (name, value) in [("id", &self.id), ("uuid", &self.uuid)] {
            if let Some(value) = value {
                object[name] = json!(value);
            }
        }
        object["properties"] = match &self.identifier {
            Some(identifier) => json!({"univentionObjectIdentifier": identifier}),
            None => json!({}),
        };
        raw(&object)
    }
}

/// A `Value` is valid JSON.
fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A member that is a text and not empty.
fn text(members: &Members<'_>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?).ok().filter(|text: &String| !text.is_empty())
}

#[derive(PartialEq, Eq, Hash)]
enum Place<'a> {
    Dn(Dn),
    /// Not a DN that we can read: it is compared as it is.
    Text(&'a str),
}

#[cfg(test)]
mod tests;
