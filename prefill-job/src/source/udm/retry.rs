//! What an answer means, and when to ask again: decisions only, no clock and no network.
//!
//! ```text
//!  status ─► Verdict ─► Failure ─► Class ─► Patience ─► Next: ask again, look whether UDM answers others, or end
//! ```
//!
//! Three things look alike in a single answer and differ in what is to be done: UDM is away (wait for it), the request
//! is wrong (say so at once), or this object is broken (leave it out, by name). The classes tell them apart.

use std::time::Duration;

use super::Retries;

/// Kinds of requests; the same status means different things to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The index of modules.
    Index,
    /// A module's list.
    List,
    /// A part of a list that can't be read as a whole.
    Part,
    /// A search for one object, which was listed.
    Find,
    /// One object that was listed.
    Object,
}

/// One try that failed in a way that may pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection, or it ended before there was an answer.
    #[error("the connection failed")]
    Connection {
        /// How long it took.
        took: Duration,
        /// Why.
        source: reqwest::Error,
    },
    /// The connection ended in the middle of the answer.
    #[error("the answer broke off")]
    BrokenOff(#[source] reqwest::Error),
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
        /// How long the answer took.
        took: Duration,
    },
    /// 401 that took its time: UDM asks the directory at each request, and answers so when it can't reach it. Wrong
    /// credentials are refused within milliseconds.
    #[error("status 401 after {} s: the directory (LDAP) behind UDM is away", .0.as_secs())]
    DirectoryAway(Duration),
    /// The credentials were refused; they may have been changed a moment ago.
    #[error("status 401: the credentials were refused")]
    Unauthorized,
    /// 404 where there must be something: the UDM process that answers has not loaded the module.
    #[error("status 404: the UDM process that answered does not know the type")]
    NotLoaded,
    /// An exception in UDM, a status that nobody expects, or one that blames the object.
    #[error("status {status}{words}")]
    Fault {
        /// HTTP status.
        status: u16,
        /// UDM's own words, after `, `.
        words: String,
    },
    /// A whole answer that is not what UDM gives.
    #[error("{0}")]
    Unreadable(String),
}

impl Failure {
    /// Does it tell that UDM can't serve as many requests? If it refuses credentials, it should not be asked often.
    pub(super) fn is_push_back(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::BrokenOff(_) | Self::Timeout(_) | Self::Busy { .. } => true,
            Self::DirectoryAway(_) | Self::Unauthorized => true,
            Self::NotLoaded | Self::Fault { .. } | Self::Unreadable(_) => false,
        }
    }

    /// Does it hold for all requests, so that nobody should ask before the wait is over?
    pub(super) fn is_of_all(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::DirectoryAway(_) | Self::Busy { retry_after: Some(_), .. })
    }

    /// What UDM asks to be waited.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy { retry_after, .. } = self { *retry_after } else { None }
    }

    /// For the log: UDM's words on an object may hold what is in it.
    pub(super) fn without_words(&self) -> String {
        match self {
            Self::Fault { status, .. } => format!("status {status}"),
            other => model::error_chain(other),
        }
    }
}

/// What a status means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Read the body.
    Good,
    /// There is nothing under this address.
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
        (404, Kind::List | Kind::Part | Kind::Find | Kind::Object) => Verdict::Gone,
        (404, Kind::Index) => Verdict::Fault,
        (408 | 425 | 429 | 502..=504, _) => Verdict::Busy,
        (500.., _) => Verdict::Fault,
        (300..400, _) => Verdict::Refused(
            "it redirects to another origin, which does not get the credentials: set the UDM base URL to where it leads",
        ),
        (406, _) => Verdict::Refused("what answers is not the UDM REST API: check the UDM base URL"),
        // UDM's way to say that it can't open this one: of another type by now, without what its type needs, not for
        // this account, not for this URL.
        (400..500, Kind::Object) => Verdict::Fault,
        (400, Kind::List | Kind::Part) => Verdict::Refused(
            "if it is the size limit, raise ldap/sizelimit and directory/manager/web/sizelimit above the number of objects",
        ),
        (403, _) => Verdict::Refused(
            "the account may not read this: add it to a group of directory/manager/rest/authorized-groups, or leave the topic out",
        ),
        _ => Verdict::Refused(
            "the UDM REST API did not understand the request: check the UDM base URL and UDM's version",
        ),
    }
}

