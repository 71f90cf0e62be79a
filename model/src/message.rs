//! Messages: an event, or an object of a snapshot, as consumers see it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

use crate::{Timestamp, json::Members};

/// Who made a message. Existing clients refuse any other value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Publisher {
    /// The directory listener.
    #[serde(rename = "udm-listener")]
    UdmListener,
    /// The LDIF producer.
    #[serde(rename = "ldif-producer")]
    LdifProducer,
    /// A prefill.
    #[serde(rename = "udm-pre-fill")]
    UdmPreFill,
    /// A registration.
    #[serde(rename = "consumer-registration")]
    ConsumerRegistration,
    /// Tests of the existing client.
    #[serde(rename = "consumer_client_test")]
    ConsumerClientTest,
}

/// A message without its place in a queue: what `POST /v1/messages` takes and what is stored. Unknown fields are
/// ignored, as the contract has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Who made it.
    pub publisher_name: Publisher,
    /// When it was made, by the producer's clock.
    pub ts: Timestamp,
    /// Source of the event, `udm` for the directory.
    pub realm: String,
    /// Object type, such as `users/user`.
    pub topic: String,
    /// The object before and after.
    pub body: Body,
}

/// The object before and after a change, byte for byte as the producer gave it: key order, floats and integers
/// beyond 64 bits survive.
#[derive(Clone, Debug, Serialize)]
pub struct Body {
    /// Before; `{}` for a new object.
    pub old: Box<RawValue>,
    /// After; `{}` for a deleted object.
    pub new: Box<RawValue>,
}

/// Why a body can't be an event (wire contract 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// `old` is not an object.
    #[error("body.old must be an object, {{}} for a new one")]
    OldNotObject,
    /// `new` is not an object.
    #[error("body.new must be an object, {{}} for a deleted one")]
    NewNotObject,
    /// Both are empty.
    #[error("body.old and body.new are both empty: at least one must hold the object")]
    Empty,
    /// Neither says which type of object it is.
    #[error("body.old or body.new must have an objectType (or univentionObjectType, where that is used)")]
    NoObjectType,
    /// What names the object is no name any more.
    #[error(
        "the dn, id, uuid or univentionObjectIdentifier of the object has more than {LONGEST_NAME} bytes"
    )]
    TooLong,
}

/// Longest DN and identifier of an object, in bytes as they are written. What is known of objects is kept by these.
const LONGEST_NAME: usize = 64 * 1024;

type Fields<'a> = BTreeMap<String, &'a RawValue>;

impl<'de> Deserialize<'de> for Body {
    /// Of several members of one name the last counts, as in all other readers of JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut sides = BTreeMap::<String, Box<RawValue>>::deserialize(deserializer)?;
        let mut side = |name| sides.remove(name).ok_or_else(|| de::Error::missing_field(name));
        Ok(Self { old: side("old")?, new: side("new")? })
    }
}

impl Body {
    /// The body of a snapshot's object: nothing before, the object after.
    #[must_use]
    pub fn snapshot(object: Box<RawValue>) -> Self {
        Self { old: empty_object(), new: object }
    }

    /// The body of a message that tells a removal: the object before, nothing after.
    #[must_use]
    pub fn removal(object: Box<RawValue>) -> Self {
        Self { old: object, new: empty_object() }
    }

    /// Checks the rules that existing clients enforce when they receive a message.
    ///
    /// # Errors
    /// [`BodyError`] for the first rule that is broken.
    pub fn check(&self) -> Result<(), BodyError> {
        let old: Fields = serde_json::from_str(self.old.get()).map_err(|_| BodyError::OldNotObject)?;
        let new: Fields = serde_json::from_str(self.new.get()).map_err(|_| BodyError::NewNotObject)?;
        if old.is_empty() && new.is_empty() {
            return Err(BodyError::Empty);
        }
        let used = |key: &str| old.contains_key(key) || new.contains_key(key);
        let key = if used("univentionObjectType") { "univentionObjectType" } else { "objectType" };
        let named = [&old, &new].into_iter().any(|side| side.get(key).is_some_and(|v| truthy(v)));
        if !named {
            return Err(BodyError::NoObjectType);
        }
        if [&old, &new].into_iter().any(has_long_name) { Err(BodyError::TooLong) } else { Ok(()) }
    }
}

fn has_long_name(side: &Fields<'_>) -> bool {
    let long = |value: &RawValue| value.get().len() > LONGEST_NAME;
    let identifier = || {
        let properties: Fields<'_> =
            serde_json::from_str(side.get("properties").filter(|text| long(text))?.get()).ok()?;
        properties.get("univentionObjectIdentifier").map(|text| long(text))
    };
    ["dn", "id", "uuid"].into_iter().any(|name| side.get(name).is_some_and(|text| long(text)))
        || identifier() == Some(true)
}

/// `{}`, which `RawValue` can't build without a fallible call.
fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Truth in the sense of Python, which is what existing clients check.
fn truthy(value: &RawValue) -> bool {
    let text = value.get().trim();
    !matches!(text, "null" | "false" | "\"\"") && !is_empty_container(text) && text.parse::<f64>() != Ok(0.0)
}

