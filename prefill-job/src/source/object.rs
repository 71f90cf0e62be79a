//! An object's text: its type, and its bytes without `_links`.

use std::borrow::Cow;

use model::json::Members;
use serde_json::value::RawValue;

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
    #[error("consumers could not read it: {0}")]
    Undeliverable(#[from] model::json::JsonError),
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
    model::json::check(&bytes)?;
    let text = String::from_utf8(bytes).map_err(|e| e.utf8_error())?;
    Ok((object_type, RawValue::from_string(text)?))
}

/// Reads the text of one object.
pub(super) fn read(bytes: &[u8]) -> Result<RawObject<'_>, ObjectError> {
    let members = Members::of(std::str::from_utf8(bytes)?)?;
    let object_type: Option<String> =
        members.get("objectType").and_then(|text| serde_json::from_str(text).ok());
    let object_type = object_type.filter(|t| !t.is_empty()).ok_or(ObjectError::NoType)?;
    Ok(RawObject { object_type, text: members.without(|name| name == "_links") })
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
