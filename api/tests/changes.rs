//! What can be changed about a subscription that is registered: its prefill asked for again or cancelled, its topics,
//! its password. The queue is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::{Claimed, FenceHolder, FillError, testing::eventually};
use bytes::Bytes;
use model::{Subscription, SubscriptionName, fence::Counts, prefill::PrefillTask};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, Answer, EVENTS, PREFILL, Server, config, registration};

const MAIL: (&str, &str) = ("mail", "pw");
const PATH: &str = "/v1/subscriptions/mail";
const ASK: &str = "/v1/subscriptions/mail/prefill";

async fn entry(server: &Server) -> Subscription {
    let name: SubscriptionName = "mail".parse().unwrap();
    server.broker.registry().subscription(&name).await.unwrap().unwrap().value
}

async fn send_event(server: &Server, topic: &str, id: &str) {
    let sent = server.send(Method::POST, "/v1/messages", EVENTS, Some(&support::event(topic, id))).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
}

/// The current attempt's pod has the fence, after the marker took effect.
async fn holder(server: &Server) -> FenceHolder {
    let looked = async || entry(server).await;
    let found =
        eventually("the boundary", Duration::from_secs(20), looked, |s| s.prefill.boundary.is_some()).await;
    let queue = server.broker.queue(&found.name, found.incarnation);
    match queue.claim_fence(found.prefill.round, found.prefill.attempt, "test").await.unwrap() {
        Claimed::Holder(holder) => *holder,
        other => panic!("{other:?}"),
    }
}

async fn write(holder: &mut FenceHolder, ids: &[&str]) -> Result<(), FillError> {
    let event = |id: &&str| Bytes::from(support::event("users/user", id).to_string());
    holder.write(1, &ids.iter().map(event).collect::<Vec<_>>()).await
}

/// What a prefill pod and whoever watches it do, in small.
async fn fill(server: &Server, ids: &[&str]) {
    let mut holder = holder(server).await;
    holder.purge_below().await.unwrap();
    write(&mut holder, ids).await.unwrap();
    holder.seal(Counts { messages: ids.len() as u64, ..Counts::default() }).await.unwrap();
    set(server, "done").await;
}

async fn set(server: &Server, state: &str) {
    let set = server.send(Method::PATCH, ASK, PREFILL, Some(&json!({"status": state}))).await;
    assert_eq!(set.status, StatusCode::OK);
}

async fn next(server: &Server, timeout: &str) -> Value {
    let path = format!("{PATH}/messages/next?timeout={timeout}");
    server.send(Method::GET, &path, MAIL, None).await.json()
}

/// Reads and acknowledges that many, then sees an empty queue.
async fn read(server: &Server, count: usize) -> Vec<String> {
    let mut ids = vec![];
    while ids.len() < count {
        let message = next(server, "20").await;
        assert!(!message.is_null(), "only {ids:?} came");
        ids.push(message["body"]["new"]["id"].as_str().unwrap().to_owned());
        let path = format!("{PATH}/messages/{}/status", message["sequence_number"]);
        let acknowledged = server.send(Method::PATCH, &path, MAIL, Some(&json!({"status": "ok"}))).await;
        assert_eq!(acknowledged.status, StatusCode::OK);
    }
    assert_eq!(next(server, "0.2").await, Value::Null);
    ids
}

async fn ask(server: &Server, login: (&str, &str)) -> Answer {
    server.send(Method::POST, ASK, login, None).await
}

/// Everything the dispatcher has read is copied.
async fn copied(server: &Server, main: u64) {
    let s = entry(server).await;
    let queue = server.broker.queue(&s.name, s.incarnation);
    let pending = async || queue.pending().await.unwrap().unwrap();
    eventually("the copies", Duration::from_secs(20), pending, |counts| counts.main == main).await;
}

