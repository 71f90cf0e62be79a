//! From what Kubernetes and the prefill pod say to the one word that everybody sees.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod};
use model::{ExitCode, Reason};
use serde::Deserialize;

use crate::observed::{PodEnd, PodPhase, PodSeen};

/// Longest sentence that is kept, in bytes: Events hold 1024 with the words before it, and nobody reads more.
const LONGEST: usize = 600;

/// What the prefill pod writes to its termination message. Read tolerantly: a newer pod may say more, a pod that was
/// killed says nothing, and with `FallbackToLogsOnError` it may be the end of a log.
#[derive(Debug, Deserialize)]
struct Report {
    class: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    topic: Option<String>,
}

/// What a pod says of itself.
#[must_use]
pub fn of_pod(pod: &Pod) -> PodSeen {
    PodSeen {
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        phase: phase(pod),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        disrupted: disrupted(pod),
    }
}

/// KEP-3329: set by whoever takes a pod away: eviction, drain, preemption, taints, a kubelet that is short of memory.
fn disrupted(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let target = conditions.into_iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True")?;
    Some(sentence(target.reason.as_deref().unwrap_or("DisruptionTarget"), target.message.as_deref()))
}

fn phase(pod: &Pod) -> PodPhase {
    let Some(status) = &pod.status else { return PodPhase::Pending(None) };
    let container =
        status.container_statuses.iter().flatten().find(|c| c.name == manifests::names::CONTAINER);
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") => {
            let evicted = status.reason.as_deref().map(|reason| {
                format!(
                    "{reason}: {}",
                    status.message.as_deref().unwrap_or("the pod was ended by Kubernetes")
                )
            });
            let end = end(container.and_then(|c| c.state.as_ref()), evicted);
            PodPhase::Ended(match disrupted(pod) {
                Some(why) if end.exit_code != Some(0) => {
                    PodEnd { reason: Some(Reason::Disrupted), message: Some(why), ..end }
                }
                _ => end,
            })
        }
        Some("Running") if container.is_some_and(|c| is_running(c.state.as_ref())) => PodPhase::Running,
        _ => PodPhase::Pending(waiting(pod)),
    }
}

fn is_running(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| state.running.is_some())
}

/// Why a pod does not start, if it says so: scheduling first, then init containers, then ours.
fn waiting(pod: &Pod) -> Option<(Reason, String)> {
    let status = pod.status.as_ref()?;
    let unscheduled =
        status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        return Some((
            Reason::Unschedulable,
            shorten(condition.message.as_deref().unwrap_or("no node fits")),
        ));
    }
    let statuses =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    statuses.filter_map(waiting_container).next()
}

fn waiting_container(container: &ContainerStatus) -> Option<(Reason, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let word = waiting.reason.as_deref()?;
    let reason = match word {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Reason::ImagePull,
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreStartHookError"
        | "PostStartHookError"
        | "CrashLoopBackOff" => Reason::PodConfig,
        // ContainerCreating, PodInitializing: on its way.
        _ => return None,
    };
    Some((reason, sentence(word, waiting.message.as_deref())))
}

fn end(state: Option<&ContainerState>, evicted: Option<String>) -> PodEnd {
    let Some(ended) = state.and_then(|state| state.terminated.as_ref()) else {
        return PodEnd { message: evicted, ..PodEnd::default() };
    };
    let (reason, message) = match ended.reason.as_deref() {
        Some("OOMKilled") => (
            Some(Reason::OutOfMemory),
            Some("the container needed more memory than its limit: raise resources.limits.memory".to_owned()),
        ),
        _ => of_termination(ended),
    };
    PodEnd { exit_code: Some(ended.exit_code), reason, message: message.or(evicted) }
}

/// By the pod's own report, else by its exit code.
fn of_termination(ended: &ContainerStateTerminated) -> (Option<Reason>, Option<String>) {
    let text = ended.message.as_deref().unwrap_or_default();
    if let Ok(report) = serde_json::from_str::<Report>(text) {
        let reason = match report.class.as_str() {
            "transient" => Some(Reason::SourceUnavailable),
            "bad_request" => Some(Reason::BadRequest),
            "credentials_refused" => Some(Reason::CredentialsRefused),
            "bad_data" => Some(Reason::BadData),
            "done" | "obsolete" => None,
            _ => of_exit_code(ended.exit_code),
        };
        let message = match &report.topic {
            Some(topic) if !report.message.is_empty() => format!("{topic}: {}", report.message),
            _ => report.message,
        };
        return (reason, Some(shorten(&message)).filter(|text| !text.is_empty()));
    }
    (of_exit_code(ended.exit_code), Some(last_line(text)).filter(|text| !text.is_empty()))
}

