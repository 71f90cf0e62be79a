//! The UDM source against a server that has UDM's nasty sides.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod source_support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use model::{ExitCode, RealmTopic};
use prefill_job::source::udm::{Config, Credentials, Retries, Secret, Udm};
use prefill_job::source::{Source, SourceError, SourceEvent};
use source_support::{read, topics};
use stand_in_udm::{Directory, Effect, Faults, On, Population, Rule, Settings, StandIn};
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
    config.retries = Retries { first_wait: Duration::from_millis(5), ..Retries::default() };
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

// ---- what comes ----

#[tokio::test]
async fn all_objects_come_in_the_order_of_the_topics_and_of_the_lists_byte_by_byte() {
    let udm = stand_in().await;
    let asked = ["groups/group", "users/user", "container/ou", "oxresources/oxresources", "dns/alias"];
    let read = read(&source(&udm), &asked).await.well();
    let wanted: Vec<String> = asked.iter().flat_map(|module| expected(&udm, module)).collect();
    assert_eq!(read.texts(), wanted);
    assert_eq!(
        read.story(),
        [
            "groups/group: 9",
            "9 objects",
            "groups/group done",
            "users/user: 60",
            "60 objects",
            "users/user done",
            "container/ou: 9",
            "9 objects",
            "container/ou done",
            "oxresources/oxresources: 0",
            "oxresources/oxresources done",
            "dns/alias: 2",
            "2 objects",
            "dns/alias done"
        ]
    );
    assert!(read.texts().iter().all(|text| !text.contains("\"_links\"")));
    assert!(read.texts().iter().any(|text| text.contains("\"superordinate\"")));
}

