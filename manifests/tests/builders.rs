//! What the builders give: snapshots to be read as an administrator would, and the rules that snapshots can't defend.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Container, PodSpec},
};
use manifests::{Identity, JobTemplate, config_map, identity_of, job, job_name, labels, subscription_of};
use model::{ExitCode, Incarnation, RealmTopic, prefill::PrefillTask};
use proptest::prelude::*;

const TEMPLATE: &str = include_str!("template.yaml");

/// The least that is a template.
const SMALLEST: &str = "
apiVersion: batch/v1
kind: Job
metadata: {labels: {app.kubernetes.io/instance: small}}
spec:
  template:
    spec:
      containers:
        - name: prefill
          image: headstart
          resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
";

fn template() -> JobTemplate {
    JobTemplate::parse(TEMPLATE).unwrap()
}

fn task(subscription: &str) -> PrefillTask {
    let topic = |topic: &str| RealmTopic { realm: "udm".into(), topic: topic.into() };
    PrefillTask {
        subscription: subscription.parse().unwrap(),
        incarnation: Incarnation(uuid::Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef)),
        round: 1,
        attempt: 2,
        realms_topics: vec![topic("groups/group"), topic("users/user")],
        selection: None,
        track: false,
        mode: model::prefill::PrefillMode::Prefill,
        max_removals: None,
        dry_run: false,
    }
}

