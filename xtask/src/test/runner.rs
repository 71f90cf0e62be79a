//! Running a test runner: its output goes to the terminal line by line, and its results into the report.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::report::Report;
use crate::interrupt::Interrupt;

/// How long tests that were asked to end may take before they are killed.
const END_WITHIN: Duration = Duration::from_secs(5);
/// After how long without a line of output the tests are taken to hang. cargo compiles for minutes without one, and a
/// single test takes a few minutes at most.
const SILENT_FOR: Duration = Duration::from_secs(20 * 60);

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
    let heard = Mutex::new((Instant::now(), String::new()));
    let (status, lines) = thread::scope(|scope| {
        let results = scope.spawn(|| {
            let lines = output
                .split(b'\n')
                .map_while(Result::ok)
                .map(|line| String::from_utf8_lossy(&line).into_owned());
            lines
                .inspect(|line| {
                    println!("{line}");
                    *lock(&heard) = (Instant::now(), line.clone());
                })
                .filter(|line| Report::is_result(line))
                .collect::<Vec<_>>()
        });
        let status = wait(&mut child, interrupt, &heard);
        (status, results.join().unwrap_or_default())
    });
    let Ended { status, hung } = status?;
    if let Some(last) = hung {
        report.failed(&format!(
            "nothing was heard for {SILENT_FOR:?}, and the tests were ended; the last line: {last}"
        ));
    }
    report.results(lines, status.success());
    interrupt.check()
}

/// How a runner ended.
struct Ended {
    status: ExitStatus,
    /// It was ended because nothing was heard of it: the last line that was.
    hung: Option<String>,
}

/// When something was heard last, and what.
type Heard = Mutex<(Instant, String)>;

fn lock(heard: &Heard) -> MutexGuard<'_, (Instant, String)> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for it; when interrupted or when nothing is heard of it, asks it and all in its group to end, and soon makes
/// them.
fn wait(child: &mut Child, interrupt: &Interrupt, heard: &Heard) -> Result<Ended> {
    let mut asked: Option<Instant> = None;
    let mut hung = None;
    loop {
        if let Some(status) = child.try_wait()? {
            if asked.is_some() {
                signal(child, Signal::KILL);
            }
            return Ok(Ended { status, hung });
        }
        if hung.is_none() && lock(heard).0.elapsed() > SILENT_FOR {
            hung = Some(lock(heard).1.clone());
        }
        if interrupt.asked() || hung.is_some() {
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
