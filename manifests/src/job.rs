//! The Job of an attempt.

use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
            PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{
            ConfigMap, ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec,
            PodTemplateSpec, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use model::{ExitCode, Subscription, prefill::PrefillTask};

use crate::{JobTemplate, job_name, labels, names};

/// Retries by Kubernetes when the template does not say: delays of 10 s to 160 s, five minutes in all.
pub const DEFAULT_BACKOFF_LIMIT: i32 = 5;

/// Longest run of an attempt in seconds when the template does not say: 6 h.
pub const DEFAULT_ACTIVE_DEADLINE_S: i64 = 6 * 60 * 60;

/// The Job of an attempt, suspended: it starts when the controller admits it.
#[must_use]
pub fn job(template: &JobTemplate, task: &PrefillTask) -> Job {
    let name = job_name(&task.subscription, task.incarnation, task.attempt);
    let base = template.job().spec.clone().unwrap_or_default();
    let object_labels = labels::of_task(template.labels(), task);
    let annotations = labels::annotations_of_task(template.annotations(), task);

    let base_pod = base.template.metadata.unwrap_or_default();
    let pod_metadata = ObjectMeta {
        labels: Some(labels::of_task(
            &template.labels().clone().into_iter().chain(base_pod.labels.unwrap_or_default()).collect(),
            task,
        )),
        annotations: Some(labels::annotations_of_task(&base_pod.annotations.unwrap_or_default(), task)),
        ..ObjectMeta::default()
    };
    let pod = pod(base.template.spec.unwrap_or_default(), &name);

    Job {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(object_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            suspend: Some(true),
            completions: Some(1),
            parallelism: Some(1),
            backoff_limit: Some(base.backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT)),
            active_deadline_seconds: Some(base.active_deadline_seconds.unwrap_or(DEFAULT_ACTIVE_DEADLINE_S)),
            pod_failure_policy: Some(pod_failure_policy()),
            template: PodTemplateSpec { metadata: Some(pod_metadata), spec: Some(pod) },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The Job of a subscription's current attempt. It says when that attempt was asked for: an attempt of the same number
/// that a restored store does not know has another Job of the same name.
#[must_use]
pub fn job_of(template: &JobTemplate, subscription: &Subscription) -> Job {
    let mut job = job(template, &PrefillTask::of(subscription));
    if let Some(asked) = &subscription.prefill.asked {
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.insert(labels::ASKED.to_owned(), asked.as_str().to_owned());
    }
    job
}

/// Whether an object is of the subscription's current attempt and not of another one of its number: both say when they
/// were asked for, and say the same. What a former version made says nothing, and is taken for ours.
#[must_use]
pub fn is_as_asked(asked: Option<&str>, subscription: &Subscription) -> bool {
    let wanted = subscription.prefill.asked.as_ref();
    asked.zip(wanted).is_none_or(|(asked, wanted)| asked == wanted.as_str())
}

/// What goes away with a ConfigMap that belongs to the release: garbage collection removes the Jobs that are left when
/// the release is uninstalled, and with them their pods and ConfigMaps. `None` for one that the API server did not give.
///
/// `blockOwnerDeletion` is not set: OpenShift would want a right to update the owner's finalizers for it.
#[must_use]
pub fn owner(config_map: &ConfigMap) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: config_map.metadata.name.clone()?,
        uid: config_map.metadata.uid.clone()?,
        controller: None,
        block_owner_deletion: None,
    })
}

/// KEP-3329. An evicted process exits with some code, too, so the disruption comes first: it does not count. Then
/// the permanent codes, which end the Job at once. Everything else counts up to `backoffLimit`.
fn pod_failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: "True".to_owned(),
                }]),
                on_exit_codes: None,
            },
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(names::CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: ExitCode::PERMANENT.collect(),
                }),
                on_pod_conditions: None,
            },
        ],
    }
}

/// The template's pod with the task mounted. The ConfigMap has the Job's name; until it exists, no pod starts.
fn pod(mut pod: PodSpec, config_map: &str) -> PodSpec {
    pod.restart_policy = Some("Never".to_owned());
    pod.volumes.get_or_insert_default().push(Volume {
        name: names::TASK_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.to_owned(),
            optional: Some(false),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    });
    pod.containers.iter_mut().for_each(prefill_container);
    pod
}

fn prefill_container(container: &mut Container) {
    container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    container.env.get_or_insert_default().extend([
        EnvVar {
            name: names::TASK_ENV.to_owned(),
            value: Some(format!("{}/{}", names::TASK_DIRECTORY, names::TASK_FILE)),
            value_from: None,
        },
        EnvVar {
            name: names::POD_NAME_ENV.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.name".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
        },
    ]);
    container.volume_mounts.get_or_insert_default().push(VolumeMount {
        name: names::TASK_VOLUME.to_owned(),
        mount_path: names::TASK_DIRECTORY.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
}
