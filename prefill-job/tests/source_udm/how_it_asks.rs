//! How it asks: headers, addresses, how much at once.

use std::collections::HashSet;
use std::time::Duration;

use model::ExitCode;
use prefill_job::source::udm::Udm;
use prefill_job::source::{Source, SourceError, SourceEvent};
use stand_in_udm::{Directory, Effect, Faults, On, Population, Rule, Settings, StandIn};
use tokio::sync::mpsc;

use crate::source_support::{read, topics};
use crate::{USERS, config, expected, source, source_with, stand_in};

#[tokio::test]
async fn requests_carry_what_udm_needs_and_no_page() {
    let udm = stand_in().await;
    udm.faults().add(Rule::new(Effect::Status { code: 500 }).on(On::Object).times(2));
    read(&source(&udm), &["users/user"]).await.well();
    let asked = udm.counters().asked();
    assert_eq!(asked.len(), 1 + 1 + USERS as usize + 2);
    let mut ids = HashSet::new();
    for request in &asked {
        assert_eq!(request.method, "GET");
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        assert_eq!((header("accept"), header("accept-language")), ("application/json", "en-US"));
        assert_eq!(header("authorization"), "Basic");
        let id = header("x-request-id");
        assert!(
            id.len() <= 36 && !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'),
            "{id}"
        );
        assert!(ids.insert(id.to_owned()), "an id of its own for each try");
        assert!(!request.target.contains("page") && !request.target.contains("limit"));
    }
    assert_eq!(asked[0].target, "/univention/udm/");
    assert_eq!(asked[1].target, "/univention/udm/users/user/?scope=sub&hidden=true&opened=0&properties=dn");
}

/// The most that was asked for at once while many users were read.
async fn at_once_max(concurrency_max: usize, faults: Faults) -> u64 {
    let population = Population { users: 1500, photos_per_mille: 0, ..Population::default() };
    let udm = StandIn::start(Directory::generated(population), faults).await.unwrap();
    let source = source_with(&udm, |config| config.concurrency_max = concurrency_max);
    assert_eq!(read(&source, &["users/user"]).await.well().objects().len(), 1500);
    udm.counters().numbers().objects_at_once_max
}

#[tokio::test]
async fn more_is_asked_for_at_once_while_udm_is_not_slower_for_it_and_never_more_than_allowed() {
    let side_by_side = Faults { get_delay_ms: 30, ..Faults::default() };
    assert_eq!(at_once_max(6, side_by_side.clone()).await, 6);
    let unbounded = at_once_max(64, side_by_side).await;
    // How far it goes is shown by models of directories; this machine has other work, too.
    assert!((5..=64).contains(&unbounded), "{unbounded}");
}

#[tokio::test]
async fn little_is_asked_for_at_once_where_more_is_not_faster() {
    let one_by_one = Faults { get_serial_us: 4000, crowding_percent: 5, ..Faults::default() };
    let most = at_once_max(64, one_by_one).await;
    // What it settles at is shown by models of directories; this machine has other work, too.
    assert!((4..64).contains(&most), "{most}");
}

#[tokio::test]
async fn one_at_a_time_if_so_asked() {
    let udm = stand_in().await;
    read(&source_with(&udm, |config| config.concurrency_max = 1), &["users/user"]).await.well();
    assert_eq!(udm.counters().numbers().objects_at_once_max, 1);
}

#[tokio::test]
async fn a_slow_object_holds_up_neither_the_others_nor_the_order() {
    let udm = stand_in().await;
    let slow = &udm.directory().dns("users/user")[0];
    udm.faults().add(Rule::new(Effect::Delay { ms: 2000 }).dn(slow));
    udm.faults().update(|faults| faults.get_delay_ms = 10);
    let (sender, mut receiver) = mpsc::channel(1000);
    let (source, topics) = (source(&udm), topics(&["users/user"]));
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    let mut texts = Vec::new();
    let mut read_before_first = 0;
    while let Some(event) = receiver.recv().await {
        if let SourceEvent::Object(object) = event {
            if texts.is_empty() {
                read_before_first = udm.counters().numbers().objects;
            }
            texts.push(object.object.get().to_owned());
        }
    }
    reading.await.unwrap().unwrap();
    assert_eq!(texts, expected(&udm, "users/user"));
    assert!(
        (20..=50).contains(&read_before_first),
        "a window's worth was read meanwhile: {read_before_first}"
    );
}

