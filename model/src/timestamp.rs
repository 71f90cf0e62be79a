//! Points in time as the wire contract writes them: Python's `datetime.isoformat()`.

use std::{fmt, str::FromStr};

use jiff::{civil, tz::Offset};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// `YYYY-MM-DDTHH:MM:SS[.ffffff][±HH:MM]`: six fraction digits or none, UTC as `+00:00`, no offset when the
/// producer gave none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(String);

/// The text is no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a date and time: use RFC 3339 such as 2026-01-31T12:00:00+00:00, or unix seconds")]
pub struct TimestampError;

/// Numbers above this are milliseconds, below it seconds (the rule of the software we replace).
const SECONDS_LIMIT: f64 = 2e10;

impl Timestamp {
    /// A UTC instant.
    #[must_use]
    pub fn from_utc(instant: jiff::Timestamp) -> Self {
        Self(render(Offset::UTC.to_datetime(instant), Some(Offset::UTC)))
    }

    /// A UTC instant without its offset: how a prefill's messages have always been stamped.
    #[must_use]
    pub fn naive_utc(instant: jiff::Timestamp) -> Self {
        Self(render(Offset::UTC.to_datetime(instant), None))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instant; a timestamp without offset is taken as UTC.
    #[must_use]
    pub fn instant(&self) -> Option<jiff::Timestamp> {
        let (datetime, offset) = parse_iso(&self.0)?;
        offset.unwrap_or(Offset::UTC).to_timestamp(datetime).ok()
    }

    fn from_unix(number: f64) -> Result<Self, TimestampError> {
        if !number.is_finite() {
            return Err(TimestampError);
        }
        let seconds = if number.abs() > SECONDS_LIMIT { number / 1000.0 } else { number };
        #[allow(clippy::cast_possible_truncation)] // a float of that size is refused by jiff, not wrapped
        let micros = (seconds * 1e6).round() as i64;
        jiff::Timestamp::from_microsecond(micros).map(Self::from_utc).map_err(|_| TimestampError)
    }
}

fn render(at: civil::DateTime, offset: Option<Offset>) -> String {
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    let micros = at.subsec_nanosecond() / 1000;
    if micros > 0 {
        text.push_str(&format!(".{micros:06}"));
    }
    if let Some(offset) = offset {
        let seconds = offset.seconds();
        let (sign, seconds) = if seconds < 0 { ('-', -seconds) } else { ('+', seconds) };
        text.push_str(&format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60));
    }
    text
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let text = text.trim();
        if let Some((at, offset)) = parse_iso(text) {
            return Ok(Self(render(at, offset)));
        }
        text.parse::<f64>().map_err(|_| TimestampError).and_then(Self::from_unix)
    }
}

