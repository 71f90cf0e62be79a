//! The object whose turn it is waits for nothing: whatever fails, however large the objects behind it, it ends.

use std::time::Duration;

use prefill_job::source::udm::Config;
use stand_in_udm::{Directory, Effect, Faults, Rule, StandIn};

use crate::source_support::read;
use crate::{expected, source_with};

/// More objects of a size than there is room for, while the first of them has to be asked for again.
#[tokio::test]
async fn an_object_that_is_asked_for_again_does_not_wait_behind_large_ones() {
    for (count, kilobytes, place, effect, times) in [
        // Photos for everybody, and one connection that is cut.
        (160, 100, 40, Effect::Cut { bytes: 60_000 }, 1),
        (160, 100, 0, Effect::Cut { bytes: 0 }, 1),
        // Groups of ten thousand members and more.
        (40, 600, 0, Effect::Hang, 1),
        (40, 600, 3, Effect::Status { code: 503 }, 3),
        (40, 600, 5, Effect::Status { code: 500 }, 2),
        (20, 2_000, 1, Effect::Status { code: 503 }, 1),
        (20, 2_000, 1, Effect::HangInBody { bytes: 900_000 }, 1),
    ] {
        let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
        for n in 0..count {
            let photo = "/9j/".repeat(kilobytes * 256);
            let text = format!(
                r#"{{"dn":"cn={n},dc=x","objectType":"my/large","properties":{{"jpegPhoto":"{photo}"}}}}"#
            );
            udm.directory().put(&text).unwrap();
        }
        udm.faults().add(Rule::new(effect.clone()).dn(&format!("cn={place},dc=x")).times(times));
        let quick = |config: &mut Config| config.request_timeout = Duration::from_secs(3);
        let read = read(&source_with(&udm, quick), &["my/large"]).await.well();
        assert!(read.texts() == expected(&udm, "my/large"), "{count} of {kilobytes} KB, {effect:?}");
    }
}
