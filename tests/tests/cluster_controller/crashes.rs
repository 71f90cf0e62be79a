//! Controllers that die between any two writes, an API server that is away or falls silent, answers that go wrong: the
//! same end, and no prefill is done twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use controller::{Rules, WriteHook};
use e2e::eventually;
use model::{
    PrefillState::{Done, Failed, Pending, Running},
    Reason,
};
use tokio::sync::Notify;

use crate::{
    controlled::{Controlled, SOON, quick, waiting_pod},
    faults::{Asked, Fault, Proxy, each_kind_once, faulty_client},
};

/// Something of everything: one is done, one is cancelled, tried again and done, one is removed.
async fn scenario(world: &Controlled) -> Result<()> {
    let soon = Duration::from_secs(240);
    let running = async |subject: &crate::test_subscription::TestSubscription<'_>, attempt| {
        eventually("it to run", soon, async || {
            let prefill = subject.entry().await?.prefill;
            ensure!(
                (prefill.attempt, prefill.state, prefill.reason) == (attempt, Running, None),
                "{prefill:?}"
            );
            Ok(())
        })
        .await
    };
    let done = async {
        let mail = world.subscribe("mail").await?;
        eventually("its Job", soon, async || mail.job(1).map(drop)).await?;
        mail.activate().await?;
        running(&mail, 1).await?;
        mail.seal().await?;
        eventually("its end", soon, async || mail.expect_now(Done, None).await).await
    };
    let retried = async {
        let chat = world.subscribe_and_activate("chat").await?;
        running(&chat, 1).await?;
        chat.request(1, "cancel")?;
        eventually("its end", soon, async || chat.expect_now(Failed, Some(Reason::Cancelled)).await).await?;
        chat.retry().await?;
        running(&chat, 2).await?;
        chat.seal().await?;
        eventually("its end", soon, async || chat.expect_now(Done, None).await).await
    };
    let removed = async {
        let wiki = world.subscribe_and_activate("wiki").await?;
        running(&wiki, 1).await?;
        world.broker.remove_subscription(&wiki.name, wiki.incarnation).await?;
        eventually("its Job to be gone", soon, async || {
            let left = world.namespace.kubectl(&["get", "jobs,configmaps", "-o", "name"])?;
            ensure!(!left.contains(&wiki.job_name(1)), "{left}");
            Ok(())
        })
        .await
    };
    tokio::try_join!(done, retried, removed)?;
    let made = world.seen.made();
    ensure!(made.len() == 4 && made.values().all(|jobs| *jobs == 1), "not four, each made once: {made:?}");
    let most = world.seen.running_most();
    ensure!((1..=world.max_running).contains(&most), "{most} ran");
    Ok(())
}

/// One controller after the other, each of which is killed after its first, its second or its third write. (All of them
/// after the first would get nowhere: the repetition of what was done before is a write, too.)
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_may_die_between_any_two_writes() -> Result<()> {
    let mut world = Controlled::new("ctl-lives", waiting_pod(), quick(), 3).await?;
    let (left, dead) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counter, bell) = (left.clone(), dead.clone());
    world.before_write = Some(WriteHook(Arc::new(move |_| {
        let may = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if may.is_err() {
            bell.notify_one();
        }
        may.is_err()
    })));
    let world = &world;
    let (mut lives, mut story) = (0, std::pin::pin!(scenario(world)));
    loop {
        left.store(1 + lives % 3, Ordering::SeqCst);
        lives += 1;
        let life = world.stop();
        let client = controller::client(kube::Config::infer().await?)?;
        world.run_controller_with(client, &life)?;
        tokio::select! {
            ended = &mut story => {
                ended?;
                break;
            }
            () = dead.notified() => life.cancel(),
        }
        ensure!(lives < 300, "no end");
    }
    // Some 40 writes: it has really died between them.
    ensure!(lives > 10, "{lives} lives");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_call_may_fail_in_every_way() -> Result<()> {
    const FAULTS: &[Fault] = &[
        Fault::Refused(429, "TooManyRequests"),
        Fault::AnswerLost,
        Fault::Refused(409, "Conflict"),
        Fault::Refused(410, "Expired"),
        Fault::AnswerNever,
    ];
    let world = Controlled::new("ctl-calls", waiting_pod(), quick(), 3).await?;
    let asked = Asked::default();
    let client = faulty_client(kube::Config::infer().await?, each_kind_once(FAULTS, asked.clone()))?;
    world.run_controller_with(client, &world.stop())?;
    scenario(&world).await?;
    for kind in [
        "POST jobs",
        "POST configmaps",
        "GET jobs",
        "GET jobs list",
        "GET jobs watch",
        "GET pods list",
        "GET pods watch",
        "GET configmaps",
        "PATCH jobs",
        "DELETE jobs",
    ] {
        ensure!(asked.times(kind) >= FAULTS.len(), "{kind}: {} requests", asked.times(kind));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_without_a_lease_do_nothing_twice() -> Result<()> {
    let world = Controlled::new("ctl-two", waiting_pod(), quick(), 3).await?;
    world.run_controller(&world.stop()).await?;
    world.run_controller(&world.stop()).await?;
    scenario(&world).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_longer_than_every_deadline_is_no_reason_to_give_up() -> Result<()> {
    let rules = Rules { start_deadline: Duration::from_secs(30), ..quick() };
    let world = Controlled::new("ctl-away", waiting_pod(), rules.clone(), 3).await?;
    let proxy = Proxy::start().await?;
    let metrics = world.run_controller_with(controller::client(proxy.config().await?)?, &world.stop())?;
    Controlled::await_ready(&metrics).await?;
    let running = world.subscribe_and_activate("running").await?;
    let sealed = world.subscribe_and_activate("sealed").await?;
    for subject in [&running, &sealed] {
        subject.expect(Running, None).await?;
    }
    proxy.cut();
    let during = world.subscribe_and_activate("during").await?;
    sealed.seal().await?;
    // The queue opens all the same.
    sealed.expect(Done, None).await?;
    tokio::time::sleep(rules.start_deadline + Duration::from_secs(5)).await;
    running.expect_now(Running, None).await?;
    during.expect_now(Pending, None).await?;
    proxy.mend();
    during.expect_shown(1, Running, None).await?;
    running.expect_now(Running, None).await?;
    for subject in [&running, &during] {
        subject.seal().await?;
        subject.expect_shown(1, Done, None).await?;
    }
    let made = world.seen.made();
    ensure!(made.len() == 3 && made.values().all(|jobs| *jobs == 1), "not three, each made once: {made:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fall_silent_are_noticed() -> Result<()> {
    let world = Controlled::new("ctl-silent", waiting_pod(), quick(), 3).await?;
    let mut proxy = Proxy::start().await?;
    let metrics = world.run_controller_with(controller::client(proxy.config().await?)?, &world.stop())?;
    Controlled::await_ready(&metrics).await?;
    let before = world.subscribe_and_activate("before").await?;
    before.expect(Running, None).await?;
    // As a router does that has forgotten them: not a word on the watches, nor an end.
    proxy.silence();
    let after = world.subscribe_and_activate("after").await?;
    before.seal().await?;
    before.expect(Done, None).await?;
    eventually("it to run", SOON * 3, async || after.expect_now(Running, None).await).await?;
    after.seal().await?;
    after.expect_shown(1, Done, None).await?;
    ensure!(after.entry().await?.prefill.attempt == 1);
    Ok(())
}
