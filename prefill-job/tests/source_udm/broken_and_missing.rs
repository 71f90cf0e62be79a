//! Objects that can't be read, and types that are not there: an error, or left out where that is asked for.

use std::time::Duration;

use model::ExitCode;
use prefill_job::source::udm::{BrokenObjects, Config, MissingTypes};
use prefill_job::source::{SourceError, SourceEvent};
use stand_in_udm::{Effect, Faults, On, Rule};

use crate::source_support::read;
use crate::{USERS, expected, source, source_with, stand_in};

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
async fn a_topic_that_is_missing_is_left_out_and_named_if_that_is_asked_for() {
    let udm = stand_in().await;
    let skip = |config: &mut Config| config.missing_types = MissingTypes::Skip;
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
    assert_eq!(read(&source(&udm), &asked[..2]).await.error().exit_code(), ExitCode::BadRequest);
}

#[tokio::test]
async fn broken_objects_are_set_aside_if_that_is_asked_for_and_the_others_come_in_order() {
    let udm = stand_in().await;
    let dns = udm.directory().dns("users/user");
    let quick = |config: &mut Config| {
        config.broken_objects = BrokenObjects::SetAside;
        config.request_timeout = Duration::from_millis(300);
    };
    let broken = [
        (0, Effect::Status { code: 500 }),
        (1, Effect::Truncate { bytes: 300 }),
        (30, Effect::Html),
        (31, Effect::Hang),
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
            SourceEvent::Broken { topic, dn, problem } => {
                Some((topic.as_str(), dn.as_str(), problem.as_str()))
            }
            _ => None,
        })
        .collect();
    for ((place, _), ((topic, dn, problem), word)) in
        broken.iter().zip(told.iter().zip(["500", "EOF", "JSON", "no answer", "no answer"]))
    {
        assert_eq!((*topic, *dn), ("users/user", dns[*place].as_str()));
        let name = dn.split(['=', ',']).nth(1).unwrap();
        assert!(problem.contains(word) && !problem.contains(name), "{problem}");
    }
    assert_eq!(told.len(), broken.len());
    assert_eq!(udm.counters().numbers().objects, 55 + 5 * 3, "each was tried again within bounds");
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
async fn what_is_refused_is_never_set_aside() {
    let udm = stand_in().await;
    let set_aside = |config: &mut Config| config.broken_objects = BrokenObjects::SetAside;
    for (code, exit_code) in
        [(403, ExitCode::BadRequest), (401, ExitCode::CredentialsRefused), (503, ExitCode::Transient)]
    {
        let rule = Rule::new(Effect::Status { code }).on(On::Object);
        udm.faults().set(Faults { rules: vec![rule], ..Faults::default() });
        let read_none = read(&source_with(&udm, set_aside), &["users/user"]).await;
        assert_eq!(read_none.error().exit_code(), exit_code);
        assert!(read_none.objects().is_empty());
    }
}
