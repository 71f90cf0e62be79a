//! The fence: the token that makes one pod the only writer of a queue's prefill.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Incarnation, Reason,
    resync::{RemovalsByType, removals_text},
};

/// The message on `<name>.fence`. There is always exactly one, and it is never purged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Whose queue this is.
    pub incarnation: Incarnation,
    /// Round of the prefill.
    pub round: u32,
    /// Attempt that owns the queue; 0 is the registration itself.
    pub attempt: u32,
    /// Name of the pod or worker, for people.
    pub holder: String,
    /// Is the attempt still writing?
    pub state: FenceState,
    /// What was written; only of a sealed or held fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Numbers of live messages that the snapshot holds already; only of a sealed or held fence. They stand here because a
    /// removal has no condition: only the attempt that has sealed may say what is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contained: Vec<u64>,
    /// Below this number the set of known objects is what was known before the attempt, and is to be forgotten once it
    /// is sealed. Its pod may die before that, or be gone when it is approved; then the next attempt does it. Only of
    /// a sealed or held fence, and not of one that only counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_below: Option<u64>,
    /// It was held, and a person has approved it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
}

/// State of the attempt that holds the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceState {
    /// The holder may write.
    Open,
    /// The attempt is complete; nothing of it will change.
    Sealed,
    /// The attempt was cancelled; it must not write.
    Cancelled,
    /// The attempt is complete, and has more removals than allowed: nothing of it is read until a person approves it,
    /// which seals it. Nothing else of it will change.
    Held,
}

/// What a sealed attempt wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages in the queue.
    pub messages: u64,
    /// Objects that vanished between list and read.
    pub skipped: u64,
    /// Objects that were set aside: too large for NATS, or nothing that the source could read.
    #[serde(default)]
    pub set_aside: u64,
    /// Objects that the selection leaves out.
    #[serde(default)]
    pub not_selected: u64,
    /// Messages of a resync that tell a removal; they count as messages, too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u64,
    /// Messages of a resync that tell a move; they count as messages, too.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moved: u64,
    /// What a resync found known and gone, by type.
    #[serde(default, skip_serializing_if = "RemovalsByType::is_empty")]
    pub removals: RemovalsByType,
    /// Nothing was written: the numbers are those of what would have been.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Requested topics of no object type that the directory knows, where these are left out on request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What somebody should look at although the attempt went well: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Counts {
    /// What a complete attempt does not hold, or what should be looked at, in a word and a sentence.
    #[must_use]
    pub fn notable(&self) -> Option<(Reason, String)> {
        let reason = if self.set_aside > 0 {
            Reason::ObjectsSetAside
        } else if !self.missing.is_empty() {
            Reason::TopicsMissing
        } else if !self.warnings.is_empty() {
            Reason::DoneWithWarnings
        } else {
            return None;
        };
        Some((reason, self.to_string()))
    }
}

/// A sentence for people about a complete attempt: what it does not hold, and what should be looked at.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, removed, removals, set_aside, missing, warnings, dry_run, .. } = self;
        if *dry_run {
            let gone = removals_text(removals);
            write!(f, "{messages} messages were counted and none was written; gone: {gone}")?;
        } else {
            f.write_str("the prefill is complete")?;
            if *removed > 0 {
                write!(f, "; {removed} of its messages tell what is to be removed")?;
            }
        }
        if *set_aside > 0 {
            write!(f, "; {set_aside} objects were set aside, see the dead letters")?;
        }
        if !missing.is_empty() {
            write!(f, "; left out, since the directory knows no such type: {}", missing.join(", "))?;
        }
        for warning in warnings {
            write!(f, "; {warning}")?;
        }
        Ok(())
    }
}

impl Fence {
    /// Of an attempt that has just taken the queue: nothing of a former one is left in it.
    #[must_use]
    pub fn taken(incarnation: Incarnation, round: u32, attempt: u32, holder: String) -> Self {
        Self {
            incarnation,
            round,
            attempt,
            holder,
            state: FenceState::Open,
            counts: None,
            contained: Vec::new(),
            known_below: None,
            approved: false,
        }
    }

    /// Was this attempt cancelled?
    #[must_use]
    pub fn is_cancelled(&self, attempt: u32) -> bool {
        self.state == FenceState::Cancelled && self.attempt == attempt
    }

    /// Does this seal complete that attempt?
    #[must_use]
    pub fn seals(&self, incarnation: Incarnation, attempt: u32) -> bool {
        self.is_of(FenceState::Sealed, incarnation, attempt)
    }

