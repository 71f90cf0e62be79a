//! What requests ask for: the fields of bodies, with errors that name the field and never what was sent.

use bytes::Bytes;
use model::{
    Message, PrefillState, RealmTopic, SubscriptionName, Timestamp,
    message::{Body as MessageBody, BodyError, Publisher},
    name::NameError,
    prefill::PrefillOrder,
    resync::{MaxRemovals, Share},
    subscription::Registration,
    topic::{TopicError, TopicPattern},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    body::JsonBody,
    error::{ApiError, Place, Problem},
    fields::{Fields, LARGEST_NUMBER, Lax, Problems, Whole, is_given, whole_or_zero},
    selection,
};

/// Longest password, in bytes.
pub(crate) const LONGEST_PASSWORD: usize = 1024;
/// Most topics of a subscription.
pub(crate) const MOST_TOPICS: usize = 100;
/// Longest realm, and topic of an event, in bytes.
pub(crate) const LONGEST_WORD: usize = 1000;
/// What is said of a field that holds a text, but must hold another one.
const STRING: &str = "a string is expected";

/// A string of JSON; numbers are not taken for one.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text(String);

/// A registration and its password.
pub(crate) fn registration(body: &JsonBody) -> Result<(Registration, String), ApiError> {
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let name = problems.field(&fields, "name", "string_type", STRING).and_then(|Text(name)| {
        let parsed = name.parse::<SubscriptionName>();
        let kind = |error: &NameError| match error {
            NameError::Pattern => "string_pattern_mismatch",
            NameError::Reserved => "name_reserved",
        };
        parsed.map_err(|error| problems.add(&[&"body", &"name"], kind(&error), error.to_string())).ok()
    });
    let realms_topics = topics_field(&fields, &mut problems);
    let request_prefill =
        problems.field(&fields, "request_prefill", "bool_type", "true or false is expected");
    let password = problems
        .field(&fields, "password", "string_type", STRING)
        .inspect(|Text(password)| check_password(password, &mut problems));
    let selection = selection::parse(&fields).unwrap_or_else(|found| {
        problems.extend(found);
        None
    });
    let track = problems.flag(&fields, "track");
    let max_removals = max_removals(&fields, &mut problems);
    let asked = (|| {
        let (Lax(request_prefill), Text(password)) = (request_prefill?, password?);
        let (name, realms_topics) = (name?, realms_topics?);
        Some((
            Registration { name, realms_topics, request_prefill, selection, track, max_removals },
            password,
        ))
    })();
    problems.finish(asked)
}

fn check_password(password: &str, problems: &mut Problems) {
    let at: &[&dyn Place] = &[&"body", &"password"];
    if password.chars().nth(LONGEST_PASSWORD).is_some() {
        let msg = format!("the password has more than {LONGEST_PASSWORD} characters");
        problems.add(at, "string_too_long", msg);
    }
    if password.contains('\0') {
        problems.add(at, "string_nul", "the password holds a NUL character");
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
    let given = || fields.keys().filter(|field| is_given(&fields, field));
    for field in given().filter(|field| !KNOWN.contains(&field.as_str())) {
        let msg = match field.as_str() {
            // What the consumer has of before would have to be taken from it.
            "selection" => "the selection can't be changed: remove the subscription and register it again",
            "track" => "track can't be changed: remove the subscription and register it again",
            _ => "this field can't be changed; realms_topics, password and prefill can",
        };
        problems.add(&[&"body", &field.as_str()], "extra_forbidden", msg);
    }
    if given().next().is_none() {
        let msg = "nothing is to be changed: give realms_topics, password or prefill";
        problems.add(&[&"body"], "missing", msg);
    }
    let realms_topics = is_given(&fields, "realms_topics").then(|| topics_field(&fields, &mut problems));
    let password = problems
        .optional(&fields, "password", "string_type", STRING)
        .map(|Text(password)| password)
        .inspect(|password| check_password(password, &mut problems));
    let prefill = problems.flag(&fields, "prefill");
    problems.finish(Some(Change { realms_topics: realms_topics.flatten(), password, prefill }))
}

/// Does a change name topics, whatever they are?
pub(crate) fn asks_for_topics(body: &JsonBody) -> Result<bool, ApiError> {
    Ok(is_given(&body.fields()?, "realms_topics"))
}

fn topics_field(fields: &Fields<'_>, problems: &mut Problems) -> Option<Vec<RealmTopic>> {
    let expected = "an array of {\"realm\", \"topic\"} is expected";
    let items = problems.field::<Vec<Value>>(fields, "realms_topics", "list_type", expected)?;
    if items.len() > MOST_TOPICS {
        let msg = format!("more than {MOST_TOPICS} topics: a regular expression names many at once");
        problems.add(&[&"body", &"realms_topics"], "too_long", msg);
        return None;
    }
    Some(items.iter().enumerate().filter_map(|(index, item)| topic(index, item, problems)).collect())
}

fn topic(index: usize, item: &Value, problems: &mut Problems) -> Option<RealmTopic> {
    let mut text = |field: &'static str| {
        let at: &[&dyn Place] = &[&"body", &"realms_topics", &index, &field];
        match item.get(field) {
            Some(Value::String(text)) => return Some(text.clone()),
            Some(_) => problems.add(at, "string_type", STRING),
            None => problems.add(at, "missing", "this field is required"),
        }
        None
    };
    let (realm, topic) = (text("realm"), text("topic"));
    let at: [&dyn Place; 3] = [&"body", &"realms_topics", &index];
    let (realm_at, topic_at) = ([&at[..], &[&"realm"]].concat(), [&at[..], &[&"topic"]].concat());
    if let Some(realm) = &realm {
        check_word(realm, &realm_at, problems);
    }
    if let Some(Err(error)) = topic.as_deref().map(TopicPattern::new) {
        let kind = match error {
            TopicError::Empty => "string_too_short",
            TopicError::TooLong => "string_too_long",
            TopicError::Regex(_) => "regex_invalid",
            TopicError::TooComplex => "regex_too_complex",
        };
        problems.add(&topic_at, kind, error.to_string());
    }
    Some(RealmTopic { realm: realm?, topic: topic? })
}

