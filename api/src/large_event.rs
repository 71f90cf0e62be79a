//! Events that are larger than NATS carries: what can be told of them. The producer can do nothing about one, and would
//! send it for ever; so it is accepted, and becomes a dead letter.

use std::fmt;

use broker::LargeEvent;
use model::Message;
use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use crate::request::LONGEST_WORD;

/// Longest DN that is told.
const LONGEST_DN: usize = 4096;

/// What is known of one that was read whole and checked.
pub(crate) fn whole(event: &[u8], size: usize) -> LargeEvent {
    let Head { realm, topic } = head(event);
    let dn = Message::dn(event).filter(|dn| dn.len() <= LONGEST_DN);
    LargeEvent { realm, topic, dn, size: size as u64, limit: 0 }
}

/// What its beginning says, if it says anything.
pub(crate) fn beginning(text: &[u8], size: u64) -> Option<LargeEvent> {
    let Head { realm, topic } = head(text);
    Some(LargeEvent { realm, topic, dn: None, size, limit: 0 })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    realm: String,
    topic: String,
}

/// The first two words, as far as the text goes.
fn head(text: &[u8]) -> Head {
    let mut head = Head::default();
    // It breaks off in its middle, which is no matter once both are found.
    serde_json::Deserializer::from_slice(text).deserialize_map(&mut head).ok();
    head
}

impl<'de> Visitor<'de> for &mut Head {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let word = match key.as_str() {
                "realm" => &mut self.realm,
                "topic" => &mut self.topic,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *word = map.next_value::<String>()?;
            word.truncate(word.floor_char_boundary(LONGEST_WORD));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_event_is_found_as_far_as_its_text_goes() {
        let both = |realm: &str, topic: &str| Head { realm: realm.into(), topic: topic.into() };
        for (text, expected) in [
            (
                r#"{"publisher_name": "x", "realm": "udm", "topic": "groups/group", "body": {"new": {"#,
                both("udm", "groups/group"),
            ),
            (r#"{"topic": "groups/group", "realm": "udm"}"#, both("udm", "groups/group")),
            (r#"{"realm": "udm", "body": {"topic": "users/user""#, both("udm", "")),
            (r#"{"realm": "udm", "topic": "groups/gr"#, both("udm", "")),
            ("[]", Head::default()),
            ("", Head::default()),
        ] {
            assert_eq!(head(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_whole_one_tells_its_object() {
        let event = br#"{"realm":"udm","topic":"groups/group","body":{"old":{},"new":{"dn":"cn=g","objectType":"groups/group"}}}"#;
        let large = whole(event, 9);
        assert_eq!(
            (large.topic.as_str(), large.dn.as_deref(), large.size),
            ("groups/group", Some("cn=g"), 9)
        );
    }
}
