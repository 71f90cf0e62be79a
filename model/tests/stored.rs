//! What is stored in NATS, literally: as the first release writes it, and with all that was added since. An upgrade
//! reads the one; a field that is renamed or lost is seen by the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use model::{
    Entry, PrefillState,
    checkpoint::{Checkpoint, Marker},
    dead_letter::DeadLetter,
    fence::{Fence, FenceState},
    prefill::{PrefillMode, PrefillTask, Progress},
    resync::KnownObjects,
    subscription::Lifecycle,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const MINE: &str = "00000001-0000-0000-0000-000000000000";

/// Reads a stored value. All of it is there afterwards, beside what has been added.
fn first<T: Serialize + DeserializeOwned>(stored: &Value) -> T {
    let read: T = serde_json::from_value(stored.clone()).unwrap();
    let again = serde_json::to_value(&read).unwrap();
    for (field, value) in stored.as_object().unwrap() {
        let (kept, value) = (&again[field], value);
        match (kept, value) {
            // What is inside has had additions, too.
            (Value::Object(kept), Value::Object(value)) => {
                assert!(value.iter().all(|(k, v)| kept.get(k) == Some(v)), "{field}: {kept:?} of {value:?}");
            }
            _ => assert_eq!(kept, value, "{field}"),
        }
    }
    read
}

/// A value with every field that there is: what is written again is the same.
fn whole<T: Serialize + DeserializeOwned>(stored: &Value) {
    let read: T = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), *stored);
}

#[test]
fn what_the_first_release_stored_is_read() {
    let topics = json!([{"realm": "udm", "topic": "users/user"}]);
    let entry = json!({
        "kind": "subscription", "name": "mail", "incarnation": MINE, "realms_topics": topics,
        "request_prefill": true, "lifecycle": "ready", "first_sequence": 7, "created": "2026-01-01T00:00:00",
        "prefill": {
            "state": "failed", "round": 1, "boundary": 9, "attempt": 2, "since": "2026-01-01T00:00:01",
            "reason": "SourceUnavailable", "message": "away",
        },
    });
    let Entry::Subscription(s) = first(&entry) else { panic!("another kind") };
    assert_eq!((s.lifecycle, s.prefill.state, s.topics_version), (Lifecycle::Ready, PrefillState::Failed, 0));
    assert_eq!((s.track, &s.selection, s.max_removals, s.swept), (false, &None, None, 0));
    assert_eq!((s.prefill.mode, s.prefill.dry_run, s.prefill.paused), (PrefillMode::Prefill, false, false));
    assert_eq!((&s.given_up, &s.lost, s.next_sequence, &s.prefill.asked), (&None, &None, None, &None));

    let Entry::Tombstone(tombstone) = first(&json!({"kind": "tombstone", "next_sequence": 1_000_009})) else {
        panic!("another kind")
    };
    assert_eq!(tombstone.next_sequence, 1_000_009);

    let fence = json!({
        "incarnation": MINE, "round": 1, "attempt": 2, "holder": "pod:0123abcd", "state": "sealed",
        "counts": {"messages": 3, "skipped": 1},
    });
    let fence: Fence = first(&fence);
    assert!(fence.seals(s.incarnation, 2) && !fence.approved && fence.contained.is_empty());
    let counts = fence.counts.unwrap();
    assert_eq!((counts.messages, counts.skipped, counts.set_aside, counts.dry_run), (3, 1, 0, false));
    for (word, state) in [("open", FenceState::Open), ("cancelled", FenceState::Cancelled)] {
        let other =
            json!({"incarnation": MINE, "round": 0, "attempt": 0, "holder": "registration", "state": word});
        assert_eq!(first::<Fence>(&other).state, state);
    }

    let checkpoint = json!({"incarnation": MINE, "incoming_seq": 9, "round": 1, "active": true});
    let checkpoint: Checkpoint = first(&checkpoint);
    assert_eq!((checkpoint.incoming_seq, checkpoint.epoch.round, checkpoint.active), (9, 1, true));
    let marker = json!({"subscription": "mail", "incarnation": MINE, "round": 1, "realms_topics": topics});
    let marker: Marker = first(&marker);
    assert_eq!((marker.epoch, marker.track), (s.epoch(), false));

    let task = json!({
        "subscription": "mail", "incarnation": MINE, "round": 1, "attempt": 2, "realms_topics": topics,
    });
    assert_eq!(first::<PrefillTask>(&task), PrefillTask::of(&s));

    let letter = json!({
        "incarnation": MINE, "origin": {"from": "live", "incoming_seq": 9}, "reason": "TooLarge",
        "topic": "users/user", "dn": "uid=a,dc=x", "size": 9, "limit": 8, "at": "2026-01-01T00:00:00",
    });
    assert!(first::<DeadLetter>(&letter).is_current(&s));
    let letter = json!({
        "incarnation": MINE, "origin": {"from": "prefill", "attempt": 1}, "reason": "TooLarge",
        "topic": "users/user", "size": 9, "limit": 8, "at": "2026-01-01T00:00:00",
    });
    assert!(!first::<DeadLetter>(&letter).is_current(&s), "of an attempt before");

    let progress = json!({
        "incarnation": MINE, "attempt": 2, "topic": "users/user", "done": 5, "total": 9, "skipped": 1,
        "rate": 2.5, "error": "503",
    });
    let progress: Progress = first(&progress);
    assert_eq!((progress.set_aside, progress.removed, progress.missing.len()), (0, 0, 0));

    // The fifth member came later.
    let known = json!({"objects": [["users/user", "uid=a,dc=x", "a", null]]});
    let known: KnownObjects = first(&known);
    assert_eq!((known.removed, known.absent, known.objects[0].uuid.as_deref()), (false, false, None));
}

