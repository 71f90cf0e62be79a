//! The fields of a body, each read as what it has to be. All problems are collected, so that a client sees them at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, value::RawValue};

use crate::error::{ApiError, Place, Problem};

/// Fields by name, as they stand in the body.
pub(crate) type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// What is wrong with a request.
#[derive(Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, at: &[&dyn Place], kind: &'static str, msg: impl Into<String>) {
        self.0.push(Problem::new(at, kind, msg));
    }

    pub(crate) fn extend(&mut self, more: Vec<Problem>) {
        self.0.extend(more);
    }

    /// A field that has to be there.
    pub(crate) fn field<'a, T: Deserialize<'a>>(
        &mut self,
        fields: &Fields<'a>,
        name: &'static str,
        kind: &'static str,
        expected: &str,
    ) -> Option<T> {
        let Some(raw) = fields.get(name) else {
            self.add(&[&"body", &name], "missing", "this field is required");
            return None;
        };
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.add(&[&"body", &name], kind, expected);
        }
        value
    }

    /// A field that may be left out.
    pub(crate) fn optional<'a, T: Deserialize<'a>>(
        &mut self,
        fields: &Fields<'a>,
        name: &'static str,
        kind: &'static str,
        expected: &str,
    ) -> Option<T> {
        if is_given(fields, name) { self.field(fields, name, kind, expected) } else { None }
    }

    /// Options that are not known, unless they are `null`, are refused with `msg`.
    pub(crate) fn only(&mut self, fields: &Fields<'_>, known: &[&str], msg: &str) {
        for field in fields.keys().filter(|field| !known.contains(&field.as_str()) && is_given(fields, field))
        {
            self.add(&[&"body", &field.as_str()], "extra_forbidden", msg);
        }
    }

    /// A boolean that may be left out, which means false.
    pub(crate) fn flag(&mut self, fields: &Fields<'_>, name: &'static str) -> bool {
        self.optional(fields, name, "bool_type", "true or false is expected").is_some_and(|Lax(value)| value)
    }

    /// What was asked for, if nothing was wrong. `None` is only answered beside a problem.
    pub(crate) fn finish<T>(self, asked: Option<T>) -> Result<T, ApiError> {
        match asked {
            Some(asked) if self.0.is_empty() => Ok(asked),
            _ => Err(ApiError::Invalid(self.0)),
        }
    }
}

/// Is a field set? Clients write what they do not set as `null`.
pub(crate) fn is_given(fields: &Fields<'_>, name: &str) -> bool {
    fields.get(name).is_some_and(|raw| raw.get() != "null")
}

/// A boolean as the former service understood it: also 1, "yes", "on", "t" and their opposites.
pub(crate) struct Lax(pub(crate) bool);

impl<'de> Deserialize<'de> for Lax {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lax_bool(&Value::deserialize(deserializer)?).map(Self).ok_or_else(|| de::Error::custom("no boolean"))
    }
}

fn lax_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(text) => lax_word(text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(crate) fn lax_word(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "on" | "t" => Some(true),
        "false" | "0" | "no" | "n" | "off" | "f" => Some(false),
        _ => None,
    }
}

/// Largest number of a message: JetStream's clients count with 64 bits and a sign.
pub(crate) const LARGEST_NUMBER: u64 = i64::MAX as u64;

/// Number of a message: a whole number from 1, also written as `7.0`, which JSON does not tell from `7`.
pub(crate) struct Whole(pub(crate) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(&Value::deserialize(deserializer)?)
            .map(Self)
            .ok_or_else(|| de::Error::custom("no number of a message"))
    }
}

fn whole(value: &Value) -> Option<u64> {
    whole_or_zero(value).filter(|number| *number > 0)
}

/// A whole number from 0 to [`LARGEST_NUMBER`], also written as `7.0`.
pub(crate) fn whole_or_zero(value: &Value) -> Option<u64> {
    // 2^63: the first that is too large.
    let exact = |number: &f64| number.fract() == 0.0 && (0.0..9_223_372_036_854_775_808.0).contains(number);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the range of u64, and whole
    let number = value.as_u64().or_else(|| value.as_f64().filter(exact).map(|number| number as u64));
    number.filter(|number| *number <= LARGEST_NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_messages() {
        for (value, expected) in [
            (json!(7), Some(7)),
            (json!(7.0), Some(7)),
            (json!(1e3), Some(1000)),
            (json!(9_223_372_036_854_775_807_u64), Some(9_223_372_036_854_775_807)),
            (json!(9_223_372_036_854_775_808_u64), None),
            (json!(1e19), None),
            (json!(9_223_372_036_854_774_784.0), Some(9_223_372_036_854_774_784)),
            (json!(9_223_372_036_854_775_808.0), None),
            (json!(7.5), None),
            (json!(0), None),
            (json!(0.0), None),
            (json!(-1), None),
            (json!("7"), None),
            (json!(true), None),
            (json!(null), None),
        ] {
            assert_eq!(whole(&value), expected, "{value}");
        }
    }

    #[test]
    fn booleans() {
        for value in [json!(true), json!(1), json!(1.0), json!("Yes"), json!("ON"), json!("t"), json!("1")] {
            assert_eq!(lax_bool(&value), Some(true), "{value}");
        }
        for value in [json!(false), json!(0), json!(-0.0), json!("no"), json!("F"), json!("off")] {
            assert_eq!(lax_bool(&value), Some(false), "{value}");
        }
        for value in [json!(2), json!("maybe"), json!(""), json!([]), json!({}), json!(null)] {
            assert_eq!(lax_bool(&value), None, "{value}");
        }
    }
}
