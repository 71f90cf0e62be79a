//! One run: everything started, the plan carried out, everything healed, drained and checked.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use stand_in_udm::{Directory, Faults, StandIn};
use tokio::sync::Mutex;

use crate::{
    checker::{self, Judged, Rules, Tally, Violation},
    client::Api,
    consumers::{Consumer, Ending},
    coverage::Coverage,
    history::{Event, Outcome, Record, Recorder},
    inside::Inside,
    nemesis::Nemesis,
    plan::{Plan, Profile},
    processes::{Processes, Programs},
    workload::Workload,
};

/// How long everything may take to start. Others may use the machine.
const STARTS_WITHIN: Duration = Duration::from_secs(90);
/// How long queues may take to drain once everything is well again.
const DRAINS_WITHIN: Duration = Duration::from_secs(120);
/// How often the state is told.
const STATUS_EVERY: Duration = Duration::from_secs(15);

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A plan that was kept, instead of that of a seed.
    pub plan: Option<Plan>,
    /// Seed of the plan.
    pub seed: u64,
    /// What it aims at.
    pub profile: Profile,
    /// How long changes and faults go on.
    pub length: Duration,
    /// The program under test.
    pub headstart: PathBuf,
    /// The server.
    pub nats_server: PathBuf,
    /// Where history, logs and store are kept.
    pub folder: PathBuf,
    /// End as soon as the history shows a violation.
    pub stop_at_violation: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was done.
    pub tally: Tally,
    /// How much of it was judged.
    pub judged: Judged,
    /// What it reached.
    pub coverage: Coverage,
    /// What it should have reached, and did not.
    pub vacuous: Vec<String>,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// How long it took.
    pub took: Duration,
    /// Was it broken off?
    pub interrupted: bool,
}

