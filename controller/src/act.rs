//! Does what was decided: a function per action, each idempotent or conditional, so that doing it twice, late, or from
//! two controllers at once is harmless.

use broker::{Broker, Modified, Registry};
use manifests::{Identity, JobTemplate, subscription_of};
use model::{Lifecycle, PrefillState, PrefillTask, Reason, Subscription, Timestamp};
use serde_json::{Value, json};

use crate::{
    Error, annotations,
    announce::{Announcement, Announcer},
    cluster::{Cluster, Created},
    decide::{Action, Deletion, deletion_is_justified, may_record},
    metrics::Metrics,
    observed::JobRef,
};

/// What it takes to act.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) broker: Broker,
    pub(crate) cluster: Cluster,
    pub(crate) template: JobTemplate,
    pub(crate) announcer: Announcer,
    pub(crate) metrics: Metrics,
}

/// What an action came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done, or was done already.
    Done,
    /// What was decided about has changed meanwhile: observe again.
    Overtaken,
}

impl Actor {
    fn registry(&self) -> Registry {
        self.broker.registry()
    }

    pub(crate) async fn act(&self, action: &Action) -> Result<Outcome, Error> {
        match action {
            Action::Record { identity, state, reason, message, job } => {
                self.record(identity, *state, *reason, message.as_deref(), job.as_ref()).await
            }
            Action::NextAttempt { identity, job, reason, message } => {
                self.next_attempt(identity, job, *reason, message).await
            }
            Action::CreateJob(task) => self.create_job(task).await,
            Action::CreateInput { task, job } => self.create_input(task, &job.uid).await,
            Action::Admit(job) => self.admit(job).await,
            Action::Adopt(job) => self.adopt(job).await,
            Action::Show { job, state, reason, progress } => {
                self.show(job, *state, *reason, progress.as_deref()).await
            }
            Action::Delete { job, why } => self.delete(job, *why).await,
            Action::LookAgain(_) => Ok(Outcome::Done),
        }
    }

    async fn record(
        &self,
        identity: &Identity,
        state: PrefillState,
        reason: Option<Reason>,
        message: Option<&str>,
        job: Option<&JobRef>,
    ) -> Result<Outcome, Error> {
        let change = |current: &Subscription| {
            let may = may_record(current, identity, state);
            let message = message.map(ToOwned::to_owned);
            if may { current.with_prefill_state(state, reason, message, now()) } else { None }
        };
        if state == PrefillState::Done {
            // Before anybody sees the queue: events that the prefill holds already are not to be seen.
            let queue = self.broker.queue(&identity.subscription, identity.incarnation);
            queue.remove_contained(identity.attempt).await?;
        }
        match self.registry().modify(&identity.subscription, identity.incarnation, change).await? {
            Modified::Changed(_) => {
                self.tell(identity, state, reason, message, job);
                Ok(Outcome::Done)
            }
            Modified::Unchanged(_) | Modified::Gone => Ok(Outcome::Overtaken),
        }
    }

    async fn next_attempt(
        &self,
        identity: &Identity,
        job: &JobRef,
        reason: Reason,
        message: &str,
    ) -> Result<Outcome, Error> {
        let change = |current: &Subscription| {
            may_record(current, identity, PrefillState::Failed)
                .then(|| current.with_prefill_state(PrefillState::Failed, Some(reason), None, now()))
                .flatten()?
                .with_prefill_again(now())
        };
        match self.registry().modify(&identity.subscription, identity.incarnation, change).await? {
            Modified::Changed(_) => {
                self.tell(identity, PrefillState::Failed, Some(reason), Some(message), Some(job));
                Ok(Outcome::Done)
            }
            Modified::Unchanged(_) | Modified::Gone => Ok(Outcome::Overtaken),
        }
    }

    /// The same word in log, metric and Event.
    fn tell(
        &self,
        identity: &Identity,
        state: PrefillState,
        reason: Option<Reason>,
        message: Option<&str>,
        job: Option<&JobRef>,
    ) {
        let Identity { subscription, incarnation, attempt, round: _ } = identity;
        let word = reason.map_or("", Reason::as_str);
        let text = message.unwrap_or_default();
        let name = state.as_str();
        let failed = state == PrefillState::Failed;
        if failed {
            tracing::warn!(%subscription, %incarnation, attempt, state = name, reason = word, "the prefill of {subscription} failed: {text}");
        } else {
            tracing::info!(%subscription, %incarnation, attempt, state = name, reason = word, "the prefill of {subscription} is {name} {text}");
        }
        self.metrics.changed(state, reason);
        let Some(job) = job else { return };
        let note = match message {
            Some(text) => format!("prefill of {subscription} is {name}: {text}"),
            None => format!("prefill of {subscription} is {name}"),
        };
        self.announcer.announce(Announcement {
            job: job.clone(),
            warning: failed,
            reason: reason.map_or_else(|| state_word(state).to_owned(), |reason| reason.as_str().to_owned()),
            note,
            action: "Record",
        });
    }

