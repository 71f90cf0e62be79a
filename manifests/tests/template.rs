//! Which templates are refused, and with which words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use manifests::{JobTemplate, TemplateError};
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("template.yaml");

/// The template with the value at a JSON pointer replaced; the parent must exist.
fn with(pointer: &str, value: Value) -> String {
    let mut template: Value = serde_saphyr::from_str(TEMPLATE).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = template.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list.push(value),
        _ => parent[key.replace("~1", "/")] = value,
    }
    // JSON is YAML.
    template.to_string()
}

fn refusal(yaml: &str) -> TemplateError {
    JobTemplate::parse(yaml).expect_err("the template must be refused")
}

#[test]
fn the_charts_template_is_taken() {
    assert_eq!(JobTemplate::parse(TEMPLATE).unwrap().instance(), "ums");
}

#[test]
fn contradictions_are_refused_by_path() {
    const POD: &str = "/spec/template/spec";
    let container = |rest: &str| format!("{POD}/containers/0/{rest}");
    let pod = |rest: &str| format!("{POD}/{rest}");
    for (pointer, value, path) in [
        ("/metadata/labels".into(), json!({}), "metadata.labels[app.kubernetes.io/instance]"),
        ("/spec/suspend".into(), json!(false), "spec.suspend"),
        ("/spec/completions".into(), json!(2), "spec.completions"),
        ("/spec/parallelism".into(), json!(0), "spec.parallelism"),
        ("/spec/completionMode".into(), json!("Indexed"), "spec.completionMode"),
        ("/spec/ttlSecondsAfterFinished".into(), json!(60), "spec.ttlSecondsAfterFinished"),
        ("/spec/managedBy".into(), json!("example.org/x"), "spec.managedBy"),
        ("/spec/podFailurePolicy".into(), json!({"rules": []}), "spec.podFailurePolicy"),
        ("/spec/backoffLimit".into(), json!(-1), "spec.backoffLimit"),
        ("/spec/activeDeadlineSeconds".into(), json!(0), "spec.activeDeadlineSeconds"),
        (pod("restartPolicy"), json!("OnFailure"), "spec.template.spec.restartPolicy"),
        (pod("automountServiceAccountToken"), json!(true), "spec.template.spec.automountServiceAccountToken"),
        (pod("hostNetwork"), json!(true), "spec.template.spec.hostNetwork"),
        (pod("containers"), json!([]), "spec.template.spec.containers"),
        (pod("containers/-"), json!({"name": "second", "image": "x"}), "spec.template.spec.containers"),
        (container("name"), json!("main"), "spec.template.spec.containers"),
        (container("image"), json!(""), "spec.template.spec.containers[0].image"),
        (
            container("env/-"),
            json!({"name": "PREFILL_TASK", "value": "/tmp/x"}),
            "spec.template.spec.containers[0].env[PREFILL_TASK]",
        ),
        (
            container("securityContext/privileged"),
            json!(true),
            "spec.template.spec.containers[0].securityContext.privileged",
        ),
        (
            container("securityContext/readOnlyRootFilesystem"),
            json!(false),
            "spec.template.spec.containers[0].securityContext.readOnlyRootFilesystem",
        ),
        (
            container("securityContext/capabilities"),
            json!({"add": ["NET_RAW"], "drop": ["ALL"]}),
            "spec.template.spec.containers[0].securityContext.capabilities.add",
        ),
        (
            container("securityContext/capabilities"),
            json!({"drop": ["NET_RAW"]}),
            "spec.template.spec.containers[0].securityContext.capabilities.drop",
        ),
        (
            pod("securityContext/seccompProfile"),
            json!({"type": "Unconfined"}),
            "spec.template.spec.securityContext.seccompProfile.type",
        ),
        (pod("securityContext/runAsUser"), json!(0), "spec.template.spec.securityContext.runAsUser"),
        (
            container("resources/limits"),
            json!({"cpu": "1"}),
            "spec.template.spec.containers[0].resources.limits.memory",
        ),
        (container("resources"), json!({}), "spec.template.spec.containers[0].resources.requests.cpu"),
        (pod("volumes"), json!([{"name": "h", "hostPath": {"path": "/"}}]), "spec.template.spec.volumes[0]"),
        (
            pod("volumes"),
            json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]),
            "spec.template.spec.volumes[0].projected",
        ),
        (
            pod("volumes"),
            json!([{"name": "prefill-task", "emptyDir": {}}]),
            "spec.template.spec.volumes[0].name",
        ),
        (
            pod("initContainers"),
            json!([{"name": "i", "image": "x", "securityContext": {"privileged": true},
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}}}]),
            "spec.template.spec.initContainers[0].securityContext.privileged",
        ),
    ] {
        match refusal(&with(&pointer, value)) {
            TemplateError::Rule { path: at, .. } => assert_eq!(at, path),
            other => panic!("{pointer}: {other}"),
        }
    }
}

#[test]
fn unknown_keys_are_refused_by_path() {
    for (pointer, path) in [
        ("/spec/backofLimit", "spec.backofLimit"),
        (
            "/spec/template/spec/containers/0/securityContext/runAsNonroot",
            "spec.template.spec.containers[0].securityContext.runAsNonroot",
        ),
        ("/data", "data"),
    ] {
        assert_eq!(refusal(&with(pointer, json!(1))), TemplateError::UnknownKey { path: path.into() });
    }
}

#[test]
fn null_is_a_key_that_is_not_set() {
    assert!(JobTemplate::parse(&with("/spec/ttlSecondsAfterFinished", Value::Null)).is_ok());
}

#[test]
fn quantities_may_be_numbers_as_for_kubernetes() {
    for cpu in [json!(1), json!(0.5), json!("500m")] {
        let template = with("/spec/template/spec/containers/0/resources/requests/cpu", cpu.clone());
        assert!(JobTemplate::parse(&template).is_ok(), "{cpu}");
    }
}

#[test]
fn wrong_types_are_refused_by_path() {
    let TemplateError::Type { path, message } = refusal(&with("/spec/backoffLimit", json!("many"))) else {
        panic!("a type error was expected")
    };
    assert_eq!(path, "spec.backoffLimit");
    assert!(message.contains("many"), "{message}");
    assert!(matches!(refusal(&with("/kind", json!("Pod"))), TemplateError::Type { .. }));
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    let TemplateError::Yaml(message) = refusal("apiVersion: batch/v1\nkind: [Job\n") else {
        panic!("a YAML error was expected")
    };
    assert!(message.contains("line"), "{message}");
}
