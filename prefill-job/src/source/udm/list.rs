//! A list, read piece by piece: of 600 bytes an entry only DN, type and UUID are kept, some 90 bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufReader, Read};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokio::sync::mpsc;
use uuid::Uuid;

/// The entries of a list, in its order.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// All DNs, one behind the other.
    dns: String,
    places: Vec<Place>,
    types: Vec<String>,
    type_numbers: HashMap<String, u16>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where the DN ends in `dns`.
    end: usize,
    object_type: u16,
    /// Nil if unknown.
    uuid: Uuid,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub dn: &'a str,
    pub object_type: &'a str,
    pub uuid: Option<Uuid>,
}

impl Entries {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn get(&self, index: usize) -> Option<Entry<'_>> {
        let place = self.places.get(index)?;
        let begin = index.checked_sub(1).map_or(0, |before| self.places[before].end);
        Some(Entry {
            dn: &self.dns[begin..place.end],
            object_type: &self.types[usize::from(place.object_type)],
            uuid: Some(place.uuid).filter(|uuid| !uuid.is_nil()),
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    fn push(&mut self, entry: &RawEntry<'_>) -> Result<(), &'static str> {
        let object_type = match self.type_numbers.get(&*entry.object_type) {
            Some(number) => *number,
            None => {
                let number = u16::try_from(self.types.len()).map_err(|_| "more than 65,536 types")?;
                self.types.push(entry.object_type.to_string());
                self.type_numbers.insert(entry.object_type.to_string(), number);
                number
            }
        };
        self.dns.push_str(&entry.dn);
        let uuid = entry.uuid.as_deref().and_then(|uuid| uuid.parse().ok()).unwrap_or_default();
        self.places.push(Place { end: self.dns.len(), object_type, uuid });
        Ok(())
    }
}

/// Reads a list's JSON to its end.
pub(super) fn read(json: impl Read) -> serde_json::Result<Entries> {
    let mut reader = serde_json::Deserializer::from_reader(BufReader::with_capacity(64 * 1024, json));
    let (results, entries) = reader.deserialize_map(Top)?;
    reader.end()?;
    match results {
        Some(results) if results == entries.len() as u64 => Ok(entries),
        Some(results) => {
            let problem = format!("it announces {results} objects and has {}", entries.len());
            Err(serde_json::Error::custom(problem))
        }
        None => Err(serde_json::Error::custom("the key results is missing")),
    }
}

/// The pieces of a body as something to read from, for the thread that parses.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Pieces {
    /// Reads until the sender is dropped.
    pub fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { pieces, current: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

#[derive(Deserialize)]
struct RawEntry<'a> {
    #[serde(borrow)]
    dn: Cow<'a, str>,
    #[serde(rename = "objectType")]
    object_type: Cow<'a, str>,
    #[serde(default)]
    uuid: Option<Cow<'a, str>>,
}

/// The document: `results`, and the entries in `_embedded`.
struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = (Option<u64>, Entries);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the JSON object of a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut results, mut entries) = (None, Entries::default());
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "results" => results = Some(map.next_value()?),
                "_embedded" => map.next_value_seed(Embedded(&mut entries))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok((results, entries))
    }
}

/// `_embedded`, whose key `udm:object` is missing if there are no objects.
struct Embedded<'a>(&'a mut Entries);

impl<'de> DeserializeSeed<'de> for Embedded<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Embedded<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the JSON object _embedded")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "udm:object" => map.next_value_seed(Objects(self.0))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// The entries.
struct Objects<'a>(&'a mut Entries);

impl<'de> DeserializeSeed<'de> for Objects<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the array udm:object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(entry) = list.next_element::<RawEntry<'_>>()? {
            self.0.push(&entry).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_wherever_they_stand() {
        let json = r#"{"_links": {"self": [{"href": "x"}]}, "_embedded": {"layout": [[{"dn": 1}]], "udm:object": [
            {"dn": "uid=ä,dc=x", "objectType": "users/user", "properties": {}, "uuid": "613492ea-6156-103f-9c22-b957091217b2", "_links": {}},
            {"objectType": "users/ldap", "dn": "uid=b,dc=x", "uuid": null},
            {"objectType": "users/user", "dn": "uid=c,dc=x"}], "form": {}}, "results": 3}"#;
        let entries = read(json.as_bytes()).unwrap();
        let found: Vec<_> = entries.iter().map(|e| (e.dn, e.object_type, e.uuid.is_some())).collect();
        assert_eq!(
            found,
            [
                ("uid=ä,dc=x", "users/user", true),
                ("uid=b,dc=x", "users/ldap", false),
                ("uid=c,dc=x", "users/user", false)
            ]
        );
        assert_eq!(entries.get(3), None);
    }

    #[test]
    fn a_list_without_objects_has_no_array() {
        for json in [
            r#"{"results": 0}"#,
            r#"{"results": 0, "_embedded": {"layout": []}}"#,
            r#"{"_embedded": {"udm:object": []}, "results": 0}"#,
        ] {
            assert_eq!(read(json.as_bytes()).unwrap().len(), 0);
        }
    }

    #[test]
    fn a_list_that_is_not_whole_is_refused() {
        let whole =
            r#"{"results": 1, "_embedded": {"udm:object": [{"dn": "uid=a", "objectType": "users/user"}]}}"#;
        assert_eq!(read(whole.as_bytes()).unwrap().len(), 1);
        for length in 0..whole.len() {
            assert!(read(&whole.as_bytes()[..length]).is_err(), "{}", &whole[..length]);
        }
        for json in [
            r#"{"results": 2, "_embedded": {"udm:object": [{"dn": "uid=a", "objectType": "users/user"}]}}"#,
            r#"{"_embedded": {"udm:object": [{"dn": "uid=a", "objectType": "users/user"}]}}"#,
            r#"{"results": 1, "_embedded": {"udm:object": [{"objectType": "users/user"}]}}"#,
            r#"{"_links": {}}"#,
            r#"{"results": 0}{"#,
            "[]",
            "<html>",
        ] {
            assert!(read(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn pieces_are_read_as_one() {
        let (sender, receiver) = mpsc::channel(9);
        for piece in ["{\"resu", "", "lts\": ", "0}"] {
            sender.try_send(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        drop(sender);
        assert_eq!(read(Pieces::new(receiver)).unwrap().len(), 0);
    }
}
