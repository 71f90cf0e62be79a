//! Dispatching: from the event log into the queues, while a backlog waits.

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use tokio::time::{Duration, Instant, sleep};

use super::Bench;
use crate::{
    installation::{Installation, SOON},
    measure::{Aim, Row, rate},
    payload,
    raw::Raw,
};

/// Most messages of one atomic batch, its checkpoint not counted.
const BATCH: usize = 499;

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    let raw = installation.raw().await?;
    let mut rows = Vec::new();
    for (queues, events) in
        [(1, bench.amount(2_000, 500)), (10, bench.amount(400, 100)), (100, bench.amount(60, 15))]
    {
        bench.say(&format!("registering {queues}"));
        let topic = format!("bench/to{queues}");
        let names: Vec<String> = (0..queues).map(|n| format!("to{queues}x{n}")).collect();
        let streams: Vec<String> = (0..queues).map(|n| format!("raw{queues}x{n}")).collect();
        installation
            .while_filling(async |installation| {
                installation.register_with_prefill(&names, &topic).await?;
                for stream in &streams {
                    let subjects =
                        ["prefill", "main", "fence", "copied"].map(|part| format!("{stream}.{part}"));
                    raw.create_stream(stream, &subjects).await?;
                }
                Ok(())
            })
            .await?;
        let title = match queues {
            1 => format!("{events} events to 1 subscription"),
            _ => format!("{events} events to {queues} subscriptions"),
        };
        let runs = bench
            .pairs(
                &title,
                async || dispatched(&mut installation, &topic, events, queues).await,
                async || copied(&raw, &streams, events).await,
            )
            .await?;
        rows.push(Row::new(title, "copies/s", runs).aim(Aim::OfRaw(0.6)));
    }
    Ok(rows)
}

/// Events wait in the log, the dispatcher starts, and the clock runs from its first read to its last copy.
async fn dispatched(
    installation: &mut Installation,
    topic: &str,
    events: usize,
    queues: usize,
) -> Result<f64> {
    installation.dispatcher.stop().await?;
    let broker = installation.broker().await?;
    let publisher = broker.events();
    for number in 0..events {
        publisher.publish(payload::event(topic, number, payload::SIZE), Instant::now()).await?;
    }
    broker.close().await;
    let mut probes = installation.start_dispatcher().await?;
    let began = Instant::now();
    let expected = (events * queues) as u64;
    loop {
        let copies = installation.dispatcher_metric(&mut probes, "headstart_dispatcher_copies_total").await?;
        if copies >= expected {
            return Ok(rate(events * queues, began.elapsed()));
        }
        ensure!(began.elapsed() < SOON, "only {copies} of {expected} copies");
        sleep(Duration::from_millis(2)).await;
    }
}

/// The same bytes as atomic batches into as many streams at once.
async fn copied(raw: &Raw, streams: &[String], events: usize) -> Result<f64> {
    let payload = payload::event("bench/raw", 0, payload::SIZE);
    let began = Instant::now();
    try_join_all(streams.iter().map(async |stream| {
        let mut left = events;
        while left > 0 {
            let count = left.min(BATCH);
            raw.publish_copies(stream, &payload, count).await?;
            left -= count;
        }
        Ok::<_, anyhow::Error>(())
    }))
    .await?;
    Ok(rate(events * streams.len(), began.elapsed()))
}