#[test]
fn what_is_stored_now_is_read_as_it_was_written() {
    let topics = json!([{"realm": "udm", "topic": "users/user"}]);
    let selection = json!({
        "filter": "(uid=a*)", "position": "cn=users,dc=x", "properties": {"strip": ["jpegPhoto"]},
    });
    let removals = json!({"users/user": {"known": 9, "removed": 5}});
    let at = "2026-01-01T00:00:00";
    whole::<Entry>(&json!({
        "kind": "subscription", "name": "mail", "incarnation": MINE, "realms_topics": topics, "topics_version": 3,
        "request_prefill": true, "selection": selection, "track": true, "max_removals": 7,
        "lifecycle": "deleting", "first_sequence": 7, "next_sequence": 8, "created": at,
        "prefill": {
            "state": "running", "mode": "resync", "max_removals": {"percent": 5, "objects": 6}, "dry_run": true,
            "round": 2, "boundary": 9, "attempt": 3, "asked": at, "since": at, "reason": "QuotaExceeded",
            "message": "full", "paused": true,
            "attempts": [{
                "attempt": 1, "round": 1, "state": "failed", "reason": "Cancelled", "message": "by hand",
                "started": at, "ended": at, "objects": 4,
            }],
        },
        "swept": 4,
        "given_up": {"at": at, "limit": "messages", "live": 1, "prefill": 2},
        "lost": {"at": at, "incoming_seq": 5},
    }));
    whole::<Fence>(&json!({
        "incarnation": MINE, "round": 2, "attempt": 3, "holder": "pod:0123abcd", "state": "held",
        "counts": {
            "messages": 1, "skipped": 2, "set_aside": 3, "not_selected": 4, "removed": 5, "moved": 6,
            "removals": removals, "dry_run": true, "missing": ["odd/type"], "warnings": ["odd"],
        },
        "contained": [7, 8], "known_below": 9, "approved": true,
    }));
    whole::<Checkpoint>(&json!({
        "incarnation": MINE, "incoming_seq": 9, "round": 1, "topics_version": 2, "realms_topics": topics,
        "active": true,
    }));
    whole::<Marker>(&json!({
        "subscription": "mail", "incarnation": MINE, "round": 1, "topics_version": 2, "realms_topics": topics,
        "selection": selection, "track": true,
    }));
    whole::<PrefillTask>(&json!({
        "subscription": "mail", "incarnation": MINE, "round": 1, "attempt": 2, "realms_topics": topics,
        "selection": selection, "track": true, "mode": "resync", "max_removals": 5, "dry_run": true,
    }));
    whole::<DeadLetter>(&json!({
        "incarnation": MINE, "origin": {"from": "prefill", "attempt": 1}, "reason": "Unreadable",
        "problem": "500", "topic": "users/user", "dn": "uid=a,dc=x", "size": 9, "limit": 8, "at": at,
    }));
    whole::<Progress>(&json!({
        "incarnation": MINE, "attempt": 2, "phase": "listing", "topic": "users/user", "done": 5, "total": 9,
        "skipped": 1, "set_aside": 2, "missing": ["odd/type"], "warnings": ["odd"], "not_selected": 3,
        "removed": 4, "removals": removals, "rate": 2.5, "error": "503",
    }));
    whole::<KnownObjects>(&json!({
        "removed": true, "absent": true,
        "objects": [["users/user", "uid=a,dc=x", "a", "identifier", "uuid"], ["users/user", "uid=b,dc=x", null, null]],
    }));
}
