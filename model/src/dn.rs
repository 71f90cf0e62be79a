//! Distinguished names (RFC 4514): taken apart, compared as the directory compares them.

use std::str::FromStr;

/// A DN in one form for each object: attribute names and values in lower case, escapes undone, the parts of an RDN in
/// one order. DNs of a directory are compared without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dn {
    /// From the object to the base.
    rdns: Vec<Vec<(String, Vec<u8>)>>,
}

/// A text that is no DN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnError {
    /// Nothing between two commas, or no DN at all.
    #[error("a DN is expected, such as ou=school,dc=example,dc=org: a part of it is empty")]
    Empty,
    /// A part without `=`, or with nothing that can be an attribute before it.
    #[error("a DN is expected, such as ou=school,dc=example,dc=org: a part of it is not attribute=value")]
    NoAttribute,
    /// A backslash before what can't be escaped.
    #[error("a backslash in a DN stands before a special character or two hexadecimal digits")]
    Escape,
    /// A character that has to be escaped.
    #[error(
        "in the values of a DN, the characters \" ; < > and NUL are written with a backslash before them"
    )]
    Special,
    /// `#` without hexadecimal digits behind it.
    #[error("a value of a DN that begins with # consists of hexadecimal digits")]
    Hex,
}

impl FromStr for Dn {
    type Err = DnError;

    /// An empty text is refused, although it names the root: nobody means it.
    fn from_str(text: &str) -> Result<Self, DnError> {
        let rdns = split(text, b',').map(|part| rdn(part, true)).collect::<Result<_, _>>()?;
        Ok(Self { rdns })
    }
}

impl Dn {
    /// The DN of an object that exists: characters that ought to be escaped are taken as they are.
    #[must_use]
    pub fn of_object(text: &str) -> Option<Self> {
        let rdns = split(text, b',').map(|part| rdn(part, false)).collect::<Result<_, _>>();
        rdns.ok().map(|rdns| Self { rdns })
    }

    /// Is this object the other one, or below it?
    #[must_use]
    pub fn is_within(&self, base: &Self) -> bool {
        self.rdns.ends_with(&base.rdns)
    }

    /// Attribute and value in front, as they were written (`uid=anna`), and the DN of the container, if there is one.
    #[must_use]
    pub fn split_first(text: &str) -> (&str, Option<&str>) {
        let first = split(text, b',').next().unwrap_or_default();
        (first, text.get(first.len() + 1..))
    }

    /// The value in front of a DN as people write it, escapes undone: `anna` of `uid=anna,dc=example`. `None` if the
    /// text does not begin like a DN, or the value is no text.
    #[must_use]
    pub fn first_value(text: &str) -> Option<String> {
        let first = split(Self::split_first(text).0, b'+').next()?;
        let (_, raw) = first.split_once('=')?;
        let text = String::from_utf8(unescape(raw.trim_ascii(), false).ok()?).ok()?;
        (!text.starts_with('\0')).then_some(text)
    }
}

/// The parts between separators that are not escaped; one at least.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let mut bytes = current.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            if byte == b'\\' {
                bytes.next();
            } else if byte == separator {
                rest = current.get(at + 1..);
                return current.get(..at);
            }
        }
        rest = None;
        Some(current)
    })
}

fn rdn(text: &str, strict: bool) -> Result<Vec<(String, Vec<u8>)>, DnError> {
    let mut parts = split(text, b'+').map(|text| part(text, strict)).collect::<Result<Vec<_>, _>>()?;
    parts.sort_unstable();
    Ok(parts)
}

fn part(text: &str, strict: bool) -> Result<(String, Vec<u8>), DnError> {
    if text.trim_ascii().is_empty() {
        return Err(DnError::Empty);
    }
    let (attribute, value) = text.split_once('=').ok_or(DnError::NoAttribute)?;
    let attribute = attribute.trim_ascii();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if attribute.is_empty() || !attribute.bytes().all(plain) {
        return Err(DnError::NoAttribute);
    }
    let value = unescape(trimmed(value), strict)?;
    // Case and runs of spaces make no difference (RFC 4518); what is no text is compared byte by byte.
    let value = match String::from_utf8(value) {
        Ok(text) => text
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
            .to_lowercase()
            .into(),
        Err(bytes) => bytes.into_bytes(),
    };
    Ok((attribute.to_ascii_lowercase(), value))
}

/// Without the spaces around a value; one that is escaped belongs to it.
fn trimmed(value: &str) -> &str {
    let value = value.trim_start_matches(' ');
    let end = value.trim_end_matches(' ');
    let escapes = end.bytes().rev().take_while(|byte| *byte == b'\\').count();
    if escapes % 2 == 1 { value.get(..=end.len()).unwrap_or(end) } else { end }
}

