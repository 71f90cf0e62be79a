//! Each value of the chart: it changes what is rendered, and the README's table has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::helm;

/// Paths of all values and their defaults. A map that is empty is a value itself.
fn leaves() -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, value, leaves);
                }
            }
            leaf => drop(leaves.insert(path.to_owned(), leaf.clone())),
        }
    }
    let text = std::fs::read_to_string(helm::chart().join("values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let mut found = BTreeMap::new();
    walk("", &values, &mut found);
    found
}

/// Another value than the default, which can be told from all others where that is possible.
fn other(path: &str, default: &Value, n: usize) -> Value {
    let odd = format!("odd-{n}z");
    let last = path.rsplit('.').next().unwrap();
    let digest = format!("sha256:{n:064}");
    match (path, last) {
        ("launcher", _) => json!("queue"),
        ("limits.queue.whenFull", _) => json!("give-up"),
        ("limits.queue.maxBytes" | "limits.log.maxBytes" | "limits.queue.maxAgeSeconds", _) => {
            json!(1_000_000 + n)
        }
        ("api.config.shutdownDelaySeconds", _) => json!(9),
        ("nats.config.maxPayload", _) => json!("9MiB"),
        ("nats.config.syncInterval", _) => json!("3m"),
        ("nats.config.maxFileStore", _) => json!("7GiB"),
        ("nats.persistence.size", _) => json!("11Gi"),
        ("nats.persistence.accessModes", _) => json!(["ReadWriteOncePod"]),
        ("nats.goMemLimit", _) => json!("123MiB"),
        ("nats.url", _) => json!(format!("nats://{odd}:4222")),
        ("nats.streamReplicas", _) => json!(5),
        ("nats.bundled", _) => json!(false),
        ("prefill.config.SOURCE", _) => json!(format!("http://{odd}/udm/")),
        ("prefill.config.UDM_PROTOCOL", _) => json!("https"),
        ("prefill.config.UDM_URL_PATH_PREFIX" | "api.config.ROOT_PATH", _) => json!(format!("/{odd}")),
        ("prefill.config.udmMissingTypes" | "prefill.config.udmBrokenObjects", _) => json!("fail"),
        ("prefill.config.shape", _) => json!("live"),
        ("prefill.config.udmConcurrency", _) => json!(99),
        ("prefill.config.maxRemovals.percent", _) => json!(77),
        ("registerConsumers.config.ifDifferent", _) => json!("update"),
        ("registerConsumers.createUsers", _) => json!({"odd": {"existingSecret": {"name": odd}}}),
        ("registerConsumers.waitForUdmObject", _) => json!(format!("users/user/uid={odd}")),
        ("podDisruptionBudget.maxUnavailable", _) => json!("34%"),
        ("serviceMonitor.interval", _) => json!("47s"),
        ("serviceMonitor.tlsConfig", _) => json!({"serverName": odd}),
        ("service.type", _) => json!("LoadBalancer"),
        ("service.ipFamilyPolicy", _) => json!("PreferDualStack"),
        ("ingress.path" | "httpRoute.path", _) => json!(format!("/{odd}")),
        ("ingress.pathType", _) => json!("Exact"),
        ("httpRoute.requestTimeout", _) => json!("48s"),
        ("httpRoute.parentRefs", _) => json!([{"name": odd}]),
        ("httpRoute.hostnames", _) => json!([format!("{odd}.example.org")]),
        ("httpRoute.filters", _) => json!([{"type": "RequestHeaderModifier",
                                            "requestHeaderModifier": {"add": [{"name": odd, "value": "x"}]}}]),
        ("api.config.trustedProxies", _) => json!([format!("10.{}.{}.0/24", n / 250, n % 250)]),
        ("networkPolicy.extraEgress", _) => json!([{"ports": [{"port": 20_000 + n}]}]),
        ("podSecurityContext.fsGroupChangePolicy", _) => json!("Always"),
        ("containerSecurityContext.capabilities.drop", _) => json!(["ALL", format!("ODD_{n}Z")]),
        ("containerSecurityContext.seLinuxOptions", _) => json!({"level": odd}),
        ("serviceAccount.names", _) => json!({"api": odd}),
        (_, "LOG_LEVEL") => json!("trace"),
        (_, "pullPolicy" | "imagePullPolicy") => json!("Never"),
        (_, "digest") => json!(digest),
        (_, "cpu") => json!(format!("{n}m")),
        (_, "memory") => json!(format!("{}Mi", 2_000 + n)),
        (_, "maxUnavailable") => json!(3),
        (_, "imagePullSecrets") => json!([odd]),
        (_, "command") => json!([odd]),
        (_, "extraEnvVars") => json!([{"name": format!("ODD_{n}Z"), "value": odd}]),
        (_, "extraVolumes") => json!([{"name": odd, "emptyDir": {}}]),
        (_, "extraVolumeMounts") => json!([{"name": "tmp", "mountPath": format!("/{odd}")}]),
        (_, "tolerations") => json!([{"key": odd, "operator": "Exists"}]),
        (_, "topologySpreadConstraints") => {
            json!([{"maxSkew": 1, "topologyKey": odd, "whenUnsatisfiable": "ScheduleAnyway"}])
        }
        (_, "affinity") => json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": odd, "operator": "Exists"}]}},
        ]}}),
        (_, "from" | "to") => json!([{"podSelector": {"matchLabels": {"app": odd}}}]),
        (_, "ports") => json!([20_000 + n]),
        (_, "port" | "containerPort") => json!(20_000 + n),
        (_, "type") => json!("Localhost"),
        _ => match default {
            Value::Bool(value) => json!(!value),
            Value::Number(_) => json!(20_000 + n),
            Value::String(_) => json!(odd),
            Value::Object(_) => json!({odd: "x"}),
            other => panic!("{path}: no other value than {other}"),
        },
    }
}

