//! What requests ask for: the fields of bodies, with errors that name the field and never what was sent.

use std::{collections::BTreeMap, num::NonZeroU64};

use bytes::Bytes;
use model::{
    Body as MessageBody, BodyError, Message, NameError, PrefillMode, PrefillState, Publisher, RealmTopic,
    Registration, SubscriptionName, Timestamp, TopicPattern,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    body::JsonBody,
    error::{ApiError, Problem},
    selection,
};

/// Longest password, in bytes.
const LONGEST_PASSWORD: usize = 1024;
/// Collects the problems of all fields, so that a client sees them at once.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn field<'a, T: Deserialize<'a>>(
        &mut self,
        fields: &BTreeMap<String, &'a RawValue>,
        name: &'static str,
        kind: &'static str,
        expected: &str,
    ) -> Option<T> {
        let Some(raw) = fields.get(name) else {
            self.0.push(Problem::new(&[&"body", &name], "missing", "this field is required"));
            return None;
        };
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.0.push(Problem::new(&[&"body", &name], kind, expected));
        }
        value
    }

    fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.0)) }
    }
}

/// A string of JSON; numbers are not taken for one.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text(String);

/// A boolean as the former service understood it: also 1, "yes", "on", "t" and their opposites.
struct Lax(bool);

impl<'de> Deserialize<'de> for Lax {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lax_bool(&Value::deserialize(deserializer)?)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("no boolean"))
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

/// A registration and its password.
pub(crate) fn registration(body: &JsonBody) -> Result<(Registration, String), ApiError> {
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let name =
        problems.field(&fields, "name", "string_type", "a string is expected").and_then(|Text(name)| {
            name.parse::<SubscriptionName>()
                .map_err(|error| {
                    let kind = match error {
                        NameError::Pattern => "string_pattern_mismatch",
                        NameError::Reserved => "name_reserved",
                    };
                    problems.0.push(Problem::new(&[&"body", &"name"], kind, error.to_string()));
                })
                .ok()
        });
    let realms_topics = topics_field(&fields, &mut problems);
    let request_prefill =
        problems.field(&fields, "request_prefill", "bool_type", "true or false is expected");
    let password = problems
        .field(&fields, "password", "string_type", "a string is expected")
        .inspect(|Text(password)| check_password(password, &mut problems));
    let selection = selection::parse(&fields).unwrap_or_else(|found| {
        problems.0.extend(found);
        None
    });
    let track = flag(&fields, "track", &mut problems);
    problems.finish()?;
    match (name, realms_topics, request_prefill, password) {
        (Some(name), Some(realms_topics), Some(Lax(request_prefill)), Some(Text(password))) => {
            Ok((Registration { name, realms_topics, request_prefill, selection, track }, password))
        }
        // Each missing one is a problem, and was returned above.
        _ => Err(ApiError::Invalid(Vec::new())),
    }
}

fn check_password(password: &str, problems: &mut Problems) {
    let at: &[&dyn crate::error::Place] = &[&"body", &"password"];
    if password.len() > LONGEST_PASSWORD {
        let msg = format!("the password has more than {LONGEST_PASSWORD} bytes");
        problems.0.push(Problem::new(at, "string_too_long", msg));
    }
    if password.contains('\0') {
        problems.0.push(Problem::new(at, "string_nul", "the password holds a NUL character"));
    }
}

/// What is to be changed about a subscription. At least one thing is.
pub(crate) struct Change {
    pub realms_topics: Option<Vec<RealmTopic>>,
    pub password: Option<String>,
    /// Ask for a prefill, too.
    pub prefill: bool,
}

