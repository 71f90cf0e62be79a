//! The stand-in's refusals and faults beside those of a real UDM REST API (12.2, shortened; people are invented).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;
use stand_in_udm::{Directory, Effect, Faults, Rule, Settings, StandIn};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Status, headers that matter, and body.
#[derive(Debug)]
struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().to_owned();
    let matters = ["content-type", "www-authenticate", "retry-after"];
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    let mut headers: Vec<_> = headers.filter(|(name, _)| matters.contains(&name.as_str())).collect();
    headers.sort();
    Answer { status, headers, body: body.trim().to_owned() }
}

/// Sends a request line and its header, with credentials.
async fn ask(udm: &StandIn, request: &str, password: &str) -> Answer {
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("cn=admin:{password}"));
    let lines = request.trim().lines().collect::<Vec<_>>().join("\r\n");
    let request =
        format!("{lines}\r\nHost: udm\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n");
    let mut socket = TcpStream::connect(udm.address()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    answer(&text.replace('\r', ""))
}

/// What is the same in each answer of its kind: all but addresses and tracebacks.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let shaped = members.iter().map(|(name, value)| {
                let differs = matches!(name.as_str(), "href" | "traceback");
                (name.clone(), if differs { Value::Null } else { shape(value) })
            });
            Value::Object(shaped.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(shape).collect()),
        other => other.clone(),
    }
}

async fn stand_in() -> StandIn {
    let settings = Settings { prefix: String::new(), ..Settings::default() };
    let udm = StandIn::start_with(settings, Directory::empty(), Faults::default()).await.unwrap();
    for name in ["anna", "broken"] {
        udm.directory().put(&format!(r#"{{"dn":"uid={name},dc=x","objectType":"users/user"}}"#)).unwrap();
    }
    udm.directory().add_module("groups/group");
    udm
}

#[tokio::test]
async fn refusals_and_faults_are_as_udm_gives_them() {
    for name in [
        "wrong-password",
        "gone",
        "unknown-module",
        "other-type",
        "bad-filter",
        "no-position",
        "broken-object",
        "broken-list",
        "broken-batch",
        "gateway",
        "not-acceptable",
        "head",
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded");
        let text = std::fs::read_to_string(format!("{folder}/{name}.http")).unwrap();
        let (request, recorded) = text.split_once("\n\n").unwrap();
        let recorded = answer(recorded);
        let udm = stand_in().await;
        udm.faults().update(|faults| {
            if name.starts_with("broken") {
                faults.broken_entries = ["uid=broken,dc=x".to_owned()].into();
            }
            if name == "gateway" {
                faults.rules.push(Rule::new(Effect::BackendDown { retry_after: None }));
            }
        });
        let password = if name == "wrong-password" { "guess" } else { "univention" };
        let played = ask(&udm, request, password).await;
        assert_eq!((&played.status, &played.headers), (&recorded.status, &recorded.headers), "{name}");
        if recorded.body.is_empty() {
            assert_eq!(played.body, "", "{name}");
            continue;
        }
        let [played, recorded] =
            [played, recorded].map(|answer| shape(&serde_json::from_str(&answer.body).unwrap()));
        assert_eq!(played, recorded, "{name}");
    }
}

#[tokio::test]
async fn a_directory_that_is_away_is_401_slowly_and_one_after_the_other_for_everything() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.directory_away_ms = Some(60));
    let began = Instant::now();
    let get = async |path: &str| {
        let answer = ask(&udm, &format!("GET {path} HTTP/1.1\nAccept: application/json"), "univention").await;
        assert_eq!((answer.status.as_str(), answer.body.as_str()), ("401", ""), "{path}");
    };
    tokio::join!(
        get("/udm/"),
        get("/udm/users/user/?opened=0"),
        get("/udm/users/user/uid%3Danna%2Cdc%3Dx"),
        get("/udm/no/such/")
    );
    assert!(began.elapsed() >= Duration::from_millis(4 * 60));
    udm.faults().set(Faults::default());
    let back = ask(&udm, "GET /udm/ HTTP/1.1\nAccept: application/json", "univention").await;
    assert_eq!(back.status, "200");
}
