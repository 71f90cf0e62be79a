//! The API over a real socket and a real nats-server: the wire contract, status by status.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use broker::testing::eventually;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{ADMIN, EVENTS, PREFILL, Server, registration};

#[tokio::test]
async fn a_subscription_lives_by_the_contract() {
    let server = Server::start().await;
    let body = registration("mail", &["users/user"], false);
    let created = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
    assert_eq!((created.status, created.text.as_str()), (StatusCode::CREATED, "null"));
    assert_eq!(created.header("content-type"), "application/json");
    assert_eq!(created.header("content-length"), "4");
    let again = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
    assert_eq!((again.status, again.text.as_str()), (StatusCode::OK, "null"));
    for (field, value) in [
        ("request_prefill", json!(true)),
        ("password", json!("other")),
        ("realms_topics", json!([{"realm": "udm", "topic": "groups/group"}])),
    ] {
        let mut other = body.clone();
        other[field] = value;
        let refused = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&other)).await;
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert!(refused.json()["detail"].as_str().unwrap().contains(field), "{}", refused.text);
    }
    let mail = ("mail", "pw");
    let shown = server.send(Method::GET, "/v1/subscriptions/mail", mail, None).await;
    assert_eq!(shown.status, StatusCode::OK);
    let first = r#"{"name":"mail","realms_topics":[{"realm":"udm","topic":"users/user"}],"request_prefill":false,"prefill_queue_status":"done""#;
    assert!(shown.text.starts_with(first), "{}", shown.text);
    let list = server.send(Method::GET, "/v1/subscriptions", ADMIN, None).await.json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["name"], "mail");
    let removed = server.send(Method::DELETE, "/v1/subscriptions/mail", mail, None).await;
    assert_eq!((removed.status, removed.text.as_str()), (StatusCode::OK, "null"));
    let gone = server.send(Method::DELETE, "/v1/subscriptions/mail", mail, None).await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
    let gone = server.send(Method::DELETE, "/v1/subscriptions/mail", ADMIN, None).await;
    assert_eq!(gone.json()["detail"], json!("Subscription not found: 'mail'"));
    assert_eq!(server.send(Method::GET, "/v1/subscriptions", ADMIN, None).await.text, "[]");
}

#[tokio::test]
async fn events_go_in_and_come_out_with_their_bytes() {
    let server = Server::start().await;
    server.register("mail", &["users/.*"], false).await;
    let event = r#"{"publisher_name":"udm-listener","ts":"2024-02-07T09:01:33.835Z","realm":"udm","topic":"users/user","body":{"old":{},"new":{"z":-0.0,"objectType":"users/user","a":123456789012345678901234567890,"u":"ü"}},"unknown":1}"#;
    let sent = server.raw(Method::POST, "/v1/messages", EVENTS, "application/json", event).await;
    assert_eq!((sent.status, sent.text.as_str()), (StatusCode::ACCEPTED, "null"));
    let mail = ("mail", "pw");
    let path = "/v1/subscriptions/mail/messages/next?timeout=10";
    let got = server.send(Method::GET, path, mail, None).await;
    assert_eq!(got.status, StatusCode::OK);
    let sequence = got.json()["sequence_number"].as_u64().unwrap();
    let expected = format!(
        r#"{{"publisher_name":"udm-listener","ts":"2024-02-07T09:01:33.835000+00:00","realm":"udm","topic":"users/user","body":{{"old":{{}},"new":{{"z":-0.0,"objectType":"users/user","a":123456789012345678901234567890,"u":"ü"}}}},"sequence_number":{sequence},"num_delivered":1}}"#
    );
    assert_eq!(got.text, expected);
    let ack = format!("/v1/subscriptions/mail/messages/{sequence}/status");
    let wrong = server.send(Method::PATCH, &ack, mail, Some(&json!({"status": "no"}))).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let acked = server.send(Method::PATCH, &ack, mail, Some(&json!({"status": "ok"}))).await;
    assert_eq!((acked.status, acked.text.as_str()), (StatusCode::OK, "null"));
    let twice = server.send(Method::PATCH, &ack, mail, Some(&json!({"status": "ok"}))).await;
    assert_eq!((twice.status, &twice.json()["code"]), (StatusCode::NOT_FOUND, &json!("no_message")));
    let empty = server.send(Method::GET, "/v1/subscriptions/mail/messages/next?timeout=0", mail, None).await;
    assert_eq!((empty.status, empty.text.as_str()), (StatusCode::OK, "null"));
}

