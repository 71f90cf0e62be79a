//! Does what is asked for by the annotation `headstart/request`, as the API would.

use broker::Modified;
use manifests::Identity;
use model::{PrefillState, Reason, Subscription, fence::Counts, subscription::Lifecycle};
use serde_json::json;

use super::{Actor, Outcome, State, now};
use crate::{Error, annotations, decide::Request, observed::JobRef};

/// How often an answer is written again because the Job has changed meanwhile.
const ANSWER_TRIES: usize = 5;

impl Actor {
    /// Does what the API would do.
    pub(super) async fn obey(&self, job: &JobRef, request: Request) -> Result<Outcome, Error> {
        let identity = &job.identity;
        let Identity { subscription, incarnation, attempt, round: _ } = identity;
        let word = request.as_str();
        let same = |current: &Subscription| {
            current.lifecycle == Lifecycle::Ready && current.prefill.attempt == *attempt
        };
        self.before("what is asked for").await;
        let change = |current: &Subscription| match request {
            _ if !same(current) => None,
            Request::Retry => current.with_prefill_again(now()),
            Request::Pause => current.with_paused(true),
            Request::Resume => current.with_paused(false),
            Request::Cancel | Request::Approve => None,
        };
        if request == Request::Approve {
            // Only the attempt of this Job, and only while it is held.
            let queue = self.broker.queue(subscription, *incarnation);
            if !queue.approve_fence(*attempt).await? {
                return self.answer(job, word, false, "the prefill is not held any more").await;
            }
            let counts = queue.fence().await?.and_then(|fence| fence.value.counts);
            let objects = counts.as_ref().map(|counts| counts.messages);
            let (reason, message) = counts.as_ref().and_then(Counts::notable).unzip();
            let done = State { state: PrefillState::Done, reason, message: message.as_deref() };
            self.record(identity, done, objects, Some(job)).await?;
        } else if request == Request::Cancel {
            // The fence first: from here on the attempt can neither write nor complete.
            if !self.broker.queue(subscription, *incarnation).cancel_fence(*attempt).await? {
                return self.answer(job, word, false, "the prefill is complete already").await;
            }
            let message = format!("cancelled by the annotation {}", annotations::REQUEST);
            let cancelled = State {
                state: PrefillState::Failed,
                reason: Some(Reason::Cancelled),
                message: Some(&message),
            };
            self.record(identity, cancelled, None, Some(job)).await?;
        } else if let Modified::Changed(entry) = self.view.modify(subscription, *incarnation, change).await? {
            tracing::info!(%subscription, %incarnation, attempt, "{word} is asked for by an annotation of the Job");
            if entry.value.prefill.boundary.is_none() {
                self.before("a marker").await;
                self.broker.events().marker(&entry.value).await?;
            }
        }
        self.answer(job, word, true, "done").await
    }

    /// Takes a request away once it is dealt with, unless another one has taken its place.
    pub(super) async fn answer(
        &self,
        job: &JobRef,
        asked: &str,
        obeyed: bool,
        note: &str,
    ) -> Result<Outcome, Error> {
        let name = job.identity.job_name();
        let mut version = job.version.clone();
        for _ in 0..ANSWER_TRIES {
            let patch = json!({
                "metadata": {
                    "uid": job.uid,
                    "resourceVersion": version,
                    "annotations": { annotations::REQUEST: null },
                },
            });
            self.before("the answer to a request").await;
            if self.cluster.patch_job(&name, &patch).await?.is_some() {
                let word = if obeyed { "RequestDone" } else { "RequestRefused" };
                self.note(job, "Answer", word, format!("{asked}: {note}"));
                break;
            }
            // Most often only the Job's status has changed meanwhile.
            let Some(metadata) = self.cluster.job(&name).await?.map(|job| job.metadata) else { break };
            let request = metadata.annotations.as_ref().and_then(|all| all.get(annotations::REQUEST));
            if metadata.uid.as_ref() != Some(&job.uid) || request.map(|text| text.trim()) != Some(asked) {
                break;
            }
            version = metadata.resource_version.unwrap_or_default();
        }
        Ok(Outcome::LookAgain)
    }
}
