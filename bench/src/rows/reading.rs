//! Reading: one by one, by batches, by stream. Ours and raw take turns on the same queue, so the bytes are the same.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::time::Instant;

use super::{Bench, load, streams::Lines};
use crate::{
    installation::Installation,
    measure::{Aim, Row, rate},
    payload,
};

const TOPIC: &str = "bench/none";
const CONSUMERS: usize = 8;
const BATCH: usize = 100;
/// The stream's consumer acknowledges each half window.
const STREAM_ACKNOWLEDGES: usize = 500;
/// Read before a row is measured: the first password check costs a hash.
const WARM_UP: usize = 20;

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    let (single, many) = (bench.amount(2_000, 300), bench.amount(500, 60));
    let (batched, streamed) = (bench.amount(5_000, 1_000), bench.amount(10_000, 2_000));
    let batches = installation.has_path("/v1/subscriptions/{name}/messages").await?;
    let streams = installation.has_path("/v1/subscriptions/{name}/messages/stream").await?;
    let eight: Vec<String> = (0..CONSUMERS).map(|n| format!("eight{n}")).collect();
    bench.say("filling queues");
    installation
        .while_filling(async |installation| {
            let mut queues = vec![("one".to_owned(), single, true), ("batch".to_owned(), batched, batches)];
            queues.push(("stream".to_owned(), streamed, streams));
            queues.extend(eight.iter().map(|name| (name.clone(), many, true)));
            for (name, each, wanted) in queues.into_iter().filter(|(_, _, wanted)| *wanted) {
                debug_assert!(wanted);
                installation.register(std::slice::from_ref(&name), TOPIC).await?;
                // Ours and raw, each as often as there are runs, and what warms up.
                let count = 2 * each * bench.runs + 2 * BATCH.max(WARM_UP);
                installation.fill(&name, count, payload::SIZE).await?;
            }
            Ok(())
        })
        .await?;

    let mut rows = vec![
        one_by_one(bench, &installation, &["one".to_owned()], single)
            .await?
            .aim(Aim::AtLeast(1_500.0))
            .aim(Aim::OfRaw(0.4)),
        one_by_one(bench, &installation, &eight, many).await?.aim(Aim::OfRaw(0.4)),
    ];
    let lacks = "left out, because the API has no such path";
    let name = format!("batches of {BATCH}");
    rows.push(match batches {
        true => by_batches(bench, &installation, name, batched).await?.aim(Aim::OfRaw(0.5)),
        false => Row::left_out(name, lacks),
    });
    rows.push(match streams {
        true => by_stream(bench, &installation, streamed).await?.aim(Aim::OfRaw(0.5)),
        false => Row::left_out("stream", lacks),
    });
    Ok(rows)
}

async fn one_by_one(
    bench: &Bench,
    installation: &Installation,
    names: &[String],
    count: usize,
) -> Result<Row> {
    let title = match names.len() {
        1 => "next + acknowledgement, 1 consumer".to_owned(),
        n => format!("next + acknowledgement, {n} consumers"),
    };
    let raw = installation.raw().await?;
    let streams = try_join_all(names.iter().map(|name| installation.stream_of(name))).await?;
    let mut consumers = try_join_all(names.iter().map(|name| installation.consumer(name))).await?;
    for (consumer, name) in consumers.iter_mut().zip(names) {
        load::drain(consumer, name, WARM_UP).await?;
    }
    let ours = async || {
        let began = Instant::now();
        let drains =
            consumers.iter_mut().zip(names).map(|(consumer, name)| load::drain(consumer, name, count));
        try_join_all(drains).await?;
        Ok(rate(count * names.len(), began.elapsed()))
    };
    let raw = async || {
        let began = Instant::now();
        let subjects: Vec<String> = names.iter().map(|name| format!("{name}.main")).collect();
        let drains = streams.iter().zip(&subjects).map(|(s, subject)| raw.get_and_remove(s, subject, count));
        try_join_all(drains).await?;
        Ok(rate(count * names.len(), began.elapsed()))
    };
    let runs = bench.pairs(&title, ours, raw).await?;
    Ok(Row::new(title, "msg/s", runs))
}

async fn by_batches(bench: &Bench, installation: &Installation, title: String, count: usize) -> Result<Row> {
    let name = "batch";
    let (raw, stream) = (installation.raw().await?, installation.stream_of(name).await?);
    let mut consumer = installation.consumer(name).await?;
    let messages = format!("/v1/subscriptions/{name}/messages");
    let mut take = async |count: usize| {
        let mut taken = 0;
        while taken < count {
            let path = format!("{messages}?limit={BATCH}&timeout=5");
            let batch = consumer.expect(200, "GET", &path, &[]).await?;
            let got = payload::count(&batch, payload::SIZE);
            ensure!(got > 0, "the queue is empty too early");
            taken += got;
            let through = payload::last_sequence(&batch).context("no sequence_number")?;
            load::acknowledge_through(&mut consumer, name, through).await?;
        }
        Ok(taken)
    };
    take(BATCH).await?;
    let ours = async || {
        let began = Instant::now();
        let taken = take(count).await?;
        Ok(rate(taken, began.elapsed()))
    };
    let subject = format!("{name}.main");
    let raw = async || {
        let began = Instant::now();
        raw.read_and_purge(&stream, &subject, count, BATCH).await?;
        Ok(rate(count, began.elapsed()))
    };
    let runs = bench.pairs(&title, ours, raw).await?;
    Ok(Row::new(title, "msg/s", runs))
}

async fn by_stream(bench: &Bench, installation: &Installation, count: usize) -> Result<Row> {
    let name = "stream";
    let (raw, stream) = (installation.raw().await?, installation.stream_of(name).await?);
    let mut acknowledging = installation.consumer(name).await?;
    let ours = async || {
        // A stream of its own for each run, since raw takes messages in between.
        let mut consumer = installation.consumer(name).await?;
        let began = Instant::now();
        consumer.begin_stream(&format!("/v1/subscriptions/{name}/messages/stream?window=1000")).await?;
        let (mut lines, mut acknowledged) = (Lines::default(), 0);
        while lines.taken < count {
            lines.add(&consumer.lines().await?.context("the stream has ended")?);
            if lines.taken - acknowledged >= STREAM_ACKNOWLEDGES || lines.taken >= count {
                let through = lines.through.context("no sequence_number")?;
                load::acknowledge_through(&mut acknowledging, name, through).await?;
                acknowledged = lines.taken;
            }
        }
        Ok(rate(lines.taken, began.elapsed()))
    };
    let subject = format!("{name}.main");
    let raw = async || {
        let began = Instant::now();
        raw.read_and_purge(&stream, &subject, count, STREAM_ACKNOWLEDGES).await?;
        Ok(rate(count, began.elapsed()))
    };
    let runs = bench.pairs("stream", ours, raw).await?;
    Ok(Row::new(format!("stream, acknowledged each {STREAM_ACKNOWLEDGES}"), "msg/s", runs))
}
