//! What a selection costs for each event. Numbers to look at, not to pass: run with
//! `cargo test --release -p model --test selection_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{hint::black_box, time::Instant};

use model::{Message, Selection, selection::Selector};
use serde_json::{Value, json};

/// A user of some 3 KB, as UDM shows one.
fn user(mail: Option<&str>) -> Value {
    let mut properties = json!({"mailPrimaryAddress": mail, "disabled": false, "jpegPhoto": null});
    for n in 0..70 {
        properties[format!("property{n}")] = match n % 3 {
            0 => json!(null),
            1 => json!(format!("value {n} of this object")),
            _ => json!(["cn=Domain Users,cn=groups,dc=example,dc=org"]),
        };
    }
    json!({"dn": "uid=anna,ou=school,dc=example,dc=org", "objectType": "users/user", "id": "anna",
           "properties": properties})
}

fn selector(selection: Value) -> Selector {
    serde_json::from_value::<Selection>(selection).unwrap().compile().unwrap()
}

#[test]
#[ignore = "measures"]
fn cost_of_an_event() {
    let event = json!({
        "publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": "users/user",
        "body": {"old": user(Some("a@x")), "new": user(Some("b@x"))},
    });
    let stored = event.to_string().into_bytes();
    let measure = |what: &str, work: &dyn Fn()| {
        const TIMES: u32 = 20_000;
        let began = Instant::now();
        (0..TIMES).for_each(|_| work());
        println!("{what:24} {:>8.1} µs", began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES));
    };
    println!("an event of {} bytes", stored.len());
    measure("parsed as a message", &|| _ = black_box(serde_json::from_slice::<Message>(&stored).is_ok()));
    for (what, selection) in [
        ("by position", json!({"position": "ou=school,dc=example,dc=org"})),
        ("by filter", json!({"filter": "(&(mailPrimaryAddress=*)(!(disabled=TRUE)))"})),
        ("properties stripped", json!({"properties": {"strip": ["jpegPhoto"]}})),
        (
            "all three",
            json!({"position": "dc=example,dc=org", "filter": "(mailPrimaryAddress=*)",
                   "properties": {"keep": ["mailPrimaryAddress"]}}),
        ),
    ] {
        let selector = selector(selection);
        measure(what, &|| _ = black_box(selector.event(&stored).is_ok()));
    }
}
