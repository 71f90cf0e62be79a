//! What a real API server won't do on demand: lost answers, conflicts, silence. Everything else is tested on one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{body::Body, http::StatusCode, response::IntoResponse};
use kube::client::Body as KubeBody;
use model::{Incarnation, RealmTopic, subscription::Registration};
use serde_json::{Value, json};
use tower::service_fn;
use uuid::Uuid;

use super::*;

/// What happens to the next request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is answered as it should be.
    None,
    /// It is carried out, but the connection breaks before the answer.
    AnswerLost,
    /// It is never answered, nor carried out.
    Silence,
    /// It is refused with this code and reason.
    Refused(u16, &'static str),
}

/// An API server that knows `create` and `get`.
#[derive(Default)]
struct ApiServer {
    /// By path, `/…/jobs/<name>`.
    objects: BTreeMap<String, Value>,
    faults: VecDeque<Fault>,
    /// Method and resource of each request.
    asked: Vec<String>,
}

type Shared = Arc<Mutex<ApiServer>>;

fn status(code: u16, reason: &str) -> axum::response::Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                      "message": format!("{reason} by the test")});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

impl ApiServer {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> axum::response::Response {
        let resource = if path.contains("/jobs") { "job" } else { "configmap" };
        self.asked.push(format!("{method} {resource}"));
        if method == "GET" {
            return match self.objects.get(path) {
                Some(object) => axum::Json(object.clone()).into_response(),
                None => status(404, "NotFound"),
            };
        }
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&path) {
            return status(409, "AlreadyExists");
        }
        object["metadata"]["uid"] = json!(format!("uid-{}", self.asked.len()));
        self.objects.insert(path, object.clone());
        (StatusCode::CREATED, axum::Json(object)).into_response()
    }
}

fn kubernetes(server: &Shared) -> Kubernetes {
    let server = server.clone();
    let service = service_fn(move |request: axum::http::Request<KubeBody>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(Body::new(body), 1 << 20).await?;
            let fault = server.lock().unwrap().faults.pop_front().unwrap_or(Fault::None);
            let answer = || server.lock().unwrap().answer(parts.method.as_str(), parts.uri.path(), &body);
            match fault {
                Fault::None => Ok(answer()),
                Fault::AnswerLost => {
                    drop(answer());
                    Err(axum::BoxError::from("connection reset by the test"))
                }
                Fault::Silence => std::future::pending().await,
                Fault::Refused(code, reason) => Ok(status(code, reason)),
            }
        }
    });
    let template = JobTemplate::parse(include_str!("../../../../manifests/tests/template.yaml")).unwrap();
    let patience = Patience {
        call: Duration::from_millis(200),
        object: Duration::from_millis(1500),
        pause: Duration::from_millis(10),
    };
    Kubernetes { patience, ..Kubernetes::new(Client::new(service, "here"), "here", template, None) }
}

fn entry(incarnation: u128, attempt: u32) -> Subscription {
    let registration = Registration {
        request_prefill: true,
        ..Registration::new(
            "mail".parse().unwrap(),
            vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
        )
    };
    let incarnation = Incarnation(Uuid::from_u128(incarnation << 96));
    let mut entry =
        Subscription::reserve(registration, incarnation, 1, "2026-01-01T00:00:00".parse().unwrap());
    entry.prefill.attempt = attempt;
    entry
}

fn server(faults: &[Fault]) -> Shared {
    Arc::new(Mutex::new(ApiServer { faults: faults.iter().copied().collect(), ..ApiServer::default() }))
}

/// Both objects exist once, the Job is suspended, and the ConfigMap belongs to it.
fn assert_launched(server: &Shared) {
    let server = server.lock().unwrap();
    assert_eq!(server.objects.len(), 2, "{:?}", server.objects.keys());
    let of = |kind: &str| server.objects.iter().find(|(path, _)| path.contains(kind)).unwrap().1;
    let (job, config_map) = (of("/jobs/"), of("/configmaps/"));
    assert_eq!(job["spec"]["suspend"], true);
    assert_eq!(config_map["metadata"]["ownerReferences"][0]["uid"], job["metadata"]["uid"]);
}

