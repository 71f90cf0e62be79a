//! Pausing without Kubernetes, as an operator and a consumer see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::testing::eventually;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Faults, Population, StandIn};
use support::{SOON, Standalone};

const MAIL: (&str, &str) = ("mail", "pw");

async fn prefill(server: &Standalone, (name, password): (&str, &str)) -> Value {
    let path = format!("/v1/subscriptions/{name}/prefill");
    let answer = server.request(Method::GET, &path, (name, password), None).await.unwrap();
    answer.json().await.unwrap()
}

async fn is(server: &Standalone, login: (&str, &str), state: &str) {
    eventually(state, SOON, || prefill(server, login), |shown| shown["state"] == state).await;
}

async fn tell(server: &Standalone, word: &str) {
    let path = format!("/v1/subscriptions/mail/prefill/{word}");
    let answer = server.request(Method::POST, &path, MAIL, None).await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{word}");
}

#[tokio::test]
async fn a_paused_prefill_waits_through_a_power_cut_and_then_comes_whole_and_first() {
    let population = Population { users: 300, groups: 2, photos_per_mille: 0, ..Population::default() };
    // Some seconds with all that UDM is asked for at once.
    let faults = Faults { get_delay_ms: 300, ..Faults::default() };
    let udm = StandIn::start(Directory::generated(population), faults).await.unwrap();
    let mut server = Standalone::with_udm(&udm.base_url()).await;
    assert_eq!(server.register("mail", &["users/user"], true).await, StatusCode::CREATED);
    let progress = async || prefill(&server, MAIL).await["progress"]["done"].as_u64();
    eventually("some are written", SOON, progress, |done| done.is_some_and(|done| done > 0)).await;
    tell(&server, "pause").await;
    let shown = prefill(&server, MAIL).await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("running"), &json!("Paused")));
    let read = || udm.counters().numbers().objects;
    let two_looks = async || {
        let before = read();
        tokio::time::sleep(Duration::from_secs(1)).await;
        (before, read())
    };
    let (before, _) = eventually("it to stop", SOON, two_looks, |(before, after)| before == after).await;

    server.restart().await;
    assert!(server.post(1).await);
    // The only worker works on another one.
    assert_eq!(server.register("chat", &["groups/group"], true).await, StatusCode::CREATED);
    is(&server, ("chat", "pw"), "done").await;
    assert_eq!(read() - before, udm.directory().dns("groups/group").len() as u64);
    let shown = prefill(&server, MAIL).await;
    assert_eq!(
        (&shown["state"], &shown["paused"], &shown["attempt"]),
        (&json!("running"), &json!(true), &json!(1))
    );
    assert_eq!(server.next("mail", 0.2).await, None);

    tell(&server, "resume").await;
    is(&server, MAIL, "done").await;
    let shown = prefill(&server, MAIL).await;
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "nothing has failed: {shown}");
    let mut came = Vec::new();
    while let Some(message) = server.next("mail", 1.0).await {
        let new = &message["body"]["new"];
        came.push(new["dn"].as_str().or(new["id"].as_str()).unwrap().to_owned());
        let acknowledged = server.ack("mail", message["sequence_number"].as_u64().unwrap()).await;
        assert_eq!(acknowledged, Some(StatusCode::OK));
    }
    let mut expected = udm.directory().dns("users/user");
    expected.push("live1".to_owned());
    assert_eq!(came, expected);
}

/// Everybody asks for something else at once, and every word is answered; in the end one word is enough.
#[tokio::test]
async fn whatever_is_asked_at_once_the_prefill_that_is_wanted_last_comes_and_its_task_is_never_lost() {
    let population = Population { users: 40, groups: 0, photos_per_mille: 0, ..Population::default() };
    let faults = Faults { get_delay_ms: 40, ..Faults::default() };
    let udm = StandIn::start(Directory::generated(population), faults).await.unwrap();
    let server = Standalone::with_udm(&udm.base_url()).await;
    assert_eq!(server.register("mail", &["users/user"], true).await, StatusCode::CREATED);
    let words = [
        (Method::POST, "/pause"),
        (Method::POST, "/resume"),
        (Method::POST, "/resume"),
        (Method::DELETE, ""),
        (Method::POST, ""),
    ];
    // Knuth's generator, by its high bits.
    let mut random = 7_u64;
    let mut dice = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let say = async |(method, word): (Method, &str)| {
        let path = format!("/v1/subscriptions/mail/prefill{word}");
        server.request(method, &path, MAIL, None).await.unwrap().status().as_u16()
    };
    let mut word = || words[usize::try_from(dice()).unwrap() % words.len()].clone();
    for _ in 0..150 {
        let three = [word(), word(), word()];
        let [a, b, c] = three.clone().map(&say);
        let (a, b, c) = tokio::join!(a, b, c);
        // 503: others were faster each time.
        assert!(
            [a, b, c].iter().all(|status| [200, 202, 409, 503].contains(status)),
            "{three:?}: {a} {b} {c}"
        );
    }
    // Said only while it is needed: said again, a word would make up for a task that is lost.
    let done = async || {
        let shown = prefill(&server, MAIL).await;
        if shown["state"] == "failed" {
            say((Method::POST, "")).await;
        } else if shown["paused"] == true {
            say((Method::POST, "/resume")).await;
        }
        shown
    };
    eventually("done", SOON, done, |shown| shown["state"] == "done").await;
    assert!(!server.log().contains("was missing and is queued again"), "{}", server.log());
    let mut came = Vec::new();
    while let Some(message) = server.next("mail", 1.0).await {
        came.push(message["body"]["new"]["dn"].as_str().unwrap().to_owned());
        let acknowledged = server.ack("mail", message["sequence_number"].as_u64().unwrap()).await;
        assert_eq!(acknowledged, Some(StatusCode::OK));
    }
    assert_eq!(came, udm.directory().dns("users/user"));
}
