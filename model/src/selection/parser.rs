//! The grammar of filters (RFC 4515, RFC 4526).

use super::filter::{Filter, Substrings, Wanted};
use crate::string_prep::prepared;

/// Nested filters that one may have.
const DEPTH_MAX: usize = 32;

/// A text, and how far it is read.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// A text that is one filter.
    pub fn whole(text: &'a str) -> Result<Filter, String> {
        let mut parser = Parser { text, at: 0 };
        let filter = parser.filter(0)?;
        parser.spaces();
        if parser.at < text.len() {
            return Err(
                parser.wrong("something follows the filter: several are put together with (&…) or (|…)")
            );
        }
        Ok(filter)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn wrong(&self, problem: &str) -> String {
        format!(
            "at character {}: {problem}",
            self.text.get(..self.at).unwrap_or_default().chars().count() + 1
        )
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the filter is nested deeper than {DEPTH_MAX}"));
        }
        self.spaces();
        if !self.eat('(') {
            return Err(self.wrong("( is expected, as in (mailPrimaryAddress=*)"));
        }
        let filter = match self.rest().chars().next() {
            Some('&') => Filter::All(self.list(depth)?),
            Some('|') => Filter::Any(self.list(depth)?),
            Some('!') => {
                self.at += 1;
                let negated = self.filter(depth + 1)?;
                self.spaces();
                Filter::Not(Box::new(negated))
            }
            _ => self.item()?,
        };
        if !self.eat(')') {
            return Err(self.wrong(") is expected"));
        }
        Ok(filter)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Filter>, String> {
        self.at += 1;
        let mut filters = Vec::new();
        self.spaces();
        while self.rest().starts_with('(') {
            filters.push(self.filter(depth + 1)?);
            self.spaces();
        }
        // None is allowed (RFC 4526): (&) is true, (|) false.
        Ok(filters)
    }

    fn item(&mut self) -> Result<Filter, String> {
        let rest = self.rest();
        let name_end = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.' | ';'));
        let name = &rest[..name_end.unwrap_or(rest.len())];
        let operator = &rest[name.len()..];
        if operator.starts_with(':') {
            return Err(self.wrong(
                "extensible matches, such as (name:rule:=value), can't be evaluated: use =, >=, <= or *",
            ));
        }
        if name.is_empty() {
            return Err(self.wrong("the name of a property is expected"));
        }
        check_name(name).map_err(|problem| self.wrong(&problem))?;
        let name = name.to_owned();
        let operators = ["=", "~=", ">=", "<="];
        let Some(operator) = operators.into_iter().find(|sign| operator.starts_with(sign)) else {
            return Err(self.wrong("=, ~=, >= or <= is expected after the name of a property"));
        };
        self.at += name.len() + operator.len();
        let parts = self.value()?;
        let single = |parts: Vec<String>| match <[String; 1]>::try_from(parts) {
            Ok([value]) => Ok(value),
            Err(_) => Err(format!("* stands only behind =; after {operator} write it as \\2a")),
        };
        Ok(match operator {
            "=" if parts.len() == 1 => {
                let wanted = Wanted::new(&name, &parts.concat());
                Filter::Equals(name, wanted)
            }
            "=" if parts.iter().all(String::is_empty) && parts.len() == 2 => Filter::Present(name),
            "=" => {
                let like = Substrings::new(&name, &parts);
                Filter::Like(name, like)
            }
            "~=" => Filter::About(name, prepared(&single(parts)?)),
            ">=" => Filter::AtLeast(name, prepared(&single(parts)?)),
            _ => Filter::AtMost(name, prepared(&single(parts)?)),
        })
    }

    /// The parts of a value between its stars, unescaped.
    fn value(&mut self) -> Result<Vec<String>, String> {
        let mut parts = vec![Vec::new()];
        while let Some(character) = self.rest().chars().next() {
            match character {
                ')' => break,
                '(' => return Err(self.wrong("( in a value is written \\28; or a ) is missing before it")),
                '\0' => return Err(self.wrong("NUL in a value is written \\00")),
                '*' => parts.push(Vec::new()),
                '\\' => {
                    let digits = self.rest().get(1..3);
                    let byte = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                    let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                    let Some(byte) = byte else {
                        return Err(self
                            .wrong("a backslash stands before two hexadecimal digits, such as \\2a for *"));
                    };
                    if let Some(part) = parts.last_mut() {
                        part.push(byte);
                    }
                    self.at += 2;
                }
                other => {
                    if let Some(part) = parts.last_mut() {
                        part.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
            self.at += character.len_utf8();
        }
        let parts: Result<Vec<_>, _> = parts.into_iter().map(String::from_utf8).collect();
        parts.map_err(|_| self.wrong("the escaped bytes of the value are not UTF-8"))
    }
}

/// Attributes of LDAP that look right in a filter and would never match anything.
fn check_name(name: &str) -> Result<(), String> {
    let advice = match name.to_ascii_lowercase().as_str() {
        "objectclass" | "univentionobjecttype" | "objecttype" => "choose types of objects by realms_topics",
        "dn" | "entrydn" => "choose a part of the directory by position",
        "uid" => "the property of users is username",
        "givenname" => "the property of users is firstname",
        "sn" => "the property of users is lastname",
        _ => return Ok(()),
    };
    Err(format!("{name} is an attribute of LDAP and no property of UDM: {advice}"))
}
