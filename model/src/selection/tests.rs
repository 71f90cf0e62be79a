use super::*;
use proptest::prelude::*;
use serde_json::json;

fn selector(selection: Value) -> Selector {
    serde_json::from_value::<Selection>(selection).unwrap().compile().unwrap()
}

fn user(dn: &str, mail: Option<&str>) -> Value {
    json!({"dn": dn, "objectType": "users/user", "id": "x", "properties": {"username": "a", "mail": mail, "pw": "h"}})
}

fn event(old: &Value, new: &Value) -> Vec<u8> {
    let text = json!({
        "publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": "users/user",
        "body": {"old": old, "new": new},
    });
    serde_json::to_vec(&serde_json::from_value::<Message>(text).unwrap()).unwrap()
}

#[test]
fn crossings() {
    use Crossing::{Enters, Inside, Leaves, Outside};
    for (what, old, new, expected) in [
        ("made inside", None, Some(true), Inside),
        ("made outside", None, Some(false), Outside),
        ("changed inside", Some(true), Some(true), Inside),
        ("changed outside", Some(false), Some(false), Outside),
        ("moved in", Some(false), Some(true), Enters),
        ("moved out", Some(true), Some(false), Leaves),
        ("deleted inside", Some(true), None, Inside),
        ("deleted outside", Some(false), None, Outside),
        ("neither", None, None, Outside),
    ] {
        assert_eq!(Crossing::of(old, new), expected, "{what}");
    }
}

/// What a subscription sees of a change, as (old, new); `None`: nothing.
fn seen(selector: &Selector, old: &Value, new: &Value) -> Option<(Value, Value)> {
    let stored = event(old, new);
    let text = match selector.event(&stored).unwrap() {
        Seen::AsItIs => stored,
        Seen::Changed(text) => text,
        Seen::Nothing => return None,
    };
    let mut message: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&message["topic"], &message["ts"]), (&json!("users/user"), &json!("2026-01-31T12:00:00")));
    Some((message["body"]["old"].take(), message["body"]["new"].take()))
}

#[test]
fn changes_as_they_are_seen() {
    let none = json!({});
    let (plain, mail) = (user("uid=a,ou=in,dc=x", None), user("uid=a,ou=in,dc=x", Some("m")));
    let (inside, outside) = (user("uid=a,OU=In,dc=x", Some("m")), user("uid=a,ou=out,dc=x", Some("m")));
    let by_mail = selector(json!({"filter": "(mail=*)"}));
    let by_place = selector(json!({"position": "ou=in, dc=x"}));
    for (what, selector, old, new, expected) in [
        ("gets an address", &by_mail, &plain, &mail, Some((&none, &mail))),
        ("loses its address", &by_mail, &mail, &plain, Some((&mail, &none))),
        ("keeps it", &by_mail, &mail, &mail, Some((&mail, &mail))),
        ("has none", &by_mail, &plain, &plain, None),
        ("is made without", &by_mail, &none, &plain, None),
        ("is made with", &by_mail, &none, &mail, Some((&none, &mail))),
        ("is deleted with", &by_mail, &mail, &none, Some((&mail, &none))),
        ("is deleted without", &by_mail, &plain, &none, None),
        ("moves in", &by_place, &outside, &inside, Some((&none, &inside))),
        ("moves out", &by_place, &inside, &outside, Some((&inside, &none))),
        ("stays out", &by_place, &outside, &outside, None),
        ("is renamed inside", &by_place, &inside, &plain, Some((&inside, &plain))),
    ] {
        let expected = expected.map(|(old, new)| (old.clone(), new.clone()));
        assert_eq!(seen(selector, old, new), expected, "{what}");
    }
}

