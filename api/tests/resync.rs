//! Tracked subscriptions and the modes of a prefill, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use broker::Claimed;
use model::{
    PrefillState, Reason, Subscription, SubscriptionName,
    fence::Counts,
    prefill::{Phase, PrefillMode, PrefillTask, Progress},
    resync::{Removals, RemovalsByType},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, Answer, PREFILL, Server};

const PATH: &str = "/v1/subscriptions/mail";
const ASK: &str = "/v1/subscriptions/mail/prefill";

async fn register(server: &Server, more: &Value) -> Answer {
    let mut body = json!({"name": "mail", "password": "pw", "request_prefill": false,
                          "realms_topics": [{"realm": "udm", "topic": "users/user"}]});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await
}

async fn ask(server: &Server, body: Option<Value>) -> Answer {
    server.send(Method::POST, ASK, ("mail", "pw"), body.as_ref()).await
}

async fn set(server: &Server, state: &str) {
    let set = server.send(Method::PATCH, ASK, PREFILL, Some(&json!({"status": state}))).await;
    assert_eq!(set.status, StatusCode::OK);
}

async fn shown(server: &Server, path: &str) -> Value {
    server.send(Method::GET, path, ADMIN, None).await.json()
}

async fn entry(server: &Server) -> Subscription {
    let name: SubscriptionName = "mail".parse().unwrap();
    server.broker.registry().subscription(&name).await.unwrap().unwrap().value
}

/// As a controller or a worker does.
async fn record(server: &Server, state: PrefillState, reason: Option<Reason>) {
    let s = entry(server).await;
    let change = |s: &Subscription| s.with_prefill_state(state, reason, None, s.created.clone());
    server.broker.registry().modify(&s.name, s.incarnation, change).await.unwrap();
}

/// A resync whose attempt has ended, held.
async fn held(server: &Server) -> u32 {
    register(server, &json!({"track": true})).await;
    ask(server, Some(json!({"mode": "resync"}))).await;
    let PrefillTask { subscription, incarnation, round, attempt, .. } = PrefillTask::of(&entry(server).await);
    let queue = server.broker.queue(&subscription, incarnation);
    let Claimed::Holder(mut fence) = queue.claim_fence(round, attempt, "pod").await.unwrap() else {
        panic!()
    };
    let removal = json!({"publisher_name": "udm-pre-fill", "ts": "2026-01-01T00:00:00", "realm": "udm",
                         "topic": "users/user", "body": {"old": {"dn": "uid=a", "objectType": "users/user"}, "new": {}}});
    fence.write(1, &[removal.to_string().into()]).await.unwrap();
    let removals = RemovalsByType::from([("users/user".to_owned(), Removals { known: 50, removed: 50 })]);
    fence.hold(Counts { messages: 1, removed: 1, removals, ..Counts::default() }, vec![]).await.unwrap();
    record(server, PrefillState::Failed, Some(Reason::TooManyRemovals)).await;
    attempt
}

const APPROVE: &str = "/v1/subscriptions/mail/prefill/approve";

async fn next(server: &Server) -> Value {
    server.send(Method::GET, &format!("{PATH}/messages/next?timeout=0"), ("mail", "pw"), None).await.json()
}

#[tokio::test]
async fn what_is_held_is_read_when_an_administrator_has_approved_that_attempt() {
    let server = Server::start().await;
    let attempt = held(&server).await;
    let seen = shown(&server, ASK).await;
    assert_eq!((&seen["state"], &seen["reason"]), (&json!("failed"), &json!("TooManyRemovals")));
    assert_eq!(seen["removals"], json!({"users/user": {"known": 50, "removed": 50}}));
    let approve = async |who, body: Value| server.send(Method::POST, APPROVE, who, Some(&body)).await.status;
    assert_eq!(approve(("mail", "pw"), json!({})).await, StatusCode::UNAUTHORIZED);
    assert_eq!(approve(ADMIN, json!({"attempt": attempt + 1})).await, StatusCode::CONFLICT);
    assert_eq!(approve(ADMIN, json!({"attempts": 1})).await, StatusCode::UNPROCESSABLE_ENTITY);
    for state in ["done", "running"] {
        server.send(Method::PATCH, ASK, PREFILL, Some(&json!({"status": state}))).await;
        assert_eq!(next(&server).await, Value::Null, "{state}");
    }
    assert_eq!(approve(ADMIN, json!({"attempt": attempt})).await, StatusCode::ACCEPTED);
    assert_eq!(next(&server).await["body"]["old"]["dn"], "uid=a");
    assert_eq!(approve(ADMIN, json!({})).await, StatusCode::OK);
    let seen = shown(&server, ASK).await;
    assert_eq!((&seen["state"], &seen["attempts"][0]["objects"]), (&json!("done"), &json!(1)));
}

