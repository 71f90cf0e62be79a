//! How UDM shows the values of an attribute.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{text_of, time};

/// How a property of UDM's own modules shows an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    /// The first value; `null` if there is none.
    Text,
    /// As `Text`, in small letters.
    Lower,
    /// All values.
    Texts,
    /// The first value, as a whole number.
    Number,
    /// As `Text`: a date.
    Date,
    /// In base64: it need not be text. One value alone, several as a list.
    Base64,
    /// The last part of a SID, as a number.
    Rid,
    /// Texts with commas between them.
    Split,
    /// `street$zip$city`.
    Addresses,
    /// `key=value`.
    Pairs,
    /// The hours of a week, as bits.
    Hours,
    /// A time of Windows; `0` for none.
    FileTime,
}

impl As {
    /// Is what it shows text?
    pub fn is_text(self) -> bool {
        self != Self::Base64
    }

    pub fn shown(self, values: &[&[u8]]) -> Value {
        let first = values.first().copied();
        let one = |show: &dyn Fn(&[u8]) -> Value| first.map_or(Value::Null, show);
        match self {
            Self::Text => one(&|value| text_of(value).into()),
            Self::Lower => one(&|value| text_of(value).to_lowercase().into()),
            Self::Texts => values.iter().map(|value| text_of(value)).collect(),
            Self::Number => one(&|value| number(&text_of(value))),
            Self::Date => one(&|value| date(&text_of(value))),
            Self::Base64 => match values {
                [] => Value::Null,
                [one] => STANDARD.encode(one).into(),
                several => several.iter().map(|value| STANDARD.encode(value)).collect(),
            },
            Self::Rid => one(&|value| {
                let sid = text_of(value);
                number(sid.rsplit('-').next().unwrap_or_default())
            }),
            Self::Split => match first {
                None => json!([]),
                Some(value) => text_of(value).split(',').collect(),
            },
            Self::Addresses => values.iter().map(|value| address(&text_of(value))).collect(),
            Self::Pairs => {
                let pair = |value: &&[u8]| {
                    let text = text_of(value);
                    let (key, value) = text.split_once('=').unwrap_or((&text, ""));
                    (key.to_owned(), Value::from(value))
                };
                Value::Object(values.iter().map(pair).collect::<Map<_, _>>())
            }
            Self::Hours => one(&|value| hours(value).unwrap_or_else(|| text_of(value).into())),
            Self::FileTime => one(&|value| {
                let text = text_of(value);
                text.trim().parse().ok().and_then(time::of_windows).unwrap_or(text).into()
            }),
        }
    }
}

/// The syntax of an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Text,
    /// `1`, and all else is false where it is not set.
    Boolean,
    /// These words are true and false.
    States(&'static str, &'static str),
    Integer,
    Date,
    /// Never shown.
    Password,
    /// It need not be text.
    Binary,
}

impl Syntax {
    /// The syntax that UDM knows by this name; what it does not know, and what is made of several parts, is text.
    pub fn named(name: &str) -> Self {
        match name {
            "boolean" => Self::Boolean,
            "AppActivatedBoolean" | "disabled" | "locked" => Self::States("1", "0"),
            "TrueFalseUp" | "TrueFalseUpper" | "AppActivatedTrue" => Self::States("TRUE", "FALSE"),
            "TrueFalse" => Self::States("true", "false"),
            "OkOrNot" | "AppActivatedOK" => Self::States("OK", "Not"),
            "AllowDeny" => Self::States("allow", "deny"),
            "booleanNone" => Self::States("yes", "no"),
            "ddnsUpdates" => Self::States("on", "off"),
            "integer" | "integerOrEmpty" | "UserID" | "GroupID" => Self::Integer,
            "iso8601Date" | "date" | "date2" => Self::Date,
            "passwd" | "userPasswd" => Self::Password,
            "Upload" | "jpegPhoto" => Self::Binary,
            _ => Self::Text,
        }
    }

    /// Is what it shows text?
    pub fn is_text(self) -> bool {
        !matches!(self, Self::Binary | Self::Password)
    }

    pub fn shown(self, value: &[u8]) -> Value {
        let text = text_of(value);
        match self {
            Self::Password => Value::Null,
            Self::Text => text.into(),
            Self::Binary => STANDARD.encode(value).into(),
            Self::Integer => number(&text),
            Self::Date => date(&text),
            Self::Boolean => match &*text {
                "1" => true.into(),
                "0" | "" => false.into(),
                // UDM shows what it does not understand as it is.
                _ => text.into(),
            },
            Self::States(on, off) => match &*text {
                text if text == on => true.into(),
                text if text == off => false.into(),
                "" => Value::Null,
                _ => text.into(),
            },
        }
    }
}

/// A whole number; what is none stays text.
fn number(text: &str) -> Value {
    let trimmed = text.trim();
    match (trimmed.parse::<i64>(), trimmed.parse::<u64>()) {
        (Ok(number), _) => number.into(),
        (_, Ok(number)) => number.into(),
        _ => text.into(),
    }
}

