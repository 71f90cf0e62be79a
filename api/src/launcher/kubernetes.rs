//! A suspended Job, then the ConfigMap that it owns and mounts. Only `create` and `get` are needed.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::PostParams,
    core::{ObjectMeta, Resource},
};
use manifests::{Identity, JobTemplate, config_map, identity_of, job};
use model::PrefillTask;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::ApiError;

/// Makes Jobs and ConfigMaps.
#[derive(Clone)]
pub struct Kubernetes {
    jobs: Api<Job>,
    config_maps: Api<ConfigMap>,
    template: JobTemplate,
}

/// How often, and with what pause, something in the way is waited for: an object that is just being collected.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

impl Kubernetes {
    pub(super) fn new(client: Client, namespace: String, template: JobTemplate) -> Self {
        Self {
            jobs: Api::namespaced(client.clone(), &namespace),
            config_maps: Api::namespaced(client, &namespace),
            template,
        }
    }

    /// The Job first: the ConfigMap carries its UID as owner, so the garbage collector removes it with the Job.
    pub(super) async fn launch(&self, task: &PrefillTask) -> Result<(), ApiError> {
        let wanted = job(&self.template, task);
        let ours = |found: &Job| identity_of(found.meta()).is_some_and(|id| id == Identity::from(task));
        let made = ensure(&self.jobs, &wanted, ours).await?;
        let uid = made.metadata.uid.unwrap_or_default();
        let wanted = config_map(&self.template, task, &uid);
        let ours = |found: &ConfigMap| {
            let owners = found.metadata.owner_references.as_deref().unwrap_or_default();
            owners.iter().any(|owner| owner.uid == uid)
        };
        ensure(&self.config_maps, &wanted, ours).await.map(drop)
    }
}

/// Creates an object. One that is there already counts as made if it is ours; otherwise it is about to be collected
/// and is waited for.
async fn ensure<K>(api: &Api<K>, wanted: &K, ours: impl Fn(&K) -> bool) -> Result<K, ApiError>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = wanted.meta().name.clone().unwrap_or_default();
    let mut last = None;
    for _ in 0..TRIES {
        match api.create(&PostParams::default(), wanted).await {
            Ok(made) => return Ok(made),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                match api.get_opt(&name).await.map_err(|e| away(&e))? {
                    Some(found) if !is_ending(found.meta()) && ours(&found) => return Ok(found),
                    // Somebody else's, or being deleted: gone in a moment.
                    Some(_) | None => last = Some(format!("{name} exists and is not ours")),
                }
            }
            // Refused for good as long as nobody changes the cluster: quota, admission, rights.
            Err(error @ kube::Error::Api(_)) if !passes(&error) => return Err(away(&error)),
            Err(error) => last = Some(error.to_string()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(ApiError::Unavailable { detail: DETAIL, cause: last.unwrap_or_default() })
}

const DETAIL: &str =
    "The prefill's Job could not be created in Kubernetes; the log says why. Send the request again";

fn away(error: &kube::Error) -> ApiError {
    ApiError::unavailable(DETAIL, error)
}

fn is_ending(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// Does the API server say that it may work the next time?
fn passes(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 429 || status.code >= 500)
}
