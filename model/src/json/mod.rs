//! Which JSON we take: what every reader behind us can read, so that what is accepted can be delivered.
//!
//! JSON allows more than common readers take: halves of characters (lone surrogates), numbers beyond a double, any
//! depth. A text that [`check`] takes is read by `serde_json`, by Python, Java, Go and JavaScript alike. Members of
//! one name are allowed, and the last counts, as in all of these.

mod members;

use std::fmt;

pub use members::Members;
use serde_json::{Map, Value};

/// Deepest nesting of arrays and objects. Python's reader ends at about 1,000, others at 512.
pub const DEEPEST: usize = 500;
/// Parts of a place that are shown, and characters of each: a place is part of an answer.
const PARTS_SHOWN: usize = 16;
const CHARACTERS_SHOWN: usize = 64;

/// Why a text is not taken, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", Place(path))]
pub struct JsonError {
    /// The place: names of members and numbers of items, outermost first.
    pub path: Vec<PathPart>,
    /// What is wrong there.
    pub why: JsonFault,
}

/// A step from a value to one that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPart {
    /// Into a member of an object.
    Member(String),
    /// Into an item of an array.
    Item(usize),
}

/// What is wrong with a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// It is no JSON at all from here on.
    #[error("this is no valid JSON")]
    Syntax,
    /// Bytes that are no text.
    #[error("these bytes are no UTF-8")]
    Encoding,
    /// `\ud83d` without its other half.
    #[error("a string holds half of a character (a lone surrogate), which can't be read")]
    Surrogate,
    /// `1e400`.
    #[error("the number is too large to be read: a double ends at 1.8e308")]
    Number,
    /// Too many levels.
    #[error("arrays and objects are nested deeper than {DEEPEST} levels")]
    Depth,
}

/// Writes a path as a prefix of a sentence: `properties.mail.0: `.
struct Place<'a>(&'a [PathPart]);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            match part {
                PathPart::Member(name) => write!(f, "{dot}{name}")?,
                PathPart::Item(number) => write!(f, "{dot}{number}")?,
            }
        }
        if self.0.is_empty() { Ok(()) } else { f.write_str(": ") }
    }
}

/// Checks that a text is one JSON value that every reader can read.
///
/// # Errors
/// [`JsonError`] for the first place that is not.
pub fn check(text: &[u8]) -> Result<(), JsonError> {
    let valid = std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
    let mut scanner = Scanner { text, valid, at: 0, open: Vec::new() };
    scanner.document().map_err(|why| scanner.error(why))
}

/// Reads a text of any depth that [`check`] takes. (`serde_json` itself ends at 128 levels.)
///
/// # Errors
/// [`JsonError`] as of [`check`].
pub fn value(text: &str) -> Result<Value, JsonError> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    check(text.as_bytes())?;
    build(text).ok_or(JsonError { path: Vec::new(), why: JsonFault::Syntax })
}

/// An array or object that has begun.
enum Open {
    Array {
        items: usize,
    },
    /// The name of the member that is being read, as it is written, with its quotes.
    Object {
        begin: usize,
        end: usize,
    },
}

