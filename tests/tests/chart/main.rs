//! What the Helm chart renders: goldens to be read as an administrator would, and the rules that goldens can't defend.
//!
//! Needs helm, and no cluster. Goldens are updated with `INSTA_UPDATE=always cargo test -p e2e --test chart`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod alerts;
mod extra_users;
mod former;
mod helm;
mod leaves;
mod monitoring;
mod numbers;
mod permissions;
mod pods;
mod program;
mod reachability;
mod refused;
mod rights;

use helm::{kind, name, render, render_with};
use serde_json::{Value, json};

/// The sets of values in `values/`.
const SETS: [&str; 4] = ["minimal", "opendesk", "everything", "queue"];

#[test]
fn minimal() {
    insta::assert_snapshot!(golden("minimal"));
}

#[test]
fn opendesk() {
    insta::assert_snapshot!(golden("opendesk"));
}

#[test]
fn everything() {
    insta::assert_snapshot!(golden("everything"));
}

#[test]
fn queue() {
    insta::assert_snapshot!(golden("queue"));
}

fn golden(set: &str) -> String {
    helm::without_generated(&helm::template(set, &[]).unwrap())
}

#[test]
fn helm_lint_is_content() {
    for set in SETS {
        helm::lint(set).unwrap();
    }
}

#[test]
fn unknown_and_impossible_values_are_refused_by_name() {
    for (set, word) in [
        ("api.confg.LOG_LEVEL=info", "confg"),
        ("nats.persistence.sise=1Gi", "sise"),
        ("containerSecurityContext.readOnlyRootFileSystem=true", "readOnlyRootFileSystem"),
        ("launcher=cron", "launcher"),
        ("limits.queue.whenFull=drop", "whenFull"),
        ("limits.log.maxBytes=9GiB", "maxBytes"),
        ("resources.prefill.limits=null", "limits"),
        ("replicaCount.api=-1", "replicaCount"),
        ("image.digest=latest", "digest"),
        ("prefill.udm.auth.password=", "prefill.udm.auth"),
        ("nats.config.maxFileStore=12GiB", "nats.config.maxFileStore: 12GiB is more than the volume"),
        ("nats.persistence.size=1e10", "nats.persistence.size"),
        ("service.ipFamilyPolicy=Both", "ipFamilyPolicy"),
        ("resources.api.requests.cpu=-1", "cpu"),
        ("api.image.repo=x,udmTransformr.image=x", "udmTransformr"),
        ("nats.bundled=false", "nats.auth"),
        ("nats.streamReplicas=3", "streamReplicas"),
        ("nats.tls.enabled=true", "nats.tls.server.existingSecret.name"),
        (
            "nats.extraUsers.looker.enabled=true,nats.extraUsers.looker.auth.password=x",
            "nats.extraUsers.looker.permissions",
        ),
        ("nats.extraUsers.a_b.enabled=true", "extraUsers"),
        ("api.tls.enabled=true", "api.tls.existingSecret.name"),
        ("ingress.enabled=true", "ingress.host"),
        ("ingress.enabled=true,ingress.host=a.example,ingress.tls.enabled=true", "ingress.tls.secretName"),
        ("httpRoute.enabled=true", "httpRoute.parentRefs"),
        ("registerConsumers.createUsers.mail.secret=x", "mail"),
        ("registerConsumers.config.ifDifferent=replace", "ifDifferent"),
        ("networkPolicy.udm.ports={http}", "networkPolicy/udm/ports"),
    ] {
        let refusal = helm::template("minimal", &["--set", set]).expect_err(set);
        assert!(refusal.contains(word), "{set}: {refusal}");
    }
    // Other charts' globals, and the switch of an umbrella chart, are none of our business.
    helm::template("minimal", &["--set", "global.domain=example.org,enabled=true"]).unwrap();
}

#[test]
fn nothing_is_cluster_scoped_or_outside_of_the_namespace() {
    const NAMESPACED: [&str; 15] = [
        "ConfigMap",
        "Deployment",
        "HTTPRoute",
        "Ingress",
        "Job",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    ];
    for set in SETS {
        for object in render(set) {
            assert!(NAMESPACED.contains(&kind(&object)), "{set}: {} {}", kind(&object), name(&object));
            assert_eq!(object.pointer("/metadata/namespace"), None, "{set}: {}", name(&object));
        }
    }
}

