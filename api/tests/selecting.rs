//! Selections by the contract: asked for once, shown, compared, refused where they can't be evaluated, and kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, EVENTS, Server, registration};

const PATH: &str = "/v1/subscriptions";

fn selecting(selection: Value) -> Value {
    let mut body = registration("mail", &["users/user"], false);
    body["selection"] = selection;
    body
}

fn selection() -> Value {
    json!({"filter": "(mail=*)", "position": "ou=school,dc=x", "properties": {"keep": ["mail"]}})
}

#[tokio::test]
async fn a_selection_is_part_of_the_registration() {
    let server = Server::start().await;
    let post = async |body: &Value| server.send(Method::POST, PATH, ADMIN, Some(body)).await;
    assert_eq!(post(&selecting(selection())).await.status, StatusCode::CREATED);
    assert_eq!(post(&selecting(selection())).await.status, StatusCode::OK);
    for other in [json!(null), json!({"filter": "(mail=*)"})] {
        let refused = post(&selecting(other)).await;
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert!(refused.json()["detail"].as_str().unwrap().contains("selection"), "{}", refused.text);
    }
    let shown = server.send(Method::GET, "/v1/subscriptions/mail", ("mail", "pw"), None).await.json();
    assert_eq!(shown["selection"], selection());
    let changed = json!({"selection": {"filter": "(a=b)"}});
    let refused = server.send(Method::PATCH, "/v1/subscriptions/mail", ADMIN, Some(&changed)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("register it again"), "{}", refused.text);
    // Who does not ask for one sees nothing of it.
    assert_eq!(post(&registration("plain", &["users/user"], false)).await.status, StatusCode::CREATED);
    let shown = server.send(Method::GET, "/v1/subscriptions/plain", ("plain", "pw"), None).await.json();
    assert_eq!(shown.get("selection"), None);
}

#[tokio::test]
async fn a_selection_that_can_not_be_evaluated_is_refused_by_name() {
    let server = Server::start().await;
    for (selection, place) in [
        (json!({"filter": "mail=*"}), json!(["body", "selection", "filter"])),
        (json!({"filter": "(cn:dn:=x)"}), json!(["body", "selection", "filter"])),
        (json!({"filter": "(objectClass=person)"}), json!(["body", "selection", "filter"])),
        (json!({"position": "school"}), json!(["body", "selection", "position"])),
        (json!({"properties": {"keep": [], "strip": ["a"]}}), json!(["body", "selection", "properties"])),
        (json!(["users"]), json!(["body", "selection"])),
    ] {
        let refused = server.send(Method::POST, PATH, ADMIN, Some(&selecting(selection))).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
        assert_eq!(refused.json()["errors"][0]["loc"], place);
    }
    // Nothing was reserved.
    assert_eq!(server.send(Method::GET, PATH, ADMIN, None).await.json(), json!([]));
}

#[tokio::test]
async fn live_events_come_as_the_selection_shows_them() {
    let server = Server::start().await;
    let created = server.send(Method::POST, PATH, ADMIN, Some(&selecting(selection()))).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let user = |ou: &str, mail: Option<&str>| json!({"dn": format!("uid=a,ou={ou},dc=x"), "objectType": "users/user", "properties": {"mail": mail, "pw": "h"}});
    let none = json!({});
    for (old, new) in [
        (none.clone(), user("work", Some("m"))),
        (user("work", Some("m")), user("School", Some("m"))),
        (user("School", Some("m")), user("School", Some("n"))),
        (user("School", Some("n")), user("School", None)),
    ] {
        let event = json!({"publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm",
                           "topic": "users/user", "body": {"old": old, "new": new}});
        let sent = server.send(Method::POST, "/v1/messages", EVENTS, Some(&event)).await;
        assert_eq!(sent.status, StatusCode::ACCEPTED);
    }
    let next = "/v1/subscriptions/mail/messages/next?timeout=20&pop=true";
    let seen = |mail: &str| json!({"dn": "uid=a,ou=School,dc=x", "objectType": "users/user", "properties": {"mail": mail}});
    for (old, new) in [(none.clone(), seen("m")), (seen("m"), seen("n")), (seen("n"), none)] {
        let message = server.send(Method::GET, next, ("mail", "pw"), None).await.json();
        assert_eq!(message["body"], json!({"old": old, "new": new}));
        assert_eq!(message["topic"], "users/user");
    }
}
