//! A list, read piece by piece while it comes: no more of it is held than one entry and what [`Entries`] keeps.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::entries::{Entries, Entry};
use crate::source::SourceError;
use crate::source::plan::Plan;

/// Which entries of a module's list are read with it.
///
/// A virtual module (`computers/computer`) lists the objects of others. They are read with their own module if that
/// is read too, so that each comes once and at its own topic's place. What is left are strays: objects whose type
/// was asked for but is not in the index; they are read at the first list that shows them.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub module: String,
    pub modules: Arc<[String]>,
    pub plan: Plan,
    /// DNs of strays that were taken.
    pub strays: HashSet<String>,
}

impl Wanted {
    fn takes(&mut self, entry: &RawEntry<'_>) -> bool {
        entry.object_type == self.module
            || (!self.modules.iter().any(|module| *module == entry.object_type)
                && self.plan.is_match(&entry.object_type)
                && self.strays.insert(entry.dn.to_string()))
    }
}

/// A list that was read.
#[derive(Debug)]
pub(super) struct Listed {
    /// The entries that are wanted.
    pub entries: Entries,
    /// Entries of all types.
    pub results: u64,
    /// What is wanted of the next list.
    pub wanted: Wanted,
    /// Entries that UDM can't list.
    pub broken: Vec<BrokenEntry>,
}

/// An entry that UDM can't list.
#[derive(Debug)]
pub(super) struct BrokenEntry {
    pub dn: String,
    pub uuid: Uuid,
    /// How UDM failed to list it.
    pub problem: SourceError,
}

impl Listed {
    /// Nothing yet.
    pub fn empty(wanted: Wanted) -> Self {
        Self { entries: Entries::default(), results: 0, wanted, broken: Vec::new() }
    }

    /// Adds what another part of the list has. Entries may not have been finished yet.
    pub fn append(&mut self, mut part: Self) -> io::Result<()> {
        while let Some(Entry { dn, object_type, uuid }) = part.entries.next()? {
            self.entries.push(&dn, &object_type, uuid)?;
        }
        self.results += part.results;
        self.wanted = part.wanted;
        self.broken.append(&mut part.broken);
        Ok(())
    }
}

/// Reads a list's JSON to its end.
pub(super) fn read(json: impl Read, wanted: Wanted) -> serde_json::Result<Listed> {
    let mut reader = serde_json::Deserializer::from_reader(BufReader::with_capacity(64 * 1024, json));
    let top = Top(Listed::empty(wanted));
    let (announced, mut listed) = reader.deserialize_map(top)?;
    reader.end()?;
    listed.entries.finish().map_err(serde_json::Error::custom)?;
    match announced {
        Some(announced) if announced == listed.results => Ok(listed),
        Some(announced) => {
            let problem = format!("it announces {announced} objects and has {}", listed.results);
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
struct Top(Listed);

impl<'de> Visitor<'de> for Top {
    type Value = (Option<u64>, Listed);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the JSON object of a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut announced, mut listed) = (None, self.0);
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "results" => announced = Some(map.next_value()?),
                "_embedded" => map.next_value_seed(Embedded(&mut listed))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok((announced, listed))
    }
}

/// `_embedded`, whose key `udm:object` is missing if there are no objects.
struct Embedded<'a>(&'a mut Listed);

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
struct Objects<'a>(&'a mut Listed);

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
            let Listed { entries, results, wanted, .. } = &mut *self.0;
            *results += 1;
            if wanted.takes(&entry) {
                let uuid = entry.uuid.as_deref().and_then(|uuid| uuid.parse().ok());
                entries.push(&entry.dn, &entry.object_type, uuid).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(module: &str, modules: &[&str], asked: &str) -> Wanted {
        let topic = model::RealmTopic { realm: "udm".to_owned(), topic: asked.to_owned() };
        Wanted {
            module: module.to_owned(),
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
            plan: Plan::new(&[topic]).unwrap(),
            strays: HashSet::new(),
        }
    }

    /// Reads all users.
    fn users(json: impl Read) -> serde_json::Result<Listed> {
        read(json, wanted("users/user", &["users/user"], "users/user"))
    }

    fn dns(mut listed: Listed) -> Vec<String> {
        std::iter::from_fn(|| listed.entries.next().unwrap()).map(|entry| entry.dn).collect()
    }

    #[test]
    fn entries_are_found_wherever_they_stand() {
        let json = r#"{"_links": {"self": [{"href": "x"}]}, "_embedded": {"layout": [[{"dn": 1}]], "udm:object": [
            {"dn": "uid=ä,dc=x", "objectType": "users/user", "properties": {}, "uuid": "613492ea-6156-103f-9c22-b957091217b2", "_links": {}},
            {"objectType": "users/ldap", "dn": "uid=b,dc=x", "uuid": null},
            {"objectType": "users/user", "dn": "uid=c,dc=x"}], "form": {}}, "results": 3}"#;
        let mut listed = users(json.as_bytes()).unwrap();
        assert_eq!((listed.results, listed.entries.len()), (3, 2));
        let first = listed.entries.next().unwrap().unwrap();
        assert_eq!(
            (first.dn.as_str(), &*first.object_type, first.uuid.is_some()),
            ("uid=ä,dc=x", "users/user", true)
        );
        assert_eq!(dns(listed), ["uid=c,dc=x"]);
    }

    #[test]
    fn of_a_virtual_module_only_strays_are_read_and_each_once() {
        let listed =
            [("dns/alias", "a"), ("dns/srv", "s"), ("dns/dns", "d"), ("dns/host", "h"), ("dns/srv", "t")];
        let entry =
            |(object_type, dn): &(&str, &str)| format!(r#"{{"dn": "{dn}", "objectType": "{object_type}"}}"#);
        let text: Vec<_> = listed.iter().map(entry).collect();
        let json = format!(r#"{{"results": 5, "_embedded": {{"udm:object": [{}]}}}}"#, text.join(","));
        // `dns/alias` is read with its own module, `dns/srv` is in no index, nobody asked for `dns/host`.
        let mut first = wanted("dns/dns", &["dns/alias", "dns/dns"], "dns/(dns|alias|srv)");
        first.strays.insert("t".to_owned());
        let first = read(json.as_bytes(), first).unwrap();
        let next = Wanted { module: "dns/other".to_owned(), ..first.wanted.clone() };
        assert_eq!(dns(first), ["s", "d"]);
        assert_eq!(dns(read(json.as_bytes(), next).unwrap()), [] as [&str; 0]);
    }

    #[test]
    fn a_list_without_objects_has_no_array() {
        for json in [
            r#"{"results": 0}"#,
            r#"{"results": 0, "_embedded": {"layout": []}}"#,
            r#"{"_embedded": {"udm:object": []}, "results": 0}"#,
        ] {
            assert_eq!(users(json.as_bytes()).unwrap().results, 0);
        }
    }

    #[test]
    fn a_list_that_is_not_whole_is_refused() {
        let whole =
            r#"{"results": 1, "_embedded": {"udm:object": [{"dn": "uid=a", "objectType": "users/user"}]}}"#;
        assert_eq!(users(whole.as_bytes()).unwrap().results, 1);
        for length in 0..whole.len() {
            assert!(users(&whole.as_bytes()[..length]).is_err(), "{}", &whole[..length]);
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
            assert!(users(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn pieces_are_read_as_one() {
        let (sender, receiver) = mpsc::channel(9);
        for piece in ["{\"resu", "", "lts\": ", "0}"] {
            sender.try_send(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        drop(sender);
        assert_eq!(users(Pieces::new(receiver)).unwrap().results, 0);
    }
}
