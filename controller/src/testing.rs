//! What several tests need.

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

pub(crate) mod cluster;

/// A Job template as the chart renders it, as small as it may be.
pub(crate) const TEMPLATE: &str = "
apiVersion: batch/v1
kind: Job
metadata:
  labels: {app.kubernetes.io/name: headstart, app.kubernetes.io/instance: test}
spec:
  template:
    spec:
      containers:
        - name: prefill
          image: registry.example/headstart:1
          resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
";

/// What the API server is asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// What it does.
pub(crate) enum Answer {
    /// Answers with that status.
    Json(u16, Value),
    /// Does it, and the answer is lost.
    Never,
}

/// A failure as the API server tells it.
pub(crate) fn status(code: u16, reason: &str) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                      "reason": reason, "message": format!("a {reason} of the test")});
    Answer::Json(code, body)
}

/// A client whose API server is this function.
pub(crate) fn api_server(answer: impl Fn(Asked) -> Answer + Clone + Send + Sync + 'static) -> Client {
    let service = service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let asked = Asked {
                method: head.method.to_string(),
                path: head.uri.to_string(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            match answer(asked) {
                Answer::Json(code, body) => {
                    let body = Full::new(body.to_string().into_bytes().into());
                    Ok::<_, BoxError>(Response::builder().status(code).body(body).unwrap())
                }
                Answer::Never => std::future::pending().await,
            }
        }
    });
    Client::new(service, "test")
}
