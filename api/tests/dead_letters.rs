//! What a queue can't carry: shown, sent again, removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use model::{
    SubscriptionName,
    dead_letter::{DeadLetter, DeadLetterReason, Origin},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, Server};

const MAIL: (&str, &str) = ("mail", "pw");
const PATH: &str = "/v1/subscriptions/mail/dead-letters";

async fn set_aside(server: &Server, name: &str, origin: Origin, message: &[u8]) {
    let name: SubscriptionName = name.parse().unwrap();
    let entry = server.broker.registry().subscription(&name).await.unwrap().unwrap().value;
    let letter = DeadLetter {
        incarnation: entry.incarnation,
        origin,
        reason: DeadLetterReason::TooLarge,
        problem: None,
        topic: "users/user".into(),
        dn: Some("uid=a".into()),
        size: message.len() as u64,
        limit: 10,
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    server.broker.dead_letters().set_aside(&name, &letter, message).await.unwrap();
}

async fn list(server: &Server) -> Vec<Value> {
    let shown = server.send(Method::GET, PATH, MAIL, None).await;
    assert_eq!(shown.status, StatusCode::OK);
    shown.json().as_array().unwrap().clone()
}

#[tokio::test]
async fn a_dead_letter_is_shown_and_sent_again_once() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    server.register("other", &["users/user"], false).await;
    assert_eq!(list(&server).await, [] as [Value; 0]);
    let message = support::event("users/user", &"x".repeat(3 << 20)).to_string();
    set_aside(&server, "mail", Origin::Live { incoming_seq: 7 }, message.as_bytes()).await;
    set_aside(&server, "other", Origin::Live { incoming_seq: 7 }, message.as_bytes()).await;
    // Of an attempt that has been overtaken: nobody's business any more.
    set_aside(&server, "mail", Origin::Prefill { attempt: 9 }, b"{}").await;
    let shown = list(&server).await;
    let [letter] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((&letter["reason"], &letter["dn"]), (&json!("TooLarge"), &json!("uid=a")));
    assert_eq!(
        (&letter["kept"], &letter["origin"]),
        (&json!(true), &json!({"from": "live", "incoming_seq": 7}))
    );
    let subscription = server.send(Method::GET, "/v1/subscriptions/mail", MAIL, None).await.json();
    let queue = &subscription["queue"];
    assert_eq!((&queue["dead_letters"], &queue["full"]), (&json!(1), &json!(false)));
    let again = format!("{PATH}/{}/redelivery", letter["id"]);
    let foreign = again.replace("mail", "other");
    assert_eq!(server.send(Method::POST, &foreign, ADMIN, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.send(Method::POST, &foreign, MAIL, None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(server.send(Method::POST, &again, MAIL, None).await.status, StatusCode::ACCEPTED);
    assert_eq!(server.send(Method::POST, &again, MAIL, None).await.status, StatusCode::NOT_FOUND);
    let path = "/v1/subscriptions/mail/messages/next?timeout=20";
    let got = server.send(Method::GET, path, MAIL, None).await.json();
    assert_eq!(got["body"]["new"]["id"].as_str().unwrap().len(), 3 << 20);
    assert!(list(&server).await.is_empty());
}

#[tokio::test]
async fn what_still_does_not_fit_stays() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let huge = vec![b'x'; server.broker.largest_message() + 1];
    set_aside(&server, "mail", Origin::Live { incoming_seq: 1 }, &huge).await;
    set_aside(&server, "mail", Origin::Live { incoming_seq: 2 }, &vec![b'x'; (64 << 20) + 1]).await;
    let shown = list(&server).await;
    assert_eq!(shown.iter().map(|l| l["kept"].as_bool().unwrap()).collect::<Vec<_>>(), [true, false]);
    for (letter, word) in shown.iter().zip(["max_payload", "record"]) {
        let refused =
            server.send(Method::POST, &format!("{PATH}/{}/redelivery", letter["id"]), MAIL, None).await;
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert!(refused.text.contains(word), "{}", refused.text);
        let removed = server.send(Method::DELETE, &format!("{PATH}/{}", letter["id"]), ADMIN, None).await;
        assert_eq!(removed.status, StatusCode::OK);
    }
    assert!(list(&server).await.is_empty());
    let bad = server.send(Method::DELETE, &format!("{PATH}/x"), MAIL, None).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn what_the_directory_can_not_show_is_told_and_can_not_be_sent_again() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let name: SubscriptionName = "mail".parse().unwrap();
    let entry = server.broker.registry().subscription(&name).await.unwrap().unwrap().value;
    let letter = DeadLetter {
        incarnation: entry.incarnation,
        origin: Origin::Prefill { attempt: entry.prefill.attempt },
        reason: DeadLetterReason::Unreadable,
        problem: Some("status 500".into()),
        topic: "users/user".into(),
        dn: Some("uid=a".into()),
        size: 0,
        limit: 0,
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    server.broker.dead_letters().set_aside(&name, &letter, &[]).await.unwrap();
    let shown = list(&server).await;
    let [letter] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((&letter["reason"], &letter["problem"]), (&json!("Unreadable"), &json!("status 500")));
    assert_eq!((&letter["kept"], &letter["dn"]), (&json!(false), &json!("uid=a")));
    let refused = server.send(Method::POST, &format!("{PATH}/{}/redelivery", letter["id"]), MAIL, None).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text.contains("when the directory can show the object"), "{}", refused.text);
}

#[tokio::test]
async fn they_go_with_their_subscription() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    set_aside(&server, "mail", Origin::Live { incoming_seq: 1 }, b"{}").await;
    let name: SubscriptionName = "mail".parse().unwrap();
    let old = server.broker.registry().subscription(&name).await.unwrap().unwrap().value;
    assert_eq!(server.broker.dead_letters().count(&old).await.unwrap(), 1);
    server.send(Method::DELETE, "/v1/subscriptions/mail", MAIL, None).await;
    assert_eq!(server.broker.dead_letters().count(&old).await.unwrap(), 0);
    server.register("mail", &["users/user"], false).await;
    assert!(list(&server).await.is_empty());
}

#[tokio::test]
async fn dead_letters_come_in_pages_each_behind_the_last_letter_of_the_one_before() {
    let server = Server::start().await;
    for name in ["mail", "other"] {
        server.register(name, &["users/user"], false).await;
    }
    for incoming_seq in 1..=5 {
        set_aside(&server, "mail", Origin::Live { incoming_seq }, b"{}").await;
        // Of others, and of an attempt that was overtaken: they count in no page.
        set_aside(&server, "other", Origin::Live { incoming_seq }, b"{}").await;
        set_aside(&server, "mail", Origin::Prefill { attempt: 9 }, b"{}").await;
    }
    let whole = list(&server).await;
    assert_eq!(whole.len(), 5);
    let (mut pages, mut after) = (Vec::new(), json!(0));
    loop {
        let page = server.send(Method::GET, &format!("{PATH}?limit=2&after={after}"), MAIL, None).await;
        assert_eq!(page.status, StatusCode::OK);
        let page = page.json().as_array().unwrap().clone();
        pages.push(page.len());
        let Some(last) = page.last() else { break };
        assert_eq!(whole[2 * (pages.len() - 1)..].iter().take(2).cloned().collect::<Vec<_>>(), page);
        after = last["id"].clone();
    }
    assert_eq!(pages, [2, 2, 1, 0]);
    // What was removed in between does not shift the rest.
    let [first, second] = [&whole[0]["id"], &whole[1]["id"]];
    server.send(Method::DELETE, &format!("{PATH}/{first}"), MAIL, None).await;
    let rest = server.send(Method::GET, &format!("{PATH}?after={second}"), MAIL, None).await.json();
    assert_eq!(rest.as_array().unwrap(), &whole[2..]);
    for bad in ["after=x", "after=-1", "limit=0", "limit=1001"] {
        let refused = server.send(Method::GET, &format!("{PATH}?{bad}"), MAIL, None).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        let field = bad.split('=').next().unwrap();
        assert_eq!(refused.json()["errors"][0]["loc"], json!(["query", field]));
    }
}
