//! The brake of a resync: how much may be told as removed before a person has to approve it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a resync finds gone, of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removals {
    /// Objects that the consumer knew before.
    pub known: u64,
    /// Those of them that are gone.
    pub removed: u64,
}

/// By type.
pub type RemovalsByType = BTreeMap<String, Removals>;

/// How many removals a resync may tell without being approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MaxRemovals {
    /// So many, of all types together.
    Objects(u64),
    /// More than a share *and* more than a number is too much, of one type or of all together; and so are all objects
    /// of a type that had several, however few.
    Share(Share),
}

/// A share of what was known, and a number up to which the share does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Of the objects that were known, in per cent.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: u8,
    /// Objects.
    #[serde(default = "default_objects")]
    pub objects: u64,
}

fn default_percent() -> u8 {
    Share::default().percent
}

fn default_objects() -> u64 {
    Share::default().objects
}

impl Default for Share {
    /// 20 % and 20 objects: more than an ordinary day removes, and less than a directory that has lost a branch.
    fn default() -> Self {
        Self { percent: 20, objects: 20 }
    }
}

impl Default for MaxRemovals {
    fn default() -> Self {
        Self::Share(Share::default())
    }
}

impl Share {
    fn is_passed_by(self, Removals { known, removed }: Removals) -> bool {
        let share = u128::from(removed) * 100 > u128::from(self.percent) * u128::from(known);
        removed > self.objects && share
    }
}

impl MaxRemovals {
    /// Is this more than may be told?
    #[must_use]
    pub fn is_passed_by(self, types: &RemovalsByType) -> bool {
        let all = types.values().fold(Removals::default(), |sum, of| Removals {
            known: sum.known + of.known,
            removed: sum.removed + of.removed,
        });
        // A list that is well and empty: rights lost, a wrong base, a directory that is just being filled.
        let vanished = |of: &Removals| of.known > 1 && of.removed == of.known;
        match self {
            Self::Objects(most) => all.removed > most,
            Self::Share(share) => {
                share.is_passed_by(all) || types.values().any(|of| share.is_passed_by(*of) || vanished(of))
            }
        }
    }
}

/// For people: `users/user: 50 of 50, groups/group: 1 of 12`, the types of which something is gone.
#[must_use]
pub fn removals_text(types: &RemovalsByType) -> String {
    let gone = types.iter().filter(|(_, of)| of.removed > 0);
    let texts: Vec<_> =
        gone.map(|(topic, Removals { known, removed })| format!("{topic}: {removed} of {known}")).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

/// For people: why an attempt is held, and what to do.
#[must_use]
pub fn held_text(types: &RemovalsByType) -> String {
    format!(
        "more would be told as removed than may be without an approval (max_removals): {}. Nothing of this prefill is \
         read before somebody decides. Is the directory whole? Then approve it (POST …/prefill/approve, or the annotation \
         headstart/request=approve); else cancel it, and ask again",
        removals_text(types)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(of: &[(u64, u64)]) -> RemovalsByType {
        let numbered = of.iter().enumerate();
        numbered
            .map(|(n, (known, left))| (format!("t/{n}"), Removals { known: *known, removed: known - left }))
            .collect()
    }

    #[test]
    fn how_much_is_too_much() {
        let share = |percent, objects| MaxRemovals::Share(Share { percent, objects });
        let usual = MaxRemovals::default();
        for (max, known_and_left, held) in [
            (usual, &[(50, 0)][..], true),
            (usual, &[(10, 0)], true),
            (usual, &[(2, 0)], true),
            (usual, &[(1, 0)], false),
            (usual, &[(10, 1)], false),
            (usual, &[(100, 80)], false),
            (usual, &[(100, 79)], true),
            (usual, &[(1000, 801)], false),
            (usual, &[(1000, 799)], true),
            (usual, &[], false),
            (usual, &[(0, 0)], false),
            // One type of two is empty; many types that lost a little each.
            (usual, &[(1000, 1000), (50, 0)], true),
            (usual, &[(1000, 1000), (3, 0)], true),
            (usual, &[(60, 45), (60, 45)], true),
            (usual, &[(60, 45), (600, 600)], false),
            (share(100, 0), &[(50, 1)], false),
            (share(100, 0), &[(50, 0)], true),
            (share(0, 0), &[(50, 49)], true),
            (share(0, 0), &[(50, 50)], false),
            (MaxRemovals::Objects(50), &[(50, 0)], false),
            (MaxRemovals::Objects(50), &[(50, 0), (5, 4)], true),
            (MaxRemovals::Objects(0), &[(1, 0)], true),
            (MaxRemovals::Objects(0), &[(1, 1)], false),
        ] {
            assert_eq!(max.is_passed_by(&types(known_and_left)), held, "{max:?} {known_and_left:?}");
        }
    }

    #[test]
    fn its_forms() {
        for (text, expected) in [
            ("5", Some(MaxRemovals::Objects(5))),
            (r#"{"percent": 5}"#, Some(MaxRemovals::Share(Share { percent: 5, objects: 20 }))),
            (r#"{"objects": 5}"#, Some(MaxRemovals::Share(Share { percent: 20, objects: 5 }))),
            ("{}", Some(MaxRemovals::default())),
            ("-1", None),
            (r#"{"percent": 300}"#, None),
            (r#"{"per_cent": 3}"#, None),
        ] {
            assert_eq!(serde_json::from_str(text).ok(), expected, "{text}");
        }
        assert_eq!(removals_text(&types(&[(50, 0), (3, 3), (9, 8)])), "t/0: 50 of 50, t/2: 1 of 9");
        assert_eq!(removals_text(&types(&[(3, 3)])), "nothing");
    }
}
