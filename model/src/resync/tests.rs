use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasherDefault, DefaultHasher},
};

use proptest::prelude::*;

use super::*;
use crate::resync::Removals;

fn known(topic: &str, dn: &str, id: &str, identifier: &str, uuid: &str) -> KnownObject {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    KnownObject {
        topic: topic.into(),
        dn: dn.into(),
        id: text(id),
        identifier: text(identifier),
        uuid: text(uuid),
    }
}

fn user(dn: &str, id: &str, identifier: &str, uuid: &str) -> KnownObject {
    known("users/user", &format!("uid={dn},dc=x"), id, identifier, uuid)
}

fn message(old: &str, new: &str) -> Vec<u8> {
    format!(r#"{{"topic":"users/user","body":{{"old":{old},"new":{new}}}}}"#).into_bytes()
}

#[test]
fn a_message_names_what_it_is_about() {
    let a = r#"{"dn":"uid=a,dc=x","id":"a","uuid":"u","properties":{"univentionObjectIdentifier":"i"}}"#;
    let upper = r#"{"dn":"UID=A, dc=x","uuid":"u"}"#;
    let b = r#"{"dn":"uid=b,dc=x","id":7,"properties":null}"#;
    let of = |old: &str, new: &str| KnownObject::named_by(&message(old, new));
    let (shown_a, shown_b) = (user("a", "a", "i", "u"), user("b", "", "", ""));
    assert_eq!(of("{}", a), std::slice::from_ref(&shown_a));
    assert_eq!(of(a, a), std::slice::from_ref(&shown_a));
    // The same DN, written otherwise.
    assert_eq!(of(a, upper), [known("users/user", "UID=A, dc=x", "", "", "u")]);
    assert_eq!(of(a, b), [shown_a.clone(), shown_b]);
    assert!(of(a, "{}").is_empty());
    assert!(of("{}", r#"{"dn":7}"#).is_empty() && KnownObject::named_by(b"no JSON").is_empty());
    assert_eq!(shown_a.clone().told_as(r#"{"id": "i"}"#), user("a", "i", "i", "u"));
    assert_eq!(shown_a.told_as("{}"), user("a", "", "i", "u"));
}

#[test]
fn its_form_in_nats_is_that_of_the_first_release_and_a_uuid() {
    let object = user("a", "a", "i", "u");
    let chunk = KnownObjects { objects: vec![object, user("b", "", "", "")], ..KnownObjects::default() };
    let text = serde_json::to_string(&chunk).unwrap();
    assert_eq!(
        text,
        r#"{"objects":[["users/user","uid=a,dc=x","a","i","u"],["users/user","uid=b,dc=x",null,null]]}"#
    );
    assert_eq!(serde_json::from_str::<KnownObjects>(&text).unwrap(), chunk);
    let former = r#"{"removed":true,"objects":[["users/user","uid=a,dc=x","a","i"]]}"#;
    let read = serde_json::from_str::<KnownObjects>(former).unwrap();
    assert_eq!((read.removed, read.objects), (true, vec![user("a", "a", "i", "")]));
    for broken in [r#"[["a","b"]]"#, r#"[["a","b",null,7]]"#, "[7]"] {
        assert!(serde_json::from_str::<Vec<KnownObject>>(broken).is_err(), "{broken}");
    }
}

/// What existing consumers read of an object that is removed, in our own words: one of them takes the UUID, one the
/// identifier among the properties, which it looks for without asking whether they are there; all take DN and type.
#[test]
fn the_head_of_an_object_is_what_existing_consumers_read() {
    let head = |object: KnownObject| serde_json::from_str::<Value>(object.head().get()).unwrap();
    let whole = head(user("a", "a", "i", "u"));
    assert_eq!(
        whole,
        json!({"dn": "uid=a,dc=x", "objectType": "users/user", "id": "a", "uuid": "u",
               "properties": {"univentionObjectIdentifier": "i"}})
    );
    let bare = head(user("a", "", "", ""));
    assert_eq!(bare, json!({"dn": "uid=a,dc=x", "objectType": "users/user", "properties": {}}));
    let body = crate::message::Body::removal(user("a", "", "", "").head());
    assert_eq!(body.check(), Ok(()));
}

type Fixed = BuildHasherDefault<DefaultHasher>;

fn comparison(present: &[KnownObject], tell: bool, former_was_read: bool) -> Comparison<Fixed> {
    let mut snapshot = Present::new(Fixed::default());
    (1..).zip(present).for_each(|(n, object)| snapshot.saw(object, Some(n)));
    let read = BTreeSet::from(["users/user".to_owned(), "users/all".to_owned()]);
    snapshot.compare(Rules { tell, read, former_was_read })
}

fn named(object: &KnownObject, whence: Whence) -> Named {
    Named { object: object.clone(), whence, recent: false }
}

fn all(comparison: &mut Comparison<Fixed>, set: &[Named]) -> Vec<Verdict> {
    set.iter().for_each(|named| comparison.learn(named));
    set.iter().for_each(|named| comparison.count(named));
    set.iter().map(|named| comparison.judge(named)).collect()
}

#[test]
fn each_rule_of_comparison() {
    use Whence::{Absent, Live, Removed, Snapshot};
    let present = [
        user("here", "here", "I1", "U1"),
        user("moved", "moved", "I2", "U2"),
        // Nothing is known of it but that it is there: it could not be read.
        user("broken", "", "", ""),
        // UDM invents its identifier.
        user("nameless", "nameless", "R9", "U9"),
    ];
    let (forget, keep, absent) =
        (Verdict::Forget, Verdict::Keep { absent: false }, Verdict::Keep { absent: true });
    let remove = |told: KnownObject, again| Verdict::Remove { told, again };
    let gone = user("gone", "gone", "I3", "U3");
    let replaced = user("here", "here", "I4", "U4");
    for (what, object, whence, resync, prefill) in [
        ("the same", user("here", "here", "I1", "U1"), Snapshot, forget.clone(), forget.clone()),
        (
            "the same in another writing",
            known("users/user", "UID=here,DC=x", "", "", ""),
            Live,
            forget.clone(),
            forget.clone(),
        ),
        (
            "the same by UUID only",
            user("here", "here", "other", "U1"),
            Snapshot,
            forget.clone(),
            forget.clone(),
        ),
        (
            "the same by identifier only",
            user("here", "here", "I1", "other"),
            Snapshot,
            forget.clone(),
            forget.clone(),
        ),
        ("the same by id only", user("here", "I1", "", ""), Live, forget.clone(), forget.clone()),
        (
            "of what can't be read",
            user("broken", "broken", "I8", "U8"),
            Snapshot,
            forget.clone(),
            forget.clone(),
        ),
        ("gone", gone.clone(), Snapshot, remove(gone.clone(), None), absent.clone()),
        (
            "gone, no DN",
            known("users/user", "nonsense", "", "", ""),
            Live,
            remove(known("users/user", "nonsense", "", "", ""), None),
            absent.clone(),
        ),
        (
            "gone, its name is given to another",
            user("gone", "here", "I3", "U3"),
            Snapshot,
            remove(user("gone", "", "I3", "U3"), None),
            absent.clone(),
        ),
        (
            "gone, another type has the name",
            known("users/all", "cn=here,dc=x", "here", "", ""),
            Live,
            remove(known("users/all", "cn=here,dc=x", "here", "", ""), None),
            absent.clone(),
        ),
        (
            "replaced",
            replaced.clone(),
            Snapshot,
            remove(user("here", "", "I4", "U4"), Some(1)),
            absent.clone(),
        ),
        (
            "replaced, known by a live event",
            user("here", "I4", "I4", ""),
            Live,
            remove(user("here", "I4", "I4", ""), Some(1)),
            absent.clone(),
        ),
        (
            "replaced long ago",
            user("here", "I4", "I4", ""),
            Absent,
            remove(user("here", "I4", "I4", ""), Some(1)),
            absent.clone(),
        ),
        (
            "recorded without a UUID by the first release",
            user("nameless", "x", "R1", ""),
            Snapshot,
            forget.clone(),
            forget.clone(),
        ),
        ("moved", user("former", "former", "I2", "U2"), Snapshot, Verdict::Move { to: 2 }, absent.clone()),
        (
            "moved, by UUID only",
            user("former", "", "R", "U2"),
            Snapshot,
            Verdict::Move { to: 2 },
            absent.clone(),
        ),
        (
            "moved, by identifier only",
            user("former", "", "I2", ""),
            Live,
            Verdict::Move { to: 2 },
            absent.clone(),
        ),
        (
            "moved, by id that is an identifier",
            user("former", "I2", "", ""),
            Live,
            Verdict::Move { to: 2 },
            absent.clone(),
        ),
        (
            "moved, by id that is a name",
            user("former", "moved", "", ""),
            Live,
            Verdict::Move { to: 2 },
            absent.clone(),
        ),
        (
            "moved, and its place is taken",
            user("here", "here", "I2", "U2"),
            Snapshot,
            forget.clone(),
            forget.clone(),
        ),
        (
            "of a type that was not read to its end",
            known("groups/group", "cn=g,dc=x", "", "", ""),
            Live,
            keep.clone(),
            keep.clone(),
        ),
        (
            "of such a type, absent before",
            known("groups/group", "cn=g,dc=x", "", "", ""),
            Absent,
            absent.clone(),
            absent.clone(),
        ),
        ("spared by its place", user("spared", "", "I6", ""), Live, keep.clone(), keep.clone()),
        (
            "spared by its identifier: only its place is empty",
            user("other", "", "I7", ""),
            Live,
            remove(known("users/user", "uid=other,dc=x", "", "", ""), None),
            keep.clone(),
        ),
        ("told, and not read", gone.clone(), Removed, remove(gone.clone(), None), absent.clone()),
    ] {
        for (tell, expected) in [(true, resync), (false, prefill)] {
            let mut comparison = comparison(&present, tell, false);
            comparison.spare(&known("users/user", "uid=SPARED,dc=x", "", "", ""));
            comparison.spare(&user("elsewhere", "", "I7", ""));
            let set = [named(&object, whence), named(&object, whence)];
            assert_eq!(all(&mut comparison, &set), [expected, Verdict::Forget], "{what}, tell: {tell}");
        }
    }
    let removed = |former_was_read, whence| {
        let mut comparison = comparison(&present, true, former_was_read);
        all(&mut comparison, &[named(&gone, Removed), named(&gone, whence)])
    };
    assert_eq!(removed(true, Removed), [forget.clone(), forget.clone()]);
    assert_eq!(removed(false, Live), [remove(gone.clone(), None), forget.clone()]);
    // Named again since.
    assert_eq!(removed(true, Live), [forget, remove(gone.clone(), None)]);
    // The directory may not show it yet: neither what was named just now, nor what was known in its place.
    let young = Named { recent: true, ..named(&user("gone", "", "young", ""), Live) };
    let set = [named(&gone, Snapshot), young];
    assert_eq!(all(&mut comparison(&present, true, true), &set), [keep.clone(), keep]);
}

#[test]
fn an_invented_identifier_is_another_name_of_the_entry_that_was_there_all_the_time() {
    let present = [user("nameless", "nameless", "R9", "U9")];
    let before = named(&user("nameless", "nameless", "R1", "U9"), Whence::Snapshot);
    let event = named(&user("nameless", "R2", "R2", ""), Whence::Live);
    let set = [before.clone(), event.clone()];
    assert_eq!(all(&mut comparison(&present, true, true), &set), [Verdict::Forget, Verdict::Forget]);
    // It was elsewhere in between: then somebody else may have been here.
    let elsewhere = named(&user("away", "away", "", "U9"), Whence::Live);
    let verdicts = all(&mut comparison(&present, true, true), &[before, elsewhere, event]);
    assert!(
        matches!(
            verdicts[..],
            [Verdict::Forget, Verdict::Move { to: 1 }, Verdict::Remove { again: Some(1), .. }]
        ),
        "{verdicts:?}"
    );
}

#[test]
fn objects_that_share_an_id_and_have_nothing_else_are_each_counted() {
    let set: Vec<_> =
        (0..50).map(|n| named(&user(&format!("uid=u{n},dc=x"), "same", "", ""), Whence::Snapshot)).collect();
    for left in [0, 10] {
        let present: Vec<_> = set[..left].iter().map(|named| named.object.clone()).collect();
        let mut comparison = comparison(&present, true, true);
        let told = all(&mut comparison, &set).into_iter().skip(left).collect::<Vec<_>>();
        assert!(told.iter().all(|verdict| matches!(verdict, Verdict::Remove { .. })), "{told:?}");
        let removed = 50 - left as u64;
        assert_eq!(comparison.removals()["users/user"], Removals { known: 50, removed });
    }
}

#[test]
fn objects_are_counted_once_however_often_they_were_named() {
    let present = [user("a", "a", "A", "UA"), user("b", "b", "B", "UB")];
    let set: Vec<_> = [
        user("a", "a", "A", "UA"),
        user("a", "A", "A", ""),
        // Moved, and named at both places.
        user("former", "b", "B", "UB"),
        user("b", "b", "B", "UB"),
        user("gone", "gone", "C", "UC"),
        user("gone", "C", "C", ""),
        user("gone too", "C", "C", ""),
        user("spared", "", "D", ""),
        known("groups/group", "cn=g,dc=x", "", "", ""),
    ]
    .iter()
    .map(|object| named(object, Whence::Live))
    .collect();
    let mut comparison = comparison(&present, true, true);
    comparison.spare(&user("spared", "", "", ""));
    all(&mut comparison, &set);
    let counted = comparison.removals();
    assert_eq!(counted, BTreeMap::from([("users/user".to_owned(), Removals { known: 4, removed: 1 })]));
}

/// How a consumer finds its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Dn,
    Id,
    Identifier,
    Uuid,
}

impl By {
    fn key(self, object: &KnownObject) -> Option<String> {
        match self {
            Self::Dn => Some(object.dn.clone()),
            Self::Id => object.id.clone(),
            Self::Identifier => object.identifier.clone(),
            Self::Uuid => object.uuid.clone(),
        }
    }
}

/// One thing that happens to a directory of six places, and to its consumer.
#[derive(Clone, Debug)]
enum Step {
    /// Changed, or made: the message reaches the consumer, or is lost.
    Put {
        object: u8,
        reaches: bool,
    },
    Delete {
        object: u8,
        reaches: bool,
    },
    Move {
        from: u8,
        to: u8,
        reaches: bool,
    },
    /// A prefill or a resync, and whether all of it is read.
    Prefill {
        resync: bool,
        read: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let object = 0..6_u8;
    prop_oneof![
        (object.clone(), any::<bool>()).prop_map(|(object, reaches)| Step::Put { object, reaches }),
        (object.clone(), any::<bool>()).prop_map(|(object, reaches)| Step::Delete { object, reaches }),
        (object.clone(), object, any::<bool>()).prop_map(|(from, to, reaches)| Step::Move {
            from,
            to,
            reaches
        }),
        (any::<bool>(), any::<bool>()).prop_map(|(resync, read)| Step::Prefill { resync, read }),
    ]
}

/// Directory, consumer and set, as the engine uses them.
struct World {
    by: By,
    /// Is the `id` an identifier, as in live events, or a name?
    live_ids: bool,
    /// Do live messages carry UUIDs?
    live_uuids: bool,
    /// Does UDM invent the identifiers at each answer?
    invents: bool,
    /// Place to entry.
    directory: BTreeMap<u8, u32>,
    /// Key to place.
    consumer: BTreeMap<String, String>,
    set: Vec<Named>,
    former_was_read: bool,
    entries: u32,
    answers: u32,
}

impl World {
    fn new(by: By, live_ids: bool, live_uuids: bool, invents: bool) -> Self {
        Self {
            by,
            live_ids,
            live_uuids: live_uuids || by == By::Uuid,
            invents,
            directory: BTreeMap::new(),
            consumer: BTreeMap::new(),
            set: Vec::new(),
            former_was_read: false,
            entries: 0,
            answers: 0,
        }
    }

    fn object(&mut self, place: u8, entry: u32, live: bool) -> KnownObject {
        self.answers += 1;
        let identifier = if self.invents { format!("R{}", self.answers) } else { format!("I{entry}") };
        let id = if self.live_ids { identifier.clone() } else { place.to_string() };
        let uuid = if live && !self.live_uuids { String::new() } else { format!("U{entry}") };
        user(&place.to_string(), &id, &identifier, &uuid)
    }

    /// A consumer that applies a change: what it had under the former key goes, what there is now comes.
    fn apply(&mut self, old: Option<&KnownObject>, new: Option<&KnownObject>) {
        let key = |object: Option<&KnownObject>| object.and_then(|object| self.by.key(object));
        let (before, after) = (key(old), key(new));
        if let Some(before) = before {
            self.consumer.remove(&before);
        }
        if let (Some(after), Some(new)) = (after, new) {
            self.consumer.insert(after, new.dn.clone());
        }
    }

    fn event(&mut self, old: Option<KnownObject>, new: Option<KnownObject>, reaches: bool) {
        if reaches {
            self.apply(old.as_ref(), new.as_ref());
        }
        let moved = old.filter(|old| new.as_ref().is_some_and(|new| new.dn != old.dn));
        if let Some(new) = new {
            self.set.extend(moved.into_iter().chain([new]).map(|object| named(&object, Whence::Live)));
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { object: place, reaches } => {
                let before = self.directory.get(&place).copied();
                let old = before.map(|entry| self.object(place, entry, true));
                self.entries += 1;
                let entry = *self.directory.entry(place).or_insert(self.entries);
                let new = self.object(place, entry, true);
                self.event(old, Some(new), reaches);
            }
            Step::Delete { object: place, reaches } => {
                let Some(entry) = self.directory.remove(&place) else { return };
                let old = self.object(place, entry, true);
                self.event(Some(old), None, reaches);
            }
            Step::Move { from, to, reaches } => {
                if from == to || self.directory.contains_key(&to) {
                    return;
                }
                let Some(entry) = self.directory.remove(&from) else { return };
                self.directory.insert(to, entry);
                let (old, new) = (self.object(from, entry, true), self.object(to, entry, true));
                self.event(Some(old), Some(new), reaches);
            }
            Step::Prefill { resync, read } => self.prefill(resync, read),
        }
    }

    fn prefill(&mut self, resync: bool, read: bool) {
        let places: Vec<_> = self.directory.clone().into_iter().collect();
        let present: Vec<_> =
            places.into_iter().map(|(place, entry)| self.object(place, entry, false)).collect();
        let mut comparison = comparison(&present, resync, self.former_was_read);
        let former = std::mem::take(&mut self.set);
        let verdicts = all(&mut comparison, &former);
        self.set = present.iter().map(|object| named(object, Whence::Snapshot)).collect();
        let mut messages: Vec<_> = present.iter().map(|object| (None, Some(object))).collect();
        let at = |number: u64| present.get(usize::try_from(number).unwrap() - 1);
        for (Named { object, .. }, verdict) in former.iter().zip(&verdicts) {
            match verdict {
                Verdict::Forget => {}
                Verdict::Keep { absent } => {
                    let whence = if *absent { Whence::Absent } else { Whence::Snapshot };
                    self.set.push(named(object, whence));
                }
                Verdict::Remove { told, again } => {
                    messages.push((Some(told), None));
                    messages.extend(again.map(|number| (None, at(number))));
                    self.set.push(named(object, Whence::Removed));
                }
                Verdict::Move { to } => {
                    messages.push((Some(object), at(*to)));
                    self.set.push(named(object, Whence::Removed));
                }
            }
        }
        if read {
            messages.into_iter().for_each(|(old, new)| self.apply(old, new));
        }
        self.former_was_read = read;
    }

    /// What the consumer is to have.
    fn expected(&mut self) -> BTreeMap<String, String> {
        let places: Vec<_> = self.directory.clone().into_iter().collect();
        let by = self.by;
        let objects = places.into_iter().map(|(place, entry)| self.object(place, entry, false));
        objects.filter_map(|object| Some((by.key(&object)?, object.dn))).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever a consumer has lost, and whatever it finds its objects by: a resync that it reads makes it equal to the
    /// directory.
    #[test]
    fn after_a_resync_the_consumer_has_what_the_directory_has(
        steps in prop::collection::vec(step(), 0..40),
        by in prop_oneof![Just(By::Dn), Just(By::Id), Just(By::Identifier), Just(By::Uuid)],
        live_ids in any::<bool>(),
        live_uuids in any::<bool>(),
        invents in any::<bool>(),
    ) {
        // Nobody can go by identifiers, or ids that are such, that are invented at each answer.
        let invents = invents && matches!(by, By::Dn | By::Uuid);
        let mut world = World::new(by, live_ids, live_uuids, invents);
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Prefill { resync: true, read: true });
        let expected = world.expected();
        prop_assert_eq!(&world.consumer, &expected);
        // Once it was read nothing is told again, and the set is as small as the directory.
        world.step(&Step::Prefill { resync: true, read: true });
        prop_assert_eq!(world.set.len(), world.directory.len());
    }

    /// Parts of the set are made by this size, so it must not be too small, whatever a DN holds.
    #[test]
    fn the_size_is_never_too_small(
        topic in ".{0,20}", dn in any::<String>(), id in any::<Option<String>>(), identifier in any::<Option<String>>(),
        uuid in any::<Option<String>>(), control in "[\\x00-\\x1f\"\\\\\\x7f]{0,20}",
    ) {
        let object = KnownObject { topic, dn: dn + &control, id, identifier, uuid };
        prop_assert!(object.size() > serde_json::to_vec(&object).unwrap().len());
    }
}
