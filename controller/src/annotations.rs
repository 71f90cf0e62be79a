//! The annotations on Jobs. All but the last are written by us: `kubectl get jobs -o custom-columns=…` shows them.

/// When the Job was admitted: whoever suspends it later is not us.
pub const ADMITTED_AT: &str = "headstart/admitted-at";
/// State of the prefill, in the words of the API.
pub const STATE: &str = "headstart/state";
/// Why it waits or failed.
pub const REASON: &str = "headstart/reason";
/// How far it is.
pub const PROGRESS: &str = "headstart/progress";
/// Written by people: `retry`, `cancel`, `pause` or `resume`. It is removed once it is answered, by an Event.
pub const REQUEST: &str = "headstart/request";
