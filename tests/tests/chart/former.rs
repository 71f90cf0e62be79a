//! Values of the former provisioning service's chart: what keeps its meaning works, the rest is named.

use serde_json::{Map, Value, json};

use crate::helm::{self, kind, name, render, root};

fn of_component(objects: &[Value], component: &str) -> Value {
    let end = format!("-{component}");
    objects
        .iter()
        .find(|o| o.pointer("/spec/template").is_some() && name(o).ends_with(&end))
        .unwrap_or_else(|| panic!("{component}"))
        .clone()
}

/// The table of keys without effect, and what each says.
fn without_effect() -> Map<String, Value> {
    let text = std::fs::read_to_string(root().join("charts/headstart/files/former-values.yaml")).unwrap();
    let table: Map<String, Value> = serde_saphyr::from_str(&text).unwrap();
    assert!(table.len() > 30);
    table
}

#[test]
fn what_keeps_its_meaning_works() {
    let objects = render("former");
    let api = of_component(&objects, "api");
    assert_eq!(name(&api), "ums-provisioning-api", "the Service's name is in the consumers' addresses");
    let pod = &api["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let image = concat!("registry.example.org/headstart:", env!("CARGO_PKG_VERSION"));
    assert_eq!(container["image"], image, "not the former image");
    assert_eq!(container["resources"]["requests"]["cpu"], "0.1");
    assert!(container["env"].as_array().unwrap().iter().any(|env| env["name"] == "HTTPS_PROXY"));
    assert!(container["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["name"] == "ca"));
    assert_eq!(pod["metadata"]["labels"]["zone"], "inner");
    assert_eq!(pod["metadata"]["labels"]["team"], "identity");
    assert_eq!(pod["metadata"]["annotations"]["sidecar.istio.io/inject"], "false");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30, "empty is our default");
    let secret =
        pod["spec"]["volumes"].as_array().unwrap().iter().find(|v| v["name"] == "secret-nats").unwrap();
    assert_eq!(secret["secret"]["items"], json!([{"key": "apiPassword", "path": "password"}]));

    let nats = of_component(&objects, "nats");
    let claim = &nats["spec"]["volumeClaimTemplates"][0]["spec"];
    assert_eq!(claim["resources"]["requests"]["storage"], "20Gi");
    assert_eq!(claim["storageClassName"], "fast");
    assert_eq!(nats["spec"]["template"]["spec"]["affinity"], Value::Null, "`enabled` is no affinity");
    let variables = nats["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(!variables.contains("null"), "{variables}");
    let config = objects.iter().find_map(|o| o.pointer("/data/nats.conf")).unwrap().as_str().unwrap();
    assert!(config.contains("max_payload: 12MB\n"), "{config}");

    let service = objects.iter().find(|o| kind(o) == "Service" && name(o).ends_with("-api")).unwrap();
    assert_eq!(service["metadata"]["annotations"]["scrape"], "no");
    // The Job template is one that the API takes.
    let template = objects.iter().find_map(|o| o.pointer("/data/job.yaml")).unwrap().as_str().unwrap();
    manifests::JobTemplate::parse(template).unwrap();
}

#[test]
fn a_former_address_of_nats_is_the_url() {
    let options =
        ["--set", "nats.bundled=false,nats.connection.host=nats.example.org,dispatcher.nats.auth.password=x"];
    let more =
        ["--set", "controller.nats.auth.password=x,prefill.nats.auth.password=x,nats.config.cluster=null"];
    let objects = helm::render_with("former", &[options, more].concat());
    let env =
        of_component(&objects, "dispatcher")["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(env.contains("nats://nats.example.org:4222"), "{env}");
}

/// Renders what NOTES.txt says about former values, with a copy of the chart that puts it into a ConfigMap.
#[test]
fn what_has_no_effect_is_named_in_the_notes_with_what_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let chart = helm::copy_chart(folder.path());
    let show = "{{- include \"headstart.values\" . }}\nkind: Shown\nmetadata: {name: shown}\ntext: |\n  {{- include \"headstart.formerWithoutEffect\" . | nindent 2 }}\n";
    std::fs::write(chart.join("templates/show.yaml"), show).unwrap();
    let shown = |set: &str| {
        let objects = helm::parse(&helm::template_of(&chart, "ums", set, &[]).unwrap());
        let shown = objects.iter().find(|o| kind(o) == "Shown").unwrap();
        shown["text"].as_str().unwrap_or_default().to_owned()
    };
    let notes = shown("former");
    for key in
        ["api.image", "udmTransformer", "nats.config.cluster", "replicaCount.udmTransformer", "startupProbe"]
    {
        let instead = without_effect()[key].as_str().unwrap().to_owned();
        assert!(notes.contains(&format!("{key}: {instead}")), "{key} in {notes}");
    }
    // What is there and empty asks for nothing.
    assert!(!notes.contains("extraSecrets") && !notes.contains("ingress.paths"), "{notes}");
    assert_eq!(shown("minimal").trim(), "");
    let text = std::fs::read_to_string(root().join("charts/headstart/templates/NOTES.txt")).unwrap();
    assert!(text.contains("headstart.formerWithoutEffect"));
}

#[test]
fn the_readme_has_the_table_and_the_schema_the_keys() {
    let readme = std::fs::read_to_string(root().join("charts/headstart/README.md")).unwrap();
    let schema = std::fs::read_to_string(root().join("charts/headstart/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let reference = |node: &Value| -> Value {
        let target = node.pointer("/allOf/0/$ref").or(node.get("$ref")).and_then(Value::as_str);
        target.map_or(node.clone(), |target| schema.pointer(target.trim_start_matches('#')).unwrap().clone())
    };
    for (path, instead) in without_effect() {
        // Outside of code, a page takes <key> for HTML.
        let row = format!("| `{path}` | {} |", instead.as_str().unwrap().replace('<', "\\<"));
        assert!(readme.contains(&row), "missing in the README:\n{row}");
        let mut node = schema.clone();
        for key in path.split('.') {
            node = reference(&node["properties"][key]);
            assert!(!node.is_null(), "{path} at {key} is not in the schema");
        }
    }
}

/// All leaves of a YAML map, as dotted paths; an empty map or a list is a leaf.
fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    match value.as_object() {
        Some(map) if !map.is_empty() => map.iter().for_each(|(key, value)| {
            leaves(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, found);
        }),
        _ => found.push(path.to_owned()),
    }
}

fn defaults() -> Value {
    let text = std::fs::read_to_string(root().join("charts/headstart/values.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn the_defaults_that_null_restores_are_those_of_the_values_file() {
    let text = std::fs::read_to_string(root().join("charts/headstart/files/defaults.yaml")).unwrap();
    let restored: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(
        restored,
        defaults(),
        "write values.yaml, without comments and anchors, to files/defaults.yaml"
    );
}

/// `null` is "not set" for every value, except in maps that Kubernetes gets as they are.
#[test]
fn null_means_the_default() {
    const HANDED_OVER: [&str; 5] = [
        "podSecurityContext.",
        "containerSecurityContext.",
        "resources.",
        "dashboard.labels",
        "nats.extraUsers",
    ];
    let mut paths = Vec::new();
    leaves("", &defaults(), &mut paths);
    paths.retain(|path| !HANDED_OVER.iter().any(|prefix| path.starts_with(prefix)));
    assert!(paths.len() > 150, "{}", paths.len());
    // All at once: one run of helm.
    let mut nulls = json!({});
    for path in paths {
        let (parents, leaf) = path.rsplit_once('.').unwrap_or(("", &path));
        let parent = parents.split('.').filter(|key| !key.is_empty()).fold(&mut nulls, |map, key| {
            map.as_object_mut().unwrap().entry(key).or_insert_with(|| json!({}))
        });
        parent.as_object_mut().unwrap().insert(leaf.to_owned(), Value::Null);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), nulls.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let with_nulls = helm::without_generated(
        &helm::template("minimal", &["--values", path, "--set", "prefill.udm.auth.password=secret-of-udm"])
            .unwrap(),
    );
    similar_texts(&helm::without_generated(&helm::template("minimal", &[]).unwrap()), &with_nulls);
}

fn similar_texts(expected: &str, found: &str) {
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.lines().count(), found.lines().count());
}
