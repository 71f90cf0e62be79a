//! How much JetStream stores.

use serde::Deserialize;
use serde_json::json;

use crate::{Broker, Error};

/// What the account stores on disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Of all streams, buckets included.
    pub used: u64,
    /// What the account may store. `None`: no limit of its own, so that of the server counts, which no client can ask for.
    pub limit: Option<u64>,
}

#[derive(Deserialize)]
struct AccountInfo {
    storage: u64,
    limits: Limits,
}

#[derive(Deserialize)]
struct Limits {
    max_storage: i64,
}

impl Broker {
    /// Asks how much is stored.
    ///
    /// # Errors
    /// NATS is away, or refuses.
    pub async fn storage(&self) -> Result<Storage, Error> {
        let AccountInfo { storage: used, limits } =
            self.wire.api("asking what is stored", "INFO", &json!({})).await?;
        // -1 is no limit.
        Ok(Storage { used, limit: u64::try_from(limits.max_storage).ok().filter(|limit| *limit > 0) })
    }
}
