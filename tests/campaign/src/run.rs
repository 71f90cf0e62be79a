//! One run: everything started, the plan carried out, everything healed, drained and checked.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use stand_in_udm::{Directory, Faults, StandIn};
use tokio::sync::Mutex;

use crate::{
    checker::{self, Tally, Violation},
    client::Api,
    consumers::{Consumer, Ending},
    history::{Event, Recorder},
    nemesis::Nemesis,
    plan::{Plan, Profile, Reading},
    processes::{ALL, Processes, Programs},
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
    let processes = Processes::new(programs, folder, udm.base_url())?;
    let api = Api::new(processes.api_urls())?;
    let processes = Arc::new(Mutex::new(processes));
    {
        let mut processes = processes.lock().await;
        ALL.into_iter().try_for_each(|target| processes.start(target))?;
    }
    let deadline = Instant::now() + STARTS_WITHIN;
    while !(api.ready(0).await && api.ready(1).await) {
        ensure!(
            Instant::now() < deadline,
            "the API does not get ready; see {}",
            folder.join("logs").display()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let readings = readings(&api).await;
    let length_ms = u64::try_from(settings.length.as_millis()).unwrap_or(u64::MAX);
    let plan = Plan::new(settings.seed, settings.profile, length_ms, &readings);
    std::fs::write(folder.join("plan.json"), serde_json::to_string_pretty(&plan)?)?;
    udm.faults().set(Faults { get_delay_ms: plan.get_delay_ms, ..Faults::default() });

    let recorder = Recorder::new(&folder.join("history.jsonl"))?;
    let nemesis = Nemesis::new(Arc::clone(&processes), recorder.clone());
    let campaign = play(&plan, directory, &api, &recorder, &nemesis, &processes);
    let mut interrupted = false;
    let watch = watch(&recorder, settings.stop_at_violation);
    let ended = tokio::select! {
        played = campaign => { played?; true }
        () = interrupt => { interrupted = true; false }
        () = watch => false,
        () = nemesis.supervise() => false,
    };
    let history = recorder.records();
    let violations = checker::check(&history, ended);
    Ok(Report { tally: Tally::of(&history), violations, took: began.elapsed(), interrupted })
}

/// How consumers may read, by what the API offers.
async fn readings(api: &Api) -> Vec<Reading> {
    let mut readings = vec![Reading::Single];
    if api.has_route("/v1/subscriptions/{name}/messages/acknowledgements").await {
        readings.push(Reading::Batch);
        if api.has_route("/v1/subscriptions/{name}/messages/stream").await {
            readings.push(Reading::Stream);
        }
    }
    readings
}

async fn play(
    plan: &Plan,
    directory: Directory,
    api: &Api,
    recorder: &Recorder,
    nemesis: &Nemesis,
    processes: &Mutex<Processes>,
) -> Result<()> {
    let mut workload = Workload::new(plan, directory, api.clone(), recorder.clone())?;
    let ending: Arc<Ending> = Arc::default();
    // Dropped on an early end, and with it all consumers.
    let mut consumers = tokio::task::JoinSet::new();
    for consumer in &plan.consumers {
        let consumer = Consumer::new(consumer.clone(), api.clone(), recorder.clone(), Arc::clone(&ending));
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
    tokio::time::timeout(DRAINS_WITHIN, drained).await.ok();
    Ok(())
}

/// Tells how it goes; ends when there is a violation, if asked to.
async fn watch(recorder: &Recorder, stop_at_violation: bool) {
    let told = StdMutex::new(0);
    loop {
        tokio::time::sleep(STATUS_EVERY).await;
        let history = recorder.records();
        let violations = checker::check(&history, false);
        println!("{:>5} s: {}", recorder.now() / 1_000_000, Tally::of(&history));
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        for violation in violations.iter().skip(*told) {
            println!("        {violation}");
        }
        *told = violations.len().max(*told);
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
            Event::Fault { what } => Some(format!("{:>9.3} s  {what}", seconds(record.end))),
            _ => None,
        })
        .collect()
}

fn seconds(moment: u64) -> f64 {
    Duration::from_micros(moment).as_secs_f64()
}
