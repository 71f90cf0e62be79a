//! What is in a dump.

use std::collections::BTreeMap;
use std::{ops::Range, path::Path};

use serde::Serialize;

/// Names of attributes that are told apart; a dump of a directory has some hundred.
const NAMES_MAX: usize = 1_000;

/// How the objects of a dump are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One object of UDM a line.
    JsonLines,
    /// LDAP entries (RFC 2849).
    Ldif,
}

/// What is in a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How it is written.
    pub format: Format,
    /// By object type.
    pub types: BTreeMap<String, TypeSummary>,
    /// LDAP entries that are left out, since they have no `univentionObjectType`.
    pub untyped: u64,
    /// LDAP entries that are left out, since UDM would not list them among the objects of their type, by type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_listed: BTreeMap<String, u64>,
    /// There are groups with members, and no entry has `memberOf`: the dump was written without what the server keeps.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_member_of: bool,
    /// The first records that are no objects.
    pub problems: Vec<Problem>,
    /// How many records are no objects.
    pub problem_count: u64,
}

/// The objects of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TypeSummary {
    /// How many.
    pub objects: u64,
    /// Their bytes, without `_links`.
    pub bytes: u64,
    /// The biggest one's bytes.
    pub biggest_bytes: u64,
    /// Values of LDAP attributes that no property shows, by the attribute's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
    /// LDAP entries without `univentionObjectIdentifier`: UDM may show another one at each answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub without_identifier: u64,
    /// From where the first one begins to where the last one ends, in the uncompressed text.
    #[serde(skip)]
    pub(super) place: Range<u64>,
    /// Bytes of their text.
    #[serde(skip)]
    pub(super) text_bytes: u64,
}

/// A record that is no object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line number in the uncompressed text, from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

impl Format {
    /// What the name of a file says: `dump.ldif`, `dump.ldif.gz`.
    pub(super) fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let name = [".gz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        if name.ends_with(".ldif") {
            Some(Self::Ldif)
        } else if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
            Some(Self::JsonLines)
        } else {
            None
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Summary {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            types: BTreeMap::new(),
            untyped: 0,
            not_listed: BTreeMap::new(),
            no_member_of: false,
            problems: Vec::new(),
            problem_count: 0,
        }
    }

    /// All objects.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.types.values().map(|of_type| of_type.objects).sum()
    }

    pub(super) fn problem(&mut self, problem: Problem, problems_max: usize) {
        self.problem_count += 1;
        if self.problems.len() < problems_max {
            self.problems.push(problem);
        }
    }

    fn of_type(&mut self, object_type: &str) -> &mut TypeSummary {
        self.types.entry(object_type.to_owned()).or_default()
    }

    /// Notes where a record of a type stands.
    pub(super) fn place(&mut self, object_type: &str, place: Range<u64>) {
        let of_type = self.of_type(object_type);
        of_type.text_bytes += place.end - place.start;
        of_type.place = match of_type.place.is_empty() {
            true => place,
            false => of_type.place.start..place.end,
        };
    }

    /// Notes an object, and where it stands.
    pub(super) fn object(&mut self, object_type: &str, place: Range<u64>) {
        self.place(object_type, place);
        self.objects_more(object_type, 1);
    }

    pub(super) fn objects_more(&mut self, object_type: &str, objects: u64) {
        self.of_type(object_type).objects += objects;
    }

    pub(super) fn without_identifier(&mut self, object_type: &str, objects: u64) {
        self.of_type(object_type).without_identifier += objects;
    }

    /// Notes how large an object is, and what is left out of it.
    pub(super) fn measured(&mut self, object_type: &str, bytes: u64, left_out: BTreeMap<String, u64>) {
        let of_type = self.of_type(object_type);
        of_type.bytes += bytes;
        of_type.biggest_bytes = of_type.biggest_bytes.max(bytes);
        for (name, count) in left_out {
            let known = of_type.left_out.len() < NAMES_MAX || of_type.left_out.contains_key(&name);
            let name = if known { name } else { "(others)".to_owned() };
            *of_type.left_out.entry(name).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_format() {
        for (name, expected) in [
            ("a/dump.ldif", Some(Format::Ldif)),
            ("dump.LDIF.gz", Some(Format::Ldif)),
            ("dump.ldif.zst", Some(Format::Ldif)),
            ("dump.jsonl.gz", Some(Format::JsonLines)),
            ("dump.ndjson", Some(Format::JsonLines)),
            ("dump.json", None),
            ("dump", None),
            ("ldif", None),
        ] {
            assert_eq!(Format::of_name(Path::new(name)), expected, "{name}");
        }
    }
}
