//! The calls to Kubernetes, in one namespace, each with a limit of time: a server that hangs must not stop us.

use std::{future::Future, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Event, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use manifests::{JobTemplate, labels};
use model::SubscriptionName;
use serde_json::Value;

use crate::Error;

/// Longest time that a call may take.
const LIMIT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// Most events about one object that are read.
const EVENTS_MAX: u32 = 100;

/// One namespace.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) jobs: Api<Job>,
    pub(crate) pods: Api<Pod>,
    config_maps: Api<ConfigMap>,
    events: Api<Event>,
    instance: String,
    owner: Option<String>,
    limit: Duration,
}

/// How a create ended.
#[derive(Debug)]
pub(crate) enum Created<T> {
    /// It is made.
    New(T),
    /// One of this name exists: made by somebody else, or by an earlier try whose answer was lost.
    Exists,
}

impl Cluster {
    pub(crate) fn new(client: Client, namespace: &str, template: &JobTemplate) -> Self {
        Self {
            jobs: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            events: Api::namespaced(client, namespace),
            instance: template.instance().to_owned(),
            owner: None,
            limit: LIMIT,
        }
    }

    /// Jobs go away with this ConfigMap.
    pub(crate) fn with_owner(self, owner: Option<String>) -> Self {
        Self { owner, ..self }
    }

    #[cfg(test)]
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The instance whose Jobs these are.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    async fn call<T>(
        &self,
        action: impl Fn() -> String,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(Error::Kubernetes { action: action(), source: Box::new(source) }),
            Err(_) => Err(Error::Timeout { action: action(), limit: self.limit }),
        }
    }

    pub(crate) async fn job(&self, name: &str) -> Result<Option<Job>, Error> {
        self.call(|| format!("reading the Job {name}"), self.jobs.get_opt(name)).await
    }

    pub(crate) async fn config_map(&self, name: &str) -> Result<Option<ConfigMap>, Error> {
        self.call(|| format!("reading the ConfigMap {name}"), self.config_maps.get_opt(name)).await
    }

    pub(crate) async fn pods_of(&self, subscription: &SubscriptionName) -> Result<Vec<Pod>, Error> {
        let params =
            ListParams::default().labels(&labels::selector_of_subscription(&self.instance, subscription));
        let action = || format!("listing the Pods of {subscription}");
        Ok(self.call(action, self.pods.list(&params)).await?.items)
    }

    /// Events about the object of a UID.
    pub(crate) async fn events_about(&self, uid: &str) -> Result<Vec<Event>, Error> {
        let params = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(EVENTS_MAX);
        Ok(self.call(|| format!("listing the Events about {uid}"), self.events.list(&params)).await?.items)
    }

    /// What Jobs belong to, as it is now; `None` where it is not there, or nothing was said.
    pub(crate) async fn owner(&self) -> Result<Option<OwnerReference>, Error> {
        let Some(name) = &self.owner else { return Ok(None) };
        Ok(self.config_map(name).await?.as_ref().and_then(manifests::owner))
    }

    pub(crate) async fn create_job(&self, job: &Job) -> Result<Created<Job>, Error> {
        let action = || format!("creating the Job {}", job.metadata.name.as_deref().unwrap_or_default());
        created(self.call(action, self.jobs.create(&PostParams::default(), job)).await)
    }

    pub(crate) async fn create_config_map(&self, map: &ConfigMap) -> Result<Created<ConfigMap>, Error> {
        let action =
            || format!("creating the ConfigMap {}", map.metadata.name.as_deref().unwrap_or_default());
        created(self.call(action, self.config_maps.create(&PostParams::default(), map)).await)
    }

    /// Patches a Job, with the conditions that the patch carries in its metadata. `None`: they don't hold, or it is
    /// gone; what was decided is out of date.
    pub(crate) async fn patch_job(&self, name: &str, patch: &Value) -> Result<Option<Job>, Error> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let call = self.jobs.patch(name, &params, &patch);
        overtaken(self.call(|| format!("patching the Job {name}"), call).await)
    }

    /// Deletes the Job of that UID; its pods follow. False: it is not there any more, or something else has changed it at
    /// that moment, and it is there: only another look tells.
    pub(crate) async fn delete_job(&self, name: &str, uid: &str) -> Result<bool, Error> {
        let params = DeleteParams::background()
            .preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let deleted = self.call(|| format!("deleting the Job {name}"), self.jobs.delete(name, &params)).await;
        Ok(overtaken(deleted)?.is_some())
    }
}

fn api_code(error: &Error) -> Option<(u16, &str)> {
    match error {
        Error::Kubernetes { source, .. } => match source.as_ref() {
            kube::Error::Api(status) => Some((status.code, &status.reason)),
            _ => None,
        },
        _ => None,
    }
}

/// What the API server says if it refused for good, as things are: quota, admission, rights. A webhook that can't be
/// reached refuses, too, in the words of an error.
pub(crate) fn refusal(error: &Error) -> Option<&str> {
    let Error::Kubernetes { source, .. } = error else { return None };
    let kube::Error::Api(status) = source.as_ref() else { return None };
    let webhook = status.message.contains("failed calling webhook");
    (webhook || !matches!(status.code, 401 | 408 | 409 | 410 | 429 | 500..)).then_some(&status.message)
}

fn created<T>(result: Result<T, Error>) -> Result<Created<T>, Error> {
    match result {
        Ok(value) => Ok(Created::New(value)),
        Err(error) if api_code(&error) == Some((409, "AlreadyExists")) => Ok(Created::Exists),
        Err(error) => Err(error),
    }
}

/// 404 and 409 say that the object is not the one that was decided about.
fn overtaken<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(api_code(&error), Some((404 | 409, _))) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
