//! Progress of a running attempt, for people: the value in the bucket `PREFILL`.

use std::{collections::VecDeque, fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Incarnation,
    resync::{RemovalsByType, removals_text},
};

/// How far an attempt is. Written about once a second by the attempt itself; never used for a decision, since an
/// overtaken attempt may still write it: readers ignore what is not of the attempt that they know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Whose prefill this is.
    pub incarnation: Incarnation,
    /// Attempt that wrote this.
    pub attempt: u32,
    /// What it does at the moment.
    #[serde(default)]
    pub phase: Phase,
    /// Object type that is being read; `None` before the first and after the last.
    pub topic: Option<String>,
    /// Objects written so far.
    pub done: u64,
    /// Objects known to exist, of all types listed so far; `None` while nothing is listed.
    pub total: Option<u64>,
    /// Objects that vanished between list and read.
    pub skipped: u64,
    /// Objects that were set aside.
    #[serde(default)]
    pub set_aside: u64,
    /// Requested topics that are left out, because the directory knows no such object type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What somebody should look at although the attempt goes on, or went well: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Objects that the selection leaves out.
    #[serde(default)]
    pub not_selected: u64,
    /// Removals that a resync tells.
    #[serde(default, skip_serializing_if = "crate::fence::is_zero")]
    pub removed: u64,
    /// What a resync found known and gone, by type.
    #[serde(default, skip_serializing_if = "RemovalsByType::is_empty")]
    pub removals: RemovalsByType,
    /// Objects a second: of late while it works ([`Speed`]), over the whole attempt when it is done.
    pub rate: f64,
    /// Last error that is being retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Progress {
    /// Of an attempt that is in this phase and has read nothing yet.
    #[must_use]
    pub fn new(incarnation: Incarnation, attempt: u32, phase: Phase) -> Self {
        Self {
            incarnation,
            attempt,
            phase,
            topic: None,
            done: 0,
            total: None,
            skipped: 0,
            set_aside: 0,
            missing: Vec::new(),
            warnings: Vec::new(),
            not_selected: 0,
            removed: 0,
            removals: RemovalsByType::new(),
            rate: 0.0,
            error: None,
        }
    }
}

/// What an attempt does, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The dispatcher has not reached the round's marker: what is listed now might miss a change.
    Waiting,
    /// The source is asked what there is, of the first type or of the next one.
    Listing,
    /// Objects of a type are read and written.
    #[default]
    Reading,
    /// All is written; the seal is being set.
    Sealing,
    /// The prefill is complete.
    Done,
}

impl Phase {
    /// The word that people and programs see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Listing => "listing",
            Self::Reading => "reading",
            Self::Sealing => "sealing",
            Self::Done => "done",
        }
    }
}

impl Progress {
    /// What stands before the error in the line for people.
    pub const TRYING_AGAIN: &str = "; trying again: ";

    /// Seconds until everything known to exist is written, at the rate of late. `None` while total or rate are
    /// unknown. Types that are not listed yet are not part of it.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a time for people
    pub fn eta(&self) -> Option<f64> {
        let left = self.total?.saturating_sub(self.done + self.skipped + self.set_aside + self.not_selected);
        match self.phase {
            Phase::Sealing | Phase::Done => Some(0.0),
            Phase::Waiting | Phase::Listing | Phase::Reading => {
                (self.rate > 0.0).then(|| (left as f64 / self.rate).ceil())
            }
        }
    }
}

/// A line for people: `users/user: 1200 of 5000 (210/s, 19s left)`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            incarnation: _,
            attempt: _,
            phase,
            topic,
            done,
            total,
            skipped,
            set_aside,
            missing,
            warnings,
            not_selected,
            removed,
            removals,
            rate,
            error,
        } = self;
        match (phase, topic) {
            (Phase::Waiting, _) => f.write_str("waiting until live events are routed")?,
            (Phase::Reading, Some(topic)) => write!(f, "{topic}: ")?,
            (phase, _) => write!(f, "{}: ", phase.as_str())?,
        }
        if *phase != Phase::Waiting {
            match total {
                Some(total) if *phase != Phase::Done => write!(f, "{done} of {total}")?,
                _ => write!(f, "{done}")?,
            }
            write!(f, " ({rate:.0}/s")?;
            if let Some(eta) = self.eta().filter(|eta| *eta > 0.0) {
                write!(f, ", {} left", Left(eta))?;
            }
            f.write_str(")")?;
        }
        if *removed > 0 {
            write!(f, ", {removed} of them removals")?;
        }
        if removals.values().any(|of| of.removed > 0) {
            write!(f, ", gone: {}", removals_text(removals))?;
        }
        if *skipped > 0 {
            write!(f, ", {skipped} vanished")?;
        }
        if *not_selected > 0 {
            write!(f, ", {not_selected} not selected")?;
        }
        if *set_aside > 0 {
            write!(f, ", {set_aside} set aside")?;
        }
        if !missing.is_empty() {
            write!(f, "; no such type: {}", missing.join(", "))?;
        }
        for warning in warnings {
            write!(f, "; {warning}")?;
        }
        if let Some(error) = error {
            write!(f, "{}{error}", Self::TRYING_AGAIN)?;
        }
        Ok(())
    }
}

