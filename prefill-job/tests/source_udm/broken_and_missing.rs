//! Objects that can't be read, and types that are not there: an error, or left out where that is asked for.

use std::collections::HashSet;
use std::time::Duration;

use model::ExitCode;
use prefill_job::source::udm::{BrokenObjects, Config, MissingTypes};
use prefill_job::source::{SourceError, SourceEvent};
use stand_in_udm::{Effect, Faults, On, Rule};

use crate::source_support::read;
use crate::{USERS, eventually, expected, reading, source, source_with, stand_in};

#[tokio::test]
async fn a_topic_without_a_module_may_come_later() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.unloaded_modules = ["oxmail/oxcontext".to_owned()].into());
    let asked = ["users/user", "oxmail/oxcontext"];
    let strict = |config: &mut Config| config.missing_types = MissingTypes::Fail;
    let early = read(&source_with(&udm, strict), &asked).await;
    assert!(matches!(early.error(), SourceError::NoModule { topic } if topic == "oxmail/oxcontext"));
    assert!(early.error().is_transient());
    assert!(early.texts().is_empty(), "it is known before anything is sent");
    assert!(
        early.retries().iter().all(|told| told.contains("oxmail/oxcontext")) && !early.retries().is_empty()
    );
    udm.faults().set(Faults::default());
    assert_eq!(read(&source(&udm), &asked).await.well().texts().len(), USERS as usize + 3);
}

#[tokio::test]
async fn an_error_names_the_object_by_its_uuid_and_not_by_names_of_people() {
    let udm = stand_in().await;
    let dn = &udm.directory().dns("users/user")[7];
    let uuid = udm.directory().get(dn).unwrap().head.uuid.clone();
    udm.faults().add(Rule::new(Effect::Status { code: 500 }).dn(dn));
    let fail = |config: &mut Config| config.broken_objects = BrokenObjects::Fail;
    let read = read(&source_with(&udm, fail), &["users/user"]).await;
    let error = read.error();
    assert!(error.to_string().contains(&uuid), "{error}");
    let name = dn.split(['=', ',']).nth(1).unwrap();
    assert!(!format!("{error:?}").contains(name));
    assert!(read.objects().len() <= 7, "nothing behind the gap");
}

#[tokio::test]
async fn a_topic_that_is_missing_is_waited_for_and_then_left_out_and_named() {
    let udm = stand_in().await;
    let skip = |_: &mut Config| {};
    udm.faults().update(|faults| faults.unloaded_modules = ["oxmail/oxcontext".to_owned()].into());
    let asked = ["oxmail/oxcontext", "groups/group", "no/.*"];
    let read_some = read(&source_with(&udm, skip), &asked).await.well();
    assert_eq!(read_some.texts(), expected(&udm, "groups/group"));
    assert_eq!(
        read_some.story()[..3],
        ["oxmail/oxcontext: no module", "no/.*: no module", "groups/group: 9"]
    );

    // In the index, but not in the process that is asked for the list.
    udm.faults().set(Faults {
        rules: vec![Rule::new(Effect::Status { code: 404 }).on(On::List).module("oxmail/oxcontext")],
        ..Faults::default()
    });
    let read_some = read(&source_with(&udm, skip), &asked).await.well();
    assert_eq!(read_some.story()[..2], ["no/.*: no module", "oxmail/oxcontext: no module"]);
    let strict = |config: &mut Config| config.missing_types = MissingTypes::Fail;
    assert!(read(&source_with(&udm, strict), &asked[..2]).await.error().is_transient());
}

#[tokio::test]
async fn a_topic_that_comes_while_it_is_waited_for_is_read_at_its_place() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.unloaded_modules = ["oxmail/oxcontext".to_owned()].into());
    let patient = source_with(&udm, |config| config.missing_wait = Duration::from_secs(60));
    let asked = ["oxmail/oxcontext", "groups/group"];
    let loaded = async {
        eventually("it was looked for twice", || udm.counters().numbers().index >= 2).await;
        udm.faults().set(Faults::default());
    };
    let (read, ()) = tokio::join!(read(&patient, &asked), loaded);
    assert_eq!(read.well().story()[..2], ["oxmail/oxcontext: 3", "3 objects"]);
}

