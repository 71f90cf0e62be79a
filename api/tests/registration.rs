//! A registration that is killed between any two of its steps is completed by sending it again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{Step, StepHook};
use broker::testing::eventually;
use model::{SubscriptionName, prefill::PrefillTask, subscription::Lifecycle};
use reqwest::{Method, StatusCode};
use serde_json::json;
use support::{ADMIN, Server, answer, config, registration, replica};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A replica that stops dead before a step. Tells when it has come there.
async fn dies_before(
    server: &Server,
    step: Step,
) -> (String, mpsc::UnboundedReceiver<()>, CancellationToken) {
    let (reached, awaited) = mpsc::unbounded_channel();
    let hook = StepHook(Arc::new(move |at| {
        at == step && {
            reached.send(()).ok();
            true
        }
    }));
    let shutdown = CancellationToken::new();
    (replica(&server.broker, config(Some(hook)), shutdown.clone()).await, awaited, shutdown)
}

async fn everything_exists(server: &Server, name: &SubscriptionName) {
    let entry = server.broker.registry().subscription(name).await.unwrap().unwrap().value;
    assert_eq!(entry.lifecycle, Lifecycle::Ready);
    assert!(server.broker.queue(name, entry.incarnation).exists().await.unwrap(), "queue, fence, checkpoint");
    let credential = server.broker.credentials().get(name).await.unwrap().unwrap();
    assert_eq!(credential.incarnation, Some(entry.incarnation));
    assert!(server.broker.tasks().contains(&PrefillTask::of(&entry)).await.unwrap(), "the task");
    let boundary =
        async || server.broker.registry().subscription(name).await.unwrap().unwrap().value.prefill.boundary;
    eventually("the marker to take effect", Duration::from_secs(20), boundary, Option::is_some).await;
}

#[tokio::test]
async fn killed_before_any_step_it_is_completed_by_the_same_request() {
    let server = Server::start().await;
    for (number, step) in Step::ALL.into_iter().enumerate() {
        let name: SubscriptionName = format!("mail{number}").parse().unwrap();
        let body = registration(name.as_str(), &["groups/group", "users/.*"], true);
        let (base, mut reached, shutdown) = dies_before(&server, step).await;
        let request = server.client.post(format!("{base}/v1/subscriptions"));
        let request = request.basic_auth(ADMIN.0, Some(ADMIN.1)).json(&body);
        let dying = tokio::spawn(request.send());
        tokio::time::timeout(Duration::from_secs(20), reached.recv()).await.unwrap().unwrap();
        dying.abort();
        shutdown.cancel();
        // Not answered, so not in the list unless all exists.
        let again = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
        assert!(again.status.is_success(), "{step:?}: {again:?}");
        everything_exists(&server, &name).await;
        let same = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
        assert_eq!(same.status, StatusCode::OK, "{step:?}");
    }
    assert_eq!(server.broker.registry().list().await.unwrap().entries.len(), Step::ALL.len());
}

/// What a subscription of the former software has left behind is nobody's password.
#[tokio::test]
async fn a_left_over_hash_does_not_count_for_one_that_is_being_registered() {
    let server = Server::start().await;
    let body = registration("mail", &["users/user"], false);
    let (base, mut reached, shutdown) = dies_before(&server, Step::Credentials).await;
    let request = server.client.post(format!("{base}/v1/subscriptions"));
    let dying = tokio::spawn(request.basic_auth(ADMIN.0, Some(ADMIN.1)).json(&body).send());
    tokio::time::timeout(Duration::from_secs(20), reached.recv()).await.unwrap().unwrap();
    dying.abort();
    shutdown.cancel();
    server.put_raw("CREDENTIALS", "mail", &bcrypt::hash("left-over", 4).unwrap()).await;
    let again = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
    assert_eq!(again.status, StatusCode::CREATED, "{again:?}");
    for (password, status) in [("left-over", StatusCode::UNAUTHORIZED), ("pw", StatusCode::OK)] {
        let shown = server.send(Method::GET, "/v1/subscriptions/mail", ("mail", password), None).await;
        assert_eq!(shown.status, status, "{password}");
    }
}

