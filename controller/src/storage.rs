//! How full NATS is, as figures. The bundled server has no exporter, and a full store stops everything.

use std::{sync::atomic::AtomicU64, time::Duration};

use broker::{Broker, Storage};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(15);

/// What is stored, and what may be; clones share it.
#[derive(Clone, Debug, Default)]
pub struct StorageMetrics {
    used: Gauge<u64, AtomicU64>,
    limit: Gauge<u64, AtomicU64>,
}

impl StorageMetrics {
    /// Registers both figures. `limit`: what the server may store, in bytes, where somebody knows it; 0 is shown else.
    #[must_use]
    pub fn register(registry: &mut Registry, limit: Option<u64>) -> Self {
        let metrics = Self::default();
        metrics.limit.set(limit.unwrap_or_default());
        let (used, may) = (metrics.used.clone(), metrics.limit.clone());
        registry.register("headstart_nats_store_bytes", "Bytes that JetStream stores on disk", used);
        registry.register(
            "headstart_nats_store_limit_bytes",
            "Bytes that JetStream may store; 0: not known",
            may,
        );
        metrics
    }

    fn show(&self, storage: Storage) {
        self.used.set(storage.used);
        if let Some(limit) = storage.limit {
            self.limit.set(limit);
        }
    }

    /// Keeps the figures, until `shutdown`. While NATS is away they stay as they were.
    pub async fn keep(self, broker: Broker, shutdown: CancellationToken) {
        loop {
            match broker.storage().await {
                Ok(storage) => self.show(storage),
                Err(error) => {
                    tracing::debug!(error = model::error_chain(&error), "what NATS stores is not known")
                }
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn an_accounts_own_limit_counts_before_the_servers() {
        let mut registry = Registry::default();
        let metrics = StorageMetrics::register(&mut registry, Some(1000));
        let shown = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).unwrap();
            let figures = text.lines().filter(|line| !line.starts_with('#'));
            figures.map(str::to_owned).collect::<Vec<_>>()
        };
        metrics.show(Storage { used: 7, limit: None });
        assert_eq!(
            shown(&registry),
            ["headstart_nats_store_bytes 7", "headstart_nats_store_limit_bytes 1000"]
        );
        metrics.show(Storage { used: 8, limit: Some(500) });
        assert_eq!(
            shown(&registry),
            ["headstart_nats_store_bytes 8", "headstart_nats_store_limit_bytes 500"]
        );
    }
}
