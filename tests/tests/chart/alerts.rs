//! Alerts judged by promtool, on figures that real components have printed: a label that no figure has, or a threshold
//! that none reaches, would show as an alert that does not fire.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use broker::testing::{NatsServer, eventually};
use serde_json::{Value, json};

use crate::{
    helm::{kind, render},
    program::program,
};

const SOON: Duration = Duration::from_secs(60);

/// One figure with its labels, as in the format of Prometheus: `name{a="b"}`.
type Series = BTreeMap<String, String>;

/// A component of ours; it ends with the test.
struct Component {
    child: Child,
    address: String,
}

impl Drop for Component {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn start(nats: &NatsServer, args: &[&str], listen: &str) -> Component {
    let address = format!("127.0.0.1:{}", broker::testing::free_port());
    let child = Command::new(program())
        .args(args)
        .args([listen, &address])
        .env("NATS_URL", nats.url())
        .envs([
            ("ADMIN_PASSWORD", "admin"),
            ("EVENTS_PASSWORD_UDM", "events"),
            ("PREFILL_PASSWORD", "prefill"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Component { child, address }
}

async fn metrics(component: &Component) -> String {
    let url = format!("http://{}/metrics", component.address);
    let look = async || {
        reqwest::get(&url).await.and_then(reqwest::Response::error_for_status).map_err(|e| e.to_string())
    };
    let answer = eventually("the figures of a component", SOON, look, Result::is_ok).await.unwrap();
    answer.text().await.unwrap()
}

/// The figures of all components of an installation in which one prefill is done and one has failed.
async fn figures() -> Series {
    rustls::crypto::ring::default_provider().install_default().ok();
    let nats = NatsServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.jsonl");
    std::fs::write(
        &dump,
        "{\"dn\": \"uid=a,dc=x\", \"objectType\": \"users/user\", \"properties\": {}}\nno object\n",
    )
    .unwrap();
    let api = start(&nats, &["api", "--launcher", "queue"], "--listen");
    let all = [
        start(&nats, &["dispatcher"], "--health-listen"),
        start(
            &nats,
            &[
                "controller",
                "--launcher",
                "queue",
                "--queue-ages",
                "true",
                "--nats-store-limit",
                "1000000000",
            ],
            "--health-listen",
        ),
        start(&nats, &["worker", "--source", dump.to_str().unwrap()], "--health-listen"),
    ];
    metrics(&api).await;
    let register = |name: &str, prefill: bool| {
        let body = json!({"name": name, "password": "secret", "request_prefill": prefill,
                          "realms_topics": [{"realm": "udm", "topic": "users/user"}]});
        let url = format!("http://{}/v1/subscriptions", api.address);
        reqwest::Client::new().post(url).basic_auth("admin", Some("admin")).json(&body).send()
    };
    let registered = async || register("mail", true).await.is_ok_and(|answer| answer.status().is_success());
    eventually("a registration", SOON, registered, |done| *done).await;
    register("chat", false).await.unwrap();
    let failed = async || metrics(&all[1]).await;
    let shown = |text: &String| {
        text.contains("state=\"failed\",reason=\"BadData\"")
            && text.contains("headstart_queue_oldest_seconds{subscription=\"chat\"}")
    };
    eventually("the failed prefill, and a queue, among the figures", SOON, failed, shown).await;
    let mut series = Series::new();
    for component in all.iter().chain([&api]) {
        let text = metrics(component).await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        series.extend(
            lines.filter_map(|line| line.rsplit_once(' ')).map(|(s, v)| (s.to_owned(), v.to_owned())),
        );
    }
    assert!(series.len() > 30, "{series:?}");
    series
}

/// The values of a series that stays as it is, and of one that grows each minute.
fn constant(value: &str) -> String {
    format!("{value}x600")
}

fn growing(by: u32) -> String {
    format!("0+{by}x600")
}

/// What a case changes: the values of the series that begin so. It has to be there.
struct Change(&'static str, Values);

enum Values {
    Are(String),
    /// The series is gone.
    Gone,
    /// A whole series that is printed only once something has happened.
    Appear(String),
    /// It has this in the place of that, and these values.
    With(&'static str, &'static str, String),
}

fn input(figures: &Series, changes: &[Change]) -> Vec<Value> {
    let mut series: BTreeMap<String, String> =
        figures.iter().map(|(series, value)| (series.clone(), constant(value))).collect();
    for Change(begin, values) in changes {
        if let Values::Appear(values) = values {
            series.insert((*begin).to_owned(), values.clone());
            continue;
        }
        let found: Vec<String> = series.keys().filter(|name| name.starts_with(begin)).cloned().collect();
        assert!(!found.is_empty(), "no component prints {begin}");
        for name in found {
            match values {
                Values::Are(values) => series.insert(name, values.clone()),
                Values::Gone | Values::Appear(_) => series.remove(&name),
                Values::With(old, new, values) => {
                    assert!(name.contains(old), "{name} has no {old}");
                    series.remove(&name);
                    series.insert(name.replace(old, new), values.clone())
                }
            };
        }
    }
    let namespaced = |name: &str| match name.split_once('{') {
        Some((name, labels)) => format!("{name}{{namespace=\"identity\",{labels}"),
        None => format!("{name}{{namespace=\"identity\"}}"),
    };
    series.iter().map(|(name, values)| json!({"series": namespaced(name), "values": values})).collect()
}

#[tokio::test]
async fn alerts_fire_on_what_components_print() {
    use Values::{Appear, Are, Gone, With};
    let figures = figures().await;
    let calm = || Change("headstart_prefills_with_reason{", Are(constant("0")));
    let cases: Vec<(&[&str], Vec<Change>)> = vec![
        (&[], vec![calm()]),
        // What really happened, unchanged.
        (&["HeadstartPrefillFailed"], vec![]),
        (
            &["HeadstartPrefillHeld"],
            vec![Change(
                "headstart_prefills_with_reason{",
                With("reason=\"BadData\"", "reason=\"TooManyRemovals\"", constant("1")),
            )],
        ),
        (
            &["HeadstartPrefillWaits"],
            vec![Change(
                "headstart_prefills_with_reason{",
                With("state=\"failed\"", "state=\"pending\"", constant("1")),
            )],
        ),
        (
            &["HeadstartPrefillTooSlow"],
            vec![Change(
                "headstart_prefills_with_reason{",
                With(
                    "state=\"failed\",reason=\"BadData\"",
                    "state=\"running\",reason=\"DeadlineTooShort\"",
                    constant("1"),
                ),
            )],
        ),
        (
            &["HeadstartPrefillIncomplete"],
            vec![Change(
                "headstart_prefills_with_reason{",
                With(
                    "state=\"failed\",reason=\"BadData\"",
                    "state=\"done\",reason=\"ObjectsSetAside\"",
                    constant("1"),
                ),
            )],
        ),
        // Consumers of the whole of Nubus ask for types that not every installation has.
        (
            &[],
            vec![Change(
                "headstart_prefills_with_reason{",
                With(
                    "state=\"failed\",reason=\"BadData\"",
                    "state=\"done\",reason=\"TopicsMissing\"",
                    constant("1"),
                ),
            )],
        ),
        (
            &["HeadstartPrefillsQueued"],
            vec![calm(), Change("headstart_prefill_jobs_waiting", Are("3x600".into()))],
        ),
        (
            &["HeadstartControllerDown"],
            vec![calm(), Change("headstart_controller_leads", Are(constant("0")))],
        ),
        (&["HeadstartControllerDown"], vec![calm(), Change("headstart_controller_leads", Gone)]),
        (
            &["HeadstartControllerErrors"],
            vec![calm(), Change("headstart_controller_errors_total{part=\"look\"}", Appear(growing(1)))],
        ),
        (&["HeadstartDispatcherDown"], vec![calm(), Change("headstart_dispatcher_read", Gone)]),
        (
            &["HeadstartDispatchingStopped"],
            vec![calm(), Change("headstart_dispatcher_running", Are(constant("0")))],
        ),
        (
            &["HeadstartQueueLost"],
            vec![calm(), Change("headstart_dispatcher_queues_lost_total", Are(growing(1)))],
        ),
        (
            &["HeadstartUnreadableEntries"],
            vec![calm(), Change("headstart_api_unreadable_entries", Are(constant("2")))],
        ),
        (
            &["HeadstartEventsNotCopied"],
            vec![calm(), Change("headstart_dispatcher_lanes_waiting{", Are(constant("1")))],
        ),
        (
            &["HeadstartEventLogGrows"],
            vec![calm(), Change("headstart_dispatcher_read", Are(constant("50000")))],
        ),
        (
            &["HeadstartQueueGivenUp"],
            vec![calm(), Change("headstart_dispatcher_queues_given_up_total", Are(growing(1)))],
        ),
        (
            &["HeadstartConsumerDoesNotRead"],
            vec![calm(), Change("headstart_queue_oldest_seconds{", Are("1000+60x600".into()))],
        ),
        // A consumer that reads slowly: what is the oldest changes.
        (&[], vec![calm(), Change("headstart_queue_oldest_seconds{", Are("9000+40x600".into()))]),
        // A prefill of hours was done ten minutes ago.
        (&[], vec![calm(), Change("headstart_queue_oldest_seconds{", Are("0x109 9000+60x600".into()))]),
        (
            &["HeadstartDeadLetters"],
            vec![calm(), Change("headstart_dispatcher_dead_letters_total", Are(growing(1)))],
        ),
        (&["HeadstartApiDown"], vec![calm(), Change("headstart_api_polls_waiting", Gone)]),
        (
            &["HeadstartApiFails"],
            vec![
                calm(),
                Change("headstart_api_requests_total{", With("status=\"2", "status=\"5", growing(10))),
            ],
        ),
        (
            &["HeadstartNatsFull"],
            vec![calm(), Change("headstart_nats_store_bytes", Are(constant("750000000")))],
        ),
        (&[], vec![calm(), Change("headstart_nats_store_bytes", Are(constant("650000000")))]),
    ];
    let rules = render("everything").into_iter().find(|object| kind(object) == "PrometheusRule").unwrap();
    let named: Vec<&str> = rules["spec"]["groups"][0]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["alert"].as_str().unwrap())
        .collect();
    for alert in &named {
        assert!(cases.iter().any(|(fire, _)| fire.contains(alert)), "no case lets {alert} fire");
    }
    let tests: Vec<Value> = cases
        .iter()
        .map(|(fire, changes)| {
            let at = if fire.contains(&"HeadstartPrefillsQueued") { "9h" } else { "2h" };
            let samples: Vec<Value> = fire
                .iter()
                .map(|alert| json!({"labels": format!("{{alertname=\"{alert}\"}}"), "value": 1}))
                .collect();
            // Of one alert there may be several, by reason or part: which fire is what counts.
            let expr = "count by (alertname) (count by (alertname) (ALERTS{alertstate=\"firing\"}))";
            json!({"interval": "1m", "input_series": input(&figures, changes),
                   "promql_expr_test": [{"expr": expr, "eval_time": at, "exp_samples": samples}]})
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let write =
        |name: &str, content: &Value| std::fs::write(folder.path().join(name), content.to_string()).unwrap();
    write("rules.yaml", &rules["spec"]);
    write("tests.yaml", &json!({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}));
    promtool(folder.path(), &["check", "rules", "rules.yaml"]);
    promtool(folder.path(), &["test", "rules", "tests.yaml"]);
}

fn promtool(folder: &Path, arguments: &[&str]) {
    let program =
        std::env::var_os("HEADSTART_PROMTOOL").map_or_else(|| PathBuf::from("promtool"), PathBuf::from);
    let output = Command::new(&program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "{} is needed ({error}): `cargo xtask tools` gets it; HEADSTART_PROMTOOL names it",
            program.display()
        )
    });
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
}
