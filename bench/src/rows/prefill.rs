//! Prefills as a Job's pod runs them: from UDM at several speeds, from a dump, by size, and what memory they take.

use std::{ffi::OsString, time::Duration};

use anyhow::{Context, Result};
use model::prefill::PrefillTask;
use tokio::time::Instant;

use super::Bench;
use crate::{
    installation::{Installation, remove},
    measure::{Aim, Row, Run, rate},
    payload,
    process::Process,
    stand_in::{Directory, StandIn},
};

const USERS: &[&str] = &["users/user"];
/// How long a prefill may take at all.
const ENDS_WITHIN: Duration = Duration::from_secs(900);
/// Resident memory of a prefill, whatever it reads.
const PEAK_MIB: f64 = 64.0;
/// Requests at once that the stand-in is tried with.
const AT_ONCE: [usize; 9] = [1, 2, 4, 8, 12, 16, 24, 32, 48];

/// What one prefill took.
struct Took {
    rate: f64,
    peak_mib: f64,
}

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut installation = Installation::start(&bench.programs).await?;
    let mut rows = from_udm(bench, &installation).await?;
    rows.push(from_dump(bench, &installation, "each write synced", None).await?);
    // The disk is measured above; here it is what is in front of it.
    let more = installation
        .while_filling(async |installation| {
            let fast = from_dump(bench, installation, "writes not synced one by one", Some(20_000.0)).await?;
            let mut rows = vec![fast];
            rows.extend(tracked(bench, installation).await?);
            rows.extend(by_size(bench, installation).await?);
            rows.push(memory(bench, installation).await?);
            Ok(rows)
        })
        .await?;
    rows.extend(more);
    Ok(rows)
}

/// One prefill, from the start of its process to its end.
async fn prefill(
    installation: &Installation,
    objects: u32,
    track: bool,
    variables: &[(&str, OsString)],
) -> Result<Took> {
    let name = "prefilled";
    let task = installation.ask_for_prefill(name, USERS, track).await?;
    let began = Instant::now();
    let mut process = installation.start_prefill(&task, variables)?;
    let peak_mib = process.ends_well(ENDS_WITHIN).await?;
    let took = Took { rate: rate(objects as usize, began.elapsed()), peak_mib };
    remove(&mut installation.admin().await?, name).await?;
    Ok(took)
}

fn of_udm(udm: &StandIn, concurrency: Option<u16>) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![("SOURCE", udm.url().into()), ("UDM_PASSWORD", "univention".into())];
    variables.extend(concurrency.map(|n| ("UDM_CONCURRENCY", n.to_string().into())));
    variables
}

