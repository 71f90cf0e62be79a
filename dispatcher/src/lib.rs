//! Events from the log `incoming` into the queues of the subscriptions that asked for them.
//!
//! ```text
//!  incoming ──► Session (strictly in order) ──► Routes: who wants it? ──► Lane ──► <name>.main
//!                  ▲                                                       Lane ──► …
//!                  └── position (compare-and-set), then purge ◄── done ◄───┘
//! ```
//!
//! A *session* is one reading of the log from the position in KV on. It ends, and a new one begins with routes and
//! position loaded again, whenever anything says that another dispatcher is active: a gap in the log, or a position
//! that somebody else has moved. So two dispatchers at once do no harm, and a take-over needs no election.
//!
//! **Invariants**
//! * No consumer on the log: it is read by sequence, so strictly in order also after a restart.
//! * The position moves only over entries that every lane has copied, and only by compare-and-set.
//! * A subscription gets events from its marker on: the marker stands in the log itself.

mod lane;
mod metrics;
mod routes;
mod session;
mod tracker;

use std::time::Duration;

use broker::Broker;
use tokio_util::sync::CancellationToken;

pub use metrics::Metrics;
pub use session::Error;

/// How the dispatcher works.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Most bytes of events that wait for slow queues before reading stops.
    pub backlog_bytes_max: usize,
    /// Shortest time between two moves of the position. Each costs a write and a purge; a restart reads again what
    /// was copied since, which the checkpoints then leave out.
    pub position_interval: Duration,
}

impl Default for Config {
    /// 256 MiB; 20 ms.
    fn default() -> Self {
        Self { backlog_bytes_max: 256 << 20, position_interval: Duration::from_millis(20) }
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
    let mut pause = Duration::from_millis(50);
    let mut hole = None;
    loop {
        let began = tokio::time::Instant::now();
        let ended = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ended = session::run(config, &broker, &metrics, hole) => ended,
        };
        metrics.ready(false);
        match ended {
            session::Ended::Fatal(error) => return Err(error),
            session::Ended::Gap(gap) => {
                tracing::info!(
                    ?gap,
                    "the log has a gap: another dispatcher is active; loading everything again"
                );
                hole = Some(gap);
            }
            session::Ended::Overtaken => {
                tracing::info!("another dispatcher has moved the position; loading everything again");
                hole = None;
            }
            session::Ended::Broker(error) => {
                tracing::warn!(error = %model::chain(&error), "dispatching stopped; it is being tried again");
                hole = None;
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
