//! Progress of prefills, for people: bucket `PREFILL`. No decision is made from it.

use bytes::Bytes;
use model::{Progress, SubscriptionName};

use crate::{
    Error, bucket, names,
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

    /// The last progress that was written for a subscription. It may be of an overtaken attempt. What can't be read is
    /// none: it is for people only.
    ///
    /// # Errors
    /// NATS away.
    pub async fn get(&self, name: &SubscriptionName) -> Result<Option<Progress>, Error> {
        let found = bucket::get(&self.wire, names::PREFILL, name.as_str()).await?;
        let Some(item) = found.filter(|item| !item.value.is_empty()) else { return Ok(None) };
        match serde_json::from_slice(&item.value) {
            Ok(progress) => Ok(Some(progress)),
            Err(error) => {
                tracing::warn!(subscription = %name, %error, "progress that can't be read is left out");
                Ok(None)
            }
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
        let found = bucket::get(&self.wire, names::PREFILL, name.as_str()).await?;
        if found.is_some_and(|item| !item.value.is_empty()) {
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