#[test]
fn names_fit_however_long_the_release_is() {
    let release = "a-release-with-a-very-long-name-that-helm-still-takes";
    for set in SETS {
        for object in helm::parse(&helm::template_as(release, set, &[]).unwrap()) {
            assert!(name(&object).len() <= 63, "{set}: {}", name(&object));
        }
    }
}

#[test]
fn the_plain_roles_are_those_of_the_chart() {
    let plain: Vec<Value> = ["roles", "role-bindings", "service-accounts"]
        .iter()
        .flat_map(|file| {
            let path = helm::root().join(format!("rbac/{file}.yaml"));
            helm::parse(&std::fs::read_to_string(&path).expect("reading rbac/"))
        })
        .collect();
    let rendered: Vec<Value> = helm::parse(&helm::template_as("headstart", "minimal", &[]).unwrap())
        .into_iter()
        .filter(|object| ["Role", "RoleBinding", "ServiceAccount"].contains(&kind(object)))
        .map(|mut object| {
            let labels = object["metadata"]["labels"].as_object_mut().unwrap();
            for of_helm in ["helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"] {
                labels.remove(of_helm);
            }
            object
        })
        .collect();
    let sorted = |mut objects: Vec<Value>| {
        objects.sort_by_key(|object| (kind(object).to_owned(), name(object).to_owned()));
        objects
    };
    assert_eq!(sorted(plain), sorted(rendered));
}

