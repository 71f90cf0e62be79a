//! What an operator sees of all queues: how old what waits is, who reads, and why a prefill does not go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{sync::Arc, time::Duration};

use api::{Step, StepHook};
use broker::testing::eventually;
use model::limits::{GivenUp, Limit};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, PREFILL, Server, config, registration, replica};
use tokio_util::sync::CancellationToken;

const MAIL: (&str, &str) = ("mail", "pw");
const SOON: Duration = Duration::from_secs(20);

async fn list(server: &Server) -> Vec<Value> {
    let listed = server.send(Method::GET, "/v1/subscriptions", ADMIN, None).await;
    assert_eq!(listed.status, StatusCode::OK, "{listed:?}");
    listed.json().as_array().unwrap().clone()
}

async fn get(server: &Server, name: &str) -> Value {
    let shown = server.send(Method::GET, &format!("/v1/subscriptions/{name}"), ADMIN, None).await;
    assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
    shown.json()
}

fn instant(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_list_shows_each_subscription_as_it_is_shown_alone_and_by_name() {
    let server = Server::start().await;
    for (name, prefill) in [("wiki", true), ("mail", false), ("chat", true), ("Board", false)] {
        server.register(name, &["users/user"], prefill).await;
    }
    let set = server
        .send(Method::PATCH, "/v1/subscriptions/chat/prefill", PREFILL, Some(&json!({"status": "failed"})))
        .await;
    assert_eq!(set.status, StatusCode::OK);
    let wiki = server.broker.registry().subscription(&"wiki".parse().unwrap()).await.unwrap().unwrap().value;
    let given_up = GivenUp {
        at: "2026-01-31T12:00:00+00:00".parse().unwrap(),
        limit: Limit::Messages,
        live: 7,
        prefill: 2,
    };
    assert!(server.broker.give_up(&wiki.name, wiki.incarnation, &given_up).await.unwrap());
    let board =
        server.broker.registry().subscription(&"Board".parse().unwrap()).await.unwrap().unwrap().value;
    server.delete_stream(&format!("stream:Board:{}", board.incarnation.short())).await;

    let listed = list(&server).await;
    let names: Vec<&str> = listed.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Board", "chat", "mail", "wiki"]);
    for shown in &listed {
        let alone = get(&server, shown["name"].as_str().unwrap()).await;
        assert_eq!(*shown, alone);
        assert_eq!(shown["lifecycle"], "ready");
        instant(&shown["created"]);
    }
    let of = |field: &str| -> Vec<Value> { listed.iter().map(|s| s["prefill"][field].clone()).collect() };
    assert_eq!(of("state"), ["failed", "failed", "done", "failed"]);
    assert_eq!(of("reason"), [json!("Broken"), json!("SetByRequest"), json!(null), json!("Broken")]);
    assert_eq!(listed[3]["queue"]["given_up"]["live"], 7);
}

#[tokio::test]
async fn a_registration_that_broke_off_is_listed_as_such() {
    let server = Server::start().await;
    let stop = CancellationToken::new();
    let hook = StepHook(Arc::new(|step| step == Step::Queue));
    let base = replica(&server.broker, config(Some(hook)), stop.clone()).await;
    let request = server.client.post(format!("{base}/v1/subscriptions")).basic_auth(ADMIN.0, Some(ADMIN.1));
    let registering = tokio::spawn(request.json(&registration("mail", &["users/user"], false)).send());
    let listed = eventually("the reservation", SOON, async || list(&server).await, |l| !l.is_empty()).await;
    assert_eq!((&listed[0]["name"], &listed[0]["lifecycle"]), (&json!("mail"), &json!("registering")));
    registering.abort();
    server.register("mail", &["users/user"], false).await;
    assert_eq!(list(&server).await[0]["lifecycle"], "ready");
    stop.cancel();
}

#[tokio::test]
async fn a_queue_says_how_old_what_waits_is_and_when_it_was_read() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let new = get(&server, "mail").await;
    assert_eq!((&new["queue"]["oldest_at"], &new["queue"]["last_read_at"]), (&json!(null), &json!(null)));
    for id in ["1", "2"] {
        server.event(id).await;
    }
    let waits = async || get(&server, "mail").await;
    let two = eventually("two messages", SOON, waits, |shown| shown["queue"]["live"] == 2).await;
    let oldest = instant(&two["queue"]["oldest_at"]);
    assert!(oldest >= instant(&new["created"]), "{two}");
    assert_eq!(two["queue"]["last_read_at"], json!(null), "to look at it is not to read it");

    let next = "/v1/subscriptions/mail/messages/next?timeout=20";
    let message = server.send(Method::GET, next, MAIL, None).await.json();
    let read = async || get(&server, "mail").await;
    let noted = |shown: &Value| shown["queue"]["last_read_at"].is_string();
    let read = eventually("the note of a read", SOON, read, noted).await;
    assert!(instant(&read["queue"]["last_read_at"]) >= oldest);
    assert_eq!(list(&server).await[0]["queue"], read["queue"]);
    let status = format!("/v1/subscriptions/mail/messages/{}/status", message["sequence_number"]);
    server.send(Method::PATCH, &status, MAIL, Some(&json!({"status": "ok"}))).await;
    assert!(instant(&get(&server, "mail").await["queue"]["oldest_at"]) > oldest, "the second one is newer");

    // Another life of the name was never read.
    server.send(Method::DELETE, "/v1/subscriptions/mail", ADMIN, None).await;
    server.register("mail", &["users/user"], false).await;
    assert_eq!(get(&server, "mail").await["queue"]["last_read_at"], json!(null));
    // A stream is read, too.
    let stream = "/v1/subscriptions/mail/messages/stream";
    let request = server.client.get(server.url(stream)).basic_auth(MAIL.0, Some(MAIL.1));
    let mut open = request.send().await.unwrap();
    open.chunk().await.unwrap();
    eventually("the note of a stream", SOON, async || get(&server, "mail").await, noted).await;
}

#[tokio::test]
async fn the_time_from_the_acceptance_of_an_event_to_its_first_delivery_is_measured() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    server.fill("mail", &["of the prefill"]).await;
    let done = json!({"status": "done"});
    server.send(Method::PATCH, "/v1/subscriptions/mail/prefill", PREFILL, Some(&done)).await;
    server.event("live").await;
    let next = "/v1/subscriptions/mail/messages/next?timeout=20";
    let count = async || {
        let text = server.client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("headstart_api_delivery_delay_seconds_count "));
        line.map(|n| n.parse::<u64>().unwrap())
    };
    let first = server.send(Method::GET, next, MAIL, None).await.json();
    assert_eq!(count().await, Some(0), "an object of a prefill was never accepted");
    let status = format!("/v1/subscriptions/mail/messages/{}/status", first["sequence_number"]);
    server.send(Method::PATCH, &status, MAIL, Some(&json!({"status": "ok"}))).await;
    for times in [1, 2] {
        let live = server.send(Method::GET, next, MAIL, None).await.json();
        assert_eq!(live["num_delivered"], times);
        assert_eq!(count().await, Some(1), "only the first delivery counts");
    }
}
