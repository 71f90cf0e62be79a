//! A namespace of a test's own, labelled for Pod Security "restricted".

use std::{
    ffi::OsStr,
    io::Write,
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::eventually;

/// The label of all that tests make beside their namespaces' content: by it, what a killed run leaves in a cluster that
/// is not our own is found (`tests/cluster/README.md`).
pub const OF_TESTS: &str = "headstart.test/made-by=tests";

/// A namespace that goes away with the test.
pub struct Namespace {
    /// Its name.
    pub name: String,
    volumes: Vec<(String, tempfile::TempDir)>,
}

impl Namespace {
    /// Makes a namespace.
    ///
    /// # Errors
    /// There is no cluster: the tests are meant to be run by `cargo xtask test`.
    pub fn create(test: &str) -> Result<Self> {
        let name = format!("{test}-{}", &uuid::Uuid::new_v4().simple().to_string()[..6]);
        let namespace = Self { name, volumes: Vec::new() };
        cluster_kubectl(&["create", "namespace", &namespace.name])?;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        cluster_kubectl(&["label", "namespace", &namespace.name, restricted, OF_TESTS])?;
        Ok(namespace)
    }

    /// Runs kubectl in the namespace and answers what it prints.
    ///
    /// # Errors
    /// It fails; the error holds what it says.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = Command::new(program("HEADSTART_KUBECTL"));
        run(command.args(["--namespace", &self.name]).args(arguments), None)
    }

    /// Reads objects as JSON.
    ///
    /// # Errors
    /// kubectl fails.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("what kubectl printed")
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// kubectl fails.
    pub fn apply(&self, manifests: &Value) -> Result<()> {
        self.apply_with(manifests, &[])
    }

    /// Applies manifests with further options of kubectl.
    ///
    /// # Errors
    /// kubectl fails.
    pub fn apply_with(&self, manifests: &Value, options: &[&str]) -> Result<()> {
        let mut command = Command::new(program("HEADSTART_KUBECTL"));
        command.args(["--namespace", &self.name, "apply", "-f", "-"]).args(options);
        run(&mut command, Some(&manifests.to_string())).map(drop)
    }

    /// Makes a quota named `none` and waits until the API server keeps to it: the quota controller counts first, and
    /// until then as much may be made as somebody wants. `refused` is what it refuses, if that is not just any pod.
    ///
    /// # Errors
    /// It is not kept.
    pub async fn quota(&self, hard: &str, refused: Option<&Value>) -> Result<()> {
        self.kubectl(&["create", "quota", "none", &format!("--hard={hard}")])?;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {
            "containers": [{"name": "probe", "image": "none", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        }});
        let refused = refused.unwrap_or(&pod);
        eventually("the quota to be kept", Duration::from_secs(60), async || {
            let Err(error) = self.apply_with(refused, &["--dry-run=server"]) else { bail!("it is not") };
            ensure!(error.to_string().contains("exceeded quota"), "{error:#}");
            Ok(())
        })
        .await
    }

    /// Runs helm in the namespace.
    ///
    /// # Errors
    /// It fails; the error holds what it says.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("HEADSTART_HELM"));
        run(command.args(["--namespace", &self.name]).args(arguments), None)
    }

    /// Gives a claim a volume that outlives its pod. Our own cluster has no storage class; a given one is expected to.
    ///
    /// # Errors
    /// The folder or the volume can't be made.
    pub fn volume(&mut self, claim: &str) -> Result<()> {
        if std::env::var_os("HEADSTART_TEST_KUBECONFIG").is_some() {
            return Ok(());
        }
        let folder = tempfile::Builder::new().prefix("headstart-volume-").tempdir_in("/var/tmp")?;
        // The pod's user is not ours.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), mode)?;
        let name = format!("{}-{claim}", self.name);
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": self.name, "name": claim},
                "hostPath": {"path": folder.path(), "type": "Directory"},
            },
        }))?;
        self.volumes.push((name, folder));
        Ok(())
    }

    /// Prints what happened here, for a test that fails.
    fn explain(&self) {
        for arguments in [
            &["get", "all,configmaps,events", "-o", "wide"][..],
            &["describe", "jobs"],
            &[
                "logs",
                "--all-containers",
                "--prefix",
                "--tail=60",
                "-l",
                "app.kubernetes.io/part-of=headstart",
            ],
        ] {
            let text = self.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
            eprintln!("--- kubectl {}\n{text}", arguments.join(" "));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() || crate::IN_VAIN.swap(false, Ordering::Relaxed) {
            self.explain();
        }
        if std::env::var_os("KEEP").is_some_and(|keep| keep == "1") {
            for (_, folder) in self.volumes.drain(..) {
                // The volume stays, too.
                drop(folder.keep());
            }
            return;
        }
        // The pods are to be gone before their folders are; what has none need not be waited for.
        let wait = if self.volumes.is_empty() { "--wait=false" } else { "--timeout=120s" };
        let gone = cluster_kubectl(&["delete", "namespace", &self.name, wait]);
        let volumes =
            self.volumes.iter().map(|(name, _)| cluster_kubectl(&["delete", "pv", name, "--wait=false"]));
        for failed in std::iter::once(gone).chain(volumes).filter_map(Result::err) {
            eprintln!("cleaning up {}: {failed:#}", self.name);
        }
    }
}

fn cluster_kubectl(arguments: &[&str]) -> Result<String> {
    run(Command::new(program("HEADSTART_KUBECTL")).args(arguments), None)
}

fn program(variable: &str) -> String {
    let name = variable.trim_start_matches("HEADSTART_").to_ascii_lowercase();
    std::env::var(variable).unwrap_or(name)
}

fn run(command: &mut Command, input: Option<&str>) -> Result<String> {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what}: run the cluster's tests by `cargo xtask test`"))?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{what}: {}{text}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}
