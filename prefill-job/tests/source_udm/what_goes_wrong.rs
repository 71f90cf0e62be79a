//! What goes wrong, and passes or does not.

use std::time::{Duration, Instant};

use model::ExitCode;
use prefill_job::source::udm::{BrokenObjects, Config, Udm};
use prefill_job::source::{Source, SourceError, SourceEvent};
use stand_in_udm::{Directory, Effect, Faults, On, Population, Rule, Settings, StandIn};

use crate::source_support::read;
use crate::{config, eventually, expected, reading, source, source_with, stand_in};

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
    assert_eq!(udm.counters().numbers().lists["users/user"], 1 + 3, "but confirmed by a search");
    let confirmed = |event: &&SourceEvent| matches!(event, SourceEvent::Skipped { confirmed: true, .. });
    assert_eq!(read.events.iter().filter(confirmed).count(), 3);
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
                read(&source_with(&udm, |config| config.concurrency_max = 1), &["groups/group"]).await.well();
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
        (Effect::Status { code: 500 }, On::Object, Some(4), ExitCode::Transient),
        (Effect::Status { code: 400 }, On::Object, Some(2), ExitCode::Transient),
        (Effect::Status { code: 403 }, On::Object, Some(2), ExitCode::Transient),
        (Effect::Status { code: 422 }, On::Object, Some(2), ExitCode::Transient),
        (Effect::Status { code: 503 }, On::Index, None, ExitCode::Transient),
        (Effect::Status { code: 503 }, On::List, None, ExitCode::Transient),
        (Effect::LdapDown { retry_after: zero() }, On::Object, None, ExitCode::Transient),
        // Eight times, and once more since UDM answers others.
        (Effect::Status { code: 502 }, On::Object, Some(9), ExitCode::Transient),
        (Effect::Cut { bytes: 200 }, On::List, Some(8), ExitCode::Transient),
        (Effect::Status { code: 401 }, On::Index, None, ExitCode::CredentialsRefused),
        (Effect::Status { code: 401 }, On::Object, None, ExitCode::CredentialsRefused),
        (Effect::Status { code: 403 }, On::List, Some(1), ExitCode::BadRequest),
        (Effect::Status { code: 406 }, On::Index, Some(1), ExitCode::BadRequest),
        (Effect::Status { code: 422 }, On::List, Some(1), ExitCode::BadRequest),
        (Effect::Status { code: 404 }, On::Index, Some(8), ExitCode::BadRequest),
        // The list is searched for the entries that are to blame.
        (Effect::Truncate { bytes: 300 }, On::List, None, ExitCode::Transient),
        (Effect::Truncate { bytes: 300 }, On::Object, Some(3), ExitCode::Transient),
        (Effect::Html, On::Index, Some(8), ExitCode::Transient),
        // Eight times, and once more to see whether an entry is to blame.
        (Effect::Html, On::List, Some(9), ExitCode::Transient),
    ] {
        let rule = Rule::new(effect.clone()).on(on);
        udm.faults().set(Faults { rules: vec![rule], ..Faults::default() });
        udm.counters().reset();
        let strict = |config: &mut Config| {
            config.concurrency_max = 1;
            config.broken_objects = BrokenObjects::Fail;
            (config.retries.away, config.retries.refused) =
                (Duration::from_millis(200), Duration::from_millis(200));
        };
        let read = read(&source_with(&udm, strict), &["users/user"]).await;
        let error = read.error();
        assert_eq!(error.exit_code(), exit_code, "{effect:?} {on:?}: {error:?}");
        assert_eq!(error.is_transient(), exit_code == ExitCode::Transient);
        let numbers = udm.counters().numbers();
        let sent = match on {
            On::Index => numbers.index,
            On::List => numbers.lists["users/user"],
            // The next ones may have been begun before the first gave up; but none is asked for more often.
            _ => {
                let mut times = std::collections::BTreeMap::<String, u64>::new();
                for asked in udm
                    .counters()
                    .asked()
                    .iter()
                    .filter(|asked| asked.target.contains("uid%3D") || asked.target.contains("uid="))
                {
                    *times.entry(asked.target.clone()).or_default() += 1;
                }
                times.into_values().max().unwrap_or(0)
            }
        };
        match tries {
            Some(tries) => assert_eq!(sent, tries, "{effect:?} {on:?}"),
            None => assert!(sent.max(numbers.objects) > 3, "{effect:?} {on:?} {sent}"),
        }
        let words = format!("{error} {error:?} {:?}", read.events);
        assert!(!words.contains("\"univention\"") && !words.contains("traceback"), "{words}");
    }
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
        config.broken_objects = BrokenObjects::Fail;
        config.retries.away = Duration::from_millis(700);
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
                // As a whole; then its halves.
                let asked = udm.counters().asked();
                let is_whole = |t: &str| t.contains("groups/group/?") && !t.contains("entryUUID");
                let whole = asked.iter().filter(|asked| is_whole(&asked.target)).count();
                assert!((1..=3).contains(&whole), "{whole}");
            }
        }
    }
}

