//! Events that many subscriptions want: what producers get through, what consumers get, and what dispatching them takes.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use tokio::time::{Instant, sleep};

use super::{
    Bench,
    load::{self, Posts},
    streams::{await_all, while_reading},
};
use crate::{
    installation::{Installation, is_ready},
    measure::{Aim, Row, Run, rate},
    payload,
};

const TOPIC: &str = "bench/events";
const NOTHING: &str = "bench/none";
/// Runs of each row: each takes seconds.
const RUNS: usize = 3;
/// Producers that post at once.
const CLIENTS: usize = 16;
/// A consumer by stream acknowledges each so many.
const ACKNOWLEDGES: usize = 100;
/// Longer than the dispatcher waits for consumers that read from the log, so that what it copies is in what is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// Subscriptions where a second dispatcher starts, and how many of them want what happens.
const BESIDE: (usize, usize) = (300, 10);
/// Events a second meanwhile.
const BESIDE_RATE: u32 = 100;
/// Longest wait for its readiness.
const READY_WITHIN: Duration = Duration::from_secs(30);
const READY_AIM_S: f64 = 10.0;

/// Lanes, and events that all of them want.
const BACKLOG: (usize, usize) = (1_000, 12_000);
const BACKLOG_MIB: f64 = 160.0;

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let bench = &Bench { programs: bench.programs.clone(), runs: bench.runs.min(RUNS), ..*bench };
    let mut rows = Vec::new();
    for reading in [true, false] {
        for (clients, counts) in [(CLIENTS, &[1, 10, 50][..]), (1, &[1, 50])] {
            rows.extend(accepted(bench, counts, clients, reading).await?);
        }
    }
    for consumers in [10, 50] {
        rows.extend(delivered(bench, consumers).await?);
    }
    rows.extend(second_dispatcher(bench).await?);
    rows.extend(backlog(bench).await?);
    Ok(rows)
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("events{n}")).collect()
}

/// Events that are accepted in a second, by the number of subscriptions. Where there is more than one, the row's other
/// figure is that of one.
async fn accepted(bench: &Bench, counts: &[usize], clients: usize, reading: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut of_one = Vec::new();
    for count in counts {
        let title = format!(
            "accepted, {}, {} that {}",
            if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") },
            if *count == 1 { "1 subscription".to_owned() } else { format!("{count} subscriptions") },
            match (reading, count) {
                (true, 1) => "reads",
                (true, _) => "read",
                (false, _) => "nobody reads",
            },
        );
        // One for each: what is still being copied would slow down what comes next.
        let installation = Installation::start(&bench.programs).await?;
        let names = names(*count);
        installation.register(&names, TOPIC).await?;
        let posts = Posts::new(TOPIC, usize::MAX);
        let rates = if reading {
            while_reading(&installation, &names, ACKNOWLEDGES, async |seen| {
                let rates = rates(bench, &installation, &title, &posts, clients).await?;
                await_all(seen, posts.accepted(), &posts).await?;
                Ok(rates)
            })
            .await?
        } else {
            rates(bench, &installation, &title, &posts, clients).await?
        };
        if *count == 1 {
            rows.push(Row::new(title, "events/s", rates.iter().copied().map(Run::alone).collect()));
            of_one = rates;
        } else {
            let runs = rates.iter().zip(&of_one).map(|(many, one)| Run::pair(*many, *one)).collect();
            let mut row = Row::new(title, "events/s", runs);
            row.note = Some("raw is the same with 1 subscription".to_owned());
            rows.push(if *count == 50 && clients == CLIENTS { row.aim(Aim::OfRaw(0.6)) } else { row });
        }
    }
    Ok(rows)
}