/// The exit codes of `headstart prefill` (`model::ExitCode`).
fn of_exit_code(code: i32) -> Option<Reason> {
    let is = |known: ExitCode| code == i32::from(known as u8);
    if is(ExitCode::Done) {
        None
    } else if is(ExitCode::BadRequest) {
        Some(Reason::BadRequest)
    } else if is(ExitCode::CredentialsRefused) {
        Some(Reason::CredentialsRefused)
    } else if is(ExitCode::BadData) {
        Some(Reason::BadData)
    } else if ExitCode::PERMANENT.contains(&code) {
        Some(Reason::Internal)
    } else if is(ExitCode::Transient) {
        Some(Reason::SourceUnavailable)
    } else {
        None
    }
}

/// Why a Job failed: a deadline says so itself; what the pod says is more than "too many tries".
#[must_use]
pub fn of_failed_job(condition: &str, message: &str, last: Option<&PodEnd>) -> (Reason, String) {
    let said = last.and_then(|end| end.message.as_deref());
    let pod = last.and_then(|end| end.reason);
    let reason = match (condition, pod) {
        ("DeadlineExceeded", _) => Reason::DeadlineExceeded,
        // Permanent reasons, and the one that repeats itself with each try.
        (_, Some(reason)) if reason != Reason::SourceUnavailable => reason,
        ("BackoffLimitExceeded", _) => Reason::BackoffLimitExceeded,
        (_, Some(reason)) => reason,
        _ => Reason::Internal,
    };
    let exit = last.and_then(|end| end.exit_code).filter(|code| *code != 0);
    let text = match (said, exit) {
        (Some(said), _) => format!("{}: {said}", sentence(condition, Some(message))),
        (None, Some(code)) => {
            format!("{}; the last pod exited with {code}", sentence(condition, Some(message)))
        }
        (None, None) => sentence(condition, Some(message)),
    };
    (reason, shorten(&text))
}

/// Why an attempt is between two tries.
#[must_use]
pub fn of_retry(end: &PodEnd) -> (Reason, String) {
    let said = end.message.clone().unwrap_or_else(|| match end.exit_code {
        Some(code) => format!("the pod exited with {code}"),
        None => "the pod ended without an exit code".to_owned(),
    });
    (end.reason.unwrap_or(Reason::Internal), format!("Kubernetes will try again: {said}"))
}

/// What the events about a Job or a pod say of a pod that does not come up: the last one that explains it, unless a pod
/// was made since. Events are for people and may get lost: they only name the reason of a deadline that passes anyhow,
/// or put it off while a quota is used up.
#[must_use]
pub fn of_events(events: &[Event]) -> Option<(Reason, String)> {
    let when = |event: &Event| {
        let series =
            event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|at| at.0);
        let last = event.last_timestamp.as_ref().map(|at| at.0);
        series.max(last).max(event.event_time.as_ref().map(|at| at.0))
    };
    let made = |event: &Event| event.reason.as_deref() == Some("SuccessfulCreate");
    let telling = events.iter().filter(|event| made(event) || reason_of_event(event).is_some());
    let last = telling.max_by_key(|event| (when(event), made(event)))?;
    let word = last.reason.as_deref().unwrap_or_default();
    Some((reason_of_event(last)?, sentence(word, last.message.as_deref())))
}

fn reason_of_event(event: &Event) -> Option<Reason> {
    match event.reason.as_deref()? {
        // Of a Job.
        "FailedCreate" => Some(of_refusal(event.message.as_deref().unwrap_or_default())),
        // Of a pod: a ConfigMap, Secret or volume that is not there.
        "FailedMount" | "FailedAttachVolume" | "FailedCreatePodSandBox" => Some(Reason::PodConfig),
        _ => None,
    }
}

/// Why the API server refuses to make an object: a quota that is used up passes; LimitRange, Pod Security, a webhook, a
/// ServiceAccount that is missing, and a quota that wants something set do not.
#[must_use]
pub fn of_refusal(message: &str) -> Reason {
    if message.contains("exceeded quota") { Reason::QuotaExceeded } else { Reason::PodRefused }
}

fn sentence(word: &str, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => shorten(&format!("{word}: {text}")),
        None => word.to_owned(),
    }
}

fn last_line(text: &str) -> String {
    shorten(text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default())
}

/// A sentence of somebody else's, such as an API server or a webhook, as long as it is kept.
#[must_use]
pub(crate) fn shorten(text: &str) -> String {
    model::shorten(text.trim(), LONGEST)
}

#[cfg(test)]
mod tests;
