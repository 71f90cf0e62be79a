//! Who asks, and credentials that change.

use std::time::Duration;

use model::ExitCode;
use prefill_job::source::SourceEvent;
use prefill_job::source::udm::{Config, Credentials, Secret};
use stand_in_udm::Faults;

use crate::source_support::read;
use crate::{USERS, credentials, eventually, reading, source, source_with, stand_in};

#[tokio::test]
async fn a_wrong_password_ends_it_without_being_told() {
    let udm = stand_in().await;
    let source = source_with(&udm, |config| {
        config.credentials = credentials("hunter2");
        config.retries.refused = Duration::from_millis(200);
    });
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
    let (reading, mut receiver) = reading(source);
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
async fn credentials_that_were_good_may_be_refused_for_a_while() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.get_delay_ms = 10);
    let (reading, mut events) = reading(source(&udm));
    let set = |password: &str| {
        udm.set_credentials(stand_in_udm::Credentials {
            password: password.to_owned(),
            ..Default::default()
        });
    };
    let mut objects = 0;
    while let Some(event) = events.recv().await {
        if matches!(event, SourceEvent::Object(_)) {
            objects += 1;
        }
        if objects == 5 {
            set("rotated");
            eventually("it is refused", || udm.counters().numbers().statuses.contains_key(&401)).await;
            set("univention");
        }
    }
    reading.await.unwrap().unwrap();
    assert_eq!(objects, USERS as usize);
}

#[tokio::test]
async fn credentials_that_stay_refused_end_it_after_a_bounded_number_of_tries() {
    let udm = stand_in().await;
    udm.faults().update(|faults| faults.get_delay_ms = 10);
    let (reading, mut events) =
        reading(source_with(&udm, |config| config.retries.refused = Duration::from_millis(500)));
    while let Some(event) = events.recv().await {
        if matches!(event, SourceEvent::Object(_)) {
            let password = "rotated".to_owned();
            udm.set_credentials(stand_in_udm::Credentials { password, ..Default::default() });
        }
    }
    let error = reading.await.unwrap().unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::CredentialsRefused);
    // The first object is tried for half a second; fewer and fewer are asked for beside it.
    let refused = udm.counters().numbers().statuses[&401];
    assert!((4..=40).contains(&refused), "{refused}");
}

#[tokio::test]
async fn a_directory_that_is_away_answers_as_to_a_wrong_password_and_is_waited_for() {
    let udm = stand_in().await;
    let patient = |config: &mut Config| {
        config.retries.slow_refusal = Duration::from_millis(50);
        // Refusals at once would end it long before.
        config.retries.refused = Duration::from_millis(100);
    };
    // From the start, and in the middle.
    for objects_before in [0, 20] {
        udm.faults().set(Faults { get_delay_ms: 5, ..Faults::default() });
        let before = udm.counters().numbers();
        let away = async {
            eventually("so many are read", || {
                udm.counters().numbers().objects >= before.objects + objects_before
            })
            .await;
            udm.faults().update(|faults| faults.directory_away_ms = Some(60));
            let seen = before.statuses.get(&401).copied().unwrap_or(0);
            eventually("it was refused for longer than refusals are borne", || {
                udm.counters().numbers().statuses.get(&401).is_some_and(|refused| *refused >= seen + 6)
            })
            .await;
            udm.faults().update(|faults| faults.directory_away_ms = None);
        };
        let source = source_with(&udm, patient);
        let (read, ()) = tokio::join!(read(&source, &["users/user"]), away);
        assert_eq!(read.well().objects().len(), USERS as usize);
    }
    udm.faults().update(|faults| faults.directory_away_ms = Some(60));
    let gone = source_with(&udm, |config| {
        patient(config);
        config.retries.away = Duration::from_millis(300);
    });
    let gone = read(&gone, &["users/user"]).await;
    assert!(gone.error().is_transient(), "{:?}", gone.error());
    assert!(model::error_chain(gone.error()).contains("LDAP"), "{}", model::error_chain(gone.error()));
}