#[tokio::test]
async fn whatever_happens_to_a_call_one_job_and_one_config_map_come_out() {
    use Fault::{AnswerLost, None, Refused, Silence};
    let (conflict, busy, ill) = (Refused(409, "Conflict"), Refused(429, "Busy"), Refused(503, "Ill"));
    for (faults, asked) in [
        (&[][..], "POST job, POST configmap"),
        (&[AnswerLost], "POST job, POST job, GET job, POST configmap"),
        (&[Silence], "POST job, POST configmap"),
        (&[busy], "POST job, POST configmap"),
        (&[ill, ill], "POST job, POST configmap"),
        // Exists at one moment, gone at the next: created again.
        (&[conflict], "GET job, POST job, POST configmap"),
        (&[None, AnswerLost], "POST job, POST configmap, POST configmap, GET configmap"),
        (&[None, Silence], "POST job, POST configmap"),
        (&[AnswerLost, None, ill], "POST job, POST job, POST job, GET job, POST configmap"),
    ] {
        let server = server(faults);
        kubernetes(&server).launch(&entry(1, 1)).await.unwrap();
        assert_launched(&server);
        assert_eq!(server.lock().unwrap().asked.join(", "), asked, "{faults:?}");
    }
}

#[tokio::test]
async fn doing_it_again_finds_what_is_there() {
    let server = server(&[]);
    let kubernetes = kubernetes(&server);
    for _ in 0..2 {
        kubernetes.launch(&entry(1, 1)).await.unwrap();
        assert_launched(&server);
    }
    // Another attempt has its own objects.
    kubernetes.launch(&entry(1, 2)).await.unwrap();
    assert_eq!(server.lock().unwrap().objects.len(), 4);
}

/// The cause of a 503, which goes to the log; the answer holds only our own words.
async fn refusal(server: &Shared, entry: &Subscription) -> String {
    match kubernetes(server).launch(entry).await {
        Err(ApiError::Unavailable { detail: DETAIL, cause }) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_refused_for_good_is_not_asked_twice() {
    for (code, reason) in [(403, "Forbidden"), (422, "Invalid"), (404, "NotFound"), (401, "Unauthorized")] {
        let server = server(&[Fault::Refused(code, reason)]);
        let cause = refusal(&server, &entry(1, 1)).await;
        assert!(cause.contains(reason), "{cause}");
        assert_eq!(server.lock().unwrap().asked.len(), 0, "{reason}");
    }
}

#[tokio::test]
async fn silence_ends_in_an_error_and_not_in_waiting() {
    let server = server(&[Fault::Silence; 100]);
    let began = std::time::Instant::now();
    assert!(refusal(&server, &entry(1, 1)).await.contains("no answer"));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_stranger_in_the_way_is_neither_taken_nor_touched() {
    for change in [
        // Somebody's own Job, a Job that is being deleted, one of a name that only looks like ours.
        json!({"labels": {}, "annotations": {}}),
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        json!({"annotations": {"headstart/subscription-name": "chat"}}),
    ] {
        let server = server(&[]);
        kubernetes(&server).launch(&entry(1, 1)).await.unwrap();
        let path = server.lock().unwrap().objects.keys().find(|p| p.contains("/jobs/")).unwrap().clone();
        let before = {
            let mut server = server.lock().unwrap();
            let job = server.objects.get_mut(&path).unwrap();
            for (key, value) in change.as_object().unwrap() {
                job["metadata"][key] = value.clone();
            }
            job.clone()
        };
        assert!(refusal(&server, &entry(1, 1)).await.contains("not ours"), "{change}");
        assert_eq!(server.lock().unwrap().objects[&path], before);
    }
}

#[tokio::test]
async fn the_config_map_of_a_former_job_is_waited_for() {
    let server = server(&[]);
    kubernetes(&server).launch(&entry(1, 1)).await.unwrap();
    // The Job was deleted and is made anew with another UID; its ConfigMap is not collected yet.
    server.lock().unwrap().objects.retain(|path, _| !path.contains("/jobs/"));
    let collector = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.lock().unwrap().objects.retain(|path, _| !path.contains("/configmaps/"));
    };
    let kubernetes = kubernetes(&server);
    let entry = entry(1, 1);
    let (launched, ()) = tokio::join!(kubernetes.launch(&entry), collector);
    launched.unwrap();
    assert_launched(&server);
}

/// Its store was put back to a time before that Job: the controller goes on from there.
#[tokio::test]
async fn the_job_of_an_attempt_that_was_asked_for_at_another_time_is_left_to_the_controller() {
    let server = server(&[]);
    kubernetes(&server).launch(&entry(1, 1)).await.unwrap();
    let before = server.lock().unwrap().objects.clone();
    let mut again = entry(1, 1);
    again.prefill.asked = "2026-01-02T00:00:00".parse().ok();
    kubernetes(&server).launch(&again).await.unwrap();
    assert_eq!(server.lock().unwrap().objects, before);
    // What a former version asked for, or made, says nothing.
    again.prefill.asked = None;
    kubernetes(&server).launch(&again).await.unwrap();
    assert_launched(&server);
}
