//! What an answer means, and when to ask again: decisions only, no clock and no network.

use std::time::Duration;

use super::Retries;

/// Kinds of requests; the same status means different things to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The index of modules.
    Index,
    /// A module's list.
    List,
    /// One object that was listed.
    Object,
}

/// One try that failed in a way that may pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke.
    #[error("the connection failed")]
    Connection(#[source] reqwest::Error),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// UDM, or what stands before it, says that it is away or busy.
    #[error("status {status}")]
    Busy {
        /// HTTP status.
        status: u16,
        /// For how long, if it says so.
        retry_after: Option<Duration>,
    },
    /// An exception in UDM, or a status that nobody expects.
    #[error("status {status}")]
    Fault {
        /// HTTP status.
        status: u16,
    },
    /// The credentials were refused; they may have been changed a moment ago.
    #[error("status 401: the credentials were refused")]
    Unauthorized,
    /// A whole answer that is not what UDM gives.
    #[error("{0}")]
    Unreadable(String),
}

impl Failure {
    /// Does it tell that UDM can't serve as many requests? If it refuses credentials, it should not be asked often.
    pub(super) fn is_push_back(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Timeout(_) | Self::Busy { .. } | Self::Unauthorized)
    }
}

/// What a status means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Read the body.
    Good,
    /// The object is gone.
    Gone,
    /// Ask again: UDM is away or busy.
    Busy,
    /// Ask again, but not for long.
    Fault,
    /// Ask again with fresh credentials, but not for long.
    Unauthorized,
    /// Never ask again; what to do instead.
    Refused(&'static str),
}

/// What a status means to a kind of request.
pub(super) fn verdict(kind: Kind, status: u16) -> Verdict {
    match (status, kind) {
        (200, _) => Verdict::Good,
        (401, _) => Verdict::Unauthorized,
        (404, Kind::Object) => Verdict::Gone,
        // Of several UDM processes one may not have loaded an extension yet.
        (404, Kind::Index | Kind::List) => Verdict::Fault,
        (408 | 425 | 429 | 502..=504, _) => Verdict::Busy,
        (500.., _) => Verdict::Fault,
        (300..400, _) => Verdict::Refused(
            "it redirects to another origin, which does not get the credentials: set the UDM base URL to where it leads",
        ),
        (400, Kind::List) => Verdict::Refused(
            "if it is the size limit, raise ldap/sizelimit and directory/manager/web/sizelimit above the number of objects",
        ),
        (403, _) => Verdict::Refused(
            "the account may not read this: add it to a group of directory/manager/rest/authorized-groups, or leave the topic out",
        ),
        (406, _) => Verdict::Refused("what answers is not the UDM REST API: check the UDM base URL"),
        _ => Verdict::Refused(
            "the UDM REST API did not understand the request: check the UDM base URL and UDM's version",
        ),
    }
}

/// Advice for a status that was asked about often enough and is permanent then.
pub(super) fn advice_if_it_stays(kind: Kind, status: u16) -> Option<&'static str> {
    match (status, kind) {
        (404, Kind::Index) => {
            Some("there is no UDM REST API at this path: check the UDM base URL and its prefix")
        }
        (404, Kind::List) => {
            Some("the module is in the index but can't be listed: let all UDM processes reload")
        }
        _ => None,
    }
}

/// How often a request may be sent if it fails like this. `accepted`: the credentials were accepted before.
pub(super) fn tries(failure: &Failure, kind: Kind, accepted: bool, retries: &Retries) -> u32 {
    match failure {
        // A list that takes too long does so again, and UDM still works on the last one.
        Failure::Timeout(_) if kind == Kind::List => retries.tries_if_wrong.min(2),
        Failure::Connection(_) | Failure::Busy { .. } => retries.tries,
        // Just being changed, rather than wrong.
        Failure::Unauthorized if accepted => retries.tries,
        Failure::Timeout(_) | Failure::Fault { .. } | Failure::Unauthorized | Failure::Unreadable(_) => {
            retries.tries_if_wrong
        }
    }
}

