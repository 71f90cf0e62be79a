//! Errors of the shell around the decisions. Each belongs to one subscription, which is looked at again after a
//! pause; the others go on.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;

/// Why a look at a subscription, or an action, did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS.
    #[error(transparent)]
    Broker(#[from] broker::Error),
    /// The API server refused, or can't be reached.
    #[error("Kubernetes: {action} did not work")]
    Kubernetes {
        /// What was tried, on which name.
        action: String,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server does not answer. Of a write the outcome is unknown.
    #[error("Kubernetes: {action} was not answered within {} s", limit.as_secs())]
    Timeout {
        /// What was tried, on which name.
        action: String,
        /// How long we waited.
        limit: Duration,
    },
    /// An object of that name exists and is not ours.
    #[error("the Job {name} exists and does not belong to Headstart: rename or delete it")]
    NameTaken {
        /// Its name.
        name: String,
    },
    /// Another controller may lead by now.
    #[error("the lease {name} is lost: this process ends, so that only one controller works")]
    LeaseLost {
        /// Its name.
        name: String,
    },
    /// A fault of ours in one look. It costs that look only.
    #[error("a fault of Headstart's own: {text}")]
    Panicked {
        /// What the panic says.
        text: String,
    },
    /// The loop does not turn: the process ends, and begins anew.
    #[error("no subscription was looked at for a minute, nor was there anything to wait for")]
    Stuck,
    /// The watches have ended, which they never do.
    #[error("the watches of Jobs and Pods have ended")]
    WatchEnded,
}

impl Error {
    /// May the same succeed later?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Broker(error) => error.is_transient(),
            Self::Kubernetes { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => matches!(status.code, 401 | 408 | 409 | 410 | 429 | 500..),
                _ => true,
            },
            Self::Timeout { .. } => true,
            Self::NameTaken { .. }
            | Self::WatchEnded
            | Self::LeaseLost { .. }
            | Self::Panicked { .. }
            | Self::Stuck => false,
        }
    }

    /// The word for metrics.
    #[must_use]
    pub fn part(&self) -> &'static str {
        match self {
            Self::Broker(_) => "nats",
            Self::Kubernetes { .. } | Self::Timeout { .. } | Self::WatchEnded | Self::LeaseLost { .. } => {
                "kubernetes"
            }
            Self::NameTaken { .. } => "name",
            Self::Panicked { .. } => "panic",
            Self::Stuck => "loop",
        }
    }
}

/// Runs `work` so that a panic in it ends it alone: whatever it has left half-done, the next look finds.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| Error::Panicked { text: text_of(&*panic) })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".to_owned())
}