/// What a failure tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// UDM, or the directory behind it, is away or busy.
    Away,
    /// The credentials are wrong, or being changed.
    Refused,
    /// The list takes UDM too long, and UDM still works on it.
    Late,
    /// What answers does not speak as UDM does, at least now.
    Odd,
    /// The object, or UDM: only another request can tell.
    Doubtful,
    /// The request or the object is at fault.
    Wrong,
}

/// What a failure of a kind of request tells of.
pub(super) fn class(kind: Kind, failure: &Failure, retries: &Retries) -> Class {
    let is_list = matches!(kind, Kind::List | Kind::Part);
    match failure {
        Failure::DirectoryAway(_) => Class::Away,
        Failure::Unauthorized => Class::Refused,
        // Another certificate than the one that is trusted is no absence: somebody has to look.
        Failure::Connection { source, .. } if is_of_tls(source) => Class::Odd,
        Failure::Timeout(_) if is_list => Class::Late,
        Failure::Busy { took, .. } | Failure::Connection { took, .. } if is_list && *took >= retries.late => {
            Class::Late
        }
        Failure::Timeout(_) | Failure::BrokenOff(_) | Failure::Busy { status: 502 | 504, .. }
            if kind == Kind::Object =>
        {
            Class::Doubtful
        }
        // An object that UDM can't open; or UDM can't open any at the moment.
        Failure::Fault { status: 500.., .. } if kind == Kind::Object => Class::Doubtful,
        Failure::BrokenOff(_) if is_list => Class::Odd,
        Failure::Connection { .. } | Failure::BrokenOff(_) | Failure::Timeout(_) | Failure::Busy { .. } => {
            Class::Away
        }
        Failure::NotLoaded => Class::Odd,
        Failure::Unreadable(_) if matches!(kind, Kind::Object | Kind::Part) => Class::Wrong,
        Failure::Fault { status: 404, .. } if kind == Kind::Index => Class::Odd,
        Failure::Unreadable(_) => Class::Odd,
        Failure::Fault { .. } => Class::Wrong,
    }
}

/// Is it TLS that failed, and not the connection below it? What rustls says is inside of I/O errors, one in another.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || inner.is_some_and(|inner| is_of_tls(inner))
        || error.source().is_some_and(is_of_tls)
}

/// For how long, or how often, something is asked again.
#[derive(Debug, PartialEq, Eq)]
enum Patience {
    /// Until no request had an answer for so long.
    Silence(Duration),
    /// Until the credentials were refused for so long, without any good answer.
    Refusals(Duration),
    /// So often in all.
    Tries(u32),
    /// So often; then it is looked whether UDM answers others.
    Doubt(u32),
}

/// The policy, in one table.
fn patience(kind: Kind, class: Class, failure: &Failure, retries: &Retries) -> Patience {
    match class {
        Class::Away => Patience::Silence(retries.away),
        Class::Refused => Patience::Refusals(retries.refused),
        Class::Late => Patience::Tries(2),
        Class::Odd => Patience::Tries(retries.tries),
        Class::Doubtful if matches!(failure, Failure::Timeout(_) | Failure::Fault { .. }) => {
            Patience::Doubt(retries.tries_if_wrong)
        }
        Class::Doubtful => Patience::Doubt(retries.tries),
        // Its halves are asked for instead.
        Class::Wrong if kind == Kind::Part => Patience::Tries(1),
        Class::Wrong if matches!(failure, Failure::Fault { status: ..500, .. }) => {
            Patience::Tries(retries.tries_if_wrong.min(2))
        }
        Class::Wrong => Patience::Tries(retries.tries_if_wrong),
    }
}

/// What is known when a try has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// Tries of this request that have failed in this class.
    pub tried: u32,
    /// Time since the last answer to any request that shows that UDM is there.
    pub silence: Duration,
    /// Time for which credentials have been refused, without any other answer.
    pub refused: Duration,
}

/// What to do after a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask again.
    Again,
    /// Ask UDM for something else: if it answers, this object is at fault, else UDM is away.
    Look,
    /// There is no use in asking again.
    End,
}

/// Decides what to do after a try that failed.
pub(super) fn next(kind: Kind, failure: &Failure, now: Circumstances, retries: &Retries) -> Next {
    let class = class(kind, failure, retries);
    let again = |is_left: bool| if is_left { Next::Again } else { Next::End };
    match patience(kind, class, failure, retries) {
        Patience::Silence(longest) => again(now.silence < longest),
        Patience::Refusals(longest) => again(now.refused < longest),
        Patience::Tries(most) => again(now.tried < most),
        Patience::Doubt(most) if now.tried < most => Next::Again,
        Patience::Doubt(_) => Next::Look,
    }
}

