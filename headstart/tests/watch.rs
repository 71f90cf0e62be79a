//! `headstart watch` beside a real `headstart standalone`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use reqwest::StatusCode;
use support::{Standalone, headstart};

fn watch(server: &Standalone, name: &str) -> Command {
    let mut command = headstart(&["watch", name, "--api", &server.url("")]);
    command.env("SUBSCRIPTION_PASSWORD", "pw").env("NO_PROXY", "127.0.0.1");
    command
}

async fn ended(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Ends what a failed test leaves behind.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_the_prefill_and_waits_for_an_api_that_is_away() {
    let mut server = Standalone::start(3, 40).await;
    assert_eq!(server.register("mail", &["groups/group", "users/.*"], true).await, StatusCode::CREATED);
    let (code, text) = ended(watch(&server, "mail")).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("mail: done: 43 ("), "{text}");

    server.kill();
    let mut child =
        Killed(watch(&server, "mail").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.contains("waiting for the API"), "{first}");
    server.restart().await;
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("mail: done"), "{rest}");
    assert_eq!(child.0.wait().unwrap().code(), Some(0));

    let (code, text) = ended({
        let mut command = watch(&server, "mail");
        command.env("SUBSCRIPTION_PASSWORD", "wrong");
        command
    })
    .await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("error: ") && text.contains("SUBSCRIPTION_PASSWORD"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefill_that_fails_ends_it_with_one() {
    let server = Standalone::start(0, 1).await;
    std::fs::write(server.folder.path().join("directory.jsonl"), "this is no object\n").unwrap();
    assert_eq!(server.register("mail", &["users/user"], true).await, StatusCode::CREATED);
    let mut command = watch(&server, "mail");
    command.env_remove("SUBSCRIPTION_PASSWORD").env("ADMIN_PASSWORD", "admin-secret");
    let (code, text) = ended(command).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("attempt 1 has failed") && text.contains("line 1"), "{text}");
    let mut unknown = headstart(&["watch", "nobody", "--api", "no-url", "--password", "x"]);
    let output = unknown.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--api"), "{output:?}");
    assert_eq!(output.status.code(), Some(2));
}