/// Events that are accepted in a second, in one window after the other while the load goes on.
async fn rates(
    bench: &Bench,
    installation: &Installation,
    title: &str,
    posts: &Posts<'_>,
    clients: usize,
) -> Result<Vec<f64>> {
    let window = Duration::from_millis(bench.amount(2_000, 500) as u64);
    let measure = async {
        sleep(if bench.quick { window } else { WARM_UP }).await;
        let mut rates = Vec::new();
        for number in 1..=bench.runs {
            let (before, began) = (posts.accepted(), Instant::now());
            sleep(window).await;
            let rate = rate(posts.accepted() - before, began.elapsed());
            bench.say(&format!("{title}, window {number}: {rate:.0}"));
            rates.push(rate);
        }
        if posts.refused() > 0 {
            bench.say(&format!("{title}: {} were refused for the time being", posts.refused()));
        }
        posts.stop();
        Ok(rates)
    };
    let ((), rates) = tokio::try_join!(posts.run(installation, clients, None), measure)?;
    Ok(rates)
}

/// A number of events as fast as the producers can: what each consumer gets in a second until the last has the last,
/// and nats-server's processor time for each delivery.
async fn delivered(bench: &Bench, count: usize) -> Result<Vec<Row>> {
    let installation = Installation::start(&bench.programs).await?;
    let names = names(count);
    installation.register(&names, TOPIC).await?;
    let mut rows = Vec::new();

    let title = format!("{count} consumers by stream");
    let events = bench.amount(1_500, 60);
    let mut figures = Vec::new();
    for number in 1..=bench.runs {
        let figure = while_reading(&installation, &names, ACKNOWLEDGES, async |seen| {
            let posts = Posts::new(TOPIC, events);
            deliveries(&installation, count, events, &posts, await_all(seen, events, &posts)).await
        });
        figures.push(tell(bench, &title, number, figure.await?));
    }
    let [each, cost] = delivery_rows(&title, &figures);
    rows.push(if count == 50 { each.aim(Aim::AtLeast(400.0)) } else { each });
    rows.push(cost);

    let title = format!("{count} consumers by next + acknowledgement");
    // An acknowledgement each is a write each: fewer, so that it does not take minutes.
    let events = bench.amount(15_000, 500) / count;
    let mut consumers = try_join_all(names.iter().map(|name| installation.consumer(name))).await?;
    for (consumer, name) in consumers.iter_mut().zip(&names) {
        let message = load::next(consumer, name, 0).await?;
        ensure!(message.is_none(), "the queue is not empty");
    }
    let mut figures = Vec::new();
    for number in 1..=bench.runs {
        let taking = try_join_all(
            consumers.iter_mut().zip(&names).map(|(consumer, name)| load::drain(consumer, name, events)),
        );
        let posts = Posts::new(TOPIC, events);
        let figure = deliveries(&installation, count, events, &posts, async { taking.await.map(drop) });
        figures.push(tell(bench, &title, number, figure.await?));
    }
    rows.extend(delivery_rows(&title, &figures));
    Ok(rows)
}

/// Events a second, and nats-server's processor time for each delivery in µs.
async fn deliveries(
    installation: &Installation,
    consumers: usize,
    events: usize,
    posts: &Posts<'_>,
    taken: impl Future<Output = Result<()>>,
) -> Result<(f64, f64)> {
    let (before, began) = (installation.nats.usage()?.cpu, Instant::now());
    tokio::try_join!(posts.run(installation, CLIENTS, None), taken)?;
    let took = began.elapsed();
    let used = installation.nats.usage()?.cpu - before;
    Ok((rate(events, took), used * 1e6 / (events * consumers) as f64))
}

fn tell(bench: &Bench, title: &str, number: usize, figure: (f64, f64)) -> (f64, f64) {
    bench
        .say(&format!("{title}, run {number}: {:.0} events/s each, {:.0} µs a delivery", figure.0, figure.1));
    figure
}

fn delivery_rows(title: &str, figures: &[(f64, f64)]) -> [Row; 2] {
    let runs = |part: fn(&(f64, f64)) -> f64| figures.iter().map(|f| Run::alone(part(f))).collect();
    [
        Row::new(title, "events/s each", runs(|figure| figure.0)),
        Row::new(format!("{title}: nats-server"), "µs a delivery", runs(|figure| figure.1)),
    ]
}

