//! Distinguished names (RFC 4514): taken apart, compared as the directory compares them.

use std::{fmt::Write as _, str::FromStr};

use crate::string_prep::{attribute_name, prepared};

/// A DN in one form for each object: one name of each attribute type, values prepared for comparison (RFC 4518),
/// escapes undone, the parts of an RDN in one order. This is the one equality of DNs.
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

    /// One text for each object, however its DN is written; of what is no DN, itself.
    #[must_use]
    pub fn key(text: &str) -> String {
        let Some(dn) = Self::of_object(text) else { return text.to_owned() };
        let mut key = String::with_capacity(text.len());
        for rdn in &dn.rdns {
            for (index, (attribute, value)) in rdn.iter().enumerate() {
                _ = write!(key, "{}{attribute}=", if index == 0 { ',' } else { '+' });
                match std::str::from_utf8(value) {
                    Ok(text) => escape(text, &mut key),
                    Err(_) => value.iter().for_each(|byte| _ = write!(key, "\\{byte:02x}")),
                }
            }
        }
        key
    }

    /// The value in front of a DN as people write it, escapes undone: `anna` of `uid=anna,dc=example`; several of one
    /// RDN with `+` between them. `None` if the text does not begin like a DN, or the value is no text.
    #[must_use]
    pub fn name(text: &str) -> Option<String> {
        let first = split(text, b',').next()?;
        let value = |part| {
            let (_, value) = ava(part, false).ok()?;
            String::from_utf8(value).ok().filter(|text| !text.starts_with('\0'))
        };
        split(first, b'+').map(value).collect::<Option<Vec<_>>>().map(|values| values.join("+"))
    }

    /// The DN of the container, with a backslash before each special character, as UDM writes it; `None` of what has
    /// no container or is no DN.
    #[must_use]
    pub fn container(text: &str) -> Option<String> {
        let mut container = String::with_capacity(text.len());
        for rdn in split(text, b',').skip(1) {
            for (index, part) in split(rdn, b'+').enumerate() {
                let (attribute, value) = ava(part, false).ok()?;
                if index > 0 {
                    container.push('+');
                } else if !container.is_empty() {
                    container.push(',');
                }
                _ = write!(container, "{attribute}=");
                match String::from_utf8(value) {
                    Ok(text) if !text.starts_with('\0') => escape(&text, &mut container),
                    _ => container.push_str(part.split_once('=')?.1.trim()),
                }
            }
        }
        (!container.is_empty()).then_some(container)
    }
}

