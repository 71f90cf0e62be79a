use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};

use super::*;

fn pod(status: Value) -> PodSeen {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap();
    of_pod(&pod)
}

fn container(state: Value) -> Value {
    json!([{"name": "prefill", "state": state, "image": "i", "imageID": "", "ready": false, "restartCount": 0}])
}

fn ended(exit_code: i32, reason: &str, message: &str) -> PodEnd {
    let state = json!({"terminated": {"exitCode": exit_code, "reason": reason, "message": message}});
    match pod(json!({"phase": "Failed", "containerStatuses": container(state)})).phase {
        PodPhase::Ended(end) => end,
        other => panic!("{other:?}"),
    }
}

#[test]
fn waiting_pods_say_why() {
    for (reason, expected) in [
        ("ErrImagePull", Some(Reason::ImagePull)),
        ("ImagePullBackOff", Some(Reason::ImagePull)),
        ("InvalidImageName", Some(Reason::ImagePull)),
        ("ErrImageNeverPull", Some(Reason::ImagePull)),
        ("CreateContainerConfigError", Some(Reason::PodConfig)),
        ("CreateContainerError", Some(Reason::PodConfig)),
        ("ContainerCreating", None),
        ("PodInitializing", None),
    ] {
        let state = json!({"waiting": {"reason": reason, "message": "why"}});
        let seen = pod(json!({"phase": "Pending", "containerStatuses": container(state)}));
        assert_eq!(
            seen.phase,
            PodPhase::Pending(expected.map(|r| (r, format!("{reason}: why")))),
            "{reason}"
        );
    }
}

#[test]
fn a_pod_without_a_node_says_why() {
    let seen = pod(json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]}));
    assert_eq!(
        seen.phase,
        PodPhase::Pending(Some((Reason::Unschedulable, "0/1 nodes are available".into())))
    );
}

#[test]
fn a_pod_runs_when_its_container_does() {
    assert_eq!(
        pod(json!({"phase": "Running", "containerStatuses": container(json!({"running": {}}))})).phase,
        PodPhase::Running
    );
    assert_eq!(
        pod(json!({"phase": "Running", "containerStatuses": container(json!({"waiting": {}}))})).phase,
        PodPhase::Pending(None)
    );
    assert_eq!(pod(json!({})).phase, PodPhase::Pending(None));
}

#[test]
fn the_pods_own_report_is_read() {
    for (class, code, expected) in [
        ("transient", 1, Some(Reason::SourceUnavailable)),
        ("bad_request", 3, Some(Reason::BadRequest)),
        ("credentials_refused", 4, Some(Reason::CredentialsRefused)),
        ("bad_data", 6, Some(Reason::BadData)),
        ("subscription_gone", 5, Some(Reason::Internal)),
        // A class of a newer pod: its exit code decides.
        ("something_new", 3, Some(Reason::BadRequest)),
        ("done", 0, None),
    ] {
        let message = json!({"class": class, "message": "why", "messages": 3, "new": []}).to_string();
        let end = ended(code, "Error", &message);
        assert_eq!((end.reason, end.message.as_deref()), (expected, Some("why")), "{class}");
    }
    let end = ended(6, "Error", r#"{"class":"bad_data","message":"no UUID","topic":"users/user"}"#);
    assert_eq!(end.message.as_deref(), Some("users/user: no UUID"));
}

#[test]
fn without_a_report_the_exit_code_and_the_last_line_are_read() {
    for (code, reason, message, expected) in [
        (4, "Error", "", (Some(Reason::CredentialsRefused), None)),
        (
            1,
            "Error",
            "line\n{\"level\":\"error\"}\n\n",
            (Some(Reason::SourceUnavailable), Some("{\"level\":\"error\"}")),
        ),
        (8, "Error", "", (Some(Reason::Internal), None)),
        (139, "Error", "{broken", (None, Some("{broken"))),
    ] {
        let end = ended(code, reason, message);
        assert_eq!((end.reason, end.message.as_deref()), expected, "{code} {message}");
    }
    assert_eq!(ended(137, "OOMKilled", "").reason, Some(Reason::OutOfMemory));
}

#[test]
fn an_evicted_pod_says_so() {
    let seen = pod(json!({"phase": "Failed", "reason": "Evicted", "message": "node was low on memory"}));
    let PodPhase::Ended(end) = seen.phase else { panic!("{seen:?}") };
    assert_eq!(end.message.as_deref(), Some("Evicted: node was low on memory"));
}

#[test]
fn a_pod_that_kubernetes_takes_away_says_so() {
    let status = |state: Value| {
        json!({"phase": "Failed", "containerStatuses": container(state), "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": "preempting to accommodate a higher priority pod"}]})
    };
    let seen = pod(status(json!({"terminated": {"exitCode": 1, "reason": "Error"}})));
    assert!(seen.disrupted.is_some_and(|why| why.starts_with("PreemptionByScheduler: preempting")));
    let PodPhase::Ended(end) = seen.phase else { panic!("{:?}", seen.phase) };
    assert_eq!((end.exit_code, end.reason), (Some(1), Some(Reason::Disrupted)));
    // It had ended well before.
    let seen = pod(status(json!({"terminated": {"exitCode": 0, "reason": "Completed"}})));
    let PodPhase::Ended(end) = seen.phase else { panic!("{:?}", seen.phase) };
    assert_eq!((end.exit_code, end.reason), (Some(0), None));
}