#[test]
fn roles_allow_what_the_design_says_and_no_more() {
    let roles: Vec<Value> = render("minimal").into_iter().filter(|object| kind(object) == "Role").collect();
    let rule = |groups: Value, resource: &str, verbs: Value| json!({"apiGroups": groups, "resources": [resource], "verbs": verbs});
    let lease = "ums-headstart-controller";
    let expected = [
        (
            "ums-headstart-api",
            json!([
                rule(json!(["batch"]), "jobs", json!(["create", "get"])),
                rule(json!([""]), "configmaps", json!(["create", "get"])),
            ]),
        ),
        (
            "ums-headstart-controller",
            json!([
                rule(json!(["batch"]), "jobs", json!(["create", "get", "list", "watch", "patch", "delete"])),
                rule(json!([""]), "pods", json!(["list", "watch"])),
                rule(json!([""]), "configmaps", json!(["create", "get"])),
                rule(json!([""]), "events", json!(["list"])),
                rule(json!(["events.k8s.io"]), "events", json!(["create", "patch"])),
                rule(json!(["coordination.k8s.io"]), "leases", json!(["create"])),
                {
                    "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [lease],
                    "verbs": ["get", "update"],
                },
            ]),
        ),
    ];
    let found: Vec<_> = roles.iter().map(|role| (name(role), role["rules"].clone())).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_controllers_lease_is_the_one_that_its_role_names() {
    let controller =
        render("minimal").into_iter().find(|o| kind(o) == "Deployment" && name(o).ends_with("controller"));
    let env = controller.unwrap()["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let lease = env.as_array().unwrap().iter().find(|env| env["name"] == "LEASE_NAME").unwrap();
    assert_eq!(lease["value"], "ums-headstart-controller");
}

#[test]
fn without_kubernetes_as_launcher_there_is_no_right_at_all() {
    for object in render("queue") {
        assert!(!["Role", "RoleBinding"].contains(&kind(&object)), "{}", name(&object));
    }
    for pod in pods::all("queue") {
        assert_eq!(pod.spec["automountServiceAccountToken"], false, "{}", pod.owner);
    }
}

#[test]
fn passwords_are_generated_once_for_each() {
    let secrets = || -> Vec<String> {
        let secrets = render("minimal").into_iter().filter(|object| kind(object) == "Secret");
        secrets.map(|secret| secret["data"]["password"].as_str().unwrap().to_owned()).collect()
    };
    let mut all: Vec<String> = secrets();
    assert_eq!(all.len(), 8, "three of the API, four of NATS, one of UDM");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "no two alike");
}

#[test]
fn a_dump_needs_no_password_of_udm() {
    let options = ["--set", "prefill.udm.auth.password=,prefill.config.SOURCE=/data/dump.ldif"];
    let objects = render_with("minimal", &options);
    let template = objects.iter().find_map(|object| object.pointer("/data/job.yaml")).unwrap();
    let template = template.as_str().unwrap();
    assert!(template.contains("NATS_PASSWORD_FILE") && !template.contains("UDM_PASSWORD_FILE"), "{template}");
    assert!(!objects.iter().any(|o| kind(o) == "Secret" && name(o).contains("udm")));
}

#[test]
fn a_budget_never_keeps_the_only_pod_from_moving() {
    let budgets = |options: &[&str]| -> Vec<String> {
        let budgets =
            render_with("minimal", options).into_iter().filter(|o| kind(o) == "PodDisruptionBudget");
        budgets.map(|budget| name(&budget).to_owned()).collect()
    };
    assert_eq!(budgets(&[]), [] as [&str; 0]);
    let two = ["--set", "replicaCount.api=2,replicaCount.dispatcher=3"];
    assert_eq!(budgets(&two), ["ums-headstart-api", "ums-headstart-dispatcher"]);
}

/// Every pod's labels are matched by exactly one policy, or a pod would be open or shut by accident.
#[test]
fn each_pod_has_a_network_policy() {
    let objects = render("everything");
    let policies: Vec<&Value> = objects.iter().filter(|o| kind(o) == "NetworkPolicy").collect();
    let mut pods: Vec<Value> =
        objects.iter().filter_map(|o| o.pointer("/spec/template/metadata/labels").cloned()).collect();
    let template = objects.iter().find_map(|o| o.pointer("/data/job.yaml")).unwrap().as_str().unwrap();
    pods.push(helm::parse(template)[0]["spec"]["template"]["metadata"]["labels"].clone());
    assert_eq!(pods.len(), policies.len());
    for labels in pods {
        let matches = policies.iter().filter(|policy| {
            let wanted = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
            wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        assert_eq!(matches.count(), 1, "{labels}");
    }
}

#[test]
fn existing_secrets_are_used_and_none_is_made() {
    let objects = render("opendesk");
    assert!(objects.iter().all(|object| kind(object) != "Secret"));
}

#[test]
fn the_values_for_opendesk_need_no_generated_secret_and_take_its_globals() {
    let values = helm::chart().join("values-opendesk.yaml");
    // The set only adds what the shipped file overrides.
    let options =
        ["--values", values.to_str().unwrap(), "--set", "global.imageRegistry=registry.example.org/mirror"];
    let objects = render_with("minimal", &options);
    assert!(objects.iter().all(|object| kind(object) != "Secret"));
    let names: Vec<&str> = objects.iter().map(name).collect();
    assert!(names.contains(&"ums-provisioning-api") && names.contains(&"ums-provisioning-nats"), "{names:?}");
    let rendered = helm::template("minimal", &options).unwrap();
    for line in rendered.lines().filter(|line| line.trim_start().starts_with("image: ")) {
        assert!(line.contains(" registry.example.org/mirror/"), "{line}");
    }
    assert!(rendered.contains("cn=stack-data-ums.done,cn=data,cn=univention,dc=swp-ldap,dc=internal"));
}

#[test]
fn a_password_that_changes_starts_the_pods_anew() {
    let annotation = |objects: Vec<Value>, end: &str| {
        let object =
            objects.into_iter().find(|o| o.pointer("/spec/template").is_some() && name(o).ends_with(end));
        object.unwrap()["spec"]["template"]["metadata"]["annotations"].clone()
    };
    for component in ["api", "nats"] {
        let before = annotation(render("minimal"), component);
        assert_eq!(before, annotation(render("minimal"), component), "nothing changed");
        let after = annotation(render_with("minimal", &["--set", "api.nats.auth.password=new"]), component);
        assert_ne!(before, after, "{component}");
    }
    // A new version of the chart alone is no reason to stop the NATS server.
    let nats = annotation(render("minimal"), "nats").to_string();
    assert!(!nats.contains(env!("CARGO_PKG_VERSION")), "{nats}");
}