#[tokio::test]
async fn what_is_held_may_be_cancelled_and_is_never_approved_then() {
    let server = Server::start().await;
    held(&server).await;
    for _ in 0..2 {
        let cancelled = server.send(Method::DELETE, ASK, ("mail", "pw"), None).await;
        assert_eq!((cancelled.status, &cancelled.json()["reason"]), (StatusCode::OK, &json!("Cancelled")));
    }
    let refused = server.send(Method::POST, APPROVE, ADMIN, None).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(next(&server).await, Value::Null);
    // What is not held, and never was.
    ask(&server, None).await;
    for state in [PrefillState::Running, PrefillState::Done] {
        record(&server, state, None).await;
        let refused = server.send(Method::POST, APPROVE, ADMIN, None).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{state:?}");
    }
}

#[tokio::test]
async fn a_run_that_only_counts_follows_what_is_done_and_read() {
    let server = Server::start().await;
    register(&server, &json!({"track": true, "max_removals": {"objects": 5}})).await;
    let other = register(&server, &json!({"track": true, "max_removals": 7})).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert!(other.text.contains("max_removals"), "{}", other.text);
    assert_eq!(shown(&server, PATH).await["max_removals"], json!({"percent": 20, "objects": 5}));
    let dry = || Some(json!({"dry_run": true}));
    let counting = ask(&server, dry()).await;
    let seen = counting.json();
    assert_eq!((&seen["dry_run"], &seen["mode"]), (&json!(true), &json!("resync")));
    assert_eq!(ask(&server, dry()).await.status, StatusCode::OK);
    // One is under way.
    for other in [json!({"mode": "resync"}), json!({"dry_run": true, "max_removals": 3})] {
        assert_eq!(ask(&server, Some(other.clone())).await.status, StatusCode::CONFLICT, "{other}");
    }
    record(&server, PrefillState::Failed, Some(Reason::SourceUnavailable)).await;
    assert_eq!(ask(&server, dry()).await.json()["round"], 2);
    record(&server, PrefillState::Done, None).await;
    let real = ask(&server, Some(json!({"mode": "resync", "max_removals": 3}))).await.json();
    assert_eq!((&real["dry_run"], &real["max_removals"]), (&json!(false), &json!(3)));
    record(&server, PrefillState::Failed, Some(Reason::SourceUnavailable)).await;
    let refused = ask(&server, dry()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text.contains("has failed"), "{}", refused.text);
}