#[test]
fn only_a_quota_that_is_used_up_passes() {
    for (message, expected) in [
        (
            "pods \"p\" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0",
            Reason::QuotaExceeded,
        ),
        (
            "pods \"p\" is forbidden: failed quota: cpu: must specify limits.cpu for: prefill",
            Reason::PodRefused,
        ),
        (
            "pods \"p\" is forbidden: maximum memory usage per Container is 8Mi, but limit is 32Mi",
            Reason::PodRefused,
        ),
        ("pods \"p\" is forbidden: error looking up service account n/none", Reason::PodRefused),
    ] {
        assert_eq!(of_refusal(message), expected, "{message}");
    }
}

#[test]
fn failed_jobs() {
    let end = |reason| PodEnd { exit_code: Some(1), reason, message: Some("said".into()) };
    let transient = end(Some(Reason::SourceUnavailable));
    let permanent = end(Some(Reason::BadRequest));
    for (condition, last, expected) in [
        ("DeadlineExceeded", Some(&permanent), Reason::DeadlineExceeded),
        ("BackoffLimitExceeded", Some(&transient), Reason::BackoffLimitExceeded),
        ("BackoffLimitExceeded", Some(&end(Some(Reason::OutOfMemory))), Reason::OutOfMemory),
        ("BackoffLimitExceeded", None, Reason::BackoffLimitExceeded),
        ("PodFailurePolicy", Some(&permanent), Reason::BadRequest),
        ("PodFailurePolicy", None, Reason::Internal),
        ("SomethingNew", Some(&transient), Reason::SourceUnavailable),
    ] {
        let (reason, message) = of_failed_job(condition, "by Kubernetes", last);
        assert_eq!(reason, expected, "{condition}");
        assert!(message.starts_with(&format!("{condition}: by Kubernetes")), "{message}");
        assert_eq!(message.contains("said"), last.is_some(), "{message}");
    }
}

#[test]
fn the_last_event_that_explains_is_taken() {
    let event = |word: &str, at: &str| -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "reason": word, "message": format!("at {at}"), "lastTimestamp": at
        }))
        .unwrap()
    };
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
    for (events, expected) in [
        (vec![], None),
        (vec![event("SuccessfulCreate", early), event("Pulled", late)], None),
        (
            vec![event("FailedCreate", late), event("SuccessfulCreate", early)],
            Some((Reason::PodRefused, late)),
        ),
        (vec![event("SuccessfulCreate", late), event("FailedCreate", early)], None),
        (vec![event("SuccessfulCreate", late), event("FailedCreate", late)], None),
        (vec![event("FailedMount", late), event("FailedCreate", early)], Some((Reason::PodConfig, late))),
        (vec![event("FailedMount", early), event("FailedCreate", late)], Some((Reason::PodRefused, late))),
    ] {
        let found = of_events(&events);
        assert_eq!(
            found.as_ref().map(|(reason, _)| *reason),
            expected.map(|(reason, _)| reason),
            "{events:?}"
        );
        if let (Some((_, text)), Some((_, at))) = (found, expected) {
            assert!(text.ends_with(&format!(": at {at}")), "{text}");
        }
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    let text = shorten(&"ä".repeat(2000));
    assert!(text.len() <= LONGEST && text.len() > LONGEST - 4 && text.ends_with("ä…"), "{text}");
}
