//! The ConfigMap of an attempt: the request as data.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use model::prefill::PrefillTask;

use crate::{JobTemplate, job_name, labels, names};

/// The ConfigMap of an attempt. It has the name of its Job and is owned by it: garbage collection removes it, so
/// nobody needs the right to delete ConfigMaps.
///
/// `owner_uid` is the UID that the API server gave to the Job. `blockOwnerDeletion` is not set: OpenShift would
/// want the right to update `jobs/finalizers` for it.
#[must_use]
pub fn config_map(template: &JobTemplate, task: &PrefillTask, owner_uid: &str) -> ConfigMap {
    let name = job_name(&task.subscription, task.incarnation, task.attempt);
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels::of_task(template.labels(), task)),
            annotations: Some(labels::annotations_of_task(template.annotations(), task)),
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                name,
                uid: owner_uid.to_owned(),
                controller: None,
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(names::TASK_FILE.to_owned(), task_json(task))])),
        binary_data: None,
    }
}

/// The task as a file, with line ends for those who read it with `kubectl get configmap`.
fn task_json(task: &PrefillTask) -> String {
    format!("{:#}\n", serde_json::json!(task))
}
