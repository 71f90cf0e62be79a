//! Tracked subscriptions and the modes of a prefill, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use model::{Phase, PrefillMode, PrefillTask, Progress, Subscription, SubscriptionName};
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
    set(&server, "done").await;
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
        incarnation: s.incarnation,
        attempt: s.prefill.attempt,
        phase: Phase::Sealing,
        topic: None,
        done: 5,
        total: Some(5),
        skipped: 0,
        set_aside: 0,
        missing: vec![],
        warnings: vec![],
        not_selected: 0,
        removed: 3,
        rate: 1.0,
        error: None,
    };
    for removed in [3, 0] {
        server.broker.progress().put(&s.name, &Progress { removed, ..progress.clone() }).await.unwrap();
        assert_eq!(shown(&server, ASK).await["progress"]["removed"], removed);
    }
}
