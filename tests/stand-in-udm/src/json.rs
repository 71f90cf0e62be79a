//! JSON as Python's `json.dumps` writes it, because that is what UDM's clients get: a blank after `,` and `:`, and
//! everything outside of ASCII as `\uXXXX`.

use std::fmt::Write as _;

/// Writes the members of one JSON object, without the braces around them.
#[derive(Default)]
pub struct Members {
    text: String,
}

impl Members {
    /// A member whose value is JSON already.
    pub fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        self.text.push_str(value);
        self
    }

    /// A member whose value is a string.
    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        push_string(&mut self.text, value);
        self
    }

    /// A member whose value is a number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.raw(key, &value.to_string())
    }

    /// A member whose value is a list of strings.
    pub fn strings<S: AsRef<str>>(&mut self, key: &str, values: impl IntoIterator<Item = S>) -> &mut Self {
        self.key(key);
        self.text.push('[');
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            push_string(&mut self.text, value.as_ref());
        }
        self.text.push(']');
        self
    }

    /// Members that are written already, as a constant of the generator.
    pub fn constant(&mut self, members: &str) -> &mut Self {
        self.separate();
        self.text.push_str(members);
        self
    }

    /// The members, for another object's text.
    pub fn into_text(self) -> String {
        self.text
    }

    /// The members in braces.
    pub fn into_object(self) -> String {
        format!("{{{}}}", self.text)
    }

    fn key(&mut self, key: &str) {
        self.separate();
        push_string(&mut self.text, key);
        self.text.push_str(": ");
    }

    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.push_str(", ");
        }
    }
}

/// One string, quoted.
pub fn string(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    push_string(&mut text, value);
    text
}

fn push_string(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing into a String can't fail.
                    _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_written_as_python_writes_them() {
        for (value, text) in [
            ("plain", r#""plain""#),
            ("Müller", r#""M\u00fcller""#),
            ("a\"b\\c/d", r#""a\"b\\c/d""#),
            ("\u{1}\n\u{7f}", r#""\u0001\n\u007f""#),
            ("😀", r#""\ud83d\ude00""#),
        ] {
            assert_eq!(string(value), text);
            assert_eq!(serde_json::from_str::<String>(text).unwrap(), value);
        }
    }

    #[test]
    fn members_are_separated() {
        let mut members = Members::default();
        members
            .string("a", "x")
            .number("b", 3)
            .strings("c", ["1", "2"])
            .constant(r#""d": null"#)
            .raw("e", "{}");
        assert_eq!(members.into_object(), r#"{"a": "x", "b": 3, "c": ["1", "2"], "d": null, "e": {}}"#);
    }
}
