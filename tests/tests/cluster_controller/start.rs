//! Pods that do not come up: given up after the start deadline with the reason that Kubernetes tells, and really ended;
//! but a quota is waited for.

use std::time::Duration;

use anyhow::{Result, ensure};
use controller::Rules;
use model::{
    PrefillState::{Failed, Pending, Running},
    Reason,
};
use serde_json::{Value, json};

use crate::{
    controlled::{Controlled, container, pod, quick, suspended, waiting_pod},
    test_subscription::TestSubscription,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cant_be_pulled_fails_and_its_job_really_ends() -> Result<()> {
    let mut template = waiting_pod();
    container(&mut template)["image"] = json!("localhost:1/none:1");
    let world = Controlled::new("ctl-image", template, hasty(), 2).await?;
    let mail = given_up(&world, Reason::ImagePull, "localhost:1/none:1").await?;
    // Asked again: another Job, in the same round.
    world.run_controller_by(patient(), &world.stop()).await?;
    mail.retry().await?;
    mail.expect(Pending, Some(Reason::ImagePull)).await?;
    ensure!(mail.entry().await?.prefill.round == 1);
    mail.job(2).map(drop)
}

/// A start deadline that a test can wait for.
fn hasty() -> Rules {
    Rules { start_deadline: Duration::from_secs(10), ..quick() }
}

/// One that never passes, so that what is shown before it can be seen however slow the machine is.
fn patient() -> Rules {
    Rules { start_deadline: Duration::from_secs(3600), ..quick() }
}

/// It says why at once, and is given up for that very reason; its Job is gone, so nothing of it starts later. The
/// deadline is held by another controller than the one that saw it begin.
async fn given_up<'a>(world: &'a Controlled, reason: Reason, words: &str) -> Result<TestSubscription<'a>> {
    let first = world.stop();
    world.run_controller_by(patient(), &first).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Pending, Some(reason)).await?;
    first.cancel();
    let second = world.stop();
    world.run_controller_by(hasty(), &second).await?;
    let failed = mail.expect_shown(1, Failed, Some(reason)).await?;
    let message = failed.prefill.message.clone().unwrap_or_default();
    ensure!(message.contains(words), "{message}");
    mail.await_job_gone(1).await?;
    // The attempt is remembered without its Job.
    let [only] = failed.prefill.attempts.as_slice() else { panic!("{failed:?}") };
    ensure!((only.state, only.reason, &only.started) == (Failed, Some(reason), &None), "{only:?}");
    second.cancel();
    Ok(mail)
}