#[tokio::test]
async fn numbers_key_order_and_escapes_stay_as_they_are() {
    let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
    // One for each place where the server puts `_links`.
    for name in ["a", "bb", "ccc"] {
        let text = format!(
            r#"{{"z":1,  "objectType":"my/module","dn":"cn={name},dc=x","f":2.0,"m":-0.0,"e":1E+2,"big":123456789012345678901234567890,"properties":{{"_links":{{"kept":[]}},"u":"\u00fc\/ü","n":null,"a":[]}} , "a":{{}}}}"#
        );
        udm.directory().put(&text).unwrap();
    }
    let read = read(&source(&udm), &["my/module"]).await.well();
    assert_eq!(read.texts(), expected(&udm, "my/module"));
    assert!(read.texts()[0].contains(r#""f":2.0,"m":-0.0,"e":1E+2,"big":123456789012345678901234567890"#));
}

#[tokio::test]
async fn a_pattern_is_expanded_and_no_module_is_read_twice() {
    let udm = stand_in().await;
    let read = read(&source(&udm), &["groups/group", "users/.*", "groups/.*"]).await.well();
    let story = read.story();
    assert!(
        !story.iter().any(|line| line.starts_with("users/self") || line.starts_with("users/passwd")),
        "{story:?}"
    );
    let dns: Vec<_> = read.texts();
    assert_eq!(dns.iter().collect::<HashSet<_>>().len(), dns.len());
    assert_eq!(dns.len(), 9 + USERS as usize);
    let numbers = udm.counters().numbers();
    assert_eq!((numbers.index, numbers.lists["groups/group"]), (1, 1));
}

#[tokio::test]
async fn everything_comes_once_under_its_own_type_although_virtual_modules_show_it_again() {
    let udm = stand_in().await;
    let read = read(&source(&udm), &[".*"]).await.well();
    let mut seen = HashSet::new();
    for (topic, text) in read.objects() {
        let object: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(object["objectType"], topic);
        assert!(seen.insert(object["dn"].as_str().unwrap().to_owned()), "twice: {text}");
    }
    let modules = udm.directory().modules();
    let own = modules.names().filter(|name| modules.listed_types(name) == [(*name).to_owned()]);
    let all: HashSet<String> = own.flat_map(|name| udm.directory().dns(name)).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn the_objects_of_a_virtual_module_come_with_their_own_topic_if_that_was_asked_for() {
    let udm = stand_in().await;
    let read_both = read(&source(&udm), &["computers/computer", "computers/linux"]).await.well();
    assert_eq!(read_both.texts(), expected(&udm, "computers/linux"));
    assert_eq!(read_both.story()[0], "computers/computer: 0");
    assert!(read(&source(&udm), &["computers/computer"]).await.well().objects().is_empty());
}

#[tokio::test]
async fn other_realms_are_passed_over() {
    let udm = stand_in().await;
    let (sender, _receiver) = mpsc::channel(1);
    let topics = [RealmTopic { realm: "other".to_owned(), topic: "users/user".to_owned() }];
    source(&udm).read(&topics, sender.clone()).await.unwrap();
    source(&udm).read(&[], sender).await.unwrap();
    assert!(udm.counters().asked().is_empty());
}

// ---- how it asks ----

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

#[tokio::test]
async fn the_bound_on_parallel_requests_is_used_and_kept() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.get_delay_ms = 20);
    for concurrency in [1, 8] {
        udm.counters().reset();
        let started = Instant::now();
        read(&source_with(&udm, |config| config.concurrency = concurrency), &["users/user"]).await.well();
        let duration = started.elapsed();
        assert_eq!(udm.counters().numbers().objects_at_once_max, concurrency as u64);
        let sequential = Duration::from_millis(20) * USERS;
        assert_eq!(concurrency == 1, duration >= sequential, "{concurrency}: {duration:?}");
    }
}

#[tokio::test]
async fn a_slow_object_holds_up_neither_the_others_nor_the_order() {
    let udm = stand_in().await;
    let slow = &udm.directory().dns("users/user")[0];
    udm.faults().add(Rule::new(Effect::Delay { ms: 400 }).dn(slow));
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
        (20..=33).contains(&read_before_first),
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

// ---- what goes wrong ----

#[tokio::test]
async fn an_object_that_vanished_after_the_list_is_skipped() {
    let udm = stand_in().await;
    let dns = udm.directory().dns("users/user");
    for dn in [&dns[0], &dns[30], &dns[59]] {
        udm.faults().add(Rule::new(Effect::Vanish).dn(dn));
    }
    let read = read(&source(&udm), &["users/user"]).await.well();
    assert_eq!(
        read.story(),
        [
            "users/user: 60",
            "one of users/user skipped",
            "29 objects",
            "one of users/user skipped",
            "28 objects",
            "one of users/user skipped",
            "users/user done"
        ]
    );
    assert_eq!(read.texts(), expected(&udm, "users/user"));
    assert_eq!(udm.counters().numbers().objects, 60, "a 404 is not asked again");
}

#[tokio::test]
async fn a_list_whose_objects_are_all_gone_is_well() {
    let udm = stand_in().await;
    udm.faults().add(Rule::new(Effect::VanishAfter).on(On::List));
    let read = read(&source(&udm), &["groups/group"]).await.well();
    assert_eq!((read.objects().len(), read.story().len()), (0, 11));
}

#[tokio::test]
async fn what_passes_is_tried_again_and_reported() {
    let udm = stand_in().await;
    let zero = || Some("0".to_owned());
    for effect in [
        Effect::Status { code: 500 },
        Effect::Status { code: 502 },
        Effect::Status { code: 504 },
        Effect::Status { code: 429 },
        Effect::Status { code: 401 },
        Effect::LdapDown { retry_after: zero() },
        Effect::BackendDown { retry_after: zero() },
        Effect::BackendDown { retry_after: Some("Wed, 21 Oct 2015 07:28:00 GMT".to_owned()) },
        Effect::BackendDown { retry_after: Some("in a while".to_owned()) },
        Effect::Truncate { bytes: 0 },
        Effect::Truncate { bytes: 300 },
        Effect::Cut { bytes: 0 },
        Effect::Cut { bytes: 300 },
        Effect::Html,
    ] {
        for on in [On::Index, On::List, On::Object] {
            let rule = Rule::new(effect.clone()).on(on).times(2);
            udm.faults().set(Faults { rules: vec![rule], ..Faults::default() });
            let read =
                read(&source_with(&udm, |config| config.concurrency = 1), &["groups/group"]).await.well();
            assert_eq!(read.texts(), expected(&udm, "groups/group"), "{effect:?} {on:?}");
            // Reports are left out while the channel is full, but not before the first object.
            assert!(on == On::Object || read.retries().len() == 2, "{effect:?} {on:?} {:?}", read.retries());
        }
    }
}

#[tokio::test]
async fn what_does_not_pass_ends_after_a_bounded_number_of_tries() {
    let udm = stand_in().await;
    let zero = || Some("0".to_owned());
    for (effect, on, tries, exit_code) in [
        (Effect::Status { code: 500 }, On::Object, 3, ExitCode::Transient),
        (Effect::Status { code: 500 }, On::List, 3, ExitCode::Transient),
        (Effect::Status { code: 503 }, On::Index, 8, ExitCode::Transient),
        (Effect::LdapDown { retry_after: zero() }, On::Object, 8, ExitCode::Transient),
        (Effect::Cut { bytes: 200 }, On::List, 8, ExitCode::Transient),
        (Effect::Status { code: 401 }, On::Index, 3, ExitCode::CredentialsRefused),
        (Effect::Status { code: 401 }, On::Object, 3, ExitCode::CredentialsRefused),
        (Effect::Status { code: 400 }, On::List, 1, ExitCode::BadRequest),
        (Effect::Status { code: 403 }, On::List, 1, ExitCode::BadRequest),
        (Effect::Status { code: 403 }, On::Object, 1, ExitCode::BadRequest),
        (Effect::Status { code: 406 }, On::Index, 1, ExitCode::BadRequest),
        (Effect::Status { code: 422 }, On::List, 1, ExitCode::BadRequest),
        (Effect::Status { code: 404 }, On::Index, 3, ExitCode::BadRequest),
        (Effect::Status { code: 404 }, On::List, 3, ExitCode::BadRequest),
        (Effect::Truncate { bytes: 300 }, On::List, 3, ExitCode::BadData),
        (Effect::Truncate { bytes: 300 }, On::Object, 3, ExitCode::BadData),
        (Effect::Html, On::Index, 3, ExitCode::BadData),
        (Effect::Html, On::List, 3, ExitCode::BadData),
    ] {
        let rule = Rule::new(effect.clone()).on(on);
        udm.faults().set(Faults { rules: vec![rule], ..Faults::default() });
        udm.counters().reset();
        let read = read(&source_with(&udm, |config| config.concurrency = 1), &["users/user"]).await;
        let error = read.error();
        assert_eq!(error.exit_code(), exit_code, "{effect:?} {on:?}: {error:?}");
        assert_eq!(error.is_transient(), exit_code == ExitCode::Transient);
        let numbers = udm.counters().numbers();
        let sent = match on {
            On::Index => numbers.index,
            On::List => numbers.lists["users/user"],
            // The next object may have been begun when the first gave up.
            _ => numbers.objects.min(tries),
        };
        assert_eq!(sent, tries, "{effect:?} {on:?}");
        let words = format!("{error} {error:?} {:?}", read.events);
        assert!(!words.contains("\"univention\"") && !words.contains("traceback"), "{words}");
    }
}

#[tokio::test]
async fn an_error_names_the_object_by_its_uuid_and_not_by_names_of_people() {
    let udm = stand_in().await;
    let dn = &udm.directory().dns("users/user")[7];
    let uuid = udm.directory().get(dn).unwrap().head.uuid.clone();
    udm.faults().add(Rule::new(Effect::Status { code: 500 }).dn(dn));
    let read = read(&source(&udm), &["users/user"]).await;
    let error = read.error();
    assert!(error.to_string().contains(&uuid), "{error}");
    let name = dn.split(['=', ',']).nth(1).unwrap();
    assert!(!format!("{error:?}").contains(name));
    assert!(read.objects().len() <= 7, "nothing behind the gap");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let udm = stand_in().await;
    let rule = Rule::new(Effect::LdapDown { retry_after: Some("1".to_owned()) }).on(On::List).times(1);
    udm.faults().add(rule);
    let started = Instant::now();
    read(&source(&udm), &["groups/group"]).await.well();
    assert!(started.elapsed() >= Duration::from_secs(1));

    // Not for ever.
    let rule = Rule::new(Effect::BackendDown { retry_after: Some("86400".to_owned()) }).on(On::List).times(1);
    udm.faults().add(rule);
    let source = source_with(&udm, |config| config.retries.longest_wait = Duration::from_millis(50));
    read(&source, &["groups/group"]).await.well();
}

#[tokio::test]
async fn what_hangs_is_given_up_and_tried_again() {
    let udm = stand_in().await;
    let quick = |config: &mut Config| {
        config.request_timeout = Duration::from_millis(300);
        config.list_timeout = Duration::from_millis(300);
        config.idle_timeout = Duration::from_millis(300);
    };
    for effect in [Effect::Hang, Effect::HangInBody { bytes: 100 }] {
        for on in [On::Index, On::List, On::Object] {
            let rule = Rule::new(effect.clone()).on(on);
            udm.faults().set(Faults { rules: vec![rule.clone().times(1)], ..Faults::default() });
            let once = read(&source_with(&udm, quick), &["groups/group"]).await.well();
            assert_eq!(once.texts(), expected(&udm, "groups/group"), "{effect:?} {on:?}");

            udm.faults().set(Faults { rules: vec![rule], ..Faults::default() });
            udm.counters().reset();
            let always = read(&source_with(&udm, quick), &["groups/group"]).await;
            assert!(always.error().is_transient(), "{effect:?} {on:?}: {:?}", always.error());
            if on == On::List {
                assert_eq!(
                    udm.counters().numbers().lists["groups/group"],
                    2,
                    "UDM still works on the last one"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_list_that_takes_its_time_is_no_timeout_while_it_comes() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.list_delay_ms = 400);
    let source = source_with(&udm, |config| {
        config.request_timeout = Duration::from_millis(200);
        config.idle_timeout = Duration::from_millis(200);
    });
    assert!(read(&source, &["groups/group"]).await.well().retries().is_empty());
}

#[tokio::test]
async fn a_topic_without_a_module_may_come_later() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.unloaded_modules = ["oxmail/oxcontext".to_owned()].into());
    let asked = ["users/user", "oxmail/oxcontext"];
    let early = read(&source(&udm), &asked).await;
    assert!(matches!(early.error(), SourceError::NoModule { topic } if topic == "oxmail/oxcontext"));
    assert!(early.error().is_transient());
    assert!(early.events.is_empty(), "it is known before anything is sent");
    udm.faults().set(Faults::default());
    assert_eq!(read(&source(&udm), &asked).await.well().texts().len(), USERS as usize + 3);
}

#[tokio::test]
async fn the_size_limit_is_told_in_udms_own_words() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.size_limit = Some(59));
    let read = read(&source(&udm), &["users/user"]).await;
    let error = read.error();
    assert_eq!(error.exit_code(), ExitCode::BadRequest);
    assert!(
        error.to_string().contains("too many results") && error.to_string().contains("sizelimit"),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_password_ends_it_without_being_told() {
    let udm = stand_in().await;
    let source = source_with(&udm, |config| config.credentials = credentials("hunter2"));
    let read = read(&source, &["users/user"]).await;
    assert_eq!(read.error().exit_code(), ExitCode::CredentialsRefused);
    assert!(read.error().to_string().contains("cn=admin"));
    assert!(!format!("{source:?} {read:?} {}", read.error()).contains("hunter2"));
}

#[tokio::test]
async fn a_password_in_a_file_may_change_while_objects_are_read() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.get_delay_ms = 10);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "univention\n").unwrap();
    let source = source_with(&udm, |config| config.credentials = credentials(Secret::file(file.path())));
    let (sender, mut receiver) = mpsc::channel(1);
    let topics = topics(&["users/user"]);
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    let mut objects = 0;
    while let Some(event) = receiver.recv().await {
        if matches!(event, SourceEvent::Object(_)) {
            objects += 1;
        }
        if objects == 5 {
            std::fs::write(file.path(), "rotated\n").unwrap();
            udm.set_credentials(stand_in_udm::Credentials {
                password: "rotated".to_owned(),
                ..Default::default()
            });
        }
    }
    reading.await.unwrap().unwrap();
    assert_eq!(objects, USERS as usize);
    assert!(udm.counters().numbers().statuses.contains_key(&401));
}

