//! What the controller is told by whoever starts it.

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
}