/// Does the number of a value show in what is rendered with it?
fn mark(value: &Value, n: usize) -> Option<String> {
    let text = value.to_string();
    let marks = [format!("odd-{n}z"), format!("ODD_{n}Z"), format!("{n:064}"), (20_000 + n).to_string()];
    let marks = marks.into_iter().chain([(1_000_000 + n).to_string(), format!("{}Mi", 2_000 + n)]);
    marks.into_iter().find(|mark| text.contains(mark.as_str()))
}

/// Values at their paths, as a file of values.
fn file_of(values: &[(&str, &Value)]) -> tempfile::NamedTempFile {
    let mut all = json!({});
    for (path, value) in values {
        let place = path.split('.').fold(&mut all, |at, key| &mut at[key]);
        *place = (*value).clone();
    }
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), all.to_string()).unwrap();
    file
}

/// Sets of values in which a value may count, and what is added to them.
const WHERE: &[(&str, &[&str])] = &[
    ("everything", &[]),
    ("minimal", &[]),
    ("queue", &[]),
    // Where what is written otherwise is left to its default.
    ("minimal", &["--set", "networkPolicy.enabled=true,replicaCount.api=2,nats.persistence.enabled=true"]),
    ("queue", &["--set", "networkPolicy.enabled=true,nats.tls.enabled=true,serviceMonitor.enabled=true"]),
    // Switches that something has to be given for.
    (
        "minimal",
        &[
            "--set",
            "ingress.host=h.example,api.tls.existingSecret.name=x,nats.tls.server.existingSecret.name=x",
            "--set-json",
            "httpRoute.parentRefs=[{\"name\":\"x\"}]",
        ],
    ),
    (
        "minimal",
        &[
            "--set",
            "ingress.enabled=true,ingress.host=h.example,ingress.tls.secretName=x,nats.url=nats://x:4222,\
             api.nats.auth.password=a,dispatcher.nats.auth.password=b,controller.nats.auth.password=c,\
             prefill.nats.auth.password=d",
        ],
    ),
    ("minimal", &["--set", "launcher=queue"]),
    ("opendesk", &[]),
    (
        "minimal",
        &[
            "--set",
            "nats.tls.enabled=true,nats.tls.server.existingSecret.name=x,api.tls.enabled=true,\
                            api.tls.existingSecret.name=y,nats.extraUsers.udmListener.enabled=true,\
                            nats.extraUsers.udmTransformer.enabled=true,ingress.enabled=true,ingress.host=h.example",
        ],
    ),
    (
        "minimal",
        &[
            "--set",
            "nats.tls.enabled=true,nats.tls.server.existingSecret.name=x,\
                            nats.tls.ca.existingSecret.name=x,nats.tls.client.existingSecret.name=x,\
                            api.auth.admin.existingSecret.name=x,api.auth.eventsUdm.existingSecret.name=x,\
                            api.auth.prefill.existingSecret.name=x,api.nats.auth.existingSecret.name=x,\
                            dispatcher.nats.auth.existingSecret.name=x,controller.nats.auth.existingSecret.name=x,\
                            prefill.nats.auth.existingSecret.name=x,prefill.udm.auth.existingSecret.name=x,\
                            prefill.udm.ca.existingSecret.name=x,api.tls.enabled=true,api.tls.existingSecret.name=x,\
                            api.tls.ca.existingSecret.name=x,registerConsumers.createUsers.a.existingSecret.name=x",
        ],
    ),
    (
        "minimal",
        &[
            "--set",
            "nats.extraUsers.udmListener.enabled=true,nats.extraUsers.udmTransformer.enabled=true,\
                            nats.extraUsers.udmListener.auth.existingSecret.name=x,\
                            nats.extraUsers.udmTransformer.auth.existingSecret.name=x",
        ],
    ),
    (
        "queue",
        &["--set", "worker.nats.auth.existingSecret.name=x,ingress.enabled=true,ingress.host=h.example"],
    ),
];