#[tokio::test]
async fn tracking_is_decided_at_the_registration() {
    let server = Server::start().await;
    assert_eq!(
        register(&server, &json!({"track": "perhaps"})).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(register(&server, &json!({"track": true})).await.status, StatusCode::CREATED);
    assert_eq!(register(&server, &json!({"track": true})).await.status, StatusCode::OK);
    for other in [json!({}), json!({"track": false})] {
        let refused = register(&server, &other).await;
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert!(refused.text.contains("track"), "{}", refused.text);
    }
    assert_eq!(shown(&server, PATH).await["track"], true);
    let changed = server.send(Method::PATCH, PATH, ADMIN, Some(&json!({"track": false}))).await;
    assert_eq!(changed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(changed.json()["errors"][0]["loc"], json!(["body", "track"]));
    assert!(changed.text.contains("register it again"), "{}", changed.text);
    assert!(entry(&server).await.marker().track);
}

#[tokio::test]
async fn who_is_not_tracked_can_not_be_resynced_and_sees_nothing_of_it() {
    let server = Server::start().await;
    assert_eq!(register(&server, &json!({})).await.status, StatusCode::CREATED);
    assert_eq!(register(&server, &json!({"track": false})).await.status, StatusCode::OK);
    let other = register(&server, &json!({"track": true})).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert!(other.text.contains("track"), "{}", other.text);
    assert_eq!(shown(&server, PATH).await.get("track"), None);
    let refused = ask(&server, Some(json!({"mode": "resync"}))).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.text.contains("track: true"), "{}", refused.text);
    assert_eq!(entry(&server).await.prefill.round, 0);
    assert_eq!(ask(&server, Some(json!({"mode": "prefill"}))).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn modes_that_are_none_are_named() {
    let server = Server::start().await;
    register(&server, &json!({"track": true})).await;
    for (bad, place) in [
        (json!({"mode": "all"}), json!(["body", "mode"])),
        (json!({"mode": "resync", "force": true}), json!(["body", "force"])),
        (json!([]), json!(["body"])),
    ] {
        let refused = ask(&server, Some(bad.clone())).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        assert_eq!(refused.json()["errors"][0]["loc"], place, "{bad}");
    }
    assert_eq!(entry(&server).await.prefill.round, 0);
}

#[tokio::test]
async fn a_resync_is_a_round_of_its_own_and_stays_one_until_it_has_succeeded() {
    let server = Server::start().await;
    register(&server, &json!({"track": true})).await;
    let resync = || Some(json!({"mode": "resync"}));
    let asked = ask(&server, resync()).await;
    assert_eq!((asked.status, &asked.json()["mode"]), (StatusCode::ACCEPTED, &json!("resync")));
    let task = PrefillTask::of(&entry(&server).await);
    assert_eq!((task.mode, task.track, task.round), (PrefillMode::Resync, true, 1));
    assert!(server.broker.tasks().contains(&task).await.unwrap());
    // Once more, in the same words or in none.
    for state in ["pending", "running"] {
        set(&server, state).await;
        for (body, status) in [
            (resync(), StatusCode::OK),
            (None, StatusCode::OK),
            (Some(json!({})), StatusCode::OK),
            (Some(json!({"mode": "prefill"})), StatusCode::CONFLICT),
        ] {
            assert_eq!(ask(&server, body.clone()).await.status, status, "{state} {body:?}");
        }
        let seen = shown(&server, ASK).await;
        assert_eq!(
            (&seen["state"], &seen["mode"], &seen["attempt"]),
            (&json!(state), &json!("resync"), &json!(1))
        );
    }
    set(&server, "failed").await;
    let again = ask(&server, None).await;
    let seen = again.json();
    assert_eq!(
        (again.status, &seen["mode"], &seen["round"]),
        (StatusCode::ACCEPTED, &json!("resync"), &json!(1))
    );
    // Somebody does without.
    set(&server, "failed").await;
    assert_eq!(ask(&server, Some(json!({"mode": "prefill"}))).await.json()["mode"], "prefill");
    assert_eq!(ask(&server, resync()).await.status, StatusCode::CONFLICT);
    set(&server, "done").await;
    assert_eq!(ask(&server, resync()).await.json()["round"], 2);
    // A state that is set by request knows nothing of resyncs: it would show removals that were not compared.
    let refused = server.send(Method::PATCH, ASK, PREFILL, Some(&json!({"status": "done"}))).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    record(&server, PrefillState::Done, None).await;
    let seen = ask(&server, None).await.json();
    assert_eq!((&seen["mode"], &seen["round"]), (&json!("prefill"), &json!(3)));
    assert_eq!(shown(&server, ASK).await["mode"], "prefill");
}

#[tokio::test]
async fn the_progress_tells_how_many_removals_were_told() {
    let server = Server::start().await;
    register(&server, &json!({"track": true})).await;
    ask(&server, Some(json!({"mode": "resync"}))).await;
    assert_eq!(shown(&server, ASK).await["progress"], Value::Null);
    let s = entry(&server).await;
    let progress = Progress {
        done: 5,
        total: Some(5),
        removed: 3,
        rate: 1.0,
        ..Progress::new(s.incarnation, s.prefill.attempt, Phase::Sealing)
    };
    for removed in [3, 0] {
        server.broker.progress().put(&s.name, &Progress { removed, ..progress.clone() }).await.unwrap();
        assert_eq!(shown(&server, ASK).await["progress"]["removed"], removed);
    }
}
