//! What happens to a node, and so to every pod on it. These tests run alone.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use controller::Rules;
use e2e::{Namespace, eventually};
use model::{
    PrefillState::{Done, Failed, Running},
    Reason,
    fence::Counts,
};

use crate::{
    controlled::{Controlled, SOON, waiting_pod},
    disrupted::{ends_well, patient, slow_to_end},
};

/// The node, on which nothing new is placed once it is drained: until this is dropped.
struct Drained<'a>(&'a Namespace);

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.kubectl(&["uncordon", "node1"]) {
            eprintln!("cleaning up: {error:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_does_not_count() -> Result<()> {
    let world = Controlled::start_alone("ctl-drained", slow_to_end(), patient(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let first = mail.await_pod(1, None).await?;
    mail.expect(Running, None).await?;
    let selector = format!("--pod-selector=job-name={}", mail.job_name(1));
    let node = Drained(&world.namespace);
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let drain =
                scope.spawn(|| world.namespace.kubectl(&["drain", "node1", &selector, "--timeout=60s"]));
            let shown = tokio::runtime::Handle::current().block_on(mail.expect_shown(
                1,
                Running,
                Some(Reason::Disrupted),
            ));
            let drained = drain.join().expect("no panic");
            shown.and(drained)
        })
    })?;
    mail.expect_shown(1, Running, Some(Reason::Unschedulable)).await?;
    drop(node);
    ends_well(&mail, &first, 0).await
}

/// The kubelet, which says nothing while this lives.
struct Silenced(String);

impl Silenced {
    fn kubelet() -> Result<Self> {
        let node = std::env::var("HEADSTART_NODE_PID").context("run by `cargo xtask test`")?;
        let started = std::fs::read_to_string(format!("/proc/{node}/task/{node}/children"))?;
        let name = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let pid =
            started.split_whitespace().find(|pid| name(pid).trim() == "kubelet").context("no kubelet")?;
        let silenced = Self(pid.to_owned());
        silenced.signal("-STOP")?;
        Ok(silenced)
    }

    fn signal(&self, signal: &str) -> Result<()> {
        ensure!(Command::new("kill").args([signal, &self.0]).status()?.success(), "kill {signal} {}", self.0);
        Ok(())
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        if let Err(error) = self.signal("-CONT") {
            eprintln!("{error:#}");
        }
    }
}

/// The node says nothing any more, while its containers go on: to Kubernetes the pod is terminating for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_a_lost_node_is_overtaken_and_changes_nothing_any_more() -> Result<()> {
    let rules = Rules { stuck_after: Duration::from_secs(4), ..patient() };
    let world = Controlled::start_alone("ctl-lost", waiting_pod(), rules, 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let pod = mail.await_pod(1, None).await?;
    mail.expect(Running, None).await?;
    let mut zombie = mail.claim(1).await?;
    let lost = Silenced::kubelet()?;
    world.namespace.kubectl(&["delete", "pod", &pod, "--wait=false"])?;
    mail.expect_shown(1, Running, Some(Reason::StuckTerminating)).await?;
    let winner = eventually("the next attempt", SOON, async || {
        let prefill = mail.entry().await?.prefill;
        ensure!((prefill.attempt, prefill.round) == (2, 1), "{prefill:?}");
        mail.claim(2).await
    })
    .await;
    let mut winner = winner?;
    let late = zombie.write(1, &[Bytes::from_static(b"{}")]).await;
    ensure!(late.is_err() && zombie.seal(Counts::default()).await.is_err(), "the old pod has written");
    drop(lost);
    mail.expect_shown(2, Running, None).await?;
    winner.seal(Counts { messages: 1, ..Counts::default() }).await?;
    let done = mail.expect_shown(2, Done, None).await?;
    let past: Vec<_> = done.prefill.attempts.iter().map(|a| (a.attempt, a.state, a.reason)).collect();
    ensure!(past == [(1, Failed, Some(Reason::StuckTerminating)), (2, Done, None)], "{past:?}");
    Ok(())
}
