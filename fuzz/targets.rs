//! What is fuzzed: each target takes any bytes, must not panic, and holds what is asserted.

// Each binary uses one of them.
#![allow(dead_code)]

use std::borrow::Cow;

use model::{Dn, Selection, Timestamp, json::Members};

/// A filter, applied to an object of all kinds of values.
pub fn filter(data: &[u8]) {
    const OBJECT: &str = r#"{"dn":"uid=a,dc=x","properties":{"a":"Anna  Meier","b":["x",null,""],"c":true,"d":-7,
        "e":{"f":"g","z-timezone":"UTC"},"phone":["+49 30-3"],"g":"uid=b,dc=x"}}"#;
    let Ok(text) = std::str::from_utf8(data) else { return };
    let selection = |filter: String| Selection { filter: Some(filter), ..Selection::default() };
    let Ok(selector) = selection(text.to_owned()).compile() else { return };
    let selected = selector.object(OBJECT).map(|found| found.is_some());
    // Its negation selects what it does not.
    if let Ok(negated) = selection(format!("(!{text})")).compile() {
        let other = negated.object(OBJECT).map(|found| found.is_some());
        assert_eq!(selected.ok(), other.ok().map(|other| !other), "{text}");
    }
    let mut coverage = selector.coverage();
    coverage.note(OBJECT);
    _ = coverage.warnings();
}

/// A DN: one equality, whichever way it is asked for.
pub fn dn(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (strict, lenient) = (text.parse::<Dn>().ok(), Dn::of_object(text));
    if let Some(strict) = &strict {
        assert_eq!(Some(strict), lenient.as_ref(), "{text:?}");
        assert!(strict.is_within(strict));
    }
    if lenient.is_some() {
        assert_eq!(Dn::key(text), Dn::key(&format!("  {text}  ")), "{text:?}");
    }
    // The container is the same one, however UDM writes it.
    if let Some(container) = Dn::container(text) {
        let again = Dn::of_object(&format!("cn=x,{container}"));
        let dn = again.unwrap_or_else(|| panic!("{text:?}: {container:?}"));
        assert!(
            lenient.is_none_or(|whole| Dn::of_object(&container).is_some_and(|base| whole.is_within(&base))),
            "{dn:?}"
        );
    }
    _ = Dn::name(text);
}

/// A time, as producers write it.
pub fn timestamp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(time) = text.parse::<Timestamp>() {
        let written = time.to_string();
        assert_eq!(written.parse::<Timestamp>().map(|time| time.to_string()).ok(), Some(written), "{text:?}");
    }
    _ = serde_json::from_str::<Timestamp>(text);
}

/// The members of a JSON object: what is left out is gone, and all else stays JSON.
pub fn members(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(members) = Members::of(text) else { return };
    let without = members.without(|name| name == "a");
    let rest = Members::of(&without).unwrap_or_else(|e| panic!("{text:?}: {without:?}: {e}"));
    assert!(rest.get("a").is_none(), "{text:?}: {without:?}");
    assert!(matches!(members.rewritten(|_, value| Some(value.into())), Cow::Borrowed(_)));
    if model::json::check(data).is_ok() {
        assert!(model::json::value(text).is_ok(), "{text:?}");
    }
}

/// An LDIF dump, to the objects that it becomes.
pub fn ldif(data: &[u8]) {
    for object in prefill_job::source::fuzzing::ldif(data) {
        assert!(model::json::check(object.as_bytes()).is_ok(), "{object}");
    }
}

/// A list of the UDM REST API.
pub fn udm_list(data: &[u8]) {
    _ = prefill_job::source::fuzzing::udm_list(data);
}
