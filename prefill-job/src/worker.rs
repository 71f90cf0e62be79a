//! `headstart worker`: attempts from the task queue, for installations without Kubernetes.
//!
//! The worker records the outcome itself. While it works it says so; when it dies the task comes again after a pause
//! that grows with the number of tries, up to a limit.
//!
//! A prefill that is paused has no task: the worker says in the entry that it has stopped, by compare-and-set, and then
//! gives the task up. Who resumes the prefill finds that said, and queues a *new* task. One that was resumed before its
//! worker saw the pause still has its task, and its worker goes on.

use std::{sync::Arc, time::Duration};

use broker::{Broker, Modified, Task, TasksConfig};
use model::{
    Prefill, Reason, Subscription, Timestamp, error_chain, prefill::PrefillTask, resync::MaxRemovals,
    subscription::Lifecycle,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::{self, Options},
    metrics::Metrics,
    outcome::{Failure, Outcome},
    shape::Shape,
    source::Source,
};
use decide::{End, Fate, Told, Wish};

mod decide;

/// Settings of a worker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Attempts that this process works on at once.
    pub parallel: usize,
    /// Tries of one attempt before it has failed; `None`: no limit.
    pub tries_max: Option<u64>,
    /// Name of this worker, for people.
    pub holder: String,
    /// Pauses between tries.
    pub tasks: TasksConfig,
    /// In which shape objects come.
    pub shape: Shape,
    /// How many removals a resync may tell without being approved.
    pub max_removals: MaxRemovals,
    /// What it tells of itself.
    pub metrics: Metrics,
}

/// How often the server hears that the work goes on. A third of the shortest pause of [`TasksConfig`].
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a worker looks whether its prefill is paused.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one request for work waits.
const WAIT: Duration = Duration::from_secs(20);

/// Works until `shutdown`.
pub async fn run(config: Config, broker: Broker, source: Arc<Source>, shutdown: CancellationToken) {
    let mut workers = JoinSet::new();
    for number in 1..=config.parallel {
        let (config, broker, source, shutdown) =
            (config.clone(), broker.clone(), source.clone(), shutdown.clone());
        let holder = format!("{}-{number}", config.holder);
        workers.spawn(async move {
            Worker { config, broker, source, holder, shutdown }.run().await;
        });
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a worker ended by itself");
        }
    }
}

struct Worker {
    config: Config,
    broker: Broker,
    source: Arc<Source>,
    holder: String,
    shutdown: CancellationToken,
}