/// The body of `PATCH /v1/subscriptions/{name}`. Other fields are refused: whoever sends `request_prefill` or a new
/// name means something that would not happen.
pub(crate) fn change(body: &JsonBody) -> Result<Change, ApiError> {
    const KNOWN: [&str; 3] = ["realms_topics", "password", "prefill"];
    let fields = body.fields()?;
    let mut problems = Problems::default();
    for field in fields.keys().filter(|field| !KNOWN.contains(&field.as_str())) {
        let msg = match field.as_str() {
            // What the consumer has of before would have to be taken from it.
            "selection" => "the selection can't be changed: remove the subscription and register it again",
            "track" => "track can't be changed: remove the subscription and register it again",
            _ => "this field can't be changed; realms_topics, password and prefill can",
        };
        problems.0.push(Problem::new(&[&"body", &field.as_str()], "extra_forbidden", msg));
    }
    if fields.is_empty() {
        let msg = "nothing is to be changed: give realms_topics, password or prefill";
        problems.0.push(Problem::new(&[&"body"], "missing", msg));
    }
    let given = |field: &str| fields.contains_key(field);
    let realms_topics = given("realms_topics").then(|| topics_field(&fields, &mut problems)).flatten();
    let password = given("password")
        .then(|| problems.field(&fields, "password", "string_type", "a string is expected"))
        .flatten()
        .map(|Text(password)| password)
        .inspect(|password| check_password(password, &mut problems));
    let prefill = flag(&fields, "prefill", &mut problems);
    problems.finish()?;
    Ok(Change { realms_topics, password, prefill })
}

/// A boolean that may be left out, which means false.
/// Does a change name topics, whatever they are?
pub(crate) fn asks_for_topics(body: &JsonBody) -> Result<bool, ApiError> {
    Ok(body.fields()?.get("realms_topics").is_some_and(|topics| topics.get() != "null"))
}

fn flag(fields: &BTreeMap<String, &RawValue>, name: &'static str, problems: &mut Problems) -> bool {
    let mut given = || problems.field(fields, name, "bool_type", "true or false is expected");
    fields.contains_key(name) && given().is_some_and(|Lax(value)| value)
}

fn topics_field(fields: &BTreeMap<String, &RawValue>, problems: &mut Problems) -> Option<Vec<RealmTopic>> {
    let expected = "an array of {\"realm\", \"topic\"} is expected";
    let items = problems.field::<Vec<Value>>(fields, "realms_topics", "list_type", expected)?;
    Some(realm_topics(&items, problems))
}

fn realm_topics(items: &[Value], problems: &mut Problems) -> Vec<RealmTopic> {
    let mut topics = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let mut text = |field: &'static str| {
            let at: &[&dyn crate::error::Place] = &[&"body", &"realms_topics", &index, &field];
            let problem = match item.get(field) {
                Some(Value::String(text)) if text.is_empty() => {
                    Problem::new(at, "string_too_short", "it must not be empty")
                }
                Some(Value::String(text)) => return Some(text.clone()),
                Some(_) => Problem::new(at, "string_type", "a string is expected"),
                None => Problem::new(at, "missing", "this field is required"),
            };
            problems.0.push(problem);
            None
        };
        let (Some(realm), Some(topic)) = (text("realm"), text("topic")) else { continue };
        if let Err(error) = TopicPattern::new(&topic) {
            let at: &[&dyn crate::error::Place] = &[&"body", &"realms_topics", &index, &"topic"];
            problems.0.push(Problem::new(at, "regex_invalid", error.to_string()));
        }
        topics.push(RealmTopic { realm, topic });
    }
    topics
}

/// An event, ready to be stored: known fields only, `ts` in its one form, the body byte for byte.
pub(crate) fn event(body: &JsonBody) -> Result<Bytes, ApiError> {
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let publishers = "one of udm-listener, ldif-producer, udm-pre-fill, consumer-registration, consumer_client_test is expected";
    let publisher_name = problems.field::<Publisher>(&fields, "publisher_name", "enum", publishers);
    let ts = problems.field::<Timestamp>(
        &fields,
        "ts",
        "datetime_from_date_parsing",
        "a date and time is expected, such as 2026-01-31T12:00:00+00:00",
    );
    let realm = problems.field::<Text>(&fields, "realm", "string_type", "a string is expected");
    let topic = problems.field::<Text>(&fields, "topic", "string_type", "a string is expected");
    let message_body = problems.field::<MessageBody>(
        &fields,
        "body",
        "model_type",
        "an object with the keys old and new is expected",
    );
    if let Some(Err(error)) = message_body.as_ref().map(MessageBody::check) {
        let problem = match error {
            BodyError::OldNotObject => {
                Problem::new(&[&"body", &"body", &"old"], "dict_type", error.to_string())
            }
            BodyError::NewNotObject => {
                Problem::new(&[&"body", &"body", &"new"], "dict_type", error.to_string())
            }
            BodyError::Empty | BodyError::NoObjectType => {
                Problem::new(&[&"body", &"body"], "value_error", error.to_string())
            }
        };
        problems.0.push(problem);
    }
    problems.finish()?;
    match (publisher_name, ts, realm, topic, message_body) {
        (Some(publisher_name), Some(ts), Some(Text(realm)), Some(Text(topic)), Some(body)) => {
            let message = Message { publisher_name, ts, realm, topic, body };
            serde_json::to_vec(&message)
                .map(Bytes::from)
                .map_err(|e| ApiError::invalid(Problem::new(&[&"body"], "value_error", e.to_string())))
        }
        _ => Err(ApiError::Invalid(Vec::new())),
    }
}

