//! Who runs prefills: Jobs of Kubernetes, or workers on the NATS task queue.

mod kubernetes;

use broker::Tasks;
use manifests::{Identity, JobTemplate};
use model::{Subscription, prefill::PrefillTask};

use crate::error::ApiError;
use kubernetes::Kubernetes;

/// Who runs prefills.
#[derive(Clone)]
pub enum Launcher {
    /// A suspended Job and its ConfigMap per attempt; the controller starts it.
    Kubernetes(Box<Kubernetes>),
    /// A task per attempt; the next free worker takes it.
    Queue(Box<Tasks>),
}

impl Launcher {
    /// Jobs made from a template, in a namespace. They go away with the ConfigMap named `owner`.
    #[must_use]
    pub fn kubernetes(
        client: kube::Client,
        namespace: String,
        template: JobTemplate,
        owner: Option<String>,
    ) -> Self {
        Self::Kubernetes(Box::new(Kubernetes::new(client, &namespace, template, owner)))
    }

    /// Tasks on a queue.
    #[must_use]
    pub fn queue(tasks: Tasks) -> Self {
        Self::Queue(Box::new(tasks))
    }

    /// Name of the attempt's Job, if attempts are Jobs.
    pub(crate) fn job_name(&self, task: &PrefillTask) -> Option<String> {
        matches!(self, Self::Kubernetes(_)).then(|| Identity::from(task).job_name())
    }

    /// Makes what the current attempt needs. Doing it again is harmless.
    pub(crate) async fn launch(&self, subscription: &Subscription) -> Result<(), ApiError> {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.launch(subscription).await,
            Self::Queue(tasks) => Ok(tasks.submit(&PrefillTask::of(subscription)).await?),
        }
    }

    /// Lets the current attempt go on after it was paused. `had_stopped`: its worker has given its task up, or is just about
    /// to; then it gets a new one, which is not hit by that. Doing it again is harmless. The controller does it where
    /// attempts are Jobs.
    pub(crate) async fn resume(
        &self,
        subscription: &Subscription,
        had_stopped: bool,
    ) -> Result<(), ApiError> {
        if let Self::Queue(tasks) = self {
            let task = PrefillTask::of(subscription);
            if had_stopped {
                tasks.withdraw(&task).await?;
            }
            tasks.submit(&task).await?;
        }
        Ok(())
    }

    /// Takes back what was made for the current attempt, which is cancelled. The controller does it where attempts are
    /// Jobs. This only tidies up: the fence keeps the attempt from writing in any case.
    pub(crate) async fn withdraw(&self, subscription: &Subscription) {
        if let Self::Queue(tasks) = self
            && let Err(error) = tasks.withdraw(&PrefillTask::of(subscription)).await
        {
            tracing::warn!(subscription = %subscription.name, %error, "the task of a cancelled prefill stays until a worker takes it");
        }
    }
}
