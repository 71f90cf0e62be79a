//! LDAP filters (RFC 4515) over the properties of an object.
//!
//! Values are compared as the directory does for most of its attributes: prepared (RFC 4518), so that case, runs of
//! spaces and the form of a letter make no difference; DNs as DNs, telephone numbers without spaces and hyphens,
//! numbers as numbers. An attribute that an object does not have matches nothing, so its negation holds (RFC 4511,
//! 4.5.1.7: the item is false, not undefined).

use serde_json::Value;

use super::parser::Parser;
use crate::{
    Dn,
    string_prep::{prepared, prepared_number, prepared_part, spaced},
};

/// Bytes that a filter may have: what is larger was made by a program that went wrong.
const BYTES_MAX: usize = 64 * 1024;

/// Properties with telephone numbers, in small letters.
const NUMBERS: [&str; 6] = [
    "phone",
    "hometelephonenumber",
    "mobiletelephonenumber",
    "pagertelephonenumber",
    "fax",
    "telephonenumber",
];
/// Booleans that every entry of the directory has, also where they are false.
const ALWAYS_SET: [&str; 2] = ["disabled", "locked"];

/// A filter, ready to be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    /// A property has a value.
    Present(String),
    /// A value is this one.
    Equals(String, Wanted),
    /// The same without regard to spaces.
    About(String, String),
    AtLeast(String, String),
    AtMost(String, String),
    /// Beginning, parts in between in their order, and end.
    Like(String, Substrings),
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    prepared: String,
    /// If it is the DN of an object.
    dn: Option<Dn>,
}

/// Parts of a value, prepared.
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
        Parser::whole(text)
    }

    /// How many filters it consists of, itself included.
    pub fn conditions(&self) -> usize {
        1 + match self {
            Self::All(inner) | Self::Any(inner) => inner.iter().map(Self::conditions).sum(),
            Self::Not(inner) => inner.conditions(),
            Self::Present(_)
            | Self::Equals(..)
            | Self::About(..)
            | Self::AtLeast(..)
            | Self::AtMost(..)
            | Self::Like(..) => 0,
        }
    }

    /// Does an object with these properties match?
    pub fn is_match(&self, properties: &Value) -> bool {
        let any = |name: &str, fits: &dyn Fn(&Value) -> bool| {
            named(properties, name).any(|value| any_part(value, fits))
        };
        let text = |name: &str, value: &Value| match is_number(name) {
            true => prepared_number(&written(value)),
            false => prepared(&written(value)),
        };
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.is_match(properties)),
            Self::Any(filters) => filters.iter().any(|filter| filter.is_match(properties)),
            Self::Not(filter) => !filter.is_match(properties),
            Self::Present(name) => named(properties, name).any(|value| is_set(name, value)),
            Self::Equals(name, wanted) => any(name, &|value| wanted.is_match(value, |v| text(name, v))),
            Self::About(name, wanted) => {
                let squeezed = |text: &str| text.split_whitespace().collect::<String>();
                any(name, &|value| squeezed(&prepared(&written(value))) == squeezed(wanted))
            }
            Self::AtLeast(name, bound) => any(name, &|value| order(value, bound).is_ge()),
            Self::AtMost(name, bound) => any(name, &|value| order(value, bound).is_le()),
            Self::Like(name, parts) if is_number(name) => {
                any(name, &|value| parts.is_match(&text(name, value)))
            }
            Self::Like(name, parts) => any(name, &|value| parts.is_match(&spaced(&text(name, value)))),
        }
    }

    /// Adds the names of the properties that it looks at.
    pub fn names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::All(filters) | Self::Any(filters) => filters.iter().for_each(|f| f.names(names)),
            Self::Not(filter) => filter.names(names),
            Self::Present(name)
            | Self::Equals(name, _)
            | Self::About(name, _)
            | Self::AtLeast(name, _)
            | Self::AtMost(name, _)
            | Self::Like(name, _) => names.push(name),
        }
    }
}

impl Wanted {
    pub fn new(name: &str, value: &str) -> Self {
        let prepared = if is_number(name) { prepared_number(value) } else { prepared(value) };
        Self { prepared, dn: value.contains('=').then(|| value.parse().ok()).flatten() }
    }

