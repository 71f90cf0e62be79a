//! The first look at a dump: everything is checked, what entries tell of each other is noted, and nothing is sent.

use std::collections::BTreeMap;
use std::fs::File;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::entry::{Attributes, Entry};
use super::facts::Facts;
use super::records::{self, Found, Record};
use super::summary::{Format, Problem, Summary};
use super::unmap::{self, Listed, listed, unmap};
use super::{Dump, SourceError};

/// What a scan found.
pub(super) struct Scan {
    pub summary: Summary,
    pub facts: Facts,
    /// The time that states are computed for.
    pub now: Timestamp,
}

/// What is only decided when all entries have been seen.
#[derive(Default)]
struct Open {
    /// Objects that lack all classes of their type.
    bare: BTreeMap<String, Bare>,
    /// Values that are not UTF-8, by type and attribute: a problem if an extended attribute shows them as text.
    not_text: BTreeMap<(String, String), NotText>,
    /// Has any entry `memberOf`? Has any group a user?
    has_member_of: bool,
    has_members: bool,
}

#[derive(Default)]
struct Bare {
    objects: u64,
    without_identifier: u64,
}

#[derive(Default)]
struct NotText {
    count: u64,
    first: Vec<Problem>,
}

impl Scan {
    /// Reads every record; without a number of problems to name it ends with the first.
    pub fn read(
        dump: &Dump,
        file: &mut File,
        stop: &CancellationToken,
        problems_max: Option<usize>,
    ) -> Result<Self, SourceError> {
        let format = dump.format(file)?;
        let mut scan = Self { summary: Summary::new(format), facts: Facts::default(), now: Timestamp::now() };
        let named = problems_max.unwrap_or(1);
        let mut open = Open::default();
        let mut records = dump.records(file, format, 0)?;
        loop {
            if stop.is_cancelled() {
                return Err(SourceError::ReceiverGone);
            }
            let line = records.line();
            let found = match records.next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => return Err(dump.unreadable(line, error)),
            };
            scan.note(found, &mut open, named);
            if problems_max.is_none() && scan.summary.problem_count > 0 {
                return Ok(scan);
            }
        }
        scan.end(open, named);
        Ok(scan)
    }

    /// Is this entry an object of its type?
    pub fn is_listed(&self, object_type: &str, entry: &Attributes<'_>) -> bool {
        match listed(object_type, entry) {
            Listed::Yes | Listed::Complete => true,
            Listed::Bare => !self.facts.has_complete(object_type),
            Listed::No => false,
        }
    }

    /// Measures the objects that entries become, and counts what has no place in them.
    pub fn measure(
        &mut self,
        dump: &Dump,
        file: &mut File,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        if self.summary.format != Format::Ldif {
            return Ok(());
        }
        let mut records = dump.records(file, Format::Ldif, 0)?;
        loop {
            if stop.is_cancelled() {
                return Err(SourceError::ReceiverGone);
            }
            let line = records.line();
            let Some(found) = records.next().map_err(|e| dump.unreadable(line, e))? else { return Ok(()) };
            let Record::Entry(entry) = found.record else { continue };
            let attributes = entry.attributes();
            let Some(object_type) = attributes.object_type() else { continue };
            if !self.is_listed(object_type, &attributes) {
                continue;
            }
            let unmapped = unmap(object_type, &attributes, &self.facts, self.now);
            let bytes = unmapped.object.to_string().len() as u64;
            self.summary.measured(object_type, bytes, unmapped.left_out);
        }
    }

    fn note(&mut self, found: Found<Record<'_>>, open: &mut Open, named: usize) {
        let Found { begin, end, line, record } = found;
        match record {
            Record::Bad(problem) => self.summary.problem(problem, named),
            Record::Object(object) => {
                let again = records::dn(&object.text)
                    .filter(|dn| !self.facts.note_object(dn, &object.object_type))
                    .map(|dn| format!("{dn}: this object came before"));
                match again {
                    Some(problem) => self.summary.problem(Problem { line, problem }, named),
                    None => {
                        let bytes = object.text.len() as u64;
                        self.summary.object(&object.object_type, begin..end);
                        self.summary.measured(&object.object_type, bytes, BTreeMap::new());
                    }
                }
            }
            Record::Entry(entry) => self.entry(&entry, line, begin..end, open, named),
        }
    }

    fn entry(
        &mut self,
        entry: &Entry,
        line: u64,
        place: std::ops::Range<u64>,
        open: &mut Open,
        named: usize,
    ) {
        let attributes = entry.attributes();
        if !self.facts.note(&attributes) {
            let problem = format!("{}: an entry of this DN came before", entry.dn);
            return self.summary.problem(Problem { line, problem }, named);
        }
        let Some(object_type) = attributes.object_type() else {
            self.summary.untyped += 1;
            return;
        };
        if let Some(problem) = not_text(object_type, &attributes, line, open, named) {
            return self.summary.problem(problem, named);
        }
        open.has_member_of |= attributes.first("memberof").is_some();
        open.has_members |= attributes.first("uniquemember").is_some();
        let lacks = u64::from(attributes.first("univentionobjectidentifier").is_none());
        match listed(object_type, &attributes) {
            Listed::No => *self.summary.not_listed.entry(object_type.to_owned()).or_default() += 1,
            Listed::Bare => {
                self.summary.place(object_type, place);
                let bare = open.bare.entry(object_type.to_owned()).or_default();
                bare.objects += 1;
                bare.without_identifier += lacks;
            }
            found => {
                if let Some(name) = unmap::with_classes(object_type).filter(|_| found == Listed::Complete) {
                    self.facts.note_complete(name);
                }
                self.summary.object(object_type, place);
                self.summary.without_identifier(object_type, lacks);
            }
        }
    }

    fn end(&mut self, open: Open, named: usize) {
        self.facts.scanned();
        for (object_type, bare) in open.bare {
            if self.facts.has_complete(&object_type) {
                *self.summary.not_listed.entry(object_type).or_default() += bare.objects;
            } else {
                self.summary.objects_more(&object_type, bare.objects);
                self.summary.without_identifier(&object_type, bare.without_identifier);
            }
        }
        self.summary.types.retain(|_, of_type| of_type.objects > 0);
        for ((object_type, attribute), found) in open.not_text {
            let definitions = self.facts.definitions(&object_type);
            if definitions.iter().any(|d| d.attribute == attribute && d.is_text()) {
                let more = found.count - found.first.len() as u64;
                found.first.into_iter().for_each(|problem| self.summary.problem(problem, named));
                self.summary.problem_count += more;
            }
        }
        self.summary.no_member_of = open.has_members && !open.has_member_of;
    }
}

/// The first value that has to be text and is not UTF-8; those that only an extended attribute may show are noted.
fn not_text(
    object_type: &str,
    entry: &Attributes<'_>,
    line: u64,
    open: &mut Open,
    named: usize,
) -> Option<Problem> {
    let mut first: Option<Problem> = None;
    for (name, written, values) in entry.names() {
        if values.iter().all(|value| std::str::from_utf8(value).is_ok()) {
            continue;
        }
        let dn = entry.dn;
        let problem = Problem { line, problem: format!("{dn}: the value of {written} is not UTF-8") };
        if unmap::is_text(object_type, name) {
            first.get_or_insert(problem);
        } else {
            let found = open.not_text.entry((object_type.to_owned(), name.to_owned())).or_default();
            found.count += 1;
            if found.first.len() < named {
                found.first.push(problem);
            }
        }
    }
    first
}
