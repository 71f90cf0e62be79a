//! The description of the API against the API: schemathesis asks a running server everything that `/openapi.json`
//! allows and forbids, with all its checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::{Method, StatusCode};
use serde_json::json;
use support::Standalone;

/// Cases that are tried of an operation, beside those that its description implies.
const EXAMPLES: &str = "15";

fn schemathesis() -> PathBuf {
    match std::env::var_os("HEADSTART_SCHEMATHESIS") {
        Some(program) => program.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/schemathesis"),
    }
}

fn run(server: &Standalone, user: &str, operations: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/description");
    let program = schemathesis();
    let mut command = Command::new(&program);
    command
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .args(["run", &server.url("/openapi.json"), "--no-color", "--max-examples", EXAMPLES])
        .args(["--auth", user])
        .args(operations)
        .current_dir(server.folder.path())
        .env("SCHEMATHESIS_HOOKS", folder.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .stdin(Stdio::null());
    let output = command.output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "{} is needed ({error}): `cargo xtask tools` gets it; HEADSTART_SCHEMATHESIS names it",
            program.display()
        )
    });
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{user}: {said}");
    // Nothing was left out because it could not be asked.
    assert!(!said.contains("Authentication failed") && !said.contains("Rate limited"), "{user}: {said}");
}

#[tokio::test]
async fn the_api_takes_and_answers_what_its_description_says() {
    let mut server = Standalone::start(2, 2).await;
    server.kill();
    // Wrong passwords come from one address each, so that none of them is throttled.
    server.settings.push(("TRUSTED_PROXIES", "127.0.0.1"));
    server.restart().await;
    for name in ["shown", "changed", "removed", "read", "streamed", "set"] {
        let topics = ["groups/group", "users/user"];
        assert_eq!(server.register(name, &topics, name != "set").await, StatusCode::CREATED);
    }
    // What a stream sends first has to be there: one without messages would wait for them.
    while server.next("streamed", 1.0).await.is_none() {}
    for (user, operations) in [
        (
            "admin:admin-secret",
            &[
                "--exclude-tag",
                "messages",
                "--exclude-tag",
                "events",
                "--exclude-operation-id",
                "setPrefillState",
            ][..],
        ),
        ("read:pw", &["--include-tag", "messages", "--exclude-operation-id", "streamMessages"]),
        ("streamed:pw", &["--include-operation-id", "streamMessages"]),
        ("udm:events-secret", &["--include-tag", "events"]),
        ("prefill:prefill-secret", &["--include-operation-id", "setPrefillState"]),
        // What a subscription may do that an administrator may, too; but not what takes its password or itself.
        (
            "shown:pw",
            &[
                "--include-path-regex",
                r"^/v1/subscriptions/\{name\}/(prefill|dead-letters)|^/v1/subscriptions/\{name\}$",
                "--exclude-operation-id-regex",
                "^(change|remove)Subscription$|^(setPrefillState|approvePrefill)$",
            ],
        ),
    ] {
        run(&server, user, operations);
    }
    let alive = server.request(Method::GET, "/v1/subscriptions/shown", ("shown", "pw"), None).await.unwrap();
    assert_eq!(alive.status(), StatusCode::OK);
    assert_eq!(alive.json::<serde_json::Value>().await.unwrap()["name"], json!("shown"));
}
