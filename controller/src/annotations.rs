//! The annotations that we write on Jobs: `kubectl get jobs -o custom-columns=…` shows them.

/// When the Job was admitted: whoever suspends it later is not us.
pub const ADMITTED_AT: &str = "headstart/admitted-at";
/// State of the prefill, in the words of the API.
pub const STATE: &str = "headstart/state";
/// Why it waits or failed.
pub const REASON: &str = "headstart/reason";
/// How far it is.
pub const PROGRESS: &str = "headstart/progress";
