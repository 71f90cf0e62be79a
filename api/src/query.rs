//! Query parameters of the routes that read messages, with errors that name the field.

use std::{ops::RangeInclusive, time::Duration};

use axum::extract::{Query, rejection::QueryRejection};
use broker::Readers;
use model::delivery::{EventId, EventIdError};

use crate::{
    error::{ApiError, Problem},
    fields::{LARGEST_NUMBER, lax_word},
};

/// Longest time a poll is held: below the 300 s after which existing clients give up.
const LONGEST_POLL: Duration = Duration::from_secs(280);
const SHORTEST_POLL: Duration = Duration::from_millis(100);
pub(crate) const DEFAULT_POLL: Duration = Duration::from_secs(5);
/// Messages of a batch if the client does not say.
pub(crate) const DEFAULT_LIMIT: usize = 100;
/// Unacknowledged messages of a stream if the client does not say.
pub(crate) const DEFAULT_WINDOW: usize = 100;

/// Dead letters of a page, at most and if the client does not say.
pub(crate) const LARGEST_PAGE: usize = 1000;

/// The parameters as axum gives them.
pub(crate) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Parameters of a request. Of several with one name the last counts; unknown ones are ignored.
pub(crate) struct Parameters {
    pairs: Vec<(String, String)>,
    problems: Vec<Problem>,
}

impl Parameters {
    pub(crate) fn new(pairs: Pairs) -> Self {
        let pairs = pairs.map(|Query(pairs)| pairs).unwrap_or_default();
        Self { pairs, problems: Vec::new() }
    }

    /// A parameter, or what holds without it.
    fn get<T>(
        &mut self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
        kind: &'static str,
        expected: &str,
    ) -> T {
        let Some((_, text)) = self.pairs.iter().rev().find(|(key, _)| key == name) else { return default };
        parse(text).unwrap_or_else(|| {
            self.problems.push(Problem::new(&[&"query", &name], kind, expected));
            default
        })
    }

    /// How long to wait.
    pub(crate) fn timeout(&mut self) -> Duration {
        let expected = "a number of seconds is expected, such as 30 or 0.5";
        self.get("timeout", DEFAULT_POLL, wait, "float_parsing", expected)
    }

    /// Remove on delivery?
    pub(crate) fn pop(&mut self) -> bool {
        self.get("pop", false, lax_word, "bool_parsing", "true or false is expected")
    }

    /// Most messages of a batch.
    pub(crate) fn limit(&mut self) -> usize {
        self.within("limit", DEFAULT_LIMIT, 1..=Readers::LARGEST_BATCH)
    }

    /// Most messages of a stream that are not acknowledged.
    pub(crate) fn window(&mut self) -> usize {
        self.within("window", DEFAULT_WINDOW, 1..=Readers::LARGEST_WINDOW)
    }

    /// The last message that the client of a stream has got.
    pub(crate) fn after(&mut self) -> Option<EventId> {
        let expected = EventIdError.to_string();
        self.get("after", None, |text| text.parse().ok().map(Some), "event_id", &expected)
    }

    /// Most dead letters of a page.
    pub(crate) fn page(&mut self) -> usize {
        self.within("limit", LARGEST_PAGE, 1..=LARGEST_PAGE)
    }

    /// The last dead letter of the page before; 0: there was none.
    pub(crate) fn after_letter(&mut self) -> u64 {
        let expected = "the id of a dead letter is expected, or 0";
        let parse = |text: &str| digits(text)?.parse().ok().filter(|n| *n <= LARGEST_NUMBER);
        self.get("after", 0, parse, "int_range", expected)
    }

    fn within(&mut self, name: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let expected = format!("a number from {} to {} is expected", range.start(), range.end());
        let parse = |text: &str| digits(text)?.parse().ok().filter(|n| range.contains(n));
        self.get(name, default, parse, "int_range", &expected)
    }

    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.problems)) }
    }
}

/// A text of digits only: neither blanks nor a sign.
fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(text)
}

fn wait(text: &str) -> Option<Duration> {
    // "nan" and "inf" are floats, too. Blanks around a number are those of the former service.
    let seconds = text.trim().parse::<f64>().ok().filter(|s| s.is_finite())?;
    let seconds = seconds.clamp(SHORTEST_POLL.as_secs_f64(), LONGEST_POLL.as_secs_f64());
    Some(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T>(pairs: &[(&str, &str)], get: impl FnOnce(&mut Parameters) -> T) -> Option<T> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut parameters = Parameters { pairs, problems: Vec::new() };
        let value = get(&mut parameters);
        parameters.finish().is_ok().then_some(value)
    }

    #[test]
    fn polls() {
        for (pairs, expected) in [
            (&[][..], Some((5000, false))),
            (&[("timeout", "0.25"), ("pop", "true")], Some((250, true))),
            (&[("timeout", "-3")], Some((100, false))),
            (&[("timeout", "0")], Some((100, false))),
            (&[("timeout", "1e9")], Some((280_000, false))),
            (&[("timeout", "nan")], None),
            (&[("timeout", "inf")], None),
            (&[("timeout", "")], None),
            (&[("timeout", "x")], None),
            (&[("timeout", " 1 ")], Some((1000, false))),
            (&[("pop", "maybe")], None),
            (&[("pop", "true ")], None),
            (&[("pop", "maybe"), ("pop", "1")], Some((5000, true))),
        ] {
            assert_eq!(parse(pairs, |p| (p.timeout().as_millis(), p.pop())), expected, "{pairs:?}");
        }
    }

    #[test]
    fn ids() {
        let after = |text| parse(&[("after", text)], |p| p.after().map(|id| id.to_string()));
        assert_eq!(after("p300"), Some(Some("p300".to_owned())));
        for bad in ["", "300", "p0", "x"] {
            assert_eq!(after(bad), None, "{bad}");
        }
        assert_eq!(parse(&[], Parameters::after), Some(None));
    }

    #[test]
    fn letters() {
        let after = |text| parse(&[("after", text)], Parameters::after_letter);
        assert_eq!((after("0"), after("17")), (Some(0), Some(17)));
        for bad in ["", "-1", "x", "p1", "99999999999999999999999"] {
            assert_eq!(after(bad), None, "{bad}");
        }
        assert_eq!(parse(&[], |p| (p.after_letter(), p.page())), Some((0, 1000)));
        assert_eq!(parse(&[("limit", "1001")], Parameters::page), None);
    }

    #[test]
    fn limits() {
        for (pairs, expected) in [
            (&[][..], Some(100)),
            (&[("limit", "1")], Some(1)),
            (&[("limit", "7"), ("limit", "1000")], Some(1000)),
            (&[("limit", " 7")], None),
            (&[("limit", "+7")], None),
            (&[("limit", "0")], None),
            (&[("limit", "1001")], None),
            (&[("limit", "-1")], None),
            (&[("limit", "x")], None),
            (&[("limit", "")], None),
        ] {
            assert_eq!(parse(pairs, Parameters::limit), expected, "{pairs:?}");
        }
    }
}
