use model::{Incarnation, checkpoint::Epoch};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const SMALL: Bound = Bound { entries: 3, bytes: 1000 };

fn event(sequence: u64) -> Item {
    Item::Event { sequence, accepted: std::time::UNIX_EPOCH, payload: Bytes::from_static(b"12345") }
}

fn marker(sequence: u64) -> Item {
    let marker = Marker {
        subscription: "mail".parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(1)),
        epoch: Epoch::default(),
        realms_topics: vec![],
        selection: None,
        track: false,
    };
    Item::Marker { sequence, marker: Arc::new(marker) }
}

fn sequences(taken: Taken) -> Vec<u64> {
    match taken {
        Taken::Items(items) => items.iter().map(Item::sequence).collect(),
        Taken::Nothing => vec![],
        behind @ Taken::Behind { .. } => panic!("{behind:?}"),
    }
}

#[test]
fn batches_end_at_markers_and_at_their_bounds() {
    let mut mailbox = Mailbox::new(Bound { entries: 100, bytes: 1000 });
    for sequence in [2, 3] {
        mailbox.put(event(sequence), Instant::now());
    }
    mailbox.put(marker(5), Instant::now());
    for sequence in 6..12 {
        mailbox.put(event(sequence), Instant::now());
    }
    let mut batches = vec![];
    for (entries, bytes) in [(100, 1000), (100, 1000), (2, 1000), (100, 6), (100, 1000)] {
        batches.push(sequences(mailbox.take(entries, bytes)));
        mailbox.done();
    }
    assert_eq!(batches, [vec![2, 3], vec![5], vec![6, 7], vec![8, 9], vec![10, 11]]);
    assert_eq!((mailbox.take(1, 1), mailbox.oldest(), mailbox.bytes), (Taken::Nothing, None, 0));
}

#[test]
fn what_waits_is_held_unless_it_is_much_or_not_to_be_copied() {
    let (began, hold) = (Instant::now(), Duration::from_secs(2));
    let later = began + Duration::from_secs(1);
    let bound = Bound { entries: 6, bytes: 1000 };
    let mailbox = |items: &[Item]| {
        let mut mailbox = Mailbox::new(bound);
        for (at, item) in [began, later, later, later].into_iter().zip(items.iter().cloned()) {
            mailbox.put(item, at);
        }
        mailbox
    };
    let letter = Item::Letter { sequence: 3, accepted: std::time::UNIX_EPOCH, payload: Bytes::new() };
    for (items, passed, held) in [
        (vec![], 0, Held::No),
        (vec![event(2)], 0, Held::Until(began + hold)),
        (vec![event(2), letter.clone()], 0, Held::Until(began + hold)),
        // What was acknowledged waits no longer.
        (vec![event(2), event(3)], 2, Held::Until(later + hold)),
        (vec![event(2), letter], 3, Held::No),
        (vec![event(2), event(3), event(4), event(5)], 0, Held::TooMuch),
        (vec![event(2), event(3), event(4), event(5)], 2, Held::Until(later + hold)),
        // A marker is never passed over: its boundary may not be written yet.
        (vec![event(2), marker(3), event(4)], 0, Held::No),
        (vec![event(2), marker(3), event(4)], 4, Held::No),
    ] {
        let mut mailbox = mailbox(&items);
        mailbox.pass(passed);
        assert_eq!(mailbox.held(hold), held, "{items:?} {passed}");
    }
    let mut held = mailbox(&[event(2), marker(3), event(4)]);
    held.pass(4);
    assert_eq!(held.oldest(), Some(3));
    assert_eq!(sequences(held.take(9, 1000)), [3]);
    held.done();
    assert_eq!(held.held(hold), Held::Until(later + hold));
    held.pass(4);
    assert_eq!((held.oldest(), held.bytes, held.take(9, 9)), (None, 0, Taken::Nothing));
    // A lane that can't go on holds nothing back.
    let mut stuck = mailbox(&[event(2)]);
    stuck.stuck();
    assert_eq!(stuck.held(hold), Held::No);
}