/// Seconds, as exact as people want them.
struct Left(f64);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
        let seconds = self.0 as u64;
        match seconds {
            0..100 => write!(f, "{seconds}s"),
            100..6000 => write!(f, "{}m", seconds.div_ceil(60)),
            _ => write!(f, "{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

/// How fast a count grows: over the last half minute, so that a source that became slow, or stands still, shows.
#[derive(Clone, Debug, Default)]
pub struct Speed {
    /// When, since the beginning, and the count then; oldest first. The first one is at or before the window.
    samples: VecDeque<(Duration, u64)>,
}

impl Speed {
    /// What counts as of late.
    pub const WINDOW: Duration = Duration::from_secs(30);
    /// Samples that are closer together than this replace each other: a bound on their number.
    const CLOSE: Duration = Duration::from_millis(500);

    /// Notes the count at a time since the beginning, and answers how many a second it grew of late.
    #[allow(clippy::cast_precision_loss)] // a rate for people
    pub fn note(&mut self, elapsed: Duration, count: u64) -> f64 {
        if self.samples.is_empty() {
            self.samples.push_back((Duration::ZERO, 0));
        }
        if self.samples.len() > 1
            && self.samples.back().is_some_and(|(at, _)| elapsed.saturating_sub(*at) < Self::CLOSE)
        {
            self.samples.pop_back();
        }
        self.samples.push_back((elapsed, count));
        while self.samples.get(1).is_some_and(|(at, _)| *at + Self::WINDOW <= elapsed) {
            self.samples.pop_front();
        }
        let (from, before) = self.samples.front().copied().unwrap_or_default();
        let seconds = elapsed.saturating_sub(from).as_secs_f64();
        if seconds > 0.0 { count.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(phase: Phase, done: u64, total: Option<u64>, rate: f64) -> Progress {
        Progress { done, total, rate, ..Progress::new(Incarnation(uuid::Uuid::from_u128(1)), 1, phase) }
    }

    #[test]
    fn the_time_left() {
        for (done, skipped, total, rate, expected) in [
            (50, 0, Some(100), 10.0, Some(5.0)),
            (50, 10, Some(100), 10.0, Some(4.0)),
            (100, 0, Some(100), 10.0, Some(0.0)),
            (110, 0, Some(100), 10.0, Some(0.0)),
            (0, 0, Some(100), 0.0, None),
            (5, 0, None, 10.0, None),
        ] {
            let progress = Progress { skipped, ..progress(Phase::Reading, done, total, rate) };
            assert_eq!(progress.eta(), expected, "{progress:?}");
        }
        let selective =
            Progress { skipped: 10, not_selected: 20, ..progress(Phase::Reading, 50, Some(100), 10.0) };
        assert_eq!(selective.eta(), Some(2.0));
        assert_eq!(progress(Phase::Sealing, 5, Some(9), 0.0).eta(), Some(0.0));
    }

    #[test]
    fn a_line_for_people() {
        let users = |p: Progress| Progress { topic: Some("users/user".into()), ..p };
        for (progress, expected) in [
            (progress(Phase::Waiting, 0, None, 0.0), "waiting until live events are routed"),
            (progress(Phase::Listing, 0, None, 0.0), "listing: 0 (0/s)"),
            (users(progress(Phase::Reading, 7, None, 3.0)), "users/user: 7 (3/s)"),
            (
                users(progress(Phase::Reading, 1200, Some(5000), 209.7)),
                "users/user: 1200 of 5000 (210/s, 19s left)",
            ),
            (users(progress(Phase::Reading, 0, Some(600), 1.0)), "users/user: 0 of 600 (1/s, 10m left)"),
            (users(progress(Phase::Reading, 0, Some(7500), 1.0)), "users/user: 0 of 7500 (1/s, 2h05m left)"),
            (progress(Phase::Sealing, 5000, Some(5000), 210.0), "sealing: 5000 of 5000 (210/s)"),
            (progress(Phase::Done, 5000, Some(5001), 210.0), "done: 5000 (210/s)"),
        ] {
            assert_eq!(progress.to_string(), expected);
        }
        let troubled = Progress {
            skipped: 3,
            set_aside: 0,
            missing: vec![],
            warnings: vec![],
            not_selected: 2,
            removed: 1,
            error: Some("503".into()),
            ..progress(Phase::Listing, 1, Some(4), 0.0)
        };
        assert_eq!(
            troubled.to_string(),
            "listing: 1 of 4 (0/s), 1 of them removals, 3 vanished, 2 not selected; trying again: 503"
        );
    }

    #[test]
    fn the_speed_of_late() {
        let mut speed = Speed::default();
        let mut rate = |second: f64, count| speed.note(Duration::from_secs_f64(second), count);
        assert_eq!(rate(0.0, 0), 0.0);
        assert_eq!(rate(1.0, 100), 100.0);
        assert_eq!(rate(1.25, 125), 100.0, "close samples replace each other");
        assert_eq!(rate(10.0, 1000), 100.0);
        // It stands still: the rate falls, and is zero when the window has passed.
        assert_eq!(rate(20.0, 1000), 50.0);
        assert_eq!(rate(30.0, 1000), 1000.0 / 30.0);
        assert_eq!(rate(40.0, 1000), 0.0);
        assert_eq!(rate(50.0, 1500), 500.0 / 30.0);
    }

    #[test]
    fn samples_are_few() {
        let mut speed = Speed::default();
        for n in 0..100_000 {
            speed.note(Duration::from_millis(n), n);
        }
        assert!(speed.samples.len() < 70, "{}", speed.samples.len());
    }

    #[test]
    fn what_was_written_before_there_were_phases_is_read() {
        let text = r#"{"incarnation":"00000000-0000-0000-0000-000000000001","attempt":1,"topic":null,"done":1,
                       "total":null,"skipped":0,"rate":1.0}"#;
        assert_eq!(serde_json::from_str::<Progress>(text).unwrap().phase, Phase::Reading);
    }
}
