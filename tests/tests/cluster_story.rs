//! The whole job in a real Kubernetes: install the chart, register, prefill by a Job, read prefill then live, remove.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Installation, eventually};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

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
    hs.slow_down(150).await?;
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
        let killed = hs.namespace.kubectl(&kill)?;
        ensure!(killed.contains("deleted"), "nobody was killed by {selector}: {killed}");
        if component == "prefill" {
            let prefill = &mail.subscription().await?["prefill"];
            ensure!(prefill["state"] == "running", "it was not killed in its middle: {prefill}");
        }
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

/// Consumers as existing ones, which a refused connection or a 503 ends, and a producer that does not send again.
#[tokio::test(flavor = "multi_thread")]
async fn a_roll_out_of_any_component_refuses_no_request_and_ends_no_consumer() -> Result<()> {
    let values = ["replicaCount.api=2", "replicaCount.dispatcher=2", "replicaCount.controller=2"];
    let hs = Installation::install("rollout", 5, 1, &values).await?;
    let mut consumers = Vec::new();
    for n in 0..6 {
        let consumer = hs.register(&format!("app{n}"), &["users/user"], false).await?;
        let reading = if n % 2 == 0 { consumer.without_keep_alive()? } else { consumer };
        consumers.push(tokio::spawn(reading.read_until("last")));
    }
    let producer = Arc::new(hs.producer());
    let (stop, mut sent) = (CancellationToken::new(), 0);
    let sending = tokio::spawn({
        let (producer, stop) = (producer.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                producer.send_once("users/user", &format!("event{sent}")).await?;
                sent += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(sent)
        }
    });
    for component in ["api", "dispatcher", "controller", "api"] {
        roll_out(&hs, &format!("deployment/hs-headstart-{component}"))?;
    }
    Installation::upgrade(
        &hs.namespace,
        &e2e::chart(),
        &[&values[..], &["api.config.LOG_LEVEL=debug"]].concat(),
    );
    stop.cancel();
    let sent = sending.await??;
    ensure!(sent > 100, "only {sent} events were sent");
    // A NATS with one replica is away for a moment: producers try again then, and consumers are held.
    roll_out(&hs, "statefulset/hs-headstart-nats")?;
    producer.send("users/user", "last").await?;
    let expected: Vec<String> = (0..sent).map(|n| format!("event{n}")).chain(["last".to_owned()]).collect();
    for consumer in consumers {
        let mut ids = consumer.await??;
        // The last one, or an acknowledgement, may have been sent twice.
        ids.dedup();
        ensure!(ids == expected, "{} of {}: {ids:?}", ids.len(), expected.len());
    }
    Ok(())
}

/// Replaces the pods of a workload as `kubectl rollout restart` does, and waits until it is over.
fn roll_out(hs: &Installation, workload: &str) -> Result<()> {
    hs.namespace.kubectl(&["rollout", "restart", workload])?;
    hs.namespace.kubectl(&["rollout", "status", workload, "--timeout=180s"]).map(drop)
}

#[tokio::test]
async fn a_source_that_refuses_is_shown_everywhere() -> Result<()> {
    let hs = Installation::install("refused", 10, 2, &["prefill.config.udmRefusedSeconds=2"]).await?;
    hs.udm_password(Some("another")).await?;
    let mail = hs.register("mail", &["users/user"], true).await?;
    let failed = mail.await_prefill("failed").await?;
    assert_eq!(failed["prefill"]["reason"], "CredentialsRefused", "{failed}");
    assert_eq!(mail.next(0.1).await?, None);
    let job = hs.job("mail", 1)?;
    let name = job["metadata"]["name"].as_str().context("no name")?;
    assert_eq!(mail.prefill().await?["reason"], "CredentialsRefused");
    let component = "app.kubernetes.io/component=controller";
    let pods = hs.namespace.get(&["pods", "-l", component])?;
    let controller = pods["items"][0]["metadata"]["name"].as_str().context("no controller")?;
    let figures = format!("/api/v1/namespaces/{}/pods/{controller}:8080/proxy/metrics", hs.namespace.name);
    let events = format!("--field-selector=involvedObject.name={name},type=Warning");
    let annotation = "-o=jsonpath={.metadata.annotations.headstart/reason}";
    for (place, arguments, words) in [
        ("an Event on the Job", &["get", "events", &events][..], "CredentialsRefused"),
        ("its annotation", &["get", "job", name, annotation], "CredentialsRefused"),
        (
            "the controller's metrics",
            &["get", "--raw", &figures],
            r#"headstart_prefill_changes_total{state="failed",reason="CredentialsRefused"} 1"#,
        ),
        ("the controller's log", &["logs", "-l", component, "--tail=-1"], r#""reason":"CredentialsRefused""#),
    ] {
        eventually(place, SOON, async || {
            let found = hs.namespace.kubectl(arguments)?;
            ensure!(found.contains(words), "{found}");
            Ok(())
        })
        .await?;
    }
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
    hs.slow_down(100).await?;
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

/// The commands of a section of the documentation for operators.
fn documented_commands(section: &str) -> Vec<&'static str> {
    let docs = include_str!("../../docs/how-to/prefills.md");
    let text = docs.split(section).nth(1).and_then(|text| text.split("\n## ").next()).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("$ kubectl ")).collect()
}

