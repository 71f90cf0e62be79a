//! Three nats-servers that are one cluster.

use std::time::Duration;

use super::{NatsServer, eventually, free_port};
use crate::{Broker, NatsConfig};

/// How long a cluster may take to agree on a leader.
const AGREED_WITHIN: Duration = Duration::from_secs(60);

/// Three servers on loopback; each stream has a copy on all of them.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts three servers and waits until they are one cluster.
    pub async fn start() -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let routes = ports.map(|port| format!("\"nats-route://127.0.0.1:{port}\"")).join(", ");
        let config = |(n, port): (usize, &u16)| {
            format!(
                "server_name: n{n}\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
            )
        };
        let configs: Vec<String> = ports.iter().enumerate().map(config).collect();
        // None of them is up before two of them are.
        let starting = configs.iter().map(|config| NatsServer::start_with(config));
        Self { servers: futures::future::join_all(starting).await }
    }

    /// How a component connects.
    #[must_use]
    pub fn config(&self, component: &'static str) -> NatsConfig {
        let urls: Vec<String> = self.servers.iter().map(NatsServer::url).collect();
        NatsConfig { replicas: 3, ..NatsConfig::new(urls.join(","), component) }
    }

    /// The server that leads a stream.
    ///
    /// # Panics
    /// When the cluster does not agree on one.
    pub async fn leader(&self, broker: &Broker, stream: &str) -> usize {
        let look = async || {
            let found = broker.wire.js.get_stream(stream).await.ok()?;
            let leader = found.cached_info().cluster.as_ref()?.leader.clone()?;
            leader.strip_prefix('n')?.parse::<usize>().ok()
        };
        let what = format!("a leader of {stream}");
        eventually(&what, AGREED_WITHIN, look, Option::is_some).await.unwrap_or_default()
    }

    /// Kills a server like a power cut would.
    pub fn kill(&mut self, server: usize) {
        self.servers[server].kill();
    }

    /// Starts it again.
    pub async fn restart(&mut self, server: usize) {
        self.servers[server].restart().await;
    }
}