/// A realm of a subscription: events have it, so it is bounded as theirs.
fn check_word(word: &str, at: &[&dyn Place], problems: &mut Problems) {
    if word.is_empty() {
        problems.add(at, "string_too_short", "it must not be empty");
    }
    check_length(word, at, problems);
}

fn check_length(word: &str, at: &[&dyn Place], problems: &mut Problems) {
    if word.chars().nth(LONGEST_WORD).is_some() {
        problems.add(at, "string_too_long", format!("it has more than {LONGEST_WORD} characters"));
    }
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
    let mut word = |name: &'static str| {
        let word = problems.field(&fields, name, "string_type", STRING).map(|Text(word)| word);
        word.inspect(|word| check_length(word, &[&"body", &name], &mut problems))
    };
    let (realm, topic) = (word("realm"), word("topic"));
    let message_body = problems.field::<MessageBody>(
        &fields,
        "body",
        "model_type",
        "an object with the keys old and new is expected",
    );
    if let Some(Err(error)) = message_body.as_ref().map(MessageBody::check) {
        let (at, kind): (&[&dyn Place], _) = match error {
            BodyError::OldNotObject => (&[&"body", &"body", &"old"], "dict_type"),
            BodyError::NewNotObject => (&[&"body", &"body", &"new"], "dict_type"),
            BodyError::TooLong => (&[&"body", &"body"], "string_too_long"),
            BodyError::Empty | BodyError::NoObjectType => (&[&"body", &"body"], "value_error"),
        };
        problems.add(at, kind, error.to_string());
    }
    let message = (|| {
        let (publisher_name, ts) = (publisher_name?, ts?);
        Some(Message { publisher_name, ts, realm: realm?, topic: topic?, body: message_body? })
    })();
    let message = problems.finish(message)?;
    serde_json::to_vec(&message)
        .map(Bytes::from)
        .map_err(|e| ApiError::invalid(Problem::new(&[&"body"], "value_error", e.to_string())))
}

/// The state in the body of `PATCH …/prefill`.
pub(crate) fn prefill_state(body: &JsonBody) -> Result<PrefillState, ApiError> {
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let state =
        problems.field(&fields, "status", "enum", "one of pending, running, failed, done is expected");
    problems.finish(state)
}

/// The body of `POST …/prefill`: nothing, or an object. Options that are not known are refused.
pub(crate) fn prefill_order(body: &JsonBody) -> Result<PrefillOrder, ApiError> {
    if body.is_nothing() {
        return Ok(PrefillOrder::default());
    }
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let msg = "there is no such option; mode, max_removals and dry_run are";
    problems.only(&fields, &["mode", "max_removals", "dry_run"], msg);
    let mode = problems.optional(&fields, "mode", "enum", "one of prefill, resync is expected");
    let max_removals = max_removals(&fields, &mut problems);
    let dry_run = problems.flag(&fields, "dry_run");
    problems.finish(Some(PrefillOrder { mode, max_removals, dry_run }))
}

/// A limit of removals, which may be left out.
fn max_removals(fields: &Fields<'_>, problems: &mut Problems) -> Option<MaxRemovals> {
    let expected = "a number of objects is expected, or an object with percent (0 to 100) and objects";
    let kind = "max_removals_type";
    let value = problems.optional::<Value>(fields, "max_removals", kind, expected)?;
    let limit = limit_of_removals(value);
    if limit.is_none() {
        problems.add(&[&"body", &"max_removals"], kind, expected);
    }
    limit
}

