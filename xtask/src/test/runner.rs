//! Running a test runner: its output goes to the terminal line by line, and its results into the report.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::report::Report;
use crate::interrupt::Interrupt;

/// How long tests that were asked to end may take before they are killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Runs it to its end; tests that fail are no error but part of the report.
///
/// # Errors
/// It can't be started, or was interrupted.
pub fn run(runner: &mut Command, interrupt: &Interrupt, report: &mut Report) -> Result<()> {
    interrupt.check()?;
    // A group of its own: an interruption reaches us alone, and we end all that the tests started.
    let child = runner.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn();
    let mut child = child.with_context(|| format!("could not start {}", runner.get_program().display()))?;
    let output = BufReader::new(child.stdout.take().context("no output to read")?);
    let (status, lines) = thread::scope(|scope| {
        let results = scope.spawn(move || {
            let lines = output
                .split(b'\n')
                .map_while(Result::ok)
                .map(|line| String::from_utf8_lossy(&line).into_owned());
            lines
                .inspect(|line| println!("{line}"))
                .filter(|line| Report::is_result(line))
                .collect::<Vec<_>>()
        });
        let status = wait(&mut child, interrupt);
        (status, results.join().unwrap_or_default())
    });
    report.results(lines, status?.success());
    interrupt.check()
}

/// Waits for it; when interrupted, asks it and all in its group to end, and soon makes them.
fn wait(child: &mut Child, interrupt: &Interrupt) -> Result<ExitStatus> {
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            if asked.is_some() {
                signal(child, Signal::KILL);
            }
            return Ok(status);
        }
        if interrupt.asked() {
            let since = *asked.get_or_insert_with(Instant::now);
            signal(child, if since.elapsed() < END_WITHIN { Signal::TERM } else { Signal::KILL });
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        // Nobody left to signal is as good.
        kill_process_group(group, signal).ok();
    }
}
