//! Running other programs, with errors that name the program and show what it printed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Runs a program to its end, with its output on the terminal.
///
/// # Errors
/// The program could not be started, or did not end with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start {}", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a program to its end and gives its standard output; what it printed is shown only in the error.
///
/// # Errors
/// The program could not be started, or did not end with 0.
pub fn output(command: &mut Command) -> Result<String> {
    captured(command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end and gives all that it printed, on standard output and then on standard error.
///
/// # Errors
/// The program could not be started, or did not end with 0.
pub fn everything(command: &mut Command) -> Result<String> {
    captured(command).map(|output| printed(&output))
}

fn captured(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("could not start {}", line(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}:\n{}", line(command), output.status, printed(&output));
    }
    Ok(output)
}

fn printed(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part)).concat()
}

/// Whether a program runs and ends with 0; what it prints is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// cargo, in the workspace, as if it was called from a terminal: without what `cargo xtask` itself put into the
/// environment, for which some dependencies (ring) would be built anew at each change between the two.
pub fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let known = name.to_string_lossy();
        if known.starts_with("CARGO_PKG_") || known.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(workspace::root());
    cargo
}

/// Go, building programs without C. Its compiler collects garbage less often than by default, which takes more memory and
/// a tenth less processor time.
pub fn go() -> Command {
    let mut go = Command::new("go");
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOGC", "400");
    go
}

/// Where a program is found in `PATH`, also in the `sbin` folders that a user's `PATH` may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(program)).find(|candidate| candidate.is_file())
}

/// Opens a lock file, made if need be, without locking it.
///
/// # Errors
/// The file can't be made.
pub fn open_lock(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(path).with_context(|| format!("could not make {}", path.display()))
}

/// Locks a file until it is dropped or the process ends; waits for whoever has it.
///
/// # Errors
/// The file can't be made or locked.
pub fn lock_file(path: &Path) -> Result<File> {
    let file = open_lock(path)?;
    file.lock().with_context(|| format!("could not lock {}", path.display()))?;
    Ok(file)
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