fn pod(job: &Job) -> &PodSpec {
    job.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

fn prefill(job: &Job) -> &Container {
    let containers = &pod(job).containers;
    assert_eq!(containers.len(), 1);
    containers.first().unwrap()
}

#[test]
fn job_from_the_charts_template() {
    insta::assert_yaml_snapshot!(job(&template(), &task("ox-connector")));
}

#[test]
fn job_from_the_smallest_template() {
    insta::assert_yaml_snapshot!(job(&JobTemplate::parse(SMALLEST).unwrap(), &task("mail")));
}

#[test]
fn job_of_a_name_that_is_no_label() {
    insta::assert_yaml_snapshot!(job(&template(), &task("Self_Service=")).metadata);
}

#[test]
fn config_map_of_an_attempt() {
    insta::assert_yaml_snapshot!(config_map(&template(), &task("ox-connector"), "7d0f-uid"));
}

#[test]
fn the_task_in_the_config_map_is_the_task() {
    let task = task("mail");
    let ConfigMap { data, .. } = config_map(&template(), &task, "uid");
    let json = data.unwrap().remove("task.json").unwrap();
    assert_eq!(serde_json::from_str::<PrefillTask>(&json).unwrap(), task);
}

#[test]
fn the_job_mounts_the_config_map_that_it_owns() {
    let (template, task) = (template(), task("mail"));
    let job = job(&template, &task);
    let map = config_map(&template, &task, "uid");
    let owner = map.metadata.owner_references.unwrap().remove(0);
    assert_eq!(Some(&owner.name), job.metadata.name.as_ref());
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Job", "uid"));
    assert_eq!(owner.block_owner_deletion, None);
    let mounted: Vec<_> = pod(&job).volumes.iter().flatten().filter_map(|v| v.config_map.as_ref()).collect();
    assert_eq!(
        mounted.iter().map(|source| Some(&source.name)).collect::<Vec<_>>(),
        [map.metadata.name.as_ref()]
    );
    assert_eq!(map.immutable, Some(true));

    let container = prefill(&job);
    let path = container.env.iter().flatten().find(|env| env.name == "PREFILL_TASK").unwrap();
    assert_eq!(path.value.as_deref(), Some("/etc/headstart/prefill/task.json"));
    let mount = container.volume_mounts.iter().flatten().next().unwrap();
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/etc/headstart/prefill", Some(true)));
}

#[test]
fn permanent_exit_codes_fail_the_job_after_disruptions_were_ignored() {
    let rules = job(&template(), &task("mail")).spec.unwrap().pod_failure_policy.unwrap().rules;
    assert_eq!(rules.iter().map(|rule| rule.action.as_str()).collect::<Vec<_>>(), ["Ignore", "FailJob"]);
    let codes = &rules[1].on_exit_codes.as_ref().unwrap().values;
    for code in [
        ExitCode::BadRequest,
        ExitCode::CredentialsRefused,
        ExitCode::SubscriptionGone,
        ExitCode::BadData,
        ExitCode::Transient,
    ] {
        assert_eq!(codes.contains(&(code as i32)), code.is_permanent(), "{code:?}");
    }
}

#[test]
fn a_job_waits_for_its_admission_and_is_never_removed_by_age() {
    for template in [template(), JobTemplate::parse(SMALLEST).unwrap()] {
        let spec = job(&template, &task("mail")).spec.unwrap();
        assert_eq!(spec.suspend, Some(true));
        assert_eq!((spec.completions, spec.parallelism), (Some(1), Some(1)));
        assert_eq!(spec.ttl_seconds_after_finished, None);
        assert_eq!(spec.managed_by, None);
        assert!(spec.backoff_limit.is_some() && spec.active_deadline_seconds.is_some());
    }
}

/// Pod Security "restricted", and what openDesk asks for beyond it, whatever the template leaves out.
#[test]
fn every_job_is_restricted() {
    for template in [template(), JobTemplate::parse(SMALLEST).unwrap()] {
        let job = job(&template, &task("mail"));
        let spec = pod(&job);
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
        let context = spec.security_context.as_ref().unwrap();
        assert_eq!(context.run_as_non_root, Some(true));
        assert_eq!(context.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let context = container.security_context.as_ref().unwrap();
            assert_eq!(context.allow_privilege_escalation, Some(false));
            assert_eq!(context.privileged, Some(false));
            assert_eq!(context.read_only_root_filesystem, Some(true));
            assert_eq!(context.run_as_non_root, Some(true));
            assert_eq!(context.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault");
            let capabilities = context.capabilities.as_ref().unwrap();
            assert_eq!(capabilities.drop.as_deref(), Some(["ALL".to_owned()].as_slice()));
            assert_eq!(capabilities.add, None);
            let resources = container.resources.as_ref().unwrap();
            let requests = resources.requests.as_ref().unwrap();
            assert!(requests.contains_key("cpu") && requests.contains_key("memory"));
            assert!(resources.limits.as_ref().unwrap().contains_key("memory"));
        }
    }
}

#[test]
fn no_secret_is_copied_into_job_or_config_map() {
    let (template, task) = (template(), task("mail"));
    let passwords = |env: &k8s_openapi::api::core::v1::EnvVar| env.name.contains("PASSWORD");
    let built = job(&template, &task);
    let with_password: Vec<_> = prefill(&built).env.iter().flatten().filter(|env| passwords(env)).collect();
    assert!(!with_password.is_empty(), "the template of this test must have a password");
    assert!(with_password.iter().all(|env| env.value.is_none() && env.value_from.is_some()));
    let map = serde_json::to_string(&config_map(&template, &task, "uid")).unwrap();
    assert!(!map.to_lowercase().contains("password"));
}

#[test]
fn the_template_decides_the_pod_and_the_request_nothing_but_names() {
    let template = template();
    let (one, mut other_task) = (job(&template, &task("mail")), task("chat"));
    other_task.realms_topics.clear();
    other_task.attempt = 9;
    let other = job(&template, &other_task);
    let strip = |job: &Job| {
        let mut spec = pod(job).clone();
        spec.volumes = None;
        spec
    };
    assert_eq!(strip(&one), strip(&other));
    let text = serde_json::to_string(pod(&one)).unwrap();
    assert!(!text.contains("users/user"), "topics belong into the ConfigMap");
}

#[test]
fn pods_carry_the_labels_by_which_they_are_found() {
    let built = job(&template(), &task("mail"));
    let pod = built.spec.as_ref().unwrap().template.metadata.as_ref().unwrap();
    for wanted in manifests::labels::selector("ums").split(',') {
        let (key, value) = wanted.split_once('=').unwrap();
        for metadata in [&built.metadata, pod] {
            assert_eq!(metadata.labels.as_ref().unwrap().get(key).map(String::as_str), Some(value), "{key}");
        }
    }
    assert_eq!(template().selector(), labels::selector("ums"));
    assert_eq!(identity_of(pod), Some(Identity::from(&task("mail"))));
    assert_eq!(
        pod.annotations.as_ref().unwrap().get("example.org/scrape").map(String::as_str),
        Some("false")
    );
}

#[test]
fn a_job_is_known_only_with_its_own_name_and_labels() {
    let ours = job(&template(), &task("Self_Service="));
    assert_eq!(subscription_of(&ours), Some(Identity::from(&task("Self_Service="))));

    let mut copy = ours.clone();
    copy.metadata.name = Some("copy-of-it".into());
    assert_eq!(subscription_of(&copy), None);
    for key in [labels::MANAGED_BY, labels::COMPONENT, labels::ATTEMPT, labels::ROUND] {
        let mut without = ours.clone();
        without.metadata.labels.as_mut().unwrap().remove(key);
        assert_eq!(subscription_of(&without), None, "{key}");
    }
    for key in [labels::SUBSCRIPTION_NAME, labels::INCARNATION_UUID] {
        let mut wrong = ours.clone();
        wrong.metadata.annotations.as_mut().unwrap().insert(key.into(), "no such".into());
        assert_eq!(subscription_of(&wrong), None, "{key}");
    }
}

proptest! {
    #[test]
    fn every_attempt_finds_its_way_back(
        subscription in "[A-Za-z0-9_=-]{1,128}",
        incarnation in any::<u128>(),
        round in any::<u32>(),
        attempt in any::<u32>(),
    ) {
        let Ok(subscription) = subscription.parse() else { return Ok(()) };
        let incarnation = Incarnation(uuid::Uuid::from_u128(incarnation));
        let task = PrefillTask { subscription, incarnation, round, attempt, realms_topics: vec![], selection: None, track: false, mode: model::prefill::PrefillMode::Prefill, max_removals: None, dry_run: false };
        let built = job(&template(), &task);
        prop_assert_eq!(subscription_of(&built), Some(Identity::from(&task)));
        prop_assert_eq!(&built, &job(&template(), &task));
        let name = job_name(&task.subscription, incarnation, attempt);
        let map = config_map(&template(), &task, "uid");
        prop_assert_eq!(map.metadata.name.as_ref(), Some(&name));
        prop_assert_eq!(identity_of(&map.metadata), Some(Identity::from(&task)));
    }
}