/// Beside what the stand-in can serve at its best number of requests at once, which nobody tells the prefill.
async fn from_udm(bench: &Bench, installation: &Installation) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let window = Duration::from_millis(bench.amount(1_500, 500) as u64);
    for (ms, delay_ms, serial_us, users, few, least) in [
        (0, 0, 0, bench.amount(10_000, 3_000), bench.amount(4_000, 1_000), None),
        (5, 5, 400, bench.amount(10_000, 3_000), bench.amount(1_000, 200), Some(1_500.0)),
        (20, 20, 500, bench.amount(6_000, 2_000), bench.amount(200, 60), None),
    ] {
        let directory = Directory {
            users: users as u32,
            delay_ms,
            serial_us,
            crowding_percent: 2,
            ..Directory::default()
        };
        let udm = directory.serve(&bench.programs).await?;
        let dns = udm.dns().await?;
        let (mut best, mut best_at) = (0.0, 1);
        for at_once in AT_ONCE {
            let served = udm.serves(at_once, &dns, window).await?;
            bench.say(&format!("stand-in of {ms} ms, {at_once} at once: {served:.0}/s"));
            if served > best {
                (best, best_at) = (served, at_once);
            }
        }
        let (mut runs, mut peaks) = (Vec::new(), Vec::new());
        for number in 1..=bench.runs {
            let took = prefill(installation, directory.users, false, &of_udm(&udm, None)).await?;
            let raw = udm.serves(best_at, &dns, window).await?;
            bench.say(&format!(
                "UDM of {ms} ms, run {number}: {:.0}/s, raw {raw:.0}, {:.1} MiB",
                took.rate, took.peak_mib
            ));
            runs.push(Run::pair(took.rate, raw));
            peaks.push(Run::alone(took.peak_mib));
        }
        let mut row = Row::new(format!("UDM, {ms} ms an object"), "objects/s", runs).aim(Aim::OfRaw(0.8));
        row.note = Some(format!(
            "raw is what the stand-in serves to a cheap client at {best_at} requests at once, its best of {AT_ONCE:?}"
        ));
        rows.push(match least {
            Some(least) => row.aim(Aim::AtLeast(least)),
            None => row,
        });
        rows.push(
            Row::new(format!("UDM, {ms} ms an object: peak memory"), "MiB", peaks).aim(Aim::AtMost(PEAK_MIB)),
        );

        let udm = Directory { users: few as u32, ..directory }.serve(&bench.programs).await?;
        let naive = bench
            .alone(&format!("UDM of {ms} ms, one at a time"), async || {
                Ok(prefill(installation, few as u32, false, &of_udm(&udm, Some(1))).await?.rate)
            })
            .await?;
        rows.push(Row::new(format!("UDM, {ms} ms an object, one at a time"), "objects/s", naive));
    }
    Ok(rows)
}

/// Beside atomic batches alone.
async fn from_dump(bench: &Bench, installation: &Installation, how: &str, least: Option<f64>) -> Result<Row> {
    let directory = Directory {
        users: bench.amount(60_000, 20_000) as u32,
        members: Some(1_000),
        ..Directory::default()
    };
    let folder = tempfile::Builder::new().prefix("bench-dump-").tempdir_in(&bench.programs.folder)?;
    let file = folder.path().join("directory.jsonl");
    directory.dump(&bench.programs, &file)?;
    let bytes = std::fs::metadata(&file)?.len();
    let each = usize::try_from(bytes / u64::from(directory.users)).context("a huge dump")?;
    let variables = [("SOURCE", file.into())];
    let payload = payload::event("users/user", 0, each);
    let raw = installation.raw().await?;
    let ours = async || Ok(prefill(installation, directory.users, false, &variables).await?.rate);
    let batches = async || {
        let (stream, batch) = ("rawprefill", 499);
        raw.create_stream(stream, &[format!("{stream}.copied"), format!("{stream}.main")]).await?;
        let began = Instant::now();
        let count = (directory.users as usize).div_ceil(batch);
        for _ in 0..count {
            raw.publish_copies(stream, &payload, batch).await?;
        }
        let rate = rate(count * batch, began.elapsed());
        raw.delete_stream(stream).await?;
        Ok(rate)
    };
    let runs = bench.pairs(&format!("dump, {how}"), ours, batches).await?;
    let name = format!("dump of {} users of {each} bytes, {how}", directory.users);
    let row = Row::new(name, "objects/s", runs).aim(Aim::OfRaw(0.6));
    Ok(match least {
        Some(least) => row.aim(Aim::AtLeast(least)),
        None => row,
    })
}

/// With and without a record of what the consumer is told of; and what memory the record takes.
async fn tracked(bench: &Bench, installation: &Installation) -> Result<Vec<Row>> {
    let users = bench.amount(60_000, 20_000) as u32;
    let folder = tempfile::Builder::new().prefix("bench-dump-").tempdir_in(&bench.programs.folder)?;
    let file = folder.path().join("directory.jsonl");
    let write = |users| {
        Directory { users, members: Some(1_000), ..Directory::default() }.dump(&bench.programs, &file)
    };
    let took =
        async |users, track| prefill(installation, users, track, &[("SOURCE", file.clone().into())]).await;
    write(users)?;
    let runs = bench
        .pairs(
            "dump, tracked",
            async || Ok(took(users, true).await?.rate),
            async || Ok(took(users, false).await?.rate),
        )
        .await?;
    let mut row = Row::new(format!("dump of {users} users, tracked"), "objects/s", runs);
    row.note = Some("raw is the same prefill without track".to_owned());
    let users = bench.amount(1_000_000, 100_000) as u32;
    write(users)?;
    let peak = took(users, true).await?.peak_mib;
    bench.say(&format!("dump of {users} users, tracked: {peak:.1} MiB"));
    let memory =
        Row::new(format!("dump of {users} users, tracked: peak memory"), "MiB", vec![Run::alone(peak)]);
    Ok(vec![row, memory.aim(Aim::AtMost(PEAK_MIB))])
}

