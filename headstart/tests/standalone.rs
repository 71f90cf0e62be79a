//! `headstart standalone` as a person or a script uses it: real processes, killed at any time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use support::{SOON, Standalone, headstart};

fn id(message: &serde_json::Value) -> String {
    message["body"]["new"]["id"].as_str().unwrap().to_owned()
}

fn expected(groups: usize, users: usize) -> Vec<String> {
    let groups = (0..groups).map(|n| format!("g{n}"));
    groups.chain((0..users).map(|n| format!("u{n}"))).collect()
}

#[tokio::test]
async fn a_consumer_gets_the_prefill_then_live_events() {
    let mut server = Standalone::start(3, 40).await;
    assert_eq!(server.register("mail", &["groups/group", "users/.*"], true).await, StatusCode::CREATED);
    assert_eq!(server.register("mail", &["groups/group", "users/.*"], true).await, StatusCode::OK);
    assert_eq!(server.register("mail", &["users/.*"], true).await, StatusCode::CONFLICT);
    for n in 0..5 {
        assert!(server.post(n).await);
    }
    let mut got = Vec::new();
    let deadline = Instant::now() + SOON;
    while got.len() < 48 {
        assert!(Instant::now() < deadline, "{got:?}\n{}", server.log());
        let Some(message) = server.next("mail", 5.0).await else { continue };
        let sequence = message["sequence_number"].as_u64().unwrap();
        assert_eq!(message["num_delivered"], 1);
        assert_eq!(server.ack("mail", sequence).await, Some(StatusCode::OK));
        assert_eq!(server.ack("mail", sequence).await, Some(StatusCode::NOT_FOUND));
        got.push(id(&message));
    }
    let live = (0..5).map(|n| format!("live{n}"));
    assert_eq!(got, expected(3, 40).into_iter().chain(live).collect::<Vec<_>>());
    assert_eq!(server.next("mail", 0.1).await, None);
    let admin = ("admin", "admin-secret");
    let removed = server.request(Method::DELETE, "/v1/subscriptions/mail", admin, None).await.unwrap();
    assert_eq!(removed.status(), StatusCode::OK);
    assert_eq!(server.terminate().await, Some(0));
}

