//! The event log as the main reader reads it: it does not end. What breaks off is opened again where it was.

use std::{sync::Arc, time::Duration};

use broker::{Broker, Error, LogEntry};
use futures::{Stream, StreamExt, stream::BoxStream};
use model::chain;

use crate::{lane::Pace, metrics::Metrics};

/// How long the log may be quiet before we look whether there is more than comes.
const QUIET: Duration = Duration::from_secs(1);
/// Quiet looks in a row that find more: then what carries the entries is stuck, such as a replica that hangs.
const QUIET_LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The log ends before what was read of it: an older state of NATS was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WentBack;

struct Reader {
    broker: Broker,
    metrics: Metrics,
    pace: Arc<Pace>,
    next: u64,
    log: Option<BoxStream<'static, Result<LogEntry, Error>>>,
    quiet: u32,
    pause: Duration,
    told: bool,
}

/// All entries from one on. Whoever drops the future of an entry loses none.
pub(crate) fn entries(
    broker: &Broker,
    metrics: &Metrics,
    pace: &Arc<Pace>,
    from: u64,
) -> impl Stream<Item = Result<LogEntry, WentBack>> + Unpin + use<> {
    let reader = Reader {
        broker: broker.clone(),
        metrics: metrics.clone(),
        pace: pace.clone(),
        next: from,
        log: None,
        quiet: 0,
        pause: PAUSE,
        told: false,
    };
    futures::stream::unfold(reader, async |mut reader| Some((reader.entry().await, reader))).boxed()
}

impl Reader {
    async fn entry(&mut self) -> Result<LogEntry, WentBack> {
        loop {
            let Some(log) = &mut self.log else {
                self.open().await?;
                continue;
            };
            match tokio::time::timeout(QUIET, log.next()).await {
                Ok(Some(Ok(entry))) => {
                    self.next = entry.sequence + 1;
                    self.quiet = 0;
                    return Ok(entry);
                }
                Ok(Some(Err(error))) => self.broken(&error).await,
                Ok(None) => {
                    self.broken(&Error::LayoutMissing { what: "the event log".to_owned() }).await;
                }
                Err(_) => self.look().await,
            }
        }
    }

    async fn open(&mut self) -> Result<(), WentBack> {
        let log = self.broker.event_log();
        let opened = async {
            let last = log.last_sequence().await?;
            Ok::<_, Error>((last, log.follow(self.next).await?.boxed()))
        };
        match opened.await {
            Ok((last, _)) if last + 1 < self.next => return Err(WentBack),
            Ok((last, log)) => {
                self.log = Some(log);
                self.pace.set_last(last);
                self.metrics.runs();
                (self.pause, self.told, self.quiet) = (PAUSE, false, 0);
            }
            Err(error) => self.broken(&error).await,
        }
        Ok(())
    }

    async fn broken(&mut self, error: &Error) {
        self.log = None;
        self.metrics.stops(chain(error));
        if !self.told {
            self.told = true;
            tracing::warn!(
                error = %chain(error), incoming_seq = self.next,
                "the event log can't be read for the time being; it is being tried again"
            );
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Nothing came: is there nothing?
    async fn look(&mut self) {
        self.quiet = if self.pace.last() >= self.next { self.quiet + 1 } else { 0 };
        if self.quiet >= QUIET_LOOKS {
            tracing::warn!(
                incoming_seq = self.next,
                "the event log goes on, but nothing comes: opening it again"
            );
            (self.log, self.quiet) = (None, 0);
        }
    }
}
