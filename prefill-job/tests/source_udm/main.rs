//! The UDM source against a server that has UDM's nasty sides.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../source_support/mod.rs"]
mod source_support;

mod broken_and_missing;
mod credentials;
mod how_it_asks;
mod how_it_ends;
mod turn;
mod what_comes;
mod what_goes_wrong;

use std::time::{Duration, Instant};

use prefill_job::source::udm::{Config, Credentials, Retries, Secret, Udm};
use prefill_job::source::{Source, SourceEvent};
use source_support::topics;
use stand_in_udm::{Directory, Faults, Population, StandIn};
use tokio::sync::mpsc;

const USERS: u32 = 60;

async fn stand_in() -> StandIn {
    let population = Population { users: USERS, groups: 8, photos_per_mille: 50, ..Population::default() };
    StandIn::start(Directory::generated(population), Faults::default()).await.unwrap()
}

fn credentials(password: impl Into<Secret>) -> Credentials {
    Credentials::Basic { username: "cn=admin".to_owned(), password: password.into() }
}

/// Quick waits, everything else as usual.
fn config(base_url: &str) -> Config {
    let mut config = Config::new(base_url, credentials("univention"));
    config.retries = Retries {
        first_wait: Duration::from_millis(5),
        usual_wait_max: Duration::from_millis(100),
        ..Retries::default()
    };
    config.missing_wait = Duration::from_millis(50);
    config
}

fn source(udm: &StandIn) -> Source {
    source_with(udm, |_| {})
}

fn source_with(udm: &StandIn, change: impl FnOnce(&mut Config)) -> Source {
    let mut config = config(&udm.base_url());
    change(&mut config);
    Source::Udm(Udm::new(config).unwrap())
}

/// What has to come for a topic, byte by byte.
fn expected(udm: &StandIn, module: &str) -> Vec<String> {
    udm.directory().dns(module).iter().map(|dn| udm.without_links(dn).unwrap()).collect()
}

/// Reads the users in the background; the events come as they are sent.
fn reading(
    source: Source,
) -> (tokio::task::JoinHandle<Result<(), prefill_job::source::SourceError>>, mpsc::Receiver<SourceEvent>) {
    let (sender, receiver) = mpsc::channel(1);
    let topics = topics(&["users/user"]);
    (tokio::spawn(async move { source.read(&topics, sender).await }), receiver)
}

async fn eventually(awaited: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting until {awaited}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
