//! Pure builders of the two Kubernetes objects of an attempt: its Job, and the ConfigMap that the Job mounts.
//!
//! ```text
//!  JobTemplate (rendered by Helm: image, resources, security, env) ─┐
//!                                                                  ├─► Job (suspended) ◄── owns ── ConfigMap (task.json)
//!  PrefillTask (from the request: data only) ──────────────────────┘
//! ```
//!
//! **Invariants**: no I/O, no clock, no randomness: the same input gives the same bytes, so a create that is sent
//! again ends in 409 and means success. A request only ever fills data into the ConfigMap, names, labels and
//! annotations; image, command, environment, volumes and service account come from the template alone. Whatever the
//! template says, the Job is admissible under Pod Security "restricted" and its pod holds no API token.
//!
//! * [`template`]: reads the template and refuses one that breaks the rules;
//! * [`job`](mod@job), [`config_map`](mod@config_map): the builders;
//! * [`names`], [`labels`]: how objects are called and found;
//! * [`identity`]: from an object back to the attempt that it belongs to.

pub mod config_map;
pub mod identity;
pub mod job;
pub mod labels;
pub mod names;
mod rules;
pub mod template;

pub use config_map::config_map;
pub use identity::{Identity, identity_of, is_job_of, subscription_of};
pub use job::{is_as_asked, job, job_of, owner};
pub use names::job_name;
pub use template::{JobTemplate, TemplateError};
