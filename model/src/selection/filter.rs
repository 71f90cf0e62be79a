//! LDAP filters (RFC 4515) over the properties of an object.
//!
//! Values are compared as the directory does for most of its attributes: without regard to case. An attribute that an
//! object does not have matches nothing, so its negation holds (RFC 4511, 4.5.1.7: the item is false, not undefined).

use serde_json::Value;

/// Nested filters, and bytes, that one may have: what is larger was made by a program that went wrong.
const DEPTH_MAX: usize = 32;
const BYTES_MAX: usize = 16 * 1024;

/// A filter, ready to be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// A property has a value.
    Present(String),
    /// A value is this one; in lower case.
    Equals(String, String),
    /// The same without regard to spaces.
    About(String, String),
    AtLeast(String, String),
    AtMost(String, String),
    /// Beginning, parts in between in their order, and end.
    Like(String, Substrings),
}

/// Parts of a value, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Substrings {
    begin: String,
    between: Vec<String>,
    end: String,
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// What is wrong and where, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("the filter has more than {BYTES_MAX} bytes"));
        }
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

    /// Does an object with these properties match?
    pub fn is_match(&self, properties: &Value) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.is_match(properties)),
            Self::Any(filters) => filters.iter().any(|filter| filter.is_match(properties)),
            Self::Not(filter) => !filter.is_match(properties),
            Self::Present(name) => any_value(properties, name, &|_| true),
            Self::Equals(name, wanted) => any_value(properties, name, &|value| equals(value, wanted)),
            Self::About(name, wanted) => {
                let squeezed = |text: &str| text.split_whitespace().collect::<String>();
                any_value(properties, name, &|value| squeezed(&folded(value)) == squeezed(wanted))
            }
            Self::AtLeast(name, bound) => any_value(properties, name, &|value| order(value, bound).is_ge()),
            Self::AtMost(name, bound) => any_value(properties, name, &|value| order(value, bound).is_le()),
            Self::Like(name, parts) => any_value(properties, name, &|value| parts.is_match(&folded(value))),
        }
    }
}

impl Substrings {
    fn is_match(&self, value: &str) -> bool {
        let Some(mut rest) = value.strip_prefix(self.begin.as_str()) else { return false };
        for part in &self.between {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(self.end.as_str())
    }
}

/// Is there a value of this property that fits? Unset ones (`null`, `""`, `[]`) are none; of lists and of values with
/// parts, each part counts.
fn any_value(properties: &Value, name: &str, fits: &dyn Fn(&Value) -> bool) -> bool {
    let Value::Object(members) = properties else { return false };
    let of_name = members.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| value).any(|value| any_part(value, fits))
}

fn any_part(value: &Value, fits: &dyn Fn(&Value) -> bool) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) if text.is_empty() => false,
        Value::Array(parts) => parts.iter().any(|part| any_part(part, fits)),
        Value::Object(parts) => parts.values().any(|part| any_part(part, fits)),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => fits(value),
    }
}

/// A single value as text, in lower case.
fn folded(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_lowercase(),
        other => other.to_string().to_lowercase(),
    }
}

fn equals(value: &Value, wanted: &str) -> bool {
    match value {
        // UDM takes both writings.
        Value::Bool(true) => matches!(wanted, "true" | "1"),
        Value::Bool(false) => matches!(wanted, "false" | "0"),
        value => folded(value) == wanted,
    }
}