/// `2030-12-31`, which may be written without hyphens or in the German way; what is no date stays text.
fn date(text: &str) -> Value {
    let digits =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<i16>().ok())?;
    let parts = |text: &str| -> Option<(i16, i16, i16)> {
        if text.len() == 8 && text.is_ascii() && !text.contains('.') {
            return Some((digits(&text[..4])?, digits(&text[4..6])?, digits(&text[6..])?));
        }
        let german = text.split('.').map(digits).collect::<Option<Vec<_>>>();
        if let Some(&[day, month, year]) = german.as_deref() {
            // As UDM: two digits are of 1970 to 2069.
            let year = match year {
                0..70 => 2000 + year,
                70..100 => 1900 + year,
                _ => year,
            };
            return Some((year, month, day));
        }
        match text.split('-').map(digits).collect::<Option<Vec<_>>>().as_deref() {
            Some(&[year, month, day]) => Some((year, month, day)),
            _ => None,
        }
    };
    if text.is_empty() {
        return Value::Null;
    }
    let date = parts(text).and_then(|(year, month, day)| {
        jiff::civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
    });
    date.map_or_else(|| text.into(), |date| date.to_string().into())
}

/// What has no `$` is a street.
fn address(text: &str) -> Value {
    if !text.contains('$') {
        return json!({"street": text, "zipcode": " ", "city": " "});
    }
    let mut parts = text.split('$');
    json!({"street": parts.next(), "zipcode": parts.next(), "city": parts.next()})
}

/// A bit for each hour, Sunday first, the lowest bit of each byte first. `None`: it is not in hexadecimal digits.
fn hours(hex: &[u8]) -> Option<Value> {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    let mut hours = Vec::new();
    for (index, pair) in hex.get(..42.min(hex.len()))?.chunks(2).enumerate() {
        // What is too short goes on with zeros.
        let digits = format!("{}{}", char::from(*pair.first()?), char::from(*pair.get(1).unwrap_or(&b'0')));
        let byte = u8::from_str_radix(&digits, 16).ok()?;
        for bit in (0..8).filter(|bit| byte & 1 << bit != 0) {
            let (day, hour) = ((index * 8 + bit) / 24, (index * 8 + bit) % 24);
            hours.push(format!("{} {hour}-{}", DAYS.get(day)?, hour + 1));
        }
    }
    Some(hours.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_udm_shows_them() {
        for (how, values, expected) in [
            (As::Text, &[][..], Value::Null),
            (As::Text, &["a", "b"], json!("a")),
            (As::Lower, &["A@X.org"], json!("a@x.org")),
            (As::Texts, &["a", "b"], json!(["a", "b"])),
            (As::Number, &["2003"], json!(2003)),
            (As::Number, &["18446744073709551615"], json!(u64::MAX)),
            (As::Number, &["-3"], json!(-3)),
            (As::Number, &["abc"], json!("abc")),
            (As::Date, &["1980-02-09"], json!("1980-02-09")),
            (As::Date, &["19800209"], json!("1980-02-09")),
            (As::Date, &["31.12.80"], json!("1980-12-31")),
            (As::Date, &["31.02.80"], json!("31.02.80")),
            (As::Date, &["01/31/2026"], json!("01/31/2026")),
            (As::Base64, &["a"], json!("YQ==")),
            (As::Base64, &["a", "b"], json!(["YQ==", "Yg=="])),
            (As::Rid, &["S-1-5-21-1-5006"], json!(5006)),
            (As::Split, &["pc1,pc2 ,"], json!(["pc1", "pc2 ", ""])),
            (As::Split, &[], json!([])),
            (As::Addresses, &[], json!([])),
            (
                As::Addresses,
                &["Weg 5$12345$Köln"],
                json!([{"street": "Weg 5", "zipcode": "12345", "city": "Köln"}]),
            ),
            (As::Addresses, &["Weg 5"], json!([{"street": "Weg 5", "zipcode": " ", "city": " "}])),
            (As::Addresses, &["a$b"], json!([{"street": "a", "zipcode": "b", "city": null}])),
            (As::Addresses, &["a$b$c$d"], json!([{"street": "a", "zipcode": "b", "city": "c"}])),
            (As::Pairs, &["favorites=a,b", "x=y=z"], json!({"favorites": "a,b", "x": "y=z"})),
            (As::Pairs, &[], json!({})),
            (As::Hours, &["000000000000000000000000000000000000000000"], json!([])),
            (As::Hours, &["010000000000000000000000000000000000000080"], json!(["Sun 0-1", "Sat 23-24"])),
            (As::Hours, &["0000000300"], json!(["Mon 0-1", "Mon 1-2"])),
            (As::Hours, &["zz"], json!("zz")),
            (As::FileTime, &["0"], json!("0")),
            (As::FileTime, &["133801632000000000"], json!("20250101000000Z")),
        ] {
            let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(how.shown(&values), expected, "{how:?} {values:?}");
        }
    }

    #[test]
    fn syntaxes_of_extended_attributes() {
        for (syntax, value, expected) in [
            ("string", "1", json!("1")),
            ("boolean", "1", json!(true)),
            ("boolean", "0", json!(false)),
            ("boolean", "maybe", json!("maybe")),
            ("TrueFalseUp", "TRUE", json!(true)),
            ("TrueFalseUp", "FALSE", json!(false)),
            ("TrueFalseUp", "true", json!("true")),
            ("TrueFalse", "", Value::Null),
            ("OkOrNot", "Not", json!(false)),
            ("booleanNone", "yes", json!(true)),
            ("integer", "7", json!(7)),
            ("integer", "seven", json!("seven")),
            ("iso8601Date", "2026-01-31", json!("2026-01-31")),
            ("iso8601Date", "", Value::Null),
            ("UserDN", "uid=a", json!("uid=a")),
            ("passwd", "geheim", Value::Null),
            ("ofAnExtension", "x", json!("x")),
        ] {
            assert_eq!(Syntax::named(syntax).shown(value.as_bytes()), expected, "{syntax} {value}");
        }
        assert_eq!(Syntax::named("jpegPhoto").shown(b"\xff"), json!("/w=="));
    }
}