fn limit_of_removals(value: Value) -> Option<MaxRemovals> {
    let Value::Object(members) = value else { return whole_or_zero(&value).map(MaxRemovals::Objects) };
    let mut share = Share::default();
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let number = whole_or_zero(value)?;
        match name.as_str() {
            "percent" => share.percent = u8::try_from(number).ok().filter(|percent| *percent <= 100)?,
            "objects" => share.objects = number,
            _ => return None,
        }
    }
    Some(MaxRemovals::Share(share))
}

/// The body of `POST …/prefill/approve`: nothing, or the attempt that is meant.
pub(crate) fn approval(body: &JsonBody) -> Result<Option<u32>, ApiError> {
    if body.is_nothing() {
        return Ok(None);
    }
    let fields = body.fields()?;
    let mut problems = Problems::default();
    problems.only(&fields, &["attempt"], "there is no such option; attempt is one");
    let expected = "the number of an attempt is expected";
    let attempt = problems.optional(&fields, "attempt", "int_type", expected).map(|Whole(number)| number);
    let attempt = attempt.and_then(|number| {
        let number = u32::try_from(number).ok();
        if number.is_none() {
            problems.add(&[&"body", &"attempt"], "int_type", expected);
        }
        number
    });
    problems.finish(Some(attempt))
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
    let status = problems.field(&fields, "status", "enum", "\"ok\" is expected");
    problems.finish(status).map(|Status::Ok| ())
}