/// The state in the body of `PATCH …/prefill`.
pub(crate) fn prefill_state(body: &JsonBody) -> Result<PrefillState, ApiError> {
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let state =
        problems.field(&fields, "status", "enum", "one of pending, running, failed, done is expected");
    problems.finish()?;
    state.ok_or_else(|| ApiError::Invalid(Vec::new()))
}

/// The body of `POST …/prefill`: nothing, or an object. Options that are not known are refused.
pub(crate) fn prefill_mode(body: &JsonBody) -> Result<Option<PrefillMode>, ApiError> {
    if body.text.is_empty() {
        return Ok(None);
    }
    let fields = body.fields()?;
    let mut problems = Problems::default();
    for field in fields.keys().filter(|field| *field != "mode") {
        let msg = "there is no such option; mode is one";
        problems.0.push(Problem::new(&[&"body", &field.as_str()], "extra_forbidden", msg));
    }
    let mut given = || problems.field(&fields, "mode", "enum", "one of prefill, resync is expected");
    let mode = if fields.contains_key("mode") { given() } else { None };
    problems.finish()?;
    Ok(mode)
}

/// Checks the body of an acknowledgement: `{"status": "ok"}` is the only one there is.
pub(crate) fn acknowledgement(body: &JsonBody) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    enum Status {
        #[serde(rename = "ok")]
        Ok,
    }
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let _status: Option<Status> = problems.field(&fields, "status", "enum", "\"ok\" is expected");
    problems.finish()
}

/// The number in the body of `POST …/messages/acknowledgements`: this message and all before it.
pub(crate) fn through(body: &JsonBody) -> Result<u64, ApiError> {
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let expected = "a number is expected: the sequence_number of a message";
    let through: Option<NonZeroU64> = problems.field(&fields, "through", "int_type", expected);
    problems.finish()?;
    through.map(NonZeroU64::get).ok_or_else(|| ApiError::Invalid(Vec::new()))
}

/// The number of a message in a path.
pub(crate) fn sequence(text: &str) -> Result<u64, ApiError> {
    number(text, "seq_num")
}

/// The number of a dead letter in a path.
pub(crate) fn dead_letter(text: &str) -> Result<u64, ApiError> {
    number(text, "id")
}

