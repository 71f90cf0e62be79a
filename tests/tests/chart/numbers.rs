//! Numbers of values files: Helm reads them as floating point, and must not write them so.

use serde_json::{Map, Value, json};

use crate::helm::{self, parse, render_with, root};

/// Larger than a million: from here on Go writes a float with an exponent. Ids of OpenShift's ranges look like this.
const LARGE: u64 = 1_000_660_000;

/// A value for each whole number that the schema knows, as large as it may be.
fn whole_numbers(schema: &Value, node: &Value) -> Option<Value> {
    let node = match node.pointer("/allOf/0/$ref").or(node.get("$ref")).and_then(Value::as_str) {
        Some(target) => schema.pointer(target.trim_start_matches('#')).unwrap(),
        None => node,
    };
    let is_whole =
        |node: &Value| node["type"] == "integer" || node["type"].to_string().contains("\"integer\"");
    let alternatives = node["anyOf"].as_array();
    if let Some(whole) = alternatives.into_iter().flatten().chain([node]).find(|node| is_whole(node)) {
        return Some(json!(whole["maximum"].as_u64().unwrap_or(u64::MAX).min(LARGE)));
    }
    let properties = node["properties"].as_object()?;
    let numbers: Map<String, Value> = properties
        .iter()
        .filter_map(|(key, node)| Some((key.clone(), whole_numbers(schema, node)?)))
        .collect();
    (!numbers.is_empty()).then(|| numbers.into())
}

fn with_values(values: &Value, set: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), values.to_string()).unwrap();
    helm::template(set, &["--values", file.path().to_str().unwrap()]).unwrap()
}

#[test]
fn every_number_is_written_whole() {
    let schema = std::fs::read_to_string(root().join("charts/headstart/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut values = whole_numbers(&schema, &schema).unwrap();
    // Of these, some texts are numbers, too, or they exclude each other.
    values["nats"].as_object_mut().unwrap().remove("streamReplicas");
    values["nats"]["persistence"] = json!({"size": LARGE * 100});
    for set in ["minimal", "everything", "queue"] {
        let text = with_values(&values, set);
        let exponent = |line: &&str| {
            line.split_once("e+").is_some_and(|(before, _)| before.ends_with(|c: char| c.is_ascii_digit()))
        };
        assert_eq!(text.lines().find(exponent), None, "{set}");
        let written = text.matches(&LARGE.to_string()).count();
        assert!(written > 20, "{set}: {written}");
    }
}

#[test]
fn the_api_takes_the_job_template_with_ids_of_openshift() {
    let ids = json!({"runAsUser": LARGE, "runAsGroup": LARGE});
    let values = json!({"containerSecurityContext": ids, "podSecurityContext": {"runAsUser": LARGE, "runAsGroup": LARGE, "fsGroup": LARGE}});
    let text = with_values(&values, "minimal");
    let template =
        parse(&text).into_iter().find_map(|o| Some(o.pointer("/data/job.yaml")?.as_str()?.to_owned()));
    let template = manifests::JobTemplate::parse(&template.unwrap()).unwrap();
    drop(template);
    assert!(!text.contains("e+"), "{text}");
}

#[test]
fn the_store_of_nats_fits_its_volume_and_limits_fit_the_store() {
    let found = |options: &[&str]| -> [Option<u64>; 3] {
        let objects = render_with("minimal", options);
        let config =
            objects.iter().find_map(|o| o.pointer("/data/nats.conf")).unwrap().as_str().unwrap().to_owned();
        let store = config.lines().find_map(|line| line.trim().strip_prefix("max_file_store: ")).unwrap();
        let api = objects.iter().find_map(|o| {
            let containers = o.pointer("/spec/template/spec/containers")?;
            (containers[0]["args"] == json!(["api"])).then(|| containers[0]["env"].clone())
        });
        let variable = |name: &str| {
            let env = api.as_ref().unwrap().as_array().unwrap().iter().find(|env| env["name"] == name)?;
            env["value"].as_str()?.parse().ok()
        };
        [store.parse().ok(), variable("QUEUE_MAX_BYTES"), variable("LOG_MAX_BYTES")]
    };
    const GI: u64 = 1 << 30;
    for (options, store, queue, log) in [
        ("", GI * 9, GI * 9 / 10, GI * 9 / 5),
        ("nats.persistence.size=300Mi", 283_115_520, 28_311_552, 56_623_104),
        ("nats.persistence.size=1.5Ti", 1_484_340_697_497, 148_434_069_749, 296_868_139_499),
        ("nats.persistence.size=20G", 18_000_000_000, 1_800_000_000, 3_600_000_000),
        ("nats.persistence.enabled=false", GI * 9, GI * 9 / 10, GI * 9 / 5),
        ("nats.config.maxFileStore=5GB", GI * 5, GI / 2, GI),
        ("limits.queue.maxBytes=7,limits.log.maxBytes=8", GI * 9, 7, 8),
    ] {
        assert_eq!(found(&["--set", options]), [Some(store), Some(queue), Some(log)], "{options}");
    }
    let none = found(&["--set", "limits.queue.maxBytes=0,limits.log.maxBytes=0"]);
    assert_eq!(none, [Some(GI * 9), None, None], "0 is no limit");
}