#[tokio::test]
async fn prefills_are_operated_by_kubectl_as_documented_and_by_the_api() -> Result<()> {
    let hs = Installation::install("operate", 60, 2, &["controller.config.maxRunningPrefills=1"]).await?;
    hs.udm_password(Some("another")).await?;
    let mail = hs.register("mail", &["users/user"], true).await?;
    mail.await_prefill("failed").await?;
    hs.udm_password(None).await?;
    hs.slow_down(10000).await?;
    let wiki = hs.register("wiki", &["users/user"], true).await?;
    wiki.await_prefill("running").await?;
    let chat = hs.register("chat", &["users/user"], true).await?;
    let reason_is = async |consumer: &e2e::Consumer, state: &str, reason: Value| {
        eventually("the reason", SOON, async || {
            let prefill = consumer.prefill().await?;
            ensure!(prefill["state"] == state && prefill["reason"] == reason, "{prefill}");
            Ok(())
        })
        .await
    };
    reason_is(&chat, "pending", json!("Queued")).await?;

    let mut shown = String::new();
    for command in documented_commands("## Prefills with kubectl") {
        let script = format!("${{HEADSTART_KUBECTL:-kubectl}} --namespace {} {command}", hs.namespace.name);
        let output = std::process::Command::new("sh").args(["-c", &script]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !text.is_empty(),
            "{command}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        shown += &format!("$ kubectl {command}\n{text}\n");
    }
    println!("{shown}");
    for words in ["CredentialsRefused", "Queued", "running", "Admitted", "annotated"] {
        assert!(shown.contains(words), "no {words} in\n{shown}");
    }
    // The last of them asks for the failed one again.
    reason_is(&mail, "pending", json!("Queued")).await?;

    wiki.ask_for_prefill("/pause").await?;
    reason_is(&wiki, "running", json!("Paused")).await?;
    // The wish is shown at once; the controller carries it out.
    eventually("the Job to be suspended", SOON, async || {
        ensure!(hs.job("wiki", 1)?["spec"]["suspend"] == true);
        Ok(())
    })
    .await?;
    hs.slow_down(0).await?;
    chat.await_prefill("done").await?;
    mail.await_prefill("done").await?;
    assert_eq!(wiki.prefill().await?["reason"], "Paused");
    wiki.ask_for_prefill("/resume").await?;
    wiki.await_prefill("done").await?;
    assert_eq!(wiki.prefill().await?["attempt"], 1);
    let past = mail.prefill().await?["attempts"].clone();
    let ends: Vec<_> = past.as_array().unwrap().iter().map(|a| (&a["state"], &a["reason"])).collect();
    assert_eq!(ends, [(&json!("failed"), &json!("CredentialsRefused")), (&json!("done"), &Value::Null)]);
    for consumer in [&mail, &chat, &wiki] {
        assert_eq!(consumer.read(60).await?.len(), 60);
        assert_eq!(consumer.next(0.1).await?, None);
    }
    Ok(())
}

/// A process of a pod, as the machine numbers it.
fn process_of(pod: &Value) -> Result<String> {
    let uid = pod["metadata"]["uid"].as_str().context("no UID")?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let cgroup = read("cgroup");
        if (cgroup.contains(uid) || cgroup.contains(&uid.replace('-', "_")))
            && read("cmdline").split('\0').nth(1) == Some("prefill")
        {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("no process of the pod {uid}")
}

fn signal(pid: &str, signal: &str) -> Result<()> {
    ensure!(
        std::process::Command::new("kill").args([signal, pid]).status()?.success(),
        "kill {signal} {pid}"
    );
    Ok(())
}

/// Nobody reaches it, nor it anybody; to Kubernetes it is gone with its Job. Then it comes back.
#[tokio::test]
async fn a_pod_that_comes_back_from_behind_a_partition_changes_nothing() -> Result<()> {
    let hs = Installation::install("partition", 100, 2, &[]).await?;
    hs.slow_down(2000).await?;
    let mail = hs.register("mail", &["users/user"], true).await?;
    mail.await_prefill("running").await?;
    let job = hs.job("mail", 1)?["metadata"]["name"].as_str().context("no name")?.to_owned();
    let pods = hs.namespace.get(&["pods", "-l", &format!("job-name={job}")])?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("no pod")?.to_owned();
    let pid = process_of(&pods["items"][0])?;
    signal(&pid, "-STOP")?;
    hs.namespace.kubectl(&["delete", "job", &job, "--cascade=orphan"])?;
    let failed = mail.await_prefill("failed").await?;
    assert_eq!(failed["prefill"]["reason"], "JobDeleted");
    mail.ask_for_prefill("").await?;
    mail.await_prefill("running").await?;
    signal(&pid, "-CONT")?;
    eventually("the pod to give up", SOON, async || {
        let pod = hs.namespace.get(&["pod", &pod])?;
        ensure!(matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")), "{}", pod["status"]);
        Ok(())
    })
    .await?;
    let done = mail.await_prefill("done").await?;
    assert_eq!(done["prefill"]["attempt"], 2);
    let messages = mail.read(100).await?;
    let mut dns: Vec<&str> = messages.iter().map(|m| m["body"]["new"]["dn"].as_str().unwrap()).collect();
    dns.sort_unstable();
    dns.dedup();
    assert_eq!(dns.len(), 100, "each object once");
    assert_eq!(mail.next(0.1).await?, None);
    Ok(())
}

#[tokio::test]
async fn removed_in_the_middle_of_its_prefill_leaves_nothing_behind() -> Result<()> {
    let hs = Installation::install("removed", 100, 2, &[]).await?;
    hs.slow_down(1000).await?;
    let mail = hs.register("mail", &["users/user"], true).await?;
    mail.await_prefill("running").await?;
    mail.remove().await?;
    let again = hs.register("mail", &["groups/group"], true).await?;
    again.await_prefill("done").await?;
    assert_eq!(again.read(3).await?.len(), 3);
    assert_eq!(again.next(0.1).await?, None);
    eventually("one Job and one ConfigMap", SOON, async || {
        for kind in ["jobs", "configmaps"] {
            let left = hs.namespace.kubectl(&["get", kind, "-l", MANAGED, "-o", "name"])?;
            ensure!(left.lines().count() == 1, "{left}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_resync_is_a_job_that_also_tells_what_is_gone() -> Result<()> {
    let values = ["prefill.config.udmReadsPrimary=true"];
    let hs = Installation::install("resync", 20, 1, &values).await?;
    let mail = hs.register_tracked("mail", &["users/user"]).await?;
    mail.await_prefill("done").await?;
    // Users that come and go, and nobody tells that they have gone.
    for id in ["came", "went"] {
        hs.producer().send("users/user", id).await?;
    }
    assert_eq!(mail.read(22).await?.len(), 22);
    mail.ask_for_resync().await?;
    let done = mail.await_prefill("done").await?;
    assert_eq!((&done["track"], &done["prefill"]["mode"]), (&json!(true), &json!("resync")));
    assert_eq!(hs.job("mail", 2)?["metadata"]["labels"]["headstart/attempt"], "2");
    let messages = mail.read(22).await?;
    let removed: Vec<_> =
        messages[20..].iter().map(|m| (&m["body"]["old"]["dn"], &m["body"]["new"])).collect();
    assert_eq!(removed, [(&json!("uid=came,dc=x"), &json!({})), (&json!("uid=went,dc=x"), &json!({}))]);
    assert_eq!(mail.next(0.1).await?, None);
    Ok(())
}