impl Worker {
    async fn run(self) {
        let tasks = self.broker.tasks();
        while !self.shutdown.is_cancelled() {
            let task = tokio::select! {
                () = self.shutdown.cancelled() => return,
                task = tasks.next(&self.config.tasks, WAIT) => task,
            };
            match task {
                Ok(Some(task)) => self.handle(&task).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(error = %error_chain(&error), "no task could be asked for; it is being tried again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    async fn handle(&self, task: &Task) {
        let fate = match &task.request {
            Err(error) => {
                tracing::error!(error, "a task can't be read and is dropped");
                Fate::Finish
            }
            Ok(request) => tokio::select! {
                fate = self.work(request, task.tries) => fate,
                () = keep(task) => Fate::Leave,
            },
        };
        let told = match fate {
            // Who resumes it queues it anew, and what is said of this one then hits nothing.
            Fate::Finish | Fate::Pause => task.finish().await,
            Fate::Retry(pause) => task.retry_after(pause).await,
            Fate::Leave => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(error = %error_chain(&error), "the task may come again");
        }
    }

    async fn work(&self, request: &PrefillTask, tries: u64) -> Fate {
        let over = self.config.tries_max.is_some_and(|max| tries > max);
        let (outcome, stopped) = if over {
            // It crashed the worker each time; if the last one sealed before it died, the attempt is complete.
            (self.sealed_or(request, gave_up(tries - 1)).await, false)
        } else {
            match self.record(request, decide::begin).await {
                Ok(Some(Wish::Work)) => self.attempt(request).await,
                Ok(Some(Wish::Wait)) => return Fate::Pause,
                Ok(Some(Wish::Nothing) | None) => return Fate::Finish,
                Err(error) => return unrecorded(&error),
            }
        };
        let last = self.config.tries_max.is_some_and(|max| tries >= max);
        let fate =
            self.end(request, &End { outcome: &outcome, stopped, last, pause: self.pause(tries) }).await;
        if !over {
            self.config.metrics.ended(&outcome, fate == Fate::Pause);
        }
        if self.shutdown.is_cancelled() && !fate.is_over() {
            // Another worker may go on at once.
            return Fate::Retry(Duration::ZERO);
        }
        fate
    }

    /// Runs the attempt until it ends or is paused; true: it was paused.
    async fn attempt(&self, request: &PrefillTask) -> (Outcome, bool) {
        let (told, _running) = self.config.metrics.attempt();
        let Config { shape, max_removals, .. } = self.config;
        let options = Options { shape, max_removals, told: Some(told) };
        let stop = self.shutdown.child_token();
        let running = attempt::run_with(&self.broker, &self.source, request, &self.holder, &stop, options);
        tokio::pin!(running);
        let (outcome, stopped) = tokio::select! {
            outcome = &mut running => (outcome, false),
            () = self.paused(request) => {
                stop.cancel();
                (running.await, true)
            }
        };
        (self.cancelled_or(request, outcome).await, stopped)
    }

    /// Returns when the prefill is paused, and its entry says that this worker has seen that.
    async fn paused(&self, request: &PrefillTask) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.record(request, decide::stop).await {
                Ok(Some(true)) => return,
                Ok(Some(false) | None) => {}
                Err(error) => {
                    tracing::debug!(error = %error_chain(&error), "it is unknown whether the prefill is paused");
                }
            }
        }
    }

    async fn end(&self, request: &PrefillTask, end: &End<'_>) -> Fate {
        if matches!(end.outcome, Outcome::Done(_)) && self.leave_out(request).await.is_err() {
            return Fate::Leave;
        }
        match self.record(request, |now| decide::end(now, end)).await {
            Ok(fate) => fate.unwrap_or(Fate::Finish),
            Err(error) => unrecorded(&error),
        }
    }

    /// Before the prefill is done: events that it holds already are not to be seen.
    async fn leave_out(&self, request: &PrefillTask) -> Result<u64, broker::Error> {
        let queue = self.broker.queue(&request.subscription, request.incarnation);
        let removed = queue.remove_contained(request.attempt).await;
        removed.inspect_err(
            |error| tracing::warn!(error = %error_chain(error), "events of the prefill could not be left out"),
        )
    }

    async fn sealed_or(&self, request: &PrefillTask, failure: Failure) -> Outcome {
        let fence = self.broker.queue(&request.subscription, request.incarnation).fence().await;
        match fence {
            Ok(Some(fence)) if fence.value.seals(request.incarnation, request.attempt) => {
                Outcome::Done(fence.value.counts)
            }
            Ok(Some(fence)) if fence.value.holds(request.incarnation, request.attempt) => {
                Outcome::Held(fence.value.counts.unwrap_or_default())
            }
            _ => Outcome::Failed(failure),
        }
    }

    /// An attempt that lost its fence while it wrote was overtaken, or cancelled by a request that may have ended before
    /// it recorded that.
    async fn cancelled_or(&self, request: &PrefillTask, outcome: Outcome) -> Outcome {
        if outcome != Outcome::Obsolete {
            return outcome;
        }
        let fence = self.broker.queue(&request.subscription, request.incarnation).fence().await;
        match fence {
            Ok(Some(fence)) if fence.value.is_cancelled(request.attempt) => Outcome::Cancelled,
            _ => outcome,
        }
    }

    fn pause(&self, tries: u64) -> Duration {
        let backoff = &self.config.tasks.backoff;
        let index =
            usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX).min(backoff.len().max(1) - 1);
        backoff.get(index).copied().unwrap_or(Duration::from_secs(3))
    }

    /// Records what `decide` makes of the attempt's entry as it is, and answers what else it makes of it. `None`: the task
    /// is of no use any more.
    async fn record<T>(
        &self,
        request: &PrefillTask,
        decide: impl Fn(&Prefill) -> (Option<Told>, T),
    ) -> Result<Option<T>, broker::Error> {
        let now = Timestamp::from_utc(jiff::Timestamp::now());
        let mut answer = None;
        let change = |s: &Subscription| {
            answer = None;
            if s.lifecycle == Lifecycle::Deleting || s.prefill.attempt != request.attempt {
                return None;
            }
            let (told, decided) = decide(&s.prefill);
            answer = Some(decided);
            let (state, reason, message) = told?;
            s.with_prefill_state(state, reason, message, now.clone())
        };
        match self.broker.registry().modify(&request.subscription, request.incarnation, change).await? {
            Modified::Gone => return Ok(None),
            Modified::Unchanged(_) => {}
            Modified::Changed(entry) => {
                let Prefill { state, reason, message, .. } = entry.value.prefill;
                tracing::info!(
                    subscription = %request.subscription, attempt = request.attempt, state = state.as_str(),
                    reason = reason.map(Reason::as_str), message, "prefill"
                );
            }
        }
        Ok(answer)
    }
}

/// What the entry says is unknown: the task comes again.
fn unrecorded(error: &broker::Error) -> Fate {
    tracing::warn!(error = %error_chain(error), "the state could not be recorded");
    Fate::Leave
}

fn gave_up(tries: u64) -> Failure {
    Failure::transient(
        Reason::BackoffLimitExceeded,
        format!("{tries} tries ended without a word: look into the worker's log"),
    )
}

/// Says again and again that the work goes on; returns when the server has not heard it for too long.
async fn keep(task: &Task) {
    let mut missed = 0;
    while missed < 30 {
        tokio::time::sleep(KEEP_EVERY).await;
        missed = if task.in_progress().await.is_ok() { 0 } else { missed + 1 };
    }
}
