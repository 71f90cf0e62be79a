//! What every template must obey: contradictions are refused, never corrected in silence.

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{Container, PodSecurityContext, PodSpec, ResourceRequirements, SeccompProfile, Volume},
};

use crate::{labels, names};

/// Place and rule of the first violation.
pub(crate) type Violation = (String, &'static str);

const POD: &str = "spec.template.spec";

/// Checks a template.
pub(crate) fn check(job: &Job) -> Result<(), Violation> {
    let instance = job.metadata.labels.as_ref().and_then(|labels| labels.get(labels::INSTANCE));
    if instance.is_none_or(String::is_empty) {
        return Err((
            format!("metadata.labels[{}]", labels::INSTANCE),
            "must name the release: Jobs are found by it",
        ));
    }
    let spec = job.spec.as_ref().ok_or_else(|| ("spec".to_owned(), "must be there"))?;
    job_spec(spec)?;
    let pod = spec.template.spec.as_ref().ok_or_else(|| (POD.to_owned(), "must be there"))?;
    pod_spec(pod)
}

/// An error with this rule at this path unless it holds.
fn must(holds: bool, path: impl FnOnce() -> String, rule: &'static str) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err((path(), rule)) }
}

fn job_spec(spec: &JobSpec) -> Result<(), Violation> {
    let ours = "must not be set: Headstart decides it";
    let whole = "must not be set: one attempt is one pod";
    for (key, holds, rule) in [
        ("suspend", spec.suspend != Some(false), "must be true or absent: Jobs wait for their admission"),
        ("completions", spec.completions.is_none_or(|n| n == 1), "must be 1 or absent"),
        ("parallelism", spec.parallelism.is_none_or(|n| n == 1), "must be 1 or absent"),
        ("completionMode", spec.completion_mode.as_deref().is_none_or(|m| m == "NonIndexed"), whole),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.is_none(), whole),
        ("maxFailedIndexes", spec.max_failed_indexes.is_none(), whole),
        ("successPolicy", spec.success_policy.is_none(), whole),
        ("podFailurePolicy", spec.pod_failure_policy.is_none(), ours),
        ("podReplacementPolicy", spec.pod_replacement_policy.is_none(), ours),
        ("selector", spec.selector.is_none(), "must not be set: Kubernetes makes it"),
        ("manualSelector", spec.manual_selector.is_none(), "must not be set: Kubernetes makes the selector"),
        ("managedBy", spec.managed_by.is_none(), "must not be set: it turns the built-in Job controller off"),
        (
            "ttlSecondsAfterFinished",
            spec.ttl_seconds_after_finished.is_none(),
            "must not be set: a Job that vanishes by age takes its reason with it",
        ),
        ("backoffLimit", spec.backoff_limit.is_none_or(|n| n >= 0), "must be 0 or more"),
        ("activeDeadlineSeconds", spec.active_deadline_seconds.is_none_or(|s| s >= 1), "must be 1 or more"),
    ] {
        must(holds, || format!("spec.{key}"), rule)?;
    }
    Ok(())
}

fn pod_spec(pod: &PodSpec) -> Result<(), Violation> {
    let host = "must not be true: Pod Security \"restricted\" forbids the host's namespaces";
    for (key, holds, rule) in [
        (
            "restartPolicy",
            pod.restart_policy.as_deref().is_none_or(|p| p == "Never"),
            "must be Never or absent: a pod per try keeps the logs, and podFailurePolicy wants it",
        ),
        (
            "automountServiceAccountToken",
            pod.automount_service_account_token != Some(true),
            "must be false or absent: a prefill has no business with the Kubernetes API",
        ),
        ("hostNetwork", pod.host_network != Some(true), host),
        ("hostPID", pod.host_pid != Some(true), host),
        ("hostIPC", pod.host_ipc != Some(true), host),
        ("ephemeralContainers", pod.ephemeral_containers.is_none(), "must not be set in a template"),
        ("activeDeadlineSeconds", pod.active_deadline_seconds.is_none(), "must not be set: use the Job's"),
        (
            "containers",
            pod.containers.len() == 1 && pod.containers.iter().all(|c| c.name == names::CONTAINER),
            "must be exactly one, named \"prefill\"",
        ),
    ] {
        must(holds, || format!("{POD}.{key}"), rule)?;
    }
    if let Some(context) = &pod.security_context {
        pod_security_context(context)?;
    }
    for (index, each) in pod.volumes.iter().flatten().enumerate() {
        volume(each, &format!("{POD}.volumes[{index}]"))?;
    }
    for (index, each) in pod.containers.iter().enumerate() {
        container(each, &format!("{POD}.containers[{index}]"))?;
    }
    for (index, each) in pod.init_containers.iter().flatten().enumerate() {
        container(each, &format!("{POD}.initContainers[{index}]"))?;
    }
    Ok(())
}