#[tokio::test]
async fn killed_at_any_time_it_loses_nothing() {
    let mut server = Standalone::start(5, 300).await;
    // Right after the registration, perhaps before the prefill has begun.
    assert_eq!(server.register("mail", &["groups/group", "users/user"], true).await, StatusCode::CREATED);
    server.restart().await;
    let mut accepted = Vec::new();
    let mut got: Vec<String> = Vec::new();
    let deadline = Instant::now() + 2 * SOON;
    let mut step = 0;
    while got.len() < 305 + accepted.len() || accepted.len() < 30 {
        assert!(Instant::now() < deadline, "{} of {}\n{}", got.len(), 305 + accepted.len(), server.log());
        step += 1;
        if accepted.len() < 30 && step % 5 == 0 {
            let number = step;
            // An event that was not surely accepted may still arrive: only the sure ones are counted.
            if server.post(number).await {
                accepted.push(format!("live{number}"));
            }
        }
        if step % 97 == 0 {
            server.restart().await;
        }
        if step % 61 == 0
            && let Some(pid) = server.nats_pid()
        {
            // Its own nats-server; it may be gone by now.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        let Some(message) = server.next("mail", 1.0).await else { continue };
        let last = got.last().is_some_and(|last| *last == id(&message));
        if !last {
            got.push(id(&message));
        }
        // Not answered: the message may come again, but only as the very next.
        server.ack("mail", message["sequence_number"].as_u64().unwrap()).await;
    }
    let prefill: Vec<String> = got.iter().take(305).cloned().collect();
    assert_eq!(prefill, expected(5, 300));
    let live: Vec<&String> = got[305..].iter().filter(|id| accepted.contains(id)).collect();
    assert_eq!(live, accepted.iter().collect::<Vec<_>>(), "all accepted events, once, in order");
}

#[tokio::test]
async fn it_ends_cleanly_and_leaves_no_nats_server() {
    let mut server = Standalone::start(1, 1).await;
    let pid = server.nats_pid().unwrap();
    // A poll that waits ends with nothing, not with an error.
    assert_eq!(server.register("mail", &["users/user"], false).await, StatusCode::CREATED);
    let client = server.client.clone();
    let poll = client.get(format!("{}?timeout=30", poll_url(&server))).basic_auth("mail", Some("pw")).send();
    let poll = tokio::spawn(poll);
    let waits = async || {
        let text = client.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        text.lines().any(|line| line == "headstart_api_polls_waiting 1")
    };
    broker::testing::eventually("the poll to wait", SOON, waits, |waits| *waits).await;
    assert_eq!(server.terminate().await, Some(0));
    let answer = poll.await.unwrap().unwrap();
    assert_eq!((answer.status(), answer.text().await.unwrap().as_str()), (StatusCode::OK, "null"));
    assert!(rustix::process::test_kill_process(pid).is_err(), "nats-server is still there");
}

fn poll_url(server: &Standalone) -> String {
    server.url("/v1/subscriptions/mail/messages/next")
}

#[tokio::test]
async fn a_killed_process_takes_its_nats_server_with_it_and_a_second_one_is_refused() {
    let mut server = Standalone::start(1, 1).await;
    let second = server.command().output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("--data-dir (DATA_DIR)") || text.contains("--listen, LISTEN"), "{text}");
    let pid = server.nats_pid().unwrap();
    server.kill();
    let deadline = Instant::now() + SOON;
    while rustix::process::test_kill_process(pid).is_ok() {
        assert!(Instant::now() < deadline, "nats-server outlived its parent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn settings_that_are_wrong_or_missing_are_named() {
    for (arguments, code, named) in [
        (&["api"][..], 1, "ADMIN_PASSWORD"),
        (&["api", "--admin-password", "x"], 1, "EVENTS_PASSWORD_UDM_FILE"),
        (&["api", "--admin-password", "x", "--admin-password-file", "y"], 1, "(ADMIN_PASSWORD_FILE)"),
        (
            &["api", "--admin-password-file", "/no/file"],
            1,
            "(ADMIN_PASSWORD_FILE): the password file /no/file",
        ),
        (
            &["worker", "--source", "x", "--nats-user", "a", "--nats-password-file", "/no/file"],
            1,
            "NATS_PASSWORD_FILE",
        ),
        (&["worker", "--source", "x", "--nats-client-cert-file", "c"], 1, "NATS_CLIENT_KEY_FILE"),
        (&["worker", "--source", "x", "--nats-ca-file", "/no/file"], 1, "NATS_CA_FILE"),
        (
            &["prefill", "--source", "http://127.0.0.1:9/", "--udm-password-file", "/no/file"],
            3,
            "UDM_PASSWORD_FILE",
        ),
        (
            &["prefill", "--source", "x", "--nats-user", "a", "--nats-password-file", "/no/file"],
            3,
            "NATS_PASSWORD_FILE",
        ),
        (&["api", "--tls-cert-file", "c"], 2, "TLS_KEY_FILE"),
        (&["api", "--tls-key-file", "k"], 2, "TLS_CERT_FILE"),
        (&["standalone"], 2, "--source"),
        (&["standalone", "--source", "ftp://x", "--data-dir", "/proc/none"], 1, "DATA_DIR"),
        (&["prefill"], 3, "--source"),
        (&["prefill", "--source", "http://127.0.0.1:9/"], 3, "UDM_PASSWORD"),
        (&["worker", "--source", "x", "--max-prefill-attempts", "-2"], 2, "--max-prefill-attempts"),
        (&["controller", "--start-deadline", "0"], 2, "--start-deadline"),
        (&["validate", "--source", "/does/not/exist"], 1, "/does/not/exist"),
        (&["nonsense"], 2, "nonsense"),
    ] {
        let output = headstart(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
}

#[test]
fn help_shows_no_secret() {
    let output = headstart(&["api", "--help"]).env("ADMIN_PASSWORD", "hunter2").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("ADMIN_PASSWORD") && !text.contains("hunter2"),
        "{text}"
    );
}
