//! Many at once: so many run as may, the oldest first, counted from what is in the cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use controller::Rules;
use e2e::eventually;
use futures::{StreamExt, TryStreamExt, stream};
use model::{
    PrefillState::{Done, Pending, Running},
    Reason,
};
use tokio_util::sync::CancellationToken;

use crate::controlled::{Controlled, obedient_pod, quick, suspended, waiting_pod};

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

/// Registered at once, run by three controllers one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_are_done_oldest_first_and_never_more_at_once_than_may() -> Result<()> {
    const ALL: usize = 200;
    const AT_ONCE: usize = 8;
    let soon = Duration::from_secs(240);
    let rules = Rules { linger: Duration::from_secs(30), ..quick() };
    let mut world = Controlled::new("ctl-many", obedient_pod(), rules, 0).await?;
    world.tell_pods("exit 0")?;
    let first = CancellationToken::new();
    world.run_controller(&first).await?;
    let names: Vec<String> = (0..ALL).map(|n| format!("app{n:03}")).collect();
    stream::iter(&names)
        .map(|name| world.subscribe_and_activate(name))
        .buffer_unordered(16)
        .try_for_each(async |_| Ok(()))
        .await?;
    // Nobody may run: `kubectl get jobs` is the queue, and says so.
    let columns = "-o=custom-columns=NAME:.metadata.name,SUSPENDED:.spec.suspend,\
                   REASON:.metadata.annotations.headstart/reason";
    let queue = eventually("all to wait in the queue", soon, async || {
        let table = world.namespace.kubectl(&["get", "jobs", "--no-headers", columns])?;
        let waits = table.lines().filter(|line| line.contains("true") && line.contains("Queued")).count();
        ensure!(waits == ALL, "{waits} of {ALL}");
        Ok(table)
    })
    .await?;
    ensure!(queue.lines().count() == ALL);
    first.cancel();

    world.max_running = AT_ONCE;
    let second = CancellationToken::new();
    world.run_controller(&second).await?;
    // What the pods would do: seal. One that has ended without is to be found.
    let sealing = seal_whoever_starts(&world, ALL);
    let killing = async {
        eventually("the half", soon, async || {
            ensure!(world.seen.admitted().len() >= ALL / 2);
            Ok(())
        })
        .await?;
        second.cancel();
        world.run_controller(&world.stop()).await.map(drop)
    };
    tokio::try_join!(sealing, killing)?;
    eventually("all to be done", soon, async || {
        let entries = world.broker.registry().list().await?.entries;
        let done = |entry: &model::Entry| match entry {
            model::Entry::Subscription(s) => s.prefill.state == Done && s.prefill.attempt == 1,
            model::Entry::Tombstone(_) => false,
        };
        let count = entries.iter().filter(|(_, entry)| done(&entry.value)).count();
        ensure!(count == ALL, "{count} of {ALL}");
        Ok(())
    })
    .await?;
    let most = world.seen.running_most();
    ensure!(most <= AT_ONCE, "{most} ran at once");
    let admitted = world.seen.admitted();
    ensure!(admitted.len() == ALL, "{}", admitted.len());
    // Those whose turn it is are admitted side by side.
    let unfair: Vec<_> = admitted.iter().filter(|(_, older)| *older >= AT_ONCE).collect();
    ensure!(unfair.is_empty(), "older ones waited: {unfair:?}");
    Ok(())
}

/// Seals the attempt of each Job as it is admitted.
async fn seal_whoever_starts(world: &Controlled, all: usize) -> Result<()> {
    let entries = world.broker.registry().list().await?.entries;
    let mut subjects = std::collections::HashMap::new();
    for (name, entry) in entries {
        if let model::Entry::Subscription(s) = entry.value {
            let subject = world.subject(name, s.incarnation);
            subjects.insert(subject.job_name(1), subject);
        }
    }
    let mut sealed = 0;
    while sealed < all {
        let admitted = world.seen.admitted();
        for (job, _) in &admitted[sealed..] {
            subjects[job].seal().await?;
        }
        sealed = admitted.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
