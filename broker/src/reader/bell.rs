//! Ringing the bell of a queue when a live message arrives: one task for all who wait at this replica.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::ConsumerErrorKind,
};
use futures::StreamExt;

use super::{Memory, PAUSE, Readers};
use crate::{Queue, names::Part, wire::code};

/// How often the server says that it is there. A listener that misses two begins anew, so this bounds how late a
/// waiting poll is back in work after a kill of the server.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long one request for arrivals waits.
const PULL_FOR: Duration = Duration::from_secs(30);
/// Arrivals that one request asks for.
const ARRIVALS_AT_ONCE: usize = 200;
/// How long the consumer may take to be made before it is tried again.
const MADE_WITHIN: Duration = Duration::from_secs(1);
/// After how long the server forgets a listener that is gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// How often the listener asks itself whether somebody still waits: consumers that poll again and again share one.
const LOOKS_FOR_WAITERS: Duration = Duration::from_secs(10);

impl Readers {
    /// Rings the bell from now on when a live message arrives, until nobody waits any more. Whoever calls this
    /// already holds a receiver of the bell.
    pub(super) fn listen(&self, queue: &Queue, memory: &Arc<Memory>) {
        if memory.begin_listening() {
            tokio::spawn(keep_ringing(queue.clone(), memory.clone()));
        }
    }
}

/// How often the bell is rung where nothing can be heard, which makes everybody look: at first, and at the longest.
const RUNG_UNHEARD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

async fn keep_ringing(queue: Queue, memory: Arc<Memory>) {
    let mut deaf = Deaf::default();
    loop {
        match tokio::time::timeout(MADE_WITHIN, arrivals(&queue)).await {
            Ok(Ok((mut arrivals, consumer))) => {
                deaf = Deaf::default();
                // What came before the consumer was there.
                memory.ring();
                let mut look = tokio::time::interval(LOOKS_FOR_WAITERS);
                look.reset();
                loop {
                    tokio::select! {
                        arrival = arrivals.next() => match arrival {
                            Some(Ok(_)) => memory.ring(),
                            Some(Err(error)) => {
                                tracing::debug!(subscription = %queue.name, %error, "listening begins anew");
                                break;
                            }
                            None => break,
                        },
                        _ = look.tick() => if memory.end_listening() {
                            // NATS would keep it for a while, and has only so many.
                            forget(&queue, &consumer).await;
                            return;
                        },
                    }
                }
            }
            Ok(Err(Unheard::NoStream)) => {
                // Whoever waits looks, and sees it.
                tokio::time::sleep(PAUSE).await;
                return memory.break_off_listening();
            }
            Ok(Err(Unheard::Away(error))) => {
                if deaf.warns() {
                    tracing::warn!(
                        subscription = %queue.name, %error,
                        "no consumer can be made that tells of new messages: whoever waits looks every few seconds"
                    );
                }
            }
            Err(_) => {}
        }
        let (pause, ring) = deaf.again();
        tokio::time::sleep(pause).await;
        if ring {
            memory.ring();
        }
        if memory.end_listening() {
            return;
        }
    }
}

/// How often in a row no consumer could be made.
#[derive(Debug, Default)]
struct Deaf(u32);

impl Deaf {
    /// Is it the time to say so? Once, and not for what passes at once.
    fn warns(&self) -> bool {
        self.0 == 1
    }

    /// When to try again, and whether to ring before.
    fn again(&mut self) -> (Duration, bool) {
        let (first, longest) = RUNG_UNHEARD;
        let former = self.0;
        self.0 = former.saturating_add(1);
        match former {
            0 => (PAUSE, false),
            n => (first.saturating_mul(1 << (n - 1).min(8)).min(longest), true),
        }
    }
}

/// Why nothing is heard.
enum Unheard {
    NoStream,
    Away(String),
}

async fn forget(queue: &Queue, consumer: &str) {
    let Ok(stream) = queue.wire().js.get_stream_no_info(&queue.stream).await else { return };
    if let Err(error) = stream.delete_consumer(consumer).await {
        tracing::debug!(subscription = %queue.name, %error, "a consumer is left for NATS to forget");
    }
}

/// What arrives, and the name of the consumer that tells of it.
async fn arrivals(queue: &Queue) -> Result<(pull::Stream, String), Unheard> {
    // New: only what comes later rings; without bodies, since it only rings.
    let config = pull::Config {
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::None,
        filter_subject: queue.subject(Part::Main),
        headers_only: true,
        inactive_threshold: FORGOTTEN_AFTER,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let stream = queue.wire().js.get_stream_no_info(&queue.stream).await;
    let stream = stream.map_err(|e| Unheard::Away(e.to_string()))?;
    let consumer = stream.create_consumer(config).await.map_err(|error| match error.kind() {
        ConsumerErrorKind::JetStream(e) if e.error_code().0 == code::STREAM_NOT_FOUND => Unheard::NoStream,
        _ => Unheard::Away(error.to_string()),
    })?;
    let arrivals = consumer
        .stream()
        .max_messages_per_batch(ARRIVALS_AT_ONCE)
        .expires(PULL_FOR)
        .heartbeat(HEARTBEAT)
        .messages()
        .await
        .map_err(|e| Unheard::Away(e.to_string()))?;
    Ok((arrivals, consumer.cached_info().name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_nothing_rings_more_and_more_slowly() {
        let mut deaf = Deaf::default();
        let mut said = 0;
        let mut heard = Vec::new();
        for _ in 0..6 {
            said += u32::from(deaf.warns());
            heard.push(deaf.again());
        }
        let seconds = |n| (Duration::from_secs(n), true);
        assert_eq!(heard, [(PAUSE, false), seconds(1), seconds(2), seconds(4), seconds(5), seconds(5)]);
        assert_eq!(said, 1);
    }
}
