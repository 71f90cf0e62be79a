//! Latency: from the moment when the producer knows that its event is accepted to the moment when the consumer has it.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::{HeaderMap, jetstream::consumer::DeliverPolicy};
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::{Instant, interval};

use super::{Bench, load};
use crate::{
    installation::Installation,
    measure::{Aim, Row, Run, ms, p50_p99, rate},
    payload,
    raw::Raw,
};

const TOPIC: &str = "bench/latency";
const NAME: &str = "latency";
/// When idle: the time between two events.
const IDLE: Duration = Duration::from_millis(20);

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let installation = Installation::start(&bench.programs).await?;
    installation.register(&[NAME.to_owned()], TOPIC).await?;
    let raw = installation.raw().await?;
    raw.create_stream("raw-log", &["raw-log.event".to_owned()]).await?;
    raw.create_stream("raw-queue", &["raw-queue.main".to_owned(), "raw-queue.copied".to_owned()]).await?;

    let full = load::post_and_consume(&installation, NAME, TOPIC, bench.amount(1_500, 300), None).await?;
    let full = rate(full.latencies.len(), full.took);
    bench.say(&format!("one producer and one consumer: {full:.0} events/s"));
    let half = full / 2.0;

    let mut rows = Vec::new();
    let at_half = format!("at half load ({half:.0} events/s)");
    let loads = [
        ("idle".to_owned(), IDLE, bench.amount(200, 50)),
        (at_half, Duration::from_secs_f64(1.0 / half), bench.amount((half * 3.0) as usize, 200)),
    ];
    for (title, every, count) in loads {
        let (mut median, mut tail) = (Vec::new(), Vec::new());
        for number in 1..=bench.runs {
            let ours = load::post_and_consume(&installation, NAME, TOPIC, count, Some(every)).await?;
            let (p50, p99) = p50_p99(ours.latencies).context("no latencies")?;
            let (raw50, raw99) = p50_p99(forwarded(&raw, count, every).await?).context("no latencies")?;
            bench.say(&format!(
                "{title}, run {number}: {p50:.2} / {p99:.2} ms, raw {raw50:.2} / {raw99:.2} ms"
            ));
            median.push(Run::pair(p50, raw50));
            tail.push(Run::pair(p99, raw99));
        }
        let median = Row::new(format!("{title}, p50"), "ms", median);
        rows.push(if title == "idle" { median.aim(Aim::AtMost(2.0)) } else { median });
        rows.push(Row::new(format!("{title}, p99"), "ms", tail).aim(Aim::AtMost(5.0)));
    }
    Ok(rows)
}

/// The same way in JetStream alone: published into a log; carried by a waiting consumer to somebody who writes it as
/// an atomic batch with a checkpoint; carried by another waiting consumer to the reader.
async fn forwarded(raw: &Raw, count: usize, every: Duration) -> Result<Vec<f64>> {
    let waiting = async |stream: &str, subject: &str| {
        let consumer = raw.consumer(stream, subject, DeliverPolicy::New).await?;
        Ok::<_, anyhow::Error>(consumer.stream().max_messages_per_batch(500).messages().await?)
    };
    let mut log = waiting("raw-log", "raw-log.event").await?;
    let mut queue = waiting("raw-queue", "raw-queue.main").await?;
    let event = payload::event(TOPIC, 0, payload::SIZE);
    let publish = async {
        let mut accepted = Vec::with_capacity(count);
        let mut tick = interval(every);
        for _ in 0..count {
            tick.tick().await;
            raw.publish("raw-log.event", HeaderMap::new(), event.clone()).await?;
            accepted.push(Instant::now());
        }
        Ok::<_, anyhow::Error>(accepted)
    };
    let forward = async {
        let mut done = 0;
        while done < count {
            let first = log.try_next().await?.context("the log has ended")?;
            let mut ready = 1;
            while let Some(Some(more)) = log.next().now_or_never() {
                more?;
                ready += 1;
            }
            raw.publish_copies("raw-queue", &first.payload, ready).await?;
            done += ready;
        }
        Ok(())
    };
    let read = async {
        let mut delivered = Vec::with_capacity(count);
        for _ in 0..count {
            queue.try_next().await?.context("the queue has ended")?;
            delivered.push(Instant::now());
        }
        Ok(delivered)
    };
    let (accepted, (), delivered) = tokio::try_join!(publish, forward, read)?;
    Ok(accepted.iter().zip(delivered).map(|(a, d)| ms(d.saturating_duration_since(*a))).collect())
}
