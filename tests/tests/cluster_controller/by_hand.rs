//! What people do with kubectl: obeyed or put right, and never stuck.

use std::time::Duration;

use anyhow::{Result, ensure};
use controller::Rules;
use model::{
    PrefillState::{Done, Failed, Pending, Running},
    Reason,
};
use serde_json::json;

use crate::controlled::{Controlled, obedient_pod, quick, suspended, waiting_pod};

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
    mail.expect_told(1, Failed, Some(Reason::JobDeleted)).await?;
    mail.retry().await?;
    mail.expect(Running, None).await?;
    // Sealed before the deletion was seen: done.
    mail.seal().await?;
    world.namespace.kubectl(&["delete", "job", &mail.job_name(2)])?;
    mail.expect(Done, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_suspended_by_hand_stays_suspended_until_it_is_resumed_by_hand() -> Result<()> {
    let rules = Rules { start_deadline: Duration::from_secs(30), ..quick() };
    let world = Controlled::start("ctl-paused", waiting_pod(), rules.clone(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Running, None).await?;
    mail.patch_job(1, &json!({"spec": {"suspend": true}}))?;
    mail.expect_shown(1, Running, Some(Reason::Suspended)).await?;
    // Something else happens meanwhile; and the start deadline passes.
    let chat = world.subscribe_and_activate("chat").await?;
    chat.expect(Running, None).await?;
    tokio::time::sleep(rules.start_deadline + Duration::from_secs(2)).await;
    ensure!(suspended(&mail.job(1)?));
    mail.expect(Running, Some(Reason::Suspended)).await?;
    mail.patch_job(1, &json!({"spec": {"suspend": false}}))?;
    mail.expect(Running, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_resumed_by_hand_runs_before_its_turn_and_is_suspended_by_hand_only() -> Result<()> {
    let world = Controlled::start("ctl-resumed", waiting_pod(), quick(), 0).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Pending, Some(Reason::Queued)).await?;
    mail.patch_job(1, &json!({"spec": {"suspend": false}}))?;
    mail.expect_shown(1, Running, None).await?;
    mail.await_job("it counts as admitted", 1, |job| {
        job["metadata"]["annotations"]["headstart/admitted-at"].is_string()
    })
    .await?;
    mail.patch_job(1, &json!({"spec": {"suspend": true}}))?;
    mail.expect_shown(1, Running, Some(Reason::Suspended)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_changed_by_hand_are_put_right_and_nothing_is_lost_or_made_twice() -> Result<()> {
    let world = Controlled::start("ctl-labels", waiting_pod(), quick(), 2).await?;
    let mail = world.subscribe("mail").await?;
    let made = mail.await_job("it is there", 1, suspended).await?;
    let right = made["metadata"]["labels"].clone();
    let put_right = async |why: &str| mail.await_job(why, 1, |job| job["metadata"]["labels"] == right).await;
    // It falls out of the watch.
    mail.label_job(1, "app.kubernetes.io/managed-by=somebody")?;
    put_right("managed-by is put right").await?;
    mail.expect_event(1, "Relabelled").await?;
    mail.activate().await?;
    mail.expect_shown(1, Running, None).await?;
    // It looks like that of another attempt, and of another instance.
    for label in ["headstart/attempt=9", "headstart/round-", "app.kubernetes.io/instance=other"] {
        mail.label_job(1, label)?;
        put_right(label).await?;
        mail.expect(Running, None).await?;
    }
    mail.seal().await?;
    mail.expect_shown(1, Done, None).await?;
    ensure!(world.seen.made().values().all(|jobs| *jobs == 1), "{:?}", world.seen.made());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_and_cancel_are_asked_for_by_annotation() -> Result<()> {
    let world = Controlled::start("ctl-request", waiting_pod(), quick(), 1).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect(Running, None).await?;
    mail.request(1, "dance")?;
    mail.expect_event(1, "RequestRefused").await?;

    mail.request(1, "pause")?;
    mail.expect_shown(1, Running, Some(Reason::Paused)).await?;
    mail.await_job("it is suspended, and the request is dealt with", 1, |job| {
        suspended(job) && job["metadata"]["annotations"]["headstart/request"].is_null()
    })
    .await?;
    mail.expect_event(1, "RequestDone").await?;
    // Its place is another one's meanwhile; then it has to wait for its turn.
    let chat = world.subscribe_and_activate("chat").await?;
    chat.expect(Running, None).await?;
    mail.request(1, "resume")?;
    mail.expect_shown(1, Running, Some(Reason::Queued)).await?;
    chat.seal().await?;
    chat.expect(Done, None).await?;
    mail.expect(Running, None).await?;

    mail.request(1, "cancel")?;
    mail.expect_shown(1, Failed, Some(Reason::Cancelled)).await?;
    mail.await_job_gone(1).await?;
    ensure!(mail.seal().await.is_err(), "a cancelled attempt has sealed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_asked_for_by_annotation_after_failure_and_after_success() -> Result<()> {
    let world = Controlled::start("ctl-retry", obedient_pod(), quick(), 2).await?;
    world.tell_pods(r#"exit 6 {"class":"bad_data","message":"no UUID"}"#)?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Failed, Some(Reason::BadData)).await?;
    world.tell_pods("work")?;
    mail.request(1, "retry")?;
    mail.expect_shown(2, Running, None).await?;
    ensure!(mail.entry().await?.prefill.round == 1);
    mail.seal().await?;
    mail.expect_shown(2, Done, None).await?;
    mail.request(2, "retry")?;
    // Another round, whose marker the controller has sent.
    mail.expect(Pending, Some(Reason::WaitingForBoundary)).await?;
    ensure!(world.broker.event_log().last_sequence().await? == 1, "no marker, or several");
    mail.activate().await?;
    mail.expect_shown(3, Running, None).await?;
    let entry = mail.entry().await?;
    ensure!(entry.prefill.round == 2, "{entry:?}");
    let past: Vec<_> = entry.prefill.attempts.iter().map(|a| (a.attempt, a.round, a.state)).collect();
    ensure!(past == [(1, 1, Failed), (2, 1, Done)], "{past:?}");
    Ok(())
}