#[tokio::test]
async fn a_done_prefill_gets_a_new_round_between_the_events_before_and_after() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    fill(&server, &["old-1", "old-2"]).await;
    send_event(&server, "users/user", "before").await;
    let asked = ask(&server, MAIL).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED);
    let shown = asked.json();
    assert_eq!(
        (&shown["state"], &shown["round"], &shown["attempt"]),
        (&json!("pending"), &json!(2), &json!(2))
    );
    assert!(server.broker.tasks().contains(&PrefillTask::of(&entry(&server).await)).await.unwrap());
    // Asked while it is pending or runs: nothing new.
    for state in ["pending", "running"] {
        set(&server, state).await;
        let again = ask(&server, ADMIN).await;
        assert_eq!((again.status, &again.json()["round"]), (StatusCode::OK, &json!(2)));
    }
    send_event(&server, "users/user", "after").await;
    copied(&server, 2).await;
    // What was accepted before still comes, what is unread of the old prefill does not, and then nothing.
    assert_eq!(read(&server, 1).await, ["before"]);
    fill(&server, &["new-1", "new-2"]).await;
    assert_eq!(read(&server, 3).await, ["new-1", "new-2", "after"]);
}

#[tokio::test]
async fn a_failed_prefill_is_tried_again_in_its_round() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let mut zombie = holder(&server).await;
    write(&mut zombie, &["half"]).await.unwrap();
    set(&server, "failed").await;
    let asked = ask(&server, ADMIN).await;
    let shown = asked.json();
    assert_eq!(asked.status, StatusCode::ACCEPTED);
    assert_eq!((&shown["round"], &shown["attempt"], &shown["reason"]), (&json!(1), &json!(2), &json!(null)));
    fill(&server, &["whole"]).await;
    assert!(matches!(write(&mut zombie, &["late"]).await, Err(FillError::Overtaken)));
    assert_eq!(read(&server, 1).await, ["whole"]);
}

#[tokio::test]
async fn one_that_never_had_a_prefill_may_ask_for_one() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    send_event(&server, "users/user", "live").await;
    assert_eq!(ask(&server, MAIL).await.status, StatusCode::ACCEPTED);
    assert_eq!(read(&server, 1).await, ["live"]);
    fill(&server, &["all"]).await;
    assert_eq!(read(&server, 1).await, ["all"]);
    // Registering again compares what was registered.
    let body = registration("mail", &["users/user"], false);
    assert_eq!(
        server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_cancelled_prefill_writes_nothing_more_and_can_be_asked_for_again() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let mut running = holder(&server).await;
    write(&mut running, &["half"]).await.unwrap();
    let cancel = async |login| server.send(Method::DELETE, ASK, login, None).await;
    for login in [MAIL, ADMIN] {
        let cancelled = cancel(login).await;
        assert_eq!(cancelled.status, StatusCode::OK);
        let shown = cancelled.json();
        assert_eq!((&shown["state"], &shown["reason"]), (&json!("failed"), &json!("Cancelled")));
        let task = PrefillTask::of(&entry(&server).await);
        assert!(!server.broker.tasks().contains(&task).await.unwrap(), "no worker is to take it");
        // As a request that ended too early leaves it: asked again, it is tidied up.
        if login == MAIL {
            server.broker.tasks().submit(&task).await.unwrap();
        }
    }
    assert!(matches!(write(&mut running, &["late"]).await, Err(FillError::Overtaken)));
    assert!(running.seal(Counts::default()).await.is_err());
    assert_eq!(next(&server, "0.2").await, Value::Null);
    assert_eq!(ask(&server, MAIL).await.status, StatusCode::ACCEPTED);
    fill(&server, &["whole"]).await;
    let late = cancel(MAIL).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "done is done");
    assert_eq!(read(&server, 1).await, ["whole"]);
}