async fn template_is_given_up(test: &str, template: Value, reason: Reason, words: &str) -> Result<()> {
    given_up(&Controlled::new(test, template, hasty(), 2).await?, reason, words).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_is_named() -> Result<()> {
    let mut template = waiting_pod();
    container(&mut template)["env"] =
        json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x"}}}]);
    template_is_given_up("ctl-secret", template, Reason::PodConfig, "secret \"none\" not found").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_missing_is_named() -> Result<()> {
    let mut template = waiting_pod();
    pod(&mut template)["volumes"] = json!([{"name": "gone", "configMap": {"name": "no-such-map"}}]);
    // The kubelet leaves out volumes that nobody mounts.
    container(&mut template)["volumeMounts"] = json!([{"name": "gone", "mountPath": "/gone"}]);
    template_is_given_up("ctl-volume", template, Reason::PodConfig, "no-such-map").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_waited_for_longer_than_any_deadline() -> Result<()> {
    let mut template = waiting_pod();
    pod(&mut template)["nodeSelector"] = json!({"headstart.test/fits": "yes"});
    let world = Controlled::start("ctl-node", template, hasty(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let waits = mail.expect_shown(1, Pending, Some(Reason::Unschedulable)).await?;
    let message = waits.prefill.message.unwrap_or_default();
    ensure!(message.contains("0/1 nodes are available"), "{message}");
    tokio::time::sleep(hasty().start_deadline + Duration::from_secs(2)).await;
    mail.expect_now(Pending, Some(Reason::Unschedulable)).await?;
    world.namespace.kubectl(&["label", "nodes", "--all", "headstart.test/fits=yes"])?;
    let runs = mail.expect_shown(1, Running, None).await;
    world.namespace.kubectl(&["label", "nodes", "--all", "headstart.test/fits-"])?;
    runs.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_start_begins_again_without_anybodys_asking() -> Result<()> {
    let mut template = waiting_pod();
    container(&mut template)["env"] =
        json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "late", "key": "x"}}}]);
    let rules = Rules { start_again: vec![Duration::from_secs(2); 20], ..hasty() };
    let world = Controlled::start("ctl-again", template, rules, 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_told(1, Failed, Some(Reason::PodConfig)).await?;
    world.namespace.kubectl(&["create", "secret", "generic", "late", "--from-literal=x=y"])?;
    let runs = mail.expect(Running, None).await?;
    ensure!(runs.prefill.attempt >= 2 && runs.prefill.round == 1, "{:?}", runs.prefill);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_range_that_refuses_the_pod_is_named() -> Result<()> {
    let world = Controlled::new("ctl-limits", waiting_pod(), hasty(), 2).await?;
    world.namespace.apply(&json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "8Mi"}}]},
    }))?;
    given_up(&world, Reason::PodRefused, "maximum memory usage per Container is 8Mi").await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_that_refuses_the_pod_is_named() -> Result<()> {
    // Each namespace of a test enforces "restricted".
    let mut template = waiting_pod();
    pod(&mut template)["securityContext"]["appArmorProfile"] = json!({"type": "Unconfined"});
    template_is_given_up("ctl-security", template, Reason::PodRefused, "violates PodSecurity \"restricted")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_that_is_missing_is_named() -> Result<()> {
    let mut template = waiting_pod();
    pod(&mut template)["serviceAccountName"] = json!("no-such-account");
    template_is_given_up("ctl-account", template, Reason::PodRefused, "no-such-account").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_waited_for_longer_than_any_deadline() -> Result<()> {
    let rules = Rules { start_deadline: Duration::from_secs(30), ..quick() };
    let world = Controlled::start("ctl-quota", waiting_pod(), rules.clone(), 2).await?;
    world.namespace.quota("pods=0", None).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let waits = mail.expect_shown(1, Pending, Some(Reason::QuotaExceeded)).await?;
    let message = waits.prefill.message.unwrap_or_default();
    ensure!(message.contains("exceeded quota: none"), "{message}");
    tokio::time::sleep(rules.start_deadline + Duration::from_secs(2)).await;
    mail.expect(Pending, Some(Reason::QuotaExceeded)).await?;
    ensure!(!suspended(&mail.job(1)?));
    world.namespace.kubectl(&["delete", "quota", "none"])?;
    mail.expect_shown(1, Running, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_jobs_is_waited_for_and_shown_without_a_job() -> Result<()> {
    let world = Controlled::start("ctl-jobs", waiting_pod(), quick(), 2).await?;
    let mut probe = waiting_pod();
    probe["metadata"]["name"] = json!("probe");
    pod(&mut probe)["restartPolicy"] = json!("Never");
    world.namespace.quota("count/jobs.batch=0", Some(&probe)).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_told(1, Pending, Some(Reason::QuotaExceeded)).await?;
    world.namespace.kubectl(&["delete", "quota", "none"])?;
    mail.expect_shown(1, Running, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_start_is_tried_again_then_given_up() -> Result<()> {
    let mut template = waiting_pod();
    template["spec"]["backoffLimit"] = json!(1);
    container(&mut template)["command"] = json!(["/no-such-program"]);
    let rules = Rules { retention_failed: Duration::from_secs(3600), ..quick() };
    let world = Controlled::start("ctl-start", template, rules, 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let failed = mail.expect_shown(1, Failed, Some(Reason::BackoffLimitExceeded)).await?;
    let message = failed.prefill.message.unwrap_or_default();
    ensure!(message.contains("no-such-program"), "{message}");
    // Kept for its logs.
    mail.await_job("it is kept", 1, |job| job["metadata"]["annotations"]["headstart/state"] == "failed")
        .await?;
    Ok(())
}
