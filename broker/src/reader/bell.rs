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

async fn keep_ringing(queue: Queue, memory: Arc<Memory>) {
    loop {
        match tokio::time::timeout(MADE_WITHIN, arrivals(&queue)).await {
            Ok(Ok(mut arrivals)) => {
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
                        _ = look.tick() => if memory.end_listening() { return },
                    }
                }
            }
            Ok(Err(Unheard::NoStream)) => {
                // Whoever waits looks, and sees it.
                tokio::time::sleep(PAUSE).await;
                return memory.break_off_listening();
            }
            Ok(Err(Unheard::Away)) | Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
        if memory.end_listening() {
            return;
        }
    }
}

/// Why nothing is heard.
enum Unheard {
    NoStream,
    Away,
}

async fn arrivals(queue: &Queue) -> Result<pull::Stream, Unheard> {
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
    let stream = queue.wire().js.get_stream_no_info(&queue.stream).await.map_err(|_| Unheard::Away)?;
    let consumer = stream.create_consumer(config).await.map_err(|error| match error.kind() {
        ConsumerErrorKind::JetStream(e) if e.error_code().0 == code::STREAM_NOT_FOUND => Unheard::NoStream,
        _ => Unheard::Away,
    })?;
    consumer
        .stream()
        .max_messages_per_batch(ARRIVALS_AT_ONCE)
        .expires(PULL_FOR)
        .heartbeat(HEARTBEAT)
        .messages()
        .await
        .map_err(|_| Unheard::Away)
}
