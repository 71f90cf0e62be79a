//! Times as the directory keeps them, in days, seconds, and in the way of Windows; UDM shows them in UTC.

use jiff::Timestamp;

/// Seconds between 1601, where Windows begins, and 1970.
const WINDOWS_EPOCH: i64 = 11_644_473_600;

/// The date so many days after 1970 began.
pub(super) fn of_days(days: i64) -> Option<String> {
    of_seconds(days.checked_mul(86_400)?)
}

/// The date of a time in seconds.
pub(super) fn of_seconds(seconds: i64) -> Option<String> {
    Some(Timestamp::from_second(seconds).ok()?.strftime("%Y-%m-%d").to_string())
}

/// Steps of 100 nanoseconds, as `20241231000000Z`; `0` for none.
pub(super) fn of_windows(steps: i64) -> Option<String> {
    if steps == 0 {
        return Some("0".to_owned());
    }
    let time = Timestamp::from_second(steps.div_euclid(10_000_000) - WINDOWS_EPOCH).ok()?;
    Some(time.strftime("%Y%m%d%H%M%SZ").to_string())
}

/// When an account that was locked at `20241231000000Z` is free again.
pub(super) fn unlocked(locked: &str, seconds: i64) -> Option<String> {
    let begin = locked.strip_suffix('Z')?;
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", begin).ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let end = Timestamp::from_second(time.as_second().checked_add(seconds)?).ok()?;
    Some(end.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Date and time of `20300101050000Z`.
pub(super) fn date_and_time(text: &str) -> Option<(String, String)> {
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", text.strip_suffix('Z')?).ok()?;
    Some((time.strftime("%Y-%m-%d").to_string(), time.strftime("%H:%M").to_string()))
}

/// The date in front of `20300101050000Z`, as it stands there.
pub(super) fn date_of(text: &str) -> Option<String> {
    Some(format!("{}-{}-{}", text.get(..4)?, text.get(4..6)?, text.get(6..8)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(of_days(22279).as_deref(), Some("2030-12-31"));
        assert_eq!(of_days(99_999_999_999), None);
        assert_eq!(of_windows(0).as_deref(), Some("0"));
        assert_eq!(of_windows(133_801_632_000_000_001).as_deref(), Some("20250101000000Z"));
        assert_eq!(unlocked("20241231235900Z", 120).as_deref(), Some("2025-01-01 00:01:00"));
        assert_eq!(unlocked("yesterday", 120), None);
        assert_eq!(date_of("20301231000000Z").as_deref(), Some("2030-12-31"));
        assert_eq!(date_of("2030"), None);
        let (date, time) = date_and_time("20300101050000Z").unwrap();
        assert_eq!((&*date, &*time), ("2030-01-01", "05:00"));
    }
}
