//! When copies may wait: consumers that keep up read events from the log, and what they acknowledge there need not be
//! copied at all.

use std::time::Duration;

use model::Entry;
use tokio::time::Instant;

use crate::writer::Writer;

/// How often it is asked whether a prefill is done, while events for its queue come.
const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Whether the copies of one queue may wait, and for how long.
#[derive(Debug)]
pub(crate) struct CopyDelay {
    /// How long; zero: never.
    pub time: Duration,
    /// The prefill of this round is done, so its consumer may read from the log.
    settled: Option<u32>,
    asked: Option<Instant>,
}

impl CopyDelay {
    /// `reads_from_log`: do consumers read from the log at all? Not where it is recorded what they are told of.
    pub(crate) fn new(time: Duration, reads_from_log: bool) -> Self {
        Self { time: if reads_from_log { time } else { Duration::ZERO }, settled: None, asked: None }
    }

    /// May copies wait now? While a prefill is on its way they do not: it looks at what is in the queue.
    pub(crate) async fn applies(&mut self, writer: &Writer) -> bool {
        if self.time.is_zero() {
            return false;
        }
        let checkpoint = writer.copier.checkpoint();
        let round = checkpoint.epoch.round;
        if !checkpoint.active {
            return false;
        }
        if self.settled != Some(round) && self.asked.is_none_or(|at| at.elapsed() >= ASKED_EVERY) {
            self.asked = Some(Instant::now());
            // What can't be asked is not settled.
            if let Ok(Some(entry)) = writer.broker.registry().get(&writer.name).await
                && let Entry::Subscription(s) = entry.value
                && s.incarnation == writer.incarnation
                && s.prefill.round == round
                && s.prefill.is_open()
            {
                self.settled = Some(round);
            }
        }
        self.settled == Some(round)
    }
}
