//! Memory and CPU of each process: idle, with waiting polls, and under load.

use std::time::Duration;

use anyhow::Result;
use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep};

use super::{Bench, load};
use crate::{
    installation::Installation,
    measure::{Aim, Row, Run},
    process::{Process, Usage},
};

const TOPIC: &str = "bench/load";
const POLLS: usize = 8;
/// Aim for each component of ours; nats-server has none.
const RESIDENT_MIB: f64 = 15.0;

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let installation = Installation::start(&bench.programs).await?;
    let (controller, _) = installation.start_more("controller", "controller").await?;
    let (worker, _) = installation.start_more("worker", "worker").await?;
    let processes = [&installation.nats, &installation.api, &installation.dispatcher, &controller, &worker];
    let names: Vec<String> = (0..POLLS).map(|n| format!("poll{n}")).collect();
    installation.register(&names, "bench/none").await?;
    installation.register(&["load".to_owned()], TOPIC).await?;
    // The first request of a consumer costs a hash: not what an idle process does.
    for name in &names {
        load::next(&mut installation.consumer(name).await?, name, 0).await?;
    }
    sleep(Duration::from_secs(2)).await;

    let window = Duration::from_secs(bench.amount(5, 2) as u64);
    let mut rows = Vec::new();
    let mut windows = Vec::new();
    for number in 1..=bench.runs {
        bench.say(&format!("idle, window {number}"));
        windows.push(used(&processes, sleep_for(window)).await?);
    }
    rows.extend(as_rows("idle", &processes, &windows, true));

    let mut consumers = try_join_all(names.iter().map(|name| installation.consumer(name))).await?;
    let mut windows = Vec::new();
    for number in 1..=bench.runs {
        bench.say(&format!("{POLLS} idle polls, window {number}"));
        // The first polls of a run are not idle: they begin, and their consumers are made.
        let polls = join_all(consumers.iter_mut().zip(&names).map(|(c, name)| load::next(c, name, 30)));
        let seen = async {
            sleep(Duration::from_secs(1)).await;
            used(&processes, sleep_for(window)).await
        };
        tokio::select! {
            seen = seen => windows.push(seen?),
            _ = polls => anyhow::bail!("a poll ended too early"),
        }
        // A connection in the middle of a poll is of no use any more.
        consumers = try_join_all(names.iter().map(|name| installation.consumer(name))).await?;
    }
    let polls = as_rows(&format!("{POLLS} idle polls"), &processes, &windows, false);
    rows.extend(
        polls
            .into_iter()
            .filter(|row| row.unit == "% of a core")
            .map(|row| if row.name.starts_with("api") { row.aim(Aim::AtMost(1.0)) } else { row }),
    );

    let mut windows = Vec::new();
    for number in 1..=bench.runs {
        bench.say(&format!("load, window {number}"));
        let count = bench.amount(1_500, 300);
        let load = load::post_and_consume(&installation, "load", TOPIC, count, None);
        windows.push(used(&processes, async { load.await.map(drop) }).await?);
    }
    rows.extend(as_rows("under load", &processes, &windows, false));
    Ok(rows)
}

async fn sleep_for(window: Duration) -> Result<()> {
    sleep(window).await;
    Ok(())
}

/// What each process used while something went on: memory at its end, and CPU in percent of a core.
async fn used(processes: &[&Process], work: impl Future<Output = Result<()>>) -> Result<Vec<(f64, f64)>> {
    let look = || processes.iter().map(|process| process.usage()).collect::<Result<Vec<Usage>>>();
    let (before, began) = (look()?, Instant::now());
    work.await?;
    let seconds = began.elapsed().as_secs_f64();
    let after = look()?;
    Ok(before.iter().zip(after).map(|(b, a)| (a.resident_mib, (a.cpu - b.cpu) / seconds * 100.0)).collect())
}

fn as_rows(when: &str, processes: &[&Process], windows: &[Vec<(f64, f64)>], aim: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, process) in processes.iter().enumerate() {
        let of = |part: fn(&(f64, f64)) -> f64| {
            windows.iter().filter_map(|w| w.get(place)).map(|used| Run::alone(part(used))).collect::<Vec<_>>()
        };
        let memory = Row::new(format!("{}, {when}", process.name()), "MiB", of(|used| used.0));
        let ours = process.name() != "nats-server";
        rows.push(if aim && ours { memory.aim(Aim::AtMost(RESIDENT_MIB)) } else { memory });
        rows.push(Row::new(format!("{}, {when}", process.name()), "% of a core", of(|used| used.1)));
    }
    rows
}