/// Waits until so many messages are in the queue.
async fn written(
    installation: &Installation,
    task: &PrefillTask,
    process: &mut Process,
    messages: u64,
) -> Result<()> {
    let queue = installation.broker().await?.queue(&task.subscription, task.incarnation);
    let began = Instant::now();
    while queue.pending().await?.is_none_or(|pending| pending.prefill < messages) {
        process.check()?;
        anyhow::ensure!(began.elapsed() < ENDS_WITHIN, "no users come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// From a thousand objects to a million: as many times as long, and no more memory.
async fn by_size(bench: &Bench, installation: &Installation) -> Result<Vec<Row>> {
    let sizes: &[u32] = if bench.quick { &[1_000, 10_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let folder = tempfile::Builder::new().prefix("bench-dump-").tempdir_in(&bench.programs.folder)?;
    let file = folder.path().join("directory.jsonl");
    let mut rows = Vec::new();
    for users in sizes {
        Directory { users: *users, members: Some(1_000), ..Directory::default() }
            .dump(&bench.programs, &file)?;
        let (mut rates, mut peaks) = (Vec::new(), Vec::new());
        // The largest takes a minute.
        for number in 1..=if *users > 100_000 { 1 } else { bench.runs.min(3) } {
            let took = prefill(installation, *users, false, &[("SOURCE", file.clone().into())]).await?;
            bench.say(&format!(
                "dump of {users} users, run {number}: {:.0}/s, {:.1} MiB",
                took.rate, took.peak_mib
            ));
            rates.push(Run::alone(took.rate));
            peaks.push(Run::alone(took.peak_mib));
        }
        rows.push(Row::new(format!("dump of {users} users"), "objects/s", rates));
        rows.push(
            Row::new(format!("dump of {users} users: peak memory"), "MiB", peaks).aim(Aim::AtMost(PEAK_MIB)),
        );
    }
    Ok(rows)
}

/// The largest group, then a list of a million users, of whom enough are read that memory grows no more.
async fn memory(bench: &Bench, installation: &Installation) -> Result<Row> {
    let (users, members) = (bench.amount(1_000_000, 100_000) as u32, bench.amount(100_000, 50_000) as u32);
    let udm =
        Directory { users, members: Some(members), ..Directory::default() }.serve(&bench.programs).await?;
    let reads = Duration::from_secs(bench.amount(40, 8) as u64);
    let task = installation.ask_for_prefill("large", &["groups/group", "users/user"], false).await?;
    let queue = installation.broker().await?.queue(&task.subscription, task.incarnation);
    let mut process = installation.start_prefill(&task, &of_udm(&udm, None))?;
    // The group is in before the list of the users is asked for.
    written(installation, &task, &mut process, 2_000).await?;
    tokio::time::sleep(reads).await;
    process.check()?;
    let peak = process.peak_mib()?;
    let read = queue.pending().await?.map_or(0, |pending| pending.prefill);
    process.stop().await?;
    remove(&mut installation.admin().await?, "large").await?;
    bench.say(&format!("{users} users, {read} read: {peak:.1} MiB"));
    let name = format!("UDM, a group of {members} members, then a list of {users} users: peak memory");
    let mut row = Row::new(name, "MiB", vec![Run::alone(peak)]).aim(Aim::AtMost(PEAK_MIB));
    row.note = Some(format!("stopped after {read} objects: the list is held from the first user on"));
    Ok(row)
}