#[tokio::test]
async fn a_sealed_attempt_is_not_cancelled() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let mut sealed = holder(&server).await;
    sealed.seal(Counts::default()).await.unwrap();
    // Its state still says pending: the seal counts.
    assert_eq!(server.send(Method::DELETE, ASK, MAIL, None).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_request_that_died_half_way_is_completed_by_sending_it_again() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    fill(&server, &["old"]).await;
    // The entry was written, then the replica died: no task, no marker.
    let s = entry(&server).await;
    let again = |s: &Subscription| s.with_prefill_again("2026-01-01T00:00:00Z".parse().unwrap());
    server.broker.registry().modify(&s.name, s.incarnation, again).await.unwrap();
    assert_eq!(ask(&server, MAIL).await.status, StatusCode::OK);
    assert!(server.broker.tasks().contains(&PrefillTask::of(&entry(&server).await)).await.unwrap());
    fill(&server, &["new"]).await;
    assert_eq!(read(&server, 1).await, ["new"]);
}

#[tokio::test]
async fn other_topics_count_for_every_event_after_the_answer() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    send_event(&server, "users/user", "u1").await;
    let topics = json!([{"realm": "udm", "topic": "groups/.*"}]);
    for _ in 0..2 {
        let changed = server.send(Method::PATCH, PATH, ADMIN, Some(&json!({"realms_topics": topics}))).await;
        assert_eq!((changed.status, &changed.json()["realms_topics"]), (StatusCode::OK, &topics));
    }
    send_event(&server, "users/user", "u2").await;
    send_event(&server, "groups/group", "g1").await;
    assert_eq!(read(&server, 2).await, ["u1", "g1"]);
    // With a prefill: its task reads the new topics.
    let both = json!({"realms_topics": [{"realm": "udm", "topic": "users/user"}], "prefill": true});
    let changed = server.send(Method::PATCH, PATH, ADMIN, Some(&both)).await;
    assert_eq!((changed.status, &changed.json()["prefill"]["round"]), (StatusCode::OK, &json!(1)));
    let s = entry(&server).await;
    assert_eq!(s.realms_topics[0].topic, "users/user");
    assert!(server.broker.tasks().contains(&PrefillTask::of(&s)).await.unwrap());
    // While it is under way its topics stay.
    let busy = server.send(Method::PATCH, PATH, ADMIN, Some(&json!({"realms_topics": topics}))).await;
    assert_eq!(busy.status, StatusCode::CONFLICT);
    send_event(&server, "users/user", "u3").await;
    fill(&server, &["p"]).await;
    assert_eq!(read(&server, 2).await, ["p", "u3"]);
}

#[tokio::test]
async fn a_new_password_counts_and_the_old_one_ends() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let change = json!({"password": "new"});
    assert_eq!(server.send(Method::PATCH, PATH, MAIL, Some(&change)).await.status, StatusCode::OK);
    assert_eq!(server.send(Method::GET, PATH, ("mail", "new"), None).await.status, StatusCode::OK);
    let old = async || server.send(Method::GET, PATH, MAIL, None).await.status;
    eventually("the old password to be refused", Duration::from_secs(20), old, |s| {
        *s == StatusCode::UNAUTHORIZED
    })
    .await;
}

#[tokio::test]
async fn what_can_not_be_changed_is_refused_by_its_field() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    for (body, field) in [
        (json!({"name": "other"}), "name"),
        (json!({"request_prefill": true}), "request_prefill"),
        (json!({"password": 1}), "password"),
        (json!({"password": "a\0b"}), "password"),
        (json!({"realms_topics": [{"realm": "udm", "topic": "("}]}), "topic"),
        (json!({"prefill": "maybe"}), "prefill"),
        (json!({}), "body"),
        (json!([]), "body"),
    ] {
        let refused = server.send(Method::PATCH, PATH, ADMIN, Some(&body)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert!(refused.json()["errors"][0]["loc"].to_string().contains(field), "{body}: {}", refused.text);
    }
    let refused = server.send(Method::POST, ASK, MAIL, Some(&json!({"force": true}))).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    // Topics are the admin's to choose.
    let own = json!({"realms_topics": [{"realm": "udm", "topic": "groups/group"}]});
    assert_eq!(server.send(Method::PATCH, PATH, MAIL, Some(&own)).await.status, StatusCode::UNAUTHORIZED);
    let nobody = server.send(Method::PATCH, "/v1/subscriptions/nobody", ADMIN, Some(&own)).await;
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_history_of_attempts_is_kept_and_shown() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let running = holder(&server).await;
    set(&server, "running").await;
    assert_eq!(server.send(Method::DELETE, ASK, MAIL, None).await.status, StatusCode::OK);
    drop(running);
    assert_eq!(ask(&server, MAIL).await.status, StatusCode::ACCEPTED);
    fill(&server, &["whole"]).await;
    let shown = server.send(Method::GET, ASK, MAIL, None).await.json();
    let attempts = shown["attempts"].as_array().unwrap();
    let ends: Vec<_> = attempts.iter().map(|a| (&a["attempt"], &a["state"], &a["reason"])).collect();
    let (null, cancelled) = (Value::Null, json!("Cancelled"));
    assert_eq!(
        ends,
        [(&json!(1), &json!("failed"), &cancelled), (&json!(2), &json!("done"), &null)],
        "{shown}"
    );
    assert!(attempts[0]["started"].is_string() && attempts[0]["ended"].is_string(), "{shown}");
}

