//! `cargo xtask check`: all that can be found wrong without running a test. Each gate is one function; all of them
//! run, also after one that failed.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::{commands, steps::step, tools, workspace};

mod links;
mod manifests;
mod words;

type Gate = fn() -> Result<()>;

/// The gates, in the order of their cost.
const GATES: [(&str, Gate); 8] = [
    ("format", format),
    ("manifests", manifests::check),
    ("words", words::check),
    ("links", links::check),
    ("snapshots", snapshots),
    ("chart", chart),
    ("clippy", clippy),
    ("dependencies", dependencies),
];

/// Runs the gates whose names contain one of the filters, or all.
///
/// # Errors
/// None: a gate that fails is reported, and decides the exit code.
pub fn run(filters: &[String]) -> Result<ExitCode> {
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, gate) in GATES {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        match step(name, gate) {
            Ok(()) => passed += 1,
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(name);
            }
        }
    }
    failed.iter().for_each(|name| println!("FAILED: {name}"));
    println!("check: {passed} gates passed, {} failed", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(arguments: &[&str]) -> Result<()> {
    commands::run(commands::cargo().args(arguments))
}

fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])
}

fn clippy() -> Result<()> {
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// A snapshot that differs and was neither accepted nor repaired.
fn snapshots() -> Result<()> {
    let pending = workspace::files(&["--others", "--", "*.snap.new"])?;
    if !pending.is_empty() {
        bail!("pending snapshots, see `cargo insta review`: {pending:?}");
    }
    Ok(())
}

/// Licences, duplicates and sources of all dependencies, as `deny.toml` wants them, and known vulnerabilities if
/// their list can be fetched.
fn dependencies() -> Result<()> {
    let cargo_deny = tools::cargo_deny()?;
    let deny = |arguments: &[&str]| {
        let mut deny = Command::new(&cargo_deny);
        deny.args(["--log-level", "warn", "--workspace"]).args(arguments).current_dir(workspace::root());
        deny
    };
    if commands::succeeds(&mut deny(&["fetch", "db"])) {
        commands::run(&mut deny(&["--offline", "check", "advisories"]))?;
    } else {
        println!("!! SKIPPED advisories: the list of known vulnerabilities could not be fetched");
    }
    commands::run(&mut deny(&["check", "licenses", "bans", "sources"]))
}

/// Helm takes the chart, with each set of values that its tests use.
fn chart() -> Result<()> {
    let chart = workspace::root().join("charts/headstart");
    if !chart.join("Chart.yaml").exists() {
        println!("!! SKIPPED: no chart yet");
        return Ok(());
    }
    let helm = tools::helm()?;
    for values in workspace::files(&["--", "tests/tests/chart/values/*.yaml"])? {
        let values = workspace::root().join(values);
        for command in [&["lint", "--strict"][..], &["template", "headstart"]] {
            commands::output(Command::new(&helm).args(command).arg("--values").arg(&values).arg(&chart))?;
        }
    }
    Ok(())
}
