//! A word for each failure, for programs: `code` in the body of an answer, and the end of its `type` (RFC 9457).

macro_rules! codes {
    ($($name:ident $word:literal $title:literal,)*) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What it means, in general; the detail of an answer says it of the case.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    NotAuthenticated "not_authenticated" "No credentials",
    WrongCredentials "wrong_credentials" "Wrong user name or password",
    NotYours "not_yours" "Not for this user",
    NotFound "not_found" "No such path",
    NoSubscription "no_subscription" "No such subscription",
    NoMessage "no_message" "No such message",
    NoDeadLetter "no_dead_letter" "No such dead letter",
    MethodNotAllowed "method_not_allowed" "The path does not know this method",
    NotAcceptable "not_acceptable" "No form of answer that the client accepts",
    BodyTooSlow "body_too_slow" "The body took too long",
    TopicsDiffer "topics_differ" "Registered with other topics",
    PrefillDiffers "prefill_differs" "Registered with another value of request_prefill",
    PasswordDiffers "password_differs" "Registered with another password",
    SelectionDiffers "selection_differs" "Registered with another selection",
    TrackDiffers "track_differs" "Registered with another value of track",
    MaxRemovalsDiffers "max_removals_differs" "Registered with another value of max_removals",
    NotReady "not_ready" "The subscription is not ready",
    QueueLost "queue_lost" "The queue is lost",
    QueueGivenUp "queue_given_up" "The queue was full and was given up",
    PrefillUnderWay "prefill_under_way" "A prefill is under way",
    PrefillEnded "prefill_ended" "The prefill has ended",
    NotTracked "not_tracked" "The subscription is not tracked",
    NotHeld "not_held" "The prefill is not held",
    OtherAttempt "other_attempt" "The prefill is at another attempt by now",
    DryRunTooEarly "dry_run_too_early" "The former prefill is not done and read",
    IsResync "is_resync" "The prefill is a resync",
    ChangedByOthers "changed_by_others" "The subscription is being changed by others",
    NotKept "not_kept" "Only the record of the dead letter was kept",
    StillTooLarge "still_too_large" "NATS does not carry the dead letter",
    BodyTooLarge "body_too_large" "The body is too large",
    UnknownCoding "unknown_coding" "The body is compressed",
    Invalid "invalid" "The request is not valid",
    TooMany "too_many" "Too many at once",
    Unreadable "unreadable" "The entry of the subscription can't be read",
    Internal "internal" "An error of our own",
    Unavailable "unavailable" "Something behind the API is unavailable",
    LogFull "log_full" "The event log is full",
    EventLate "event_late" "The event could not be placed in time",
}

impl Code {
    /// The words alone, for the description.
    pub(crate) fn words() -> Vec<&'static str> {
        Self::ALL.iter().map(|code| code.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_of_failures_is_that_of_the_code() {
        let rows = Code::ALL.iter().map(|code| vec![format!("`{}`", code.as_str()), code.title().to_owned()]);
        reference::keep("http-api.md", "failures", &reference::table(&["code", "title"], rows));
    }

    #[test]
    fn each_word_stands_for_one_failure() {
        let mut words = Code::words();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