fn number(text: &str, parameter: &'static str) -> Result<u64, ApiError> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
        let msg = "a number is expected: 1 or more";
        ApiError::invalid(Problem::new(&[&"path", &parameter], "int_parsing", msg))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: &Value) -> JsonBody {
        JsonBody::of(value)
    }

    fn kinds<T>(result: Result<T, ApiError>) -> Vec<(String, &'static str)> {
        match result {
            Ok(_) => Vec::new(),
            Err(ApiError::Invalid(problems)) => {
                problems.into_iter().map(|p| (serde_json::to_string(&p.loc).unwrap(), p.kind)).collect()
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn registrations() {
        let good = json!({"name": "mail", "realms_topics": [{"realm": "udm", "topic": "users/.*", "x": 1}],
                          "request_prefill": "yes", "password": "ü:", "unknown": 1});
        let (registration, password) = registration(&body(&good)).unwrap();
        assert!(registration.request_prefill && password == "ü:" && registration.realms_topics.len() == 1);
        assert!(!registration.track);
        let mut tracked = good.clone();
        tracked["track"] = json!("yes");
        assert!(super::registration(&body(&tracked)).unwrap().0.track);
        for (change, expected) in [
            (json!({"name": "a.b"}), vec![(r#"["body","name"]"#, "string_pattern_mismatch")]),
            (json!({"name": "incoming"}), vec![(r#"["body","name"]"#, "name_reserved")]),
            (json!({"name": 5}), vec![(r#"["body","name"]"#, "string_type")]),
            (json!({"realms_topics": "udm:users/user"}), vec![(r#"["body","realms_topics"]"#, "list_type")]),
            (
                json!({"realms_topics": [{"realm": "", "topic": "("}, ["udm", "x"], {"realm": "udm", "topic": "["}]}),
                vec![
                    (r#"["body","realms_topics",0,"realm"]"#, "string_too_short"),
                    (r#"["body","realms_topics",1,"realm"]"#, "missing"),
                    (r#"["body","realms_topics",1,"topic"]"#, "missing"),
                    (r#"["body","realms_topics",2,"topic"]"#, "regex_invalid"),
                ],
            ),
            (json!({"request_prefill": null}), vec![(r#"["body","request_prefill"]"#, "bool_type")]),
            (json!({"request_prefill": 2}), vec![(r#"["body","request_prefill"]"#, "bool_type")]),
            (json!({"track": 2}), vec![(r#"["body","track"]"#, "bool_type")]),
            (json!({"track": null}), vec![(r#"["body","track"]"#, "bool_type")]),
            (json!({"password": "a\0"}), vec![(r#"["body","password"]"#, "string_nul")]),
            (json!({"password": "x".repeat(1025)}), vec![(r#"["body","password"]"#, "string_too_long")]),
        ] {
            let mut bad = good.clone();
            for (key, value) in change.as_object().unwrap() {
                bad[key] = value.clone();
            }
            let expected: Vec<_> = expected.into_iter().map(|(loc, kind)| (loc.to_owned(), kind)).collect();
            assert_eq!(kinds(super::registration(&body(&bad))), expected, "{change}");
        }
        assert_eq!(kinds(super::registration(&body(&json!({})))).len(), 4);
        assert_eq!(kinds(super::registration(&body(&json!([])))).len(), 1);
    }

    #[test]
    fn modes_of_a_prefill() {
        for (good, expected) in [
            (json!({}), None),
            (json!({"mode": "prefill"}), Some(PrefillMode::Prefill)),
            (json!({"mode": "resync"}), Some(PrefillMode::Resync)),
        ] {
            assert_eq!(prefill_mode(&body(&good)).unwrap(), expected, "{good}");
        }
        let mode = (r#"["body","mode"]"#.to_owned(), "enum");
        let force = (r#"["body","force"]"#.to_owned(), "extra_forbidden");
        for (bad, expected) in [
            (json!({"mode": "all"}), vec![mode.clone()]),
            (json!({"mode": "Resync"}), vec![mode.clone()]),
            (json!({"mode": null}), vec![mode.clone()]),
            (json!({"mode": "resync", "force": true}), vec![force.clone()]),
            (json!({"mode": 1, "force": true}), vec![force, mode]),
            (json!([]), vec![(r#"["body"]"#.to_owned(), "model_type")]),
        ] {
            assert_eq!(kinds(prefill_mode(&body(&bad))), expected, "{bad}");
        }
    }

    #[test]
    fn acknowledgements_of_many() {
        assert_eq!(through(&body(&json!({"through": 7}))).unwrap(), 7);
        for bad in
            [json!({}), json!({"through": 0}), json!({"through": -1}), json!({"through": "7"}), json!([])]
        {
            assert_eq!(kinds(through(&body(&bad))).len(), 1, "{bad}");
        }
    }

    #[test]
    fn numbers_of_messages() {
        assert_eq!(sequence("7").unwrap(), 7);
        for bad in ["0", "-1", "x", "", "18446744073709551616", "1.5"] {
            assert!(sequence(bad).is_err(), "{bad}");
        }
    }
}