struct Scanner<'a> {
    text: &'a [u8],
    /// Up to here it is UTF-8.
    valid: usize,
    at: usize,
    open: Vec<Open>,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), JsonFault> {
        loop {
            // What has just begun may end at once; what is no array or object ends with itself.
            while !self.value()? {
                if self.ends_empty()? {
                    break;
                }
            }
            if !self.after_value()? {
                break;
            }
        }
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault(JsonFault::Syntax)) }
    }

    /// Behind `[` or `{`: does it end at once? If not, the name of a first member is read.
    fn ends_empty(&mut self) -> Result<bool, JsonFault> {
        self.spaces();
        let closing = match self.open.last() {
            None => return Ok(false),
            Some(Open::Array { .. }) => b']',
            Some(Open::Object { .. }) => b'}',
        };
        if self.peek() == Some(closing) {
            self.at += 1;
            self.open.pop();
            return Ok(true);
        }
        if closing == b'}' {
            self.name()?;
        }
        Ok(false)
    }

    /// Reads a value, or begins it: `false` behind `[` and `{`.
    fn value(&mut self) -> Result<bool, JsonFault> {
        self.spaces();
        match self.peek() {
            Some(begin @ (b'[' | b'{')) => {
                if self.open.len() == DEEPEST {
                    return Err(JsonFault::Depth);
                }
                self.at += 1;
                self.open.push(match begin {
                    b'[' => Open::Array { items: 0 },
                    _ => Open::Object { begin: 0, end: 0 },
                });
                return Ok(false);
            }
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            _ => return Err(self.fault(JsonFault::Syntax)),
        }
        Ok(true)
    }

    /// Closes what ends behind a value. Does another value follow?
    fn after_value(&mut self) -> Result<bool, JsonFault> {
        loop {
            self.spaces();
            match (self.open.last_mut(), self.text.get(self.at)) {
                (None, _) => return Ok(false),
                (Some(Open::Array { items }), Some(b',')) => {
                    *items += 1;
                    self.at += 1;
                    return Ok(true);
                }
                (Some(Open::Object { .. }), Some(b',')) => {
                    self.at += 1;
                    self.name()?;
                    return Ok(true);
                }
                (Some(Open::Array { .. }), Some(b']')) | (Some(Open::Object { .. }), Some(b'}')) => {
                    self.at += 1;
                    self.open.pop();
                }
                _ => return Err(self.fault(JsonFault::Syntax)),
            }
        }
    }

    /// The name of a member, and the colon.
    fn name(&mut self) -> Result<(), JsonFault> {
        if let Some(Open::Object { begin, end }) = self.open.last_mut() {
            (*begin, *end) = (0, 0);
        }
        self.spaces();
        let from = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.fault(JsonFault::Syntax));
        }
        self.string()?;
        let to = self.at;
        if let Some(Open::Object { begin, end }) = self.open.last_mut() {
            (*begin, *end) = (from, to);
        }
        self.spaces();
        self.expect(b':')
    }

    fn string(&mut self) -> Result<(), JsonFault> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0x20..) => self.at += 1,
                Some(_) | None => return Err(self.fault(JsonFault::Syntax)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => match self.code_unit()? {
                0xd800..=0xdbff => {
                    let follows = self.text.get(self.at..self.at + 2) == Some(b"\\u");
                    self.at += usize::from(follows);
                    if follows && matches!(self.code_unit()?, 0xdc00..=0xdfff) {
                        Ok(())
                    } else {
                        Err(JsonFault::Surrogate)
                    }
                }
                0xdc00..=0xdfff => Err(JsonFault::Surrogate),
                _ => Ok(()),
            },
            _ => Err(self.fault(JsonFault::Syntax)),
        }
    }

    /// `u` and four digits.
    fn code_unit(&mut self) -> Result<u16, JsonFault> {
        let digits = self.text.get(self.at + 1..self.at + 5).unwrap_or_default();
        let hex = digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit);
        let unit = std::str::from_utf8(digits).ok().and_then(|digits| u16::from_str_radix(digits, 16).ok());
        match unit.filter(|_| hex) {
            Some(unit) => {
                self.at += 5;
                Ok(unit)
            }
            None => Err(self.fault(JsonFault::Syntax)),
        }
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        let from = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let written = self.text.get(from..self.at).unwrap_or_default();
        // Up to 300 digits are always within a double.
        if (exponent || written.len() > 300) && serde_json::from_slice::<f64>(written).is_err() {
            return Err(JsonFault::Number);
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(self.fault(JsonFault::Syntax)) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonFault> {
        if !self.text.get(self.at..).unwrap_or_default().starts_with(word) {
            return Err(self.fault(JsonFault::Syntax));
        }
        self.at += word.len();
        Ok(())
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.peek() != Some(byte) {
            return Err(self.fault(JsonFault::Syntax));
        }
        self.at += 1;
        Ok(())
    }

    fn spaces(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte, as far as there is text.
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied().filter(|_| self.at < self.valid)
    }

    /// What is wrong here: not the syntax, if the text ends here because of its bytes.
    fn fault(&self, why: JsonFault) -> JsonFault {
        if self.at >= self.valid && self.valid < self.text.len() { JsonFault::Encoding } else { why }
    }

    fn error(&self, why: JsonFault) -> JsonError {
        let part = |open: &Open| match open {
            Open::Array { items } => Some(PathPart::Item(*items)),
            Open::Object { begin, end } => {
                let quoted = self.text.get(*begin..*end).filter(|quoted| !quoted.is_empty())?;
                let name: String = serde_json::from_slice(quoted).ok()?;
                Some(PathPart::Member(name.chars().take(CHARACTERS_SHOWN).collect()))
            }
        };
        JsonError { path: self.open.iter().take(PARTS_SHOWN).filter_map(part).collect(), why }
    }
}

/// Reads a text that was checked, without recursion.
fn build(text: &str) -> Option<Value> {
    enum Open {
        Array(Vec<Value>),
        Object(Map<String, Value>, String),
    }
    let mut open: Vec<Open> = Vec::new();
    let mut rest = text.trim_ascii_start();
    loop {
        let mut done = match rest.as_bytes().first()? {
            b'[' => {
                open.push(Open::Array(Vec::new()));
                rest = &rest[1..];
                None
            }
            b'{' => {
                open.push(Open::Object(Map::new(), String::new()));
                rest = &rest[1..];
                None
            }
            _ => Some(leaf(&mut rest)?),
        };
        // Closes what ends here, up to where the next value begins.
        loop {
            rest = rest.trim_ascii_start();
            if let Some(value) = done.take() {
                match open.last_mut() {
                    None => return Some(value),
                    Some(Open::Array(items)) => items.push(value),
                    Some(Open::Object(members, name)) => _ = members.insert(std::mem::take(name), value),
                }
            }
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
            if let Some(behind) = rest.strip_prefix([']', '}']) {
                rest = behind;
                done = Some(match open.pop()? {
                    Open::Array(items) => Value::Array(items),
                    Open::Object(members, _) => Value::Object(members),
                });
                continue;
            }
            break;
        }
        if let Some(Open::Object(_, name)) = open.last_mut() {
            *name = leaf(&mut rest)?.as_str()?.to_owned();
            rest = rest.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        }
    }
}

/// A value that holds no others, taken from the beginning of a text.
fn leaf(rest: &mut &str) -> Option<Value> {
    let mut reader = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    let value = reader.next()?.ok()?;
    let read = reader.byte_offset();
    *rest = &rest[read..];
    Some(value)
}

#[cfg(test)]
mod tests;
