//! The loop: what changed is looked at, decided and done, several subscriptions at once, each one alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use broker::Broker;
use model::{PrefillState, SubscriptionName, error_chain};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    act::{Actor, Outcome, State},
    announce::Announcer,
    cluster::{Cluster, refusal},
    decide::{Action, decide},
    error::caught,
    metrics::Metrics,
    observe::{
        Observer, Snapshot,
        watch::{self, Change, Watches},
    },
    observed::{Moment, Observed},
    sweep::{self, SweepConfig},
    work::Work,
};

/// Subscriptions that are looked at at once.
const AT_ONCE: usize = 16;
/// How long changes are gathered before a turn: a registration changes five things within some milliseconds.
const GATHER: Duration = Duration::from_millis(50);
/// Longest time of one look with its actions: each call has a limit of its own, this is for what nobody thought of.
const PASS_LIMIT: Duration = Duration::from_secs(900);
/// How often the loop turns at least; one that has not for three times as long is stuck.
const TURN: Duration = Duration::from_secs(20);
/// How often a prefill that is not done is looked at without a reason: it may be sealed, or its queue may break,
/// without a word from any watch.
const RESYNC: Duration = Duration::from_secs(15);
/// How soon a running prefill is looked at again, for its progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Reconciles until `shutdown`.
///
/// # Errors
/// [`Error::WatchEnded`] and [`Error::Stuck`], which should never happen. Everything else is tried again for ever.
pub async fn run(
    config: Config,
    broker: Broker,
    client: kube::Client,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let stop = shutdown.child_token();
    // Whatever ends us ends the tasks that we started.
    let _stop_all = stop.clone().drop_guard();
    let view = broker.registry().view(stop.clone());
    tokio::spawn(sweep::sweep(
        broker.clone(),
        view.clone(),
        SweepConfig::default(),
        metrics.clone(),
        stop.clone(),
    ));
    let cluster =
        Cluster::new(client.clone(), &config.namespace, &config.template).with_owner(config.owner.clone());
    let watches = watch::start(&cluster, &config.template.selector(), &metrics, &stop);
    let announcer = Announcer::start(client, &config.namespace, config.reporter.clone(), stop.clone());
    metrics.jobs_running_limit.set(gauge(config.max_running));
    let looker = Looker {
        observer: Observer {
            broker: broker.clone(),
            view: view.clone(),
            cluster: cluster.clone(),
            rules: config.rules.clone(),
            memory: Arc::new(Mutex::default()),
        },
        actor: Actor {
            broker: broker.clone(),
            view,
            cluster,
            template: config.template.clone(),
            announcer,
            metrics: metrics.clone(),
            before_write: config.before_write.clone(),
        },
        metrics: metrics.clone(),
        began: Instant::now(),
    };
    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        result = reconcile(looker, watches, config.max_running) => result,
        () = stuck(&metrics) => Err(Error::Stuck),
    };
    metrics.ready(false);
    metrics.stopped();
    result
}

/// Returns when the loop does not turn any more.
async fn stuck(metrics: &Metrics) {
    metrics.turned();
    while metrics.is_alive() {
        tokio::time::sleep(TURN / 4).await;
    }
}

/// Waits without an end for what is away: that is no loop that is stuck.
async fn waiting<T>(metrics: &Metrics, what: impl Future<Output = T>) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        metrics.turned();
        if let Ok(done) = tokio::time::timeout(TURN, &mut what).await {
            return done;
        }
    }
}

