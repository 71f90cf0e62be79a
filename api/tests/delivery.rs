//! Reading many messages at once, and acknowledging all up to one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, PREFILL, Server};

const MAIL: (&str, &str) = ("mail", "pw");
const MESSAGES: &str = "/v1/subscriptions/mail/messages";

async fn batch(server: &Server, query: &str) -> Vec<Value> {
    let got = server.send(Method::GET, &format!("{MESSAGES}?{query}"), MAIL, None).await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(got.header("content-type"), "application/json");
    got.json().as_array().unwrap().clone()
}

async fn through(server: &Server, message: &Value) -> Answer {
    let body = json!({"through": message["sequence_number"]});
    server.send(Method::POST, &format!("{MESSAGES}/acknowledgements"), MAIL, Some(&body)).await
}

fn ids(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|m| m["body"]["new"]["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_batch_is_read_and_acknowledged_at_once() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    assert_eq!(batch(&server, "timeout=0").await, [json!(null); 0]);
    server.event("live").await;
    server.fill("mail", &["1", "2", "3"]).await;
    let done = json!({"status": "done"});
    server.send(Method::PATCH, "/v1/subscriptions/mail/prefill", PREFILL, Some(&done)).await;
    let first = batch(&server, "timeout=20&limit=2").await;
    assert_eq!(ids(&first), ["1", "2"]);
    let next = server.send(Method::GET, &format!("{MESSAGES}/next?timeout=20"), MAIL, None).await.json();
    assert_eq!(
        (ids(std::slice::from_ref(&next)), &next["num_delivered"]),
        (vec!["1"], &json!(2)),
        "the head, once more"
    );
    let removed = through(&server, &first[1]).await;
    assert_eq!((removed.status, removed.text.as_str()), (StatusCode::OK, r#"{"removed":2}"#));
    let twice = through(&server, &first[1]).await;
    assert_eq!((twice.status, &twice.json()["code"]), (StatusCode::NOT_FOUND, &json!("no_message")));
    // Live messages are held back until the prefill is acknowledged.
    let rest = batch(&server, "timeout=20").await;
    assert_eq!(ids(&rest), ["3"]);
    assert_eq!(through(&server, &rest[0]).await.status, StatusCode::OK);
    let live = batch(&server, "timeout=20").await;
    assert_eq!(ids(&live), ["live"]);
    assert_eq!(through(&server, &live[0]).await.status, StatusCode::OK);
    assert_eq!(batch(&server, "timeout=0").await, [json!(null); 0]);
    let text = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for line in ["headstart_api_messages_delivered_total 5", "headstart_api_messages_acknowledged_total 4"] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_422_and_names_the_field() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("timeout=nan", "timeout"),
    ] {
        let answer = server.send(Method::GET, &format!("{MESSAGES}?{query}"), MAIL, None).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(answer.json()["errors"][0]["loc"], json!(["query", field]), "{query}");
    }
    for body in [json!({}), json!({"through": 0}), json!({"through": "1"}), json!({"through": null})] {
        let path = format!("{MESSAGES}/acknowledgements");
        let answer = server.send(Method::POST, &path, MAIL, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(answer.json()["errors"][0]["loc"], json!(["body", "through"]), "{body}");
    }
    // Fence and checkpoint have numbers, too.
    for number in 1..4 {
        let answer = through(&server, &json!({"sequence_number": number})).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{number}");
    }
    let wrong = server.send(Method::GET, MESSAGES, ("mail", "wrong"), None).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn large_messages_come_in_several_batches() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    for id in 0..4 {
        let mut event = support::event("users/user", &id.to_string());
        event["body"]["new"]["photo"] = json!("x".repeat(3 << 20));
        let sent = server.publish(&event).await;
        assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.text);
    }
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let got = batch(&server, "timeout=20&limit=1000").await;
        assert!(matches!(got.len(), 1 | 2), "{}", got.len());
        seen.extend(ids(&got).into_iter().map(str::to_owned));
        assert_eq!(through(&server, got.last().unwrap()).await.status, StatusCode::OK);
    }
    assert_eq!(seen, ["0", "1", "2", "3"]);
}
