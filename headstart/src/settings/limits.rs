//! How much may wait, and what happens then.

use std::time::Duration;

use broker::StreamLimits;
use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use model::limits::QueueLimits;

/// Limits of queues: the API makes and shows them, the dispatcher keeps them.
#[derive(Clone, Debug, Args)]
pub struct Queues {
    /// Maximum number of live messages in a queue, and of messages in its prefill.
    #[arg(long, env, value_name = "N", default_value = "10000000",
          value_parser = RangedU64ValueParser::<u64>::new().range(1..=i64::MAX.cast_unsigned()))]
    pub queue_max_messages: u64,
    /// Approximate size limit of a queue in bytes; checked before live messages are added. Default: no limit.
    #[arg(long, env, value_name = "BYTES", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub queue_max_bytes: Option<u64>,
    /// Seconds after which an unacknowledged live message is removed. Default: never.
    #[arg(long, env, value_name = "SECONDS", value_parser = super::seconds)]
    pub queue_max_age: Option<Duration>,
    /// What happens when a queue is full. wait: its events wait in the event log, which grows; give-up: the queue is
    /// deleted, and its subscription must be removed and registered again.
    #[arg(long, env, value_name = "WHAT", default_value = "wait")]
    pub queue_when_full: WhenFull,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WhenFull {
    Wait,
    GiveUp,
}

/// Limit of the event log.
#[derive(Clone, Debug, Args)]
pub struct Log {
    /// Size limit of the event log in bytes. When it is full, events are answered with 503. Default: only the limit
    /// of NATS.
    #[arg(long, env, value_name = "BYTES",
          value_parser = RangedU64ValueParser::<u64>::new().range(1..=i64::MAX.cast_unsigned()))]
    pub log_max_bytes: Option<u64>,
}

impl Queues {
    /// For those who keep and show them.
    pub fn limits(&self) -> QueueLimits {
        QueueLimits {
            messages: self.queue_max_messages,
            bytes: self.queue_max_bytes,
            age: self.queue_max_age,
            when_full: match self.queue_when_full {
                WhenFull::Wait => model::limits::WhenFull::Wait,
                WhenFull::GiveUp => model::limits::WhenFull::GiveUp,
            },
        }
    }
}

impl Log {
    /// For those who make the streams.
    pub fn streams(&self, queues: &Queues) -> StreamLimits {
        StreamLimits { queue_messages: queues.queue_max_messages, log_bytes: self.log_max_bytes }
    }
}