/// The number in the body of `POST …/messages/acknowledgements`: this message and all before it.
pub(crate) fn through(body: &JsonBody) -> Result<u64, ApiError> {
    let fields = body.fields()?;
    let mut problems = Problems::default();
    let expected = "a number is expected: the sequence_number of a message";
    let through = problems.field(&fields, "through", "int_type", expected);
    problems.finish(through.map(|Whole(number)| number))
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
    // "+7" is a number to Rust only.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && (1..=LARGEST_NUMBER).contains(n)).ok_or_else(|| {
        let msg = "a number is expected: 1 or more";
        ApiError::invalid(Problem::new(&[&"path", &parameter], "int_parsing", msg))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{prefill::PrefillMode, resync::Share};
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
                    (r#"["body","realms_topics",0,"topic"]"#, "regex_invalid"),
                    (r#"["body","realms_topics",1,"realm"]"#, "missing"),
                    (r#"["body","realms_topics",1,"topic"]"#, "missing"),
                    (r#"["body","realms_topics",2,"topic"]"#, "regex_invalid"),
                ],
            ),
            (json!({"request_prefill": null}), vec![(r#"["body","request_prefill"]"#, "bool_type")]),
            (json!({"request_prefill": 2}), vec![(r#"["body","request_prefill"]"#, "bool_type")]),
            (json!({"track": 2}), vec![(r#"["body","track"]"#, "bool_type")]),
            (
                json!({"realms_topics": vec![json!({"realm": "udm", "topic": "("}); 101]}),
                vec![(r#"["body","realms_topics"]"#, "too_long")],
            ),
            (
                json!({"realms_topics": [
                    {"realm": "x".repeat(1001), "topic": "x".repeat(201)}, {"realm": "udm", "topic": r"\w{100}"}]}),
                vec![
                    (r#"["body","realms_topics",0,"realm"]"#, "string_too_long"),
                    (r#"["body","realms_topics",0,"topic"]"#, "string_too_long"),
                    (r#"["body","realms_topics",1,"topic"]"#, "regex_too_complex"),
                ],
            ),
            (json!({"realms_topics": null}), vec![(r#"["body","realms_topics"]"#, "list_type")]),
            (
                json!({"realms_topics": [{"realm": "udm", "topic": ""}]}),
                vec![(r#"["body","realms_topics",0,"topic"]"#, "string_too_short")],
            ),
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
        for unset in ["track", "selection", "unknown"] {
            let mut null = good.clone();
            null[unset] = json!(null);
            assert!(!super::registration(&body(&null)).unwrap().0.track, "{unset}");
        }
        assert_eq!(kinds(super::registration(&body(&json!({})))).len(), 4);
        assert_eq!(kinds(super::registration(&body(&json!([])))).len(), 1);
    }

    #[test]
    fn changes() {
        let unset = json!({"realms_topics": null, "password": "new", "prefill": null, "track": null, "selection": null});
        let change = super::change(&body(&unset)).unwrap();
        assert!(change.realms_topics.is_none() && change.password.is_some() && !change.prefill);
        for (bad, expected) in [
            (json!({}), vec![(r#"["body"]"#, "missing")]),
            (json!({"password": null, "prefill": null}), vec![(r#"["body"]"#, "missing")]),
            (
                json!({"selection": {}, "prefill": 2}),
                vec![(r#"["body","selection"]"#, "extra_forbidden"), (r#"["body","prefill"]"#, "bool_type")],
            ),
            (json!({"password": 1}), vec![(r#"["body","password"]"#, "string_type")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(loc, kind)| (loc.to_owned(), kind)).collect();
            assert_eq!(kinds(super::change(&body(&bad))), expected, "{bad}");
        }
    }

    #[test]
    fn events() {
        let good = json!({"publisher_name": "udm-listener", "ts": 0, "realm": "", "topic": "",
                          "body": {"old": {}, "new": {"objectType": "x"}}});
        assert!(event(&body(&good)).is_ok());
        for (field, value, expected) in [
            ("ts", json!("0000-01-01"), r#"["body","ts"] datetime_from_date_parsing"#),
            ("ts", json!(null), r#"["body","ts"] datetime_from_date_parsing"#),
            ("topic", json!("x".repeat(1001)), r#"["body","topic"] string_too_long"#),
            ("realm", json!(1), r#"["body","realm"] string_type"#),
            ("publisher_name", json!("me"), r#"["body","publisher_name"] enum"#),
            ("body", json!({"old": {}}), r#"["body","body"] model_type"#),
            ("body", json!({"old": null, "new": {}}), r#"["body","body","old"] dict_type"#),
            (
                "body",
                json!({"old": {}, "new": {"objectType": "x", "dn": "x".repeat(70_000)}}),
                r#"["body","body"] string_too_long"#,
            ),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            let found: Vec<String> =
                kinds(event(&body(&bad))).iter().map(|(loc, kind)| format!("{loc} {kind}")).collect();
            assert_eq!(found, [expected], "{field}");
        }
    }

    #[test]
    fn a_prefill_is_asked_for_with_a_mode_a_limit_of_removals_or_only_to_count() {
        let plain = PrefillOrder::default();
        let share = |percent, objects| Some(MaxRemovals::Share(Share { percent, objects }));
        for (good, expected) in [
            (json!({}), plain),
            (json!({"mode": "prefill"}), PrefillOrder { mode: Some(PrefillMode::Prefill), ..plain }),
            (json!({"mode": "resync"}), PrefillOrder { mode: Some(PrefillMode::Resync), ..plain }),
            (
                json!({"max_removals": 7}),
                PrefillOrder { max_removals: Some(MaxRemovals::Objects(7)), ..plain },
            ),
            (json!({"max_removals": null}), plain),
            (json!({"max_removals": {"percent": 5}}), PrefillOrder { max_removals: share(5, 20), ..plain }),
            (
                json!({"max_removals": {"percent": null, "objects": 7.0, "x": null}}),
                PrefillOrder { max_removals: share(20, 7), ..plain },
            ),
            (json!({"mode": null, "force": null}), plain),
            (json!(null), plain),
            (json!({"dry_run": true}), PrefillOrder { dry_run: true, ..plain }),
        ] {
            assert_eq!(prefill_order(&body(&good)).unwrap(), expected, "{good}");
        }
        assert_eq!(approval(&body(&json!({}))).unwrap(), None);
        assert_eq!(approval(&body(&json!({"attempt": 5}))).unwrap(), Some(5));
        assert_eq!(kinds(approval(&body(&json!({"attempt": -1, "all": 1})))).len(), 2);
        let limit = (r#"["body","max_removals"]"#.to_owned(), "max_removals_type");
        let mode = (r#"["body","mode"]"#.to_owned(), "enum");
        let force = (r#"["body","force"]"#.to_owned(), "extra_forbidden");
        for (bad, expected) in [
            (json!({"mode": "all"}), vec![mode.clone()]),
            (json!({"max_removals": -1}), vec![limit.clone()]),
            (json!({"max_removals": "20 %"}), vec![limit.clone()]),
            (json!({"max_removals": {"percent": 101}}), vec![limit.clone()]),
            (json!({"max_removals": {"share": 1}}), vec![limit]),
            (json!({"dry_run": 7}), vec![(r#"["body","dry_run"]"#.to_owned(), "bool_type")]),
            (json!({"mode": "Resync"}), vec![mode.clone()]),
            (json!({"mode": "resync", "force": true}), vec![force.clone()]),
            (json!({"mode": 1, "force": true}), vec![force, mode]),
            (json!([]), vec![(r#"["body"]"#.to_owned(), "model_type")]),
        ] {
            assert_eq!(kinds(prefill_order(&body(&bad))), expected, "{bad}");
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
        for bad in ["0", "-1", "+1", "x", "", "9223372036854775808", "18446744073709551616", "1.5", " 1"] {
            assert!(sequence(bad).is_err(), "{bad}");
        }
    }
}
