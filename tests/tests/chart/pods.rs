//! The rules that openDesk checks on every pod (Kyverno policies of its deployment), also on those of prefill Jobs,
//! which Helm never sees: they are built here by the code that builds them in a cluster.

use manifests::JobTemplate;
use model::{Incarnation, prefill::PrefillTask};
use serde_json::Value;

use crate::{
    SETS,
    helm::{kind, name, render, root},
};

/// A pod and who makes it.
pub struct Pod {
    pub owner: String,
    pub spec: Value,
    /// A Job's: without probes.
    pub job: bool,
}

impl Pod {
    fn containers(&self) -> impl Iterator<Item = &Value> {
        ["containers", "initContainers"]
            .into_iter()
            .flat_map(|key| self.spec[key].as_array().into_iter().flatten())
    }
}

/// All pods of a set of values.
pub fn all(set: &str) -> Vec<Pod> {
    let mut pods = Vec::new();
    for object in render(set) {
        let owner = format!("{set}: {} {}", kind(&object), name(&object));
        if let Some(spec) = object.pointer("/spec/template/spec") {
            pods.push(Pod { owner: owner.clone(), spec: spec.clone(), job: kind(&object) == "Job" });
        }
        if let Some(template) = object.pointer("/data/job.yaml").and_then(Value::as_str) {
            let job = serde_json::to_value(job(template)).unwrap();
            pods.push(Pod { owner, spec: job["spec"]["template"]["spec"].clone(), job: true });
        }
    }
    pods
}

/// The Job of an attempt, as API and controller make it from the rendered template.
fn job(template: &str) -> k8s_openapi::api::batch::v1::Job {
    let template = JobTemplate::parse(template).unwrap();
    let task = PrefillTask {
        subscription: "mail".parse().unwrap(),
        incarnation: Incarnation(uuid::Uuid::from_u128(1)),
        round: 1,
        attempt: 1,
        realms_topics: vec![],
        selection: None,
        track: false,
        mode: model::prefill::PrefillMode::Prefill,
        max_removals: None,
        dry_run: false,
    };
    manifests::job(&template, &task)
}

fn each(check: impl Fn(&Pod)) {
    for set in SETS {
        let pods = all(set);
        assert!(pods.len() >= 3, "{set}: {} pods", pods.len());
        pods.iter().for_each(&check);
    }
}

fn each_container(check: impl Fn(&Pod, &Value)) {
    each(|pod| pod.containers().for_each(|container| check(pod, container)));
}

#[test]
fn the_job_template_is_one_that_headstart_takes() {
    let templates = |set: &str| render(set).iter().filter(|o| o.pointer("/data/job.yaml").is_some()).count();
    assert_eq!(SETS.map(templates), [1, 1, 1, 0], "the queue needs none");
    // Parsing it is part of `all`. Besides the template there is the Job that registers consumers.
    assert_eq!(SETS.map(|set| all(set).iter().filter(|pod| pod.job).count()), [1, 3, 2, 0]);
}

#[test]
fn every_container_is_restricted() {
    each_container(|pod, container| {
        let context = &container["securityContext"];
        for (key, value) in [
            ("readOnlyRootFilesystem", Value::from(true)),
            ("allowPrivilegeEscalation", false.into()),
            ("privileged", false.into()),
            ("runAsNonRoot", true.into()),
            ("capabilities", serde_json::json!({"drop": ["ALL"]})),
            ("seccompProfile", serde_json::json!({"type": "RuntimeDefault"})),
        ] {
            assert_eq!(context[key], value, "{}: {key}", pod.owner);
        }
        for key in ["runAsUser", "runAsGroup"] {
            assert!(context[key].as_u64() >= Some(1000), "{}: {key}", pod.owner);
        }
        for key in ["procMount", "appArmorProfile"] {
            assert_eq!(context.get(key), None, "{}: {key}", pod.owner);
        }
        let selinux = pod.owner.starts_with("opendesk").then_some("s0:c1,c2").map(Value::from);
        assert_eq!(context.pointer("/seLinuxOptions/level"), selinux.as_ref(), "{}", pod.owner);
    });
}

#[test]
fn no_pod_touches_its_host() {
    each(|pod| {
        for key in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
            assert_eq!(pod.spec.get(key), None, "{}: {key}", pod.owner);
        }
        assert_eq!(pod.spec["securityContext"].get("sysctls"), None, "{}", pod.owner);
        for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
            let allowed = ["configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"];
            assert!(!volume.to_string().contains("serviceAccountToken"), "{}: {volume}", pod.owner);
            assert!(allowed.iter().any(|key| volume.get(key).is_some()), "{}: {volume}", pod.owner);
        }
    });
    each_container(|pod, container| {
        for port in container["ports"].as_array().into_iter().flatten() {
            assert_eq!(port.get("hostPort"), None, "{}", pod.owner);
        }
    });
}

#[test]
fn every_container_asks_for_what_it_needs() {
    each_container(|pod, container| {
        for pointer in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
            assert!(container["resources"].pointer(pointer).is_some(), "{}: {pointer}", pod.owner);
        }
    });
}