    /// The same two objects that the API makes, so a 409 is success.
    async fn create_job(&self, task: &PrefillTask) -> Result<Outcome, Error> {
        let entry = self.registry().subscription(&task.subscription).await?;
        let wanted = entry.as_ref().is_some_and(|entry| {
            let entry = &entry.value;
            entry.lifecycle == Lifecycle::Ready
                && entry.prefill.state == PrefillState::Pending
                && PrefillTask::of(entry) == *task
        });
        if !wanted {
            return Ok(Outcome::Overtaken);
        }
        let job = manifests::job(&self.template, task);
        let name = Identity::from(task).job_name();
        let job = match self.cluster.create_job(&job).await? {
            Created::New(job) => {
                tracing::info!(subscription = %task.subscription, attempt = task.attempt, job = name, "the Job {name} was missing and is made");
                job
            }
            Created::Exists => match self.cluster.job(&name).await? {
                Some(job) => job,
                None => return Ok(Outcome::Overtaken),
            },
        };
        if subscription_of(&job).as_ref() != Some(&Identity::from(task)) {
            return Err(Error::NameTaken { name });
        }
        self.create_input(task, job.metadata.uid.as_deref().unwrap_or_default()).await
    }

    async fn create_input(&self, task: &PrefillTask, owner_uid: &str) -> Result<Outcome, Error> {
        let map = manifests::config_map(&self.template, task, owner_uid);
        self.cluster.create_config_map(&map).await?;
        // Whoever made it: the next look tells whether it is the right one.
        Ok(Outcome::Overtaken)
    }

    async fn admit(&self, job: &JobRef) -> Result<Outcome, Error> {
        let name = job.identity.job_name();
        let patch = json!({
            "metadata": {
                "uid": job.uid,
                "resourceVersion": job.version,
                "annotations": { annotations::ADMITTED_AT: now().as_str() },
            },
            "spec": { "suspend": false },
        });
        if self.cluster.patch_job(&name, &patch).await?.is_none() {
            return Ok(Outcome::Overtaken);
        }
        let Identity { subscription, incarnation, attempt, round: _ } = &job.identity;
        tracing::info!(%subscription, %incarnation, attempt, job = name, "the Job {name} is admitted");
        self.metrics.jobs_admitted.inc();
        self.announcer.announce(Announcement {
            job: job.clone(),
            warning: false,
            reason: "Admitted".to_owned(),
            note: format!("prefill of {subscription} may start"),
            action: "Admit",
        });
        Ok(Outcome::Done)
    }

    async fn adopt(&self, job: &JobRef) -> Result<Outcome, Error> {
        self.annotate(job, json!({ annotations::ADMITTED_AT: now().as_str() })).await
    }

    async fn show(
        &self,
        job: &JobRef,
        state: PrefillState,
        reason: Option<Reason>,
        progress: Option<&str>,
    ) -> Result<Outcome, Error> {
        let shown = json!({
            annotations::STATE: state.as_str(),
            // `null` removes an annotation.
            annotations::REASON: reason.map(Reason::as_str),
            annotations::PROGRESS: progress,
        });
        self.annotate(job, shown).await
    }

    /// Annotations say nothing that a decision is made on, but for `admitted-at`, which only ever appears: so the UID
    /// is condition enough.
    async fn annotate(&self, job: &JobRef, shown: Value) -> Result<Outcome, Error> {
        let patch = json!({ "metadata": { "uid": job.uid, "annotations": shown } });
        let patched = self.cluster.patch_job(&job.identity.job_name(), &patch).await?;
        Ok(if patched.is_some() { Outcome::Done } else { Outcome::Overtaken })
    }

    async fn delete(&self, job: &JobRef, why: Deletion) -> Result<Outcome, Error> {
        let entry = self.registry().subscription(&job.identity.subscription).await?;
        if !deletion_is_justified(entry.as_ref().map(|entry| &entry.value), job) {
            return Ok(Outcome::Overtaken);
        }
        let name = job.identity.job_name();
        if self.cluster.delete_job(&name, &job.uid).await? {
            let Identity { subscription, incarnation, attempt, round: _ } = &job.identity;
            tracing::info!(%subscription, %incarnation, attempt, job = name, reason = why.as_str(), "the Job {name} is deleted");
            self.metrics.deleted(why);
        }
        Ok(Outcome::Done)
    }
}

/// The word of an Event about a state without a reason.
fn state_word(state: PrefillState) -> &'static str {
    match state {
        PrefillState::Pending => "Pending",
        PrefillState::Running => "Running",
        PrefillState::Failed => "Failed",
        PrefillState::Done => "Done",
    }
}

/// The wall clock, for people only.
fn now() -> Timestamp {
    Timestamp::from_utc(jiff::Timestamp::now())
}

#[cfg(test)]
mod tests;
