//! The chart, installed into a namespace, beside a stand-in for UDM.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Consumer, Namespace, Producer};

/// Passwords of the test's installation.
const ADMIN: &str = "admin-secret";
const EVENTS: &str = "events-secret";
const UDM: &str = "udm-secret";

/// The API's Service.
const API: &str = "hs-headstart-api";

/// An installation of the chart.
pub struct Installation {
    /// Where it lives.
    pub namespace: Namespace,
    client: reqwest::Client,
    base: String,
    udm: String,
    /// Given back after the namespace is gone.
    _room: SemaphorePermit<'static>,
}

/// Installations at once: a small node (2 cores) has room for so many of their requests, and pods of more would wait for
/// those of others.
static ROOM: Semaphore = Semaphore::const_new(3);

impl Installation {
    /// Installs a stand-in for UDM with that many users and groups, then the chart with further `--set` values.
    ///
    /// # Errors
    /// Something does not come up; Helm says what.
    pub async fn install(test: &str, users: usize, groups: usize, values: &[&str]) -> Result<Self> {
        let namespace = Self::prepare(test, users, groups)?;
        Self::install_into(namespace, &chart(), None, values).await
    }

    /// A namespace with a volume for NATS and a stand-in for UDM, in which nothing of ours is yet.
    ///
    /// # Errors
    /// The cluster refuses.
    pub fn prepare(test: &str, users: usize, groups: usize) -> Result<Namespace> {
        let mut namespace = Namespace::create(test)?;
        namespace.apply(&stand_in(users, groups)?)?;
        namespace.volume("data-hs-headstart-nats-0")?;
        Ok(namespace)
    }

    /// Installs a chart as the release `hs`; `authority` (PEM) is that of the API's certificate, if it speaks TLS.
    ///
    /// # Errors
    /// Something does not come up; Helm says what.
    pub async fn install_into(
        namespace: Namespace,
        chart: &Path,
        authority: Option<&str>,
        values: &[&str],
    ) -> Result<Self> {
        let room = ROOM.acquire().await?;
        Self::upgrade(&namespace, chart, values);
        let api = namespace.service(API, 80)?;
        let tls = authority.map(|authority| (API, api, authority));
        let base = if tls.is_some() { format!("https://{API}:80") } else { format!("http://{api}") };
        let udm = format!("http://{}", namespace.service("udm", 9979)?);
        Ok(Self { client: crate::consumer::client(tls)?, namespace, base, udm, _room: room })
    }

    /// Installs a chart, or upgrades what is there, and waits until all pods are ready.
    ///
    /// # Panics
    /// If it fails: the panic makes the namespace explain itself.
    pub fn upgrade(namespace: &Namespace, chart: &Path, values: &[&str]) {
        let (repository, tag) = image("HEADSTART_IMAGE", "localhost/headstart:dev");
        let (nats_repository, nats_tag) = image("HEADSTART_NATS_IMAGE", "localhost/nats:dev");
        let mut sets = vec![
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            format!("nats.image.repository={nats_repository}"),
            format!("nats.image.tag={nats_tag}"),
            "global.imagePullPolicy=IfNotPresent".to_owned(),
            format!("api.auth.admin.password={ADMIN}"),
            format!("api.auth.eventsUdm.password={EVENTS}"),
            format!("prefill.udm.auth.password={UDM}"),
            "prefill.config.UDM_HOST=udm".to_owned(),
        ];
        // The stand-in shows what was accepted at once, and tests wait for what comes of refusals. The chart of a former
        // release, an archive, does not know these.
        if chart.is_dir() {
            let patience = ["udmLagSeconds=0", "udmRefusedSeconds=2", "udmMissingSeconds=2"];
            sets.extend(patience.map(|value| format!("prefill.config.{value}")));
        }
        sets.extend(values.iter().map(|value| (*value).to_owned()));
        let chart = chart.to_string_lossy().into_owned();
        let mut arguments = vec!["upgrade", "--install", "hs", &chart, "--wait", "--timeout", "180s"];
        for set in &sets {
            arguments.extend(["--set", set]);
        }
        if let Err(error) = namespace.helm(&arguments) {
            panic!("{error:#}");
        }
    }

