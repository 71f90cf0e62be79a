//! The members of a JSON object as they stand in its text: looked at and left out without touching any other byte.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The text of one JSON object, taken apart.
#[derive(Debug)]
pub struct Members<'a> {
    text: &'a str,
    members: Vec<Member<'a>>,
}

/// A member as it stands in the text.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    key: &'a RawValue,
    value: &'a RawValue,
}

impl<'a> Members<'a> {
    /// Takes a text apart. What stands around the object is not part of it.
    ///
    /// # Errors
    /// It is not one JSON object.
    pub fn of(text: &'a str) -> serde_json::Result<Self> {
        let text = text.trim();
        let mut reader = serde_json::Deserializer::from_str(text);
        let members = reader.deserialize_map(Collect(Vec::new()))?.0;
        reader.end()?;
        Ok(Self { text, members })
    }

    /// Has it no member?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The text of a member's value; of several with one name the last counts, as in other readers.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.members.iter().rev().find(|member| member.key() == name).map(|member| member.value.get())
    }

    /// Is there a member of this name, in whatever letters?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.key().eq_ignore_ascii_case(name))
    }

    /// Leaves out members by name, each with one of the commas beside it.
    #[must_use]
    pub fn without(&self, leave_out: impl Fn(&str) -> bool) -> Cow<'a, str> {
        self.rewritten(|name, value| (!leave_out(name)).then_some(Cow::Borrowed(value)))
    }

    /// The text with other values, or without members: `change` answers the value of each, or `None` to leave it out.
    #[must_use]
    pub fn rewritten(&self, change: impl Fn(&str, &'a str) -> Option<Cow<'a, str>>) -> Cow<'a, str> {
        let place = |part: &str| part.as_ptr().addr() - self.text.as_ptr().addr();
        let begin = |member: &Member<'_>| place(member.key.get());
        let end = |member: &Member<'_>| place(member.value.get()) + member.value.get().len();
        let changed: Vec<_> = self.members.iter().map(|m| change(&m.key(), m.value.get())).collect();
        let same = |(member, value): (&Member<'_>, &Option<Cow<'_, str>>)| {
            value.as_deref() == Some(member.value.get())
        };
        if self.members.iter().zip(&changed).all(same) {
            return Cow::Borrowed(self.text);
        }
        let mut text = String::with_capacity(self.text.len());
        // Up to the first member, and behind the last one, stands what belongs to no member.
        text.push_str(self.members.first().map_or("", |first| &self.text[..begin(first)]));
        let mut any = false;
        for (index, (member, value)) in self.members.iter().zip(&changed).enumerate() {
            let Some(value) = value else { continue };
            let from = if any { end(&self.members[index - 1]) } else { begin(member) };
            text.push_str(&self.text[from..place(member.value.get())]);
            text.push_str(value);
            any = true;
        }
        text.push_str(self.members.last().map_or("", |last| &self.text[end(last)..]));
        Cow::Owned(text)
    }
}

impl<'a> Member<'a> {
    fn key(&self) -> Cow<'a, str> {
        let quoted = self.key.get();
        match quoted.contains('\\') {
            false => Cow::Borrowed(quoted.get(1..quoted.len() - 1).unwrap_or_default()),
            // Escapes of halves of characters make no string; such a key is none of ours.
            true => serde_json::from_str(quoted).map_or(Cow::Borrowed(quoted), Cow::Owned),
        }
    }
}

struct Collect<'a>(Vec<Member<'a>>);

impl<'de> Visitor<'de> for Collect<'de> {
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
    fn members_are_left_out_and_every_other_byte_stays() {
        for (text, expected) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"x":{},"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1,"x":{"x":[1]}}"#, r#"{"a":1}"#),
            (r#"{"a":1 , "x":{"x":{}} ,  "n": 2.0}"#, r#"{"a":1 ,  "n": 2.0}"#),
            (r#"{ "x": 1, "a": 1, "x": 2 }"#, r#"{ "a": 1 }"#),
            (r#"{"x":1,"x":2,"a":1}"#, r#"{"a":1}"#),
            (r#"{"\u0078": 1, "a": 1}"#, r#"{"a": 1}"#),
            (r#"  {"a":1,"p":{"x":"kept"}}  "#, r#"{"a":1,"p":{"x":"kept"}}"#),
            (r#"{"x":1}"#, "{}"),
            ("{}", "{}"),
        ] {
            assert_eq!(Members::of(text).unwrap().without(|name| name == "x"), expected, "{text}");
        }
    }

    #[test]
    fn values_are_replaced_where_they_stand() {
        let members = Members::of(r#"{"a": 1, "b" : [2],"c":-0.0}"#).unwrap();
        let changed = members.rewritten(|name, value| match name {
            "a" => None,
            "b" => Some("null".into()),
            _ => Some(value.into()),
        });
        assert_eq!(changed, r#"{"b" : null,"c":-0.0}"#);
        assert_eq!((members.get("c"), members.get("d")), (Some("-0.0"), None));
        assert!(matches!(members.rewritten(|_, value| Some(value.into())), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "null", "{", r#"{"a":1} {}"#, r#"{"a":1,}"#, "<html>"] {
            assert!(Members::of(text).is_err(), "{text}");
        }
    }
}
