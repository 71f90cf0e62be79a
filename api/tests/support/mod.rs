//! The API on a real nats-server, with a dispatcher beside it.
#![allow(dead_code)] // each test target uses its part

use std::time::Duration;

use api::{Config, Launcher, RoleCredentials, StepHook};
use broker::{Broker, ReaderConfig, Secret, testing::NatsServer};
use reqwest::{Client, Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const ADMIN: (&str, &str) = ("admin", "admin-secret");
pub const EVENTS: (&str, &str) = ("udm", "events-secret");
pub const PREFILL: (&str, &str) = ("prefill", "prefill-secret");

pub struct Server {
    pub nats: NatsServer,
    pub broker: Broker,
    pub client: Client,
    base: String,
    _shutdown: DropGuard,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    headers: HeaderMap,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub fn registration(name: &str, topics: &[&str], prefill: bool) -> Value {
    let topics: Vec<Value> = topics.iter().map(|t| json!({"realm": "udm", "topic": t})).collect();
    json!({"name": name, "realms_topics": topics, "request_prefill": prefill, "password": "pw"})
}

pub fn event(topic: &str, id: &str) -> Value {
    json!({"publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": topic,
           "body": {"old": {}, "new": {"objectType": topic, "id": id}}})
}

pub fn config(before_step: Option<StepHook>) -> Config {
    let role = |(user, password): (&str, &str)| RoleCredentials {
        username: user.into(),
        password: Secret::new(password),
    };
    Config {
        admin: role(ADMIN),
        events: role(EVENTS),
        prefill: role(PREFILL),
        root_path: "/univention/provisioning".into(),
        cors_all: false,
        reader: ReaderConfig::default(),
        before_step,
    }
}

/// Another replica of the API; it ends with the token.
pub async fn replica(broker: &Broker, config: Config, shutdown: CancellationToken) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let launcher = Launcher::queue(broker.tasks());
    tokio::spawn(api::run(listener, config, broker.clone(), launcher, shutdown));
    base
}

impl Server {
    pub async fn start() -> Self {
        // reqwest wants one, although only plain HTTP is spoken here.
        rustls::crypto::ring::default_provider().install_default().ok();
        let nats = NatsServer::start().await;
        let broker = nats.broker().await;
        let shutdown = CancellationToken::new();
        let dispatching = dispatcher::run(
            dispatcher::Config::default(),
            broker.clone(),
            dispatcher::Metrics::default(),
            shutdown.clone(),
        );
        tokio::spawn(dispatching);
        let base = replica(&broker, config(None), shutdown.clone()).await;
        let redirect = reqwest::redirect::Policy::none();
        let client =
            Client::builder().no_proxy().redirect(redirect).timeout(Duration::from_secs(60)).build().unwrap();
        Self { nats, broker, client, base, _shutdown: shutdown.drop_guard() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        login: (&str, &str),
        body: Option<&Value>,
    ) -> Answer {
        let request = self.client.request(method, self.url(path)).basic_auth(login.0, Some(login.1));
        let request = if let Some(body) = body { request.json(body) } else { request };
        answer(request).await
    }

    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        login: (&str, &str),
        content_type: &str,
        body: &str,
    ) -> Answer {
        let request = self.client.request(method, self.url(path)).basic_auth(login.0, Some(login.1));
        answer(request.header("content-type", content_type).body(body.to_owned())).await
    }

    pub async fn register(&self, name: &str, topics: &[&str], prefill: bool) -> StatusCode {
        let body = registration(name, topics, prefill);
        let answer = self.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer.status
    }

    pub async fn delete_stream(&self, name: &str) {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        async_nats::jetstream::new(client).delete_stream(name).await.unwrap();
    }

    pub async fn put_raw(&self, bucket: &str, key: &str, value: &str) {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let store = async_nats::jetstream::new(client).get_key_value(bucket).await.unwrap();
        store.put(key, value.to_owned().into()).await.unwrap();
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, text: answer.text().await.unwrap() }
}
