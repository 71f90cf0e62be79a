//! Alerts, dashboard and the page about monitoring speak of figures that exist.

use std::collections::BTreeSet;

use crate::helm::{kind, render, root};

/// Where the components register their figures. A family without a value yet is in no answer of /metrics, so the names
/// are read here.
const SOURCES: [&str; 5] = [
    "api/src/metrics.rs",
    "controller/src/metrics.rs",
    "controller/src/queue_ages.rs",
    "controller/src/storage.rs",
    "dispatcher/src/metrics.rs",
];

/// What Prometheus appends, by kind of figure and by unit.
const SUFFIXES: [&str; 6] = ["", "_total", "_seconds", "_seconds_bucket", "_seconds_count", "_seconds_sum"];

fn figures() -> BTreeSet<String> {
    let sources = SOURCES.map(|source| std::fs::read_to_string(root().join(source)).unwrap());
    named(&sources.concat())
}

/// All words of a text that look like one of our figures.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("headstart_")).map(str::to_owned).collect()
}

#[test]
fn alerts_dashboard_and_page_speak_of_figures_that_exist() {
    let figures = figures();
    let files = [
        "charts/headstart/files/alerts.yaml",
        "charts/headstart/files/dashboard.json",
        "docs/how-to/monitor.md",
    ];
    for file in files {
        let named = named(&std::fs::read_to_string(root().join(file)).unwrap());
        assert!(named.len() >= 5, "{file}: {named:?}");
        let known = |name: &&String| {
            SUFFIXES.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|name| figures.contains(name)))
        };
        let unknown: Vec<_> = named.iter().filter(|name| !known(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?} are not among {figures:?}");
    }
}

#[test]
fn alerts_are_of_their_namespace_and_explain_themselves() {
    let objects = render("everything");
    let rule = objects.iter().find(|object| kind(object) == "PrometheusRule").unwrap();
    let alerts = rule["spec"]["groups"][0]["rules"].as_array().unwrap();
    assert!(alerts.len() >= 8);
    for alert in alerts {
        let expression = alert["expr"].as_str().unwrap();
        assert!(expression.contains(r#"namespace="identity""#), "{expression}");
        assert!(alert["labels"]["severity"].is_string(), "{alert}");
        for text in ["summary", "description"] {
            assert!(alert["annotations"][text].as_str().is_some_and(|text| text.len() > 10), "{alert}");
        }
    }
}

#[test]
fn the_dashboard_is_json_and_its_panels_ask_something() {
    let objects = render("everything");
    let dashboard = objects.iter().find_map(|object| object.pointer("/data/headstart.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(dashboard.as_str().unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    for panel in panels {
        assert!(panel["targets"][0]["expr"].as_str().is_some_and(|e| e.contains("headstart_")), "{panel}");
    }
}
