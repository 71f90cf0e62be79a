//! Progress of an attempt: counted by the writer, told once a second by a task of its own.

use std::{sync::Arc, time::Duration};

use broker::Broker;
use model::{
    prefill::{Phase, PrefillTask, Progress, Speed},
    resync::RemovalsByType,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often progress is told.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is logged, unless it goes on to something else.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// Who else is told, besides NATS and the log: a person at a terminal.
pub type Told = watch::Sender<Option<Progress>>;

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// [`Phase::Listing`] also while a type is read: the topic tells that. `None` before anything was told.
    pub phase: Option<Phase>,
    pub topic: Option<Arc<str>>,
    pub done: u64,
    pub total: Option<u64>,
    pub skipped: u64,
    pub set_aside: u64,
    pub missing: Vec<String>,
    pub warnings: Vec<String>,
    pub not_selected: u64,
    pub removed: u64,
    pub removals: RemovalsByType,
    pub error: Option<Arc<str>>,
}

impl Tally {
    fn progress(&self, task: &PrefillTask, rate: f64) -> Progress {
        let phase = self.phase.unwrap_or(Phase::Listing);
        let reading = phase == Phase::Listing && self.topic.is_some();
        Progress {
            incarnation: task.incarnation,
            attempt: task.attempt,
            phase: if reading { Phase::Reading } else { phase },
            topic: self.topic.as_deref().map(str::to_owned),
            done: self.done,
            total: self.total,
            skipped: self.skipped,
            set_aside: self.set_aside,
            missing: self.missing.clone(),
            warnings: self.warnings.clone(),
            not_selected: self.not_selected,
            removed: self.removed,
            removals: self.removals.clone(),
            rate,
            error: self.error.as_deref().map(str::to_owned),
        }
    }
}

/// Tells the progress until it is dropped.
pub(crate) struct Teller {
    tally: watch::Sender<Tally>,
    /// The attempt has ended: the last figures are told at once, since its outcome waits for them.
    ended: CancellationToken,
    task: JoinHandle<()>,
}

impl Teller {
    /// Begins to listen. Nothing is told before the first change, so that an attempt that finds itself complete, or
    /// overtaken, does not write over what was told before.
    pub(crate) fn start(broker: &Broker, request: &PrefillTask, told: Option<Told>) -> Self {
        let (tally, seen) = watch::channel(Tally::default());
        let ended = CancellationToken::new();
        let task = tokio::spawn(tell(broker.clone(), request.clone(), seen, ended.clone(), told));
        Self { tally, ended, task }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Tally)) {
        self.tally.send_modify(change);
    }

    pub(crate) fn phase(&self, phase: Phase) {
        // Who waits says so again and again, and is heard once.
        self.tally.send_if_modified(|tally| tally.phase.replace(phase) != Some(phase));
    }

    /// Tells the last figures and ends.
    pub(crate) async fn finish(mut self) {
        self.ended.cancel();
        // Progress is for people: an attempt does not fail for it, nor wait long.
        if tokio::time::timeout(INTERVAL, &mut self.task).await.is_err() {
            tracing::debug!("the last progress was not written in time");
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tell(
    broker: Broker,
    request: PrefillTask,
    mut seen: watch::Receiver<Tally>,
    ended: CancellationToken,
    told: Option<Told>,
) {
    let began = Instant::now();
    let board = broker.progress();
    let mut speed = Speed::default();
    let mut logged: Option<(Instant, Phase, Option<String>)> = None;
    loop {
        tokio::select! {
            // The sender lives until the task is aborted.
            _ = seen.changed() => {}
            () = ended.cancelled() => {}
            // Nothing moves: then the rate falls, for all to see.
            () = tokio::time::sleep(LOGGED_EVERY), if logged.is_some() => {}
        }
        let last = ended.is_cancelled();
        let tally = seen.borrow_and_update().clone();
        let rate = match tally.phase {
            // In the end it is the whole that counts.
            Some(Phase::Done) => Speed::default().note(began.elapsed(), tally.done),
            _ => speed.note(began.elapsed(), tally.done),
        };
        let progress = tally.progress(&request, rate.round());
        if let Err(error) = board.put(&request.subscription, &progress).await {
            tracing::debug!(%error, "the progress could not be written");
        }
        let Progress { phase, topic, .. } = &progress;
        let is_news =
            logged.as_ref().is_none_or(|(at, p, t)| at.elapsed() >= LOGGED_EVERY || (p, t) != (phase, topic));
        if is_news {
            tracing::info!(
                subscription = %request.subscription, attempt = request.attempt, phase = phase.as_str(), topic,
                done = progress.done, total = progress.total, skipped = progress.skipped, not_selected = progress.not_selected, removed = progress.removed, rate = progress.rate,
                eta_s = progress.eta(), error = progress.error, "prefilling"
            );
            logged = Some((Instant::now(), *phase, topic.clone()));
        }
        if let Some(told) = &told {
            told.send_replace(Some(progress));
        }
        if last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = ended.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_means_reading() {
        let task = PrefillTask {
            subscription: "mail".parse().unwrap(),
            incarnation: model::Incarnation(uuid::Uuid::nil()),
            round: 1,
            attempt: 2,
            realms_topics: vec![],
            selection: None,
            track: false,
            mode: model::prefill::PrefillMode::Prefill,
            max_removals: None,
            dry_run: false,
        };
        for (phase, topic, shown) in [
            (Phase::Waiting, None, Phase::Waiting),
            (Phase::Listing, None, Phase::Listing),
            (Phase::Listing, Some("users/user"), Phase::Reading),
            (Phase::Sealing, None, Phase::Sealing),
            (Phase::Done, None, Phase::Done),
        ] {
            let tally = Tally { phase: Some(phase), topic: topic.map(Into::into), ..Tally::default() };
            let progress = tally.progress(&task, 0.0);
            assert_eq!((progress.phase, progress.attempt), (shown, 2), "{phase:?} {topic:?}");
        }
    }
}
