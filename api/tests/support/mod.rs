//! The API on a real nats-server, with a dispatcher beside it.
#![allow(dead_code)] // each test target uses its part

use std::time::Duration;

use api::{Bounds, Config, Launcher, RoleCredentials, Roles, StepHook};
use broker::{Broker, Claimed, ReaderConfig, Secret, testing::NatsServer};
use bytes::Bytes;
use model::{Prefill, SubscriptionName, fence::Counts};
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
        roles: Roles { admin: role(ADMIN), events: role(EVENTS), prefill: role(PREFILL) },
        tls: None,
        bounds: Bounds { refused_after: Duration::ZERO, ..Bounds::default() },
        root_path: "/univention/provisioning".into(),
        cors_all: false,
        reader: ReaderConfig::default(),
        limits: model::limits::QueueLimits::default(),
        stream_heartbeat: Duration::from_millis(200),
        shutdown_delay: Duration::ZERO,
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
        let request = self.client.request(method.clone(), self.url(path));
        let request = request.basic_auth(login.0, Some(login.1));
        let request = if let Some(body) = body { request.json(body) } else { request };
        described(&method, path, answer(request).await)
    }

    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        login: (&str, &str),
        content_type: &str,
        body: &str,
    ) -> Answer {
        let request = self.client.request(method.clone(), self.url(path));
        let request = request.basic_auth(login.0, Some(login.1)).header("content-type", content_type);
        described(&method, path, answer(request.body(body.to_owned())).await)
    }

    pub async fn register(&self, name: &str, topics: &[&str], prefill: bool) -> StatusCode {
        let body = registration(name, topics, prefill);
        let answer = self.send(Method::POST, "/v1/subscriptions", ADMIN, Some(&body)).await;
        assert!(answer.status.is_success(), "{answer:?}");
        answer.status
    }

    pub async fn event(&self, id: &str) {
        let sent = self.publish(&event("users/user", id)).await;
        assert_eq!(sent.status, StatusCode::ACCEPTED, "{}", sent.text);
    }

    /// Sends an event as producers do: a slow machine is late with a large one, says so before anything is written, and
    /// is asked again.
    pub async fn publish(&self, event: &Value) -> Answer {
        let post = async || self.send(Method::POST, "/v1/messages", EVENTS, Some(event)).await;
        let in_time = |sent: &Answer| sent.status != StatusCode::SERVICE_UNAVAILABLE;
        broker::testing::eventually("the event in time", Duration::from_secs(60), post, in_time).await
    }

    /// What a prefill pod does, in small: claim, write, seal.
    pub async fn fill(&self, name: &str, ids: &[&str]) {
        let name: SubscriptionName = name.parse().unwrap();
        let entry = self.broker.registry().subscription(&name).await.unwrap().unwrap().value;
        let queue = self.broker.queue(&name, entry.incarnation);
        let Prefill { round, attempt, .. } = entry.prefill;
        let Claimed::Holder(mut holder) = queue.claim_fence(round, attempt, "test").await.unwrap() else {
            panic!("the fence is not to be had")
        };
        holder.purge_below().await.unwrap();
        let messages: Vec<Bytes> = ids.iter().map(|id| event("users/user", id).to_string().into()).collect();
        holder.write(1, &messages).await.unwrap();
        holder.seal(Counts { messages: messages.len() as u64, ..Counts::default() }).await.unwrap();
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

/// Every answer that a test sees stands in the description: its status, and the keys that its body must have.
pub fn described(method: &Method, path: &str, answer: Answer) -> Answer {
    let document = api::openapi_document("/");
    let Some(operation) = operation(&document, method, path) else {
        let status = answer.status.as_u16();
        assert!([307, 404, 405].contains(&status), "{method} {path} is not described, but answers {status}");
        return answer;
    };
    let told = &operation["responses"][answer.status.as_str()];
    assert!(told.is_object(), "{method} {path} answers {}, which is not described", answer.status);
    if let Some(schema) = told.pointer("/content/application~1json/schema") {
        assert_fits(&document, schema, &answer.json(), &format!("{method} {path}"));
    }
    answer
}

fn operation<'a>(document: &'a Value, method: &Method, path: &str) -> Option<&'a Value> {
    let path = path.split('?').next()?.trim_start_matches("/univention/provisioning");
    let fits = |template: &str| {
        let (asked, template): (Vec<&str>, Vec<&str>) =
            (path.split('/').collect(), template.split('/').collect());
        let same =
            |(a, t): (&&str, &&str)| a == t || (t.starts_with('{') && !a.is_empty() && !a.contains('%'));
        asked.len() == template.len() && asked.iter().zip(&template).all(same)
    };
    let (_, methods) = document["paths"].as_object()?.iter().find(|(template, _)| fits(template))?;
    methods.get(method.as_str().to_lowercase())
}

/// Does a value fit one of the description's schemas?
pub fn fits(schema: &str, value: &Value) {
    let document = api::openapi_document("/");
    assert_fits(&document, &document["components"]["schemas"][schema], value, schema);
}

/// The part of JSON Schema that the description uses.
fn assert_fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).expect(reference);
        return assert_fits(document, target, value, place);
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        assert!(regex::Regex::new(pattern).unwrap().is_match(text), "{place}: {text:?} is not {pattern}");
    }
    if let ("date-time", Some(text)) = (schema["format"].as_str().unwrap_or_default(), value.as_str()) {
        assert!(text.parse::<jiff::Timestamp>().is_ok(), "{place}: {text:?} is no date-time");
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let null = choices.iter().any(|choice| choice["type"] == "null");
        let other = choices.iter().find(|choice| choice["type"] != "null").expect(place);
        assert!(value.is_object() || (null && value.is_null()), "{place}: {value}");
        if value.is_object() {
            assert_fits(document, other, value, place);
        }
        return;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return assert!(allowed.contains(value), "{place}: {value} is none of {allowed:?}");
    }
    if let Some(constant) = schema.get("const") {
        return assert_eq!(constant, value, "{place}");
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => panic!("{place}: no type in {schema}"),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(kinds.contains(&kind) || (kind == "integer" && kinds.contains(&"number")), "{place}: {value}");
    for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(value.get(field).is_some(), "{place}: {field} is missing in {value}");
    }
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(field) {
            assert_fits(document, schema, value, &format!("{place} {field}"));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        assert_fits(document, &schema["items"], item, &format!("{place} []"));
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, text: answer.text().await.unwrap() }
}
