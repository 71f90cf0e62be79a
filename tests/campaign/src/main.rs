//! `campaign`: runs one plan, or checks a history that one left behind. `cargo xtask campaign` builds and calls it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use campaign::{
    checker::{self, Rules, Tally},
    history,
    plan::{Plan, Profile, Shortening},
    run::{self, Settings},
};
use clap::Parser;

/// The crash campaign: real processes and whatever may happen to them, and a checker that reads the whole history.
///
/// It does not cover several NATS servers, power cuts, full disks and queues, Kubernetes, and clocks that jump.
///
/// It ends with 0, with 1 if a promise was broken, with 2 if it could not run, and with 3 if it found nothing but reached
/// too little of what it is there to try.
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
    /// Carry out a plan that was kept (plan.json), perhaps with some of it left out by hand.
    #[arg(long, value_name = "FILE")]
    plan_file: Option<PathBuf>,
    /// Run this plan, which found something, again and again with ever fewer faults, as long as it finds the same; the
    /// shortest one is written beside it.
    #[arg(long, value_name = "FILE")]
    shorten: Option<PathBuf>,
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
        let plan = file.with_file_name("plan.json");
        let plan = if plan.exists() { Some(read_plan(&plan)?) } else { None };
        let rules = Rules { leaves_out: plan.is_some_and(|plan| plan.reads_primary) };
        // One that was broken off says nothing of queues that stop.
        let violations = checker::check(&history, rules, false);
        println!("{}", Tally::of(&history));
        violations.iter().for_each(|violation| println!("{violation}"));
        return Ok(ExitCode::from(u8::from(!violations.is_empty())));
    }
    let length = Duration::try_from_secs_f64(arguments.minutes * 60.0).context("--minutes")?;
    let (seed, profile) = (arguments.seed, arguments.profile);
    if arguments.plan {
        let length_ms = u64::try_from(length.as_millis())?;
        println!("{}", serde_json::to_string_pretty(&Plan::new(seed, profile, length_ms))?);
        return Ok(ExitCode::SUCCESS);
    }
    let folder = std::path::absolute(&arguments.folder)?.join(format!("{}-{seed}", std::process::id()));
    let settings = Settings {
        plan: arguments.plan_file.as_deref().map(read_plan).transpose()?,
        seed,
        profile,
        length,
        headstart: std::path::absolute(&arguments.binary)?,
        nats_server: arguments.nats_server.clone(),
        folder: folder.clone(),
        stop_at_violation: arguments.stop_at_violation,
    };
    if let Some(file) = &arguments.shorten {
        return shorten(&settings, file).await;
    }
    let name = serde_json::to_value(profile)?;
    let profile = name.as_str().unwrap_or_default();
    println!("seed {seed}, profile {profile}, commit {}, run in {}", arguments.commit, folder.display());
    println!("again: cargo xtask campaign --seed {seed} --minutes {} --profile {profile}", arguments.minutes);
    let report = run::run(&settings, interrupted()).await?;
    println!("{:>5} s: {}", report.took.as_secs(), report.tally);
    for violation in &report.violations {
        println!("VIOLATION {violation}");
    }
    print!("{}", report.coverage);
    println!("the longest delivery took {} ms", report.judged.longest / 1000);
    if report.violations.is_empty() && !report.vacuous.is_empty() {
        report.vacuous.iter().for_each(|missed| println!("VACUOUS {missed}"));
        println!(
            "no violations, but the run proves little; history, plan and logs are in {}",
            folder.display()
        );
        return Ok(ExitCode::from(3));
    }
    if report.violations.is_empty() {
        std::fs::remove_dir_all(&folder).ok();
        println!("{} violations", if report.interrupted { "interrupted; so far no" } else { "no" });
        return Ok(ExitCode::from(if report.interrupted { 130 } else { 0 }));
    }
    println!("{} violations; history, plan and logs are in {}", report.violations.len(), folder.display());
    Ok(ExitCode::FAILURE)
}

/// Most runs of a shortening.
const TRIES: usize = 24;

async fn shorten(settings: &Settings, file: &Path) -> Result<ExitCode> {
    let plan = read_plan(file)?;
    let run = async |plan: Plan| {
        let settings = Settings { plan: Some(plan), stop_at_violation: true, ..settings.clone() };
        run::run(&settings, interrupted()).await
    };
    let Some(first) = run(plan.clone()).await?.violations.into_iter().next() else {
        println!("the plan finds nothing this time: the interleaving is the machine's");
        return Ok(ExitCode::FAILURE);
    };
    println!("{} faults find: {first}", plan.faults.len());
    let mut shortening = Shortening::new(plan, first.at / 1000);
    for _ in 0..TRIES {
        let Some(candidate) = shortening.candidate() else { break };
        let faults = candidate.faults.len();
        let report = run(candidate).await?;
        if report.interrupted {
            break;
        }
        let found = report.violations.iter().find(|violation| violation.promise == first.promise);
        println!("{faults} faults: {}", found.map_or("nothing".to_owned(), ToString::to_string));
        shortening.tried(found.is_some());
    }
    let shortest = file.with_extension("short.json");
    std::fs::write(&shortest, serde_json::to_string_pretty(shortening.plan())?)?;
    println!("{} faults are left in {}", shortening.plan().faults.len(), shortest.display());
    Ok(ExitCode::SUCCESS)
}

fn read_plan(file: &Path) -> Result<Plan> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no plan", file.display()))
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
