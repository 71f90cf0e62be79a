//! Passwords of the fixed users that change while the API runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use api::RoleCredentials;
use broker::{Secret, testing::eventually};
use reqwest::StatusCode;
use support::{Server, answer, config, replica};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_changed_file_changes_the_password() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    // As Kubernetes mounts a Secret: the file is a link, by way of a link to a folder, which is replaced.
    let (link, file) = (folder.path().join("..data"), folder.path().join("password"));
    let publish = |version: &str, password: &str| {
        let (data, new) = (folder.path().join(version), folder.path().join("..new"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("password"), password).unwrap();
        std::os::unix::fs::symlink(&data, &new).unwrap();
        std::fs::rename(new, &link).unwrap();
    };
    publish("1", "first\n");
    std::os::unix::fs::symlink("..data/password", &file).unwrap();
    let mut config = config(None);
    config.roles.admin = RoleCredentials { username: "admin".into(), password: Secret::file(&file) };
    let shutdown = CancellationToken::new();
    let base = replica(&server.broker, config, shutdown.clone()).await;
    let list = async |password: &str| {
        let request = server.client.get(format!("{base}/v1/subscriptions"));
        answer(request.basic_auth("admin", Some(password))).await.status
    };
    assert_eq!((list("first").await, list("second").await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    publish("2", "second\n");
    let within = Duration::from_secs(20);
    eventually("the new password", within, async || list("second").await, |s| *s == StatusCode::OK).await;
    // 429 after as many tries as it took.
    assert_ne!(list("first").await, StatusCode::OK, "the former password");
    shutdown.cancel();
}

#[tokio::test]
async fn a_password_that_is_not_there_ends_it_at_the_start() {
    let server = Server::start().await;
    let mut config = config(None);
    config.roles.events.password = Secret::file("/no/such/file");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let launcher = api::Launcher::queue(server.broker.tasks());
    let ended = api::run(listener, config, server.broker.clone(), launcher, CancellationToken::new()).await;
    assert!(model::error_chain(&ended.unwrap_err()).contains("/no/such/file"));
}
