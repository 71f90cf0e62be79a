//! What the controller is told by whoever starts it.

use std::{fmt, sync::Arc};

use manifests::JobTemplate;

use crate::decide::Rules;

/// Settings of the controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one namespace that it works in.
    pub namespace: String,
    /// What Jobs are made from. Its instance label tells our Jobs from those of another release.
    pub template: JobTemplate,
    /// Most prefills that run at once. 0: none, all wait.
    pub max_running: usize,
    /// The times that decisions go by.
    pub rules: Rules,
    /// Name of this process, for the Events that it writes.
    pub reporter: String,
    /// Name of the ConfigMap with which the Jobs go away.
    pub owner: Option<String>,
    /// For tests of crashes: called before each write to NATS and to Kubernetes, but for Events.
    pub before_write: Option<WriteHook>,
}

/// Called with what is about to be written; `true` stops the controller there for ever, as a kill of the process would.
#[derive(Clone)]
pub struct WriteHook(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl fmt::Debug for WriteHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteHook")
    }
}
