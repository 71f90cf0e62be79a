//! From an object of Kubernetes back to the attempt that it belongs to.

use k8s_openapi::{api::batch::v1::Job, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use model::{Incarnation, SubscriptionName, prefill::PrefillTask};

use crate::{job_name, labels};

/// The attempt that an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The subscription.
    pub subscription: SubscriptionName,
    /// Its incarnation, in full.
    pub incarnation: Incarnation,
    /// Round of the prefill.
    pub round: u32,
    /// Number of the attempt.
    pub attempt: u32,
}

impl Identity {
    /// Name of the attempt's Job and of its ConfigMap.
    #[must_use]
    pub fn job_name(&self) -> String {
        job_name(&self.subscription, self.incarnation, self.attempt)
    }
}

impl From<&PrefillTask> for Identity {
    fn from(task: &PrefillTask) -> Self {
        Self {
            subscription: task.subscription.clone(),
            incarnation: task.incarnation,
            round: task.round,
            attempt: task.attempt,
        }
    }
}

/// The attempt of a Job, or `None` if it is not one of ours: labels and annotations missing, or a name that does
/// not belong to them (a copy that somebody made of one of our Jobs must not be taken for it).
#[must_use]
pub fn subscription_of(job: &Job) -> Option<Identity> {
    let identity = identity_of(&job.metadata)?;
    (job.metadata.name.as_deref() == Some(identity.job_name().as_str())).then_some(identity)
}

/// Is this the Job of that attempt, whatever has become of its labels? They are an index, which anybody may change; its
/// name and its annotations are the truth.
#[must_use]
pub fn is_job_of(job: &Job, identity: &Identity) -> bool {
    let annotation = |key: &str| job.metadata.annotations.as_ref().and_then(|all| all.get(key));
    job.metadata.name.as_deref() == Some(identity.job_name().as_str())
        && annotation(labels::SUBSCRIPTION_NAME).map(String::as_str) == Some(identity.subscription.as_str())
        && annotation(labels::INCARNATION_UUID) == Some(&identity.incarnation.to_string())
}

/// The attempt that a Pod or a ConfigMap says it belongs to. Names are not compared: pods are named by Kubernetes.
#[must_use]
pub fn identity_of(metadata: &ObjectMeta) -> Option<Identity> {
    let labels = metadata.labels.as_ref()?;
    let annotations = metadata.annotations.as_ref()?;
    if labels.get(labels::MANAGED_BY).map(String::as_str) != Some(labels::MANAGED_BY_HEADSTART)
        || labels.get(labels::COMPONENT).map(String::as_str) != Some(labels::COMPONENT_PREFILL)
    {
        return None;
    }
    Some(Identity {
        subscription: annotations.get(labels::SUBSCRIPTION_NAME)?.parse().ok()?,
        incarnation: Incarnation(annotations.get(labels::INCARNATION_UUID)?.parse().ok()?),
        round: labels.get(labels::ROUND)?.parse().ok()?,
        attempt: labels.get(labels::ATTEMPT)?.parse().ok()?,
    })
}
