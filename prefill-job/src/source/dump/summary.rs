//! What is in a dump.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::records::{Found, Record};

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
    /// The first records that are no objects.
    pub problems: Vec<Problem>,
    /// How many records are no objects.
    pub problem_count: u64,
}

/// The objects of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// Where the first one begins, in the uncompressed text.
    #[serde(skip)]
    pub(super) begin: u64,
    /// Where the last one ends.
    #[serde(skip)]
    pub(super) end: u64,
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

impl Summary {
    pub(super) fn new(format: Format) -> Self {
        Self { format, types: BTreeMap::new(), untyped: 0, problems: Vec::new(), problem_count: 0 }
    }

    /// All objects.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.types.values().map(|of_type| of_type.objects).sum()
    }

    pub(super) fn note(&mut self, found: Found<Record<'_>>, problems_max: usize) {
        let Found { begin, end, record } = found;
        match record {
            Record::Untyped => self.untyped += 1,
            Record::Bad(problem) => {
                self.problem_count += 1;
                if self.problems.len() < problems_max {
                    self.problems.push(problem);
                }
            }
            Record::Object { object, left_out } => {
                let bytes = object.text.len() as u64;
                let of_type = self.types.entry(object.object_type).or_insert_with(|| TypeSummary {
                    objects: 0,
                    bytes: 0,
                    biggest_bytes: 0,
                    left_out: BTreeMap::new(),
                    begin,
                    end,
                });
                of_type.objects += 1;
                of_type.bytes += bytes;
                of_type.biggest_bytes = of_type.biggest_bytes.max(bytes);
                of_type.end = end;
                for (name, count) in left_out {
                    let known = of_type.left_out.len() < NAMES_MAX || of_type.left_out.contains_key(&name);
                    let name = if known { name } else { "(others)".to_owned() };
                    *of_type.left_out.entry(name).or_default() += count;
                }
            }
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