fn rendered(set: &str, more: &[&str], values: &[(&str, &Value)]) -> Option<String> {
    let file = file_of(values);
    let file = file.path().display().to_string();
    let options = [more, &["--values", &file]].concat();
    // Checksums of what is generated differ each time, and are no effect of a value.
    let text = helm::without_generated(&helm::template(set, &options).ok()?);
    Some(text.lines().filter(|line| !line.contains("checksum/")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn each_value_changes_what_is_rendered() {
    let leaves = leaves();
    let mut left: Vec<(&str, Value, usize)> = leaves
        .iter()
        .enumerate()
        .map(|(n, (path, default))| (path.as_str(), other(path, default, n), n))
        .collect();
    // Many at once, which are told apart by their numbers; neighbours are in different groups.
    const GROUPS: usize = 12;
    for (set, more) in WHERE {
        if left.iter().filter(|(_, value, n)| mark(value, *n).is_some()).count() < 2 * GROUPS {
            break;
        }
        let mut found = BTreeSet::new();
        for group in 0..GROUPS {
            let marked = left
                .iter()
                .enumerate()
                .filter(|(at, (_, value, n))| at % GROUPS == group && mark(value, *n).is_some());
            let marked: Vec<&(&str, Value, usize)> = marked.map(|(_, leaf)| leaf).collect();
            let values: Vec<(&str, &Value)> = marked.iter().map(|(path, value, _)| (*path, value)).collect();
            let Some(text) = rendered(set, more, &values) else { continue };
            found.extend(
                marked
                    .iter()
                    .filter(|(_, value, n)| mark(value, *n).is_some_and(|mark| text.contains(&mark)))
                    .map(|(path, ..)| (*path).to_owned()),
            );
        }
        left.retain(|(path, ..)| !found.contains(*path));
    }
    // Then one by one.
    for (set, more) in WHERE {
        let before = rendered(set, more, &[]).unwrap_or_else(|| panic!("{set} {more:?}"));
        left.retain(|(path, value, _)| {
            rendered(set, more, &[(*path, value)]).is_none_or(|text| text == before)
        });
    }
    let left: Vec<&str> = left.iter().map(|(path, ..)| *path).collect();
    assert!(left.is_empty(), "values that change nothing: {left:?}");
}

/// `{a,b}` and `<component>` written out: the Job that registers consumers is one, too.
fn written_out(key: &str) -> Vec<String> {
    const COMPONENTS: &str = "{api,dispatcher,controller,worker,prefill,nats,registerConsumers}";
    let key = key.replace("<component>", COMPONENTS);
    let Some(open) = key.find('{') else { return vec![key] };
    let close = open + key[open..].find('}').unwrap();
    let choices = key[open + 1..close].split(',');
    choices
        .flat_map(|choice| written_out(&format!("{}{choice}{}", &key[..open], &key[close + 1..])))
        .collect()
}

/// The keys of the README's table of values, each with what it stands for.
fn documented() -> BTreeMap<String, Vec<String>> {
    let readme = std::fs::read_to_string(helm::chart().join("README.md")).unwrap();
    let table = readme[readme.find("\n## Values").unwrap()..].lines().filter(|line| line.starts_with("| `"));
    let mut keys = BTreeMap::new();
    for row in table {
        let cell = row.split('|').nth(1).unwrap();
        let mut first = String::new();
        for key in cell.split('`').skip(1).step_by(2) {
            // `.b` behind `a.x` is `a.b`.
            let whole = match key.strip_prefix('.') {
                Some(rest) => format!("{}.{rest}", first.rsplit_once('.').unwrap().0),
                None => key.to_owned(),
            };
            if first.is_empty() {
                first.clone_from(&whole);
            }
            let all = written_out(&whole);
            keys.insert(whole, all);
        }
    }
    assert!(keys.len() > 100, "{} keys", keys.len());
    keys
}

/// Where pods run: a row of the table says that each component may have its own.
const PLACED: [&str; 5] =
    ["nodeSelector", "tolerations", "affinity", "priorityClassName", "topologySpreadConstraints"];

#[test]
fn the_readme_has_every_value_and_no_other() {
    let (leaves, documented) = (leaves(), documented());
    let below = |path: &str, key: &str| {
        path == key || path.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
    };
    // What is below a key that anybody chooses, and what a component has in place of the value at the top.
    let is_documented = |path: &str| {
        documented.values().flatten().any(|key| {
            let chosen = key.split_once(".<key>").is_some_and(|(group, _)| below(path, group));
            below(path, key) || below(key, path) || chosen
        })
    };
    let missing: Vec<&String> = leaves
        .keys()
        .filter(|path| !is_documented(path))
        .filter(|path| !path.split_once('.').is_some_and(|(_, rest)| PLACED.contains(&rest)))
        .collect();
    assert!(missing.is_empty(), "not in the README's table: {missing:?}");
    let is_there = |key: &String| leaves.keys().any(|path| below(path, key) || below(key, path));
    let foreign: Vec<&String> = documented
        .iter()
        .filter(|(key, all)| !key.contains("<key>") && !all.iter().any(is_there))
        .map(|(key, _)| key)
        .collect();
    assert!(foreign.is_empty(), "in the README's table, and no value: {foreign:?}");
}
