//! The way out of a source: bounded in bytes, too.
//!
//! The channel to the engine is bounded in events. A thousand users of 3 KB are nothing, a thousand with photos are
//! 130 MB: so what waits in it is bounded in bytes as well, whatever the sizes.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{SourceError, SourceEvent};

/// Bytes of objects that wait in the channel; a single larger one may wait alone. As much as a batch holds.
const WAITING_MAX: usize = 4 << 20;

/// Sends events to the engine.
#[derive(Debug)]
pub(super) struct Outlet {
    out: mpsc::Sender<SourceEvent>,
    /// Sizes of the events that were sent last, oldest first: at least those that the engine has not taken yet.
    waiting: VecDeque<usize>,
    bytes: usize,
    bytes_max: usize,
}

impl Outlet {
    /// A way out through a channel in which nobody else sends objects.
    pub fn new(out: mpsc::Sender<SourceEvent>) -> Self {
        Self { out, waiting: VecDeque::new(), bytes: 0, bytes_max: WAITING_MAX }
    }

    /// Sends an event once there is room.
    ///
    /// # Errors
    /// [`SourceError::ReceiverGone`].
    pub async fn send(&mut self, event: SourceEvent) -> Result<(), SourceError> {
        let size = match &event {
            SourceEvent::Object(object) => object.object.get().len(),
            _ => 0,
        };
        self.forget(self.out.max_capacity() - self.out.capacity());
        let may_stay = self.may_stay(size);
        if may_stay < self.waiting.len() {
            // A permit for each place but those of the newest events is had when the older ones were taken.
            let places = self.out.max_capacity() - may_stay.min(self.out.max_capacity() - 1);
            self.out.reserve_many(places).await.map(drop).map_err(|_| SourceError::ReceiverGone)?;
            self.forget(may_stay);
        }
        self.out.send(event).await.map_err(|_| SourceError::ReceiverGone)?;
        self.waiting.push_back(size);
        self.bytes += size;
        Ok(())
    }

    /// Forgets all but the newest.
    fn forget(&mut self, newest: usize) {
        while self.waiting.len() > newest {
            self.bytes -= self.waiting.pop_front().unwrap_or_default();
        }
    }

    /// How many of the newest events may still wait when one of `size` bytes comes.
    fn may_stay(&self, size: usize) -> usize {
        let mut bytes = self.bytes + size;
        let mut stay = self.waiting.len();
        for oldest in &self.waiting {
            if bytes <= self.bytes_max {
                break;
            }
            bytes -= oldest;
            stay -= 1;
        }
        stay
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::value::RawValue;

    use super::*;
    use crate::source::SnapshotObject;

    fn object(bytes: usize) -> SourceEvent {
        let object = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes - 2))).unwrap();
        SourceEvent::Object(SnapshotObject { topic: "a/b".to_owned(), object, as_of: None })
    }

    /// Sends objects of these sizes to nobody until it has to wait; how many it took.
    async fn sent_until_full(capacity: usize, sizes: &[usize]) -> usize {
        let (sender, _receiver) = mpsc::channel(capacity);
        let mut outlet = Outlet { bytes_max: 100, ..Outlet::new(sender) };
        let mut sent = 0;
        for size in sizes {
            let sending = outlet.send(object(*size));
            if tokio::time::timeout(Duration::from_millis(20), sending).await.is_err() {
                break;
            }
            sent += 1;
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn events_and_bytes_that_wait_are_bounded() {
        for (capacity, sizes, expected) in [
            (3, &[10; 9][..], 3),
            (9, &[30; 9], 3),
            (9, &[50, 50, 2], 2),
            (9, &[1000, 2], 1),
            (9, &[2, 1000, 2], 1),
            (1, &[10, 10], 1),
        ] {
            assert_eq!(sent_until_full(capacity, sizes).await, expected, "{capacity} {sizes:?}");
        }
    }

    #[tokio::test]
    async fn all_that_is_sent_arrives_in_order_whatever_the_sizes() {
        let sizes: Vec<usize> = (0..500).map(|n| 2 + n * 7919 % 130).collect();
        let (sender, mut receiver) = mpsc::channel(5);
        let told = sender.clone();
        let mut outlet = Outlet { bytes_max: 100, ..Outlet::new(sender) };
        let to_send = sizes.clone();
        let sending = tokio::spawn(async move {
            for size in to_send {
                outlet.send(object(size)).await.unwrap();
                _ = told.try_send(SourceEvent::Retrying { error: String::new() });
            }
        });
        let mut came = Vec::new();
        while let Some(event) = receiver.recv().await {
            if let SourceEvent::Object(object) = event {
                came.push(object.object.get().len());
            }
        }
        sending.await.unwrap();
        assert_eq!(came, sizes);
    }

    #[tokio::test]
    async fn it_ends_when_the_engine_is_gone() {
        let (sender, receiver) = mpsc::channel(5);
        let mut outlet = Outlet { bytes_max: 100, ..Outlet::new(sender) };
        outlet.send(object(90)).await.unwrap();
        drop(receiver);
        assert!(matches!(outlet.send(object(90)).await, Err(SourceError::ReceiverGone)));
    }
}
