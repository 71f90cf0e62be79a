//! The Job template: everything about the pod that Helm decides.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Capabilities, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext},
};
use serde_json::Value;

use crate::{labels, rules};

/// A template that is not usable. The message names the place in the template and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No YAML; the message has line and column.
    #[error("the Job template is no YAML: {0}")]
    Yaml(String),
    /// A key whose value has another type than `batch/v1 Job` wants.
    #[error("the Job template is no batch/v1 Job: {path}: {message}")]
    Type {
        /// Where.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A key that `batch/v1 Job` does not have, most often a typing error or wrong indentation.
    #[error("the Job template has an unknown key: {path}")]
    UnknownKey {
        /// Where.
        path: String,
    },
    /// The template contradicts what every prefill Job must be.
    #[error("the Job template breaks a rule: {path}: {rule}")]
    Rule {
        /// Where.
        path: String,
        /// What must hold.
        rule: &'static str,
    },
}

/// A Job without the data of an attempt: read, checked, and completed by what Pod Security "restricted" wants.
#[derive(Clone, Debug, PartialEq)]
pub struct JobTemplate {
    job: Job,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    instance: String,
}

impl JobTemplate {
    /// Reads the template, a `batch/v1 Job` in YAML.
    ///
    /// # Errors
    ///
    /// See [`TemplateError`]. All of them need a change of the template: there is nothing to try again.
    pub fn parse(yaml: &str) -> Result<Self, TemplateError> {
        let mut value: Value =
            serde_saphyr::from_str(yaml).map_err(|error| TemplateError::Yaml(error.to_string()))?;
        quote_quantities(&mut value, false);
        let mut job: Job = serde_path_to_error::deserialize(&value).map_err(|error| TemplateError::Type {
            path: error.path().to_string(),
            message: error.inner().to_string(),
        })?;
        if let Some(path) = lost_key(&value, &serde_json::json!(job), "") {
            return Err(TemplateError::UnknownKey { path });
        }
        rules::check(&job).map_err(|(path, rule)| TemplateError::Rule { path, rule })?;
        let labels = job.metadata.labels.take().unwrap_or_default();
        let annotations = job.metadata.annotations.take().unwrap_or_default();
        let instance = labels.get(labels::INSTANCE).cloned().unwrap_or_default();
        if let Some(pod) = job.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) {
            harden(pod);
        }
        Ok(Self { job, labels, annotations, instance })
    }

    /// The instance (Helm release) that the template belongs to.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Selects the Jobs, Pods and ConfigMaps made from this template's instance.
    #[must_use]
    pub fn selector(&self) -> String {
        labels::selector(&self.instance)
    }

    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    pub(crate) fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}

/// Makes texts of numbers in `requests` and `limits`: Kubernetes takes `cpu: 1` for a quantity, its types do not.
fn quote_quantities(value: &mut Value, inside: bool) {
    match value {
        Value::Number(number) if inside => *value = Value::String(number.to_string()),
        Value::Object(map) => {
            for (key, value) in map {
                quote_quantities(value, inside || key == "requests" || key == "limits");
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| quote_quantities(value, inside)),
        _ => {}
    }
}

/// The first key of `given` that is not in `read`: the types of Kubernetes drop unknown keys without a word.
/// `null` means "not set" and may get lost.
fn lost_key(given: &Value, read: &Value, path: &str) -> Option<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match read.get(key) {
                Some(read) => lost_key(value, read, &path),
                None => (!value.is_null()).then_some(path),
            }
        }),
        (Value::Array(given), Value::Array(read)) => given
            .iter()
            .zip(read)
            .enumerate()
            .find_map(|(index, (given, read))| lost_key(given, read, &format!("{path}[{index}]"))),
        _ => None,
    }
}

/// Sets what Pod Security "restricted" asks for where the template is silent; contradictions were refused before.
fn harden(pod: &mut PodSpec) {
    pod.automount_service_account_token = Some(false);
    pod.enable_service_links.get_or_insert(false);
    let context = pod.security_context.get_or_insert_with(PodSecurityContext::default);
    context.run_as_non_root.get_or_insert(true);
    context.seccomp_profile.get_or_insert_with(runtime_default);
    pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()).for_each(harden_container);
}

fn harden_container(container: &mut Container) {
    let context = container.security_context.get_or_insert_with(SecurityContext::default);
    context.allow_privilege_escalation = Some(false);
    context.privileged = Some(false);
    context.read_only_root_filesystem = Some(true);
    context.run_as_non_root = Some(true);
    context.seccomp_profile.get_or_insert_with(runtime_default);
    context.capabilities.get_or_insert_with(Capabilities::default).drop = Some(vec!["ALL".to_owned()]);
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}