    /// Is that attempt complete, and waits for its approval?
    #[must_use]
    pub fn holds(&self, incarnation: Incarnation, attempt: u32) -> bool {
        self.is_of(FenceState::Held, incarnation, attempt)
    }

    fn is_of(&self, state: FenceState, incarnation: Incarnation, attempt: u32) -> bool {
        self.state == state && self.incarnation == incarnation && self.attempt == attempt
    }
}

/// What a pod that has *not yet* owned the fence does about the fence it found.
///
/// A pod that owned it and lost it to the same attempt never takes it back: two pods would fight for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Take it, on the condition that it is still the one that was read.
    Take,
    /// Our attempt is complete: exit 0.
    Sealed,
    /// Our attempt is complete and waits for its approval, which is about what was written: exit 0.
    Held,
    /// A higher attempt, or a later round, has it: exit 0.
    Overtaken,
    /// Our attempt was cancelled: exit 0, the state was written by whoever cancelled.
    Cancelled,
    /// The queue belongs to another incarnation: exit "subscription gone".
    Gone,
}

/// Decides what the attempt may do with the fence that it read.
#[must_use]
pub fn claim(found: &Fence, incarnation: Incarnation, attempt: u32) -> Claim {
    if found.incarnation != incarnation {
        return Claim::Gone;
    }
    match found.attempt.cmp(&attempt) {
        std::cmp::Ordering::Greater => Claim::Overtaken,
        std::cmp::Ordering::Less => Claim::Take,
        std::cmp::Ordering::Equal => match found.state {
            FenceState::Open => Claim::Take,
            FenceState::Sealed => Claim::Sealed,
            FenceState::Cancelled => Claim::Cancelled,
            FenceState::Held => Claim::Held,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_a_complete_attempt_lacks_has_a_word_and_a_sentence() {
        let whole = Counts { messages: 5, skipped: 1, not_selected: 3, ..Counts::default() };
        assert_eq!(whole.notable(), None);
        assert_eq!(whole.to_string(), "the prefill is complete");
        let missing = Counts { missing: vec!["oxmail/.*".into(), "a/b".into()], ..whole.clone() };
        let warned = Counts { warnings: vec!["4 of 4 are gone".into()], ..whole };
        let set_aside = Counts { set_aside: 2, warnings: warned.warnings.clone(), ..missing.clone() };
        for (counts, reason, end) in [
            (missing, Reason::TopicsMissing, "no such type: oxmail/.*, a/b"),
            (warned, Reason::DoneWithWarnings, "the prefill is complete; 4 of 4 are gone"),
            (
                set_aside,
                Reason::ObjectsSetAside,
                "2 objects were set aside, see the dead letters; left out, since the directory knows no such type: \
                 oxmail/.*, a/b; 4 of 4 are gone",
            ),
        ] {
            let (word, sentence) = counts.notable().unwrap();
            assert!(word == reason && sentence.ends_with(end), "{word}: {sentence}");
        }
        let counted = Counts { messages: 5, dry_run: true, ..Counts::default() };
        assert_eq!(counted.to_string(), "5 messages were counted and none was written; gone: nothing");
    }

    const MINE: Incarnation = Incarnation(Uuid::from_u128(1));
    const OTHER: Incarnation = Incarnation(Uuid::from_u128(2));

    #[test]
    fn claims() {
        use Claim::*;
        for (incarnation, attempt, state, expected) in [
            (OTHER, 0, FenceState::Open, Gone),
            (OTHER, 2, FenceState::Sealed, Gone),
            (MINE, 0, FenceState::Open, Take),
            (MINE, 1, FenceState::Open, Take),
            (MINE, 1, FenceState::Sealed, Take),
            (MINE, 1, FenceState::Cancelled, Take),
            (MINE, 2, FenceState::Open, Take),
            (MINE, 2, FenceState::Sealed, Claim::Sealed),
            (MINE, 2, FenceState::Cancelled, Claim::Cancelled),
            (MINE, 1, FenceState::Held, Take),
            (MINE, 2, FenceState::Held, Claim::Held),
            (MINE, 3, FenceState::Held, Overtaken),
            (MINE, 3, FenceState::Open, Overtaken),
            (MINE, 3, FenceState::Sealed, Overtaken),
        ] {
            let found = Fence { state, ..Fence::taken(incarnation, 1, attempt, "p".into()) };
            assert_eq!(claim(&found, MINE, 2), expected, "{found:?}");
        }
    }
}