/// A dispatcher that starts beside a busy one: when it is ready, and whether it stays so.
async fn second_dispatcher(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    let (all, busy) = (bench.amount(BESIDE.0, 30), BESIDE.1);
    bench.say(&format!("registering {all}"));
    installation
        .while_filling(async |installation| {
            let names = names(all);
            let (busy, idle) = names.split_at(busy);
            installation.register(busy, TOPIC).await?;
            installation.register(idle, NOTHING).await
        })
        .await?;
    let what = format!("a second dispatcher, {all} subscriptions, {BESIDE_RATE} events/s for {busy} of them");
    let stays = Duration::from_secs(bench.amount(10, 2) as u64);
    let posts = Posts::new(TOPIC, usize::MAX);
    let measure = async {
        let (mut until_ready, mut ready) = (Vec::new(), Vec::new());
        for number in 1..=bench.runs {
            let began = Instant::now();
            let (second, address) = installation.begin_more("dispatcher", "dispatcher-2")?;
            while !is_ready(address).await && began.elapsed() < READY_WITHIN {
                sleep(Duration::from_millis(5)).await;
            }
            let took = began.elapsed().as_secs_f64();
            let (mut asked, mut yes, began) = (0_u32, 0_u32, Instant::now());
            while began.elapsed() < stays {
                sleep(Duration::from_millis(20)).await;
                asked += 1;
                yes += u32::from(is_ready(address).await);
            }
            drop(second);
            let share = f64::from(yes) / f64::from(asked) * 100.0;
            bench.say(&format!("{what}, run {number}: ready after {took:.2} s, then {share:.0} %"));
            until_ready.push(Run::alone(took));
            ready.push(Run::alone(share));
        }
        posts.stop();
        Ok([
            Row::new(format!("{what}: until it is ready"), "s", until_ready).aim(Aim::AtMost(READY_AIM_S)),
            Row::new(format!("{what}: ready in the {} s after", stays.as_secs()), "%", ready)
                .aim(Aim::AtLeast(100.0)),
        ])
    };
    let every = Duration::from_secs(1) * CLIENTS as u32 / BESIDE_RATE;
    let ((), rows) = tokio::try_join!(posts.run(&installation, CLIENTS, Some(every)), measure)?;
    Ok(rows.into())
}

/// The dispatcher's memory with a backlog that all want and nobody reads: while it comes, and after a start.
async fn backlog(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    let (lanes, events) = (bench.amount(BACKLOG.0, 50), bench.amount(BACKLOG.1, 500));
    let watched = Duration::from_secs(bench.amount(15, 2) as u64);
    let what = format!("{lanes} subscriptions that nobody reads, {events} events waiting");
    bench.say(&format!("{what}: registering"));
    let while_it_comes = installation
        .while_filling(async |installation| {
            installation.register(&names(lanes), TOPIC).await?;
            let broker = installation.broker().await?;
            let publisher = &broker.events();
            stream::iter(0..events)
                .map(|number| publisher.publish(payload::event(TOPIC, number, payload::SIZE), Instant::now()))
                .buffer_unordered(CLIENTS)
                .try_for_each(async |_| Ok(()))
                .await?;
            broker.close().await;
            bench.say(&format!("{what}: watching"));
            sleep(watched).await;
            installation.dispatcher.peak_mib()
        })
        .await?;
    installation.dispatcher.stop().await?;
    installation.start_dispatcher().await?;
    sleep(watched).await;
    let after_a_start = installation.dispatcher.peak_mib()?;
    let mut rows = Vec::new();
    for (when, peak) in [("", while_it_comes), (" at a start", after_a_start)] {
        bench.say(&format!("{what}: {peak:.1} MiB{when}"));
        let title = format!("{what}: dispatcher, peak memory{when}");
        rows.push(Row::new(title, "MiB", vec![Run::alone(peak)]).aim(Aim::AtMost(BACKLOG_MIB)));
    }
    Ok(rows)
}
