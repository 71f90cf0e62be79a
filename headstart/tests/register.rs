//! `headstart register` as an installer's Job uses it: a folder of registrations against a real API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::Instant,
};

use reqwest::Method;
use serde_json::{Value, json};
use stand_in_udm::{Directory, Faults, StandIn};
use support::{SOON, Standalone, headstart};

fn registration(name: &str, topics: &[&str]) -> Value {
    let topics: Vec<Value> = topics.iter().map(|topic| json!({"realm": "udm", "topic": topic})).collect();
    json!({"name": name, "realms_topics": topics, "request_prefill": false})
}

fn write(folder: &Path, file: &str, content: &str) {
    std::fs::write(folder.join(file), content).unwrap();
}

fn command(server: &Standalone, consumers: &Path) -> Command {
    let mut command = headstart(&["register"]);
    command
        .env("WAIT_SECONDS", "60")
        .env("CONSUMERS", consumers)
        .env("API_URL", server.url(""))
        .env("ADMIN_PASSWORD", "admin-secret")
        .stdin(Stdio::null());
    // A proxy would see the passwords: it is not asked, and nobody listens there.
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(variable, "http://127.0.0.1:1");
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    command
}

/// Exit code and log.
fn told(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn consumers_are_registered_left_alone_and_changed() {
    let server = Standalone::start(1, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let mut with_password = registration("portal", &["groups/group"]);
    with_password["password"] = "pw".into();
    write(folder.path(), "portal.json", &with_password.to_string());
    write(folder.path(), "mail.json", &registration("mail", &["users/user"]).to_string());
    write(folder.path(), "mail.password", "pw\n");

    let (code, log) = told(&command(&server, folder.path()).output().unwrap());
    assert_eq!(code, Some(0), "{log}");
    let (code, log) = told(&command(&server, folder.path()).output().unwrap());
    assert!(code == Some(0) && log.contains("registered already"), "{log}");
    assert!(server.post(0).await);

    // Other topics, and another password; one that is no registration keeps nobody back.
    write(folder.path(), "mail.json", &registration("mail", &["users/user", "groups/group"]).to_string());
    write(folder.path(), "a-broken.json", r#"{"name": "broken", "password": "hidden-secret"#);
    write(folder.path(), "new.json", &registration("new", &["users/user"]).to_string());
    write(folder.path(), "new.password", "pw");
    let (code, log) = told(&command(&server, folder.path()).output().unwrap());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("not registered: a-broken.json, mail"), "{log}");
    assert!(log.contains("IF_DIFFERENT") && !log.contains("hidden-secret"), "{log}");
    let seen = server.request(Method::GET, "/v1/subscriptions/new", ("new", "pw"), None).await.unwrap();
    assert_eq!(seen.status(), 200);

    std::fs::remove_file(folder.path().join("a-broken.json")).unwrap();
    let (code, log) = told(&command(&server, folder.path()).env("IF_DIFFERENT", "update").output().unwrap());
    assert_eq!(code, Some(0), "{log}");
    let seen = server.request(Method::GET, "/v1/subscriptions/mail", ("mail", "pw"), None).await.unwrap();
    let seen: Value = seen.json().await.unwrap();
    assert_eq!(seen["realms_topics"].as_array().unwrap().len(), 2, "{seen}");
    // What can't be changed is reported, also beside what is changed.
    let mut narrower = registration("mail", &["users/user"]);
    narrower["selection"] = json!({"properties": {"strip": ["jpegPhoto"]}});
    for _ in 0..2 {
        write(folder.path(), "mail.json", &narrower.to_string());
        let (code, log) =
            told(&command(&server, folder.path()).env("IF_DIFFERENT", "update").output().unwrap());
        assert!(code == Some(1) && log.contains("selection") && !log.contains("has been changed"), "{log}");
    }
    // What was in its queue is still there.
    let message = server.next("mail", 10.0).await.unwrap();
    assert_eq!(message["body"]["new"]["id"], "live0");
}

#[tokio::test]
async fn an_api_that_is_not_there_yet_is_waited_for() {
    let mut server = Standalone::start(1, 1).await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "mail.json", &registration("mail", &["users/user"]).to_string());
    write(folder.path(), "mail.password", "pw");
    server.kill();
    let early =
        command(&server, folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.restart().await;
    let (code, log) = told(&early.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{log}");

    server.kill();
    let (code, log) = told(&command(&server, folder.path()).env("WAIT_SECONDS", "0.1").output().unwrap());
    assert!(code == Some(1) && log.contains("API_URL"), "{log}");
}

// The stand-in has to answer while this waits for a process.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_udm_is_waited_for() {
    const DN: &str = "cn=stack-data-ums.done,cn=data,cn=univention,dc=example,dc=test";
    let server = Standalone::start(1, 1).await;
    let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "mail.json", &registration("mail", &["users/user"]).to_string());
    write(folder.path(), "mail.password", "pw");
    let waiting = |seconds: &str| {
        let mut command = command(&server, folder.path());
        command
            .env("WAIT_FOR_UDM_OBJECT", format!("settings/data/{DN}"))
            .env("WAIT_SECONDS", seconds)
            .env("SOURCE", udm.base_url())
            .env("UDM_PASSWORD", "univention");
        command
    };
    let (code, log) = told(&waiting("0.1").output().unwrap());
    assert!(code == Some(1) && log.contains("stack-data-ums.done") && log.contains("not there"), "{log}");
    let seen = server.request(Method::GET, "/v1/subscriptions/mail", ("mail", "pw"), None).await.unwrap();
    assert_eq!(seen.status(), 401, "nothing was registered before");

    let mut child = waiting("60").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It has asked, and was told that there is none.
    let deadline = Instant::now() + SOON;
    let asked = udm.counters().asked().len();
    while udm.counters().asked().len() == asked {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let object =
        json!({"dn": DN, "objectType": "settings/data", "id": "stack-data-ums.done", "properties": {}});
    udm.directory().put(&object.to_string()).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(ended.success());
    let seen = server.request(Method::GET, "/v1/subscriptions/mail", ("mail", "pw"), None).await.unwrap();
    assert_eq!(seen.status(), 200);
}
