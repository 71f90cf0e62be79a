//! Does what was decided: a function per action, each idempotent or conditional, so that doing it twice, late, or from
//! two controllers at once is harmless.

use std::collections::BTreeMap;

use broker::{Broker, Modified, Registry, RegistryView};
use manifests::{Identity, JobTemplate, is_job_of, labels};
use model::{PrefillState, Reason, Subscription, Timestamp, prefill::PrefillTask, subscription::Lifecycle};
use serde_json::{Value, json};

use crate::{
    Error, annotations,
    announce::{Announcement, Announcer},
    cluster::{Cluster, Created, refusal},
    config::WriteHook,
    decide::{Action, Deletion, deletion_is_justified, is_failed_start, may_record},
    metrics::Metrics,
    observed::JobRef,
    reason,
};

mod request;

/// What it takes to act.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) broker: Broker,
    pub(crate) view: RegistryView,
    pub(crate) cluster: Cluster,
    pub(crate) template: JobTemplate,
    pub(crate) announcer: Announcer,
    pub(crate) metrics: Metrics,
    pub(crate) before_write: Option<WriteHook>,
}

/// A state to be written or told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State<'a> {
    pub(crate) state: PrefillState,
    pub(crate) reason: Option<Reason>,
    pub(crate) message: Option<&'a str>,
}

/// What an action came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done, or was done already.
    Done,
    /// What was decided about has changed meanwhile, or only another look tells what has become of it.
    LookAgain,
}

impl Actor {
    fn registry(&self) -> Registry {
        self.broker.registry()
    }

    pub(crate) async fn act(&self, action: &Action) -> Result<Outcome, Error> {
        match action {
            Action::Record { identity, state, reason, message, objects, job } => {
                let end = State { state: *state, reason: *reason, message: message.as_deref() };
                self.record(identity, end, *objects, job.as_ref()).await
            }
            Action::NextAttempt { identity, job, reason, message } => {
                self.next_attempt(identity, job, *reason, message).await
            }
            Action::StartAgain(identity) => self.start_again(identity).await,
            Action::CreateJob(task) => self.create_job(task).await,
            Action::CreateInput { task, job } => self.create_input(task, &job.uid).await,
            Action::Admit(job) => self.admit(job).await,
            Action::Suspend(job) => self.suspend(job).await,
            Action::Relabel { job, labels } => self.relabel(job, labels).await,
            Action::Obey { job, request } => self.obey(job, *request).await,
            Action::Refuse { job, asked, why } => self.answer(job, asked, false, why).await,
            Action::Adopt(job) => self.adopt(job).await,
            Action::Show { job, state, reason, message: _, progress } => {
                self.show(job, *state, *reason, progress.as_deref()).await
            }
            Action::Delete { job, why } => self.delete(job, *why).await,
            Action::LookAgain(_) => Ok(Outcome::Done),
        }
    }

    async fn record(
        &self,
        identity: &Identity,
        to: State<'_>,
        objects: Option<u64>,
        job: Option<&JobRef>,
    ) -> Result<Outcome, Error> {
        let change = |current: &Subscription| {
            let may = may_record(current, identity, to.state);
            let message = to.message.map(ToOwned::to_owned);
            let next =
                may.then(|| current.with_prefill_state(to.state, to.reason, message, now())).flatten()?;
            Some(match objects {
                Some(objects) => next.with_objects(objects),
                None => next,
            })
        };
        if to.state == PrefillState::Done {
            // Before anybody sees the queue: events that the prefill holds already are not to be seen.
            let queue = self.broker.queue(&identity.subscription, identity.incarnation);
            self.before("what the prefill holds already").await;
            queue.remove_contained(identity.attempt).await?;
        }
        self.before("the entry's state").await;
        match self.view.modify(&identity.subscription, identity.incarnation, change).await? {
            Modified::Changed(_) => {
                self.tell(identity, to, job.map(|job| job.uid.as_str()));
                Ok(Outcome::Done)
            }
            Modified::Unchanged(_) | Modified::Gone => Ok(Outcome::LookAgain),
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
                .then(|| {
                    let message = Some(message.to_owned());
                    current.with_prefill_state(PrefillState::Failed, Some(reason), message, now())
                })
                .flatten()?
                .with_prefill_again(now())
        };
        self.before("the next attempt").await;
        match self.view.modify(&identity.subscription, identity.incarnation, change).await? {
            Modified::Changed(_) => {
                let failed =
                    State { state: PrefillState::Failed, reason: Some(reason), message: Some(message) };
                self.tell(identity, failed, Some(&job.uid));
                Ok(Outcome::Done)
            }
            Modified::Unchanged(_) | Modified::Gone => Ok(Outcome::LookAgain),
        }
    }

