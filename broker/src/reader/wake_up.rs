//! Ringing the bell of a queue when a live message arrives: for all who wait at this replica.
//!
//! The log's end rings for events that the queue wants, and dispatchers say on a plain subject of NATS when they have
//! written to it. Both are best effort, so a waiting reader also looks every few
//! seconds.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::StreamExt;
use model::topic::Route;

use super::{Memory, PAUSE, Readers};
use crate::{
    Queue, names,
    tail::{Bell, Tail},
};

/// How often the listener asks itself whether somebody still waits: consumers that poll again and again share one.
const LOOKS_FOR_WAITERS: Duration = Duration::from_secs(10);

impl Readers {
    /// Rings the bell from now on when a live message arrives, until nobody waits any more. Whoever calls this
    /// already holds a receiver of the bell.
    pub(super) fn listen(&self, queue: &Queue, memory: &Arc<Memory>) {
        if memory.begin_listening() {
            tokio::spawn(keep_ringing(queue.clone(), memory.clone(), self.tail.clone()));
        }
        let in_effect = memory.in_effect().map(|(epoch, matcher)| (epoch, matcher.route.clone()));
        let by_entry = || {
            let entry = self.view.get(queue.name.as_str())?;
            Some((entry.value.epoch(), Route::new(&entry.value.realms_topics).ok()?))
        };
        if let Some((epoch, route)) = in_effect.or_else(by_entry)
            && memory.begin_ringing(epoch)
        {
            let bell = Arc::downgrade(memory);
            let bell: Weak<dyn Bell> = bell;
            self.tail.wake(queue.incarnation, epoch, &route, bell);
            // What came before it rang.
            memory.ring();
        }
    }
}

async fn keep_ringing(queue: Queue, memory: Arc<Memory>, tail: Tail) {
    let ends = || memory.end_listening(|| tail.let_sleep(queue.incarnation));
    loop {
        let subject = names::arrived_subject(&queue.name, queue.incarnation);
        match queue.wire().client.subscribe(subject).await {
            Ok(mut arrivals) => {
                // What came before we listened.
                memory.ring();
                let mut look = tokio::time::interval(LOOKS_FOR_WAITERS);
                look.reset();
                loop {
                    tokio::select! {
                        arrival = arrivals.next() => match arrival {
                            Some(_) => memory.ring(),
                            None => break,
                        },
                        _ = look.tick() => if ends() {
                            return;
                        },
                    }
                }
            }
            Err(error) => tracing::debug!(subscription = %queue.name, %error, "arrivals are not heard"),
        }
        tokio::time::sleep(PAUSE).await;
        if ends() {
            return;
        }
    }
}