/// How long to wait after the `tried`th try (from 1). `random` spreads waits over the upper half, so that parallel
/// requests do not come back all at once; what UDM asks for is waited at least.
pub(super) fn wait(tried: u32, retry_after: Option<Duration>, retries: &Retries, random: u16) -> Duration {
    let doubled = retries.first_wait.saturating_mul(1_u32 << (tried.clamp(1, 17) - 1));
    let usual = doubled.min(retries.usual_wait_max);
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
            (400, Object, "fault"),
            (401, Object, "unauthorized"),
            (403, List, "refused"),
            (403, Object, "fault"),
            (404, Object, "gone"),
            (404, List, "gone"),
            (404, Index, "fault"),
            (406, Index, "refused"),
            (406, Object, "refused"),
            (409, Object, "fault"),
            (410, Object, "fault"),
            (414, Object, "fault"),
            (422, Object, "fault"),
            (422, List, "refused"),
            (422, Find, "refused"),
            (429, Object, "busy"),
            (500, Object, "fault"),
            (500, Part, "fault"),
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
        assert_eq!([7, 60, u32::MAX].map(|tried| ms(tried, u16::MAX)), [15_000; 3]);
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

    fn busy(status: u16, took: u64) -> Failure {
        Failure::Busy { status, retry_after: None, took: Duration::from_secs(took) }
    }

    fn fault(status: u16) -> Failure {
        Failure::Fault { status, words: String::new() }
    }

    /// How often it is asked in all when UDM is otherwise well; `None`: only time ends it.
    fn tries(kind: Kind, failure: &Failure) -> Option<(u32, Next)> {
        (1..50).find_map(|tried| {
            let now = Circumstances { tried, silence: Duration::ZERO, refused: Duration::ZERO };
            let next = next(kind, failure, now, &Retries::default());
            (next != Next::Again).then_some((tried, next))
        })
    }

    #[test]
    fn what_is_wrong_is_asked_a_few_times_and_what_is_away_until_its_time_is_over() {
        use Kind::*;
        let late = || Failure::Timeout(Duration::from_secs(300));
        let html = || Failure::Unreadable("no JSON".to_owned());
        for (kind, failure, expected) in [
            (Object, fault(400), Some((2, Next::End))),
            (Object, fault(500), Some((3, Next::Look))),
            (Object, html(), Some((3, Next::End))),
            (Object, Failure::NotLoaded, Some((8, Next::End))),
            (Object, late(), Some((3, Next::Look))),
            (Object, busy(504, 60), Some((8, Next::Look))),
            (Object, busy(503, 0), None),
            (Object, Failure::DirectoryAway(Duration::from_secs(10)), None),
            (Object, Failure::Unauthorized, None),
            (List, fault(500), Some((3, Next::End))),
            (Part, fault(500), Some((1, Next::End))),
            (List, html(), Some((8, Next::End))),
            (Index, html(), Some((8, Next::End))),
            (Index, fault(404), Some((8, Next::End))),
            // UDM still works on the last one.
            (List, late(), Some((2, Next::End))),
            (List, busy(503, 311), Some((2, Next::End))),
            (List, busy(504, 60), Some((2, Next::End))),
            (List, busy(504, 30), Some((2, Next::End))),
            (List, busy(503, 15), None),
            (Index, busy(503, 311), None),
        ] {
            assert_eq!(tries(kind, &failure), expected, "{kind:?} {failure:?}");
        }
    }

    #[test]
    fn an_absence_is_waited_for_by_the_clock_and_refusals_for_minutes() {
        let at = |failure: &Failure, silence, refused| {
            let [silence, refused] = [silence, refused].map(Duration::from_secs);
            next(Kind::List, failure, Circumstances { tried: 99, silence, refused }, &Retries::default())
        };
        let away = Failure::DirectoryAway(Duration::from_secs(10));
        for (failure, silence, refused, expected) in [
            (&busy(503, 0), 599, 0, Next::Again),
            (&busy(503, 0), 600, 0, Next::End),
            (&away, 599, 0, Next::Again),
            (&away, 600, 0, Next::End),
            (&Failure::Unauthorized, 9999, 179, Next::Again),
            (&Failure::Unauthorized, 180, 180, Next::End),
        ] {
            assert_eq!(at(failure, silence, refused), expected, "{failure} {silence} {refused}");
        }
    }
}
