//! `campaign`: runs one plan, or checks a history that one left behind. `cargo xtask campaign` builds and calls it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use campaign::{
    checker::{self, Tally},
    history,
    plan::{Plan, Profile, Reading},
    run::{self, Settings},
};
use clap::Parser;

/// The crash campaign: real processes and whatever may happen to them, and a checker that reads the whole history.
///
/// It does not cover several NATS servers, power cuts, full disks and queues, Kubernetes, changed topics, cancelled
/// prefills, objects that NATS does not carry, clocks that jump, and networks that lose packets.
#[derive(Debug, Parser)]
#[command(name = "campaign")]
struct Arguments {
    /// Seed of the plan.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long changes and faults go on; draining comes after it.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// What the plan aims at.
    #[arg(long, value_enum, default_value = "general")]
    profile: Profile,
    /// The program under test.
    #[arg(long, default_value = "target/debug/headstart")]
    binary: PathBuf,
    /// nats-server.
    #[arg(long, env = "HEADSTART_NATS_SERVER", default_value = "target/tools/nats-server")]
    nats_server: PathBuf,
    /// Where history, logs and store of runs are kept; removed after a run without violations.
    #[arg(long, default_value = "target/campaign")]
    folder: PathBuf,
    /// Commit of the program, for the report.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Print the plan and do nothing.
    #[arg(long)]
    plan: bool,
    /// End at the first violation.
    #[arg(long)]
    stop_at_violation: bool,
    /// Check a history instead.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match campaign(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn campaign(arguments: Arguments) -> Result<ExitCode> {
    if let Some(file) = &arguments.check {
        let history = history::read(file).with_context(|| format!("can't read {}", file.display()))?;
        // One that was broken off says nothing of queues that stop.
        let ended = history.iter().any(|record| matches!(record.event, history::Event::Drained { .. }));
        let violations = checker::check(&history, ended);
        println!("{}", Tally::of(&history));
        violations.iter().for_each(|violation| println!("{violation}"));
        return Ok(ExitCode::from(u8::from(!violations.is_empty())));
    }
    let length = Duration::try_from_secs_f64(arguments.minutes * 60.0).context("--minutes")?;
    let (seed, profile) = (arguments.seed, arguments.profile);
    if arguments.plan {
        let length_ms = u64::try_from(length.as_millis())?;
        let all = [Reading::Single, Reading::Batch, Reading::Stream];
        println!("{}", serde_json::to_string_pretty(&Plan::new(seed, profile, length_ms, &all))?);
        return Ok(ExitCode::SUCCESS);
    }
    let folder = std::path::absolute(&arguments.folder)?.join(format!("{}-{seed}", std::process::id()));
    let settings = Settings {
        seed,
        profile,
        length,
        headstart: std::path::absolute(&arguments.binary)?,
        nats_server: arguments.nats_server.clone(),
        folder: folder.clone(),
        stop_at_violation: arguments.stop_at_violation,
    };
    let name = serde_json::to_value(profile)?;
    let profile = name.as_str().unwrap_or_default();
    println!("seed {seed}, profile {profile}, commit {}, run in {}", arguments.commit, folder.display());
    println!("again: cargo xtask campaign --seed {seed} --minutes {} --profile {profile}", arguments.minutes);
    let report = run::run(&settings, interrupted()).await?;
    println!("{:>5} s: {}", report.took.as_secs(), report.tally);
    for violation in &report.violations {
        println!("VIOLATION {violation}");
    }
    if report.violations.is_empty() {
        std::fs::remove_dir_all(&folder).ok();
        println!("{} violations", if report.interrupted { "interrupted; so far no" } else { "no" });
        return Ok(ExitCode::from(if report.interrupted { 130 } else { 0 }));
    }
    println!("{} violations; history, plan and logs are in {}", report.violations.len(), folder.display());
    Ok(ExitCode::FAILURE)
}

/// Ctrl-C or SIGTERM.
async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