/// Numbers as numbers, everything else as text.
fn order(value: &Value, bound: &str) -> std::cmp::Ordering {
    let text = folded(value);
    match (text.parse::<i128>(), bound.parse::<i128>()) {
        (Ok(value), Ok(bound)) => value.cmp(&bound),
        _ => text.as_str().cmp(bound),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
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
        if filters.is_empty() {
            return Err(self.wrong("( is expected: & and | stand before at least one filter"));
        }
        Ok(filters)
    }

    fn item(&mut self) -> Result<Filter, String> {
        let rest = self.rest();
        let name_end = rest.find(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.' | ';'));
        let name = &rest[..name_end.unwrap_or(rest.len())];
        let operator = &rest[name.len()..];
        if operator.starts_with(':') {
            return Err(self.wrong("extensible matches (:=) can't be evaluated: use =, >=, <= or *"));
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
            "=" if parts.len() == 1 => Filter::Equals(name, parts.concat()),
            "=" if parts.iter().all(String::is_empty) && parts.len() == 2 => Filter::Present(name),
            "=" => {
                let mut parts = parts;
                let end = parts.pop().unwrap_or_default();
                let begin = if parts.is_empty() { String::new() } else { parts.remove(0) };
                parts.retain(|part| !part.is_empty());
                Filter::Like(name, Substrings { begin, between: parts, end })
            }
            "~=" => Filter::About(name, single(parts)?),
            ">=" => Filter::AtLeast(name, single(parts)?),
            _ => Filter::AtMost(name, single(parts)?),
        })
    }

    /// The parts of a value between its stars, unescaped, in lower case.
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
        let text = |part| String::from_utf8(part).map(|text| text.to_lowercase());
        let parts: Result<Vec<_>, _> = parts.into_iter().map(text).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn anna() -> Value {
        json!({
            "username": "anna", "lastname": "Müller (A*)", "uidNumber": 2003, "disabled": false, "pki": true,
            "e-mail": ["anna@example.org", "a.m@example.org"], "phone": [], "description": null, "title": "",
            "homePostalAddress": [["Street 1", "28359", "Bremen"]], "umcProperty": {"favorites": "appcenter"},
            "lockedTime": "0",
        })
    }

    #[test]
    fn what_matches() {
        for (filter, expected) in [
            ("(username=anna)", true),
            ("(userName=ANNA)", true),
            ("(username=ann)", false),
            ("(lastname=m\u{fc}ller \\28a\\2a\\29)", true),
            ("(lastname=M\\c3\\bcller*)", true),
            ("(e-mail=a.m@example.org)", true),
            ("(e-mail=*@EXAMPLE.org)", true),
            ("(e-mail=*.m@*)", true),
            ("(e-mail=a*m*org)", true),
            ("(e-mail=anna*anna@example.org)", false),
            ("(username=*)", true),
            ("(phone=*)", false),
            ("(description=*)", false),
            ("(title=*)", false),
            ("(nothing=*)", false),
            ("(!(nothing=x))", true),
            ("(!(phone=*))", true),
            ("(uidNumber=2003)", true),
            ("(uidNumber>=2003)", true),
            ("(uidNumber>=10000)", false),
            ("(uidNumber<=999)", false),
            ("(username>=anma)", true),
            ("(username<=ANNA)", true),
            ("(lockedTime<=0)", true),
            ("(disabled=FALSE)", true),
            ("(disabled=0)", true),
            ("(disabled=1)", false),
            ("(pki=TRUE)", true),
            ("(lastname~=m\u{fc}ller\\28a\\2a \\29)", true),
            ("(homePostalAddress=bremen)", true),
            ("(umcProperty=appcenter)", true),
            ("(&(username=anna)(uidNumber=2003))", true),
            ("(&(username=anna)(uidNumber=2004))", false),
            ("(|(username=x)(uidNumber=2003))", true),
            (" (& (username=anna) (! (disabled=TRUE) ) ) ", true),
            ("(username=)", false),
        ] {
            assert_eq!(Filter::parse(filter).unwrap().is_match(&anna()), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter() {
        for (filter, problem) in [
            ("", "at character 1: ( is expected"),
            ("username=anna", "at character 1: ( is expected"),
            ("(username=anna", "at character 15: ) is expected"),
            ("(username=anna))", "at character 16: something follows"),
            ("(a=b)(c=d)", "several are put together"),
            ("(&)", "at least one filter"),
            ("(|)", "at least one filter"),
            ("(!)", "( is expected"),
            ("(!(a=b)(c=d))", ") is expected"),
            ("()", "the name of a property"),
            ("(=x)", "the name of a property"),
            ("(username)", "is expected after the name"),
            ("(username>x)", "is expected after the name"),
            ("(cn:caseExactMatch:=x)", "extensible matches"),
            ("(:dn:=x)", "extensible matches"),
            ("(a=\\zz)", "two hexadecimal digits"),
            ("(a=\\2)", "two hexadecimal digits"),
            ("(a=\\ff)", "not UTF-8"),
            ("(a>=b*)", "* stands only behind ="),
            ("(a=b(c)", "written \\28"),
            ("(objectClass=person)", "realms_topics"),
            ("(&(uid=anna)(x=y))", "username"),
        ] {
            let found = Filter::parse(filter).unwrap_err();
            assert!(found.contains(problem), "{filter}: {found}");
        }
        assert!(Filter::parse(&format!("{}(a=b){}", "(!".repeat(40), ")".repeat(40))).is_err());
        assert!(Filter::parse(&format!("(a={})", "x".repeat(BYTES_MAX))).is_err());
    }

    proptest! {
        #[test]
        fn any_value_is_found_when_it_is_escaped(value in "\\PC{1,12}", other in "\\PC{0,12}") {
            let escaped: String = value.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            let object = json!({"a": [other, value]});
            for (filter, expected) in [
                (format!("(a={escaped})"), true),
                (format!("(a=*{escaped})"), true),
                (format!("(!(a={escaped}*))"), false),
            ] {
                prop_assert_eq!(Filter::parse(&filter).unwrap().is_match(&object), expected, "{}", filter);
            }
        }

        #[test]
        fn nothing_panics(text in "[()&|!=*<>~:a\\\\2f ü]{0,24}") {
            if let Ok(filter) = Filter::parse(&text) {
                filter.is_match(&anna());
            }
        }
    }
}
