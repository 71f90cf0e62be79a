//! Texts prepared for comparison, as the directory prepares them (RFC 4518), and the one name of each attribute type.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

/// A text in the one form of all texts that `caseIgnoreMatch` takes for equal: small letters, NFKC, single spaces, none
/// at the ends, without characters that are not seen.
///
/// `ß` stays: OpenLDAP tells it from `ss`, so two entries may differ by it.
pub(crate) fn prepared(text: &str) -> String {
    let folded = folded(text);
    let mut prepared = String::with_capacity(folded.len());
    for word in folded.split(' ').filter(|word| !word.is_empty()) {
        if !prepared.is_empty() {
            prepared.push(' ');
        }
        prepared.push_str(word);
    }
    prepared
}

/// A prepared value as parts of it are looked for in it: a space at each end, and two between words, so that a part
/// may end within them (RFC 4518, 2.6.1).
pub(crate) fn spaced(prepared: &str) -> String {
    format!(" {} ", prepared.replace(' ', "  "))
}

/// A part of a value, to be found in one that is [`spaced`].
pub(crate) fn prepared_part(text: &str, is_begin: bool, is_end: bool) -> String {
    if text.is_empty() {
        return String::new();
    }
    let folded = folded(text);
    let words = prepared(&folded).replace(' ', "  ");
    let before = if is_begin || folded.starts_with(' ') { " " } else { "" };
    let behind = if (is_end || folded.ends_with(' ')) && !words.is_empty() { " " } else { "" };
    format!("{before}{words}{behind}")
}

/// As [`prepared`], without spaces and hyphens (`telephoneNumberMatch`).
pub(crate) fn prepared_number(text: &str) -> String {
    let mut number = prepared(text);
    number.retain(|c| !matches!(c, ' ' | '-' | '\u{2010}' | '\u{2011}' | '\u{2212}'));
    number
}

/// Small letters, normalized; every space is U+0020.
fn folded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        };
    }
    let nfkc = const { ComposingNormalizerBorrowed::new_nfkc() };
    // Before: what is not seen may stand between a letter and its accent. After: NFKC makes capital letters, of ™ for
    // instance, and small ones that can be put together.
    let seen: String = text.chars().filter_map(mapped).collect();
    let small: String = nfkc.normalize(&seen).chars().filter_map(mapped).flat_map(small).collect();
    Cow::Owned(nfkc.normalize(&small).into_owned())
}

fn small(c: char) -> impl Iterator<Item = char> {
    let c = if c == 'ς' { 'σ' } else { c };
    c.to_lowercase()
}

/// RFC 4518, 2.2: what is mapped to a space, and (`None`) to nothing.
fn mapped(c: char) -> Option<char> {
    match c {
        c if c.is_whitespace() => Some(' '),
        '\u{ad}' | '\u{34f}' | '\u{6dd}' | '\u{70f}' | '\u{1806}' | '\u{180b}'..='\u{180e}' => None,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2063}' => None,
        '\u{206a}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' => None,
        '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}' => None,
        c if c.is_control() => None,
        c => Some(c),
    }
}

/// A letter in ASCII, without its accents; empty of what has none.
#[must_use]
pub fn without_accents(c: char) -> String {
    let nfkd = const { DecomposingNormalizerBorrowed::new_nfkd() };
    let mut ascii = nfkd.normalize(c.encode_utf8(&mut [0; 4])).into_owned();
    ascii.retain(|c| c.is_ascii());
    ascii
}

/// The names of attribute types that have several (RFC 4519, RFC 4524, RFC 2798), the one that we use first, in small
/// letters.
const TYPES: &[&[&str]] = &[
    &["c", "countryname", "2.5.4.6"],
    &["cn", "commonname", "2.5.4.3"],
    &["co", "friendlycountryname", "0.9.2342.19200300.100.1.43"],
    &["dc", "domaincomponent", "0.9.2342.19200300.100.1.25"],
    &["departmentnumber", "2.16.840.1.113730.3.1.2"],
    &["description", "2.5.4.13"],
    &["displayname", "2.16.840.1.113730.3.1.241"],
    &["email", "emailaddress", "pkcs9email", "1.2.840.113549.1.9.1"],
    &["employeenumber", "2.16.840.1.113730.3.1.3"],
    &["employeetype", "2.16.840.1.113730.3.1.4"],
    &["entryuuid", "1.3.6.1.1.16.4"],
    &["facsimiletelephonenumber", "fax", "2.5.4.23"],
    &["gidnumber", "1.3.6.1.1.1.1.1"],
    &["givenname", "gn", "2.5.4.42"],
    &["homedirectory", "1.3.6.1.1.1.1.3"],
    &["homephone", "hometelephonenumber", "0.9.2342.19200300.100.1.20"],
    &["homepostaladdress", "0.9.2342.19200300.100.1.39"],
    &["initials", "2.5.4.43"],
    &["jpegphoto", "0.9.2342.19200300.100.1.60"],
    &["l", "localityname", "2.5.4.7"],
    &["loginshell", "1.3.6.1.1.1.1.4"],
    &["mail", "rfc822mailbox", "0.9.2342.19200300.100.1.3"],
    &["memberof", "1.2.840.113556.1.2.102"],
    &["memberuid", "1.3.6.1.1.1.1.12"],
    &["mobile", "mobiletelephonenumber", "0.9.2342.19200300.100.1.41"],
    &["o", "organizationname", "2.5.4.10"],
    &["objectclass", "2.5.4.0"],
    &["ou", "organizationalunitname", "2.5.4.11"],
    &["pager", "pagertelephonenumber", "0.9.2342.19200300.100.1.42"],
    &["physicaldeliveryofficename", "2.5.4.19"],
    &["postalcode", "2.5.4.17"],
    &["postofficebox", "2.5.4.18"],
    &["preferredlanguage", "2.16.840.1.113730.3.1.39"],
    &["roomnumber", "0.9.2342.19200300.100.1.6"],
    &["secretary", "0.9.2342.19200300.100.1.21"],
    &["serialnumber", "2.5.4.5"],
    &["sn", "surname", "2.5.4.4"],
    &["st", "stateorprovincename", "2.5.4.8"],
    &["street", "streetaddress", "2.5.4.9"],
    &["telephonenumber", "2.5.4.20"],
    &["title", "2.5.4.12"],
    &["uid", "userid", "0.9.2342.19200300.100.1.1"],
    &["uidnumber", "1.3.6.1.1.1.1.0"],
    &["uniquemember", "2.5.4.50"],
    &["usercertificate", "2.5.4.36"],
    &["userpassword", "2.5.4.35"],
    &["userpkcs12", "2.16.840.1.113730.3.1.216"],
];