fn unescape(value: &str, strict: bool) -> Result<Vec<u8>, DnError> {
    if let Some(hex) = value.strip_prefix('#') {
        // An encoded value, which is compared by its digits; NUL in front keeps it apart from texts.
        let digits =
            !hex.is_empty() && hex.len().is_multiple_of(2) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        return if digits { Ok(format!("\0{hex}").into_bytes()) } else { Err(DnError::Hex) };
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let first = bytes.next().ok_or(DnError::Escape)?;
                if matches!(first, b' ' | b'"' | b'#' | b'+' | b',' | b';' | b'<' | b'=' | b'>' | b'\\') {
                    plain.push(first);
                } else {
                    let second = bytes.next().ok_or(DnError::Escape)?;
                    plain.push(hex_pair(first, second).ok_or(DnError::Escape)?);
                }
            }
            b'"' | b';' | b'<' | b'>' | 0 if strict => return Err(DnError::Special),
            other => plain.push(other),
        }
    }
    Ok(plain)
}

fn hex_pair(first: u8, second: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(first)? << 4 | digit(second)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dn(text: &str) -> Dn {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_same_object_in_several_writings() {
        for (one, other, same) in [
            ("uid=anna,dc=example,dc=org", "UID=Anna, DC=EXAMPLE , dc=org", true),
            ("cn=a  b,dc=x", "cn=A B,dc=x", true),
            (r"cn=M\C3\BCller,dc=x", "cn=müller,dc=x", true),
            (r"cn=a\,b,dc=x", r"cn=a\2cb,dc=x", true),
            (r"cn=a\,b,dc=x", "cn=a,dc=x", false),
            ("cn=a+uid=b,dc=x", "uid=B+cn=A,dc=x", true),
            ("cn=#0401ab,dc=x", "cn=#0401AB,dc=x", true),
            ("cn=#0401ab,dc=x", r"cn=\#0401ab,dc=x", false),
            (r"cn=a\ ,dc=x", "cn=a,dc=x", true),
            ("cn=a=b,dc=x", r"cn=a\=b,dc=x", true),
            ("cn=a,dc=x", "ou=a,dc=x", false),
            ("cn=,dc=x", "cn=,dc=x", true),
        ] {
            assert_eq!(dn(one) == dn(other), same, "{one} {other}");
        }
    }

    #[test]
    fn within_a_subtree() {
        for (object, base, within) in [
            ("uid=a,ou=school,dc=example,dc=org", "OU=School,dc=example,dc=org", true),
            ("ou=school,dc=example,dc=org", "ou=school,dc=example,dc=org", true),
            ("dc=example,dc=org", "ou=school,dc=example,dc=org", false),
            ("uid=a,ou=preschool,dc=example,dc=org", "ou=school,dc=example,dc=org", false),
            (r"uid=a\,ou=school,dc=org", "ou=school,dc=org", false),
        ] {
            assert_eq!(dn(object).is_within(&dn(base)), within, "{object} {base}");
        }
    }

    #[test]
    fn objects_are_found_although_their_names_are_not_well_escaped() {
        let school = dn("ou=school,dc=x");
        let odd = "cn=\"a\" <b>; c,ou=school,dc=x";
        assert_eq!(odd.parse::<Dn>(), Err(DnError::Special));
        assert!(Dn::of_object(odd).is_some_and(|dn| dn.is_within(&school)));
        assert_eq!(Dn::of_object("no dn"), None);
    }

    #[test]
    fn what_is_no_dn() {
        for (text, error) in [
            ("", DnError::Empty),
            ("cn=a,", DnError::Empty),
            (",cn=a", DnError::Empty),
            ("cn=a,,dc=x", DnError::Empty),
            ("cn=a+,dc=x", DnError::Empty),
            ("anna", DnError::NoAttribute),
            ("=a,dc=x", DnError::NoAttribute),
            ("c n=a", DnError::NoAttribute),
            (r"cn=a\", DnError::Escape),
            (r"cn=a\x,dc=x", DnError::Escape),
            (r"cn=a\4,dc=x", DnError::Escape),
            ("cn=\"a\"", DnError::Special),
            ("cn=a;dc=x", DnError::Special),
            ("cn=#4", DnError::Hex),
            ("cn=#", DnError::Hex),
            ("cn=#xy", DnError::Hex),
        ] {
            assert_eq!(text.parse::<Dn>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_first_part() {
        for (text, first, container, value) in [
            ("uid=anna,dc=x", "uid=anna", Some("dc=x"), Some("anna")),
            (r"cn=a\,b,ou=y,dc=x", r"cn=a\,b", Some("ou=y,dc=x"), Some("a,b")),
            ("dc=x", "dc=x", None, Some("x")),
            ("cn=a+uid=b,dc=x", "cn=a+uid=b", Some("dc=x"), Some("a")),
            ("", "", None, None),
            (r"cn=\ff,dc=x", r"cn=\ff", Some("dc=x"), None),
        ] {
            assert_eq!(Dn::split_first(text), (first, container), "{text}");
            assert_eq!(Dn::first_value(text).as_deref(), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_value_can_be_escaped_and_nothing_panics(value in "\\PC{0,12}", junk in "[\\\\,+=#;a-f0-9 ü]{0,16}") {
            let escaped: String = value.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            let text = format!("cn={escaped},dc=x");
            prop_assert_eq!(Dn::first_value(&text), Some(value));
            prop_assert!(text.parse::<Dn>().is_ok_and(|dn| dn.is_within(&"DC=X".parse().unwrap())));
            _ = junk.parse::<Dn>();
            _ = Dn::first_value(&junk);
        }
    }
}