fn pod_security_context(context: &PodSecurityContext) -> Result<(), Violation> {
    for (key, holds, rule) in [
        ("runAsNonRoot", context.run_as_non_root != Some(false), "must be true or absent"),
        ("runAsUser", context.run_as_user != Some(0), "must not be 0"),
        ("runAsGroup", context.run_as_group != Some(0), "must not be 0"),
        ("sysctls", context.sysctls.as_ref().is_none_or(Vec::is_empty), "must not be set"),
        (
            "seccompProfile.type",
            seccomp(context.seccomp_profile.as_ref()),
            "must be RuntimeDefault or Localhost",
        ),
    ] {
        must(holds, || format!("{POD}.securityContext.{key}"), rule)?;
    }
    Ok(())
}

fn seccomp(profile: Option<&SeccompProfile>) -> bool {
    profile.is_none_or(|profile| matches!(profile.type_.as_str(), "RuntimeDefault" | "Localhost"))
}

/// The volume types of Pod Security "restricted"; no token by the back door, and our own name kept free.
fn volume(volume: &Volume, path: &str) -> Result<(), Violation> {
    must(
        volume.name != names::TASK_VOLUME,
        || format!("{path}.name"),
        "must not be \"prefill-task\": Headstart adds this volume",
    )?;
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    must(
        allowed,
        || path.to_owned(),
        "must be a configMap, csi, downwardAPI, emptyDir, ephemeral, persistentVolumeClaim, projected or secret",
    )?;
    let token = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten())
        .any(|source| source.service_account_token.is_some());
    must(!token, || format!("{path}.projected"), "must not hold a service account's token")
}

fn container(container: &Container, path: &str) -> Result<(), Violation> {
    must(
        container.image.as_ref().is_some_and(|image| !image.is_empty()),
        || format!("{path}.image"),
        "must be there",
    )?;
    for reserved in [names::TASK_ENV, names::POD_NAME_ENV] {
        must(
            container.env.iter().flatten().all(|env| env.name != reserved),
            || format!("{path}.env[{reserved}]"),
            "must not be set: Headstart sets it",
        )?;
    }
    must(
        container.volume_mounts.iter().flatten().all(|mount| mount.mount_path != names::TASK_DIRECTORY),
        || format!("{path}.volumeMounts"),
        "must leave /etc/headstart/prefill free",
    )?;
    must(
        container.ports.iter().flatten().all(|port| port.host_port.is_none_or(|port| port == 0)),
        || format!("{path}.ports"),
        "must not use ports of the host",
    )?;
    resources(container.resources.as_ref(), path)?;
    let Some(context) = &container.security_context else { return Ok(()) };
    let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    let drops_less = context
        .capabilities
        .as_ref()
        .and_then(|capabilities| capabilities.drop.as_ref())
        .is_some_and(|drop| drop.as_slice() != ["ALL"]);
    for (key, holds, rule) in [
        ("privileged", context.privileged != Some(true), "must be false or absent"),
        (
            "allowPrivilegeEscalation",
            context.allow_privilege_escalation != Some(true),
            "must be false or absent",
        ),
        (
            "readOnlyRootFilesystem",
            context.read_only_root_filesystem != Some(false),
            "must be true or absent",
        ),
        ("runAsNonRoot", context.run_as_non_root != Some(false), "must be true or absent"),
        ("runAsUser", context.run_as_user != Some(0), "must not be 0"),
        ("runAsGroup", context.run_as_group != Some(0), "must not be 0"),
        ("capabilities.add", added.count() == 0, "must be empty"),
        ("capabilities.drop", !drops_less, "must be [ALL] or absent"),
        (
            "procMount",
            context.proc_mount.as_deref().is_none_or(|m| m == "Default"),
            "must be Default or absent",
        ),
        (
            "seccompProfile.type",
            seccomp(context.seccomp_profile.as_ref()),
            "must be RuntimeDefault or Localhost",
        ),
    ] {
        must(holds, || format!("{path}.securityContext.{key}"), rule)?;
    }
    Ok(())
}

/// openDesk: requests for CPU and memory, a limit for memory, on every container. No CPU limit is asked for.
fn resources(resources: Option<&ResourceRequirements>, path: &str) -> Result<(), Violation> {
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    for (group, list, name) in
        [("requests", requests, "cpu"), ("requests", requests, "memory"), ("limits", limits, "memory")]
    {
        must(
            list.is_some_and(|list| list.contains_key(name)),
            || format!("{path}.resources.{group}.{name}"),
            "must be set",
        )?;
    }
    Ok(())
}
