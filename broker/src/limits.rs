//! Limits that streams have: set when they are made, and followed when the operator changes them.

use futures::StreamExt;
use model::{Subscription, limits::QueueLimits, subscription::Lifecycle};
use serde_json::Value;

use crate::{Broker, Error, layout};

/// Streams that are looked at at once.
const AT_ONCE: usize = 16;

/// Limits of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Most live messages, and most messages of the prefill, of a queue. The limit is per subject, so that fence and
    /// checkpoint always pass.
    pub queue_messages: u64,
    /// Most bytes of the event log; `None`: as much as NATS has room for. When it is full no event is accepted.
    pub log_bytes: Option<u64>,
}

impl Default for StreamLimits {
    /// The queues' default; no limit of the log.
    fn default() -> Self {
        Self { queue_messages: QueueLimits::default().messages, log_bytes: None }
    }
}

impl StreamLimits {
    pub(crate) fn log_bytes_config(self) -> i64 {
        self.log_bytes.map_or(-1, u64::cast_signed)
    }
}

/// The limit of a queue's messages, in the words of NATS.
const LIMIT: &str = "max_msgs_per_subject";

impl Broker {
    /// The same connection, which makes streams with these limits.
    #[must_use]
    pub fn with_limits(self, limits: StreamLimits) -> Self {
        Self { limits, ..self }
    }

    /// Raises the limit and the copies of queues that were made with fewer. They are never lowered: NATS may then
    /// remove what is in a queue. A lower limit is kept by those who write. A queue that can't be changed keeps no other
    /// from it.
    ///
    /// # Errors
    /// NATS away, for one of them at least; calling it again is safe.
    pub async fn raise_queue_limits(&self) -> Result<(), Error> {
        let entries =
            self.registry().list().await?.subscriptions().filter(|s| s.lifecycle == Lifecycle::Ready);
        let failed: Vec<Error> = futures::stream::iter(entries)
            .map(|s| async move { self.follow_queue(&s).await.err() })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    async fn follow_queue(&self, subscription: &Subscription) -> Result<(), Error> {
        let stream = self.queue(&subscription.name, subscription.incarnation).stream;
        let Some(found) = self.stream_settings(&stream).await? else { return Ok(()) };
        let mut wanted =
            layout::settings(&self.queue_config(stream, Vec::new(), subscription.first_sequence))?;
        wanted.insert("subjects".to_owned(), found.get("subjects").cloned().unwrap_or_default());
        let limit = found.get(LIMIT).and_then(Value::as_i64).unwrap_or(-1);
        if limit <= 0 || limit >= self.limits.queue_messages.cast_signed() {
            wanted.insert(LIMIT.to_owned(), limit.into());
        }
        self.follow(&found, &wanted, &[LIMIT]).await
    }
}
