//! Pods that fail: tried again by Kubernetes or not at all, and judged by the fence first.

use anyhow::{Result, ensure};
use e2e::eventually;
use model::{
    PrefillState::{Done, Failed, Running},
    Reason,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::controlled::{Controlled, SOON, obedient_pod, quick, waiting_pod};

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_error_is_tried_again_until_the_limit() -> Result<()> {
    let mut template = obedient_pod();
    template["spec"]["backoffLimit"] = json!(1);
    let world = Controlled::start("ctl-transient", template, quick(), 2).await?;
    world.tell_pods(r#"exit 1 {"class":"transient","message":"connection refused"}"#)?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Running, Some(Reason::SourceUnavailable)).await?;
    let failed = mail.expect_shown(1, Failed, Some(Reason::BackoffLimitExceeded)).await?;
    let message = failed.prefill.message.clone().unwrap_or_default();
    ensure!(message.contains("connection refused"), "{message}");
    // The Job controller counts a pod after its end could be read.
    mail.await_job("both pods are counted", 1, |job| job["status"]["failed"] == 2).await?;
    let [only] = failed.prefill.attempts.as_slice() else { panic!("{failed:?}") };
    ensure!(only.message.as_ref().is_some_and(|text| text.contains("connection refused")), "{only:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_error_fails_at_once() -> Result<()> {
    let world = Controlled::start("ctl-permanent", obedient_pod(), quick(), 2).await?;
    for (name, code, class, reason) in [
        ("a", 3, "bad_request", Reason::BadRequest),
        ("b", 4, "credentials_refused", Reason::CredentialsRefused),
        ("c", 6, "bad_data", Reason::BadData),
    ] {
        world.tell_pods(&format!(r#"exit {code} {{"class":"{class}","message":"says {class}"}}"#))?;
        let subject = world.subscribe_and_activate(name).await?;
        let failed = subject.expect_shown(1, Failed, Some(reason)).await?;
        let message = failed.prefill.message.unwrap_or_default();
        ensure!(message.contains(&format!("says {class}")), "{message}");
        let failed = |job: &serde_json::Value| {
            let conditions = job["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|condition| condition["type"] == "Failed"))
        };
        let job = subject.await_job("the Job has failed", 1, failed).await?;
        ensure!(job["status"]["failed"] == 1, "{job:#}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn complete_without_a_seal_has_failed() -> Result<()> {
    let world = Controlled::start("ctl-unsealed", obedient_pod(), quick(), 2).await?;
    world.tell_pods("exit 0")?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Failed, Some(Reason::EndedWithoutSeal)).await?;
    mail.await_job("its pod is counted", 1, |job| job["status"]["succeeded"] == 1).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn needing_too_much_memory_each_time_fails_with_that_reason() -> Result<()> {
    let mut template = obedient_pod();
    template["spec"]["backoffLimit"] = json!(1);
    let world = Controlled::start("ctl-memory", template, quick(), 2).await?;
    world.tell_pods("eat")?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Failed, Some(Reason::OutOfMemory)).await.map(drop)
}

/// No controller looks while pods and Jobs go; the next one has only what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_gone_before_its_end_was_seen_is_judged_by_the_fence() -> Result<()> {
    let mut template = waiting_pod();
    template["spec"]["backoffLimit"] = json!(0);
    let world = Controlled::new("ctl-ttl", template, quick(), 4).await?;
    let first = CancellationToken::new();
    world.run_controller(&first).await?;
    let sealed = world.subscribe_and_activate("sealed").await?;
    let unsealed = world.subscribe_and_activate("unsealed").await?;
    let killed = world.subscribe_and_activate("killed").await?;
    let subjects = [&sealed, &unsealed, &killed];
    for subject in subjects {
        subject.expect(Running, None).await?;
    }
    first.cancel();
    sealed.seal().await?;
    killed.seal().await?;
    for subject in [&sealed, &unsealed] {
        // Somebody's mutating webhook, for example.
        subject.patch_job(1, &json!({"spec": {"ttlSecondsAfterFinished": 0}}))?;
    }
    for subject in subjects {
        let selector = format!("job-name={}", subject.job_name(1));
        world.namespace.kubectl(&["delete", "pod", "-l", &selector, "--force", "--grace-period=0"])?;
    }
    sealed.await_job_gone(1).await?;
    unsealed.await_job_gone(1).await?;
    killed.await_job("it has failed", 1, |job| job["status"]["failed"] == 1).await?;

    let second = world.stop();
    world.run_controller(&second).await?;
    sealed.expect_told(1, Done, None).await?;
    killed.expect_shown(1, Done, None).await?;
    let failed = unsealed.expect_told(1, Failed, Some(Reason::JobDeleted)).await?;
    ensure!(failed.prefill.attempts.len() == 1, "{failed:?}");
    unsealed.retry().await?;
    unsealed.expect_shown(2, Running, None).await?;
    eventually("the history without the Job", SOON, async || {
        let past = unsealed.entry().await?.prefill.attempts;
        ensure!(past.len() == 1 && past[0].reason == Some(Reason::JobDeleted), "{past:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_too_long_is_given_up() -> Result<()> {
    let mut template = waiting_pod();
    template["spec"]["activeDeadlineSeconds"] = json!(5);
    let world = Controlled::start("ctl-deadline", template, quick(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Failed, Some(Reason::DeadlineExceeded)).await?;
    // A zombie of it seals after all: what is complete is done.
    mail.seal().await?;
    let done = mail.expect(Done, None).await?;
    ensure!(done.prefill.attempts.len() == 1, "one that failed and is done after all is one: {done:?}");
    Ok(())
}
