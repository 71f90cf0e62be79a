//! Subscriptions that are removed: their Jobs, ConfigMaps, streams and entries go with them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use controller::Rules;
use e2e::eventually;
use model::{
    PrefillState::{Done, Failed, Pending, Running},
    Reason,
    subscription::Lifecycle,
};

use crate::{
    controlled::{Controlled, SOON, obedient_pod, quick, waiting_pod},
    test_subscription::TestSubscription,
};

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

/// Removed as the API does it, and registered again at once.
async fn replace<'a>(old: &TestSubscription<'a>) -> Result<TestSubscription<'a>> {
    old.world.broker.remove_subscription(&old.name, old.incarnation).await?;
    old.world.subscribe_and_activate(old.name.as_str()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_in_any_phase_and_registered_again_at_once_leaves_nothing_behind() -> Result<()> {
    let rules = Rules { start_deadline: Duration::from_secs(60), ..quick() };
    let world = Controlled::start("ctl-phases", obedient_pod(), rules, 20).await?;
    let mut old = Vec::new();
    let mut new = Vec::new();

    // Nobody has told pods what to do: their container can't be made yet.
    let starting = world.subscribe_and_activate("starting").await?;
    starting.expect(Pending, Some(Reason::PodConfig)).await?;
    world.tell_pods(r#"exit 3 {"class":"bad_request","message":"no"}"#)?;
    let failed = world.subscribe_and_activate("failed").await?;
    failed.expect(Failed, Some(Reason::BadRequest)).await?;
    world.tell_pods("work")?;
    new.push(replace(&starting).await?);
    new.push(replace(&failed).await?);

    let reserved = world.subscribe("reserved").await?;
    new.push(replace(&reserved).await?);
    let suspended = world.subscribe("suspended").await?;
    suspended.expect(Pending, Some(Reason::WaitingForBoundary)).await?;
    new.push(replace(&suspended).await?);
    let running = world.subscribe_and_activate("running").await?;
    running.expect(Running, None).await?;
    let mut zombie = running.claim(1).await?;
    new.push(replace(&running).await?);
    ensure!(
        zombie.seal(model::fence::Counts::default()).await.is_err(),
        "the queue of a former life was sealed"
    );
    let sealed = world.subscribe_and_activate("sealed").await?;
    sealed.expect(Running, None).await?;
    sealed.seal().await?;
    new.push(replace(&sealed).await?);
    let done = world.subscribe_and_activate("done").await?;
    done.seal().await?;
    done.expect(Done, None).await?;
    new.push(replace(&done).await?);
    let twice = world.subscribe_and_activate("twice").await?;
    let again = replace(&twice).await?;
    new.push(replace(&again).await?);
    old.extend([starting, failed, reserved, suspended, running, sealed, done, twice, again]);

    let expected: BTreeSet<String> = new.iter().map(|subject| subject.job_name(1)).collect();
    eventually("only what belongs to somebody", SOON, async || {
        for kind in ["jobs", "configmaps"] {
            let objects = world.namespace.get(&[kind, "-l", "app.kubernetes.io/managed-by=headstart"])?;
            let items = objects["items"].as_array().context("no list")?;
            let found: BTreeSet<_> =
                items.iter().filter_map(|o| o["metadata"]["name"].as_str().map(ToOwned::to_owned)).collect();
            ensure!(found == expected, "{kind}: {found:?} instead of {expected:?}");
        }
        Ok(())
    })
    .await?;
    for subject in &old {
        let queue = world.broker.queue(&subject.name, subject.incarnation);
        ensure!(!queue.exists().await?, "the stream of {} is left", subject.name);
    }
    for subject in &new {
        subject.expect(Running, None).await?;
        ensure!(subject.entry().await?.incarnation == subject.incarnation);
        subject.seal().await?;
        subject.expect_shown(1, Done, None).await?;
    }
    Ok(())
}
