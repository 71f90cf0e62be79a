use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasherDefault, DefaultHasher},
};

use proptest::prelude::*;

use super::*;
use crate::RealmTopic;

fn known(topic: &str, dn: &str, identifier: Option<&str>) -> KnownObject {
    KnownObject { topic: topic.into(), dn: dn.into(), id: None, identifier: identifier.map(Into::into) }
}

fn message(old: &str, new: &str) -> Vec<u8> {
    format!(r#"{{"topic":"users/user","body":{{"old":{old},"new":{new}}}}}"#).into_bytes()
}

#[test]
fn what_a_message_names() {
    let a = r#"{"dn":"uid=a,dc=x","id":"a","uuid":"u","properties":{"univentionObjectIdentifier":"i"}}"#;
    let upper = r#"{"dn":"UID=A, dc=x","uuid":"u"}"#;
    let b = r#"{"dn":"uid=b,dc=x","id":7,"properties":null}"#;
    let of = |old: &str, new: &str| -> Vec<_> {
        let named = KnownObject::named_by(&message(old, new)).into_iter();
        named.map(|o| format!("{} {:?} {:?}", o.dn, o.id, o.identifier)).collect()
    };
    let (shown_a, shown_b) = (r#"uid=a,dc=x Some("a") Some("i")"#, "uid=b,dc=x None None");
    assert_eq!(of("{}", a), [shown_a]);
    assert_eq!(of(a, a), [shown_a]);
    // The same DN, written otherwise.
    assert_eq!(of(a, upper), [r#"UID=A, dc=x None Some("u")"#]);
    assert_eq!(of(a, b), [shown_a, shown_b]);
    assert!(of(a, "{}").is_empty());
    assert!(of("{}", r#"{"dn":7}"#).is_empty() && KnownObject::named_by(b"no JSON").is_empty());
}

#[test]
fn its_form_in_nats_and_its_removal() {
    let object = KnownObject { id: Some("a".into()), ..known("users/user", "uid=a,dc=\"x", Some("i")) };
    let chunk = KnownObjects { removed: false, objects: vec![object.clone()] };
    let text = serde_json::to_string(&chunk).unwrap();
    assert_eq!(text, r#"{"objects":[["users/user","uid=a,dc=\"x","a","i"]]}"#);
    assert_eq!(serde_json::from_str::<KnownObjects>(&text).unwrap(), chunk);
    let told: serde_json::Value = serde_json::from_str(object.removal(false).get()).unwrap();
    let whole = json!({"dn": "uid=a,dc=\"x", "objectType": "users/user", "id": "a",
                       "properties": {"univentionObjectIdentifier": "i"}});
    assert_eq!(told, whole);
    let told: serde_json::Value = serde_json::from_str(object.removal(true).get()).unwrap();
    assert_eq!(told, json!({"dn": "uid=a,dc=\"x", "objectType": "users/user"}));
}

type Fixed = BuildHasherDefault<DefaultHasher>;

fn comparison(present: &[KnownObject], tell: bool, former_was_read: bool) -> Comparison<Fixed> {
    let mut snapshot = Present::new(Fixed::default());
    present.iter().for_each(|object| snapshot.saw(object));
    let route = |topic: &str| Route::new(&[RealmTopic { realm: "udm".into(), topic: topic.into() }]).unwrap();
    let (topics, missing) = (route("users/.*"), route("users/m.*"));
    snapshot.compare(Rules { tell, topics, missing, former_was_read })
}

#[test]
fn verdicts() {
    use Verdict::{Forget, Keep, Tell};
    let present = [known("users/user", "uid=here,dc=x", Some("1"))];
    let (gone, kept) = (Tell { moved: false }, Keep);
    for (what, object, resync, prefill) in [
        ("present", known("users/user", "UID=here,DC=x", None), Forget, Forget),
        ("gone", known("users/user", "uid=gone,dc=x", Some("2")), gone, kept),
        ("moved", known("users/user", "uid=old,dc=x", Some("1")), Tell { moved: true }, kept),
        ("no longer asked for", known("groups/group", "cn=g,dc=x", None), kept, kept),
        ("of a type that is missing", known("users/missing", "cn=m,dc=x", None), kept, kept),
        ("spared", known("users/user", "uid=spared,dc=x", None), kept, kept),
        ("no DN", known("users/user", "nonsense", None), gone, kept),
    ] {
        for (tell, expected) in [(true, resync), (false, prefill)] {
            let mut comparison = comparison(&present, tell, false);
            comparison.spare(&known("users/user", "uid=SPARED,dc=x", None));
            assert_eq!(comparison.judge(&object, false, false), expected, "{what}, tell: {tell}");
            assert_eq!(comparison.judge(&object, false, false), Forget, "{what}, once more");
        }
    }
    let gone_user = known("users/user", "uid=gone,dc=x", None);
    // Told before: again, until that was read.
    assert_eq!(comparison(&present, true, false).judge(&gone_user, true, false), gone);
    assert_eq!(comparison(&present, false, false).judge(&gone_user, true, false), Keep);
    assert_eq!(comparison(&present, true, true).judge(&gone_user, true, false), Forget);
    // Named again since.
    let mut again = comparison(&present, true, true);
    assert_eq!(again.judge(&gone_user, true, false), Forget);
    assert_eq!(again.judge(&gone_user, false, false), gone);
    let mut again = comparison(&present, false, false);
    assert_eq!(again.judge(&gone_user, true, false), kept);
    assert_eq!(again.judge(&gone_user, false, false), Forget);
    // The directory may not show it yet.
    assert_eq!(comparison(&present, true, true).judge(&gone_user, false, true), kept);
}

/// One thing that happens to a directory of six objects, and to its consumer.
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
#[derive(Default)]
struct World {
    /// DN to identifier.
    directory: BTreeMap<u8, u32>,
    consumer: BTreeMap<u8, u32>,
    set: Vec<(KnownObject, bool)>,
    former_was_read: bool,
    next: u32,
}

impl World {
    fn object(dn: u8, identifier: u32) -> KnownObject {
        known("users/user", &format!("uid={dn},dc=x"), Some(&identifier.to_string()))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put { object, reaches } => {
                self.next += 1;
                let identifier = *self.directory.entry(object).or_insert(self.next);
                self.set.push((Self::object(object, identifier), false));
                if reaches {
                    self.consumer.insert(object, identifier);
                }
            }
            Step::Delete { object, reaches } => {
                if self.directory.remove(&object).is_some() && reaches {
                    self.consumer.remove(&object);
                }
            }
            Step::Move { from, to, reaches } => {
                if from == to || self.directory.contains_key(&to) {
                    return;
                }
                let Some(identifier) = self.directory.remove(&from) else { return };
                self.directory.insert(to, identifier);
                self.set.extend([from, to].map(|dn| (Self::object(dn, identifier), false)));
                if reaches {
                    self.consumer.remove(&from);
                    self.consumer.insert(to, identifier);
                }
            }
            Step::Prefill { resync, read } => self.prefill(resync, read),
        }
    }

    fn prefill(&mut self, resync: bool, read: bool) {
        let present: Vec<_> = self.directory.iter().map(|(dn, id)| Self::object(*dn, *id)).collect();
        let mut comparison = comparison(&present, resync, self.former_was_read);
        let mut base: Vec<_> = present.into_iter().map(|object| (object, false)).collect();
        if read {
            self.consumer.extend(&self.directory);
        }
        let mut told = BTreeSet::new();
        for (object, removed) in std::mem::take(&mut self.set) {
            match comparison.judge(&object, removed, false) {
                Verdict::Forget => {}
                Verdict::Keep => base.push((object, false)),
                Verdict::Tell { .. } => {
                    told.insert(object.dn.clone());
                    base.push((object, true));
                }
            }
        }
        if read {
            self.consumer.retain(|dn, _| !told.contains(&format!("uid={dn},dc=x")));
        }
        self.set = base;
        self.former_was_read = read;
    }
}

proptest! {
    /// Whatever a consumer has lost: a resync that it reads makes it equal to the directory.
    #[test]
    fn after_a_resync_the_consumer_has_what_the_directory_has(steps in prop::collection::vec(step(), 0..40)) {
        let mut world = World::default();
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Prefill { resync: true, read: true });
        prop_assert_eq!(&world.consumer, &world.directory);
        // Once it was read nothing is told again, and the set is as small as the directory.
        world.step(&Step::Prefill { resync: true, read: true });
        prop_assert_eq!(world.set.len(), world.directory.len());
    }
}