#[test]
fn what_is_seen_whole_is_the_same_bytes() {
    let selector = selector(json!({"filter": "(mail=*)"}));
    let mail = user("uid=a,dc=x", Some("m"));
    assert_eq!(selector.event(&event(&mail, &mail)).unwrap(), Seen::AsItIs);
    let text =
        r#"{"dn":"uid=a,dc=x","properties":{"mail":"m", "n":-0.0} , "big":123456789012345678901234567890}"#;
    assert_eq!(selector.object(text).unwrap().as_deref(), Some(text));
    assert_eq!(selector.object(r#"{"dn":"uid=a,dc=x","properties":{}}"#).unwrap(), None);
    assert_eq!(selector.object(r#"{"dn":"uid=a,dc=x"}"#).unwrap(), None);
    assert!(selector.object("[]").is_err() && selector.event(b"{}").is_err());
}

#[test]
fn properties_are_kept_or_stripped_and_the_rest_stays() {
    let text =
        r#"{"dn": "uid=a,dc=x", "properties": {"username": "a",  "pw": "h", "n": 1E400}, "uuid": "u"}"#;
    for (properties, expected) in [
        (
            json!({"keep": ["n", "username"]}),
            r#"{"dn": "uid=a,dc=x", "properties": {"username": "a", "n": 1E400}, "uuid": "u"}"#,
        ),
        (json!({"keep": []}), r#"{"dn": "uid=a,dc=x", "properties": {}, "uuid": "u"}"#),
        (
            json!({"strip": ["PW"]}),
            r#"{"dn": "uid=a,dc=x", "properties": {"username": "a", "n": 1E400}, "uuid": "u"}"#,
        ),
        (json!({"strip": ["dn", "other"]}), text),
    ] {
        let selector = selector(json!({"properties": properties}));
        assert_eq!(selector.object(text).unwrap().as_deref(), Some(expected), "{properties}");
    }
    // The filter sees what does not come.
    let selector = selector(json!({"filter": "(pw=h)", "properties": {"strip": ["pw"]}}));
    let (old, new) = (user("uid=a", None), user("uid=a", Some("m")));
    let (old, new) = seen(&selector, &old, &new).unwrap();
    assert_eq!(
        (&old["properties"], &new["properties"]),
        (&json!({"username": "a", "mail": null}), &json!({"username": "a", "mail": "m"}))
    );
}

#[test]
fn other_realms_are_not_looked_at() {
    let stored =
        String::from_utf8(event(&json!({}), &user("uid=a", None))).unwrap().replace(r#""udm""#, r#""other""#);
    assert_eq!(selector(json!({"filter": "(mail=*)"})).event(stored.as_bytes()).unwrap(), Seen::AsItIs);
}

#[test]
fn what_can_not_be_evaluated_is_named() {
    let names = |count: usize| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>();
    let many = Selection { properties: Some(Properties::Keep(names(1_000))), ..Selection::default() };
    assert!(many.compile().is_ok());
    for (selection, field) in [
        (json!({"filter": "mail=*"}), "filter"),
        (json!({"position": "school"}), "position"),
        (json!({"properties": {"strip": []}}), "properties"),
        (json!({"properties": {"keep": [" "]}}), "properties"),
        (json!({"properties": {"keep": names(1_001)}}), "properties"),
        (json!({"properties": {"strip": names(1_001)}}), "properties"),
    ] {
        let selection: Selection = serde_json::from_value(selection).unwrap();
        assert_eq!(selection.compile().unwrap_err().field, field);
    }
    for text in [
        json!({"properties": {"keep": ["a"], "strip": ["b"]}}),
        json!({"properties": {}}),
        json!({"other": 1}),
    ] {
        assert!(serde_json::from_value::<Selection>(text).is_err());
    }
    assert!(Selection::default().is_empty());
}

#[test]
fn what_no_object_meets_is_told() {
    let anna = user("uid=a,ou=in,dc=x", None).to_string();
    for (selection, expected) in [
        (json!({"filter": "(&(USERNAME=a)(!(mail=*)))", "position": "OU=In, dc=x"}), &[][..]),
        (json!({"filter": "(!(dissabled=TRUE))"}), &["dissabled, which the selection's filter"]),
        (json!({"position": "ou=away,dc=x"}), &["below the position ou=away,dc=x"]),
        (
            json!({"properties": {"strip": ["passwrod", "pw"]}}),
            &["passwrod, which the selection's properties"],
        ),
        (
            json!({"filter": "(a=1)", "properties": {"keep": ["A", "mail", "b"]}}),
            &["property a,", "property b,"],
        ),
    ] {
        let mut coverage = selector(selection.clone()).coverage();
        assert!(coverage.warnings().is_empty(), "nothing was seen");
        coverage.note(r#"{"dn":"uid=b,dc=x","properties":{}}"#);
        coverage.note(&anna);
        coverage.note("no object");
        let warnings = coverage.warnings();
        assert_eq!(warnings.len(), expected.len(), "{selection}: {warnings:?}");
        for (warning, part) in warnings.iter().zip(expected) {
            assert!(warning.contains(part), "{warning}");
        }
    }
}

proptest! {
    /// Whatever changes: who applies what is seen has the selected part of the directory.
    #[test]
    fn the_selected_part_is_right(steps in prop::collection::vec((0u8..3, any::<bool>(), any::<bool>(), any::<bool>()), 1..40)) {
        let selector = selector(json!({"filter": "(mail=*)", "position": "ou=in,dc=x"}));
        let mut directory = std::collections::BTreeMap::<u8, Value>::new();
        let mut consumer = std::collections::BTreeMap::<String, Value>::new();
        for (name, inside, mail, stays) in steps {
            let place = if inside { "in" } else { "out" };
            let next = stays.then(|| user(&format!("uid={name},ou={place},dc=x"), mail.then_some("m")));
            let before = match &next {
                Some(next) => directory.insert(name, next.clone()),
                None => directory.remove(&name),
            };
            let none = json!({});
            if before.is_none() && next.is_none() { continue }
            let change = seen(&selector, before.as_ref().unwrap_or(&none), next.as_ref().unwrap_or(&none));
            if let Some((old, new)) = change {
                if let Some(dn) = old["dn"].as_str() {
                    prop_assert!(consumer.remove(dn).is_some(), "what it did not have is taken from it");
                }
                if let Some(dn) = new["dn"].as_str() {
                    consumer.insert(dn.to_owned(), new);
                }
            }
        }
        let selected = directory.into_values().filter(|object| {
            object["dn"].as_str().unwrap().contains("ou=in") && object["properties"]["mail"].is_string()
        });
        let selected: std::collections::BTreeMap<_, _> =
            selected.map(|object| (object["dn"].as_str().unwrap().to_owned(), object)).collect();
        prop_assert_eq!(consumer, selected);
    }
}