/// Writes a value with its special characters behind a backslash.
fn escape(value: &str, out: &mut String) {
    for (at, c) in value.char_indices() {
        let edge = at == 0 && matches!(c, ' ' | '#') || c == ' ' && at + 1 == value.len();
        if edge || matches!(c, '\\' | ',' | '+' | '"' | '<' | '>' | ';' | '=') {
            out.push('\\');
        }
        if c == '\0' {
            out.push_str("\\00");
        } else {
            out.push(c);
        }
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
    let (attribute, value) = ava(text, strict)?;
    // What is no text is compared byte by byte.
    let value = match String::from_utf8(value) {
        Ok(text) => match text.strip_prefix('\0') {
            None => prepared(&text).into_bytes(),
            Some(hex) => encoded(hex),
        },
        Err(bytes) => bytes.into_bytes(),
    };
    Ok((attribute_name(attribute).into_owned(), value))
}

/// Attribute and value of one part of an RDN as they stand there, escapes undone. A value in hexadecimal digits comes
/// as these, behind NUL, which keeps it apart from texts.
fn ava(text: &str, strict: bool) -> Result<(&str, Vec<u8>), DnError> {
    if text.trim_ascii().is_empty() {
        return Err(DnError::Empty);
    }
    let (attribute, value) = text.split_once('=').ok_or(DnError::NoAttribute)?;
    let attribute = attribute.trim_ascii();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if attribute.is_empty() || !attribute.bytes().all(plain) {
        return Err(DnError::NoAttribute);
    }
    Ok((attribute, unescape(trimmed(value), strict)?))
}

/// A value in hexadecimal digits is the encoding (BER) of one: that of a string is the same as the string itself.
fn encoded(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2);
    let bytes: Vec<u8> = digits.filter_map(|pair| hex_pair(*pair.first()?, *pair.last()?)).collect();
    let content = match &*bytes {
        // Octets, UTF-8, printable and IA5 string.
        [0x04 | 0x0c | 0x13 | 0x16, length, content @ ..]
            if *length < 0x80 && usize::from(*length) == content.len() =>
        {
            std::str::from_utf8(content).ok()
        }
        _ => None,
    };
    match content {
        Some(text) => prepared(text).into_bytes(),
        None => format!("\0{}", hex.to_ascii_lowercase()).into_bytes(),
    }
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
            ("cn=Schu\u{308}ler,dc=x", "cn=Schüler,dc=x", true),
            ("commonName=a,0.9.2342.19200300.100.1.25=x", "2.5.4.3=A,DC=x", true),
            ("OID.2.5.4.3=a,dc=x", "cn=a,dc=x", true),
            (r"cn=a\2Cb\2b,dc=x", r"cn=a\,b\+,dc=x", true),
            (r"cn=\E2\84\A2,dc=x", "cn=tm,dc=x", true),
            ("cn=#0C0141,dc=x", "cn=a,dc=x", true),
            ("cn=#0C0241,dc=x", "cn=a,dc=x", false),
            ("cn=a   ,dc=x  ", "cn=a,dc=x", true),
            ("cn=Straße,dc=x", "cn=Strasse,dc=x", false),
            ("ou=a+cn=b+uid=c,dc=x", "uid=c + cn=b + ou=a,dc=x", true),
            (r"cn=\ff,dc=x", r"cn=\FF,dc=x", true),
            ("cn=a,dc=x", "cn=a,dc=y", false),
        ] {
            assert_eq!(dn(one) == dn(other), same, "{one} {other}");
            assert_eq!(Dn::key(one) == Dn::key(other), same, "{one} {other}");
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
    fn name_and_container() {
        for (text, name, container) in [
            ("uid=anna,dc=x", Some("anna"), Some("dc=x")),
            (r"cn=a\,b,ou=y,dc=x", Some("a,b"), Some("ou=y,dc=x")),
            ("dc=x", Some("x"), None),
            ("cn=a+uid=b, dc=x ", Some("a+b"), Some("dc=x")),
            ("", None, None),
            (r"cn=\ff,dc=x", None, Some("dc=x")),
            (r"uid=a,ou=a\2Cb\2Bc,ou=\20x\20,dc=y", Some("a"), Some(r"ou=a\,b\+c,ou=\ x\ ,dc=y")),
            (r"uid=a,ou=\3Cx\3E,cn=#0c0141,cn=\ff", Some("a"), Some(r"ou=\<x\>,cn=#0c0141,cn=\ff")),
            (r#"uid=a,ou=M\C3\BCller+cn="q""#, Some("a"), Some(r#"ou=Müller+cn=\"q\""#)),
        ] {
            assert_eq!(Dn::name(text).as_deref(), name, "{text}");
            assert_eq!(Dn::container(text).as_deref(), container, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_value_can_be_escaped_and_nothing_panics(value in "\\PC{0,12}", junk in "[\\\\,+=#;a-f0-9 ü]{0,16}") {
            let escaped: String = value.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            let text = format!("cn={escaped},dc=x");
            if !value.starts_with('\0') {
                prop_assert_eq!(Dn::name(&text), Some(value));
            }
            prop_assert!(text.parse::<Dn>().is_ok_and(|dn| dn.is_within(&"DC=X".parse().unwrap())));
            _ = junk.parse::<Dn>();
            _ = Dn::name(&junk);
            // What UDM would write is the same container.
            if let (Some(container), Some((_, rest))) = (Dn::container(&junk), junk.split_once(','))
                && !rest.is_empty()
                && let Some(dn) = Dn::of_object(rest)
                && !junk.split_once(',').is_some_and(|(first, _)| first.ends_with('\\'))
            {
                prop_assert_eq!(Dn::of_object(&container), Some(dn));
            }
        }
    }
}