#[tokio::test]
async fn a_poll_is_held_for_its_whole_time_and_wakes_at_once() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let mail = ("mail", "pw");
    let began = Instant::now();
    let path = "/v1/subscriptions/mail/messages/next?timeout=1.5";
    assert_eq!(server.send(Method::GET, path, mail, None).await.text, "null");
    assert!(began.elapsed() >= Duration::from_millis(1500), "an early answer makes clients spin");
    let began = Instant::now();
    let poll = server.send(Method::GET, "/v1/subscriptions/mail/messages/next?timeout=30", mail, None);
    let event = support::event("users/user", "1");
    let (got, _) = tokio::join!(poll, server.send(Method::POST, "/v1/messages", EVENTS, Some(&event)));
    assert_eq!(got.json()["body"]["new"]["id"], "1");
    assert!(began.elapsed() < Duration::from_secs(15), "it waited for its time-out");
}

#[tokio::test]
async fn a_failed_prefill_is_visible() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], true).await;
    let (mail, path) = (("mail", "pw"), "/v1/subscriptions/mail/prefill");
    for state in ["running", "pending", "failed"] {
        let set = server.send(Method::PATCH, path, PREFILL, Some(&json!({"status": state}))).await;
        assert_eq!((set.status, set.text.as_str()), (StatusCode::OK, "null"));
        let shown = server.send(Method::GET, "/v1/subscriptions/mail", mail, None).await.json();
        assert_eq!(
            (&shown["prefill_queue_status"], &shown["prefill"]["state"]),
            (&json!(state), &json!(state))
        );
    }
    let polled =
        async || server.send(Method::GET, "/v1/subscriptions/mail/messages/next?timeout=0", mail, None).await;
    let told = broker::testing::eventually("the header", Duration::from_secs(20), polled, |answer| {
        !answer.header("prefill-status").is_empty()
    })
    .await;
    assert_eq!(
        (told.text.as_str(), told.header("prefill-status")),
        ("null", "failed; reason=\"SetByRequest\"")
    );
    for bad in [json!({"status": "ok"}), json!({}), json!([])] {
        let refused = server.send(Method::PATCH, path, PREFILL, Some(&bad)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
    let unknown = server
        .send(Method::PATCH, "/v1/subscriptions/x/prefill", PREFILL, Some(&json!({"status": "done"})))
        .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_may_not_gets_401() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    server.register("chat", &["users/user"], false).await;
    let (mail, wrong) = (("mail", "pw"), ("mail", "wrong"));
    let next = "/v1/subscriptions/mail/messages/next?timeout=0";
    for (method, path, login, detail) in [
        (Method::GET, "/v1/subscriptions", mail, "Incorrect username or password"),
        (Method::GET, "/v1/subscriptions", ("admin", ""), "Incorrect username or password"),
        (Method::POST, "/v1/messages", ADMIN, "Incorrect username or password"),
        (Method::GET, next, wrong, "Incorrect username or password"),
        (Method::GET, next, ("chat", "pw"), "You do not have access to this data"),
        (Method::GET, next, ADMIN, "You do not have access to this data"),
        (Method::GET, "/v1/subscriptions/unknown", ("unknown", "pw"), "Incorrect username or password"),
        (Method::GET, "/v1/subscriptions/a.b", ("a.b", "pw"), "Incorrect username or password"),
        (Method::PATCH, "/v1/subscriptions/mail/prefill", ADMIN, "Incorrect username or password"),
        (Method::DELETE, "/v1/subscriptions/mail", ("chat", "pw"), "You do not have access to this data"),
        // The query of somebody who is not let in is not looked at.
        (Method::GET, "/v1/subscriptions/mail/messages?limit=x", wrong, "Incorrect username or password"),
    ] {
        let answer = server.send(method.clone(), path, login, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), "Basic");
        assert_eq!(answer.json()["detail"], json!(detail), "{method} {path}");
    }
    // What the installers' script waits for.
    let empty = server.client.post(server.url("/v1/subscriptions")).send().await.unwrap();
    assert_eq!(empty.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(empty.json::<Value>().await.unwrap()["detail"], "Not authenticated");
    // Read is not reserved: an admin may look at any subscription.
    assert_eq!(server.send(Method::GET, "/v1/subscriptions/mail", ADMIN, None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn bad_input_is_422_names_the_field_and_leaves_nothing() {
    let server = Server::start().await;
    let good = registration("mail", &["users/user"], false);
    for (change, loc) in [
        (json!({"name": "a.b"}), json!(["body", "name"])),
        (json!({"name": "incoming"}), json!(["body", "name"])),
        (json!({"name": "x".repeat(300)}), json!(["body", "name"])),
        (
            json!({"realms_topics": [{"realm": "udm", "topic": "("}]}),
            json!(["body", "realms_topics", 0, "topic"]),
        ),
        (
            json!({"realms_topics": [{"realm": "", "topic": "users/user"}]}),
            json!(["body", "realms_topics", 0, "realm"]),
        ),
        (json!({"password": "hunter2\0"}), json!(["body", "password"])),
        (json!({"request_prefill": "hunter2"}), json!(["body", "request_prefill"])),
    ] {
        let mut bad = good.clone();
        for (key, value) in change.as_object().unwrap() {
            bad[key] = value.clone();
        }
        let refused = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&bad)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{change}");
        let told = refused.json();
        assert_eq!((&told["status_code"], &told["data"]), (&json!(422), &Value::Null));
        assert_eq!(told["errors"][0]["loc"], loc, "{change}");
        assert!(!refused.text.contains("hunter2"), "the input is echoed: {}", refused.text);
    }
    assert_eq!(server.broker.registry().list().await.unwrap().entries, []);
    let text = good.to_string();
    for (content_type, body, status) in [
        ("text/plain", text.as_str(), 422),
        ("application/json", "{", 422),
        ("application/json", "[]", 422),
        ("application/json", "", 422),
        ("application/vnd.x+json; charset=utf-8", text.as_str(), 201),
    ] {
        let answer = server.raw(Method::POST, "/v1/subscriptions", ADMIN, content_type, body).await;
        assert_eq!(answer.status.as_u16(), status, "{content_type} {body}");
    }
    // Topics are the admin's: those of somebody else are not even looked at.
    let topics = json!({"realms_topics": [{"realm": "udm", "topic": "("}]});
    for (login, status) in [(ADMIN, 422), (("mail", "pw"), 401)] {
        let answer = server.send(Method::PATCH, "/v1/subscriptions/mail", login, Some(&topics)).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        let own = answer.json()["detail"] == "You do not have access to this data";
        assert_eq!(own, status == 401);
    }
    // Broken JSON is refused before any look at the credentials.
    let broken = server.raw(Method::POST, "/v1/subscriptions", ("x", "y"), "application/json", "{").await;
    assert_eq!(broken.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mail = ("mail", "pw");
    for path in ["next?timeout=nan", "next?timeout=", "next?pop=maybe"] {
        let path = format!("/v1/subscriptions/mail/messages/{path}");
        assert_eq!(server.send(Method::GET, &path, mail, None).await.status.as_u16(), 422, "{path}");
    }
    for sequence in ["0", "-1", "x", "99999999999999999999"] {
        let path = format!("/v1/subscriptions/mail/messages/{sequence}/status");
        let answer = server.send(Method::PATCH, &path, mail, Some(&json!({"status": "ok"}))).await;
        assert_eq!(answer.status.as_u16(), 422, "{path}");
    }
    for (change, loc) in [
        (json!({"publisher_name": "me"}), json!(["body", "publisher_name"])),
        (json!({"ts": "yesterday"}), json!(["body", "ts"])),
        (json!({"topic": 5}), json!(["body", "topic"])),
        (json!({"body": {"old": null, "new": {"objectType": "x"}}}), json!(["body", "body", "old"])),
        (json!({"body": {"old": {}, "new": {}}}), json!(["body", "body"])),
        (json!({"body": {"old": {}, "new": {"dn": "x"}}}), json!(["body", "body"])),
    ] {
        let mut bad = support::event("users/user", "1");
        for (key, value) in change.as_object().unwrap() {
            bad[key] = value.clone();
        }
        let refused = server.send(Method::POST, "/v1/messages", EVENTS, Some(&bad)).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{change}");
        assert_eq!(refused.json()["errors"][0]["loc"], loc, "{change}");
    }
}

#[tokio::test]
async fn an_event_larger_than_nats_carries_is_a_dead_letter_and_any_other_body_413() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let mut event = support::event("users/user", "1");
    event["body"]["new"]["photo"] = json!("x".repeat(5 << 20));
    let sent = server.publish(&event).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.text);
    let path = "/v1/subscriptions/mail/messages/next?timeout=10";
    let got = server.send(Method::GET, path, ("mail", "pw"), None).await.json();
    assert_eq!(got["body"]["new"]["photo"].as_str().unwrap().len(), 5 << 20);
    let stranger = server.send(Method::POST, "/v1/messages", ("udm", "wrong"), Some(&event)).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED, "large ones are read of those who may send them");
    let broken = server.raw(Method::POST, "/v1/messages", ("udm", "wrong"), "application/json", "{").await;
    assert_eq!(broken.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(server.register("groups", &["groups/group"], false).await, StatusCode::CREATED);
    // NATS of the tests carries 8 MB.
    event["body"]["new"]["photo"] = json!("x".repeat(9 << 20));
    let sent = server.publish(&event).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "its producer could only send it for ever: {}", sent.text);
    // Of what is larger still only the beginning is kept.
    let text = event["body"].to_string();
    let huge = format!(
        r#"{{"publisher_name":"udm-listener","ts":"2026-01-31T12:00:00Z","realm":"udm","topic":"users/user","body":{text},"pad":"{}"}}"#,
        "x".repeat(40 << 20)
    );
    let post = async || server.raw(Method::POST, "/v1/messages", EVENTS, "application/json", &huge).await;
    let in_time = |sent: &support::Answer| sent.status != StatusCode::SERVICE_UNAVAILABLE;
    let sent = eventually("the event in time", Duration::from_secs(60), post, in_time).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.text);
    let letters =
        async || server.send(Method::GET, "/v1/subscriptions/mail/dead-letters", ADMIN, None).await.json();
    let both = |letters: &serde_json::Value| letters.as_array().is_some_and(|letters| letters.len() == 2);
    let letters = eventually("two dead letters", Duration::from_secs(20), letters, both).await;
    for (letter, size) in [(&letters[0], 9 << 20), (&letters[1], huge.len() as u64)] {
        assert_eq!(
            (&letter["topic"], &letter["reason"]),
            (&json!("users/user"), &json!("TooLarge")),
            "{letter}"
        );
        assert!(letter["size"].as_u64().unwrap() >= size, "{letter}");
    }
    let none = server.send(Method::GET, "/v1/subscriptions/groups/dead-letters", ADMIN, None).await;
    assert_eq!(none.json(), json!([]));
    let mut huge = registration("huge", &["users/user"], false);
    huge["padding"] = json!("x".repeat(2 << 20));
    let refused = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&huge)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn paths_methods_and_headers() {
    let server = Server::start().await;
    let redirected = server.raw(Method::GET, "/v1/subscriptions/?x=1", ("a", "b"), "", "").await;
    assert_eq!(redirected.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(redirected.header("location"), "/v1/subscriptions?x=1");
    for (method, path, status, detail) in [
        (Method::GET, "/nothing", 404, "Not Found"),
        (Method::GET, "/v1/subscriptions/a%2Fb", 404, "Not Found"),
        (Method::GET, "/v1/subscriptions/%FF", 404, "Not Found"),
        (Method::GET, "/v1/subscriptions/a/b", 404, "Not Found"),
        (Method::GET, "/", 404, "Not Found"),
        (Method::PUT, "/v1/subscriptions", 405, "Method Not Allowed"),
        (Method::POST, "/v1/subscriptions/x/messages/next", 405, "Method Not Allowed"),
    ] {
        let answer = server.raw(method.clone(), path, ("a", "b"), "", "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["detail"]),
            (status, &json!(detail)),
            "{method} {path}"
        );
    }
    for method in [Method::HEAD, Method::OPTIONS] {
        assert_eq!(server.raw(method, "/v1/subscriptions", ADMIN, "", "").await.status.as_u16(), 405);
    }
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"] {
        let head = server.raw(Method::HEAD, path, ("", ""), "", "").await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""), "{path}");
        let refused = server.raw(Method::POST, path, ("", ""), "", "").await;
        assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, HEAD"), "{path}");
    }
    // Under the root path, too.
    let shown = server.send(Method::GET, "/univention/provisioning/v1/subscriptions", ADMIN, None).await;
    assert_eq!(shown.status, StatusCode::OK);
    let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let request = server.client.get(server.url("/healthz")).header("x-request-id", id);
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], id);
    let request = server.client.get(server.url("/healthz")).header("x-request-id", "no uuid");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"].len(), 32);
    for path in ["/readyz", "/metrics", "/docs", "/openapi.json"] {
        assert_eq!(
            server.client.get(server.url(path)).send().await.unwrap().status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_description_is_true() {
    let server = Server::start().await;
    let document = server.send(Method::GET, "/openapi.json", ADMIN, None).await.json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let asked = path.replace("{name}", "nobody").replace("{seq_num}", "1").replace("{id}", "1");
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = server.client.request(method.clone(), server.url(&asked));
            let body = operation.get("requestBody").map_or(json!(null), |_| json!({}));
            let answer = support::described(&method, &asked, support::answer(request.json(&body)).await);
            if operation["security"] == json!([]) {
                assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
            } else {
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
                assert_eq!(answer.json()["detail"], json!("Not authenticated"));
            }
        }
        // The router knows these methods and no other.
        let refused = server.raw(Method::PUT, &asked, ADMIN, "", "").await;
        let allowed: Vec<String> = refused.header("allow").split(", ").map(str::to_lowercase).collect();
        let mut described: Vec<&str> = methods.as_object().unwrap().keys().map(String::as_str).collect();
        described.sort_unstable();
        let mut served: Vec<&str> = allowed.iter().map(String::as_str).collect();
        served.sort_unstable();
        assert_eq!(served, described, "{path}");
    }
    let text = document.to_string();
    for (at, _) in text.match_indices("#/components/schemas/") {
        let name: String = text[at..]
            .trim_start_matches("#/components/schemas/")
            .chars()
            .take_while(|c| *c != '"')
            .collect();
        assert!(document["components"]["schemas"].get(&name).is_some(), "{name} is not described");
    }
}

