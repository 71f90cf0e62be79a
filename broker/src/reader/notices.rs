//! Notices, best effort, on plain subjects of NATS. Of removals, between replicas: a stream learns that its window has
//! opened; one that hears nothing looks once a second. Of arrivals, from dispatchers: who waits learns that there is
//! something to read.

use async_nats::Subscriber;
use bytes::Bytes;
use model::delivery::EventId;

use super::{ReadError, Readers};
use crate::{Error, Queue, names};

/// Something was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removed {
    pub id: EventId,
    /// With all of its kind before it.
    pub through: bool,
}

impl Removed {
    fn text(self) -> String {
        let Self { id, through } = self;
        if through { format!("<{id}") } else { id.to_string() }
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (through, id) = text.strip_prefix('<').map_or((false, text), |id| (true, id));
        Some(Self { id: id.parse().ok()?, through })
    }
}

impl Readers {
    /// Tells all replicas.
    pub(super) async fn tell(&self, queue: &Queue, removed: Removed) {
        let subject = names::removed_subject(&queue.name, queue.incarnation);
        if let Err(error) = queue.wire().client.publish(subject, Bytes::from(removed.text())).await {
            tracing::debug!(subscription = %queue.name, %error, "a removal was not told to streams");
        }
    }

    pub(super) async fn notices(&self, queue: &Queue) -> Result<Subscriber, ReadError> {
        let subject = names::removed_subject(&queue.name, queue.incarnation);
        let subscribed = queue.wire().client.subscribe(subject).await;
        subscribed.map_err(|e| Error::unavailable("listening to removals", e).into())
    }
}

impl Queue {
    /// Tells all replicas that something was written.
    pub(crate) async fn tell_arrival(&self) {
        let subject = names::arrived_subject(&self.name, self.incarnation);
        if let Err(error) = self.wire().client.publish(subject, Bytes::new()).await {
            tracing::debug!(subscription = %self.name, %error, "an arrival was not told to replicas");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices() {
        for (text, through) in [("p300", false), ("<l120", true)] {
            let removed = Removed::parse(text.as_bytes()).unwrap();
            assert_eq!(removed.through, through);
            assert_eq!(removed.text(), text);
        }
        for bad in ["", "<", "x", "<<l1", "l0"] {
            assert_eq!(Removed::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Removed::parse(&[0xff]), None);
    }
}
