//! What the end-to-end tests are told with: a namespace in a real Kubernetes, an installation of the chart, and a
//! consumer that knows only the wire contract.
//!
//! The targets named `cluster_*` need a cluster. `cargo xtask test` brings one up and runs them inside its network;
//! where they run is told by `HEADSTART_KUBECTL`, `HEADSTART_HELM`, `HEADSTART_IMAGE`, `HEADSTART_NATS_IMAGE`,
//! `HEADSTART_UDM_IMAGE` and `KUBECONFIG`. `KEEP=1` keeps a test's namespace.

mod consumer;
mod installation;
mod namespace;

pub use consumer::{Consumer, Producer};
pub use installation::{Installation, chart};
pub use namespace::{Namespace, OF_TESTS};

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Has a test of this process waited in vain? Most tests end by an error and not by a panic.
static IN_VAIN: AtomicBool = AtomicBool::new(false);

/// Waits until a condition holds.
///
/// # Errors
/// When the deadline passes: what was awaited, and what was seen last.
pub async fn eventually<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() > deadline => {
                IN_VAIN.store(true, Ordering::Relaxed);
                return Err(last.context(format!("waited {within:?} for {what}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
