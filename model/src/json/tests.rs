use proptest::prelude::*;

use super::*;

fn refused(text: impl AsRef<[u8]>) -> String {
    check(text.as_ref()).map_or_else(|error| error.to_string(), |()| "taken".to_owned())
}

#[test]
fn what_every_reader_reads_is_taken() {
    for text in [
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "-0.0",
        "1.5e-400",
        "1e308",
        "1.7976931348623157e308",
        "-1.7976931348623157e+308",
        "0e999999999999",
        r#""""#,
        r#""\ud83d\ude00 ü \u0000 \/\b\f\n\r\t\"\\""#,
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[[],{}]",
        "[1, [2], {\"a\": []}]",
        r#"{"a": {"b": [1, null, {"c": "d"}]}, "a": 2, "": 3}"#,
        "\"\u{2028}\u{85}\u{7f}\"",
        "[123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345]",
    ] {
        assert_eq!(refused(text), "taken", "{text}");
        assert_eq!(value(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        assert_eq!(build(text).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
    }
}

#[test]
fn what_some_reader_can_not_read_is_refused_with_its_place() {
    let surrogate = "a string holds half of a character (a lone surrogate), which can't be read";
    let number = "the number is too large to be read: a double ends at 1.8e308";
    for (text, place, why) in [
        (
            r#"{"new": {"properties": {"description": "cut \ud83d end"}}}"#,
            "new.properties.description: ",
            surrogate,
        ),
        (r#"{"a": ["x", "\udE00"]}"#, "a.1: ", surrogate),
        (r#"{"a": "\ud83d\ud83d\ude00"}"#, "a: ", surrogate),
        (r#"{"a": "\ud83d\n"}"#, "a: ", surrogate),
        // A name is at the place of its object.
        (r#"{"a": {"b": 1, "\ud83d": 2}}"#, "a: ", surrogate),
        (r#""\ud83d""#, "", surrogate),
        (r#"{"a": [0, 1e400]}"#, "a.1: ", number),
        (r#"{"a": -1e309}"#, "a: ", number),
        (r#"{"a": [NaN]}"#, "a.0: ", "this is no valid JSON"),
        (r#"{"a": Infinity}"#, "a: ", "this is no valid JSON"),
        ("{\"a\": \"\n\"}", "a: ", "this is no valid JSON"),
        (r#"{"a": "\x"}"#, "a: ", "this is no valid JSON"),
        (r#"{"a": "\u12g4"}"#, "a: ", "this is no valid JSON"),
        (r#"{"a": 1"#, "a: ", "this is no valid JSON"),
        ("", "", "this is no valid JSON"),
    ] {
        assert_eq!(refused(text), format!("{place}{why}"), "{text}");
    }
    assert_eq!(refused(format!("{{\"a\": {}}}", "9".repeat(400))), format!("a: {number}"));
    assert_eq!(refused(b"{\"a\": {\"b\": \"M\xfcller\"}}"), "a.b: these bytes are no UTF-8");
    assert_eq!(refused(b"{\"a\": \xfc}"), "a: these bytes are no UTF-8");
    for text in [
        "[1,]",
        "[,1]",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{1:2}",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e",
        "tru",
        "[1 2]",
        "1 2",
        "]",
        "{\"a\":1]",
        "'a'",
        "{a:1}",
    ] {
        assert!(refused(text).ends_with("this is no valid JSON"), "{text}");
    }
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| format!("{}1{}", "{\"a\":[".repeat(depth / 2), "]}".repeat(depth / 2));
    assert_eq!(refused(nested(DEEPEST)), "taken");
    let deep = value(&nested(DEEPEST)).unwrap();
    assert_eq!(deep.pointer(&"/a/0".repeat(DEEPEST / 2)), Some(&Value::from(1)));
    let error = check(nested(DEEPEST + 2).as_bytes()).unwrap_err();
    assert_eq!((error.why, error.path.len()), (JsonFault::Depth, PARTS_SHOWN));
    assert!(matches!(check("[".repeat(1_000_000).as_bytes()), Err(JsonError { why: JsonFault::Depth, .. })));
}

/// Values, and texts that are nearly JSON.
fn texts() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        any::<i64>().prop_map(|number| number.to_string()),
        "\\PC{0,8}".prop_map(|text| Value::from(text).to_string()),
        "\"(\\\\u[dD][89a-fA-F][0-9]{2}|\\\\[a-z]|[a-z ]){0,4}\"",
    ];
    let value = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec(("[ab]", inner), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
                format!("{{ {}}}", members.join(","))
            }),
        ]
    });
    (value, any::<prop::sample::Index>(), proptest::option::of("[\\[\\]{}\",:0-9e.\\\\ ]")).prop_map(
        |(mut text, at, odd)| {
            if let Some(odd) = odd {
                let at = (0..=at.index(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at));
                text.insert_str(at.unwrap_or(0), &odd);
            }
            text
        },
    )
}

proptest! {
    /// What is taken is read, and the same by both readers; what is refused for its syntax is not JSON.
    #[test]
    fn what_is_taken_is_read(text in texts()) {
        let read = serde_json::from_str::<Value>(&text);
        match check(text.as_bytes()) {
            Ok(()) => {
                let read = read.unwrap();
                prop_assert_eq!(build(&text), Some(read));
            }
            Err(error) => {
                prop_assert!(read.is_err(), "{}: {}", text, error);
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let taken = check(&bytes).is_ok();
        prop_assert_eq!(taken, serde_json::from_slice::<Value>(&bytes).is_ok());
    }
}