#[tokio::test]
async fn a_list_that_takes_its_time_is_no_timeout_while_it_comes() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.list_delay_ms = 1500);
    let source = source_with(&udm, |config| {
        config.request_timeout = Duration::from_secs(1);
        config.idle_timeout = Duration::from_secs(1);
    });
    assert!(read(&source, &["groups/group"]).await.well().retries().is_empty());
}

#[tokio::test]
async fn the_size_limit_is_told_in_udms_own_words() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.size_limit = Some(0));
    let read = read(&source(&udm), &["users/user"]).await;
    let error = read.error();
    assert_eq!(error.exit_code(), ExitCode::BadRequest);
    assert!(
        error.to_string().contains("too many results") && error.to_string().contains("sizelimit"),
        "{error}"
    );
}

#[tokio::test]
async fn udm_may_be_away_and_come_back() {
    let udm = stand_in().await;
    let (address, source) = (udm.address(), source(&udm));
    udm.stop().await.unwrap();
    let mut impatient = config(&format!("http://{address}"));
    impatient.retries.away = Duration::from_millis(200);
    let absent = Source::Udm(Udm::new(impatient).unwrap());
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
    let bounded = |config: &mut Config| {
        config.max_object_bytes = 4000;
        config.broken_objects = BrokenObjects::Fail;
    };
    let read = read(&source_with(&udm, bounded), &["users/user"]).await;
    assert!(matches!(read.error(), SourceError::BrokenObject { .. }));
    assert!(model::error_chain(read.error()).contains("more than 4000 bytes"));
}

#[tokio::test]
async fn udm_may_be_started_again_while_objects_are_read() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.get_delay_ms = 10);
    let (address, directory, expected) =
        (udm.address(), udm.directory().clone(), expected(&udm, "users/user"));
    let (reading, mut events) = reading(source(&udm));
    let (mut udm, mut texts) = (Some(udm), Vec::new());
    while let Some(event) = events.recv().await {
        let SourceEvent::Object(object) = event else { continue };
        texts.push(object.object.get().to_owned());
        if texts.len() == 5 {
            udm.take().unwrap().stop().await.unwrap();
            let settings = Settings { listen: address, ..Settings::default() };
            let again = StandIn::start_with(settings, directory.clone(), Faults::default());
            udm = Some(again.await.unwrap());
        }
    }
    reading.await.unwrap().unwrap();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn what_udm_asks_of_one_request_holds_for_all() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.get_delay_ms = 5);
    udm.faults().add(
        Rule::new(Effect::LdapDown { retry_after: Some("1".to_owned()) }).on(On::Object).after(10).times(1),
    );
    let source = source(&udm);
    let reading = read(&source, &["users/user"]);
    let looking = async {
        let asked = || udm.counters().numbers();
        eventually("UDM has asked for a pause", || asked().statuses.contains_key(&503)).await;
        // What was under way may still be served.
        eventually("nothing is under way", || asked().objects_now == 0).await;
        let before = asked().objects;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(asked().objects, before, "nobody asks before");
    };
    let (read, ()) = tokio::join!(reading, looking);
    assert_eq!(read.well().texts(), expected(&udm, "users/user"));
}
