//! The programs of the cluster, built by Go from the modules that `tests/cluster` pins.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{commands, image, tools, workspace};

/// Kubernetes as `tests/cluster/go.mod` requires it. Kubelet 1.34 is the last that is easy on machines with
/// cgroup v1 and with Debian 12's containerd 1.6.
const KUBERNETES: &str = "v1.34.4";

/// CoreDNS, whose requirements do not go together with those of Kubernetes.
const COREDNS: &str = "github.com/coredns/coredns@v1.12.4";

/// The folder of the cluster's programs and of the archive of its sandbox image, `pause.tar`.
pub struct Binaries(pub PathBuf);

/// Builds the programs, and gets Helm, if this set of versions was not built before. It is built in a folder beside and renamed at
/// its end, so that a build which broke off is never taken for complete.
///
/// # Errors
/// Go is missing or fails.
pub fn build() -> Result<Binaries> {
    let all = workspace::target().join("cluster/bin");
    fs::create_dir_all(&all)?;
    let _lock = commands::lock_file(&all.join("lock"))?;
    let finished = all.join(versions()?);
    if !finished.exists() {
        if commands::find("go").is_none() {
            bail!(
                "Go is needed to build the test cluster and is not in PATH: install it from https://go.dev/dl"
            );
        }
        let unfinished = all.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir(&unfinished)?;
        build_into(&unfinished)?;
        fs::rename(&unfinished, &finished)?;
    }
    link(&tools::helm()?, &finished.join("helm"))?;
    Ok(Binaries(finished))
}

fn link(tool: &Path, place: &Path) -> Result<()> {
    if fs::read_link(place).is_ok_and(|linked| linked == tool) {
        return Ok(());
    }
    match fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => symlink(tool, place)?,
    }
    Ok(())
}

/// Whether [`build`] would have nothing to do.
pub fn built() -> Result<bool> {
    Ok(workspace::target().join("cluster/bin").join(versions()?).exists())
}

/// A folder's name that is another one for every other set of programs.
fn versions() -> Result<String> {
    let mut hash = DefaultHasher::new();
    (KUBERNETES, COREDNS, FLAGS).hash(&mut hash);
    let source = source();
    for file in ["go.mod", "go.sum", "pause/main.go", "config/pause.Containerfile"] {
        fs::read(source.join(file)).with_context(|| format!("tests/cluster/{file}"))?.hash(&mut hash);
    }
    Ok(format!("kubernetes-{KUBERNETES}-{:016x}", hash.finish()))
}

fn source() -> PathBuf {
    workspace::root().join("tests/cluster")
}

/// Smaller, and the same wherever it is built.
const FLAGS: [&str; 3] = ["-trimpath", "-ldflags", "-s -w"];

fn build_into(bin: &Path) -> Result<()> {
    println!("building the programs of the test cluster, once (5 to 10 minutes on 2 cores)");
    let folder = format!("{}/", bin.display());
    step(
        "kubernetes",
        go(bin).args(["build", "-trimpath", "-ldflags", &kubernetes_flags()]).args(["-o", &folder]).args(
            [
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            ]
            .map(|name| format!("k8s.io/kubernetes/cmd/{name}")),
        ),
    )?;
    step(
        "etcd",
        go(bin).arg("build").args(FLAGS).args(["-o", &format!("{folder}etcd"), "go.etcd.io/etcd/server/v3"]),
    )?;
    step("pause", go(bin).arg("build").args(FLAGS).args(["-o", &folder, "./pause"]))?;
    step("coredns", go(bin).arg("install").args(FLAGS).arg(COREDNS))?;
    let archive =
        image::build_archive("localhost/pause:dev", &source().join("config/pause.Containerfile"), bin)?;
    fs::copy(archive.path(), bin.join("pause.tar"))?;
    Ok(())
}

fn go(bin: &Path) -> Command {
    let mut go = commands::go();
    go.current_dir(source()).env("GOBIN", bin);
    go
}

fn step(name: &str, command: &mut Command) -> Result<()> {
    let begun = Instant::now();
    commands::output(command)?;
    println!("  {name}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Kubernetes asks for its version at link time; without it, kubelet and apiserver find each other too old.
fn kubernetes_flags() -> String {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES} -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor={minor} -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}"
    )
}
