//! What happens when nothing goes wrong, or only what was promised to be harmless.

use std::time::Duration;

use anyhow::{Result, ensure};
use controller::{Metrics, Rules};
use e2e::eventually;
use model::{
    PrefillState::{Done, Failed, Pending, Running},
    Reason,
};
use tokio_util::sync::CancellationToken;

use crate::{
    controlled::{Controlled, SOON, obedient_pod, quick, suspended, waiting_pod},
    disrupted::patient,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_admitted_recorded_shown_and_removed() -> Result<()> {
    let rules = Rules { retention_done: Duration::from_secs(3), ..quick() };
    let world = Controlled::start("ctl-way", waiting_pod(), rules, 2).await?;
    let mail = world.subscribe("mail").await?;
    mail.expect_shown(1, Pending, Some(Reason::WaitingForBoundary)).await?;
    let job = mail
        .await_job("it is suspended, and says why", 1, |job| {
            job["metadata"]["annotations"]["headstart/reason"] == "WaitingForBoundary"
        })
        .await?;
    ensure!(suspended(&job), "{job:#}");

    mail.activate().await?;
    mail.expect_shown(1, Running, None).await?;
    mail.await_job("its annotations are right", 1, |job| {
        let annotations = &job["metadata"]["annotations"];
        annotations["headstart/state"] == "running"
            && annotations["headstart/reason"].is_null()
            && annotations["headstart/admitted-at"].is_string()
    })
    .await?;

    mail.seal().await?;
    let done = mail.expect_shown(1, Done, None).await?;
    let [only] = done.prefill.attempts.as_slice() else { panic!("{done:?}") };
    ensure!((only.attempt, only.state, only.objects) == (1, Done, Some(7)), "{only:?}");
    ensure!(only.started.is_some(), "{only:?}");
    // The pod goes on after its seal: its Job is ended.
    mail.await_job_gone(1).await
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
async fn a_config_map_that_is_deleted_between_two_tries_is_made_again() -> Result<()> {
    let world = Controlled::start("ctl-input2", obedient_pod(), patient(), 2).await?;
    world.tell_pods("exit 1")?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Running, Some(Reason::SourceUnavailable)).await?;
    world.tell_pods("work")?;
    world.namespace.kubectl(&["delete", "configmap", &mail.job_name(1)])?;
    mail.expect(Running, None).await?;
    let map = world.namespace.get(&["configmap", &mail.job_name(1)])?;
    ensure!(map["metadata"]["ownerReferences"][0]["uid"] == mail.job(1)?["metadata"]["uid"], "{map:#}");
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
    deleted.expect_told(1, Failed, Some(Reason::JobDeleted)).await?;
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
    // Longer than most deadlines.
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