fn is_empty_container(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .or_else(|| text.strip_prefix('{').and_then(|t| t.strip_suffix('}')));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

impl Message {
    /// A stored message.
    ///
    /// # Errors
    /// It is none.
    pub fn stored(stored: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(stored)
    }

    /// DN of the object of a stored message, for people; after the change, or before it if it was deleted.
    #[must_use]
    pub fn dn(stored: &[u8]) -> Option<String> {
        let (before, after) = Self::dns(stored)?;
        after.or(before)
    }

    /// DNs of the object of a stored message before and after the change; `None` if the message can't be read.
    #[must_use]
    pub fn dns(stored: &[u8]) -> Option<(Option<String>, Option<String>)> {
        #[derive(Deserialize)]
        struct Stored {
            body: Body,
        }
        let Stored { body } = serde_json::from_slice(stored).ok()?;
        let dn = |side: &RawValue| serde_json::from_str(Members::of(side.get()).ok()?.get("dn")?).ok();
        Some((dn(&body.old), dn(&body.new)))
    }

    /// The message as JSON with its place in a queue appended: `sequence_number` and `num_delivered`. The stored
    /// bytes are not parsed again, so nothing in them can change.
    #[must_use]
    pub fn with_place(stored: &[u8], sequence_number: u64, num_delivered: u64) -> Vec<u8> {
        let place = format!(",\"sequence_number\":{sequence_number},\"num_delivered\":{num_delivered}}}");
        let open = stored.strip_suffix(b"}").unwrap_or(stored);
        [open, place.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_dn_after_or_before() {
        for (old, new, expected) in [
            (r#"{"dn":"cn=a"}"#, r#"{"dn":"cn=b"}"#, Some("cn=b")),
            (r#"{"dn":"cn=a"}"#, "{}", Some("cn=a")),
            ("{}", r#"{"x":1}"#, None),
            ("{}", r#"{"dn":1}"#, None),
            ("{}", r#"{"dn":"cn=a","dn":"cn=b"}"#, Some("cn=b")),
        ] {
            let stored = format!(r#"{{"topic":"t","body":{{"old":{old},"new":{new}}}}}"#);
            assert_eq!(Message::dn(stored.as_bytes()).as_deref(), expected, "{stored}");
        }
        assert_eq!(Message::dn(b"no JSON"), None);
    }

    #[test]
    fn bodies() {
        for (text, expected) in [
            (r#"{"old":{},"new":{"objectType":"users/user"}}"#, Ok(())),
            (r#"{"old":{"objectType":"users/user"},"new":{}}"#, Ok(())),
            (r#"{"old":{},"new":{"univentionObjectType":["users/user"]}}"#, Ok(())),
            (
                r#"{"old":{"univentionObjectType":null},"new":{"objectType":"users/user"}}"#,
                Err(BodyError::NoObjectType),
            ),
            (r#"{"old":{},"new":{"objectType":""}}"#, Err(BodyError::NoObjectType)),
            (r#"{"old":{},"new":{"objectType":[ ]}}"#, Err(BodyError::NoObjectType)),
            (r#"{"old":{},"new":{"objectType":0.0}}"#, Err(BodyError::NoObjectType)),
            (r#"{"old":{},"new":{"dn":"x"}}"#, Err(BodyError::NoObjectType)),
            (r#"{"old":{},"new":{}}"#, Err(BodyError::Empty)),
            (r#"{"old":null,"new":{"objectType":"x"}}"#, Err(BodyError::OldNotObject)),
            (r#"{"old":{},"new":{},"new":{"objectType":"","objectType":"x"}}"#, Ok(())),
            (r#"{"old":{},"new":{"objectType":"x"},"new":{}}"#, Err(BodyError::Empty)),
            (r#"{"old":{},"new":[]}"#, Err(BodyError::NewNotObject)),
        ] {
            assert_eq!(body(text).check(), expected, "{text}");
        }
        let long = "x".repeat(LONGEST_NAME);
        for (text, expected) in [
            (format!(r#"{{"objectType":"x","dn":"{long}"}}"#), Err(BodyError::TooLong)),
            (
                format!(r#"{{"objectType":"x","properties":{{"univentionObjectIdentifier":"{long}"}}}}"#),
                Err(BodyError::TooLong),
            ),
            (
                format!(r#"{{"objectType":"x","dn":"x","properties":{{"photo":"{long}"}},"x":"{long}"}}"#),
                Ok(()),
            ),
        ] {
            assert_eq!(body(&format!(r#"{{"old":{{}},"new":{text}}}"#)).check(), expected);
        }
    }

    #[test]
    fn the_body_passes_through_byte_for_byte() {
        let text = r#"{"publisher_name":"udm-listener","ts":"2024-02-07T09:01:33.835000+00:00","realm":"udm","topic":"users/user","body":{"old":{},"new":{"z":-0.0,"a":123456789012345678901234567890,"objectType":"ü","n":null}}}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
    }

    #[test]
    fn the_place_is_appended() {
        let placed = Message::with_place(br#"{"realm":"udm"}"#, 7, 2);
        assert_eq!(placed, br#"{"realm":"udm","sequence_number":7,"num_delivered":2}"#);
    }

    #[test]
    fn a_snapshot_object_has_nothing_before() {
        let object = RawValue::from_string(r#"{"objectType":"x"}"#.into()).unwrap();
        assert_eq!(Body::snapshot(object).old.get(), "{}");
    }
}
