//! `cargo xtask bench`: what Headstart takes, beside what JetStream alone takes for the same bytes on the same machine
//! in the same minutes.
//!
//! ```text
//!  rows/*  ──► Installation (real processes, a folder on the disk) ◄── http (a cheap client)
//!     │                                                            ◄── raw  (JetStream alone)
//!     └──► measure (medians, ratios, aims) ──► table ──► docs/benchmarks.md
//! ```
//!
//! Everything runs on loopback; processes and folders go when the program ends, however it ends.

mod http;
mod installation;
mod measure;
mod payload;
mod process;
mod raw;
mod rows;
mod stand_in;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use installation::Programs;
use rows::{Bench, GROUPS};

/// Measures and writes the table.
#[derive(Parser)]
struct Arguments {
    /// Program `headstart`, built for release
    #[arg(long)]
    headstart: PathBuf,
    /// Program `nats-server`
    #[arg(long)]
    nats_server: PathBuf,
    /// Program `stand-in-udm`
    #[arg(long)]
    stand_in: PathBuf,
    /// Dump of a directory for prefills, some ten thousand users
    #[arg(long)]
    dump: PathBuf,
    /// Folder on a disk for what the installations keep
    #[arg(long)]
    folder: PathBuf,
    /// Page to write the table into; without it, it is only shown
    #[arg(long)]
    page: Option<PathBuf>,
    /// A trial: fewer runs of smaller amounts
    #[arg(long)]
    quick: bool,
    /// Only these groups of rows
    #[arg(long, num_args = 1.., value_parser = GROUPS.map(|(name, _)| name))]
    only: Vec<String>,
}

// One thread: client and raw JetStream share two cores with what they measure.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run_until_interrupted(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run_until_interrupted(arguments: Arguments) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // What was started is ended when `run` is dropped.
    tokio::select! {
        done = run(arguments) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("interrupted"),
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let Arguments { headstart, nats_server, stand_in, dump, folder, page, quick, only } = arguments;
    let bench = Bench {
        programs: Programs { headstart, nats_server, stand_in, dump, folder },
        runs: if quick { 2 } else { 5 },
        quick,
        began: Instant::now(),
    };
    let mut groups = Vec::new();
    for (name, title) in GROUPS {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            bench.say(&format!("== {title}"));
            groups.push(bench.group(name).await.with_context(|| format!("measuring {name}"))?);
        }
    }
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let conditions = format!(
        "Median (least – most) of {} runs, on {cores} cores, {}, messages of {} bytes unless a row says otherwise.",
        bench.runs,
        version(&bench.programs.nats_server)?,
        payload::SIZE
    );
    let table = table::render(&conditions, &groups);
    println!("\n{table}");
    if let Some(page) = page {
        let text = std::fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
        let text =
            table::replace(&text, &table).with_context(|| format!("no markers in {}", page.display()))?;
        std::fs::write(&page, text)?;
        println!("written into {}", page.display());
    }
    bench.say("done");
    Ok(())
}

fn version(nats_server: &PathBuf) -> Result<String> {
    let output = std::process::Command::new(nats_server).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().replace("nats-server: v", "nats-server "))
}