#[tokio::test]
async fn trouble_behind_us_is_503_and_passes() {
    let mut server = Server::start().await;
    for name in ["mail", "chat"] {
        server.register(name, &["users/user"], false).await;
    }
    let known = server.send(Method::GET, "/v1/subscriptions/mail/messages?timeout=0", ("mail", "pw"), None);
    assert_eq!(known.await.status, StatusCode::OK);
    server.nats.kill();
    // Consumers end at a 503, so they are held until it is back, also those that this replica has not seen before.
    let polls =
        [("mail", "messages/next?timeout=0"), ("mail", "messages?timeout=0"), ("chat", "messages/next")];
    let polls = polls.map(|(name, path)| {
        let request = server.client.get(server.url(&format!("/v1/subscriptions/{name}/{path}")));
        tokio::spawn(support::answer(request.basic_auth(name, Some("pw"))))
    });
    let event = support::event("users/user", "1");
    let away = server.send(Method::POST, "/v1/messages", EVENTS, Some(&event)).await;
    assert_eq!((away.status, away.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    let refused = server.send(Method::POST, "/v1/messages", ("udm", "wrong"), Some(&event)).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(polls.iter().all(|poll| !poll.is_finished()));
    server.nats.restart().await;
    for poll in polls {
        let answer = poll.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let send = async || server.send(Method::POST, "/v1/messages", EVENTS, Some(&event)).await.status;
    broker::testing::eventually("NATS to be back", Duration::from_secs(30), send, |s| {
        *s == StatusCode::ACCEPTED
    })
    .await;
    let path = "/v1/subscriptions/mail/messages/next?timeout=20";
    let got = server.send(Method::GET, path, ("mail", "pw"), None).await;
    assert_eq!(got.json()["body"]["new"]["id"], "1");
}

#[tokio::test]
async fn a_lost_queue_is_told_and_never_repaired_in_silence() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let entry = server.broker.registry().subscription(&"mail".parse().unwrap()).await.unwrap().unwrap();
    server.delete_stream(&format!("stream:mail:{}", entry.value.incarnation.short())).await;
    let next = server
        .send(Method::GET, "/v1/subscriptions/mail/messages/next?timeout=0", ("mail", "pw"), None)
        .await;
    assert_eq!(next.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(next.json()["detail"], json!("Inconsistent message queue state in NATS"));
    let shown = server.send(Method::GET, "/v1/subscriptions/mail", ("mail", "pw"), None).await.json();
    assert_eq!(
        (&shown["prefill_queue_status"], &shown["prefill"]["state"], &shown["prefill"]["reason"]),
        (&json!("failed"), &json!("failed"), &json!("Broken"))
    );
    let body = registration("mail", &["users/user"], false);
    let again = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(
        server.send(Method::DELETE, "/v1/subscriptions/mail", ADMIN, None).await.status,
        StatusCode::OK
    );
    assert_eq!(server.register("mail", &["users/user"], false).await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_former_bcrypt_hash_still_opens_and_is_replaced() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let former = bcrypt::hash("pw", 4).unwrap();
    server.put_raw("CREDENTIALS", "mail", &former).await;
    assert_eq!(
        server.send(Method::GET, "/v1/subscriptions/mail", ("mail", "pw"), None).await.status,
        StatusCode::OK
    );
    let stored = server.broker.credentials().get(&"mail".parse().unwrap()).await.unwrap().unwrap();
    assert!(stored.hash.starts_with("$argon2id$") && stored.incarnation.is_some());
}

/// The password is remembered under the name for a moment, but is that of the subscription that was removed.
#[tokio::test]
async fn the_password_of_a_removed_subscription_never_opens_its_successor() {
    let server = Server::start().await;
    let path = "/v1/subscriptions/mail";
    server.register("mail", &["users/user"], false).await;
    let show = async |password: &'static str| server.send(Method::GET, path, ("mail", password), None).await;
    assert_eq!(show("pw").await.status, StatusCode::OK);
    assert_eq!(server.send(Method::DELETE, path, ADMIN, None).await.status, StatusCode::OK);
    let mut body = support::registration("mail", &["users/user"], false);
    body["password"] = json!("other");
    let registered = server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
    assert_eq!(registered.status, StatusCode::CREATED);
    // Several times, since the replica hears of the new one a moment later.
    for _ in 0..5 {
        assert_eq!(show("pw").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(show("other").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_changed_password_counts_soon_although_the_old_one_is_remembered() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    let show = async |password: &'static str| {
        server.send(Method::GET, "/v1/subscriptions/mail", ("mail", password), None).await.status
    };
    assert_eq!(show("pw").await, StatusCode::OK);
    server.put_raw("CREDENTIALS", "mail", &bcrypt::hash("new", 4).unwrap()).await;
    let old = async || show("pw").await;
    broker::testing::eventually("the old password to be refused", Duration::from_secs(10), old, |s| {
        *s == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(show("new").await, StatusCode::OK);
}

#[tokio::test]
async fn what_can_not_be_read_hides_nothing_and_can_be_removed() {
    let server = Server::start().await;
    server.register("mail", &["users/user"], false).await;
    for key in ["odd", "no.name"] {
        server.put_raw("SUBSCRIPTIONS", key, r#"{"secret": "inside"}"#).await;
    }
    let list = server.send(Method::GET, "/v1/subscriptions", ADMIN, None).await;
    assert_eq!(list.status, StatusCode::OK);
    assert!(list.text.contains(r#""name":"mail""#) && !list.text.contains("odd"), "{}", list.text);
    let shown = server.send(Method::GET, "/v1/subscriptions/odd", ADMIN, None).await;
    assert_eq!(shown.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        shown.text.contains("DELETE /v1/subscriptions/odd") && !shown.text.contains("inside"),
        "{}",
        shown.text
    );
    let metrics = server.send(Method::GET, "/metrics", ADMIN, None).await;
    assert!(metrics.text.contains("headstart_api_unreadable_entries 2"), "{}", metrics.text);
    let body = serde_json::json!({
        "name": "odd", "realms_topics": [{"realm": "udm", "topic": "users/user"}], "request_prefill": false, "password": "pw",
    });
    let register = async || server.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await.status;
    assert_eq!(register().await, StatusCode::INTERNAL_SERVER_ERROR);
    for key in ["odd", "no.name"] {
        let delete = async |who| {
            server.send(Method::DELETE, &format!("/v1/subscriptions/{key}"), who, None).await.status
        };
        assert_eq!(delete(("mail", "pw")).await, StatusCode::UNAUTHORIZED);
        assert_eq!(delete(ADMIN).await, StatusCode::OK);
        assert_eq!(delete(ADMIN).await, StatusCode::NOT_FOUND);
    }
    assert_eq!(register().await, StatusCode::CREATED);
    let other = server.send(Method::GET, "/v1/subscriptions/mail", ("mail", "pw"), None).await;
    assert_eq!(other.status, StatusCode::OK, "others go on");
}