/// Makes what it is asked for, and has nothing.
fn kubernetes() -> kube::Client {
    let service = tower::service_fn(async |request: axum::http::Request<kube::client::Body>| {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await?;
        let answer = match (head.method.as_str(), serde_json::from_slice::<Value>(&body)) {
            ("POST", Ok(mut made)) => {
                made["metadata"]["uid"] = json!("uid");
                (StatusCode::CREATED, made)
            }
            _ => {
                let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                                     "reason": "NotFound", "message": "not here"});
                (StatusCode::NOT_FOUND, missing)
            }
        };
        let body = axum::body::Body::from(answer.1.to_string());
        Ok::<_, axum::BoxError>(axum::http::Response::builder().status(answer.0.as_u16()).body(body)?)
    });
    kube::Client::new(service, "test")
}

#[tokio::test]
async fn a_prefill_that_is_a_job_is_paused_resumed_and_cancelled_for_good() {
    let server = Server::start().await;
    let template =
        manifests::JobTemplate::parse(include_str!("../../manifests/tests/template.yaml")).unwrap();
    let launcher = api::Launcher::kubernetes(kubernetes(), "test".to_owned(), template, None);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(api::run(listener, config(None), server.broker.clone(), launcher, stop));
    let call = async |method: Method, path: &str, body: Option<Value>| {
        let request =
            server.client.request(method, format!("{base}{path}")).basic_auth(ADMIN.0, Some(ADMIN.1));
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let registered = registration("mail", &["users/user"], true);
    assert_eq!(call(Method::POST, "/v1/subscriptions", Some(registered)).await.0, 201);
    let prefill = "/v1/subscriptions/mail/prefill";
    for (word, status, paused) in [
        ("resume", 200, false),
        ("pause", 202, true),
        ("pause", 200, true),
        ("resume", 202, false),
        ("pause", 202, true),
    ] {
        let (found, shown) = call(Method::POST, &format!("{prefill}/{word}"), None).await;
        assert_eq!((found, &shown["paused"]), (status, &json!(paused)), "{word}: {shown}");
        assert_eq!(shown["state"], "pending");
        assert_eq!(call(Method::GET, prefill, None).await.1["paused"], paused);
    }
    for _ in 0..2 {
        let (status, shown) = call(Method::DELETE, prefill, None).await;
        assert_eq!((status, &shown["state"], &shown["reason"]), (200, &json!("failed"), &json!("Cancelled")));
        for word in ["pause", "resume"] {
            assert_eq!(call(Method::POST, &format!("{prefill}/{word}"), None).await.0, 409, "{word}");
        }
    }
    let (status, shown) = call(Method::POST, prefill, None).await;
    assert_eq!((status, &shown["state"], &shown["attempt"]), (202, &json!("pending"), &json!(2)), "{shown}");
    assert_eq!(shown["paused"], false, "what paused the attempt before is over");
}
