//! Limits that streams have: set when they are made, and followed when the operator changes them.

use futures::{StreamExt, TryStreamExt};
use model::{Lifecycle, QueueLimits};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Broker, Error, names, wire::code};

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

/// What `STREAM.INFO` tells of a stream's settings, with whatever a newer server adds.
#[derive(Deserialize)]
struct Info {
    config: Map<String, Value>,
}

impl Broker {
    /// The same connection, which makes streams with these limits.
    #[must_use]
    pub fn with_limits(self, limits: StreamLimits) -> Self {
        Self { limits, ..self }
    }

    /// Raises the limit of queues that were made with a lower one. It is never lowered: NATS may then remove what is
    /// in the queue. A lower limit is kept by those who write.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn raise_queue_limits(&self) -> Result<(), Error> {
        let wanted = self.limits.queue_messages.cast_signed();
        let entries =
            self.registry().list().await?.subscriptions().filter(|s| s.lifecycle == Lifecycle::Ready);
        let lower = |found: &Value| found.as_i64().is_some_and(|found| 0 < found && found < wanted);
        futures::stream::iter(entries)
            .map(|s| async move {
                let stream = self.queue(&s.name, s.incarnation).stream;
                self.change_limit(&stream, "max_msgs_per_subject", wanted, lower).await
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Gives the event log the limit that is set now. Lowering it below what is in it is safe: it refuses what is new.
    pub(crate) async fn follow_log_limit(&self) -> Result<(), Error> {
        let wanted = self.limits.log_bytes_config();
        self.change_limit(names::INCOMING, "max_bytes", wanted, |found| found.as_i64() != Some(wanted)).await
    }

    /// Changes one number of a stream's settings, if it is there and the number has to change.
    async fn change_limit(
        &self,
        stream: &str,
        field: &str,
        wanted: i64,
        has_to: impl Fn(&Value) -> bool,
    ) -> Result<(), Error> {
        let action = format!("looking at the limits of {stream}");
        let Info { mut config } =
            match self.wire.api::<Info>(&action, &format!("STREAM.INFO.{stream}"), &()).await {
                Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => return Ok(()),
                info => info?,
            };
        if !has_to(config.get(field).unwrap_or(&Value::Null)) {
            return Ok(());
        }
        config.insert(field.to_owned(), wanted.into());
        let action = format!("changing the limits of {stream}");
        self.wire.api::<Value>(&action, &format!("STREAM.UPDATE.{stream}"), &config).await?;
        tracing::info!(stream, field, limit = wanted, "a limit was changed");
        Ok(())
    }
}
