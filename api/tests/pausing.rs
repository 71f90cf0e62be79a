//! Pausing and resuming a prefill that is a task of a worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::{Modified, Task, TasksConfig};
use model::{
    PrefillState, Reason, Subscription, SubscriptionName,
    prefill::{PAUSED_TEXT, PrefillTask},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{ADMIN, Answer, Server, registration};

const MAIL: (&str, &str) = ("mail", "pw");
const PATH: &str = "/v1/subscriptions/mail";
const PREFILL: &str = "/v1/subscriptions/mail/prefill";

async fn registered() -> Server {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    server
}

async fn entry(server: &Server) -> Subscription {
    let name: SubscriptionName = "mail".parse().unwrap();
    server.broker.registry().subscription(&name).await.unwrap().unwrap().value
}

async fn change(server: &Server, change: impl Fn(&Subscription) -> Option<Subscription>) {
    let s = entry(server).await;
    let changed = server.broker.registry().modify(&s.name, s.incarnation, change).await.unwrap();
    assert!(matches!(changed, Modified::Changed(_)));
}

async fn post(server: &Server, word: &str) -> Answer {
    server.send(Method::POST, &format!("{PREFILL}/{word}"), MAIL, None).await
}

async fn has_task(server: &Server) -> bool {
    server.broker.tasks().contains(&PrefillTask::of(&entry(server).await)).await.unwrap()
}

/// As a worker takes it; `None`: none is there to be taken.
async fn taken(server: &Server, wait: Duration) -> Option<Task> {
    let long = TasksConfig { backoff: vec![Duration::from_secs(60)] };
    server.broker.tasks().next(&long, wait).await.unwrap()
}

/// What a worker says when it stops.
fn stopped(s: &Subscription) -> Option<Subscription> {
    let why = (Some(Reason::Paused), Some(PAUSED_TEXT.to_owned()));
    s.with_prefill_state(PrefillState::Running, why.0, why.1, s.created.clone())
}

#[tokio::test]
async fn a_task_is_paused_resumed_and_cancelled_for_good() {
    let server = registered().await;
    for (word, status, paused) in [
        ("resume", StatusCode::OK, false),
        ("pause", StatusCode::ACCEPTED, true),
        ("pause", StatusCode::OK, true),
        ("resume", StatusCode::ACCEPTED, false),
        ("pause", StatusCode::ACCEPTED, true),
    ] {
        let answer = post(&server, word).await;
        let shown = answer.json();
        assert_eq!((answer.status, &shown["paused"]), (status, &json!(paused)), "{word}: {shown}");
        let reason = if paused { json!("Paused") } else { json!(null) };
        assert_eq!((&shown["state"], &shown["reason"]), (&json!("pending"), &reason), "{word}");
        assert_eq!(server.send(Method::GET, PREFILL, MAIL, None).await.json(), shown);
    }
    // Asked for again it is the same one, and stays paused.
    let again = server.send(Method::POST, PREFILL, MAIL, None).await;
    let shown = again.json();
    assert_eq!(
        (again.status, &shown["attempt"], &shown["paused"]),
        (StatusCode::OK, &json!(1), &json!(true))
    );
    for _ in 0..2 {
        let cancelled = server.send(Method::DELETE, PREFILL, MAIL, None).await;
        let shown = cancelled.json();
        assert_eq!(
            (cancelled.status, &shown["state"], &shown["reason"], &shown["paused"]),
            (StatusCode::OK, &json!("failed"), &json!("Cancelled"), &json!(false))
        );
        assert!(!has_task(&server).await);
        for word in ["pause", "resume"] {
            let ended = post(&server, word).await;
            assert_eq!(
                (ended.status, &ended.json()["code"]),
                (StatusCode::CONFLICT, &json!("prefill_ended"))
            );
            assert!(!has_task(&server).await, "{word}");
        }
    }
    let asked = server.send(Method::POST, PREFILL, MAIL, None).await;
    let shown = asked.json();
    assert_eq!(
        (asked.status, &shown["attempt"], &shown["paused"]),
        (StatusCode::ACCEPTED, &json!(2), &json!(false))
    );
    assert!(has_task(&server).await);
}

#[tokio::test]
async fn a_worker_that_has_not_seen_the_pause_keeps_its_task() {
    let server = registered().await;
    let held = taken(&server, Duration::from_secs(20)).await.expect("the task");
    post(&server, "pause").await;
    assert_eq!(post(&server, "resume").await.status, StatusCode::ACCEPTED);
    assert!(has_task(&server).await);
    // Anything else would have been handed out before this.
    let other = registration("other", &["users/user"], true);
    server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&other)).await;
    let next = taken(&server, Duration::from_secs(20)).await.expect("the other's task");
    assert_eq!(next.request.unwrap().subscription.as_str(), "other");
    held.finish().await.unwrap();
    assert!(!has_task(&server).await, "it was still the same");
}

#[tokio::test]
async fn a_worker_that_has_stopped_does_not_take_the_new_task_with_it() {
    let server = registered().await;
    let given_up = taken(&server, Duration::from_secs(20)).await.expect("the task");
    post(&server, "pause").await;
    change(&server, stopped).await;
    // It has said so, and is slow to give its task up.
    assert_eq!(post(&server, "resume").await.status, StatusCode::ACCEPTED);
    let prefill = entry(&server).await.prefill;
    assert_eq!((prefill.state, prefill.reason, prefill.message), (PrefillState::Running, None, None));
    given_up.finish().await.unwrap();
    assert!(has_task(&server).await);
    let next = taken(&server, Duration::from_secs(20)).await.expect("a new task");
    assert_eq!(next.tries, 1, "what was tried before the pause does not count");
}

#[tokio::test]
async fn a_resume_that_died_half_way_is_completed_by_sending_it_again() {
    let server = registered().await;
    let given_up = taken(&server, Duration::from_secs(20)).await.expect("the task");
    post(&server, "pause").await;
    change(&server, stopped).await;
    given_up.finish().await.unwrap();
    assert!(!has_task(&server).await);
    // The entry was written, then the replica died.
    change(&server, |s| s.with_paused(false)).await;
    for _ in 0..2 {
        assert_eq!(post(&server, "resume").await.status, StatusCode::OK);
        assert!(has_task(&server).await);
    }
}

#[tokio::test]
async fn what_is_held_is_not_paused_and_what_is_paused_is_removed() {
    let server = registered().await;
    post(&server, "pause").await;
    // The worker had it complete when it was paused.
    change(&server, |s| {
        s.with_prefill_state(PrefillState::Failed, Some(Reason::TooManyRemovals), None, s.created.clone())
    })
    .await;
    for word in ["resume", "pause"] {
        assert_eq!(post(&server, word).await.status, StatusCode::CONFLICT, "{word}");
    }
    assert_eq!(server.send(Method::POST, PREFILL, MAIL, None).await.status, StatusCode::ACCEPTED);
    assert_eq!(post(&server, "pause").await.status, StatusCode::ACCEPTED);
    assert_eq!(server.send(Method::DELETE, PATH, ADMIN, None).await.status, StatusCode::OK);
    server.register("mail", &["users/user"], true).await;
    assert!(!entry(&server).await.prefill.paused && has_task(&server).await);
}