#[tokio::test]
async fn a_half_done_one_may_be_removed_and_registered_otherwise() {
    let server = Server::start().await;
    for step in [Step::Queue, Step::Credentials, Step::Ready] {
        let body = registration("mail", &["users/user"], true);
        let (base, mut reached, shutdown) = dies_before(&server, step).await;
        let request = server.client.post(format!("{base}/v1/subscriptions"));
        let dying = tokio::spawn(request.basic_auth(ADMIN.0, Some(ADMIN.1)).json(&body).send());
        tokio::time::timeout(Duration::from_secs(20), reached.recv()).await.unwrap().unwrap();
        dying.abort();
        shutdown.cancel();
        let other = registration("mail", &["groups/group"], true);
        let refused = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&other)).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{step:?}");
        let removed = server.send(Method::DELETE, "/v1/subscriptions/mail", ADMIN, None).await;
        assert_eq!(removed.status, StatusCode::OK, "{step:?}");
        let created = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&other)).await;
        assert_eq!(created.status, StatusCode::CREATED, "{step:?}");
        everything_exists(&server, &"mail".parse().unwrap()).await;
        server.send(Method::DELETE, "/v1/subscriptions/mail", ADMIN, None).await;
    }
}

#[tokio::test]
async fn many_at_once_through_two_replicas_make_one_subscription() {
    let server = Server::start().await;
    let shutdown = CancellationToken::new();
    let other = replica(&server.broker, config(None), shutdown.clone()).await;
    let body = registration("mail", &["users/user"], true);
    let requests = (0..8).map(|n| {
        let base = if n % 2 == 0 { other.clone() } else { server.url("") };
        answer(
            server
                .client
                .post(format!("{base}/v1/subscriptions"))
                .basic_auth(ADMIN.0, Some(ADMIN.1))
                .json(&body),
        )
    });
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(|a| a.status.is_success()), "{answers:?}");
    let created = answers.iter().filter(|a| a.status == StatusCode::CREATED).count();
    assert_eq!(created, 1, "one request made it, the others found it: {answers:?}");
    everything_exists(&server, &"mail".parse().unwrap()).await;
    // Different parameters at once: one wins, the other is told so.
    let bodies = [&["users/user"][..], &["groups/group"]].map(|topics| registration("chat", topics, false));
    let results = Mutex::new(Vec::new());
    futures::future::join_all(bodies.iter().map(async |body| {
        let answer = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(body)).await;
        results.lock().unwrap().push(answer.status.as_u16());
    }))
    .await;
    let mut results = results.into_inner().unwrap();
    results.sort_unstable();
    assert_eq!(results, [201, 409]);
    shutdown.cancel();
}

#[tokio::test]
async fn of_two_passwords_at_once_one_is_told_that_it_does_not_count() {
    let server = Server::start().await;
    for round in 0..10 {
        let name = format!("mail{round}");
        let bodies = ["first", "second"].map(|password| {
            let mut body = registration(&name, &["users/user"], false);
            body["password"] = json!(password);
            body
        });
        let answers = futures::future::join_all(
            bodies.iter().map(|body| server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(body))),
        )
        .await;
        let path = format!("/v1/subscriptions/{name}");
        for (answer, password) in answers.iter().zip(["first", "second"]) {
            let opens = server.send(Method::GET, &path, (&name, password), None).await.status;
            let (told, expected) = (answer.status.is_success(), opens == StatusCode::OK);
            assert_eq!(told, expected, "{name} {password}: {answer:?}");
        }
        assert_eq!(answers.iter().filter(|a| a.status == StatusCode::CONFLICT).count(), 1, "{answers:?}");
    }
}

#[tokio::test]
async fn a_ready_one_without_its_password_gets_it_again() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let name = "mail".parse().unwrap();
    let entry = server.broker.registry().subscription(&name).await.unwrap().unwrap().value;
    server.broker.credentials().delete(&name, entry.incarnation).await.unwrap();
    assert_eq!(server.register("mail", &["users/user"], false).await, StatusCode::OK);
    let stored = server.broker.credentials().get(&name).await.unwrap().unwrap();
    assert_eq!(stored.incarnation, Some(entry.incarnation));
    // A bare hash of the former software counts for a subscription that is ready.
    server.put_raw("CREDENTIALS", "mail", &bcrypt::hash("former", 4).unwrap()).await;
    let body = registration("mail", &["users/user"], false);
    let refused = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn no_event_after_the_answer_is_missed() {
    let server = Server::start().await;
    for round in 0..15 {
        let name = format!("mail{round}");
        server.register(&name, &["users/user"], false).await;
        let event = support::event("users/user", "right-after");
        server.send(Method::POST, "/v1/messages", support::EVENTS, Some(&event)).await;
        let path = format!("/v1/subscriptions/{name}/messages/next?timeout=20");
        let got = server.send(Method::GET, &path, (&name, "pw"), None).await;
        assert_eq!(got.json()["body"]["new"]["id"], "right-after", "{name}");
    }
}
