//! A Kubernetes in a few lines, whose calls go wrong as a test wants: Jobs with a pod that runs as soon as it may, their
//! ConfigMaps, lists and watches. A Job that is deleted takes its pod and its ConfigMap with it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use kube::{Client, client::Body as KubeBody};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::{BoxError, service_fn};

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused with this status and word, and not done.
    Refused(u16, &'static str),
    /// The connection breaks before it is done.
    RequestLost,
    /// It is done, and the connection breaks.
    AnswerLost,
    /// It is done, and its answer never comes.
    AnswerNever,
    /// A watch that says that its version is too old.
    Expired,
    /// A list or a watch that ends within.
    Torn,
}

impl Fault {
    /// What can happen to a call about one object.
    pub(crate) const OF_CALLS: &[Self] = &[
        Self::Refused(401, "Unauthorized"),
        Self::Refused(403, "Forbidden"),
        Self::Refused(404, "NotFound"),
        Self::Refused(409, "Conflict"),
        Self::Refused(410, "Expired"),
        Self::Refused(429, "TooManyRequests"),
        Self::Refused(500, "InternalError"),
        Self::Refused(503, "ServiceUnavailable"),
        Self::RequestLost,
        Self::AnswerLost,
        Self::AnswerNever,
    ];
    /// What can happen to a list or a watch.
    pub(crate) const OF_STREAMS: &[Self] = &[
        Self::Refused(403, "Forbidden"),
        Self::Refused(410, "Expired"),
        Self::Refused(429, "TooManyRequests"),
        Self::Refused(500, "InternalError"),
        Self::AnswerLost,
        Self::Expired,
        Self::Torn,
    ];
}

/// A fault that is to be played on the calls of a kind whose path or body holds a text.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Such as `DELETE jobs` or `WATCH pods`.
    pub(crate) kind: &'static str,
    /// The name of the object, or a part of it.
    pub(crate) about: String,
    /// How many such calls work before.
    pub(crate) after: usize,
    pub(crate) fault: Fault,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By resource and name.
    objects: BTreeMap<(String, String), Value>,
    changes: Vec<(u64, String, Value)>,
    plans: Vec<Plan>,
    played: usize,
    /// How often a Job of each name was made.
    made: HashMap<String, usize>,
}

/// The cluster; clones share it.
#[derive(Clone)]
pub(crate) struct FakeCluster {
    state: Arc<Mutex<State>>,
    /// The version, and how often all watches were cut.
    news: Arc<watch::Sender<(u64, u64)>>,
}

impl FakeCluster {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), news: Arc::new(watch::Sender::new((0, 0))) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plan(&self, plan: Plan) {
        self.state().plans.push(plan);
    }

    /// Plans that were not played yet.
    pub(crate) fn unplayed(&self) -> Vec<Plan> {
        self.state().plans.clone()
    }

    /// Ends all watches.
    pub(crate) fn cut(&self) {
        self.news.send_modify(|(_, cuts)| *cuts += 1);
    }

    /// Names of the Jobs and ConfigMaps that hold that text.
    pub(crate) fn left_of(&self, text: &str) -> Vec<String> {
        let state = self.state();
        let names = state.objects.keys().filter(|(_, name)| name.contains(text));
        names.map(|(resource, name)| format!("{resource} {name}")).collect()
    }

    pub(crate) fn made(&self) -> HashMap<String, usize> {
        self.state().made.clone()
    }

    pub(crate) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = service_fn(move |request: Request<KubeBody>| {
            let cluster = cluster.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(Body::new(body), 1 << 20).await?;
                let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                cluster.answer(&head.method, &path, serde_json::from_slice(&body).unwrap_or_default()).await
            }
        });
        Client::new(service, "test")
    }

    async fn answer(&self, method: &Method, path: &str, body: Value) -> Result<Response, BoxError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts = path.split('/').skip_while(|part| *part != "test").skip(1);
        let (resource, name) = (parts.next().unwrap_or_default(), parts.next());
        let verb = match (method.as_str(), name) {
            ("GET", None) if query.contains("watch=true") => "WATCH",
            ("GET", None) => "LIST",
            (method, _) => method,
        };
        let called = name.or(body["metadata"]["name"].as_str()).unwrap_or(query).to_owned();
        let fault = self.fault(&format!("{verb} {resource}"), &called);
        match fault {
            Some(Fault::Refused(code, reason)) => return Ok(status(code, reason)),
            Some(Fault::RequestLost) => return Err("the connection broke, says the test".into()),
            _ => {}
        }
        let answer = match verb {
            "WATCH" => self.watch(resource, query, fault),
            "LIST" => self.list(resource, fault),
            _ => self.state().do_it(verb, resource, name.unwrap_or_default(), body),
        };
        let version = self.state().version;
        self.news.send_if_modified(|(known, _)| std::mem::replace(known, version) != version);
        match fault {
            Some(Fault::AnswerLost) => Err("the connection broke, says the test".into()),
            Some(Fault::AnswerNever) => std::future::pending().await,
            _ => Ok(answer),
        }
    }

    fn fault(&self, kind: &str, about: &str) -> Option<Fault> {
        let mut state = self.state();
        let fits = |plan: &Plan| plan.kind == kind && about.contains(&plan.about);
        let at = state.plans.iter().position(fits)?;
        if state.plans[at].after > 0 {
            state.plans[at].after -= 1;
            return None;
        }
        state.played += 1;
        Some(state.plans.remove(at).fault)
    }

    fn list(&self, resource: &str, fault: Option<Fault>) -> Response {
        let state = self.state();
        let items: Vec<_> =
            state.objects.iter().filter(|((of, _), _)| of == resource).map(|(_, object)| object).collect();
        let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
                          "metadata": {"resourceVersion": state.version.to_string()}});
        match fault {
            Some(Fault::Torn) => text(&list.to_string()[..20]),
            Some(Fault::Expired) => status(410, "Expired"),
            _ => axum::Json(list).into_response(),
        }
    }

    fn watch(&self, resource: &str, query: &str, fault: Option<Fault>) -> Response {
        match fault {
            Some(Fault::Torn) => return text("{\"type\": \"MODIF"),
            Some(Fault::Expired) => {
                let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
                                  "message": "too old"});
                return text(&json!({"type": "ERROR", "object": gone}).to_string());
            }
            _ => {}
        }
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let from = from.and_then(|text| text.parse().ok()).unwrap_or(0);
        let (cluster, resource, news) = (self.clone(), resource.to_owned(), self.news.subscribe());
        let cuts = news.borrow().1;
        let changes = futures::stream::unfold((from, news), move |(from, mut news)| {
            let (cluster, resource) = (cluster.clone(), resource.clone());
            async move {
                let (version, now) =
                    *news.wait_for(|(version, now)| *version > from || *now != cuts).await.ok()?;
                if now != cuts {
                    return None;
                }
                let state = cluster.state();
                let new = state.changes.iter().filter(|(at, of, _)| *at > from && *of == resource);
                let lines: String = new.map(|(_, _, change)| format!("{change}\n")).collect();
                drop(state);
                Some((Ok::<_, BoxError>(lines), (version, news)))
            }
        });
        Body::from_stream(changes.filter(|lines| {
            let some = lines.as_ref().is_ok_and(|lines| !lines.is_empty());
            async move { some }
        }))
        .into_response()
    }
}

