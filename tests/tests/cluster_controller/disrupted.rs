//! Pods that are taken away: another one follows, by Kubernetes or by us, and the prefill is finished in the end.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use controller::Rules;
use e2e::{Namespace, OF_TESTS, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::EvictParams};
use model::{
    PrefillState::{Done, Failed, Running},
    Reason,
    fence::{Counts, FenceState},
};
use serde_json::{Value, json};

use crate::{
    controlled::{Controlled, SOON, container, obedient_pod, pod, quick, waiting_pod},
    test_subscription::TestSubscription,
};

/// A pod that takes two seconds to end, so that there is something to be seen.
pub fn slow_to_end() -> Value {
    let mut template = waiting_pod();
    pod(&mut template)["terminationGracePeriodSeconds"] = json!(10);
    container(&mut template)["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 2}}});
    template
}

pub fn patient() -> Rules {
    Rules { stuck_after: Duration::from_secs(30), start_deadline: Duration::from_secs(40), ..quick() }
}

/// It ends well in its first attempt, after so many tries that failed and count.
pub async fn ends_well(mail: &TestSubscription<'_>, former_pod: &str, counted: u64) -> Result<()> {
    mail.await_pod(1, Some(former_pod)).await?;
    mail.expect(Running, None).await?;
    let failed = |job: &Value| job["status"]["failed"].as_u64().unwrap_or(0);
    mail.await_job("failed tries are counted", 1, |job| failed(job) == counted).await?;
    mail.seal().await?;
    let done = mail.expect_shown(1, Done, None).await?;
    ensure!(done.prefill.attempt == 1, "{done:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_counts_and_is_tried_again() -> Result<()> {
    let world = Controlled::start("ctl-oom", obedient_pod(), patient(), 2).await?;
    world.tell_pods("eat")?;
    let mail = world.subscribe_and_activate("mail").await?;
    mail.expect_shown(1, Running, Some(Reason::OutOfMemory)).await?;
    world.tell_pods("work")?;
    ends_well(&mail, "", 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_does_not_count() -> Result<()> {
    let world = Controlled::start("ctl-evicted", slow_to_end(), patient(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let first = mail.await_pod(1, None).await?;
    mail.expect(Running, None).await?;
    let pods: Api<Pod> = Api::namespaced(kube::Client::try_default().await?, &world.namespace.name);
    pods.evict(&first, &EvictParams::default()).await?;
    let disrupted = mail.expect_shown(1, Running, Some(Reason::Disrupted)).await?;
    let message = disrupted.prefill.message.unwrap_or_default();
    ensure!(message.contains("EvictionByEvictionAPI"), "{message}");
    ends_well(&mail, &first, 0).await
}

/// A priority above all others; it does not go with the namespace.
struct PriorityClass<'a> {
    name: String,
    namespace: &'a Namespace,
}

impl<'a> PriorityClass<'a> {
    fn create(namespace: &'a Namespace) -> Result<Self> {
        let name = format!("{}-high", namespace.name);
        namespace.kubectl(&["create", "priorityclass", &name, "--value=1000"])?;
        let class = Self { name, namespace };
        namespace.kubectl(&["label", "priorityclass", &class.name, OF_TESTS])?;
        Ok(class)
    }
}

impl Drop for PriorityClass<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.namespace.kubectl(&["delete", "priorityclass", &self.name]) {
            eprintln!("cleaning up {}: {error:#}", self.name);
        }
    }
}

/// Something that the node has once.
struct Slot<'a>(&'a Namespace);

impl<'a> Slot<'a> {
    const NAME: &'static str = "headstart.test/slot";

    fn create(namespace: &'a Namespace) -> Result<Self> {
        let slot = Self(namespace);
        slot.patch(&json!("1"))?;
        Ok(slot)
    }

    fn patch(&self, number: &Value) -> Result<()> {
        let status =
            json!({"status": {"capacity": {Self::NAME: number}, "allocatable": {Self::NAME: number}}});
        let patch = ["patch", "node", "node1", "--subresource=status", "--type=merge", "-p"];
        self.0.kubectl(&[&patch[..], &[status.to_string().as_str()]].concat()).map(drop)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.patch(&Value::Null) {
            eprintln!("cleaning up {}: {error:#}", Self::NAME);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preemption_does_not_count() -> Result<()> {
    // There is one of these, so another pod that wants it pushes ours out, and nobody else's.
    let slot = Slot::NAME;
    let mut template = slow_to_end();
    container(&mut template)["resources"]["requests"][slot] = json!("1");
    container(&mut template)["resources"]["limits"][slot] = json!("1");
    let world = Controlled::start("ctl-preempted", template, patient(), 2).await?;
    let _slot = Slot::create(&world.namespace)?;
    let mail = world.subscribe_and_activate("mail").await?;
    let first = mail.await_pod(1, None).await?;
    mail.expect(Running, None).await?;

    let class = PriorityClass::create(&world.namespace)?;
    let mut spec = mail.job(1)?["spec"]["template"]["spec"].clone();
    spec["priorityClassName"] = json!(class.name);
    spec["volumes"] = json!([]);
    spec["containers"][0]["volumeMounts"] = json!([]);
    spec["containers"][0]["lifecycle"] = Value::Null;
    let important =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "important"}, "spec": spec});
    world.namespace.apply(&important)?;
    let disrupted = mail.expect_shown(1, Running, Some(Reason::Disrupted)).await?;
    let message = disrupted.prefill.message.unwrap_or_default();
    ensure!(message.contains("PreemptionByScheduler"), "{message}");
    mail.expect_shown(1, Running, Some(Reason::Unschedulable)).await?;
    world.namespace.kubectl(&["delete", "pod", "important"])?;
    ends_well(&mail, &first, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_by_hand_counts_and_is_tried_again() -> Result<()> {
    let world = Controlled::start("ctl-pod", waiting_pod(), patient(), 2).await?;
    let mail = world.subscribe_and_activate("mail").await?;
    let first = mail.await_pod(1, None).await?;
    mail.expect(Running, None).await?;
    world.namespace.kubectl(&["delete", "pod", &first, "--wait=false"])?;
    ends_well(&mail, &first, 1).await
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
    // What its pod would do at the other side of a partition.
    let mut zombie = mail.claim(1).await?;
    let selector = format!("job-name={}", mail.job_name(1));
    world.namespace.kubectl(&["delete", "pod", "-l", &selector, "--wait=false"])?;
    mail.expect_shown(1, Running, Some(Reason::StuckTerminating)).await?;
    eventually("the next attempt", SOON, async || {
        let prefill = mail.entry().await?.prefill;
        ensure!((prefill.attempt, prefill.round, prefill.state) == (2, 1, Running), "{prefill:?}");
        Ok(())
    })
    .await?;
    mail.await_job_gone(1).await?;
    let mut winner = mail.claim(2).await?;
    ensure!(zombie.write(1, &[Bytes::from_static(b"{}")]).await.is_err(), "a zombie has written");
    ensure!(zombie.seal(Counts::default()).await.is_err(), "a zombie has sealed");
    winner.seal(Counts::default()).await?;
    let done = mail.expect_shown(2, Done, None).await?;
    let fence = mail.fence().await?;
    ensure!((fence.attempt, fence.state) == (2, FenceState::Sealed), "{fence:?}");
    let past: Vec<_> = done.prefill.attempts.iter().map(|a| (a.attempt, a.state, a.reason)).collect();
    ensure!(past == [(1, Failed, Some(Reason::StuckTerminating)), (2, Done, None)], "{past:?}");
    // The pods need not be waited for.
    world.namespace.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0"]).map(drop)
}
