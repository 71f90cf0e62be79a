//! From Kubernetes' Job to ours.

use k8s_openapi::api::{
    batch::v1::{Job, JobCondition},
    core::v1::{ConfigMap, Pod},
};
use manifests::{Identity, identity_of, is_job_of, labels, subscription_of};
use model::prefill::PrefillTask;

use crate::{
    annotations,
    observed::{Fate, InputSeen, JobRef, JobSeen, PodSeen, Shown},
    reason,
};

/// A Job with its pods; `None` if it is not one of ours.
#[must_use]
pub(crate) fn job_seen<'a>(job: &Job, pods: impl Iterator<Item = &'a Pod>) -> Option<JobSeen> {
    seen_as(subscription_of(job)?, job, pods)
}

/// The Job of an attempt, found by its name, also if somebody has changed its labels.
#[must_use]
pub(crate) fn job_found<'a>(
    attempt: &Identity,
    job: &Job,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<JobSeen> {
    if is_job_of(job, attempt) { seen_as(attempt.clone(), job, pods) } else { None }
}

fn seen_as<'a>(identity: Identity, job: &Job, pods: impl Iterator<Item = &'a Pod>) -> Option<JobSeen> {
    let metadata = &job.metadata;
    let status = job.status.as_ref();
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    Some(JobSeen {
        job: JobRef {
            identity,
            uid: metadata.uid.clone()?,
            version: metadata.resource_version.clone().unwrap_or_default(),
            asked: annotation(labels::ASKED),
        },
        created: metadata.creation_timestamp.as_ref().map_or(0, |at| at.0.as_second()),
        suspended: job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false),
        admitted: annotation(annotations::ADMITTED_AT).is_some(),
        ends_at: ends_at(job),
        late: None,
        being_deleted: metadata.deletion_timestamp.is_some(),
        fate: fate(status.and_then(|status| status.conditions.as_deref()).unwrap_or_default()),
        ends_for_good: job.spec.as_ref().is_some_and(|spec| spec.pod_failure_policy.is_some()),
        failures: status.and_then(|status| status.failed).unwrap_or(0).unsigned_abs(),
        pods: oldest_first(pods),
        input: InputSeen::NotRead,
        labels: metadata.labels.clone().unwrap_or_default(),
        request: annotation(annotations::REQUEST),
        evidence: None,
        shown: Shown {
            state: annotation(annotations::STATE),
            reason: annotation(annotations::REASON),
            progress: annotation(annotations::PROGRESS),
            progress_at: None,
        },
        since: Default::default(),
    })
}

/// Counted from the start, which is another one each time that it is resumed.
fn ends_at(job: &Job) -> Option<i64> {
    let started = job.status.as_ref()?.start_time.as_ref()?.0.as_second();
    Some(started.saturating_add(job.spec.as_ref()?.active_deadline_seconds?))
}

fn oldest_first<'a>(pods: impl Iterator<Item = &'a Pod>) -> Vec<PodSeen> {
    let mut pods: Vec<&Pod> = pods.collect();
    pods.sort_by_key(|pod| {
        (pod.metadata.creation_timestamp.as_ref().map(|at| at.0), pod.metadata.name.as_deref())
    });
    pods.into_iter().map(reason::of_pod).collect()
}

/// `FailureTarget` and `SuccessCriteriaMet` come as soon as the fate is decided, `Failed` and `Complete` once all
/// pods have ended (KEP-4368, 1.31); older servers show the second pair only.
fn fate(conditions: &[JobCondition]) -> Fate {
    let holds = |type_: &str| conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
    if holds("Complete").or_else(|| holds("SuccessCriteriaMet")).is_some() {
        return Fate::Complete;
    }
    match holds("Failed").or_else(|| holds("FailureTarget")) {
        Some(condition) => Fate::Failed {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        },
        None => Fate::Open,
    }
}