#[tokio::test]
async fn broken_objects_are_set_aside_and_the_others_come_in_order() {
    let udm = stand_in().await;
    let dns = udm.directory().dns("users/user");
    let quick = |config: &mut Config| {
        config.broken_objects = BrokenObjects::SetAside;
        // What hangs hangs for ever; what is only slow on a busy machine does not count.
        config.request_timeout = Duration::from_secs(1);
    };
    let broken = [
        (0, Effect::Status { code: 500 }),
        (1, Effect::Truncate { bytes: 300 }),
        (30, Effect::Html),
        (31, Effect::Hang),
        (40, Effect::Status { code: 400 }),
        (41, Effect::Status { code: 403 }),
        (42, Effect::Status { code: 422 }),
        (59, Effect::HangInBody { bytes: 100 }),
    ];
    for (place, effect) in &broken {
        udm.faults().add(Rule::new(effect.clone()).dn(&dns[*place]));
    }
    let read_some = read(&source_with(&udm, quick), &["users/user"]).await.well();
    let mut wanted = expected(&udm, "users/user");
    broken.iter().rev().for_each(|(place, _)| _ = wanted.remove(*place));
    assert_eq!(read_some.texts(), wanted);
    let told: Vec<_> = read_some
        .events
        .iter()
        .filter_map(|event| match event {
            SourceEvent::Broken { topic, dn, problem, .. } => {
                Some((topic.as_str(), dn.as_str(), problem.as_str()))
            }
            _ => None,
        })
        .collect();
    for ((place, _), ((topic, dn, problem), word)) in broken.iter().zip(told.iter().zip([
        "500, \"as the",
        "EOF",
        "JSON",
        "no answer",
        "400",
        "403",
        "422",
        "no answer",
    ])) {
        assert_eq!((*topic, *dn), ("users/user", dns[*place].as_str()));
        let name = dn.split(['=', ',']).nth(1).unwrap();
        assert!(problem.contains(word) && !problem.contains(name), "{problem}");
    }
    assert_eq!(told.len(), broken.len());
    assert_eq!(
        udm.counters().numbers().objects,
        52 + 2 * 3 + 3 * 4 + 3 * 2,
        "each was tried again within bounds"
    );
}

#[tokio::test]
async fn a_udm_that_breaks_on_everything_is_no_directory_of_broken_objects() {
    let udm = stand_in().await;
    udm.faults().add(Rule::new(Effect::Status { code: 500 }).on(On::Object));
    let set_aside = |config: &mut Config| config.broken_objects = BrokenObjects::SetAside;
    let read_none = read(&source_with(&udm, set_aside), &["users/user"]).await;
    assert!(matches!(read_none.error(), SourceError::TooManyBroken { in_a_row: 16, all: 16, .. }));
    assert!(read_none.error().is_transient());
}

#[tokio::test]
async fn a_container_of_broken_objects_is_no_broken_udm() {
    let udm = stand_in().await;
    let dns = udm.directory().dns("users/user");
    for dn in &dns[10..40] {
        udm.faults().add(Rule::new(Effect::Status { code: 400 }).dn(dn));
    }
    let read_some = read(&source(&udm), &["users/user"]).await.well();
    let broken = |event: &&SourceEvent| matches!(event, SourceEvent::Broken { .. });
    assert_eq!(
        (read_some.objects().len(), read_some.events.iter().filter(broken).count()),
        (USERS as usize - 30, 30)
    );

    // Those whose values break the whole list come first, one after the other.
    udm.faults().set(Faults { broken_entries: dns[..20].iter().cloned().collect(), ..Faults::default() });
    let read_some = read(&source(&udm), &["users/user"]).await.well();
    assert_eq!(
        (read_some.objects().len(), read_some.events.iter().filter(broken).count()),
        (USERS as usize - 20, 20)
    );

    // It breaks on everything from the tenth on: on the ninth, too.
    udm.faults().set(Faults::default());
    udm.faults().add(Rule::new(Effect::Status { code: 500 }).on(On::Object).after(10));
    let read_none = read(&source(&udm), &["users/user"]).await;
    assert!(matches!(read_none.error(), SourceError::TooManyBroken { .. }), "{:?}", read_none.error());
}

#[tokio::test]
async fn what_holds_for_all_is_never_set_aside() {
    let udm = stand_in().await;
    let impatient = |config: &mut Config| {
        (config.retries.away, config.retries.refused) =
            (Duration::from_millis(150), Duration::from_millis(150));
    };
    for (code, exit_code) in
        [(406, ExitCode::BadRequest), (401, ExitCode::CredentialsRefused), (503, ExitCode::Transient)]
    {
        let rule = Rule::new(Effect::Status { code }).on(On::Object);
        udm.faults().set(Faults { rules: vec![rule], ..Faults::default() });
        let read_none = read(&source_with(&udm, impatient), &["users/user"]).await;
        assert_eq!(read_none.error().exit_code(), exit_code);
        assert!(read_none.objects().is_empty());
        assert!(read_none.events.iter().all(|event| !matches!(event, SourceEvent::Broken { .. })));
    }
}

#[tokio::test]
async fn a_directory_that_hangs_is_no_directory_of_broken_objects() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.get_delay_ms = 5);
    let quick = source_with(&udm, |config| {
        config.request_timeout = Duration::from_millis(500);
        config.retries.away = Duration::from_secs(60);
    });
    let (reading, mut events) = reading(quick);
    let mut objects = 0;
    while let Some(event) = events.recv().await {
        assert!(!matches!(event, SourceEvent::Broken { .. }), "{event:?}");
        objects += u32::from(matches!(event, SourceEvent::Object(_)));
        if objects == 5 && udm.faults().get().rules.is_empty() {
            udm.faults().add(Rule::new(Effect::Hang));
            let before = udm.counters().numbers().index;
            eventually("it was looked whether UDM answers others", || {
                udm.counters().numbers().index > before + 1
            })
            .await;
            udm.faults().set(Faults::default());
        }
    }
    reading.await.unwrap().unwrap();
    assert_eq!(objects, USERS);
}

