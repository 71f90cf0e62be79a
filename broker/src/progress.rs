//! Progress of prefills, for people: bucket `PREFILL`. No decision is made from it.

use model::{SubscriptionName, prefill::Progress};

use crate::{Error, bucket, names, wire::Wire};

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
        bucket::put(&self.wire, names::PREFILL, name.as_str(), payload.into(), &writing(name)).await
    }

    /// Forgets the progress of a subscription.
    ///
    /// # Errors
    /// NATS away.
    pub async fn delete(&self, name: &SubscriptionName) -> Result<(), Error> {
        bucket::clear(&self.wire, names::PREFILL, name.as_str(), &writing(name)).await
    }
}

fn writing(name: &SubscriptionName) -> String {
    format!("writing the progress of {name}")
}
