//! One subscription of a test: what is done to it, and what is expected of it.

use anyhow::{Context, Result, ensure};
use broker::{Claimed, Modified};
use e2e::eventually;
use manifests::job_name;
use model::{
    Incarnation, PrefillState, Reason, Subscription, SubscriptionName,
    fence::{Counts, Fence},
};
use serde_json::Value;

use crate::{
    controlled::{Controlled, SOON},
    log,
};

/// One subscription.
pub struct TestSubscription<'a> {
    pub world: &'a Controlled,
    pub name: SubscriptionName,
    pub incarnation: Incarnation,
}

impl TestSubscription<'_> {
    pub async fn modify(&self, change: impl FnMut(&Subscription) -> Option<Subscription>) -> Result<()> {
        let modified = self.world.broker.registry().modify(&self.name, self.incarnation, change).await?;
        ensure!(matches!(modified, Modified::Changed(_)), "{modified:?}");
        Ok(())
    }

    /// What the dispatcher does at the marker.
    pub async fn activate(&self) -> Result<()> {
        self.modify(|s| s.with_boundary(s.incarnation, s.prefill.round, 1)).await
    }

    /// Asked again after a failure, by an API that died before it made the Job.
    pub async fn retry(&self) -> Result<()> {
        self.modify(|s| s.with_prefill_again("2026-01-02T00:00:00".parse().ok()?)).await
    }

    pub async fn entry(&self) -> Result<Subscription> {
        Ok(self.world.broker.registry().subscription(&self.name).await?.context("no entry")?.value)
    }

    /// Is it in that state, with that reason, now?
    pub async fn expect_now(&self, state: PrefillState, reason: Option<Reason>) -> Result<()> {
        let prefill = self.entry().await?.prefill;
        ensure!((prefill.state, prefill.reason) == (state, reason), "{prefill:?}");
        Ok(())
    }

    /// Asks by annotation.
    pub fn request(&self, attempt: u32, what: &str) -> Result<()> {
        let (name, annotation) = (self.job_name(attempt), format!("headstart/request={what}"));
        self.world.namespace.kubectl(&["annotate", "--overwrite", "job", &name, &annotation]).map(drop)
    }

    /// Changes a label.
    pub fn label_job(&self, attempt: u32, label: &str) -> Result<()> {
        self.world
            .namespace
            .kubectl(&["label", "--overwrite", "job", &self.job_name(attempt), label])
            .map(drop)
    }

    /// Waits for a state with that reason.
    pub async fn expect(&self, state: PrefillState, reason: Option<Reason>) -> Result<Subscription> {
        let what = format!("{} to be {} {reason:?}", self.name, state.as_str());
        eventually(&what, SOON, async || {
            let entry = self.entry().await?;
            ensure!((entry.prefill.state, entry.prefill.reason) == (state, reason), "{:?}", entry.prefill);
            Ok(entry)
        })
        .await
    }

    /// What a pod does first.
    pub async fn claim(&self, attempt: u32) -> Result<broker::FenceHolder> {
        let round = self.entry().await?.prefill.round;
        let queue = self.world.broker.queue(&self.name, self.incarnation);
        match queue.claim_fence(round, attempt, "test").await? {
            Claimed::Holder(holder) => Ok(*holder),
            other => anyhow::bail!("no fence: {other:?}"),
        }
    }

    /// What a pod does that has written everything.
    pub async fn seal(&self) -> Result<()> {
        let mut holder = self.claim(self.entry().await?.prefill.attempt).await?;
        holder.seal(Counts { messages: 7, ..Counts::default() }).await.map_err(Into::into)
    }

    pub async fn fence(&self) -> Result<Fence> {
        let queue = self.world.broker.queue(&self.name, self.incarnation);
        Ok(queue.fence().await?.context("no fence")?.value)
    }

    pub fn job_name(&self, attempt: u32) -> String {
        job_name(&self.name, self.incarnation, attempt)
    }

    pub fn job(&self, attempt: u32) -> Result<Value> {
        self.world.namespace.get(&["job", &self.job_name(attempt)])
    }

    /// Waits until the Job satisfies a condition.
    pub async fn await_job(&self, what: &str, attempt: u32, good: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(what, SOON, async || {
            let job = self.job(attempt)?;
            ensure!(good(&job), "{job:#}");
            Ok(job)
        })
        .await
    }

    pub async fn await_job_gone(&self, attempt: u32) -> Result<()> {
        let name = self.job_name(attempt);
        eventually("the Job to be gone", SOON, async || {
            let left = self.world.namespace.kubectl(&["get", "jobs,configmaps", "-o", "name"])?;
            ensure!(!left.contains(&name), "{left}");
            Ok(())
        })
        .await
    }

    pub fn patch_job(&self, attempt: u32, patch: &Value) -> Result<()> {
        let (name, patch) = (self.job_name(attempt), patch.to_string());
        self.world.namespace.kubectl(&["patch", "job", &name, "--type=merge", "-p", &patch]).map(drop)
    }

    /// The Job's pods.
    pub fn pods(&self, attempt: u32) -> Result<Vec<Value>> {
        let selector = format!("job-name={}", self.job_name(attempt));
        Ok(self.world.namespace.get(&["pods", "-l", &selector])?["items"]
            .as_array()
            .context("no list")?
            .clone())
    }

    /// Waits until one of its pods runs that is not asked to end, and is not `other`; answers its name.
    pub async fn await_pod(&self, attempt: u32, other: Option<&str>) -> Result<String> {
        eventually("a pod that runs", SOON, async || {
            let pods = self.pods(attempt)?;
            let runs = |pod: &&Value| {
                pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
            };
            let names = pods.iter().filter(runs).filter_map(|pod| pod["metadata"]["name"].as_str());
            let found = names.into_iter().find(|name| Some(*name) != other);
            found.map(ToOwned::to_owned).with_context(|| format!("{pods:?}"))
        })
        .await
    }

    /// Waits for the state, and until it is shown everywhere by the same word: in the entry (which the API shows), as an
    /// Event on the Job, as its annotation, as a metric, and in the log.
    pub async fn expect_shown(
        &self,
        attempt: u32,
        state: PrefillState,
        reason: Option<Reason>,
    ) -> Result<Subscription> {
        let entry = self.expect_told(attempt, state, reason).await?;
        let shown =
            (self.job_name(attempt), state.as_str().to_owned(), reason.map(|r| r.as_str().to_owned()));
        eventually("the annotation", SOON, async || {
            let seen = self.world.seen.annotations();
            ensure!(seen.contains(&shown), "{shown:?} is not in {seen:?}");
            Ok(())
        })
        .await?;
        Ok(entry)
    }

    /// The same where there is no Job that could have an annotation.
    pub async fn expect_told(
        &self,
        attempt: u32,
        state: PrefillState,
        reason: Option<Reason>,
    ) -> Result<Subscription> {
        let entry = self.expect(state, reason).await?;
        let word = reason.map_or_else(|| state_word(state), Reason::as_str);
        self.expect_event(attempt, word).await?;
        eventually("the metric and the line in the log", SOON, async || {
            ensure!(self.world.counted(state, reason) > 0, "not counted");
            let lines = log::lines_about(&self.incarnation.to_string());
            let word = reason.map_or("", Reason::as_str);
            let tells = |line: &&Value| {
                line["attempt"] == attempt && line["state"] == state.as_str() && line["reason"] == word
            };
            ensure!(lines.iter().filter(tells).count() >= 1, "{lines:#?}");
            Ok(())
        })
        .await?;
        Ok(entry)
    }

    /// Waits for an Event on the Job with that word.
    pub async fn expect_event(&self, attempt: u32, word: &str) -> Result<()> {
        let selector = format!("involvedObject.name={},reason={word}", self.job_name(attempt));
        eventually(&format!("an Event {word}"), SOON, async || {
            let events = self.world.namespace.get(&["events", "--field-selector", &selector])?;
            ensure!(events["items"].as_array().is_some_and(|items| !items.is_empty()), "none");
            Ok(())
        })
        .await
    }
}

fn state_word(state: PrefillState) -> &'static str {
    match state {
        PrefillState::Pending => "Pending",
        PrefillState::Running => "Running",
        PrefillState::Failed => "Failed",
        PrefillState::Done => "Done",
    }
}
