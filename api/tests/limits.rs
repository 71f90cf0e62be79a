//! Limits as the API shows them, and what is answered at them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use broker::StreamLimits;
use model::limits::{GivenUp, Limit};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{ADMIN, EVENTS, Server, event, registration};

const MAIL: (&str, &str) = ("mail", "pw");

#[tokio::test]
async fn a_queue_that_was_given_up_is_told_until_the_subscription_is_removed() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let shown = server.send(Method::GET, "/v1/subscriptions/mail", MAIL, None).await.json();
    let queue = &shown["queue"];
    assert!(queue["bytes"].as_u64().unwrap() > 0, "fence and checkpoint");
    assert_eq!(
        (&queue["limit"], &queue["limit_bytes"], &queue["limit_age"], &queue["when_full"]),
        (&json!(10_000_000), &json!(null), &json!(null), &json!("wait"))
    );
    assert_eq!((&queue["swept"], &queue["given_up"]), (&json!(0), &json!(null)));

    let entry = server.broker.registry().subscription(&"mail".parse().unwrap()).await.unwrap().unwrap().value;
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let given_up = GivenUp { at, limit: Limit::Messages, live: 7, prefill: 2 };
    assert!(server.broker.give_up(&entry.name, entry.incarnation, &given_up).await.unwrap());

    let shown = server.send(Method::GET, "/v1/subscriptions/mail", MAIL, None).await.json();
    assert_eq!(
        shown["queue"]["given_up"],
        json!({"at": "2026-01-01T00:00:00+00:00", "limit": "messages", "live": 7, "prefill": 2})
    );
    assert_eq!(
        (&shown["prefill_queue_status"], &shown["prefill"]["reason"]),
        (&json!("failed"), &json!("Broken"))
    );
    assert!(shown["prefill"]["message"].as_str().unwrap().contains("given up"), "{shown}");
    let next = server.send(Method::GET, "/v1/subscriptions/mail/messages/next", MAIL, None).await;
    assert_eq!(next.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(next.json()["detail"].as_str().unwrap().contains("given up"), "{}", next.text);
    let body = registration("mail", &["users/user"], false);
    let again = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let prefill = server.send(Method::POST, "/v1/subscriptions/mail/prefill", ADMIN, None).await;
    assert_eq!(prefill.status, StatusCode::CONFLICT);
    let removed = server.send(Method::DELETE, "/v1/subscriptions/mail", ADMIN, None).await;
    assert_eq!(removed.status, StatusCode::OK);
    assert_eq!(server.register("mail", &["users/user"], false).await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_full_event_log_is_503() {
    let server = Server::start().await;
    let full = StreamLimits { log_bytes: Some(10), ..StreamLimits::default() };
    server.broker.clone().with_limits(full).create_layout().await.unwrap();
    let event = event("users/user", "1");
    let refused = server.send(Method::POST, "/v1/messages", EVENTS, Some(&event)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("full"), "{}", refused.text);
    server.broker.create_layout().await.unwrap();
    let accepted = server.send(Method::POST, "/v1/messages", EVENTS, Some(&event)).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
}