/// Does this pod belong to the Job of that UID?
#[must_use]
pub(crate) fn is_owned_by(pod: &Pod, uid: &str) -> bool {
    pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

/// The ConfigMap of a Job's name, as far as this Job may start with it.
#[must_use]
pub(crate) fn input_seen(found: Option<&ConfigMap>, task: &PrefillTask, job: &JobRef) -> InputSeen {
    let Some(found) = found else { return InputSeen::Missing };
    let metadata = &found.metadata;
    let owned = metadata.owner_references.iter().flatten().any(|owner| owner.uid == job.uid);
    let of_the_attempt = identity_of(metadata).as_ref() == Some(&Identity::from(task));
    let file = found.data.as_ref().and_then(|data| data.get(manifests::names::TASK_FILE));
    let same = file.and_then(|text| serde_json::from_str::<PrefillTask>(text).ok()).as_ref() == Some(task);
    if owned && of_the_attempt && same && metadata.deletion_timestamp.is_none() {
        InputSeen::Ours
    } else {
        InputSeen::Foreign
    }
}

#[cfg(test)]
mod tests {
    use manifests::JobTemplate;
    use model::Incarnation;
    use serde_json::json;

    use super::*;

    fn template() -> JobTemplate {
        JobTemplate::parse(crate::testing::TEMPLATE).unwrap()
    }

    fn task(attempt: u32) -> PrefillTask {
        PrefillTask {
            subscription: "mail".parse().unwrap(),
            incarnation: Incarnation(uuid::Uuid::from_u128(7)),
            round: 1,
            attempt,
            realms_topics: vec![],
            selection: None,
            track: false,
            mode: model::prefill::PrefillMode::Prefill,
            max_removals: None,
            dry_run: false,
        }
    }

    fn job(status: serde_json::Value) -> Job {
        let mut job = manifests::job(&template(), &task(1));
        job.metadata.uid = Some("u".into());
        job.status = serde_json::from_value(status).unwrap();
        job
    }

    #[test]
    fn the_fate_of_a_job_is_in_its_conditions() {
        let failed = |reason: &str| Fate::Failed { reason: reason.into(), message: "m".into() };
        for (conditions, expected) in [
            (json!([]), Fate::Open),
            (json!([{"type": "Suspended", "status": "True"}]), Fate::Open),
            (json!([{"type": "SuccessCriteriaMet", "status": "True"}]), Fate::Complete),
            (json!([{"type": "Complete", "status": "True"}]), Fate::Complete),
            (json!([{"type": "Failed", "status": "False"}]), Fate::Open),
            (
                json!([{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "m"}]),
                failed("DeadlineExceeded"),
            ),
            (
                json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]),
                failed("BackoffLimitExceeded"),
            ),
        ] {
            let seen = job_seen(&job(json!({"conditions": conditions})), std::iter::empty()).unwrap();
            assert_eq!(seen.fate, expected, "{conditions}");
        }
    }

    #[test]
    fn a_new_job_is_suspended_and_not_admitted() {
        let seen = job_seen(&job(json!({})), std::iter::empty()).unwrap();
        assert!(seen.suspended && !seen.admitted && !seen.being_deleted);
        assert_eq!(seen.job.identity, Identity::from(&task(1)));
    }

    #[test]
    fn a_job_ends_so_many_seconds_after_its_start() {
        let seen = |status| job_seen(&job(status), std::iter::empty()).unwrap().ends_at;
        let deadline = job(json!({})).spec.unwrap().active_deadline_seconds.unwrap();
        assert_eq!(seen(json!({})), None);
        assert_eq!(seen(json!({"startTime": "1970-01-01T00:01:00Z"})), Some(60 + deadline));
    }

    #[test]
    fn a_copy_of_a_job_under_another_name_is_not_ours() {
        let mut copy = job(json!({}));
        copy.metadata.name = Some("headstart-prefill-copy".into());
        assert_eq!(job_seen(&copy, std::iter::empty()), None);
    }

    #[test]
    fn a_job_starts_only_with_its_own_config_map() {
        let owner = job_seen(&job(json!({})), std::iter::empty()).unwrap().job;
        let template = template();
        let map = |attempt, uid| manifests::config_map(&template, &task(attempt), uid);
        let mut dying = map(1, "u");
        dying.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let mut other_data = map(1, "u");
        other_data.data = map(2, "u").data;
        for (found, expected, name) in [
            (None, InputSeen::Missing, "none"),
            (Some(map(1, "u")), InputSeen::Ours, "ours"),
            (Some(map(1, "former")), InputSeen::Foreign, "of a former Job of this name"),
            (Some(map(2, "u")), InputSeen::Foreign, "of another attempt"),
            (Some(dying), InputSeen::Foreign, "being deleted"),
            (Some(other_data), InputSeen::Foreign, "its data are of another attempt"),
        ] {
            assert_eq!(input_seen(found.as_ref(), &task(1), &owner), expected, "{name}");
        }
    }
}