    /// Upgrades as docs/how-to/upgrade.md says: with the values that the release has, and the new chart's defaults.
    ///
    /// # Errors
    /// Helm's.
    pub fn upgrade_as_documented(&self, chart: &Path, value: &str) -> Result<()> {
        let chart = chart.to_string_lossy();
        let arguments = ["upgrade", "hs", &chart, "--reset-then-reuse-values", "--wait", "--timeout", "180s"];
        self.namespace.helm(&[&arguments[..], &["--set", value]].concat()).map(drop)
    }

    /// A consumer that is registered already, by its password.
    #[must_use]
    pub fn consumer(&self, name: &str, password: &str) -> Consumer {
        Consumer::registered(&self.client, &self.base, name, password)
    }

    /// Registers a consumer.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn register(&self, name: &str, topics: &[&str], prefill: bool) -> Result<Consumer> {
        Consumer::register(&self.client, &self.base, ADMIN, name, topics, prefill, false).await
    }

    /// Registers a consumer with a prefill, and records what it is told of.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn register_tracked(&self, name: &str, topics: &[&str]) -> Result<Consumer> {
        Consumer::register(&self.client, &self.base, ADMIN, name, topics, true, true).await
    }

    /// Who sends events.
    #[must_use]
    pub fn producer(&self) -> Producer {
        Producer::new(&self.client, &self.base, EVENTS)
    }

    /// Lets the stand-in take so many milliseconds for each object.
    ///
    /// # Errors
    /// It refuses.
    pub async fn slow_down(&self, get_delay_ms: u32) -> Result<()> {
        let faults = json!({"get_delay_ms": get_delay_ms, "list_delay_ms": 0, "size_limit": null,
                            "link_base": null, "link_headers": 0, "unloaded_modules": [], "rules": []});
        self.control("faults", &faults).await
    }

    /// Lets the stand-in accept another password than the one that was installed.
    ///
    /// # Errors
    /// It refuses.
    pub async fn udm_password(&self, password: Option<&str>) -> Result<()> {
        let password = password.unwrap_or(UDM);
        self.control("credentials", &json!({"username": "cn=admin", "password": password})).await
    }

    async fn control(&self, path: &str, body: &Value) -> Result<()> {
        let answer = self.client.put(format!("{}/control/{path}", self.udm)).json(body).send().await?;
        let status = answer.status();
        anyhow::ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        Ok(())
    }

    /// The Job of a subscription's attempt.
    ///
    /// # Errors
    /// There is none.
    pub fn job(&self, subscription: &str, attempt: u32) -> Result<Value> {
        let selector = format!("headstart/subscription={subscription},headstart/attempt={attempt}");
        let jobs = self.namespace.get(&["jobs", "-l", &selector])?;
        jobs["items"].get(0).cloned().with_context(|| format!("no Job with {selector}"))
    }
}

impl Namespace {
    /// Address of a Service, from where the test runs: inside the network of our own cluster.
    fn service(&self, name: &str, port: u16) -> Result<SocketAddr> {
        let service = self.get(&["service", name])?;
        let address = service["spec"]["clusterIP"].as_str().context("no clusterIP")?;
        Ok(SocketAddr::new(address.parse()?, port))
    }
}

/// The chart of this source tree.
#[must_use]
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/headstart")
}

fn image(variable: &str, default: &str) -> (String, String) {
    let image = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let (repository, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    (repository.to_owned(), tag.to_owned())
}

fn stand_in(users: usize, groups: usize) -> Result<Value> {
    let (repository, tag) = image("HEADSTART_UDM_IMAGE", "localhost/stand-in-udm:dev");
    let labels = json!({"app": "udm"});
    let restricted = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 1000,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "udm"}, "spec": {
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "udm", "image": format!("{repository}:{tag}"), "imagePullPolicy": "IfNotPresent",
                    "args": ["--users", users.to_string(), "--groups", groups.to_string(), "--photos-per-mille", "0"],
                    "env": [{"name": "STAND_IN_UDM_PASSWORD", "value": UDM}],
                    "ports": [{"containerPort": 9979}],
                    "readinessProbe": {"httpGet": {"path": "/control/health", "port": 9979}, "periodSeconds": 1},
                    "securityContext": restricted,
                }],
            }},
        }},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "udm"}, "spec": {
            "selector": labels, "ports": [{"port": 9979}],
        }},
    ]}))
}
