//! `cargo xtask check`: all that can be found wrong without running a test. Each gate is one function; all of them
//! run, also after one that failed.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::{commands, docs::summary, steps::step, tools, workspace};

pub mod links;
mod manifests;
mod modules;
mod publiccode;
mod words;

/// What a gate found; an error is that it failed.
enum Passed {
    Whole,
    /// But for a part that could not be looked at here, with the reason.
    But(&'static str),
}

type Gate = fn() -> Result<Passed>;

/// The gates, in the order of their cost.
const GATES: [(&str, Gate); 13] = [
    ("format", format),
    ("modules", || modules::check().map(|()| Passed::Whole)),
    ("manifests", || manifests::check().map(|()| Passed::Whole)),
    ("publiccode", || publiccode::check().map(|()| Passed::Whole)),
    ("words", || words::check().map(|()| Passed::Whole)),
    ("links", || links::check().map(|()| Passed::Whole)),
    ("summary", || summary::check().map(|()| Passed::Whole)),
    ("snapshots", snapshots),
    ("protocol", protocol),
    ("chart", chart),
    ("reference", reference),
    ("clippy", clippy),
    ("dependencies", dependencies),
];

/// Runs the gates whose names contain one of the filters, or all.
///
/// # Errors
/// None: a gate that fails is reported, and decides the exit code.
pub fn run(filters: &[String]) -> Result<ExitCode> {
    let (mut failed, mut skipped) = (Vec::new(), Vec::new());
    let mut passed = 0;
    for (name, gate) in GATES {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        match step(name, gate) {
            Ok(found) => {
                passed += 1;
                if let Passed::But(part) = found {
                    skipped.push(format!("{name}: {part}"));
                }
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(name);
            }
        }
    }
    failed.iter().for_each(|name| println!("FAILED: {name}"));
    skipped.iter().for_each(|part| println!("!! SKIPPED {part}"));
    println!("check: {passed} gates passed, {} failed, {} skipped in part", failed.len(), skipped.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(arguments: &[&str]) -> Result<()> {
    commands::run(commands::cargo().args(arguments))
}

fn format() -> Result<Passed> {
    cargo(&["fmt", "--all", "--check"])?;
    Ok(Passed::Whole)
}

fn clippy() -> Result<Passed> {
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    Ok(Passed::Whole)
}

/// The pages of `docs/reference` are what the code says. Tests compare them, or write them with `UPDATE_REFERENCE=1`; they
/// are those of the whole workspace, so that the tests of `cargo xtask test` use the same build.
fn reference() -> Result<Passed> {
    let arguments = ["test", "--quiet", "--workspace", "--lib", "--bins", "the_reference_of"];
    let printed = commands::output(commands::cargo().args(arguments))?;
    if !printed.contains("1 passed") {
        bail!("no test compares the reference with the code:\n{printed}");
    }
    Ok(Passed::Whole)
}

/// A snapshot that differs and was neither accepted nor repaired.
fn snapshots() -> Result<Passed> {
    let pending = workspace::files(&["--others", "--", "*.snap.new"])?;
    if !pending.is_empty() {
        bail!("pending snapshots, see `cargo insta review`: {pending:?}");
    }
    Ok(Passed::Whole)
}

/// Licences, duplicates and sources of all dependencies, as `deny.toml` wants them, and known vulnerabilities if
/// their list can be fetched.
fn dependencies() -> Result<Passed> {
    let cargo_deny = tools::cargo_deny()?;
    let deny = |arguments: &[&str]| {
        let mut deny = Command::new(&cargo_deny);
        deny.args(["--log-level", "warn", "--workspace"]).args(arguments).current_dir(workspace::root());
        deny
    };
    commands::run(&mut deny(&["check", "licenses", "bans", "sources"]))?;
    if !commands::succeeds(&mut deny(&["fetch", "db"])) {
        return Ok(Passed::But("the list of known vulnerabilities could not be fetched"));
    }
    commands::run(&mut deny(&["--offline", "check", "advisories"]))?;
    Ok(Passed::Whole)
}

/// The models of the protocol: each of the small scenarios is sound with all rules, and broken without any of them. The
/// large ones take minutes: `python3 tests/protocol/model.py` and `direct.py`.
fn protocol() -> Result<Passed> {
    const MODELS: [(&str, &[&str]); 2] =
        [("model.py", &["S1", "S2b", "S3", "S6", "S10", "R1", "R2", "R3"]), ("direct.py", &["--quick"])];
    let Some(python) = commands::find("python3") else {
        return Ok(Passed::But("no python3 that could run the models"));
    };
    for (model, arguments) in MODELS {
        let model = workspace::root().join("tests/protocol").join(model);
        commands::output(Command::new(&python).arg("-B").arg(model).args(arguments))?;
    }
    Ok(Passed::Whole)
}

/// Helm accepts the chart, with each set of values that its tests use, and those that are beside it.
fn chart() -> Result<Passed> {
    let chart = workspace::root().join("charts/headstart");
    let helm = tools::helm()?;
    for values in
        workspace::files(&["--", "tests/tests/chart/values/*.yaml", "charts/headstart/values-*.yaml"])?
    {
        let values = workspace::root().join(values);
        for command in [&["lint", "--strict"][..], &["template", "headstart"]] {
            commands::output(Command::new(&helm).args(command).arg("--values").arg(&values).arg(&chart))?;
        }
    }
    Ok(Passed::Whole)
}