#[tokio::test]
async fn a_bearer_token_is_sent_as_such() {
    let udm = stand_in().await;
    let token = Some("t0k3n".to_owned());
    udm.set_credentials(stand_in_udm::Credentials { token, ..Default::default() });
    let source = source_with(&udm, |config| config.credentials = Credentials::Bearer("t0k3n".into()));
    read(&source, &["groups/group"]).await.well();
    assert!(udm.counters().asked().iter().all(|asked| asked.headers["authorization"] == "Bearer"));
}

#[tokio::test]
async fn udm_may_be_away_and_come_back() {
    let udm = stand_in().await;
    let (address, source) = (udm.address(), source_with(&udm, |config| config.retries.tries = 200));
    udm.stop().await.unwrap();
    let absent = Source::Udm(Udm::new(config(&format!("http://{address}"))).unwrap());
    assert!(read(&absent, &["users/user"]).await.error().is_transient());

    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let settings = Settings { listen: address, ..Settings::default() };
        let population = Population { users: 5, ..Population::default() };
        StandIn::start_with(settings, Directory::generated(population), Faults::default()).await.unwrap()
    };
    let (read, udm) = tokio::join!(read(&source, &["users/user"]), back);
    assert_eq!(read.well().texts(), expected(&udm, "users/user"));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_at_the_bound() {
    let udm = stand_in().await;
    let source = source_with(&udm, |config| config.max_object_bytes = 4000);
    let read = read(&source, &["users/user"]).await;
    assert_eq!(read.error().exit_code(), ExitCode::BadData);
    assert!(read.error().to_string().contains("more than 4000 bytes"));
}

// ---- how it ends ----

#[tokio::test]
async fn requests_end_when_nobody_waits_for_them() {
    let udm = stand_in().await;
    udm.faults().add(Rule::new(Effect::Hang).on(On::Object));
    let (source, topics) = (source(&udm), topics(&["users/user"]));
    let (sender, _receiver) = mpsc::channel(100);
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    eventually("eight requests hang", || udm.counters().numbers().objects_now == 8).await;
    reading.abort();
    eventually("no request is left", || udm.counters().numbers().objects_now == 0).await;
    assert_eq!(udm.counters().numbers().objects, 8);
}

#[tokio::test]
async fn it_ends_when_the_engine_takes_no_more() {
    let udm = stand_in().await;
    let (sender, mut receiver) = mpsc::channel(1);
    let (source, topics) = (source(&udm), topics(&["users/user"]));
    let reading = tokio::spawn(async move { source.read(&topics, sender).await });
    receiver.recv().await.unwrap();
    drop(receiver);
    let result = tokio::time::timeout(Duration::from_secs(5), reading).await.expect("it ends").unwrap();
    assert!(matches!(result, Err(SourceError::ReceiverGone)));
}

async fn eventually(awaited: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting until {awaited}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
