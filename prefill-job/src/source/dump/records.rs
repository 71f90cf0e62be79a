//! From lines to objects, in either format: one record at a time, each bounded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use super::ldif::{self, Block, LdifError, Parser};
use super::lines::{Lines, Next};
use super::unmap::{Unmapped, unmap};
use super::{Format, Problem};
use crate::source::object::{self, ObjectError, RawObject};

/// The records of a dump, one after the other.
pub(super) struct Records<'a> {
    lines: Lines<'a>,
    format: Format,
    max_bytes: usize,
    /// No block was read yet: it may begin with the version.
    first: bool,
}

/// What stands at a place of the dump.
pub(super) struct Found<T> {
    /// Where its text begins, in the uncompressed text.
    pub begin: u64,
    /// Where the next one begins.
    pub end: u64,
    pub record: T,
}

/// What a record is.
pub(super) enum Record<'a> {
    Object {
        object: RawObject<'a>,
        /// Attributes of LDAP that no property shows.
        left_out: BTreeMap<String, u64>,
    },
    /// An entry that UDM does not know.
    Untyped,
    Bad(Problem),
}

impl<'a> Records<'a> {
    pub fn new(lines: Lines<'a>, format: Format, max_bytes: usize) -> Self {
        let first = lines.place == 0;
        Self { lines, format, max_bytes, first }
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
            Next::TooLong => Err(ObjectError::TooLong(self.max_bytes)),
            Next::Line | Next::End => object::read(self.lines.text()),
        };
        let record = match read {
            Ok(object) => Record::Object { object, left_out: BTreeMap::new() },
            Err(error) => Record::Bad(Problem { line, problem: error.to_string() }),
        };
        Ok(Some(Found { begin, end, record }))
    }

    fn next_block(&mut self) -> io::Result<Option<Found<Record<'_>>>> {
        loop {
            let Some(Found { begin, end, record }) = self.block()? else { return Ok(None) };
            let record = match record {
                Ok(Block::Nothing) => continue,
                Ok(Block::Entry(entry)) => match unmap(&entry) {
                    None => Record::Untyped,
                    Some(Unmapped { object_type, object, left_out }) => {
                        let text = Cow::Owned(object.to_string());
                        Record::Object { object: RawObject { object_type, text }, left_out }
                    }
                },
                Err(LdifError { line, problem }) => Record::Bad(Problem { line, problem }),
            };
            return Ok(Some(Found { begin, end, record }));
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
        let mut parser = Ok(Parser::new(std::mem::take(&mut self.first)));
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
        Ok(Some(Found { begin, end: self.lines.place, record }))
    }
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