fn parse_iso(text: &str) -> Option<(civil::DateTime, Option<Offset>)> {
    let date: civil::Date = {
        let text = text.get(..10)?;
        let mut parts = text.split('-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let digits = [year, month, day].iter().all(|p| p.bytes().all(|b| b.is_ascii_digit()));
        if parts.next().is_some() || !digits || year.len() != 4 || month.len() != 2 || day.len() != 2 {
            return None;
        }
        civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?
    };
    let Some(rest) = text.get(10..).filter(|r| !r.is_empty()) else {
        return Some((date.to_datetime(civil::Time::midnight()), None));
    };
    let rest = rest.strip_prefix(['T', 't', ' ', '_'])?;
    let (clock, offset) = match rest.find(['Z', 'z', '+', '-']) {
        None => (rest, None),
        Some(at) => (rest[..at].trim_end(), Some(parse_offset(&rest[at..])?)),
    };
    Some((date.to_datetime(parse_clock(clock)?), offset))
}

fn parse_clock(text: &str) -> Option<civil::Time> {
    let mut parts = text.split(':');
    let (hour, minute) = (two_digits(parts.next()?)?, two_digits(parts.next()?)?);
    let (second, nanos) = match parts.next() {
        None => (0, 0),
        Some(text) => {
            let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
            let digits = fraction.bytes().all(|b| b.is_ascii_digit());
            if !digits || (fraction.is_empty() && whole.len() != text.len()) {
                return None;
            }
            // Cut to microseconds, as Python does.
            let micros: i32 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
            (two_digits(whole)?, micros * 1000)
        }
    };
    if parts.next().is_some() {
        return None;
    }
    civil::Time::new(hour, minute, second, nanos).ok()
}

fn parse_offset(text: &str) -> Option<Offset> {
    if text.eq_ignore_ascii_case("z") {
        return Some(Offset::UTC);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text.get(1..)?.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = match digits.len() {
        2 => (two_digits(&digits)?, 0),
        4 => (two_digits(&digits[..2])?, two_digits(&digits[2..])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60)).ok()
}

fn two_digits(text: &str) -> Option<i8> {
    (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// A string in any form of [`FromStr`], or a number of unix seconds or milliseconds.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Input {
            Text(String),
            Number(f64),
        }
        match Input::deserialize(deserializer).map_err(|_| de::Error::custom(TimestampError))? {
            Input::Text(text) => text.parse(),
            Input::Number(number) => Self::from_unix(number),
        }
        .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_producers_send_is_written_as_python_would() {
        for (input, expected) in [
            ("2024-02-07T09:01:33.835Z", "2024-02-07T09:01:33.835000+00:00"),
            ("2026-11-23T21:42:57.228964", "2026-11-23T21:42:57.228964"),
            ("2024-02-07 09:01:33", "2024-02-07T09:01:33"),
            ("2024-02-07T09:01", "2024-02-07T09:01:00"),
            ("2024-02-07", "2024-02-07T00:00:00"),
            ("2024-02-07T09:01:33+0530", "2024-02-07T09:01:33+05:30"),
            ("2024-02-07T09:01:33-03:30", "2024-02-07T09:01:33-03:30"),
            ("2024-02-07T09:01:33.123456789Z", "2024-02-07T09:01:33.123456+00:00"),
            ("2024-02-07T09:01:33.000000+00:00", "2024-02-07T09:01:33+00:00"),
            ("1707296493", "2024-02-07T09:01:33+00:00"),
            ("1707296493835", "2024-02-07T09:01:33.835000+00:00"),
        ] {
            assert_eq!(input.parse::<Timestamp>().map(|t| t.0), Ok(expected.to_owned()), "{input}");
        }
        let number: Timestamp = serde_json::from_str("1707296493.5").unwrap();
        assert_eq!(number.as_str(), "2024-02-07T09:01:33.500000+00:00");
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "now",
            "2024-13-01",
            "2024-02-30T00:00:00",
            "2024-2-7",
            "2024-02-07T",
            "2024-02-07T9:01",
            "2024-02-07T09:01:33.",
            "2024-02-07T09:01:33+5",
            "2024-02-07T24:00:00",
            "nan",
            "inf",
            "1e300",
            "2024-02-07X09:01",
            "2024-02-07T09:01:33+24:00",
            "ä024-02-07",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(TimestampError), "{bad:?}");
        }
        assert!(serde_json::from_str::<Timestamp>("true").is_err());
    }

    proptest! {
        #[test]
        fn written_once_it_is_read_back_the_same(micros in -62_135_596_800_000_000i64..253_402_207_200_000_000) {
            let at = Timestamp::from_utc(jiff::Timestamp::from_microsecond(micros).unwrap());
            prop_assert_eq!(at.as_str().parse::<Timestamp>().unwrap(), at.clone());
            prop_assert_eq!(at.instant().unwrap().as_microsecond(), micros);
        }

        #[test]
        fn any_text_is_answered_without_a_panic(text in "\\PC{0,40}") {
            let _answer = text.parse::<Timestamp>();
        }
    }
}