#[tokio::test]
async fn an_engine_that_is_slow_is_no_timeout() {
    let udm = stand_in().await;
    let source = source_with(&udm, |config| {
        config.request_timeout = Duration::from_secs(1);
        config.idle_timeout = Duration::from_secs(1);
    });
    let (sender, mut receiver) = mpsc::channel(1);
    let topics = topics(&["groups/group"]);
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut objects = 0;
    while let Some(event) = receiver.recv().await {
        assert!(!matches!(event, SourceEvent::Retrying { .. }), "{event:?}");
        if matches!(event, SourceEvent::Object(_)) {
            objects += 1;
            if objects == 4 {
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
        }
    }
    reading.await.unwrap().unwrap();
    assert_eq!(objects, 9);
    assert_eq!(udm.counters().numbers().objects, 9, "each was asked for once");
}

#[tokio::test]
async fn links_to_other_hosts_are_not_followed() {
    let (udm, other) = (stand_in().await, stand_in().await);
    let elsewhere = format!("{}/univention", other.origin());
    udm.faults().update(|faults| faults.link_base = Some(elsewhere.clone()));
    let read = read(&source(&udm), &["users/user"]).await.well();
    assert_eq!(read.texts().len(), USERS as usize);
    assert!(read.texts().iter().all(|text| text.contains(&elsewhere)), "the bytes are UDM's");
    assert!(other.counters().asked().is_empty(), "no credentials for others");
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_same_origin_only() {
    let (udm, other) = (stand_in().await, stand_in().await);
    udm.faults().add(Rule::new(Effect::Redirect { to: udm.origin() }).times(3));
    read(&source(&udm), &["groups/group"]).await.well();

    for on in [On::Index, On::List, On::Object] {
        let rule = Rule::new(Effect::Redirect { to: other.origin() }).on(on);
        udm.faults().set(Faults { rules: vec![rule], ..Faults::default() });
        let read = read(&source(&udm), &["groups/group"]).await;
        assert!(matches!(read.error(), SourceError::Refused { status: 301, .. }), "{:?}", read.error());
        assert_eq!(read.error().exit_code(), ExitCode::BadRequest);
    }
    assert!(other.counters().asked().is_empty(), "no credentials for others");

    udm.faults()
        .set(Faults { rules: vec![Rule::new(Effect::Redirect { to: udm.origin() })], ..Faults::default() });
    assert!(!read(&source(&udm), &["groups/group"]).await.error().is_transient(), "a circle ends");
}

#[tokio::test]
async fn heads_of_many_links_are_read() {
    let population = Population { users: 1500, photos_per_mille: 0, ..Population::default() };
    let faults = Faults { link_headers: 1000, ..Faults::default() };
    let udm = StandIn::start(Directory::generated(population), faults).await.unwrap();
    let read = read(&source(&udm), &["groups/group"]).await.well();
    assert_eq!(read.texts(), expected(&udm, "groups/group"));
}

#[tokio::test]
async fn the_base_is_taken_without_its_last_part_and_with_another_prefix() {
    for prefix in ["", "/univention", "/a/b"] {
        let settings = Settings { prefix: prefix.to_owned(), ..Settings::default() };
        let udm =
            StandIn::start_with(settings, Directory::generated(Population::default()), Faults::default());
        let udm = udm.await.unwrap();
        for base in
            [udm.base_url(), format!("{}{prefix}", udm.origin()), format!("{}{prefix}/udm", udm.origin())]
        {
            let source = Source::Udm(Udm::new(config(&base)).unwrap());
            assert_eq!(read(&source, &["container/ou"]).await.well().texts().len(), 9, "{base}");
        }
    }
    let wrong = Udm::new(config("udm:9979")).unwrap_err();
    assert!(wrong.to_string().contains("UDM base URL"), "{wrong}");
}
