//! Who reaches whom with network policies: worked out from the rendered policies as a network plugin does
//! (https://kubernetes.io/docs/concepts/services-networking/network-policies/), since the test cluster enforces none.

use serde_json::{Value, json};

use crate::helm::{kind, render_with};

/// One end of a connection.
#[derive(Clone)]
struct End {
    labels: Value,
    /// Labels of its namespace; null: ours.
    namespace: Value,
    /// Outside of the cluster's pods.
    address: bool,
}

fn component(name: &str) -> End {
    let labels = json!({"app.kubernetes.io/name": "headstart", "app.kubernetes.io/instance": "ums", "app.kubernetes.io/component": name});
    End { labels, namespace: Value::Null, address: false }
}

fn stranger() -> End {
    End { labels: json!({"app.kubernetes.io/name": "stranger"}), namespace: Value::Null, address: false }
}

fn of_namespace(labels: Value) -> End {
    End { labels: json!({}), namespace: labels, address: false }
}

fn outside() -> End {
    End { labels: json!({}), namespace: json!({}), address: true }
}

struct Policies(Vec<Value>);

impl Policies {
    fn of(set: &str, options: &[&str]) -> Self {
        let all =
            render_with(set, options).into_iter().filter(|o| kind(o) == "NetworkPolicy").collect::<Vec<_>>();
        assert!(all.len() >= 4, "{set}: {}", all.len());
        Self(all)
    }

    /// Whether a connection is let through at both ends. `ports`: the port's number, and its name in the pod.
    fn pass(&self, from: &End, to: &End, ports: &[Value]) -> bool {
        self.one_end(from, to, ports, "egress", "to") && self.one_end(to, from, ports, "ingress", "from")
    }

    fn one_end(&self, end: &End, other: &End, ports: &[Value], direction: &str, peers: &str) -> bool {
        if end.address || !end.namespace.is_null() {
            return true;
        }
        let mut selecting =
            self.0.iter().filter(|policy| matches(&policy["spec"]["podSelector"], &end.labels)).peekable();
        // A pod that no policy selects is open.
        selecting.peek().is_none()
            || selecting.any(|policy| {
                let rules = policy["spec"][direction].as_array();
                rules.into_iter().flatten().any(|rule| {
                    listed(&rule["ports"], |port| ports.contains(&port["port"]))
                        && listed(&rule[peers], |peer| is_peer(peer, other))
                })
            })
    }
}

/// An absent or empty list is everything.
fn listed(list: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    list.as_array().is_none_or(|list| list.is_empty() || list.iter().any(fits))
}

fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object();
    wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_peer(peer: &Value, end: &End) -> bool {
    if peer.get("ipBlock").is_some() {
        return end.address;
    }
    let namespace = match peer.get("namespaceSelector") {
        Some(selector) => !end.namespace.is_null() && matches(selector, &end.namespace),
        None => end.namespace.is_null(),
    };
    namespace && !end.address && peer.get("podSelector").is_none_or(|selector| matches(selector, &end.labels))
}

fn http() -> Vec<Value> {
    vec![json!("http")]
}

fn nats() -> Vec<Value> {
    vec![json!("nats"), json!(4222)]
}

#[test]
fn everybody_reaches_whom_he_needs_and_nobody_else() {
    let policies = Policies::of("everything", &[]);
    let consumers = of_namespace(json!({"consumers": "yes"}));
    let monitoring = of_namespace(json!({"kubernetes.io/metadata.name": "monitoring"}));
    let listener = End { labels: json!({"app.kubernetes.io/name": "udm-listener"}), ..stranger() };
    for (from, to, ports, passes) in [
        (component("api"), component("nats"), nats(), true),
        (component("dispatcher"), component("nats"), nats(), true),
        (component("controller"), component("nats"), nats(), true),
        (component("prefill"), component("nats"), nats(), true),
        (listener.clone(), component("nats"), nats(), true),
        (stranger(), component("nats"), nats(), false),
        (component("register-consumers"), component("nats"), nats(), false),
        (component("register-consumers"), component("api"), http(), true),
        (consumers.clone(), component("api"), http(), true),
        (stranger(), component("api"), http(), false),
        (component("dispatcher"), component("api"), http(), false),
        (consumers, component("dispatcher"), http(), false),
        (monitoring.clone(), component("api"), http(), true),
        (monitoring.clone(), component("dispatcher"), http(), true),
        (monitoring, component("controller"), http(), true),
        (component("prefill"), outside(), vec![json!(9979)], true),
        (component("register-consumers"), outside(), vec![json!(9979)], true),
        (component("dispatcher"), outside(), vec![json!(9979)], false),
        (component("api"), outside(), vec![json!(443)], true),
        (component("controller"), outside(), vec![json!(443)], true),
        (component("prefill"), outside(), vec![json!(443)], false),
    ] {
        let found = policies.pass(&from, &to, &ports);
        assert_eq!(found, passes, "{} → {} {ports:?}", from.labels, to.labels);
    }
    for of in ["api", "dispatcher", "controller", "prefill", "register-consumers"] {
        for port in [53, 5353] {
            let passes = policies.pass(&component(of), &of_namespace(json!({})), &[json!(port)]);
            assert!(passes, "{of} resolves names on port {port}");
        }
    }
}

#[test]
fn without_peers_the_api_is_open_and_workers_reach_what_jobs_reached() {
    let options = ["--set", "networkPolicy.enabled=true"];
    let policies = Policies::of("queue", &options);
    assert!(policies.pass(&stranger(), &component("api"), &http()));
    let worker = End {
        labels: json!({"app.kubernetes.io/name": "directory", "app.kubernetes.io/instance": "ums", "app.kubernetes.io/component": "worker"}),
        ..stranger()
    };
    assert!(policies.pass(&worker, &outside(), &nats()), "a NATS of one's own");
    assert!(policies.pass(&worker, &outside(), &[json!(443)]), "UDM");
}

/// The port follows the source, in whichever way it is said.
#[test]
fn prefills_reach_the_port_of_their_source() {
    for (source, port) in [
        ("prefill.config.UDM_PORT=8080", 8080),
        ("prefill.config.SOURCE=https://udm.example.org/univention/udm/", 443),
        ("prefill.config.SOURCE=http://udm.example.org/univention/udm/", 80),
        ("prefill.config.SOURCE=https://udm.example.org:8443/udm/", 8443),
        ("prefill.config.SOURCE=http://[fd00::7]:9980/udm/", 9980),
        ("prefill.config.SOURCE=http://[fd00::7]/udm/", 80),
        ("networkPolicy.udm.ports={1234}", 1234),
    ] {
        let policies = Policies::of("minimal", &["--set", "networkPolicy.enabled=true", "--set", source]);
        assert!(policies.pass(&component("prefill"), &outside(), &[json!(port)]), "{source}");
        assert!(!policies.pass(&component("prefill"), &outside(), &[json!(port + 1)]), "{source}");
    }
}
