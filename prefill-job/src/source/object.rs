//! An object's text: its type, and its bytes without `_links`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::cut::Cutter;

/// What a prefill needs of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawObject<'a> {
    /// The value of `objectType`.
    pub object_type: String,
    /// The text without the member `_links`; all other bytes are as they were.
    pub text: Cow<'a, str>,
}

/// Why a text is no object of a directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObjectError {
    #[error("not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    #[error("the key objectType is missing or empty")]
    NoType,
    #[error("it has more than {0} bytes")]
    TooLong(usize),
}

impl RawObject<'_> {
    /// The text as a value that is written as it is.
    pub fn into_raw(self) -> serde_json::Result<Box<RawValue>> {
        RawValue::from_string(self.text.into_owned())
    }
}

/// Takes an object's own text, which has no `_links` any more, without a copy.
pub(super) fn take(mut bytes: Vec<u8>) -> Result<(String, Box<RawValue>), ObjectError> {
    let object_type = match read(&bytes)? {
        RawObject { object_type, text: Cow::Borrowed(text) } if text.len() == bytes.len() => object_type,
        RawObject { object_type, text } => {
            let text = text.into_owned();
            bytes = text.into_bytes();
            object_type
        }
    };
    let text = String::from_utf8(bytes).map_err(|e| e.utf8_error())?;
    Ok((object_type, RawValue::from_string(text)?))
}

/// Reads the text of one object.
pub(super) fn read(bytes: &[u8]) -> Result<RawObject<'_>, ObjectError> {
    let text = std::str::from_utf8(bytes)?.trim();
    let members = members(text)?;
    let value_of =
        |key: &str| members.iter().rev().find(|member| member.is(key)).map(|member| member.value.get());
    let object_type: Option<String> = value_of("objectType").and_then(|text| serde_json::from_str(text).ok());
    let object_type = object_type.filter(|t| !t.is_empty()).ok_or(ObjectError::NoType)?;
    if !members.iter().any(|member| member.is("_links")) {
        return Ok(RawObject { object_type, text: Cow::Borrowed(text) });
    }
    let mut kept = Vec::with_capacity(text.len());
    Cutter::new().push(text.as_bytes(), &mut kept);
    Ok(RawObject { object_type, text: Cow::Owned(String::from_utf8(kept).map_err(|e| e.utf8_error())?) })
}

/// The members of the one object that a text is.
fn members(text: &str) -> serde_json::Result<Vec<Member<'_>>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Members(Vec::new()))?.0;
    reader.end()?;
    Ok(members)
}

/// A member as it stands in the text.
struct Member<'a> {
    key: &'a RawValue,
    value: &'a RawValue,
}

impl Member<'_> {
    fn is(&self, name: &str) -> bool {
        let quoted = self.key.get();
        match quoted.contains('\\') {
            false => quoted.get(1..quoted.len() - 1) == Some(name),
            true => serde_json::from_str::<String>(quoted).is_ok_and(|key| key == name),
        }
    }
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((key, value)) = map.next_entry()? {
            self.0.push(Member { key, value });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_cut_out_and_every_other_byte_stays() {
        for (text, expected) in [
            (r#"{"objectType":"a/b"}"#, r#"{"objectType":"a/b"}"#),
            (r#"{"_links":{},"objectType":"a/b"}"#, r#"{"objectType":"a/b"}"#),
            (r#"{"objectType":"a/b","_links":{"a":[1]}}"#, r#"{"objectType":"a/b"}"#),
            (
                r#"{"objectType":"a/b" , "_links":{"_links":{}} ,  "n": 2.0}"#,
                r#"{"objectType":"a/b" ,  "n": 2.0}"#,
            ),
            (r#"{ "_links": 1, "objectType": "a/b", "_links": 2 }"#, r#"{ "objectType": "a/b" }"#),
            (r#"{"_links":1,"_links":2,"objectType":"a/b"}"#, r#"{"objectType":"a/b"}"#),
            (r#"{"\u005flinks": 1, "objectType": "a/b"}"#, r#"{"objectType": "a/b"}"#),
            (
                r#"  {"objectType":"a/b","p":{"_links":"kept, as it is no link of ours"}}  "#,
                r#"{"objectType":"a/b","p":{"_links":"kept, as it is no link of ours"}}"#,
            ),
            (
                r#"{"objectType":"a/b","_links ":1,"z":-0.0,"big":123456789012345678901234567890,"e":1E400,"u":"\u00fc\ud800"}"#,
                r#"{"objectType":"a/b","_links ":1,"z":-0.0,"big":123456789012345678901234567890,"e":1E400,"u":"\u00fc\ud800"}"#,
            ),
        ] {
            let read = read(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((read.object_type.as_str(), &*read.text), ("a/b", expected));
            RawValue::from_string(read.text.into_owned()).unwrap();
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "",
            "[]",
            "null",
            "{",
            "{}",
            r#"{"objectType":""}"#,
            r#"{"objectType":null}"#,
            r#"{"objectType":["a"]}"#,
            r#"{"objectType":"a/b"} {"objectType":"a/b"}"#,
            r#"{"objectType":"a/b",}"#,
            r#"{"objectType":"a/b""#,
            "<html>",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(matches!(read(b"{\"objectType\":\"\xff\"}"), Err(ObjectError::Utf8(_))));
    }

    #[test]
    fn the_last_of_two_types_counts_as_in_other_readers() {
        assert_eq!(read(br#"{"objectType":"a/b","objectType":"c/d"}"#).unwrap().object_type, "c/d");
    }
}