#[tokio::test]
async fn an_entry_that_breaks_the_whole_list_is_found_and_named_and_all_others_come() {
    let udm = stand_in().await;
    let dns = udm.directory().dns("users/user");
    udm.faults().update(|faults| faults.broken_entries = [dns[7].clone(), dns[30].clone()].into());
    let read_some = read(&source(&udm), &["users/user", "groups/group"]).await.well();
    let broken: HashSet<_> = read_some
        .events
        .iter()
        .filter_map(|event| match event {
            SourceEvent::Broken { dn, problem, uuid: Some(_), .. } => {
                assert!(problem.contains("invalid literal"), "{problem}");
                Some(dn.clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(broken, [dns[7].clone(), dns[30].clone()].into());
    let mut wanted = expected(&udm, "users/user");
    wanted.remove(30);
    wanted.remove(7);
    wanted.extend(expected(&udm, "groups/group"));
    let read_texts: HashSet<_> = read_some.texts().into_iter().map(str::to_owned).collect();
    assert_eq!(read_texts, wanted.into_iter().collect());
    assert_eq!(read_some.story()[0], "users/user: 60");

    let fail = |config: &mut Config| config.broken_objects = BrokenObjects::Fail;
    let error = read(&source_with(&udm, fail), &["users/user"]).await;
    let uuid = udm.directory().get(&dns[7]).unwrap().head.uuid.clone();
    let other = udm.directory().get(&dns[30]).unwrap().head.uuid.clone();
    let text = model::error_chain(error.error());
    assert!(error.error().is_transient() && (text.contains(&uuid) || text.contains(&other)), "{text}");
}

#[tokio::test]
async fn an_entry_that_nobody_can_read_costs_no_other_of_its_list() {
    // No text, and no name at all.
    for (index, with) in [(7, r#""uid=\udc80""#), (30, "null")] {
        let udm = stand_in().await;
        let dn = udm.directory().dns("users/user")[index].clone();
        let effect = Effect::Replace { from: format!(r#""{dn}""#), to: with.to_owned() };
        udm.faults().add(Rule::new(effect).on(On::List));
        let read_some = read(&source(&udm), &["users/user", "groups/group"]).await.well();
        let broken = |event: &SourceEvent| match event {
            SourceEvent::Broken { dn, uuid: Some(_), .. } => Some(dn.clone()),
            _ => None,
        };
        assert_eq!(read_some.events.iter().filter_map(broken).collect::<Vec<_>>(), [dn]);
        let mut wanted = expected(&udm, "users/user");
        wanted.remove(index);
        wanted.extend(expected(&udm, "groups/group"));
        let read_texts: HashSet<_> = read_some.texts().into_iter().map(str::to_owned).collect();
        assert_eq!(read_texts, wanted.into_iter().collect());
    }
}

#[tokio::test]
async fn a_list_beyond_the_size_limit_is_read_in_parts() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.size_limit = Some(20));
    let read_all = read(&source(&udm), &["users/user"]).await.well();
    let read_texts: HashSet<_> = read_all.texts().into_iter().map(str::to_owned).collect();
    assert_eq!(read_texts, expected(&udm, "users/user").into_iter().collect());
}

#[tokio::test]
async fn a_404_counts_as_gone_only_if_a_search_does_not_find_the_object_either() {
    let udm = stand_in().await;
    let dns = udm.directory().dns("groups/group");
    // Moved after it was listed: read where it is.
    udm.faults().add(Rule::new(Effect::Move { to: "cn=elsewhere,dc=x".to_owned() }).dn(&dns[3]));
    // Hidden from this account, or by a proxy that rewrites addresses: named, and not taken for a deletion.
    udm.faults().add(Rule::new(Effect::Status { code: 404 }).dn(&dns[5]));
    let read_some = read(&source(&udm), &["groups/group"]).await.well();
    assert_eq!(read_some.objects().len(), 8);
    assert!(read_some.texts()[3].contains("cn=elsewhere,dc=x"));
    assert!(read_some.events.iter().any(
        |event| matches!(event, SourceEvent::Broken { dn, problem, .. } if *dn == dns[5] && problem.contains("404"))
    ));
    assert!(!read_some.events.iter().any(|event| matches!(event, SourceEvent::Skipped { .. })));
}

#[tokio::test]
async fn a_process_that_does_not_know_the_type_is_no_deletion_of_its_objects() {
    let udm = stand_in().await;
    let source = source(&udm);
    // The list came from another process.
    let unload = Rule::new(Effect::Unload { module: "oxmail/accessprofile".to_owned() });
    udm.faults().add(unload.on(On::Object).module("oxmail/accessprofile").times(1));
    let lost = read(&source, &["oxmail/accessprofile"]).await;
    assert!(lost.error().is_transient(), "{:?}", lost.error());
    assert!(lost.objects().is_empty());
    let seen =
        |event: &SourceEvent| matches!(event, SourceEvent::Skipped { .. } | SourceEvent::Broken { .. });
    assert!(!lost.events.iter().any(seen), "{:?}", lost.story());
}
