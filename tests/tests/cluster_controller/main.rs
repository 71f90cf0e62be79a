//! The controller against a real Kubernetes: what its decisions are made of really looks like that, and what it does
//! really works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod controlled;

use std::time::Duration;

use anyhow::{Result, ensure};
use controlled::{Controlled, SOON, quick, waiting_pod};
use controller::{Metrics, Rules};
use e2e::eventually;
use model::{
    Lifecycle,
    PrefillState::{Done, Failed, Pending, Running},
    Reason,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn container(template: &mut Value) -> &mut Value {
    &mut template["spec"]["template"]["spec"]["containers"][0]
}

fn suspended(job: &Value) -> bool {
    job["spec"]["suspend"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_admitted_recorded_shown_and_removed() -> Result<()> {
    let rules = Rules { retention_done: Duration::from_secs(3), ..quick() };
    let world = Controlled::start("ctl-way", waiting_pod(), rules, 2).await?;
    let mail = world.subscribe("mail").await?;
    mail.expect(Pending, Some(Reason::WaitingForBoundary)).await?;
    let job = mail
        .await_job("it is suspended, and says why", 1, |job| {
            job["metadata"]["annotations"]["headstart/reason"] == "WaitingForBoundary"
        })
        .await?;
    ensure!(suspended(&job), "{job:#}");

    mail.activate().await?;
    mail.expect(Running, None).await?;
    mail.await_job("its annotations are right", 1, |job| {
        let annotations = &job["metadata"]["annotations"];
        annotations["headstart/state"] == "running"
            && annotations["headstart/reason"].is_null()
            && annotations["headstart/admitted-at"].is_string()
    })
    .await?;
    mail.expect_event(1, "Running").await?;

    mail.seal().await?;
    mail.expect(Done, None).await?;
    mail.expect_event(1, "Done").await?;
    // The pod goes on after its seal: its Job is ended.
    mail.await_job_gone(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cant_be_pulled_fails_and_its_job_really_ends() -> Result<()> {
    let mut template = waiting_pod();
    container(&mut template)["image"] = json!("localhost:1/none:1");
    let world = Controlled::start("ctl-image", template, quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Pending, Some(Reason::ImagePull)).await?;
    let failed = mail.expect(Failed, Some(Reason::ImagePull)).await?;
    let message = failed.prefill.message.unwrap_or_default();
    ensure!(message.contains("localhost:1/none:1"), "{message}");
    mail.expect_event(1, "ImagePull").await?;
    mail.await_job_gone(1).await?;
    // Asked again: another Job, in the same round.
    mail.retry().await?;
    mail.expect(Pending, Some(Reason::ImagePull)).await?;
    ensure!(mail.entry().await?.prefill.round == 1);
    mail.job(2).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_refuses_the_pod_is_named() -> Result<()> {
    let world = Controlled::start("ctl-quota", waiting_pod(), quick(), 2).await?;
    world.namespace.kubectl(&["create", "quota", "none", "--hard=pods=0"])?;
    let mail = world.subscribe_and_activate("mail").await?;
    let failed = mail.expect(Failed, Some(Reason::PodRefused)).await?;
    let message = failed.prefill.message.unwrap_or_default();
    ensure!(message.contains("exceeded quota"), "{message}");
    mail.await_job_gone(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_is_named() -> Result<()> {
    let mut template = waiting_pod();
    container(&mut template)["env"] =
        json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x"}}}]);
    let world = Controlled::start("ctl-secret", template, quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let failed = mail.expect(Failed, Some(Reason::PodConfig)).await?;
    let message = failed.prefill.message.unwrap_or_default();
    ensure!(message.contains("secret \"none\" not found"), "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_no_node_takes_is_named() -> Result<()> {
    let mut template = waiting_pod();
    template["spec"]["template"]["spec"]["nodeSelector"] = json!({"no-such": "node"});
    let world = Controlled::start("ctl-node", template, quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Pending, Some(Reason::Unschedulable)).await?;
    mail.expect(Failed, Some(Reason::Unschedulable)).await?;
    mail.await_job_gone(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_missing_is_named() -> Result<()> {
    let mut template = waiting_pod();
    template["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "gone", "configMap": {"name": "no-such-map"}}]);
    // The kubelet leaves out volumes that nobody mounts.
    container(&mut template)["volumeMounts"] = json!([{"name": "gone", "mountPath": "/gone"}]);
    let world = Controlled::start("ctl-volume", template, quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let failed = mail.expect(Failed, Some(Reason::PodConfig)).await?;
    let message = failed.prefill.message.unwrap_or_default();
    ensure!(message.contains("no-such-map"), "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_start_is_tried_again_then_given_up() -> Result<()> {
    let mut template = waiting_pod();
    template["spec"]["backoffLimit"] = json!(1);
    container(&mut template)["command"] = json!(["/no-such-program"]);
    let rules = Rules { retention_failed: Duration::from_secs(3600), ..quick() };
    let world = Controlled::start("ctl-start", template, rules, 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let failed = mail.expect(Failed, Some(Reason::BackoffLimitExceeded)).await?;
    let message = failed.prefill.message.unwrap_or_default();
    ensure!(message.contains("no-such-program"), "{message}");
    // Kept for its logs.
    mail.await_job("it is kept", 1, |job| job["metadata"]["annotations"]["headstart/state"] == "failed")
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_too_long_is_given_up() -> Result<()> {
    let mut template = waiting_pod();
    template["spec"]["activeDeadlineSeconds"] = json!(5);
    let world = Controlled::start("ctl-deadline", template, quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Failed, Some(Reason::DeadlineExceeded)).await?;
    // A zombie of it seals after all: what is complete is done.
    mail.seal().await?;
    mail.expect(Done, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_deleted_by_hand_is_made_again_while_it_waits_and_failed_while_it_runs() -> Result<()> {
    let world = Controlled::start("ctl-deleted", waiting_pod(), quick(), 2).await?;
    let mail = world.subscribe("mail").await?;
    let first = mail.await_job("it is there", 1, suspended).await?;
    world.namespace.kubectl(&["delete", "job", &mail.job_name(1)])?;
    mail.await_job("another one is there", 1, |job| job["metadata"]["uid"] != first["metadata"]["uid"])
        .await?;
    mail.activate().await?;
    mail.expect(Running, None).await?;
    world.namespace.kubectl(&["delete", "job", &mail.job_name(1)])?;
    mail.expect(Failed, Some(Reason::JobDeleted)).await?;
    mail.retry().await?;
    mail.expect(Running, None).await?;
    // Sealed before the deletion was seen: done.
    mail.seal().await?;
    world.namespace.kubectl(&["delete", "job", &mail.job_name(2)])?;
    mail.expect(Done, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_suspended_by_hand_stays_suspended_until_it_is_resumed_by_hand() -> Result<()> {
    let world = Controlled::start("ctl-paused", waiting_pod(), quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Running, None).await?;
    mail.patch_job(1, &json!({"spec": {"suspend": true}}))?;
    mail.expect(Running, Some(Reason::Suspended)).await?;
    // Something else happens meanwhile; and the start deadline passes.
    let chat = world.subscribe_and_activate("chat").await?;
    chat.expect(Running, None).await?;
    tokio::time::sleep(quick().start_deadline + Duration::from_secs(2)).await;
    ensure!(suspended(&mail.job(1)?));
    mail.expect(Running, Some(Reason::Suspended)).await?;
    mail.patch_job(1, &json!({"spec": {"suspend": false}}))?;
    mail.expect(Running, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_missing_is_made_before_its_job_starts() -> Result<()> {
    let world = Controlled::start("ctl-input", waiting_pod(), quick(), 2).await?;
    let mail = world.subscribe("mail").await?;
    mail.await_job("it is there", 1, suspended).await?;
    eventually("its ConfigMap", SOON, async || {
        world.namespace.kubectl(&["delete", "configmap", &mail.job_name(1)]).map(drop)
    })
    .await?;
    mail.activate().await?;
    mail.expect(Running, None).await?;
    let map = world.namespace.get(&["configmap", &mail.job_name(1)])?;
    ensure!(map["metadata"]["ownerReferences"][0]["uid"] == mail.job(1)?["metadata"]["uid"], "{map:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_run_at_once_the_oldest_first_also_with_two_controllers() -> Result<()> {
    let rules = Rules { linger: Duration::from_secs(1), ..quick() };
    let world = Controlled::start("ctl-turns", waiting_pod(), rules, 2).await?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    world.run_controller(&stop).await?;
    let mut subjects = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let subject = world.subscribe_and_activate(name).await?;
        subject.await_job("it is there", 1, |_| true).await?;
        subjects.push(subject);
    }
    for (index, subject) in subjects.iter().enumerate() {
        subject.expect(Running, None).await?;
        if let Some(third) = subjects.get(index + 2) {
            third.expect(Pending, Some(Reason::Queued)).await?;
        }
        let running = world.jobs()?.iter().filter(|job| !suspended(job)).count();
        ensure!(running <= 2, "{running} run at once");
        subject.seal().await?;
        let done = subject.expect(Done, None).await?;
        ensure!(done.prefill.attempt == 1, "{done:?}");
    }
    Ok(())
}

async fn await_leading(metrics: &Metrics) -> Result<()> {
    eventually("it to lead", SOON, async || {
        ensure!(metrics.is_leading());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_lease_one_works_and_the_other_takes_over() -> Result<()> {
    let world = Controlled::new("ctl-lease", waiting_pod(), quick(), 2).await?;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let first_stop = stop.child_token();
    let first = world.run_candidate("first", &first_stop).await?;
    await_leading(&first).await?;
    let second = world.run_candidate("second", &stop).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Running, None).await?;
    ensure!(first.is_leading() && !second.is_leading());
    let holder = || {
        let lease = world.namespace.get(&["lease", "controller"])?;
        Ok::<_, anyhow::Error>(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(holder()?.starts_with("first_"), "{}", holder()?);
    first_stop.cancel();
    await_leading(&second).await?;
    ensure!(holder()?.starts_with("second_"), "{}", holder()?);
    mail.seal().await?;
    mail.expect(Done, None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_end_is_overtaken_by_the_next_attempt() -> Result<()> {
    let mut template = waiting_pod();
    // The kubelet waits for this before it ends the container: for a while it looks like a lost node.
    template["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(120);
    container(&mut template)["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 100}}});
    let world = Controlled::start("ctl-stuck", template, quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Running, None).await?;
    let selector = format!("job-name={}", mail.job_name(1));
    world.namespace.kubectl(&["delete", "pod", "-l", &selector, "--wait=false"])?;
    mail.expect(Running, Some(Reason::StuckTerminating)).await?;
    eventually("the next attempt", SOON, async || {
        let prefill = mail.entry().await?.prefill;
        ensure!((prefill.attempt, prefill.round, prefill.state) == (2, 1, Running), "{prefill:?}");
        Ok(())
    })
    .await?;
    mail.expect_event(1, "StuckTerminating").await?;
    mail.await_job_gone(1).await?;
    mail.seal().await?;
    mail.expect(Done, None).await?;
    // The pods need not be waited for.
    world.namespace.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0"]).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_with_their_subscription_and_its_incarnation() -> Result<()> {
    let world = Controlled::start("ctl-gone", waiting_pod(), quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Running, None).await?;
    mail.modify(|s| {
        let mut next = s.clone();
        next.lifecycle = Lifecycle::Deleting;
        Some(next)
    })
    .await?;
    mail.await_job_gone(1).await?;

    let chat = world.subscribe_and_activate("chat").await?;
    chat.expect(Running, None).await?;
    world.broker.remove_subscription(&chat.name, chat.incarnation).await?;
    chat.await_job_gone(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_no_controller_runs_is_seen_by_the_next_one() -> Result<()> {
    let world = Controlled::new("ctl-restart", waiting_pod(), quick(), 4).await?;
    let first = CancellationToken::new();
    world.run_controller(&first).await?;
    let [sealed, deleted, removed, queued] = ["sealed", "deleted", "removed", "queued"];
    let sealed = world.subscribe_and_activate(sealed).await?;
    let deleted = world.subscribe_and_activate(deleted).await?;
    let removed = world.subscribe_and_activate(removed).await?;
    for subject in [&sealed, &deleted, &removed] {
        subject.expect(Running, None).await?;
    }
    first.cancel();
    sealed.seal().await?;
    world.namespace.kubectl(&["delete", "job", &sealed.job_name(1), &deleted.job_name(1)])?;
    world.broker.remove_subscription(&removed.name, removed.incarnation).await?;
    let queued = world.subscribe_and_activate(queued).await?;

    let second = CancellationToken::new();
    let _stop = second.clone().drop_guard();
    world.run_controller(&second).await?;
    sealed.expect(Done, None).await?;
    deleted.expect(Failed, Some(Reason::JobDeleted)).await?;
    removed.await_job_gone(1).await?;
    queued.expect(Running, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_is_killed_and_comes_back_is_no_reason_to_give_up() -> Result<()> {
    let mut world = Controlled::start("ctl-nats", waiting_pod(), quick(), 2).await?;
    let running = world.subscribe_and_activate("running").await?;
    running.expect(Running, None).await?;
    let (name, incarnation) = (running.name.clone(), running.incarnation);
    world.kill_nats();
    // Longer than every deadline.
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.restart_nats().await;
    let running = world.subject(name, incarnation);
    running.expect(Running, None).await?;
    ensure!(running.entry().await?.prefill.attempt == 1);
    let after = world.subscribe_and_activate("after").await?;
    after.expect(Running, None).await?;
    running.seal().await?;
    running.expect(Done, None).await.map(drop)
}
