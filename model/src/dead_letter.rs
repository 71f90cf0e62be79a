//! Dead letters: what a queue can't carry, set aside with its reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Incarnation, Subscription, Timestamp};

/// Why something was set aside instead of delivered, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Whose it is.
    pub incarnation: Incarnation,
    /// Where it would have stood.
    pub origin: Origin,
    /// Why it was set aside.
    pub reason: DeadLetterReason,
    /// What was wrong, in words, where the reason alone does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Object type, such as `users/user`.
    pub topic: String,
    /// The object's DN, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dn: Option<String>,
    /// Bytes of the message; 0 where there is none.
    pub size: u64,
    /// Bytes that could be carried at that time.
    pub limit: u64,
    /// When it was set aside.
    pub at: Timestamp,
}

/// Where a dead letter would have stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// Among the live messages.
    Live {
        /// Its sequence in the event log.
        incoming_seq: u64,
    },
    /// In a prefill.
    Prefill {
        /// Attempt that set it aside.
        attempt: u32,
    },
}

/// Why something was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeadLetterReason {
    /// Larger than NATS carries (`max_payload`).
    TooLarge,
    /// The directory lists the object and can't show it.
    Unreadable,
    /// A word of a newer version, which an older one reads as this.
    #[serde(other)]
    Unknown,
}

impl DeadLetter {
    /// Does it still mean something? What an overtaken attempt has set aside, the attempt after it has written or set
    /// aside, too.
    #[must_use]
    pub fn is_current(&self, subscription: &Subscription) -> bool {
        self.incarnation == subscription.incarnation
            && match self.origin {
                Origin::Live { .. } => true,
                Origin::Prefill { attempt } => attempt == subscription.prefill.attempt,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::Registration;
    use uuid::Uuid;

    #[test]
    fn letters_of_overtaken_attempts_mean_nothing() {
        let now: Timestamp = "2026-01-01T00:00:00".parse().unwrap();
        let registration =
            Registration { request_prefill: true, ..Registration::new("mail".parse().unwrap(), vec![]) };
        let mine = Incarnation(Uuid::from_u128(1));
        let mut subscription = Subscription::reserve(registration, mine, 1, now.clone());
        subscription.prefill.attempt = 2;
        for (incarnation, origin, expected) in [
            (mine, Origin::Live { incoming_seq: 9 }, true),
            (mine, Origin::Prefill { attempt: 2 }, true),
            (mine, Origin::Prefill { attempt: 1 }, false),
            (Incarnation(Uuid::from_u128(2)), Origin::Live { incoming_seq: 9 }, false),
        ] {
            let letter = DeadLetter {
                incarnation,
                origin,
                reason: DeadLetterReason::TooLarge,
                problem: None,
                topic: "users/user".into(),
                dn: None,
                size: 2,
                limit: 1,
                at: now.clone(),
            };
            assert_eq!(letter.is_current(&subscription), expected, "{letter:?}");
        }
    }
}
