//! `headstart worker`: attempts from the task queue, for installations without Kubernetes.
//!
//! The worker records the outcome itself. While it works it says so; when it dies the task comes again after a pause
//! that grows with the number of tries, up to a limit.

use std::{sync::Arc, time::Duration};

use broker::{Broker, Modified, Task, TasksConfig};
use model::{
    Counts, Lifecycle, MaxRemovals, Prefill, PrefillState, PrefillTask, Reason, Timestamp, chain, held_text,
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

/// What becomes of a task.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is over, and recorded.
    Finish,
    /// It comes again after a pause.
    Retry(Duration),
    /// A twin works on it, or nothing is known: the server hands it out again by itself.
    Leave,
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
                    tracing::debug!(error = %chain(&error), "no task could be asked for; it is being tried again");
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
            Fate::Finish => task.finish().await,
            Fate::Retry(pause) => task.retry_after(pause).await,
            Fate::Leave => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(error = %chain(&error), "the task may come again");
        }
    }

    async fn work(&self, request: &PrefillTask, tries: u64) -> Fate {
        let over = self.config.tries_max.is_some_and(|max| tries > max);
        if !over {
            match self.record(request, PrefillState::Running, None, None).await {
                Ok(true) => {}
                Ok(false) => return Fate::Finish,
                Err(_) => return Fate::Leave,
            }
        }
        let outcome = if over {
            // It crashed the worker each time; if the last one sealed before it died, the attempt is complete.
            self.sealed_or(request, gave_up(tries - 1)).await
        } else {
            let (told, _running) = self.config.metrics.attempt();
            let Config { shape, max_removals, .. } = self.config;
            let options = Options { shape, max_removals, told: Some(told) };
            let (broker, source) = (&self.broker, &self.source);
            let outcome =
                attempt::run_with(broker, source, request, &self.holder, &self.shutdown, options).await;
            let outcome = self.cancelled_or(request, outcome).await;
            self.config.metrics.ended(&outcome);
            outcome
        };
        let last = self.config.tries_max.is_some_and(|max| tries >= max);
        let (state, reason, message, fate) = decide(&outcome, last, self.pause(tries));
        if let Some(state) = state {
            if state == PrefillState::Done && self.leave_out(request).await.is_err() {
                return Fate::Leave;
            }
            let recorded = self.record(request, state, reason, message).await;
            if recorded.is_err() {
                return Fate::Leave;
            }
        }
        if self.shutdown.is_cancelled() && fate != Fate::Finish {
            // Another worker may go on at once.
            return Fate::Retry(Duration::ZERO);
        }
        fate
    }

    /// Before the prefill is done: events that it holds already are not to be seen.
    async fn leave_out(&self, request: &PrefillTask) -> Result<u64, broker::Error> {
        let queue = self.broker.queue(&request.subscription, request.incarnation);
        let removed = queue.remove_contained(request.attempt).await;
        removed.inspect_err(
            |error| tracing::warn!(error = %chain(error), "events of the prefill could not be left out"),
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

    /// Records a state. False: the task is of no use any more.
    async fn record(
        &self,
        request: &PrefillTask,
        state: PrefillState,
        reason: Option<Reason>,
        message: Option<String>,
    ) -> Result<bool, broker::Error> {
        let now = Timestamp::from_utc(jiff::Timestamp::now());
        let mut wanted = true;
        let modified = self
            .broker
            .registry()
            .modify(&request.subscription, request.incarnation, |s| {
                wanted = s.lifecycle != Lifecycle::Deleting
                    && s.prefill.attempt == request.attempt
                    && may_become(&s.prefill, state);
                if !wanted {
                    return None;
                }
                s.with_prefill_state(state, reason, message.clone(), now.clone())
            })
            .await
            .inspect_err(|error| tracing::warn!(error = %chain(error), "the state could not be recorded"))?;
        if matches!(modified, Modified::Changed(_)) {
            tracing::info!(
                subscription = %request.subscription, attempt = request.attempt, state = state.as_str(),
                reason = reason.map(Reason::as_str), message, "prefill"
            );
        }
        Ok(wanted && !matches!(modified, Modified::Gone))
    }
}

/// May a prefill get this state from a worker? A task may come again after its end was recorded, or after somebody has
/// cancelled it: what has ended stays so. An attempt that was sealed is done, whatever was recorded before.
fn may_become(now: &Prefill, state: PrefillState) -> bool {
    match now.state {
        PrefillState::Done => state == PrefillState::Done,
        PrefillState::Failed => state == PrefillState::Done && now.reason != Some(Reason::Cancelled),
        PrefillState::Pending | PrefillState::Running => true,
    }
}

fn gave_up(tries: u64) -> Failure {
    Failure::transient(
        Reason::BackoffLimitExceeded,
        format!("{tries} tries ended without a word: look into the worker's log"),
    )
}

/// What an outcome means: the state to record (`None`: nothing), and what becomes of the task.
fn decide(
    outcome: &Outcome,
    last: bool,
    pause: Duration,
) -> (Option<PrefillState>, Option<Reason>, Option<String>, Fate) {
    match outcome {
        Outcome::Done(counts) => {
            let (reason, message) = counts.as_ref().and_then(Counts::notable).unzip();
            (Some(PrefillState::Done), reason, message, Fate::Finish)
        }
        // Nothing to be tried again: somebody has to decide.
        Outcome::Held(counts) => {
            let message = Some(held_text(&counts.removals));
            (Some(PrefillState::Failed), Some(Reason::TooManyRemovals), message, Fate::Finish)
        }
        Outcome::Obsolete => (None, None, None, Fate::Finish),
        // Whoever cancels writes the fence first, and may have ended before the state was recorded.
        Outcome::Cancelled => (
            Some(PrefillState::Failed),
            Some(Reason::Cancelled),
            Some("cancelled by a request".to_owned()),
            Fate::Finish,
        ),
        Outcome::Failed(failure) if failure.lost_to_twin => (None, None, None, Fate::Leave),
        Outcome::Failed(Failure { code, reason, message, .. }) => {
            let message = Some(message.clone());
            if code.is_permanent() || last {
                (Some(PrefillState::Failed), Some(*reason), message, Fate::Finish)
            } else {
                // Still running, with what is wrong for all to see.
                (Some(PrefillState::Running), Some(*reason), message, Fate::Retry(pause))
            }
        }
    }
}

/// Says again and again that the work goes on; returns when the server has not heard it for too long.
async fn keep(task: &Task) {
    let mut missed = 0;
    while missed < 30 {
        tokio::time::sleep(KEEP_EVERY).await;
        missed = if task.in_progress().await.is_ok() { 0 } else { missed + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ExitCode;

    /// Whatever comes late: what has ended stays so, unless it turns out to be complete.
    #[test]
    fn what_has_ended_stays_so() {
        use PrefillState::{Done, Failed, Pending, Running};
        let registration = model::Registration {
            request_prefill: true,
            ..model::Registration::new("mail".parse().unwrap(), vec![])
        };
        let now: Timestamp = "2026-01-01T00:00:00".parse().unwrap();
        let incarnation = model::Incarnation(uuid::Uuid::from_u128(1));
        let s = model::Subscription::reserve(registration, incarnation, 1, now);
        for (state, reason, may) in [
            (Pending, None, [true, true, true]),
            (Running, Some(Reason::SourceUnavailable), [true, true, true]),
            (Done, None, [false, true, false]),
            (Failed, Some(Reason::BackoffLimitExceeded), [false, true, false]),
            (Failed, Some(Reason::Cancelled), [false, false, false]),
        ] {
            let prefill = Prefill { state, reason, ..s.prefill.clone() };
            assert_eq!(
                [Running, Done, Failed].map(|next| may_become(&prefill, next)),
                may,
                "{state:?} {reason:?}"
            );
        }
    }

    #[test]
    fn outcomes_and_fates() {
        use PrefillState::{Done, Failed, Running};
        let pause = Duration::from_secs(3);
        let transient = || Failure::transient(Reason::SourceUnavailable, "away");
        let permanent = Failure::permanent(ExitCode::CredentialsRefused, Reason::CredentialsRefused, "401");
        let twin = Failure { lost_to_twin: true, ..transient() };
        for (outcome, last, state, reason, fate) in [
            (Outcome::Done(None), false, Some(Done), None, Fate::Finish),
            (
                Outcome::Held(Counts::default()),
                false,
                Some(Failed),
                Some(Reason::TooManyRemovals),
                Fate::Finish,
            ),
            (
                Outcome::Done(Some(Counts { set_aside: 1, ..Counts::default() })),
                false,
                Some(Done),
                Some(Reason::ObjectsSetAside),
                Fate::Finish,
            ),
            (Outcome::Obsolete, false, None, None, Fate::Finish),
            (Outcome::Cancelled, false, Some(Failed), Some(Reason::Cancelled), Fate::Finish),
            (Outcome::Failed(twin), true, None, None, Fate::Leave),
            (Outcome::Failed(permanent), false, Some(Failed), Some(Reason::CredentialsRefused), Fate::Finish),
            (
                Outcome::Failed(transient()),
                false,
                Some(Running),
                Some(Reason::SourceUnavailable),
                Fate::Retry(pause),
            ),
            (Outcome::Failed(transient()), true, Some(Failed), Some(Reason::SourceUnavailable), Fate::Finish),
        ] {
            let decided = decide(&outcome, last, pause);
            assert_eq!((decided.0, decided.1, decided.3), (state, reason, fate), "{outcome:?}");
        }
    }
}