    async fn start_again(&self, identity: &Identity) -> Result<Outcome, Error> {
        let change = |current: &Subscription| {
            let prefill = &current.prefill;
            let failed = may_record(current, identity, PrefillState::Failed)
                && prefill.state == PrefillState::Failed
                && prefill.reason.is_some_and(is_failed_start);
            failed.then(|| current.with_prefill_again(now())).flatten()
        };
        self.before("the next attempt").await;
        match self.view.modify(&identity.subscription, identity.incarnation, change).await? {
            Modified::Changed(entry) => {
                let next = Identity::from(&PrefillTask::of(&entry.value));
                let message =
                    Some("the attempt before could not start; this one is made without anybody's asking");
                self.tell(&next, State { state: PrefillState::Pending, reason: None, message }, None);
                Ok(Outcome::Done)
            }
            Modified::Unchanged(_) | Modified::Gone => Ok(Outcome::LookAgain),
        }
    }

    /// The same word in log, metric and Event. Without a UID the Event is about the name of the attempt's Job, which is
    /// gone, or is still to come.
    pub(crate) fn tell(&self, identity: &Identity, to: State<'_>, uid: Option<&str>) {
        let State { state, reason, message } = to;
        let Identity { subscription, incarnation, attempt, round: _ } = identity;
        let word = reason.map_or("", Reason::as_str);
        let text = message.unwrap_or_default();
        let name = state.as_str();
        // Done with a reason: something is not in it.
        let worth_a_look = match state {
            PrefillState::Failed => true,
            PrefillState::Done => reason.is_some(),
            PrefillState::Pending | PrefillState::Running => false,
        };
        if worth_a_look {
            tracing::warn!(%subscription, %incarnation, attempt, state = name, reason = word, "the prefill of {subscription} is {name}: {text}");
        } else {
            tracing::info!(%subscription, %incarnation, attempt, state = name, reason = word, "the prefill of {subscription} is {name} {text}");
        }
        self.metrics.changed(state, reason);
        let note = match message {
            Some(text) => format!("prefill of {subscription} {name}: {text}"),
            None => format!("prefill of {subscription} {name}"),
        };
        self.announcer.announce(Announcement {
            job: identity.job_name(),
            uid: uid.map(ToOwned::to_owned),
            warning: worth_a_look,
            reason: reason.map_or_else(|| state_word(state).to_owned(), |reason| reason.as_str().to_owned()),
            note,
            action: "Record",
        });
    }

    /// A Job that can't be made is no reason to give up, but one that is shown: it is tried again.
    async fn create_job(&self, task: &PrefillTask) -> Result<Outcome, Error> {
        let created = self.make_job(task).await;
        if let Err(error @ Error::NameTaken { .. }) = &created {
            self.waits(&Identity::from(task), None, Reason::NameTaken, &error.to_string()).await?;
        }
        self.explain(&Identity::from(task), None, created).await
    }

    /// What the API server refuses, as things are, is tried again, and its words are shown meanwhile.
    async fn explain<T>(
        &self,
        identity: &Identity,
        job: Option<&JobRef>,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(text) = result.as_ref().err().and_then(refusal) {
            self.waits(identity, job, reason::of_refusal(text), &reason::shorten(text)).await?;
        }
        result
    }

    /// Writes down why the prefill does not get on. The sentence may change while the word stays (a quota's figures),
    /// and that is not worth a write.
    async fn waits(
        &self,
        identity: &Identity,
        job: Option<&JobRef>,
        reason: Reason,
        message: &str,
    ) -> Result<(), Error> {
        let change = |current: &Subscription| {
            let state = current.prefill.state;
            let may = may_record(current, identity, state)
                && current.awaits_prefill()
                && current.prefill.reason != Some(reason);
            may.then(|| current.with_prefill_state(state, Some(reason), Some(message.to_owned()), now()))
                .flatten()
        };
        self.before("the entry's state").await;
        let modified = self.view.modify(&identity.subscription, identity.incarnation, change).await?;
        if let Modified::Changed(entry) = modified {
            let waits =
                State { state: entry.value.prefill.state, reason: Some(reason), message: Some(message) };
            self.tell(identity, waits, job.map(|job| job.uid.as_str()));
        }
        Ok(())
    }

    /// The same two objects that the API makes, so a 409 is success.
    async fn make_job(&self, task: &PrefillTask) -> Result<Outcome, Error> {
        let entry = self.registry().subscription(&task.subscription).await?;
        let wanted = entry.map(|entry| entry.value).filter(|entry| {
            entry.lifecycle == Lifecycle::Ready
                && entry.prefill.state == PrefillState::Pending
                && PrefillTask::of(entry) == *task
        });
        let Some(entry) = wanted else { return Ok(Outcome::LookAgain) };
        let mut job = manifests::job_of(&self.template, &entry);
        job.metadata.owner_references = self.cluster.owner().await?.map(|owner| vec![owner]);
        let name = Identity::from(task).job_name();
        self.before("a Job").await;
        let job = match self.cluster.create_job(&job).await? {
            Created::New(job) => {
                tracing::info!(subscription = %task.subscription, attempt = task.attempt, job = name, "the Job {name} was missing and is made");
                job
            }
            Created::Exists => match self.cluster.job(&name).await? {
                Some(job) => job,
                None => return Ok(Outcome::LookAgain),
            },
        };
        if !is_job_of(&job, &Identity::from(task)) {
            return Err(Error::NameTaken { name });
        }
        let annotations = job.metadata.annotations.as_ref();
        let asked = annotations.and_then(|all| all.get(labels::ASKED)).map(String::as_str);
        if !manifests::is_as_asked(asked, &entry) {
            return Ok(Outcome::LookAgain);
        }
        self.create_input(task, job.metadata.uid.as_deref().unwrap_or_default()).await
    }

