//! Progress of an attempt: counted by the writer, told once a second by a task of its own.

use std::{sync::Arc, time::Duration};

use broker::Broker;
use model::{PrefillTask, Progress};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often progress is told.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub topic: Option<Arc<str>>,
    pub done: u64,
    pub total: Option<u64>,
    pub skipped: u64,
    pub set_aside: u64,
    pub missing: Vec<String>,
    pub error: Option<Arc<str>>,
}

/// Tells the progress until it is dropped.
pub(crate) struct Teller {
    tally: watch::Sender<Tally>,
    /// The attempt has ended: the last figures are told at once, since its outcome waits for them.
    ended: CancellationToken,
    task: JoinHandle<()>,
}

impl Teller {
    pub(crate) fn start(broker: &Broker, request: &PrefillTask) -> Self {
        let (tally, seen) = watch::channel(Tally::default());
        let ended = CancellationToken::new();
        let task = tokio::spawn(tell(broker.clone(), request.clone(), seen, ended.clone()));
        Self { tally, ended, task }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Tally)) {
        self.tally.send_modify(change);
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
) {
    let began = Instant::now();
    let board = broker.progress();
    loop {
        tokio::select! {
            // The sender lives until the task is aborted.
            _ = seen.changed() => {}
            () = ended.cancelled() => {}
        }
        let last = ended.is_cancelled();
        let tally = seen.borrow_and_update().clone();
        let seconds = began.elapsed().as_secs_f64();
        let progress = Progress {
            incarnation: request.incarnation,
            attempt: request.attempt,
            topic: tally.topic.as_deref().map(str::to_owned),
            done: tally.done,
            total: tally.total,
            skipped: tally.skipped,
            set_aside: tally.set_aside,
            missing: tally.missing,
            #[allow(clippy::cast_precision_loss)] // a rate for people
            rate: if seconds > 0.0 { (tally.done as f64 / seconds).round() } else { 0.0 },
            error: tally.error.as_deref().map(str::to_owned),
        };
        if let Err(error) = board.put(&request.subscription, &progress).await {
            tracing::debug!(%error, "the progress could not be written");
        }
        if last {
            return;
        }
        tracing::info!(
            subscription = %request.subscription, attempt = request.attempt, topic = progress.topic,
            done = progress.done, total = progress.total, rate = progress.rate, "prefilling"
        );
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = ended.cancelled() => {}
        }
    }
}
