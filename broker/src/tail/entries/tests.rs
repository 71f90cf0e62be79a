use std::time::Duration;

use model::{RealmTopic, checkpoint::Marker};
use uuid::Uuid;

use super::*;
use crate::{LargeEvent, Letter, Whose};

const MINE: Incarnation = Incarnation(Uuid::from_u128(1));
const OTHER: Incarnation = Incarnation(Uuid::from_u128(2));
const ANY: Bound = Bound { entries: usize::MAX, bytes: usize::MAX };

fn topics(topic: &str) -> Vec<RealmTopic> {
    vec![RealmTopic { realm: "udm".into(), topic: topic.into() }]
}

fn event(topic: &str) -> LogItem {
    LogItem::Event(format!(r#"{{"realm":"udm","topic":"{topic}"}}"#).into())
}

fn large(topic: &str) -> LogItem {
    let (realm, topic) = ("udm".into(), topic.into());
    LogItem::TooLarge(LargeEvent { realm, topic, dn: None, size: 9, limit: 1 })
}

fn whose(incarnation: Incarnation) -> Whose {
    Whose { subscription: "mail".parse().unwrap(), incarnation }
}

fn marker(incarnation: Incarnation, round: u32) -> LogItem {
    LogItem::Marker(Marker {
        subscription: "mail".parse().unwrap(),
        incarnation,
        epoch: Epoch { round, topics_version: 0 },
        realms_topics: topics("u"),
        selection: None,
        track: false,
    })
}

fn entries(base: u64, items: &[LogItem]) -> Entries {
    let mut entries = Entries::new(ANY, base);
    for (sequence, item) in (base + 1..).zip(items.iter().cloned()) {
        let entry = LogEntry { sequence, accepted: SystemTime::UNIX_EPOCH, item };
        assert!(entries.push(entry, Instant::now()).is_some(), "{sequence}");
    }
    entries
}

fn ahead(entries: &Entries, after: u64, until: u64, most: Bound) -> Option<(Vec<u64>, u64, bool)> {
    let matcher = Matcher::new(&topics("u"), None).unwrap();
    let epoch = Epoch { round: 2, topics_version: 0 };
    let wanted = Wanted { incarnation: MINE, epoch, matcher: &matcher, largest: 40 };
    let Ahead { events, through, barred } = entries.ahead(&wanted, after, until, most)?;
    Some((events.iter().map(|event| event.place).collect(), through, barred))
}

#[test]
fn what_a_queue_gets_of_the_log() {
    let letter = |incarnation| LogItem::Letter(Letter { whose: whose(incarnation), message: "{}".into() });
    let unreadable = |incarnation: Option<Incarnation>| LogItem::Unreadable(incarnation.map(whose));
    let longer = LogItem::Event(format!(r#"{{"realm":"udm","topic":"u","x":"{}"}}"#, "x".repeat(40)).into());
    for (items, places, through, barred) in [
        (vec![event("u"), event("g"), event("u")], vec![11, 13], 13, false),
        (vec![event("g"), LogItem::Event("no JSON".into())], vec![], 12, false),
        // Markers of others, and those that never take effect, are passed.
        (vec![event("u"), marker(OTHER, 9), marker(MINE, 1), event("u")], vec![11, 14], 14, false),
        // What only the dispatcher passes.
        (vec![event("u"), marker(MINE, 2), event("u")], vec![11], 11, true),
        (vec![event("u"), marker(MINE, 3), event("u")], vec![11], 11, true),
        (vec![large("g"), event("u"), large("u"), event("u")], vec![12], 12, true),
        (vec![longer, event("u")], vec![], 10, true),
        (vec![unreadable(None), unreadable(Some(OTHER)), event("u")], vec![13], 13, false),
        (vec![unreadable(Some(MINE)), event("u")], vec![], 10, true),
        // A letter is for one alone, whatever its topic.
        (vec![letter(OTHER), letter(MINE), event("u")], vec![12, 13], 13, false),
    ] {
        let found = ahead(&entries(10, &items), 10, u64::MAX, ANY);
        assert_eq!(found, Some((places, through, barred)), "{items:?}");
    }
}

#[test]
fn what_is_looked_at_is_bounded_and_what_is_not_held_is_unknown() {
    let held = entries(10, &[event("u"), event("u"), event("g"), event("u")]);
    let size = r#"{"realm":"udm","topic":"u"}"#.len();
    let bound = |entries, bytes| Bound { entries, bytes };
    for (after, until, most, expected) in [
        (10, u64::MAX, bound(2, usize::MAX), Some((vec![11, 12], 12, false))),
        (10, u64::MAX, bound(9, size), Some((vec![11], 11, false))),
        (10, u64::MAX, bound(9, size + 1), Some((vec![11, 12], 12, false))),
        (10, 12, ANY, Some((vec![11, 12], 12, false))),
        (12, 13, ANY, Some((vec![], 13, false))),
        (12, u64::MAX, ANY, Some((vec![14], 14, false))),
        (14, u64::MAX, ANY, Some((vec![], 14, false))),
        // Ahead of what was read.
        (20, u64::MAX, ANY, Some((vec![], 20, false))),
        (9, u64::MAX, ANY, None),
    ] {
        assert_eq!(ahead(&held, after, until, most), expected, "{after} {until} {most:?}");
    }
}

#[test]
fn a_gap_is_noticed_and_the_oldest_are_dropped() {
    let mut held = Entries::new(Bound { entries: 3, bytes: 100 }, 0);
    let entry = |sequence| LogEntry { sequence, accepted: SystemTime::UNIX_EPOCH, item: event("u") };
    for sequence in 1..=5 {
        assert!(held.push(entry(sequence), Instant::now()).is_some());
    }
    assert_eq!((held.base(), held.end()), (2, 5));
    assert!(held.push(entry(7), Instant::now()).is_none());
    assert!(held.push(entry(5), Instant::now()).is_none());
    assert_eq!(held.end(), 5);
    // By bytes: 27 each.
    let mut held = Entries::new(Bound { entries: 9, bytes: 60 }, 0);
    for sequence in 1..=5 {
        held.push(entry(sequence), Instant::now());
    }
    assert_eq!((held.base(), held.end()), (3, 5));
}

#[test]
fn what_every_queue_has_is_forgotten_after_a_while() {
    let mut held = entries(10, &[event("u"), event("u"), event("u")]);
    let now = Instant::now();
    held.forget(now.checked_sub(Duration::from_secs(60)).unwrap(), 12);
    assert_eq!(held.base(), 10, "too young");
    held.forget(now + Duration::from_secs(1), 12);
    assert_eq!((held.base(), held.end()), (12, 13), "not beyond the position");
    assert_eq!(held.bytes, r#"{"realm":"udm","topic":"u"}"#.len());
    held.forget(now + Duration::from_secs(1), 99);
    assert_eq!((held.base(), held.end(), held.bytes), (13, 13, 0));
}

#[test]
fn who_has_to_look() {
    let mut held = Entries::new(ANY, 0);
    let topic = |topic: &str| Concerns::Topic(Arc::new(Head { realm: "udm".into(), topic: topic.into() }));
    for (sequence, (item, expected)) in (1..).zip([
        (event("u"), topic("u")),
        (large("g"), topic("g")),
        (marker(MINE, 1), Concerns::Queue(MINE)),
        (LogItem::Letter(Letter { whose: whose(OTHER), message: "{}".into() }), Concerns::Queue(OTHER)),
        (LogItem::Unreadable(None), Concerns::Nobody),
        (LogItem::Event("x".into()), Concerns::Nobody),
    ]) {
        let entry = LogEntry { sequence, accepted: SystemTime::UNIX_EPOCH, item };
        assert_eq!(held.push(entry, Instant::now()), Some(expected));
    }
}