    async fn create_input(&self, task: &PrefillTask, owner_uid: &str) -> Result<Outcome, Error> {
        let map = manifests::config_map(&self.template, task, owner_uid);
        self.before("a ConfigMap").await;
        self.cluster.create_config_map(&map).await?;
        // Whoever made it: the next look tells whether it is the right one.
        Ok(Outcome::LookAgain)
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
        self.before("an admission").await;
        let patched = self.cluster.patch_job(&name, &patch).await;
        if self.explain(&job.identity, Some(job), patched).await?.is_none() {
            return Ok(Outcome::LookAgain);
        }
        let Identity { subscription, incarnation, attempt, round: _ } = &job.identity;
        tracing::info!(%subscription, %incarnation, attempt, job = name, "the Job {name} is admitted");
        self.metrics.jobs_admitted.inc();
        self.note(job, "Admit", "Admitted", format!("prefill of {subscription} may start"));
        Ok(Outcome::Done)
    }

    /// It is not admitted any more: it takes its turn again when it is resumed.
    async fn suspend(&self, job: &JobRef) -> Result<Outcome, Error> {
        let patch = json!({
            "metadata": {
                "uid": job.uid,
                "resourceVersion": job.version,
                "annotations": { annotations::ADMITTED_AT: null },
            },
            "spec": { "suspend": true },
        });
        let name = job.identity.job_name();
        self.before("a suspension").await;
        let patched = self.cluster.patch_job(&name, &patch).await;
        if self.explain(&job.identity, Some(job), patched).await?.is_none() {
            return Ok(Outcome::LookAgain);
        }
        let Identity { subscription, incarnation, attempt, round: _ } = &job.identity;
        tracing::info!(%subscription, %incarnation, attempt, job = name, "the Job {name} is suspended: its prefill is paused");
        // Its state is written down when it is seen to be suspended.
        Ok(Outcome::LookAgain)
    }

    async fn relabel(&self, job: &JobRef, labels: &BTreeMap<String, String>) -> Result<Outcome, Error> {
        let patch = json!({ "metadata": { "uid": job.uid, "labels": labels } });
        let name = job.identity.job_name();
        self.before("labels").await;
        if self.cluster.patch_job(&name, &patch).await?.is_none() {
            return Ok(Outcome::LookAgain);
        }
        let Identity { subscription, incarnation, attempt, round: _ } = &job.identity;
        tracing::warn!(%subscription, %incarnation, attempt, job = name, "somebody had changed labels of the Job {name}; they are put right");
        self.note(job, "Relabel", "Relabelled", "labels that it is found by are put right".to_owned());
        Ok(Outcome::LookAgain)
    }

    /// An Event on a Job that is about something else than a state.
    fn note(&self, job: &JobRef, action: &'static str, word: &str, note: String) {
        self.announcer.announce(Announcement {
            job: job.identity.job_name(),
            uid: Some(job.uid.clone()),
            warning: false,
            reason: word.to_owned(),
            note,
            action,
        });
    }

    /// For tests of crashes: stops here for ever if the test wants so.
    async fn before(&self, write: &str) {
        if self.before_write.as_ref().is_some_and(|hook| (hook.0)(write)) {
            std::future::pending::<()>().await;
        }
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
        self.before("annotations").await;
        let patched = self.cluster.patch_job(&job.identity.job_name(), &patch).await?;
        Ok(if patched.is_some() { Outcome::Done } else { Outcome::LookAgain })
    }

    async fn delete(&self, job: &JobRef, why: Deletion) -> Result<Outcome, Error> {
        let entry = self.registry().subscription(&job.identity.subscription).await?;
        if !deletion_is_justified(entry.as_ref().map(|entry| &entry.value), job) {
            return Ok(Outcome::LookAgain);
        }
        let name = job.identity.job_name();
        self.before("a deletion").await;
        if self.cluster.delete_job(&name, &job.uid).await? {
            let Identity { subscription, incarnation, attempt, round: _ } = &job.identity;
            tracing::info!(%subscription, %incarnation, attempt, job = name, reason = why.as_str(), "the Job {name} is deleted");
            self.metrics.deleted(why);
        }
        // It is deleted when it is seen no more. A conflict says as little as an answer that was lost.
        Ok(Outcome::LookAgain)
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
