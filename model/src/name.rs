//! Names of subscriptions, and the incarnations that tell two subscriptions of one name apart.

use std::{borrow::Borrow, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// Longest name of a subscription in bytes. What Kubernetes takes is shorter: `manifests` derives such names with a hash.
pub const LONGEST: usize = 128;

/// First subject tokens and stream names that Headstart, or the software that it replaces, uses itself.
/// A subscription of that name would take over an internal stream.
pub const RESERVED: [&str; 9] = [
    "incoming",
    "prefill",
    "prefill-failures",
    "ldap-producer",
    "tasks",
    "dead-letters",
    "headstart",
    // Of NATS itself: answers behind mapped subjects and gateways.
    "_R_",
    "_GR_",
];

/// What subjects of answers begin with: a subscription of such a name would store the answers to others.
const INBOX: &str = "_INBOX";

/// Name of a subscription: `[A-Za-z0-9_=-]{1,128}` and not one of our own streams.
///
/// The rule is the part of what NATS can carry as one subject token, a KV key and a part of a stream's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SubscriptionName(String);

/// Why a string is no name of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or a character that NATS can't carry.
    #[error(
        "the name must match [A-Za-z0-9_=-]{{1,{LONGEST}}}: up to {LONGEST} letters, digits, '_', '=' or '-'"
    )]
    Pattern,
    /// The name of an internal stream.
    #[error(
        "the name is reserved for internal streams and subjects; choose another one (reserved: {}, and what begins with {INBOX})",
        RESERVED.join(", ")
    )]
    Reserved,
}

impl SubscriptionName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SubscriptionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'=' | b'-'));
        if !letters || text.is_empty() || text.len() > LONGEST {
            return Err(NameError::Pattern);
        }
        if RESERVED.contains(&text) || text.starts_with(INBOX) {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for SubscriptionName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for SubscriptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for SubscriptionName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SubscriptionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One life of a subscription's name: re-created under the same name, it is another incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Incarnation(pub Uuid);

impl Incarnation {
    /// The first 8 hex digits: what names of streams, Jobs and ConfigMaps carry.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.0.simple().to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nats_can_carry_are_taken() {
        for good in
            ["a", "ox-connector", "Self_Service=1", "0", "-a", "_a", "=a", "-", "a=", &"x".repeat(128)]
        {
            assert_eq!(good.parse::<SubscriptionName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn other_names_are_refused_with_the_rule() {
        for bad in ["", "a.b", "a/b", "a b", "$a", "a*", "a>", "ä", "a\0", "a\n", &"x".repeat(129)] {
            assert_eq!(bad.parse::<SubscriptionName>(), Err(NameError::Pattern), "{bad:?}");
        }
        for reserved in RESERVED.into_iter().chain(["_INBOX", "_INBOX_api"]) {
            assert_eq!(reserved.parse::<SubscriptionName>(), Err(NameError::Reserved));
        }
    }
}