/// How long to wait after the `tried`th try (from 1). `random` spreads waits over the upper half, so that parallel
/// requests do not come back all at once; what UDM asks for is waited at least.
pub(super) fn wait(tried: u32, retry_after: Option<Duration>, retries: &Retries, random: u16) -> Duration {
    let doubled = retries.first_wait.saturating_mul(1_u32 << (tried.clamp(1, 17) - 1));
    let usual = doubled.min(retries.longest_wait);
    let spread = usual / 2 + usual.mul_f64(f64::from(random) / f64::from(u16::MAX) / 2.0);
    spread.max(retry_after.unwrap_or_default()).min(retries.longest_wait)
}

/// Reads `Retry-After` in both of its forms: seconds, or a date.
pub(super) fn retry_after(header: &str, now: jiff::Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(date.duration_since(now).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_meaning() {
        use Kind::*;
        for (status, kind, expected) in [
            (200, List, "good"),
            (204, Object, "refused"),
            (301, Object, "refused"),
            (304, Index, "refused"),
            (400, List, "refused"),
            (401, Object, "unauthorized"),
            (403, List, "refused"),
            (404, Object, "gone"),
            (404, List, "fault"),
            (404, Index, "fault"),
            (406, Index, "refused"),
            (410, Object, "refused"),
            (422, List, "refused"),
            (429, Object, "busy"),
            (500, Object, "fault"),
            (502, List, "busy"),
            (503, Index, "busy"),
            (504, List, "busy"),
            (507, Object, "fault"),
        ] {
            let name = match verdict(kind, status) {
                Verdict::Good => "good",
                Verdict::Gone => "gone",
                Verdict::Busy => "busy",
                Verdict::Fault => "fault",
                Verdict::Unauthorized => "unauthorized",
                Verdict::Refused(_) => "refused",
            };
            assert_eq!(name, expected, "{status} {kind:?}");
        }
    }

    #[test]
    fn waits_grow_and_stay_within_their_bounds() {
        let retries = Retries { longest_wait: Duration::from_secs(30), ..Retries::default() };
        let ms = |tried, random| wait(tried, None, &retries, random).as_millis();
        assert_eq!([1, 2, 3, 4].map(|tried| ms(tried, u16::MAX)), [500, 1000, 2000, 4000]);
        assert_eq!([1, 2, 3, 4].map(|tried| ms(tried, 0)), [250, 500, 1000, 2000]);
        assert_eq!([7, 60, u32::MAX].map(|tried| ms(tried, u16::MAX)), [30_000; 3]);
        let asked = |seconds| wait(1, Some(Duration::from_secs(seconds)), &retries, 9).as_secs();
        assert_eq!([15, 30, 3600].map(asked), [15, 30, 30]);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = "2026-10-21T07:28:00Z".parse().unwrap();
        for (header, seconds) in [
            ("15", Some(15)),
            (" 3 ", Some(3)),
            ("0", Some(0)),
            ("Wed, 21 Oct 2026 07:28:07 GMT", Some(7)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(header, now).map(|wait| wait.as_secs()), seconds, "{header}");
        }
    }

    #[test]
    fn what_is_wrong_is_asked_less_often_than_what_is_away() {
        let retries = Retries::default();
        let busy = Failure::Busy { status: 503, retry_after: None };
        assert_eq!(tries(&busy, Kind::List, false, &retries), 8);
        for wrong in
            [Failure::Fault { status: 500 }, Failure::Unauthorized, Failure::Unreadable(String::new())]
        {
            assert_eq!(tries(&wrong, Kind::Object, false, &retries), 3);
        }
        let late = Failure::Timeout(Duration::from_secs(1));
        let tries = |failure, kind, accepted| tries(failure, kind, accepted, &retries);
        assert_eq!((tries(&late, Kind::List, true), tries(&late, Kind::Object, true)), (2, 3));
        assert_eq!(tries(&Failure::Unauthorized, Kind::Object, true), 8, "they are being changed");
    }
}