/// Runs a plan. `interrupt` breaks it off; what was started is ended in any case.
///
/// # Errors
/// Something could not be started; what is found is no error.
pub async fn run(settings: &Settings, interrupt: impl Future<Output = ()>) -> Result<Report> {
    let began = Instant::now();
    let folder = &settings.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let directory = Directory::empty();
    let udm = StandIn::start(directory.clone(), Faults::default()).await?;
    let programs =
        Programs { headstart: settings.headstart.clone(), nats_server: settings.nats_server.clone() };
    let mut processes = Processes::new(programs, folder, udm.base_url())?;
    let api = Api::new(processes.api_urls())?;
    let length_ms = u64::try_from(settings.length.as_millis()).unwrap_or(u64::MAX);
    let plan = match &settings.plan {
        Some(plan) => plan.clone(),
        None => Plan::new(settings.seed, settings.profile, length_ms),
    };
    std::fs::write(folder.join("plan.json"), serde_json::to_string_pretty(&plan)?)?;
    processes.set_up(&plan).await;
    let inside = Inside::new(processes.nats_url());
    let processes = Arc::new(Mutex::new(processes));
    processes.lock().await.start_all()?;
    let deadline = Instant::now() + STARTS_WITHIN;
    while !(api.ready(0).await && api.ready(1).await) {
        ensure!(
            Instant::now() < deadline,
            "the API does not get ready; see {}",
            folder.join("logs").display()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    udm.faults().set(Faults { get_delay_ms: plan.get_delay_ms, ..Faults::default() });

    let recorder = Recorder::new(&folder.join("history.jsonl"))?;
    let nemesis = Nemesis::new(Arc::clone(&processes), udm.faults().clone(), api.clone(), recorder.clone());
    let campaign = play(&plan, directory, &api, &recorder, &nemesis, &processes, &inside);
    let mut interrupted = false;
    let rules = Rules { leaves_out: plan.reads_primary };
    let watch = watch(&recorder, rules, settings.stop_at_violation);
    let ended = tokio::select! {
        played = campaign => { played?; true }
        () = interrupt => { interrupted = true; false }
        () = watch => false,
        () = nemesis.supervise() => false,
    };
    let history = recorder.records();
    let (violations, judged) = checker::judge(&history, rules, ended);
    let coverage = Coverage::of(&history, &judged, folder);
    // A plan that was shortened is there to find one thing.
    let whole = ended && settings.plan.is_none();
    let vacuous = if whole { coverage.vacuous(plan.profile, settings.length) } else { Vec::new() };
    Ok(Report {
        tally: Tally::of(&history),
        judged,
        coverage,
        vacuous,
        violations,
        took: began.elapsed(),
        interrupted,
    })
}

async fn play(
    plan: &Plan,
    directory: Directory,
    api: &Api,
    recorder: &Recorder,
    nemesis: &Nemesis,
    processes: &Mutex<Processes>,
    inside: &Inside,
) -> Result<()> {
    let mut workload = Workload::new(plan, directory, api.clone(), recorder.clone())?;
    let ending: Arc<Ending> = Arc::default();
    // Dropped on an early end, and with it all consumers.
    let mut consumers = tokio::task::JoinSet::new();
    for consumer in &plan.consumers {
        let consumer = Consumer::new(
            consumer.clone(),
            api.clone(),
            recorder.clone(),
            inside.clone(),
            Arc::clone(&ending),
        );
        consumers.spawn(consumer.run());
    }
    let faults = async {
        nemesis.run(plan).await;
        recorder.fault("everything is healed");
        processes.lock().await.heal()
    };
    tokio::try_join!(workload.run(plan), faults)?;
    ending.closing.store(true, Ordering::SeqCst);
    let settled = async {
        while ending.settled.load(Ordering::SeqCst) < plan.consumers.len() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DRAINS_WITHIN, settled).await.ok();
    let numbers = tokio::time::timeout(DRAINS_WITHIN, workload.finish()).await;
    *ending.last.lock().unwrap_or_else(PoisonError::into_inner) = numbers.ok().transpose()?;
    // Whoever is not done by then has stopped: the checker sees that it has not drained.
    let drained = async { while consumers.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAINS_WITHIN, drained).await.is_ok() {
        let all: Vec<String> = plan.consumers.iter().map(|consumer| consumer.name.clone()).collect();
        for what in inside.left(&all, &registered(&recorder.records())).await {
            recorder.note(recorder.now(), Event::Left { what });
        }
    }
    recorder.note(recorder.now(), Event::Ended);
    Ok(())
}

/// The consumers that are registered at the end.
fn registered(history: &[Record]) -> Vec<String> {
    let mut there = BTreeSet::new();
    for record in history {
        match &record.event {
            Event::Registered { life, outcome: Outcome::Done | Outcome::Already, .. } => {
                there.insert(life.consumer.clone());
            }
            Event::Removed { life, outcome: Outcome::Done | Outcome::Missing } => {
                there.remove(&life.consumer);
            }
            _ => {}
        }
    }
    there.into_iter().collect()
}

/// Tells how it goes; ends when there is a violation, if asked to.
async fn watch(recorder: &Recorder, rules: Rules, stop_at_violation: bool) {
    let mut told = HashSet::new();
    loop {
        tokio::time::sleep(STATUS_EVERY).await;
        let history = recorder.records();
        println!("{:>5} s: {}", recorder.now() / 1_000_000, Tally::of(&history));
        // A thread of its own: consumers must not wait for it.
        let checking = tokio::task::spawn_blocking(move || checker::check(&history, rules, false));
        let violations = checking.await.unwrap_or_default();
        for violation in &violations {
            let text = violation.to_string();
            if !told.contains(&text) {
                println!("        {text}");
                told.insert(text);
            }
        }
        if stop_at_violation && !violations.is_empty() {
            return;
        }
    }
}

/// What ended by itself, for people.
#[must_use]
pub fn faults(history: &Path) -> Vec<String> {
    let records = crate::history::read(history).unwrap_or_default();
    records
        .into_iter()
        .filter_map(|record| match record.event {
            Event::Fault { what, .. } => Some(format!("{:>9.3} s  {what}", seconds(record.end))),
            _ => None,
        })
        .collect()
}

fn seconds(moment: u64) -> f64 {
    Duration::from_micros(moment).as_secs_f64()
}
