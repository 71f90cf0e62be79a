//! From lines to records, in either format: one at a time, each bounded.

use std::io;

use model::json::{self, Members};

use super::entry::Entry;
use super::ldif::{self, Block, LdifError, Parser};
use super::lines::{Lines, Next};
use super::{Format, Problem};
use crate::source::object::{self, ObjectError, RawObject};

/// The records of a dump, one after the other.
pub(super) struct Records<'a> {
    lines: Lines<'a>,
    format: Format,
    max_bytes: usize,
}

/// What stands at a place of the dump.
pub(super) struct Found<T> {
    /// Where its text begins, in the uncompressed text.
    pub begin: u64,
    /// Where the next one begins.
    pub end: u64,
    /// Its first line.
    pub line: u64,
    pub record: T,
}

/// What a record is.
pub(super) enum Record<'a> {
    /// A JSON line.
    Object(RawObject<'a>),
    /// An entry of LDIF.
    Entry(Entry),
    Bad(Problem),
}

impl<'a> Records<'a> {
    pub fn new(lines: Lines<'a>, format: Format, max_bytes: usize) -> Self {
        Self { lines, format, max_bytes }
    }

    /// Number of the last line.
    pub fn line(&self) -> u64 {
        self.lines.number
    }

    /// The next record; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Found<Record<'_>>>> {
        match self.format {
            Format::JsonLines => self.next_line(),
            Format::Ldif => self.next_block(),
        }
    }

    fn next_line(&mut self) -> io::Result<Option<Found<Record<'_>>>> {
        let (begin, next) = loop {
            let begin = self.lines.place;
            match self.lines.step()? {
                Next::End => return Ok(None),
                Next::Line if self.lines.text().trim_ascii().is_empty() => {}
                next => break (begin, next),
            }
        };
        let (end, line) = (self.lines.place, self.lines.number);
        let read = match next {
            Next::TooLong => Err(ObjectError::TooLong(self.max_bytes).to_string()),
            Next::Line | Next::End => object(self.lines.text()),
        };
        let record = match read {
            Ok(object) => Record::Object(object),
            Err(problem) => Record::Bad(Problem { line, problem }),
        };
        Ok(Some(Found { begin, end, line, record }))
    }

    fn next_block(&mut self) -> io::Result<Option<Found<Record<'_>>>> {
        loop {
            let Some(Found { begin, end, line, record }) = self.block()? else { return Ok(None) };
            let record = match record {
                Ok(Block::Nothing) => continue,
                Ok(Block::Entry(entry)) => Record::Entry(entry),
                Err(LdifError { line, problem }) => Record::Bad(Problem { line, problem }),
            };
            return Ok(Some(Found { begin, end, line, record }));
        }
    }

    /// The lines up to the next empty one. What is behind an error is passed over.
    fn block(&mut self) -> io::Result<Option<Found<Result<Block, LdifError>>>> {
        // Where it begins.
        let (begin, mut next) = loop {
            let begin = self.lines.place;
            match self.lines.step()? {
                Next::End => return Ok(None),
                Next::Line if self.lines.text().is_empty() => {}
                next => break (begin, next),
            }
        };
        let first = self.lines.number;
        let mut parser = Ok(Parser::default());
        let mut bytes = 0_usize;
        while next == Next::TooLong || (next == Next::Line && !self.lines.text().is_empty()) {
            if let Ok(parsing) = &mut parser {
                let (text, line) = (self.lines.text(), self.lines.number);
                bytes = bytes.saturating_add(text.len());
                let parsed = if next == Next::TooLong || bytes > self.max_bytes {
                    Err(LdifError { line, problem: ObjectError::TooLong(self.max_bytes).to_string() })
                } else {
                    parsing.line(text, line)
                };
                if let Err(error) = parsed {
                    parser = Err(error);
                }
            }
            next = self.lines.step()?;
        }
        let record = parser.and_then(Parser::finish);
        Ok(Some(Found { begin, end: self.lines.place, line: first, record }))
    }
}

/// A line as an object that every reader can read; else what is wrong with it, and with which.
fn object(line: &[u8]) -> Result<RawObject<'_>, String> {
    let object = object::read(line).map_err(|error| error.to_string())?;
    let problem = match json::check(object.text.as_bytes()) {
        Ok(()) => return Ok(object),
        Err(error) => error.to_string(),
    };
    Err(match dn(&object.text) {
        Some(dn) => format!("{dn}: {problem}"),
        None => problem,
    })
}

/// The DN of an object's text.
pub(super) fn dn(object: &str) -> Option<String> {
    let members = Members::of(object).ok()?;
    serde_json::from_str(members.get("dn")?).ok()
}

/// Tells the format by the first line that is not empty.
pub(super) fn format(mut lines: Lines<'_>) -> io::Result<Format> {
    while lines.step()? == Next::Line {
        let text = lines.text();
        if !text.trim_ascii().is_empty() {
            return Ok(if ldif::is_likely(text) { Format::Ldif } else { Format::JsonLines });
        }
    }
    Ok(Format::JsonLines)
}
