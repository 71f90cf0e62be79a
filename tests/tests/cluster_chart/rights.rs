//! The Roles of the chart and the calls that are really made, as the API server's audit log has them, in both directions.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{Installation, Namespace, eventually};
use serde_json::{Value, json};

use crate::SOON;

/// Who, and what: verb, resource with its group, and the object's name where the Role gives one.
type Call = (String, String, String);

/// The lines of the audit log about this namespace's accounts of ours; `None` if the cluster has none that we can read.
fn audited(namespace: &str) -> Result<Option<Vec<Value>>> {
    let Some(path) = std::env::var_os("HEADSTART_AUDIT_LOG") else { return Ok(None) };
    let account = format!("system:serviceaccount:{namespace}:hs-headstart-");
    let mut lines = Vec::new();
    for line in BufReader::new(File::open(path).context("the audit log")?).lines() {
        let line = line?;
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if event["user"]["username"].as_str().is_some_and(|user| user.starts_with(&account)) {
            lines.push(event);
        }
    }
    Ok(Some(lines))
}

fn component(event: &Value) -> String {
    let user = event["user"]["username"].as_str().unwrap_or_default();
    user.rsplit("hs-headstart-").next().unwrap_or_default().to_owned()
}

fn resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// The calls that were made, and those that were refused.
fn made(events: &[Value]) -> (BTreeSet<Call>, Vec<&Value>) {
    let of_resource = events.iter().filter(|event| event["objectRef"]["resource"].is_string());
    let call = |event: &Value| {
        let object = &event["objectRef"];
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        let verb = event["verb"].as_str().unwrap_or_default().to_owned();
        (component(event), verb, resource(text("apiGroup"), text("resource")))
    };
    let refused =
        events.iter().filter(|e| e["annotations"]["authorization.k8s.io/decision"] == "forbid").collect();
    (of_resource.map(call).collect(), refused)
}

/// What the installed Roles allow.
fn allowed(namespace: &Namespace) -> Result<BTreeSet<Call>> {
    let mut calls = BTreeSet::new();
    for role in namespace.get(&["roles"])?["items"].as_array().context("no roles")? {
        let role_name = role["metadata"]["name"].as_str().unwrap_or_default();
        let component = role_name.rsplit("hs-headstart-").next().unwrap_or_default();
        for rule in role["rules"].as_array().into_iter().flatten() {
            let texts = |key: &str| -> Vec<String> {
                let values = rule[key].as_array().into_iter().flatten();
                values.map(|value| value.as_str().unwrap_or_default().to_owned()).collect()
            };
            for group in texts("apiGroups") {
                for name in texts("resources") {
                    for verb in texts("verbs") {
                        calls.insert((component.to_owned(), verb, resource(&group, &name)));
                    }
                }
            }
        }
    }
    Ok(calls)
}

/// Leads the installation through all that needs a right.
async fn tour(hs: &Installation) -> Result<()> {
    // Sent twice at once, one of the two finds the Job that the other has made, sooner or later.
    let found = || -> Result<bool> {
        let events = audited(&hs.namespace.name)?.unwrap_or_default();
        Ok(["jobs.batch", "configmaps"].iter().all(|resource| {
            made(&events).0.contains(&("api".to_owned(), "get".to_owned(), (*resource).to_owned()))
        }))
    };
    for round in 0..20 {
        if found()? {
            break;
        }
        let name = format!("twins{round}");
        let (one, other) = tokio::join!(
            hs.register(&name, &["users/user"], true),
            hs.register(&name, &["users/user"], true)
        );
        one?;
        other?.remove().await?;
    }
    // A Job that is deleted while it waits is made again, with its ConfigMap; what can't start explains itself by Events.
    hs.slow_down(2000).await?;
    let first = hs.register("first", &["users/user"], true).await?;
    first.await_prefill("running").await?;
    let second = hs.register("second", &["users/user"], true).await?;
    let job = hs.job("second", 1)?;
    let (name, uid) = (job["metadata"]["name"].as_str().unwrap(), &job["metadata"]["uid"]);
    hs.namespace.kubectl(&["delete", "job", name])?;
    eventually("the Job to be made again", SOON, async || {
        let again = hs.job("second", 1)?;
        ensure!(again["metadata"]["uid"] != *uid, "{again}");
        Ok(())
    })
    .await?;
    // What is told twice is counted: one Event, patched.
    let job = hs.job("first", 1)?;
    let name = job["metadata"]["name"].as_str().unwrap();
    for _ in 0..2 {
        for suspend in [true, false] {
            let patch = json!({"spec": {"suspend": suspend}}).to_string();
            hs.namespace.kubectl(&["patch", "job", name, "--type=merge", "-p", &patch])?;
            eventually("the suspension to be shown, and its end", SOON, async || {
                let seen = first.subscription().await?;
                ensure!((seen["prefill"]["reason"] == "Suspended") == suspend, "{seen}");
                Ok(())
            })
            .await?;
        }
    }
    hs.slow_down(0).await?;
    // Its Job must not be the one that the quota stops: it would keep the only place.
    first.await_prefill("done").await?;
    second.await_prefill("done").await?;
    hs.namespace.quota("count/pods=1", None).await?;
    let third = hs.register("third", &["users/user"], true).await?;
    eventually("the quota to be named", SOON, async || {
        let seen = third.subscription().await?;
        ensure!(
            seen["prefill"]["reason"].is_string() && seen["prefill"]["message"].to_string().contains("quota"),
            "{seen}"
        );
        Ok(())
    })
    .await?;
    hs.namespace.kubectl(&["delete", "resourcequota", "none"])?;
    third.remove().await?;
    first.remove().await?;
    Ok(())
}

#[tokio::test]
async fn rights_are_exactly_those_that_are_used() -> Result<()> {
    let values = ["controller.config.maxRunningPrefills=1", "controller.config.startDeadlineSeconds=60"];
    let hs = Installation::install("rights", 60, 1, &values).await?;
    if audited(&hs.namespace.name)?.is_none() {
        let given = std::env::var_os("HEADSTART_TEST_KUBECONFIG").is_some();
        ensure!(given, "the test's own cluster has an audit log, and it is not found (HEADSTART_AUDIT_LOG)");
        eprintln!("not looked at: this cluster's audit log can't be read (HEADSTART_AUDIT_LOG)");
        return Ok(());
    }
    tour(&hs).await?;
    let allowed = allowed(&hs.namespace)?;
    eventually("each right to be used", Duration::from_secs(30), async || {
        let events = audited(&hs.namespace.name)?.context("the audit log has gone")?;
        let (made, refused) = made(&events);
        ensure!(refused.is_empty(), "refused: {refused:?}");
        let unused: Vec<_> = allowed.difference(&made).collect();
        ensure!(unused.is_empty(), "allowed, and never done: {unused:?}");
        let beyond: Vec<_> = made.difference(&allowed).collect();
        ensure!(beyond.is_empty(), "done without a Role of ours: {beyond:?}");
        Ok(())
    })
    .await
}