#[test]
fn a_working_lane_makes_a_crowd_and_a_stuck_one_loses_its_backlog() {
    let mut mailbox = Mailbox::new(SMALL);
    for sequence in 1..=5 {
        mailbox.put(event(sequence), Instant::now());
    }
    assert!(mailbox.is_crowded(false));
    assert_eq!(sequences(mailbox.take(3, 1000)), [1, 2, 3]);
    assert!(!mailbox.is_crowded(false) && mailbox.is_crowded(true));
    for sequence in 6..=8 {
        mailbox.put(event(sequence), Instant::now());
    }
    mailbox.stuck();
    mailbox.put(event(9), Instant::now());
    assert_eq!((mailbox.oldest(), mailbox.bytes), (Some(1), 0));
    mailbox.done();
    assert_eq!(mailbox.oldest(), Some(4));
    assert_eq!(mailbox.take(9, 1000), Taken::Behind { from: 4 });
    // Far behind: 9 entries were announced when it joins, and 10 is put in.
    assert!(!mailbox.done_through(5));
    assert!(!mailbox.has_joined() && !mailbox.join(9) && mailbox.has_joined());
    mailbox.put(event(9), Instant::now());
    mailbox.put(event(10), Instant::now());
    assert_eq!(mailbox.oldest(), Some(6));
    assert!(mailbox.done_through(9));
    assert_eq!(mailbox.oldest(), Some(10));
    assert_eq!(sequences(mailbox.take(9, 1000)), [10]);
}

#[test]
fn nobody_waits_for_a_lane_that_nobody_needs_until_a_marker_comes() {
    let mut mailbox = Mailbox::new(SMALL);
    assert!(mailbox.is_idle());
    mailbox.put(event(1), Instant::now());
    mailbox.make_room();
    assert_eq!((mailbox.oldest(), mailbox.is_idle(), mailbox.bytes), (Some(1), false, 5), "it may be needed");
    mailbox.unhurried();
    for sequence in 2..=4 {
        assert!(!mailbox.is_crowded(false));
        mailbox.put(event(sequence), Instant::now());
    }
    assert_eq!((mailbox.items.capacity(), mailbox.bytes), (0, 0));
    assert!(!mailbox.is_idle() && !mailbox.is_hurried());
    assert_eq!(mailbox.take(9, 1000), Taken::Behind { from: 1 });
    // What it reads itself is needed up to the marker that the main reader has seen.
    mailbox.put(marker(6), Instant::now());
    assert!(mailbox.is_hurried());
    assert!(!mailbox.done_through(5) && mailbox.is_hurried());
    assert!(!mailbox.done_through(6) && !mailbox.is_hurried());
    assert!(mailbox.join(6) && mailbox.is_idle());
    // Where it is open, a marker is needed, too, and so is what an administrator looks for.
    let large = LargeEvent { realm: "udm".into(), topic: "users/user".into(), dn: None, size: 9, limit: 8 };
    for control in [marker(7), Item::TooLarge { sequence: 8, event: large.into() }] {
        mailbox.put(control, Instant::now());
        assert!(mailbox.is_hurried());
        assert!(matches!(mailbox.take(9, 1000), Taken::Items(_)));
        mailbox.done();
        assert!(!mailbox.is_hurried());
    }
    mailbox.unhurried();
    mailbox.put(event(9), Instant::now());
    mailbox.make_room();
    assert_eq!(mailbox.take(9, 1000), Taken::Behind { from: 9 });
    assert!(mailbox.join(9) || mailbox.done_through(9));
    // It has kept up: it is waited for again.
    assert_eq!(mailbox.take(9, 1000), Taken::Nothing);
    for sequence in 10..=13 {
        mailbox.put(event(sequence), Instant::now());
    }
    assert!(mailbox.is_crowded(false));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The main reader announces the next entry, if it has put in the one before.
    Announce,
    /// It puts it in, or looks at a crowd.
    Put,
    /// The lane goes on with what it does, or takes something.
    Lane,
    /// It is stuck at this moment.
    Stuck,
    /// Nobody waits for its copies.
    Unhurried,
    /// It gives back what it has in its hands.
    GiveBack,
    /// Memory is short.
    MakeRoom,
    /// The main reader's patience is over.
    Shut,
    /// The lane, reading itself, is close enough to join.
    Join,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Announce),
        4 => Just(Step::Put),
        4 => Just(Step::Lane),
        1 => Just(Step::Stuck),
        1 => Just(Step::Unhurried),
        1 => Just(Step::GiveBack),
        1 => Just(Step::MakeRoom),
        1 => Just(Step::Shut),
        2 => Just(Step::Join),
    ]
}

