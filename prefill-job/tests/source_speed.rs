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
use stand_in_udm::{Directory, Faults, Population, StandIn};
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

async fn measure(name: &str, source: Source) {
    let (sender, mut receiver) = mpsc::channel(1000);
    let started = Instant::now();
    let reading = tokio::spawn(async move { source.read(&topics(&ASKED), sender).await });
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
    measure("dump, plain", Source::Dump(Dump::new(plain.path()))).await;
    measure("dump, gzip", Source::Dump(Dump::new(compressed.path()))).await;

    let udm = StandIn::start(directory(), Faults::default()).await.unwrap();
    for (delay_ms, concurrency) in [(0, 8), (5, 1), (5, 8), (5, 16)] {
        udm.faults().update(|faults| faults.get_delay_ms = delay_ms);
        let credentials =
            Credentials::Basic { username: "cn=admin".to_owned(), password: "univention".into() };
        let mut config = Config::new(udm.base_url(), credentials);
        config.concurrency_max = concurrency;
        let name = format!("UDM, {delay_ms} ms, {concurrency} at once");
        measure(&name, Source::Udm(Udm::new(config).unwrap())).await;
    }
}
