//! Progress of a running attempt, for people: the value in the bucket `PREFILL`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Incarnation;

/// How far an attempt is. Written about once a second by the attempt itself; never used for a decision, since an
/// overtaken attempt may still write it: readers ignore what is not of the attempt that they know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Whose prefill this is.
    pub incarnation: Incarnation,
    /// Attempt that wrote this.
    pub attempt: u32,
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
    /// Objects a second, over the whole attempt.
    pub rate: f64,
    /// Last error that is being retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Progress {
    /// Seconds until everything known to exist is written, at the rate so far. `None` while total or rate are
    /// unknown.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn eta(&self) -> Option<f64> {
        let left = self.total?.saturating_sub(self.done + self.skipped + self.set_aside);
        (self.rate > 0.0).then(|| (left as f64 / self.rate).ceil())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let incarnation = Incarnation(uuid::Uuid::from_u128(1));
            let progress = Progress {
                incarnation,
                attempt: 1,
                topic: None,
                done,
                total,
                skipped,
                set_aside: 0,
                missing: vec![],
                rate,
                error: None,
            };
            assert_eq!(progress.eta(), expected, "{progress:?}");
        }
    }
}
