//! Registration: one at a time and several at once.

use anyhow::Result;
use async_nats::HeaderMap;
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::time::Instant;

use super::Bench;
use crate::{
    http::Connection,
    installation::{self, Installation},
    measure::{Aim, Row, ms, p50_p99, rate},
    raw::Raw,
};

/// Registrations in flight.
const AT_ONCE: usize = 8;
const TOPIC: &str = "bench/none";

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let installation = Installation::start(&bench.programs).await?;
    let raw = installation.raw().await?;
    raw.create_bucket("RAW-ENTRIES").await?;
    raw.create_bucket("RAW-CREDENTIALS").await?;
    raw.create_stream("raw-log", &["raw-log.marker".to_owned()]).await?;
    raw.create_stream("raw-tasks", &["raw-tasks.*".to_owned()]).await?;

    let (one, many) = (bench.amount(20, 8), bench.amount(64, 16));
    let mut rows = Vec::new();
    let mut names = Names::default();
    for prefill in [false, true] {
        let what = if prefill { "with a prefill" } else { "without a prefill" };
        let mut admin = [installation.admin().await?];
        let times = |names: &mut Names| names.take(one);
        let title = format!("{what}, one at a time");
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for _ in 0..bench.runs {
            ours.push(times(&mut names));
            others.push(times(&mut names));
        }
        let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
        let runs = bench
            .pairs(
                &title,
                async || median(&registered(&mut admin, &ours.next().unwrap_or_default(), prefill).await?),
                async || median(&made(&raw, &others.next().unwrap_or_default(), 1, prefill).await?),
            )
            .await?;
        rows.push(Row::new(title, "ms", runs).aim(Aim::AtMost(25.0)));

        let mut admins = try_join_all((0..AT_ONCE).map(|_| installation.admin())).await?;
        let title = format!("{what}, {AT_ONCE} at once");
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for _ in 0..bench.runs {
            ours.push(names.take(many));
            others.push(names.take(many));
        }
        let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
        let runs = bench
            .pairs(
                &title,
                async || {
                    Ok(per_second(&registered(&mut admins, &ours.next().unwrap_or_default(), prefill).await?))
                },
                async || {
                    Ok(per_second(&made(&raw, &others.next().unwrap_or_default(), AT_ONCE, prefill).await?))
                },
            )
            .await?;
        rows.push(Row::new(title, "/s", runs).aim(Aim::AtLeast(80.0)));
    }
    Ok(rows)
}

/// Names that were not used yet.
#[derive(Default)]
struct Names(usize);

impl Names {
    fn take(&mut self, count: usize) -> Vec<String> {
        let first = self.0;
        self.0 += count;
        (first..self.0).map(|n| format!("consumer{n}")).collect()
    }
}

/// What registering some took: each one, and all.
struct Taken {
    each_ms: Vec<f64>,
    all: std::time::Duration,
}

fn median(taken: &Taken) -> Result<f64> {
    p50_p99(taken.each_ms.clone())
        .map(|(p50, _)| p50)
        .ok_or_else(|| anyhow::anyhow!("nothing was registered"))
}

fn per_second(taken: &Taken) -> f64 {
    rate(taken.each_ms.len(), taken.all)
}

/// Registers by as many connections at once as there are; then removes what was registered, untimed.
async fn registered(admins: &mut [Connection], names: &[String], prefill: bool) -> Result<Taken> {
    let chunk = names.len().div_ceil(admins.len()).max(1);
    let began = Instant::now();
    let each = try_join_all(admins.iter_mut().zip(names.chunks(chunk)).map(async |(admin, names)| {
        let mut each = Vec::new();
        for name in names {
            let began = Instant::now();
            installation::register(admin, name, TOPIC, prefill).await?;
            each.push(ms(began.elapsed()));
        }
        Ok::<_, anyhow::Error>(each)
    }))
    .await?;
    let all = began.elapsed();
    for (admin, names) in admins.iter_mut().zip(names.chunks(chunk)) {
        for name in names {
            installation::remove(admin, name).await?;
        }
    }
    Ok(Taken { each_ms: each.concat(), all })
}

/// The same number of writes in JetStream alone.
async fn made(raw: &Raw, names: &[String], at_once: usize, prefill: bool) -> Result<Taken> {
    let chunk = names.len().div_ceil(at_once).max(1);
    let began = Instant::now();
    let each = try_join_all(names.chunks(chunk).map(async |names| {
        let mut each = Vec::new();
        for name in names {
            let began = Instant::now();
            write_all(raw, name, prefill).await?;
            each.push(ms(began.elapsed()));
        }
        Ok::<_, anyhow::Error>(each)
    }))
    .await?;
    let all = began.elapsed();
    for name in names {
        raw.delete_stream(&format!("raw-{name}")).await?;
    }
    Ok(Taken { each_ms: each.concat(), all })
}

/// Reserve, stream, fence, checkpoint, credential, task, ready, marker.
async fn write_all(raw: &Raw, name: &str, prefill: bool) -> Result<()> {
    let of = |length: usize| Bytes::from(vec![b'x'; length]);
    let last = |sequence: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", sequence);
        headers
    };
    let stream = format!("raw-{name}");
    let entry = format!("$KV.RAW-ENTRIES.{name}");
    raw.publish(&entry, last("0"), of(500)).await?;
    let subjects = ["prefill", "main", "fence", "copied"].map(|part| format!("{stream}.{part}"));
    raw.create_stream(&stream, &subjects).await?;
    raw.publish(&format!("{stream}.fence"), last("0"), of(150)).await?;
    raw.publish(&format!("{stream}.copied"), last("0"), of(120)).await?;
    raw.publish(&format!("$KV.RAW-CREDENTIALS.{name}"), last("0"), of(200)).await?;
    if prefill {
        raw.publish(&format!("raw-tasks.{name}"), HeaderMap::new(), of(300)).await?;
    }
    raw.publish(&entry, HeaderMap::new(), of(500)).await?;
    raw.publish("raw-log.marker", HeaderMap::new(), of(120)).await
}
