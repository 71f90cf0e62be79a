//! The chart in a real Kubernetes: everything switched on, upgraded while it works, uninstalled; its rights compared with
//! the calls that are made; the optional admission policy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod certificates;
mod policy;
mod rights;

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use certificates::Authority;
use e2e::{Installation, Namespace, chart, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);

/// Names of all that carries the release's label, without what Kubernetes makes by itself.
fn left(namespace: &Namespace) -> Result<Vec<String>> {
    let kinds = "deployments,statefulsets,jobs,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,\
                 leases,networkpolicies,poddisruptionbudgets,ingresses,persistentvolumeclaims";
    let text = namespace.kubectl(&["get", kinds, "-o", "name"])?;
    let of_kubernetes = |name: &str| {
        ["configmap/kube-root-ca.crt", "serviceaccount/default"].contains(&name) || name.contains("udm")
    };
    Ok(text.lines().filter(|name| !of_kubernetes(name)).map(str::to_owned).collect())
}

#[tokio::test]
async fn everything_on_works_and_leaves_only_the_volume() -> Result<()> {
    let namespace = Installation::prepare("everything", 40, 3)?;
    let authority = Authority::new();
    namespace.apply(&authority.secret("nats-tls", "hs-headstart-nats"))?;
    namespace.apply(&authority.secret("api-tls", "hs-headstart-api"))?;
    namespace.apply(&authority.secret("client-tls", "headstart"))?;
    // As the charts of consumers make them; one without a password in the JSON.
    namespace.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hs-selfservice"}, "stringData": {
            "password": "chosen",
            "registration": json!({
                "name": "selfservice", "realms_topics": [{"realm": "udm", "topic": "users/user"}],
                "request_prefill": true, "password": "chosen",
            }).to_string(),
        }},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "portal"}, "stringData": {
            "password": "beside",
            "json": json!({
                "name": "portal", "realms_topics": [{"realm": "udm", "topic": "groups/group"}],
                "request_prefill": false,
            }).to_string(),
        }},
    ]}))?;
    let values = [
        "replicaCount.api=2",
        "replicaCount.controller=2",
        "nats.tls.enabled=true",
        "nats.tls.server.existingSecret.name=nats-tls",
        "nats.tls.client.existingSecret.name=client-tls",
        "api.tls.enabled=true",
        "api.tls.existingSecret.name=api-tls",
        "api.tls.ca.existingSecret.name=api-tls",
        "nats.extraUsers.udmListener.enabled=true",
        "networkPolicy.enabled=true",
        "dashboard.enabled=true",
        "ingress.enabled=true",
        "ingress.host=provisioning.example.org",
        "registerConsumers.createUsers.selfserviceConsumer.existingSecret.name=hs-selfservice",
        "registerConsumers.createUsers.portal.existingSecret.name=portal",
        "registerConsumers.createUsers.portal.existingSecret.keyMapping.registration=json",
    ];
    let hs = Installation::install_into(namespace, &chart(), Some(&authority.pem()), &values).await?;
    let registered = ["wait", "--for=condition=complete", "--timeout=120s", "jobs"];
    let selector = ["-l", "app.kubernetes.io/component=register-consumers"];
    hs.namespace.kubectl(&[&registered[..], &selector].concat())?;

    let selfservice = hs.consumer("selfservice", "chosen");
    let portal = hs.consumer("portal", "beside");
    selfservice.await_prefill("done").await?;
    hs.producer().send("groups/group", "live").await?;
    assert_eq!(selfservice.read(40).await?.len(), 40);
    assert_eq!(portal.read(1).await?[0]["body"]["new"]["id"], "live");

    // A prefill that runs, and one that waits: neither outlives the release.
    hs.slow_down(300).await?;
    let running = hs.register("running", &["users/user"], true).await?;
    running.await_prefill("running").await?;
    hs.namespace.helm(&["uninstall", "hs", "--wait", "--timeout", "120s"])?;
    let asked_to_stay = [
        "persistentvolumeclaim/data-hs-headstart-nats-0",
        "secret/api-tls",
        "secret/client-tls",
        "secret/hs-selfservice",
        "secret/nats-tls",
        "secret/portal",
    ];
    eventually("nothing to be left but what was asked to stay", SOON, async || {
        let mut left = left(&hs.namespace)?;
        left.sort();
        ensure!(left == asked_to_stay, "{left:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_chart_is_upgraded_from_the_former_version_while_a_prefill_runs() -> Result<()> {
    let former = Path::new(env!("CARGO_MANIFEST_DIR")).join("former/headstart-0.1.0.tgz");
    let namespace = Installation::prepare("upgrade", 120, 3)?;
    let hs = Installation::install_into(namespace, &former, None, &[]).await?;
    hs.slow_down(400).await?;
    let mail = hs.register("mail", &["groups/group", "users/user"], true).await?;
    mail.await_prefill("running").await?;
    hs.producer().send("users/user", "before").await?;
    let pods_of_the_api = || {
        let pods = hs.namespace.get(&["pods", "-l", "app.kubernetes.io/component=api"])?;
        let pods = pods["items"].as_array().into_iter().flatten().map(|pod| &pod["metadata"]);
        // Those that end serve for some seconds more.
        let stay = pods.filter(|metadata| metadata.get("deletionTimestamp").is_none());
        let uids = stay.map(|metadata| metadata["uid"].to_string());
        anyhow::Ok(uids.collect::<Vec<_>>())
    };
    let before = pods_of_the_api()?;
    let documented = std::fs::read_to_string(chart().join("../../docs/how-to/upgrade.md"))?;
    let line =
        "helm upgrade headstart charts/headstart --namespace identity --reset-then-reuse-values --wait\n";
    ensure!(documented.contains(line), "the documented command is the one that is tried here");
    hs.upgrade_as_documented(&chart(), "replicaCount.api=2")?;
    let after = pods_of_the_api()?;
    ensure!(after.len() == 2 && after.iter().all(|uid| !before.contains(uid)), "{before:?}, {after:?}");
    hs.producer().send("users/user", "after").await?;
    hs.slow_down(0).await?;
    mail.await_prefill("done").await?;
    ensure!(hs.job("mail", 2).is_err(), "the prefill that ran at the upgrade is the one that is done");
    let messages = mail.read(4 + 120 + 2).await?;
    let topics: Vec<&str> = messages.iter().map(|m| m["topic"].as_str().unwrap()).collect();
    assert!(topics[..4].iter().all(|topic| *topic == "groups/group"), "{topics:?}");
    let live: Vec<&Value> = messages[124..].iter().map(|m| &m["body"]["new"]["id"]).collect();
    assert_eq!(live, ["before", "after"]);
    Ok(())
}

#[tokio::test]
async fn what_the_schema_takes_the_api_server_takes() -> Result<()> {
    let namespace = Namespace::create("golden")?;
    for set in ["minimal", "opendesk", "everything", "queue"] {
        let values = format!("{}/tests/chart/values/{set}.yaml", env!("CARGO_MANIFEST_DIR"));
        let chart = chart().display().to_string();
        let rendered = namespace.helm(&["template", "ums", &chart, "--values", &values])?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&rendered)?;
        // The kinds of Prometheus and of the Gateway API are no part of a cluster.
        let foreign = ["monitoring.coreos.com", "gateway.networking.k8s.io"];
        let known: Vec<Value> = documents
            .into_iter()
            .filter(|o| {
                let version = o["apiVersion"].as_str().unwrap_or_default();
                !version.is_empty() && !foreign.iter().any(|group| version.starts_with(group))
            })
            .collect();
        assert!(known.len() > 10, "{set}");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": known});
        namespace.apply_with(&list, &["--dry-run=server", "--validate=strict"])?;
    }
    Ok(())
}