async fn reconcile(looker: Looker, mut watches: Watches, limit: usize) -> Result<(), Error> {
    let view = looker.observer.view.clone();
    let mut entries = view.changes();
    let listed = async {
        view.synced().await;
        tokio::join!(watches.jobs.wait_until_ready(), watches.pods.wait_until_ready())
    };
    let listed = waiting(&looker.metrics, listed).await;
    if listed.0.is_err() || listed.1.is_err() {
        return Err(Error::WatchEnded);
    }
    tracing::info!("Jobs, Pods and subscriptions are listed; prefills are reconciled from here on");
    looker.metrics.ready(true);

    let mut work = Work::default();
    let mut known = HashMap::new();
    let mut passes = JoinSet::new();
    let mut everything = true;
    loop {
        let now = looker.now();
        looker.metrics.turned();
        let snapshot = Arc::new(looker.snapshot(&watches, limit));
        looker.mark_changed_entries(&mut known, &mut work);
        if std::mem::take(&mut everything) {
            known.keys().chain(snapshot.names()).for_each(|name| work.mark(name.clone()));
        }
        snapshot.names_at_turn().for_each(|name| work.mark(name.clone()));
        while work.busy() < AT_ONCE
            && let Some(name) = work.next(now)
        {
            let (looker, snapshot) = (looker.clone(), snapshot.clone());
            // Its name comes back whatever happens: a place that is lost is lost for good.
            passes.spawn(async move {
                let pass = caught(tokio::time::timeout(PASS_LIMIT, looker.pass(&name, &snapshot)));
                let result = match pass.await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => {
                        Err(Error::Timeout { action: format!("looking at {name}"), limit: PASS_LIMIT })
                    }
                    Err(panicked) => Err(panicked),
                };
                (name, result)
            });
        }

        let due = work.next_due().map_or(TURN, |at| at.saturating_sub(looker.now())).min(TURN);
        tokio::select! {
            change = watches.changes.recv() => {
                everything |= looker.note(change.ok_or(Error::WatchEnded)?, &mut work);
            }
            changed = entries.changed() => if changed.is_err() { return Err(Error::WatchEnded) },
            Some(finished) = passes.join_next() => looker.finish(finished, &mut work),
            // With all places taken only the end of a look helps, or the next sign of life.
            () = tokio::time::sleep(if work.busy() < AT_ONCE { due } else { TURN }) => {}
        }
        tokio::time::sleep(GATHER).await;
        while let Ok(change) = watches.changes.try_recv() {
            everything |= looker.note(change, &mut work);
        }
        while let Some(finished) = passes.try_join_next() {
            looker.finish(finished, &mut work);
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

type Finished = Result<(SubscriptionName, Result<Again, Error>), tokio::task::JoinError>;

/// What a pass needs; clones share it.
#[derive(Clone)]
struct Looker {
    observer: Observer,
    actor: Actor,
    metrics: Metrics,
    began: Instant,
}

/// When a subscription is to be looked at again.
enum Again {
    /// When that deadline passes.
    At(Moment),
    /// Soon: what was done is still to be seen, or was overtaken.
    Soon,
}

/// A moment that never comes.
const NEVER: Moment = Duration::MAX;

impl Looker {
    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn snapshot(&self, watches: &Watches, limit: usize) -> Snapshot {
        let view = &self.observer.view;
        let mut memory = self.observer.memory();
        let entry_of = |name: &SubscriptionName| view.get(name.as_str());
        let (jobs, pods) = (watches.jobs.state(), watches.pods.state());
        let snapshot = Snapshot::new(&jobs, &pods, entry_of, &memory, limit, self.now());
        memory.keep_only(&snapshot.uids());
        self.metrics.jobs_running.set(gauge(snapshot.running));
        self.metrics.jobs_waiting.set(gauge(snapshot.waiting));
        snapshot
    }

    /// Marks the entries that have another revision than at the last turn, and those that are gone.
    fn mark_changed_entries(&self, known: &mut HashMap<SubscriptionName, u64>, work: &mut Work) {
        let all = self.observer.view.all();
        self.metrics.count(all.iter().map(|entry| &entry.value));
        let mut next = HashMap::with_capacity(all.len());
        for entry in &all {
            let name = &entry.value.name;
            if known.remove(name) != Some(entry.revision) {
                work.mark(name.clone());
            }
            next.insert(name.clone(), entry.revision);
        }
        known.drain().for_each(|(name, _)| work.mark(name));
        *known = next;
    }

    /// True if everything is to be looked at.
    fn note(&self, change: Change, work: &mut Work) -> bool {
        match change {
            Change::Of(name) => work.mark(name),
            Change::Interrupted => self.observer.memory().count_starts_anew(),
            Change::Listed => return true,
        }
        false
    }

    fn finish(&self, finished: Finished, work: &mut Work) {
        match finished {
            Ok((name, Ok(Again::At(again)))) => work.finished(name, (again != NEVER).then_some(again)),
            Ok((name, Ok(Again::Soon))) => work.unsettled(name, self.now()),
            Ok((name, Err(error))) => {
                self.metrics.failed(&error);
                let pause = work.failed(name.clone(), self.now());
                let (subscription, text) = (&name, error_chain(&error));
                let pause_ms = pause.as_millis();
                if error.is_transient() {
                    tracing::warn!(%subscription, error = text, "{name} could not be reconciled; again in {pause_ms} ms");
                } else {
                    tracing::error!(%subscription, error = text, "{name} could not be reconciled; again in {pause_ms} ms");
                }
            }
            // Panics are caught in the task, and nothing ends one of these from outside.
            Err(error) => tracing::error!(%error, "a look at a subscription was ended"),
        }
    }

    /// Observes, decides and acts once. Answers when to look again.
    async fn pass(&self, name: &SubscriptionName, snapshot: &Snapshot) -> Result<Again, Error> {
        let began = Instant::now();
        let result = self.look_and_act(name, snapshot).await;
        self.metrics.pass_seconds.observe(began.elapsed().as_secs_f64());
        result
    }

    /// An action that fails keeps no other one from being done: each has its own conditions, and a Job that can't be
    /// annotated can be deleted all the same. The first failure is answered.
    async fn look_and_act(&self, name: &SubscriptionName, snapshot: &Snapshot) -> Result<Again, Error> {
        let now = self.now();
        let observed = self.observer.look(name, snapshot, now).await?;
        self.metrics.progress(name, observed.progress.as_ref());
        let (mut again, mut soon) = (self.look_again_anyhow(&observed, now), false);
        let mut failed = None;
        for action in decide(&observed, &self.observer.rules, now) {
            if let Action::LookAgain(at) = action {
                again = again.min(at);
                continue;
            }
            tracing::debug!(subscription = %name, ?action, "acting");
            match self.actor.act(&action).await {
                Ok(outcome) => {
                    match outcome {
                        Outcome::LookAgain => soon = true,
                        Outcome::Done => self.tell_once(&action),
                    }
                    self.remember(&action);
                }
                Err(error) => {
                    self.remember_failure(&action, &error);
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None if soon => Ok(Again::Soon),
            None => Ok(Again::At(again)),
        }
    }

    /// What is not done may be sealed, or break, without a word from any watch.
    fn look_again_anyhow(&self, observed: &Observed, now: Moment) -> Moment {
        match &observed.entry {
            Some(entry) if entry.prefill.attempt > 0 => match entry.prefill.state {
                PrefillState::Running => now + PROGRESS,
                PrefillState::Pending | PrefillState::Failed => now + RESYNC,
                PrefillState::Done => NEVER,
            },
            _ => NEVER,
        }
    }

    /// A state that somebody else has written into the entry (the API, a former controller) is told of when it is shown
    /// on the Job.
    fn tell_once(&self, action: &Action) {
        match action {
            Action::Record { state, reason, job: Some(job), .. } => {
                self.observer.memory().tells(&job.uid, *state, *reason);
            }
            Action::Show { job, state, reason, message, .. } => {
                let to = State { state: *state, reason: *reason, message: message.as_deref() };
                let new = self.observer.memory().tells(&job.uid, *state, *reason);
                // A Job that is new says nothing new.
                if new && (*state, *reason) != (PrefillState::Pending, None) {
                    self.actor.tell(&job.identity, to, Some(&job.uid));
                }
            }
            _ => {}
        }
    }

    /// A Job that may not be admitted keeps nobody else from a place meanwhile.
    fn remember_failure(&self, action: &Action, error: &Error) {
        if let (Action::Admit(job), Some(_)) = (action, refusal(error)) {
            let until = self.now() + self.observer.rules.refused;
            self.observer.memory().set_refused(&job.uid, until);
        }
    }

    fn remember(&self, action: &Action) {
        match action {
            Action::Admit(job) => self.observer.memory().set_admitted(&job.uid, &job.version),
            Action::Show { job, progress: Some(_), .. } => {
                self.observer.memory().progress_shown(&job.uid, self.now());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
