//! A suspended Job, then the ConfigMap that it owns and mounts. Only `create` and `get` are needed.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::PostParams,
    core::{ObjectMeta, Resource},
};
use manifests::{Identity, JobTemplate, config_map, identity_of, is_as_asked, job_of, labels, owner};
use model::{Subscription, prefill::PrefillTask};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout};

use crate::error::ApiError;

/// Makes Jobs and ConfigMaps.
#[derive(Clone)]
pub struct Kubernetes {
    jobs: Api<Job>,
    config_maps: Api<ConfigMap>,
    template: JobTemplate,
    owner: Option<String>,
    patience: Patience,
}

/// How long Kubernetes is waited for while a client waits for us.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// One call. After it the outcome is unknown, and the call is made again.
    call: Duration,
    /// One object, over all calls: a moment of the API server, or an object that is just being collected.
    object: Duration,
    /// First pause between two calls; it doubles.
    pause: Duration,
}

impl Default for Patience {
    /// Twice 8 s: existing clients wait for 60 s and longer.
    fn default() -> Self {
        Self {
            call: Duration::from_secs(4),
            object: Duration::from_secs(8),
            pause: Duration::from_millis(100),
        }
    }
}

/// Longest pause between two calls.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Kubernetes {
    pub(super) fn new(client: Client, namespace: &str, template: JobTemplate, owner: Option<String>) -> Self {
        Self {
            jobs: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            template,
            owner,
            patience: Patience::default(),
        }
    }

    /// The Job first: the ConfigMap carries its UID as owner, so the garbage collector removes it with the Job.
    pub(super) async fn launch(&self, subscription: &Subscription) -> Result<(), ApiError> {
        let task = &PrefillTask::of(subscription);
        let mut wanted = job_of(&self.template, subscription);
        wanted.metadata.owner_references = self.owner().await?.map(|owner| vec![owner]);
        let ours = |found: &Job| identity_of(found.meta()).is_some_and(|id| id == Identity::from(task));
        let made = self.ensure(&self.jobs, &wanted, ours).await?;
        if !is_as_asked(made.metadata.annotations.as_ref().and_then(asked), subscription) {
            // NATS was put back to an earlier time. The controller deletes that Job and begins the next attempt.
            tracing::warn!(
                subscription = %task.subscription,
                attempt = task.attempt,
                "the Job of this attempt's name is of another one, which NATS does not know any more"
            );
            return Ok(());
        }
        let Some(uid) = made.metadata.uid else {
            return Err(refused("the API server answered a Job without a UID".to_owned()));
        };
        let wanted = config_map(&self.template, task, &uid);
        // One of a former Job of that name is about to be collected.
        let ours = |found: &ConfigMap| {
            let owners = found.metadata.owner_references.as_deref().unwrap_or_default();
            owners.iter().any(|owner| owner.uid == uid)
        };
        self.ensure(&self.config_maps, &wanted, ours).await.map(drop)
    }

    /// The ConfigMap with which Jobs go away, as it is now: one that was made anew has another UID, and Jobs with the
    /// former one would be collected at once.
    async fn owner(&self) -> Result<Option<OwnerReference>, ApiError> {
        let Some(name) = &self.owner else { return Ok(None) };
        let read = timeout(self.patience.object, self.config_maps.get_opt(name)).await;
        let found = read
            .map_err(|_| refused(format!("reading {name}: no answer within {:?}", self.patience.object)))?
            .map_err(|error| ApiError::unavailable(DETAIL, &error))?;
        if found.is_none() {
            tracing::warn!(config_map = name, "it is not there; a Job stays when the release is uninstalled");
        }
        Ok(found.as_ref().and_then(owner))
    }

    /// Creates an object. One that is there already counts as made if it is ours: a former request, or a call whose
    /// answer was lost, has made it. Otherwise it is about to be collected, and is waited for.
    async fn ensure<K>(&self, api: &Api<K>, wanted: &K, ours: impl Fn(&K) -> bool) -> Result<K, ApiError>
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        let name = wanted.meta().name.as_deref().unwrap_or_default();
        let deadline = Instant::now() + self.patience.object;
        let mut pause = self.patience.pause;
        loop {
            let call = timeout(self.patience.call, create_or_get(api, name, wanted)).await;
            let obstacle = match call {
                Ok(Ok(Some(found))) if !is_ending(found.meta()) && ours(&found) => return Ok(found),
                Ok(Ok(_)) => format!("{name} exists and is being deleted, or is not ours"),
                // Refused for good as long as nobody changes the cluster: quota, admission, rights.
                Ok(Err(error)) if is_refusal(&error) => return Err(ApiError::unavailable(DETAIL, &error)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {:?}", self.patience.call),
            };
            if Instant::now() + pause >= deadline {
                return Err(refused(obstacle));
            }
            tracing::debug!(job = name, error = obstacle, "asking Kubernetes again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The object as it is after an attempt to create it; `None` if it exists at one moment and not at the next.
async fn create_or_get<K>(api: &Api<K>, name: &str, wanted: &K) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    match api.create(&PostParams::default(), wanted).await {
        Ok(made) => Ok(Some(made)),
        Err(kube::Error::Api(status)) if status.code == 409 => api.get_opt(name).await,
        Err(error) => Err(error),
    }
}

const DETAIL: &str =
    "The prefill's Job could not be created in Kubernetes; the log says why. Send the request again";

fn refused(cause: String) -> ApiError {
    ApiError::Unavailable { detail: DETAIL, cause }
}

fn asked(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(labels::ASKED).map(String::as_str)
}

fn is_ending(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// An answer that will be the same the next time. 409 on `get` does not exist; 429 and 5xx pass.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code != 429 && status.code < 500)
}

#[cfg(test)]
mod tests;
