//! What a real cluster does not do on demand: conflicts, lost answers, silence.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::*;
use crate::testing::{Answer, Asked, TEMPLATE, api_server, status};

fn cluster(answer: impl Fn(Asked) -> Answer + Clone + Send + Sync + 'static) -> Cluster {
    let template = JobTemplate::parse(TEMPLATE).unwrap();
    Cluster::new(api_server(answer), "test", &template).with_limit(Duration::from_millis(200))
}

fn job() -> Job {
    Job { metadata: ObjectMeta { name: Some("j".into()), ..ObjectMeta::default() }, ..Job::default() }
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_found_to_have_succeeded() {
    let made = Arc::new(AtomicBool::new(false));
    let cluster = cluster(move |_| match made.swap(true, Ordering::Relaxed) {
        false => Answer::Never,
        true => status(409, "AlreadyExists"),
    });
    let first = cluster.create_job(&job()).await;
    assert!(
        matches!(&first, Err(Error::Timeout { action, .. }) if action == "creating the Job j"),
        "{first:?}"
    );
    assert!(first.is_err_and(|error| error.is_transient()));
    assert!(matches!(cluster.create_job(&job()).await.unwrap(), Created::Exists));
}

#[tokio::test]
async fn a_refused_create_is_no_success() {
    for (code, reason, transient) in [
        (403, "Forbidden", false),
        // Not "AlreadyExists": the namespace is going, for example.
        (409, "Conflict", true),
        (422, "Invalid", false),
        (429, "TooManyRequests", true),
        (500, "InternalError", true),
    ] {
        let error = cluster(move |_| status(code, reason)).create_job(&job()).await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{code}");
        let text = model::error_chain(&error);
        assert!(text.contains("creating the Job j") && text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn a_patch_that_comes_too_late_changes_nothing_and_is_no_error() {
    for (code, reason) in [(409, "Conflict"), (404, "NotFound")] {
        let patched = cluster(move |_| status(code, reason)).patch_job("j", &json!({})).await.unwrap();
        assert!(patched.is_none(), "{code}");
    }
}

#[tokio::test]
async fn a_deletion_names_the_uid_and_lets_the_pods_go_in_the_background() {
    let asked = Arc::new(Mutex::new(vec![]));
    let seen = asked.clone();
    let gone = cluster(move |request| {
        seen.lock().unwrap().push(request);
        Answer::Json(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    });
    assert!(gone.delete_job("j", "the-uid").await.unwrap());
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].method.as_str(), asked[0].path.split('?').next()),
        ("DELETE", Some("/apis/batch/v1/namespaces/test/jobs/j"))
    );
    assert_eq!(asked[0].body["preconditions"], json!({"uid": "the-uid"}));
    assert_eq!(asked[0].body["propagationPolicy"], "Background");
    // Another Job of that name, or none: nothing to do.
    for (code, reason) in [(409, "Conflict"), (404, "NotFound")] {
        assert!(!cluster(move |_| status(code, reason)).delete_job("j", "the-uid").await.unwrap(), "{code}");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_stops_nobody() {
    let cluster = cluster(|_| Answer::Never);
    let error = cluster.job("j").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_asked_for_is_of_one_instance_and_one_subscription() {
    let asked = Arc::new(Mutex::new(vec![]));
    let seen = asked.clone();
    let cluster = cluster(move |request| {
        seen.lock().unwrap().push(request.path);
        Answer::Json(200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}))
    });
    cluster.pods_of(&"mail".parse().unwrap()).await.unwrap();
    cluster.events_about("the-uid").await.unwrap();
    let asked = asked.lock().unwrap().clone();
    assert!(
        asked[0].contains("app.kubernetes.io%2Finstance%3Dtest")
            && asked[0].contains("headstart%2Fsubscription%3Dmail"),
        "{}",
        asked[0]
    );
    assert!(asked[1].contains("fieldSelector=involvedObject.uid%3Dthe-uid"), "{}", asked[1]);
}
