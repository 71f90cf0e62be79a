//! The event log as it is read for ever: what breaks off is opened again where it was.

use std::time::Duration;

use futures::{Stream, StreamExt, stream::BoxStream};
use model::error_chain;

use crate::{Broker, Error, LogEntry};

/// How long the log may be quiet before we look whether there is more than comes.
const QUIET: Duration = Duration::from_secs(1);
/// Quiet looks in a row that find more: then what carries the entries is stuck, such as a replica that hangs.
const QUIET_LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The log ends before what was read of it: an older state of NATS was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WentBack;

/// Observes the reading of the log.
pub trait Watcher: Send + 'static {
    /// It begins, or goes on; the last entry of the log is this one.
    fn opened(&self, last: u64);
    /// It can't go on for the time being.
    fn broken(&self, error: &Error);
    /// Last entry of the log, as far as is known.
    fn last(&self) -> u64;
}

struct Reader<W> {
    broker: Broker,
    watcher: W,
    next: u64,
    log: Option<BoxStream<'static, Result<LogEntry, Error>>>,
    quiet: u32,
    pause: Duration,
    told: bool,
}

impl Broker {
    /// All entries of the event log from one on. It ends only with [`WentBack`]. Dropping the future of an entry loses
    /// nothing.
    pub fn log_from<W: Watcher>(
        &self,
        from: u64,
        watcher: W,
    ) -> impl Stream<Item = Result<LogEntry, WentBack>> + Unpin + use<W> {
        let reader = Reader {
            broker: self.clone(),
            watcher,
            next: from,
            log: None,
            quiet: 0,
            pause: PAUSE,
            told: false,
        };
        futures::stream::unfold(reader, async |mut reader| Some((reader.entry().await, reader))).boxed()
    }
}

impl<W: Watcher> Reader<W> {
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
                Err(_) => self.look(),
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
                self.watcher.opened(last);
                (self.pause, self.told, self.quiet) = (PAUSE, false, 0);
            }
            Err(error) => self.broken(&error).await,
        }
        Ok(())
    }

    async fn broken(&mut self, error: &Error) {
        self.log = None;
        self.watcher.broken(error);
        if !self.told {
            self.told = true;
            tracing::warn!(
                error = %error_chain(error), incoming_seq = self.next,
                "the event log can't be read for the time being; it is being tried again"
            );
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Nothing came: is there nothing?
    fn look(&mut self) {
        self.quiet = if self.watcher.last() >= self.next { self.quiet + 1 } else { 0 };
        if self.quiet >= QUIET_LOOKS {
            tracing::warn!(
                incoming_seq = self.next,
                "the event log goes on, but nothing comes: opening it again"
            );
            (self.log, self.quiet) = (None, 0);
        }
    }
}
