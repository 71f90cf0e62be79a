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
    /// Objects a second, over the whole attempt.
    pub rate: f64,
    /// Last error that is being retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
