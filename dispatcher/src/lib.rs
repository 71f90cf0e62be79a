//! Events from the log `incoming` into the queues of the subscriptions that asked for them.
//!
//! ```text
//!  incoming ──► Session (strictly in order) ──► Routes: who wants it? ──► Lane ──► <name>.main
//!                  ▲                                                       Lane ──► …
//!                  └── position (compare-and-set), then purge ◄── done ◄───┘
//! ```
//!
//! A *session* is one reading of the log from the position in KV on. It ends, and a new one begins with routes and
//! position loaded again, when the log has a gap: another dispatcher is ahead, and has purged what it has done. Several
//! dispatchers at once do no harm (`session.rs` says why), so a take-over needs no election.
//!
//! A lane that can't go on, because its queue is full or can't be opened, does not stop the others: what waits for it in
//! memory is bounded, and beyond that it reads the log itself (`mailbox.rs`, `catch_up.rs`). The position stays behind
//! it. A queue that is not found although it must be there is recorded as lost before the position passes what it missed
//! (`keeper.rs`).
//!
//! **Invariants**
//! * No consumer on the log: it is read by sequence, so strictly in order also after a restart.
//! * The position moves only over entries that every lane has copied, and only by compare-and-set.
//! * A subscription gets events from its marker on: the marker stands in the log itself.

mod backpressure;
mod catch_up;
mod copy_delay;
mod keeper;
mod lane;
mod lanes;
mod mailbox;
mod memory;
mod metrics;
mod position;
mod session;
mod sweep;
mod turns;
mod unreadable;
mod writer;

use std::{panic::AssertUnwindSafe, time::Duration};

use broker::Broker;
use futures::FutureExt;
use model::{SubscriptionName, limits::QueueLimits};
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;
pub use session::Error;

/// How the dispatcher works.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Entries that may wait in memory for one queue. Beyond it the reading of the log waits for a lane that works,
    /// and one that is stuck reads the log itself later.
    pub lane_entries_max: usize,
    /// The same in bytes. Queues that wait for the same events share their memory.
    pub lane_bytes_max: usize,
    /// Shortest time between two moves of the position. Each costs a write; a restart reads again what was copied
    /// since, which the checkpoints then leave out.
    pub position_interval: Duration,
    /// How long entries that are done are kept, but for the newest 10,000 at most: a dispatcher that starts, or was slow,
    /// finds them.
    pub purge_after: Duration,
    /// How long an event may wait for consumers that read it from the log, before it is copied. Zero: all is copied at
    /// once. Nothing waits while a prefill is on its way, where it is recorded what a consumer was told of, and with
    /// several replicas of NATS.
    pub copy_after: Duration,
    /// How long a queue may be missing, though it must be there, before it is recorded as lost. Its events wait for so
    /// long.
    pub lost_after: Duration,
    /// How much a queue may hold.
    pub limits: QueueLimits,
    /// For tests: called before copies for a subscription are written.
    #[doc(hidden)]
    pub before_copy: Option<fn(&SubscriptionName)>,
}

impl Default for Config {
    /// 5,000 entries and 8 MiB a lane; 20 ms, 10 s, 2 s, 10 s; the default limits.
    fn default() -> Self {
        Self {
            lane_entries_max: 5_000,
            lane_bytes_max: 8 << 20,
            position_interval: Duration::from_millis(20),
            purge_after: Duration::from_secs(10),
            copy_after: Duration::from_secs(2),
            lost_after: Duration::from_secs(10),
            limits: QueueLimits::default(),
            before_copy: None,
        }
    }
}

/// Dispatches until `shutdown`.
///
/// # Errors
/// [`Error::Behind`] and [`Error::Hole`]: the log and the position contradict each other, and a person must decide.
/// Everything else is tried again for ever.
pub async fn run(
    config: Config,
    broker: Broker,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let sweeping = async {
        match config.limits.age {
            Some(age) => sweep::run(&broker, age, &metrics).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = dispatch(config, &broker, &metrics, &shutdown) => ended,
        never = sweeping => match never {},
    }
}

async fn dispatch(
    config: Config,
    broker: &Broker,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let mut pause = Duration::from_millis(50);
    let mut hole = None;
    loop {
        let began = tokio::time::Instant::now();
        let session = AssertUnwindSafe(session::run(config, broker, metrics, hole)).catch_unwind();
        let ended = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ended = session => ended,
        };
        hole = None;
        match ended {
            Ok(session::Ended::Fatal(error)) => return Err(error),
            Ok(session::Ended::Gap(gap)) => {
                metrics.stops("the event log has a gap: another dispatcher is active");
                tracing::info!(
                    ?gap,
                    "the log has a gap: another dispatcher is active; loading everything again"
                );
                hole = Some(gap);
            }
            Ok(session::Ended::Doubt) => {
                metrics.stops("log and position do not fit each other");
                tracing::warn!("log and position do not fit each other; loading everything again");
            }
            Ok(session::Ended::Changed) => {
                metrics.stops("loading the subscriptions");
                tracing::info!(
                    "an entry that could not be read is another one now; loading everything again"
                );
            }
            Ok(session::Ended::Broker(error)) => {
                let error = model::error_chain(&error);
                tracing::warn!(%error, "dispatching stopped; it is being tried again");
                metrics.stops(error);
            }
            Err(panic) => {
                metrics.panics.inc();
                let panic = keeper::words(&*panic);
                tracing::error!(panic, "the dispatcher has a fault; it is being tried again");
                metrics.stops("a fault of the dispatcher");
            }
        }
        // Back-off only for sessions that never got going.
        pause = if began.elapsed() > Duration::from_secs(5) { Duration::from_millis(50) } else { pause * 2 };
        pause = pause.min(Duration::from_secs(1));
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}
