//! How fast the sources are. Numbers to look at, not to pass: run with
//! `cargo test --release -p prefill-job --test source_speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod source_support;

use std::io::Write as _;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use prefill_job::source::dump::Dump;
use prefill_job::source::udm::{Config, Credentials, Udm};
use prefill_job::source::{Source, SourceEvent};
use source_support::topics;
use stand_in_udm::{Directory, Faults, Population, Settings, StandIn};
use tokio::sync::mpsc;

const ASKED: [&str; 2] = ["users/user", "groups/group"];

/// Users: `SOURCE_SPEED_USERS`, or 20,000.
fn directory() -> Directory {
    let users =
        std::env::var("SOURCE_SPEED_USERS").ok().and_then(|users| users.parse().ok()).unwrap_or(20_000);
    let population =
        Population { users, groups: users / 20, domain_users: Some(10_000), ..Population::default() };
    Directory::generated(population)
}

async fn measure(name: &str, source: Source, asked: &[&str]) {
    let (sender, mut receiver) = mpsc::channel(1000);
    let topics = topics(asked);
    let started = Instant::now();
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    let (mut objects, mut bytes) = (0_u64, 0_u64);
    let mut first = None;
    while let Some(event) = receiver.recv().await {
        if let SourceEvent::Object(object) = event {
            first.get_or_insert_with(|| started.elapsed());
            objects += 1;
            bytes += object.object.get().len() as u64;
        }
    }
    reading.await.unwrap().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    let rate = objects as f64 / seconds;
    let megabytes = bytes as f64 / seconds / 1e6;
    println!(
        "{name}: {objects} objects in {seconds:.1} s, {rate:.0}/s, {megabytes:.0} MB/s, first after {first:.1?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn objects_a_second() {
    let mut text = Vec::new();
    stand_in_udm::dump::write(&directory(), "http://udm/univention", &mut text).unwrap();
    let mut plain = tempfile::NamedTempFile::new().unwrap();
    plain.write_all(&text).unwrap();
    let mut encoder = GzEncoder::new(tempfile::NamedTempFile::new().unwrap(), Compression::fast());
    encoder.write_all(&text).unwrap();
    let compressed = encoder.finish().unwrap();
    drop(text);
    measure("dump, plain", Source::Dump(Dump::new(plain.path())), &ASKED).await;
    measure("dump, gzip", Source::Dump(Dump::new(compressed.path())), &ASKED).await;

    let udm = StandIn::start(directory(), Faults::default()).await.unwrap();
    for (delay_ms, concurrency_max) in [(0, 64), (5, 1), (5, 64)] {
        udm.faults().update(|faults| faults.get_delay_ms = delay_ms);
        let name = format!("UDM, {delay_ms} ms, up to {concurrency_max} at once");
        measure(&name, of_udm(&udm, concurrency_max), &ASKED).await;
    }
}

fn of_udm(udm: &StandIn, concurrency_max: usize) -> Source {
    let credentials = Credentials::Basic { username: "cn=admin".to_owned(), password: "univention".into() };
    let config = Config { concurrency_max, ..Config::new(udm.base_url(), credentials) };
    Source::Udm(Udm::new(config).unwrap())
}

/// For `docs/decisions/0009`: several connections of one reader, or several readers of a part each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn connections_or_shards() {
    const OBJECTS: usize = 9_000;
    let directory = Directory::empty();
    let filling = "x".repeat(2_900);
    let put = |module: &str, n: usize| {
        let text = format!(r#"{{"dn":"cn={n},cn={module},dc=x","objectType":"{module}","f":"{filling}"}}"#);
        directory.put(&text).unwrap();
    };
    (0..OBJECTS).for_each(|n| put("all/all", n));
    (0..OBJECTS).for_each(|n| put(&format!("part/p{}", n % 3), n));
    for backends in [1, 3] {
        let settings = Settings { backends, ..Settings::default() };
        let faults =
            Faults { get_delay_ms: 10, get_serial_us: 1500, crowding_percent: 3, ..Faults::default() };
        let udm = StandIn::start_with(settings, directory.clone(), faults).await.unwrap();
        measure(&format!("{backends} pods, one reader, one connection"), of_udm(&udm, 1), &["part/p0"]).await;
        measure(&format!("{backends} pods, one reader"), of_udm(&udm, 64), &["all/all"]).await;
        println!("   at most {} at once", udm.counters().numbers().objects_at_once_max);
        udm.counters().reset();
        let started = Instant::now();
        let parts = [["part/p0"], ["part/p1"], ["part/p2"]];
        let reads = parts.iter().map(|part| measure("   a part", of_udm(&udm, 64), part));
        futures::future::join_all(reads).await;
        let rate = OBJECTS as f64 / started.elapsed().as_secs_f64();
        let most = udm.counters().numbers().objects_at_once_max;
        println!("{backends} pods, three readers of a third each: {rate:.0}/s, at most {most} at once");
    }
}