/// The first name of each type, by any of its names.
static FIRST: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let names = TYPES.iter().flat_map(|names| names.iter().filter_map(|name| Some((*name, *names.first()?))));
    names.collect()
});

/// The one name of an attribute type, in small letters: `cn` of `commonName`, `2.5.4.3` and `OID.2.5.4.3`. With
/// options (RFC 4512, 2.5) it is another attribute; these follow in one order.
#[must_use]
pub fn attribute_name(name: &str) -> Cow<'static, str> {
    let small = name.trim_ascii().to_ascii_lowercase();
    let (base, options) = small.split_once(';').map_or((small.as_str(), None), |(b, o)| (b, Some(o)));
    let base = base.strip_prefix("oid.").unwrap_or(base);
    let known = FIRST.get(base).copied();
    match (known, options) {
        (Some(known), None) => Cow::Borrowed(known),
        (known, options) => {
            let mut options: Vec<&str> =
                options.iter().flat_map(|all| all.split(';')).filter(|option| !option.is_empty()).collect();
            options.sort_unstable();
            options.dedup();
            let mut name = known.unwrap_or(base).to_owned();
            for option in options {
                name.push(';');
                name.push_str(option);
            }
            Cow::Owned(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_the_directory_takes_for_equal() {
        for (one, other, same) in [
            ("Anna Meier", "anna meier", true),
            ("  Anna \t  Meier ", "anna meier", true),
            ("Müller", "mu\u{308}ller", true),
            ("MÜLLER", "müller", true),
            ("ﬁnal", "FINAL", true),
            ("Ⅳ", "iv", true),
            ("ＡＢＣ", "abc", true),
            ("a\u{ad}b\u{200b}c", "abc", true),
            ("a\u{a0}b\u{2003}c", "a b c", true),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευς", true),
            ("a\0b", "ab", true),
            ("u\u{200d}\u{308}", "ü", true),
            ("Straße", "Strasse", false),
            ("Å", "A", false),
            ("a b", "ab", false),
        ] {
            assert_eq!(prepared(one) == prepared(other), same, "{one:?} {other:?}");
        }
        assert_eq!(prepared(" \u{ad} "), "");
        assert_eq!(['é', 'ﬁ', 'я'].map(without_accents), ["e", "fi", ""]);
    }

    #[test]
    fn parts_are_found_wherever_spaces_allow_it() {
        for (value, begin, between, end, found) in [
            ("Anna  Meier ", "anna", "", "", true),
            ("Anna Meier", "anna  ", "", " m", false),
            ("Anna Meier", "anna ", "", " meier", true),
            ("Anna Meier", "  anna", " ", "meier", true),
            ("Anna Meier", "", "na  me", "", true),
            ("Anna Meier", "", "nna meierx", "", false),
            ("AnnaMeier", "anna ", "", "", false),
        ] {
            let value = spaced(&prepared(value));
            let rest = value.strip_prefix(&prepared_part(begin, true, false));
            let rest = rest.and_then(|rest| rest.split_once(&prepared_part(between, false, false)));
            let all = rest.is_some_and(|(_, rest)| rest.ends_with(&prepared_part(end, false, true)));
            assert_eq!(all, found, "{value:?} {begin:?} {between:?} {end:?}");
        }
        assert_eq!(prepared_number("+49 (0)30-3\u{2010}4"), "+49(0)3034");
    }

    #[test]
    fn types_have_one_name() {
        for (name, expected) in [
            ("CN", "cn"),
            ("commonName", "cn"),
            ("2.5.4.3", "cn"),
            ("OID.2.5.4.3", "cn"),
            ("0.9.2342.19200300.100.1.1", "uid"),
            ("surname;Lang-DE", "sn;lang-de"),
            ("userCertificate;x-b;binary;binary", "usercertificate;binary;x-b"),
            ("oxTimeZone", "oxtimezone"),
            ("1.2.3", "1.2.3"),
        ] {
            assert_eq!(attribute_name(name), expected);
        }
        for names in TYPES {
            assert_eq!(TYPES.iter().filter(|other| other.iter().any(|n| names.contains(n))).count(), 1);
        }
    }
}