fn text(text: &str) -> Response {
    Body::from(text.to_owned()).into_response()
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                      "message": format!("{reason}, says the test")});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

impl State {
    fn do_it(&mut self, verb: &str, resource: &str, name: &str, body: Value) -> Response {
        let key = (resource.to_owned(), name.to_owned());
        match verb {
            "POST" if resource == "events" => axum::Json(body).into_response(),
            "POST" => self.create(resource, body),
            "GET" => match self.objects.get(&key) {
                Some(object) => axum::Json(object.clone()).into_response(),
                None => status(404, "NotFound"),
            },
            "PATCH" if resource == "events" => axum::Json(body).into_response(),
            "PATCH" => self.patch(key, &body),
            "DELETE" => self.delete(&key, &body),
            _ => status(405, "MethodNotAllowed"),
        }
    }

    fn change(&mut self, what: &str, resource: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = (resource.to_owned(), object["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        if what == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        let change = json!({"type": what, "object": object});
        self.changes.push((self.version, resource.to_owned(), change));
        object
    }

    fn create(&mut self, resource: &str, mut object: Value) -> Response {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.objects.contains_key(&(resource.to_owned(), name.clone())) {
            return status(409, "AlreadyExists");
        }
        object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if resource == "jobs" {
            *self.made.entry(name).or_default() += 1;
        }
        let made = self.change("ADDED", resource, object);
        (StatusCode::CREATED, axum::Json(made)).into_response()
    }

    fn patch(&mut self, key: (String, String), patch: &Value) -> Response {
        let Some(mut object) = self.objects.get(&key).cloned() else { return status(404, "NotFound") };
        for condition in ["uid", "resourceVersion"] {
            let wanted = &patch["metadata"][condition];
            if !wanted.is_null() && *wanted != object["metadata"][condition] {
                return status(409, "Conflict");
            }
        }
        merge(&mut object, patch);
        let job = self.change("MODIFIED", &key.0, object);
        self.run(&job);
        axum::Json(job).into_response()
    }

    /// What the controllers of Kubernetes do: a Job that is not suspended has a pod, any other one has none.
    fn run(&mut self, job: &Value) {
        let name = job["metadata"]["name"].as_str().unwrap_or_default();
        let key = ("pods".to_owned(), name.to_owned());
        match (self.objects.get(&key).cloned(), job["spec"]["suspend"] == true) {
            (Some(pod), true) => _ = self.change("DELETED", "pods", pod),
            (None, false) => {
                let running = json!({"phase": "Running", "containerStatuses": [
                    {"name": "prefill", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                     "state": {"running": {}}}]});
                let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": name,
                                   "uid": job["metadata"]["uid"]});
                let metadata = &job["spec"]["template"]["metadata"];
                let pod = json!({"status": running, "metadata": {
                    "name": name, "uid": format!("uid-{}", self.version), "ownerReferences": [owner],
                    "labels": metadata["labels"], "annotations": metadata["annotations"]}});
                self.change("ADDED", "pods", pod);
            }
            _ => {}
        }
    }

    fn delete(&mut self, key: &(String, String), options: &Value) -> Response {
        let Some(object) = self.objects.get(key).cloned() else { return status(404, "NotFound") };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return status(409, "Conflict");
        }
        let owned: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, other)| {
                let owners = other["metadata"]["ownerReferences"].as_array();
                owners.into_iter().flatten().any(|owner| owner["uid"] == object["metadata"]["uid"])
            })
            .map(|((resource, _), other)| (resource.clone(), other.clone()))
            .collect();
        for (resource, other) in owned {
            self.change("DELETED", &resource, other);
        }
        self.change("DELETED", &key.0, object);
        axum::Json(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})).into_response()
    }
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}
