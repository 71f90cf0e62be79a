//! The whole job in a real Kubernetes: install the chart, register, prefill by a Job, read prefill then live, remove.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Installation, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(120);
const MANAGED: &str = "app.kubernetes.io/managed-by=headstart";

fn kinds(messages: &[Value]) -> Vec<(&str, &str)> {
    messages.iter().map(|m| (m["publisher_name"].as_str().unwrap(), m["topic"].as_str().unwrap())).collect()
}

fn live_ids(messages: &[Value]) -> Vec<&str> {
    messages
        .iter()
        .filter(|m| m["publisher_name"] == "udm-listener")
        .map(|m| m["body"]["new"]["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_consumer_is_registered_prefilled_by_a_job_served_and_removed() -> Result<()> {
    let hs = Installation::install("story", 60, 8, &[]).await?;
    let mail = hs.register("mail", &["groups/group", "users/user"], true).await?;
    let chat = hs.register("chat", &["users/.*"], false).await?;
    let producer = hs.producer();
    for n in 0..5 {
        producer.send("users/user", &format!("live{n}")).await?;
    }
    // Without a prefill: live at once.
    assert_eq!(live_ids(&chat.read(5).await?), ["live0", "live1", "live2", "live3", "live4"]);

    let done = mail.await_prefill("done").await?;
    assert_eq!(done["prefill"]["attempt"], 1, "{done}");
    // The stand-in makes 8 groups, and one that holds everybody.
    let messages = mail.read(9 + 60 + 5).await?;
    let mut expected = vec![("udm-pre-fill", "groups/group"); 9];
    expected.extend(vec![("udm-pre-fill", "users/user"); 60]);
    expected.extend(vec![("udm-listener", "users/user"); 5]);
    assert_eq!(kinds(&messages), expected);
    assert_eq!(live_ids(&messages), ["live0", "live1", "live2", "live3", "live4"]);
    assert_eq!(mail.next(0.1).await?, None);

    // What an admin sees.
    // The seal decides: the queue may be open a moment before Kubernetes has seen the pod's end.
    eventually("the Job to be complete", SOON, async || {
        let job = hs.job("mail", 1)?;
        let conditions = job["status"]["conditions"].as_array().context("no conditions")?;
        ensure!(
            conditions.iter().any(|c| c["type"] == "Complete" && c["status"] == "True"),
            "{conditions:?}"
        );
        Ok(())
    })
    .await?;
    let pods = hs.namespace.get(&["pods", "-l", "app.kubernetes.io/component=prefill"])?;
    let pod = &pods["items"][0];
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    let volumes = pod["spec"]["volumes"].to_string();
    assert!(!volumes.contains("serviceAccountToken"), "the pod has a token: {volumes}");
    let table = hs.namespace.kubectl(&["get", "jobs", "-l", MANAGED])?;
    assert!(table.contains("headstart-prefill-mail-") && table.contains("Complete"), "{table}");
    assert!(!table.contains("chat"), "no Job for who wants no prefill: {table}");

    mail.remove().await?;
    chat.remove().await?;
    eventually("the Job and its ConfigMap to be gone", SOON, async || {
        let left = hs.namespace.kubectl(&["get", "jobs,configmaps", "-l", MANAGED, "-o", "name"])?;
        ensure!(!left.contains("prefill-mail"), "{left}");
        Ok(())
    })
    .await?;
    // Registered again under the same name: another incarnation, nothing of the former one.
    let again = hs.register("mail", &["groups/group"], true).await?;
    again.await_prefill("done").await?;
    assert_eq!(again.read(9).await?.len(), 9);
    assert_eq!(again.next(0.1).await?, None);
    Ok(())
}

#[tokio::test]
async fn any_component_may_be_killed_at_any_time() -> Result<()> {
    let values = ["replicaCount.api=2", "replicaCount.dispatcher=2"];
    let hs = Installation::install("kills", 150, 4, &values).await?;
    // Slow enough that the prefill is killed in its middle.
    hs.faults(&json!({"get_delay_ms": 150, "list_delay_ms": 0, "size_limit": null, "link_base": null,
                      "link_headers": 0, "unloaded_modules": [], "rules": []}))
        .await?;
    let mail = hs.register("mail", &["groups/group", "users/user"], true).await?;
    let producer = hs.producer();
    mail.await_prefill("running").await?;
    let mut sent = Vec::new();
    for component in ["prefill", "dispatcher", "api", "controller", "nats", "api"] {
        let id = format!("live-{component}-{}", sent.len());
        producer.send("users/user", &id).await?;
        sent.push(id);
        let selector = format!("app.kubernetes.io/component={component}");
        let kill = ["delete", "pod", "-l", &selector, "--force", "--grace-period=0"];
        hs.namespace.kubectl(&kill)?;
    }
    mail.await_prefill("done").await?;
    let messages = mail.read(5 + 150 + sent.len()).await?;
    let groups = messages.iter().take(5).all(|m| m["topic"] == "groups/group");
    let users =
        messages[5..155].iter().all(|m| m["topic"] == "users/user" && m["publisher_name"] == "udm-pre-fill");
    assert!(groups && users, "prefill first, in the order of the topics: {:?}", kinds(&messages));
    let mut dns: Vec<&str> =
        messages[..155].iter().map(|m| m["body"]["new"]["dn"].as_str().unwrap()).collect();
    dns.sort_unstable();
    dns.dedup();
    assert_eq!(dns.len(), 155, "each object once");
    assert_eq!(live_ids(&messages), sent);
    Ok(())
}

#[tokio::test]
async fn a_source_that_refuses_is_shown_everywhere() -> Result<()> {
    let hs = Installation::install("refused", 10, 2, &[]).await?;
    hs.udm_password(Some("another")).await?;
    let mail = hs.register("mail", &["users/user"], true).await?;
    let failed = mail.await_prefill("failed").await?;
    assert_eq!(failed["prefill"]["reason"], "CredentialsRefused", "{failed}");
    assert_eq!(mail.next(0.1).await?, None);
    let job = hs.job("mail", 1)?;
    let name = job["metadata"]["name"].as_str().context("no name")?;
    eventually("an Event on the Job", SOON, async || {
        let events = hs.namespace.kubectl(&[
            "get",
            "events",
            "--field-selector",
            &format!("involvedObject.name={name}"),
        ])?;
        ensure!(events.contains("CredentialsRefused"), "{events}");
        Ok(())
    })
    .await?;
    let pods = hs.namespace.get(&["pods", "-l", &format!("job-name={name}")])?;
    let message =
        pods["items"][0]["status"]["containerStatuses"][0]["state"]["terminated"]["message"].to_string();
    assert!(message.contains("credentials_refused"), "{pods}");
    assert!(!failed.to_string().contains("udm-secret") && !message.contains("udm-secret"));
    Ok(())
}

#[tokio::test]
async fn without_jobs_a_worker_fills_the_queue() -> Result<()> {
    let hs = Installation::install("queue", 40, 3, &["launcher=queue"]).await?;
    let mail = hs.register("mail", &["groups/.*", "users/user"], true).await?;
    mail.await_prefill("done").await?;
    assert_eq!(mail.read(44).await?.len(), 44);
    let jobs = hs.namespace.kubectl(&["get", "jobs", "-o", "name"])?;
    assert_eq!(jobs, "");
    Ok(())
}

#[tokio::test]
async fn no_more_jobs_run_at_once_than_are_admitted() -> Result<()> {
    let hs = Installation::install("admission", 40, 2, &["controller.config.maxRunningPrefills=1"]).await?;
    hs.faults(&json!({"get_delay_ms": 100, "list_delay_ms": 0, "size_limit": null, "link_base": null,
                      "link_headers": 0, "unloaded_modules": [], "rules": []}))
        .await?;
    let mut consumers = Vec::new();
    for n in 0..3 {
        consumers.push(hs.register(&format!("app{n}"), &["users/user"], true).await?);
    }
    loop {
        let jobs = hs.namespace.get(&["jobs", "-l", MANAGED])?;
        let jobs = jobs["items"].as_array().context("no items")?.clone();
        let finished = |job: &Value| job["status"]["completionTime"].is_string();
        let running: Vec<&Value> = jobs
            .iter()
            .filter(|job| job["spec"]["suspend"] == false && !finished(job))
            .map(|job| &job["metadata"]["name"])
            .collect();
        assert!(running.len() <= 1, "{running:?}");
        if jobs.len() == 3 && jobs.iter().all(finished) {
            break;
        }
        let states = states_of(&consumers).await?;
        ensure!(!states.iter().any(|s| s == "failed"), "{states:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for consumer in &consumers {
        consumer.await_prefill("done").await?;
    }
    Ok(())
}

async fn states_of(consumers: &[e2e::Consumer]) -> Result<Vec<String>> {
    let mut states = Vec::new();
    for consumer in consumers {
        states.push(
            consumer.subscription().await?["prefill_queue_status"].as_str().unwrap_or_default().to_owned(),
        );
    }
    Ok(states)
}