/// A lane and a main reader on a log whose entries are wanted or not.
struct World {
    mailbox: Mailbox,
    wanted: Vec<bool>,
    /// Every third one that is wanted is a marker.
    announced: u64,
    put: u64,
    hands: Vec<u64>,
    own: Option<u64>,
    got: Vec<u64>,
}

impl World {
    fn item(&self, sequence: u64) -> Option<Item> {
        let wanted = self.wanted.get(sequence as usize - 1).copied().unwrap_or(false);
        wanted.then(|| if sequence.is_multiple_of(3) { marker(sequence) } else { event(sequence) })
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Announce if self.put == self.announced && self.announced < self.wanted.len() as u64 => {
                self.announced += 1;
            }
            Step::Put if self.put < self.announced => {
                self.put += 1;
                if let Some(item) = self.item(self.put) {
                    self.mailbox.put(item, Instant::now());
                }
            }
            Step::Stuck => self.mailbox.stuck(),
            Step::Unhurried => self.mailbox.unhurried(),
            Step::GiveBack if !self.hands.is_empty() => {
                self.hands.clear();
                self.mailbox.restart();
            }
            Step::MakeRoom => self.mailbox.make_room(),
            Step::Shut => self.mailbox.shut(),
            Step::Join if self.own.is_some() && !self.mailbox.has_joined() => {
                if self.mailbox.join(self.announced) {
                    self.own = None;
                }
            }
            Step::Lane => self.lane(),
            Step::Announce | Step::Put | Step::Join | Step::GiveBack => {}
        }
    }

    fn lane(&mut self) {
        if !self.hands.is_empty() {
            self.got.append(&mut self.hands);
            self.mailbox.done();
        } else if let Some(next) = self.own {
            // It reads what was announced, and may be ahead of the main reader's mailboxes.
            if next <= self.wanted.len() as u64 {
                self.got.extend(self.item(next).map(|item| item.sequence()));
                self.own = (!self.mailbox.done_through(next)).then_some(next + 1);
            }
        } else {
            match self.mailbox.take(2, 1000) {
                Taken::Items(items) => self.hands = items.iter().map(Item::sequence).collect(),
                Taken::Nothing => {}
                Taken::Behind { from } => self.own = Some(from),
            }
        }
    }

    /// What is at or below the position is done.
    fn check_position(&self) {
        let position = self.mailbox.oldest().map_or(self.put, |oldest| (oldest - 1).min(self.put));
        for sequence in 1..=position {
            if self.item(sequence).is_some() {
                assert!(self.got.contains(&sequence), "{sequence} is purged: {:?}", self.mailbox);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_missing_nothing_comes_twice_and_all_is_in_order(
        wanted in proptest::collection::vec(any::<bool>(), 0..40),
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut world = World {
            mailbox: Mailbox::new(SMALL),
            wanted, announced: 0, put: 0, hands: vec![], own: None, got: vec![],
        };
        for step in steps {
            world.step(step);
            world.check_position();
        }
        // However it went, it comes to an end.
        for _ in 0..world.wanted.len() * 4 + 10 {
            for step in [Step::Announce, Step::Put, Step::Join, Step::Lane] {
                world.step(step);
                world.check_position();
            }
        }
        let expected: Vec<u64> = (1..=world.wanted.len() as u64).filter(|s| world.item(*s).is_some()).collect();
        prop_assert_eq!(&world.got, &expected);
        prop_assert_eq!(world.mailbox.oldest(), None);
        prop_assert_eq!(world.own, None);
    }
}
