//! Progress of prefills, for people: bucket `PREFILL`. No decision is made from it.

use bytes::Bytes;
use model::{Progress, SubscriptionName};

use crate::{
    Error, names,
    wire::{Outgoing, Wire, headers},
};

/// The bucket of progress.
#[derive(Clone, Debug)]
pub struct ProgressBoard {
    wire: Wire,
}

impl ProgressBoard {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// The last progress that was written for a subscription. It may be of an overtaken attempt.
    ///
    /// # Errors
    /// NATS away, or the value can't be read.
    pub async fn get(&self, name: &SubscriptionName) -> Result<Option<Progress>, Error> {
        let stream = names::bucket_stream(names::PREFILL);
        let subject = names::key_subject(names::PREFILL, name.as_str());
        match self.wire.last(&stream, &subject).await?.message() {
            Some(message) if !message.payload.is_empty() => serde_json::from_slice(&message.payload)
                .map(Some)
                .map_err(|e| Error::corrupt(format!("the progress of {name}"), e)),
            _ => Ok(None),
        }
    }

    /// Writes the progress of an attempt.
    ///
    /// # Errors
    /// NATS away.
    pub async fn put(&self, name: &SubscriptionName, progress: &Progress) -> Result<(), Error> {
        let payload =
            serde_json::to_vec(progress).map_err(|e| Error::corrupt(format!("the progress of {name}"), e))?;
        self.write(name, Bytes::from(payload)).await
    }

    /// Forgets the progress of a subscription.
    ///
    /// # Errors
    /// NATS away.
    pub async fn delete(&self, name: &SubscriptionName) -> Result<(), Error> {
        if self.get(name).await?.is_some() {
            self.write(name, Bytes::new()).await?;
        }
        Ok(())
    }

    async fn write(&self, name: &SubscriptionName, payload: Bytes) -> Result<(), Error> {
        let message = Outgoing {
            subject: names::key_subject(names::PREFILL, name.as_str()),
            headers: headers([(names::EXPECTED_STREAM, names::bucket_stream(names::PREFILL))]),
            payload,
        };
        let action = format!("writing the progress of {name}");
        self.wire.publish(message).await.map(drop).map_err(|refusal| refusal.into_error(&action))
    }
}
