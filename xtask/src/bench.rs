//! `cargo xtask bench`: builds for release, makes a dump, measures, and writes the table into `docs/benchmarks.md`.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{commands, interrupt::Interrupt, tools, workspace};

/// Where the table stands.
const PAGE: &str = "docs/benchmarks.md";
/// Users in the dump: a prefill of them takes long enough to be killed in its midst.
const USERS: &str = "20000";

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// A trial of three minutes: fewer runs of smaller amounts, shown only
    #[arg(long)]
    quick: bool,
    /// Only these groups of rows, shown only
    #[arg(long, value_name = "ROW", num_args = 1..)]
    only: Vec<String>,
}

/// Measures.
///
/// # Errors
/// Something could not be built or measured.
pub fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    let nats_server = tools::nats_server()?;
    println!("building for release (the first time takes some minutes)");
    // headstart alone, so that it has the features of the product and no more.
    for packages in [&["--package=headstart"][..], &["--package=bench", "--package=stand-in-udm"]] {
        commands::run(commands::cargo().args(["build", "--release"]).args(packages))?;
        interrupt.check()?;
    }
    let release = workspace::target().join("release");
    // In the target folder, since a temporary one may be in memory, where a sync costs nothing.
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(workspace::target())?;
    let dump = folder.path().join("directory.jsonl");
    write_dump(&release.join("stand-in-udm"), &dump)?;

    let mut bench = Command::new(release.join("bench"));
    bench.arg("--headstart").arg(release.join("headstart"));
    bench.arg("--stand-in").arg(release.join("stand-in-udm"));
    bench.arg("--nats-server").arg(&nats_server).arg("--dump").arg(&dump).arg("--folder").arg(folder.path());
    if args.quick {
        bench.arg("--quick");
    }
    if !args.only.is_empty() {
        bench.arg("--only").args(&args.only);
    }
    // A part of a table, or one of a trial, must not stand on the page as if it was whole.
    if !args.quick && args.only.is_empty() {
        bench.arg("--page").arg(workspace::root().join(PAGE));
    }
    let mut child = bench.stdin(Stdio::null()).spawn().context("could not start bench")?;
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("bench ended with {status}");
            }
            return Ok(ExitCode::SUCCESS);
        }
        if interrupt.asked() && !asked {
            asked = true;
            // It ends what it started; Ctrl-C has reached it already, a signal to us alone has not.
            if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                kill_process(pid, Signal::TERM).ok();
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn write_dump(stand_in: &Path, dump: &Path) -> Result<()> {
    let file = File::create(dump).with_context(|| format!("could not write {}", dump.display()))?;
    let mut command = Command::new(stand_in);
    command.args(["dump", "--users", USERS, "--groups", "10", "--photos-per-mille", "0"]).stdout(file);
    commands::run(&mut command)?;
    println!("a directory of {USERS} users: {} bytes", fs::metadata(dump)?.len());
    Ok(())
}