    fn is_match(&self, value: &Value, text: impl Fn(&Value) -> String) -> bool {
        match value {
            // UDM takes both writings.
            Value::Bool(true) => matches!(&*self.prepared, "true" | "1"),
            Value::Bool(false) => matches!(&*self.prepared, "false" | "0"),
            Value::Number(_) => order(value, &self.prepared).is_eq(),
            value => {
                let is_text = text(value) == self.prepared;
                is_text || self.dn.is_some() && value.as_str().and_then(Dn::of_object) == self.dn
            }
        }
    }
}

impl Substrings {
    /// From the parts between the stars.
    pub fn new(name: &str, parts: &[String]) -> Self {
        let (number, last) = (is_number(name), parts.len().saturating_sub(1));
        let part = |(index, part): (usize, &String)| match number {
            true => prepared_number(part),
            false => prepared_part(part, index == 0, index == last),
        };
        let mut parts: Vec<String> = parts.iter().enumerate().map(part).collect();
        let end = parts.pop().unwrap_or_default();
        let begin = if parts.is_empty() { String::new() } else { parts.remove(0) };
        parts.retain(|part| !part.is_empty());
        Self { begin, between: parts, end }
    }

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

/// The values of a property; its name may be written in other letters.
fn named<'a>(properties: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let members = properties.as_object().into_iter().flatten();
    members.filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn is_number(name: &str) -> bool {
    NUMBERS.iter().any(|number| number.eq_ignore_ascii_case(name))
}

/// Has the property a value in the directory? `null`, `""`, `[]` are none, nor is `false`: UDM shows it of what is
/// not set. Of values with parts one has to be set; a time zone alone is what UDM puts beside a date that is not.
fn is_set(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value || ALWAYS_SET.iter().any(|always| always.eq_ignore_ascii_case(name)),
        Value::String(text) => !text.is_empty(),
        Value::Array(parts) => parts.iter().any(|part| is_set(name, part)),
        Value::Object(parts) => {
            parts.iter().any(|(part, value)| !part.ends_with("timezone") && is_set(name, value))
        }
        Value::Number(_) => true,
    }
}

/// Is there a value that fits? Unset ones (`null`, `""`, `[]`) are none; of lists and of values with parts, each part
/// counts.
fn any_part(value: &Value, fits: &dyn Fn(&Value) -> bool) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) if text.is_empty() => false,
        Value::Array(parts) => parts.iter().any(|part| any_part(part, fits)),
        Value::Object(parts) => parts.values().any(|part| any_part(part, fits)),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => fits(value),
    }
}

/// A single value as text.
fn written(value: &Value) -> std::borrow::Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

/// Numbers as numbers, everything else as prepared text.
fn order(value: &Value, bound: &str) -> std::cmp::Ordering {
    let text = prepared(&written(value));
    match (text.parse::<i128>(), bound.parse::<i128>()) {
        (Ok(value), Ok(bound)) => value.cmp(&bound),
        _ => text.as_str().cmp(bound),
    }
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
            "lockedTime": "0", "displayName": "Anna  Meier ", "mobileTelephoneNumber": ["+49 30 3-4"],
            "secretary": ["uid=boss,cn=users,dc=x"], "networkAccess": false, "note": "a=b, c", "city": "Mu\u{308}nster",
            "accountActivationDate": {"activation-date": null, "activation-timezone": "Etc/UTC"}, "locked": false,
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
            ("(&)", true),
            ("(|)", false),
            ("(!(|))", true),
            ("(displayName= anna   MEIER)", true),
            ("(displayName=anna m*)", true),
            ("(displayName=anna*meier)", true),
            ("(displayName=Anna  * Meier )", true),
            ("(displayName=*Meier )", true),
            ("(displayName=* a*)", true),
            ("(displayName=*na a*)", false),
            ("(city=Münster)", true),
            ("(city=Mu\u{308}n*)", true),
            ("(mobileTelephoneNumber=+49-30-34)", true),
            ("(mobileTelephoneNumber=+4930*)", true),
            ("(username=an-na)", false),
            ("(secretary=UID=Boss, cn=users , DC=x)", true),
            (r"(secretary=userid=\5cbo\5css,cn=users,dc=x)", false),
            ("(secretary=uid=other,cn=users,dc=x)", false),
            ("(note=a=b, c)", true),
            ("(uidNumber=02003)", true),
            ("(disabled=*)", true),
            ("(locked=*)", true),
            ("(networkAccess=*)", false),
            ("(networkAccess=FALSE)", true),
            ("(pki=*)", true),
            ("(accountActivationDate=*)", false),
            ("(accountActivationDate=Etc/UTC)", true),
            ("(homePostalAddress=*)", true),
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
