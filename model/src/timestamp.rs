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
#[error(
    "not a date and time of the years 1 to 9999: use RFC 3339 such as 2026-01-31T12:00:00+00:00, or unix seconds"
)]
pub struct TimestampError;

/// Years that every reader of a message can read: Python's `datetime` knows no others.
const YEARS: std::ops::RangeInclusive<i16> = 1..=9999;
/// Largest offset in hours: Java's `OffsetDateTime` takes no larger one, and there are none beyond 14.
const LARGEST_OFFSET: i8 = 18;
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
        let instant = jiff::Timestamp::from_microsecond(micros).map_err(|_| TimestampError)?;
        if !YEARS.contains(&Offset::UTC.to_datetime(instant).year()) {
            return Err(TimestampError);
        }
        Ok(Self::from_utc(instant))
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
        if let Some((at, offset)) = parse_iso(text) {
            return Ok(Self(render(at, offset)));
        }
        // Only digits: "1e3", "inf" and " 1" are floats, too.
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) {
            return Err(TimestampError);
        }
        text.parse::<f64>().map_err(|_| TimestampError).and_then(Self::from_unix)
    }
}

/// Does it stay within the years that can be read, also as UTC?
fn is_readable(at: civil::DateTime, offset: Option<Offset>) -> bool {
    let to_utc = jiff::SignedDuration::from_secs(-i64::from(offset.unwrap_or(Offset::UTC).seconds()));
    at.checked_add(to_utc).is_ok_and(|utc| YEARS.contains(&utc.year())) && YEARS.contains(&at.year())
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
        return Some((date.to_datetime(civil::Time::midnight()), None))
            .filter(|(at, _)| is_readable(*at, None));
    };
    let rest = rest.strip_prefix(['T', 't', ' ', '_'])?;
    let (clock, offset) = match rest.find(['Z', 'z', '+', '-']) {
        None => (rest, None),
        Some(at) => (rest[..at].trim_end(), Some(parse_offset(&rest[at..])?)),
    };
    let at = date.to_datetime(parse_clock(clock)?);
    is_readable(at, offset).then_some((at, offset))
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
    let (hours, minutes) = (text.get(1..3)?, text.get(3..)?);
    let minutes = minutes.strip_prefix(':').unwrap_or(minutes);
    // `+05:` is none.
    let minutes = if text.len() == 3 { 0 } else { two_digits(minutes)? };
    let hours = two_digits(hours)?;
    if minutes > 59 || hours > LARGEST_OFFSET || (hours == LARGEST_OFFSET && minutes > 0) {
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
            ("1707296493.25", "2024-02-07T09:01:33.250000+00:00"),
            ("-1", "1969-12-31T23:59:59+00:00"),
            ("0001-01-01T00:00:00", "0001-01-01T00:00:00"),
            ("9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59.999999+00:00"),
            ("2024-02-07T09:01:33+05", "2024-02-07T09:01:33+05:00"),
            ("2024-02-07T09:01:33-18:00", "2024-02-07T09:01:33-18:00"),
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
            "2024-02-07T09:01:33+18:01",
            "2024-02-07T09:01:33+23:59",
            "2024-02-07T09:01:33+05:",
            "2024-02-07T09:01:33+0:530",
            "2024-02-07T09:01:33+5:3:0",
            "ä024-02-07",
            // Years that Python and others can't read, here or as UTC.
            "0000-01-01T00:00:00",
            "0000-01-01",
            "-027-08-11T08:00:00+00:00",
            "-0001-01-01T00:00:00",
            "+2024-02-07T09:01:33",
            "10000-01-01T00:00:00",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "-62135596800001",
            "253402300800000",
            "99999999999999999999",
            // Blanks around, and floats that are no seconds.
            " 2024-02-07T09:01:33Z",
            "2024-02-07T09:01:33Z ",
            "2024-02-07T09:01:33Z\n",
            " 1707296493",
            "1e3",
            "1_0",
            "1.",
            ".5",
            "+",
            "infinity",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(TimestampError), "{bad:?}");
        }
        for bad in ["true", "null", "[]", "1e300", "-1e16", "-99999999999999", "1e17"] {
            assert!(serde_json::from_str::<Timestamp>(bad).is_err(), "{bad}");
        }
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
