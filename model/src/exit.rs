//! The exit codes of `headstart prefill`: the contract with the Job's `podFailurePolicy` (KEP-3329).

/// How one attempt ended, as a process' exit code.
///
/// 0 is done or obsolete; 3–9 are permanent and fail the Job at once; every other code is transient, and
/// Kubernetes tries again until `backoffLimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// The attempt is sealed, or a higher attempt has taken over.
    Done = 0,
    /// Something that may pass: NATS or the directory away, fence lost to a twin, stopped by a signal.
    Transient = 1,
    /// The request or the configuration can't be worked with.
    BadRequest = 3,
    /// The source refused our credentials.
    CredentialsRefused = 4,
    /// The subscription does not exist any more.
    SubscriptionGone = 5,
    /// The source holds data that can't be read.
    BadData = 6,
}

impl ExitCode {
    /// Codes that a Job must not try again.
    pub const PERMANENT: std::ops::RangeInclusive<i32> = 3..=9;

    /// Would the same attempt fail again in the same way?
    #[must_use]
    pub fn is_permanent(self) -> bool {
        Self::PERMANENT.contains(&i32::from(self as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permanent_range_is_that_of_the_contract() {
        use ExitCode::*;
        for (code, permanent) in [
            (Done, false),
            (Transient, false),
            (BadRequest, true),
            (CredentialsRefused, true),
            (SubscriptionGone, true),
            (BadData, true),
        ] {
            assert_eq!(code.is_permanent(), permanent, "{code:?}");
        }
    }
}