#[test]
fn every_pod_has_an_account_of_its_own_and_only_two_have_a_token() {
    let mut accounts = Vec::new();
    for pod in all("minimal") {
        let account = pod.spec["serviceAccountName"].as_str().unwrap().to_owned();
        let expected = account.ends_with("-api") || account.ends_with("-controller");
        assert_eq!(pod.spec["automountServiceAccountToken"], expected, "{}", pod.owner);
        accounts.push(account);
    }
    accounts.sort();
    let expected =
        ["api", "controller", "dispatcher", "nats", "prefill"].map(|c| format!("ums-headstart-{c}"));
    assert_eq!(accounts, expected);
}

#[test]
fn services_have_probes() {
    each(|pod| {
        for container in pod.containers().filter(|_| !pod.job) {
            for probe in ["livenessProbe", "readinessProbe"] {
                assert!(container[probe]["periodSeconds"].as_u64() > Some(0), "{}: {probe}", pod.owner);
                let Some(path) = container[probe]["httpGet"]["path"].as_str() else {
                    panic!("{}", pod.owner)
                };
                assert!(path.starts_with(if probe == "livenessProbe" { "/healthz" } else { "/" }), "{path}");
            }
        }
    });
}

#[test]
fn images_registries_secrets_and_policies_come_from_the_values() {
    for pod in all("opendesk") {
        assert_eq!(
            pod.spec["imagePullSecrets"],
            serde_json::json!([{"name": "kyverno-test"}]),
            "{}",
            pod.owner
        );
        for container in pod.containers() {
            let image = container["image"].as_str().unwrap();
            assert!(image.starts_with("my_private_registry.domain.tld/opendesk/"), "{image}");
            let (tag, digest) = image
                .rsplit_once(':')
                .and_then(|(tag, digest)| Some((tag.strip_suffix("@sha256")?, digest)))
                .unwrap();
            assert!(tag.contains(':') && digest.len() == 64, "{image}: tag and digest");
            assert_eq!(container["imagePullPolicy"], "Never", "{}", pod.owner);
        }
    }
    each_container(|pod, container| {
        let image = container["image"].as_str().unwrap();
        assert!(image.contains(':') && !image.contains(":latest"), "{}: {image}", pod.owner);
    });
}

#[test]
fn replicas_and_storage_come_from_the_values() {
    for object in render("opendesk") {
        match kind(&object) {
            "Deployment" => assert_eq!(object["spec"]["replicas"], 42, "{}", name(&object)),
            "StatefulSet" => {
                let claim = &object["spec"]["volumeClaimTemplates"][0]["spec"];
                assert_eq!(claim["storageClassName"], "fast");
                assert_eq!(claim["resources"]["requests"]["storage"], "42Gi");
            }
            _ => {}
        }
    }
}

#[test]
fn no_password_stands_in_a_pod() {
    each_container(|pod, container| {
        for env in container["env"].as_array().into_iter().flatten() {
            let name = env["name"].as_str().unwrap();
            let value = env["value"].as_str();
            let is_reference = value.is_some_and(|value| value.starts_with("'$("));
            if name.ends_with("_FILE") {
                assert!(value.is_some_and(|path| path.starts_with('/')), "{}: {name}", pod.owner);
            } else if name.contains("PASSWORD") && !is_reference {
                assert!(env.pointer("/valueFrom/secretKeyRef").is_some(), "{}: {name}", pod.owner);
            }
        }
    });
}

/// What a variable names has to be mounted, and each mount has to be of a volume that is there.
#[test]
fn files_that_variables_name_are_mounted() {
    each_container(|pod, container| {
        let mounts: Vec<&Value> = container["volumeMounts"].as_array().into_iter().flatten().collect();
        for mount in &mounts {
            let mut volumes = pod.spec["volumes"].as_array().into_iter().flatten();
            // The claim of a StatefulSet is no volume of its template.
            let claimed = mount["name"] == "data";
            assert!(claimed || volumes.any(|v| v["name"] == mount["name"]), "{}: {mount}", pod.owner);
        }
        for env in container["env"].as_array().into_iter().flatten() {
            let Some(path) =
                env["value"].as_str().filter(|_| env["name"].as_str().unwrap().ends_with("_FILE"))
            else {
                continue;
            };
            let mounted = mounts.iter().any(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()));
            assert!(mounted, "{}: {path}", pod.owner);
        }
    });
}

/// What `docs/admission-policy.yaml` does not name it refuses: a variable that the chart gains has to be named there.
#[test]
fn the_admission_policy_knows_the_variables_of_a_prefill() {
    let policy = std::fs::read_to_string(root().join("docs/admission-policy.yaml")).unwrap();
    let known = |name: &str| {
        name.starts_with("UDM_") || name.ends_with("_FILE") || policy.contains(&format!("'{name}'"))
    };
    let pods = SETS.into_iter().flat_map(all).filter(|pod| pod.spec["containers"][0]["args"][0] == "prefill");
    let names: Vec<String> = pods
        .flat_map(|pod| pod.spec["containers"][0]["env"].as_array().cloned().unwrap_or_default())
        .map(|env| env["name"].as_str().unwrap().to_owned())
        // What an administrator adds is the administrator's to add there, too.
        .filter(|name| name != "REGION")
        .collect();
    assert!(names.len() > 10, "{names:?}");
    let unknown: Vec<&String> = names.iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
