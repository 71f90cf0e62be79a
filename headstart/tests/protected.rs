//! Everything protected at once, by the settings that an installation has: TLS on both sides, passwords from files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{path::PathBuf, process::Stdio, time::Duration};

use broker::testing::{NatsServer, eventually, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Faults, Population, StandIn};
use support::{Running, SOON, headstart};
use tempfile::TempDir;

/// What is mounted into a pod.
struct Mounted(TempDir);

impl Mounted {
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `<name>.ca`, `<name>.crt` and `<name>.key`.
    fn issue(&self, name: &str) {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let host = vec!["127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(host).unwrap().signed_by(&key, &issuer).unwrap();
        self.file(&format!("{name}.ca"), &issuer.pem());
        self.file(&format!("{name}.crt"), &certificate.pem());
        self.file(&format!("{name}.key"), &key.serialize_pem());
    }
}

#[tokio::test]
async fn a_consumer_is_served_over_tls_with_passwords_from_files() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mounted = Mounted(tempfile::tempdir().unwrap());
    for name in ["nats", "client", "api"] {
        mounted.issue(name);
    }
    let nats = NatsServer::start_with(&format!(
        "authorization {{ user: headstart, password: \"of-nats\" }}\n\
         tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
        mounted.path("nats.crt"),
        mounted.path("nats.key"),
        mounted.path("client.ca"),
    ))
    .await;
    let population = Population { users: 3, ..Population::default() };
    let udm = StandIn::start(Directory::generated(population), Faults::default()).await.unwrap();
    let port = free_port();
    let log = mounted.file("log", "");
    let mut command = headstart(&["standalone"]);
    command
        .env("LISTEN", format!("127.0.0.1:{port}"))
        .env("DATA_DIR", mounted.path("data"))
        .env("SOURCE", udm.base_url())
        .env("UDM_PASSWORD_FILE", mounted.file("udm", "univention\n"))
        .env("NATS_URL", nats.url().replace("nats://", "tls://"))
        .env("NATS_USER", "headstart")
        .env("NATS_PASSWORD_FILE", mounted.file("nats", "of-nats\n"))
        .env("NATS_CA_FILE", mounted.path("nats.ca"))
        .env("NATS_CLIENT_CERT_FILE", mounted.path("client.crt"))
        .env("NATS_CLIENT_KEY_FILE", mounted.path("client.key"))
        .env("TLS_CERT_FILE", mounted.path("api.crt"))
        .env("TLS_KEY_FILE", mounted.path("api.key"))
        .env("ADMIN_PASSWORD_FILE", mounted.file("admin", "of-admin"))
        .env("EVENTS_PASSWORD_UDM_FILE", mounted.file("events", "of-events"))
        .env("PREFILL_PASSWORD_FILE", mounted.file("prefill", "of-prefill"))
        .env("STREAMS_PER_SUBSCRIPTION", "1")
        .env("POLLS_PER_SUBSCRIPTION", "2")
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap());
    let _running = Running(command.spawn().unwrap());
    let authority = reqwest::Certificate::from_pem(&std::fs::read(mounted.path("api.ca")).unwrap()).unwrap();
    let client = Client::builder().no_proxy().timeout(SOON).tls_certs_only([authority]).build().unwrap();
    let ask = async |method: Method, path: &str, (user, password): (&str, &str), body: Option<Value>| {
        let request = client.request(method, format!("https://127.0.0.1:{port}{path}"));
        let request = request.basic_auth(user, Some(password));
        let request = if let Some(body) = body { request.json(&body) } else { request };
        request.send().await
    };
    let ready = async || {
        let answer = ask(Method::GET, "/readyz", ("x", "x"), None).await;
        (answer.map(|a| a.status()).ok(), std::fs::read_to_string(&log).unwrap())
    };
    eventually("ready", SOON, ready, |(status, _)| *status == Some(StatusCode::OK)).await;

    let registration = json!({"name": "mail", "password": "of-mail", "request_prefill": true,
        "realms_topics": [{"realm": "udm", "topic": "users/user"}]});
    let admin = ("admin", "of-admin");
    let registered = ask(Method::POST, "/v1/subscriptions", admin, Some(registration)).await.unwrap();
    assert_eq!(registered.status(), StatusCode::CREATED);
    let next = async || {
        let path = "/v1/subscriptions/mail/messages/next?timeout=10";
        let answer = ask(Method::GET, path, ("mail", "of-mail"), None).await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    let message = eventually("an object of UDM", SOON, next, |message| !message.is_null()).await;
    assert_eq!(message["topic"], "users/user");

    let stream = "/v1/subscriptions/mail/messages/stream";
    let open = async || ask(Method::GET, stream, ("mail", "of-mail"), None).await.unwrap();
    let (first, second) = (open().await, open().await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS));
    drop((first, second));

    mounted.file("admin", "of-admin-later");
    let list = async |password: &str| {
        ask(Method::GET, "/v1/subscriptions", ("admin", password), None).await.unwrap().status()
    };
    let later = async || list("of-admin-later").await;
    eventually("the changed password", Duration::from_secs(20), later, |s| *s == StatusCode::OK).await;
    // By now there were as many wrong passwords as the throttle lets pass.
    let refusals = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
    assert!(refusals.contains(&list("of-admin").await));
}
