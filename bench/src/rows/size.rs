//! What many subscriptions and long queues cost.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::{Bench, load};
use crate::{
    installation::Installation,
    measure::{Row, Run, p50_p99, rate},
    payload,
};

const NOTHING: &str = "bench/none";
const TOPIC: &str = "bench/size";
/// Messages taken in a run.
const TAKEN: usize = 300;
/// In the longest queue: fewer bytes, so that filling it does not take minutes.
const SMALL: usize = 300;

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = by_subscriptions(bench).await?;
    rows.extend(by_length(bench).await?);
    Ok(rows)
}

async fn by_subscriptions(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    let taken = bench.amount(TAKEN, 50);
    let counts: &[usize] = if bench.quick { &[10, 100] } else { &[10, 100, 1_000] };
    let (drained, live) = ("drained".to_owned(), "live".to_owned());
    let mut rows = Vec::new();
    let mut registered = 0;
    for count in counts {
        bench.say(&format!("registering up to {count}"));
        installation
            .while_filling(async |installation| {
                if registered == 0 {
                    installation.register(std::slice::from_ref(&drained), NOTHING).await?;
                    installation.register(std::slice::from_ref(&live), TOPIC).await?;
                    let messages = counts.len() * (2 * taken * bench.runs + 20);
                    installation.fill(&drained, messages, payload::SIZE).await?;
                    registered = 2;
                }
                let names: Vec<String> = (registered..*count).map(|n| format!("other{n}")).collect();
                registered = *count;
                installation.register(&names, NOTHING).await
            })
            .await?;
        let what = format!("{count} subscriptions");
        rows.push(drain(bench, &installation, &drained, &what, taken).await?);

        let mut median = Vec::new();
        for number in 1..=bench.runs {
            let every = Some(Duration::from_millis(10));
            let seen =
                load::post_and_consume(&installation, &live, TOPIC, bench.amount(100, 20), every).await?;
            let (p50, _) = p50_p99(seen.latencies).context("no latencies")?;
            bench.say(&format!("{what}, latency, run {number}: {p50:.2} ms"));
            median.push(Run::alone(p50));
        }
        rows.push(Row::new(format!("{what}: latency p50"), "ms", median));
        for process in [&installation.nats, &installation.api, &installation.dispatcher] {
            let memory = vec![Run::alone(process.usage()?.resident_mib)];
            rows.push(Row::new(format!("{what}: {}", process.name()), "MiB", memory));
        }
    }
    Ok(rows)
}

async fn by_length(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    let taken = bench.amount(TAKEN, 50);
    let lengths: &[(usize, usize)] = if bench.quick {
        &[(1_000, payload::SIZE), (20_000, payload::SIZE)]
    } else {
        &[(1_000, payload::SIZE), (100_000, payload::SIZE), (1_000_000, SMALL)]
    };
    bench.say("filling long queues");
    installation
        .while_filling(async |installation| {
            for (length, size) in lengths {
                let name = format!("long{length}");
                installation.register(std::slice::from_ref(&name), NOTHING).await?;
                // The shortest must not run out.
                installation.fill(&name, (*length).max(2 * taken * bench.runs + 20), *size).await?;
                bench.say(&format!("{length} messages are in"));
            }
            Ok(())
        })
        .await?;
    let mut rows = Vec::new();
    for (length, size) in lengths {
        let what = format!("queue of {length} messages of {size} bytes");
        rows.push(drain(bench, &installation, &format!("long{length}"), &what, taken).await?);
    }
    let memory = vec![Run::alone(installation.nats.usage()?.resident_mib)];
    rows.push(Row::new("all these queues: nats-server", "MiB", memory));
    Ok(rows)
}

async fn drain(
    bench: &Bench,
    installation: &Installation,
    name: &str,
    what: &str,
    count: usize,
) -> Result<Row> {
    let (raw, stream) = (installation.raw().await?, installation.stream_of(name).await?);
    let mut consumer = installation.consumer(name).await?;
    load::drain(&mut consumer, name, 20).await?;
    let subject = format!("{name}.main");
    let title = format!("{what}: next + acknowledgement");
    let ours = async || {
        let began = Instant::now();
        load::drain(&mut consumer, name, count).await?;
        Ok(rate(count, began.elapsed()))
    };
    let raw = async || {
        let began = Instant::now();
        raw.get_and_remove(&stream, &subject, count).await?;
        Ok(rate(count, began.elapsed()))
    };
    let runs = bench.pairs(&title, ours, raw).await?;
    Ok(Row::new(title, "msg/s", runs))
}
