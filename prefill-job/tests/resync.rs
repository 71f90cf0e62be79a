//! Resync: what the consumer was told of and what does not exist any more is told as removed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use broker::{
    Broker, Copier, Copy, Queue, ReaderConfig, Readers,
    testing::{NatsServer, eventually, ready_subscription, ready_subscription_with},
};
use model::{
    ExitCode, PrefillState, Reason, Selection, Subscription,
    fence::Counts,
    prefill::{PrefillMode, PrefillOrder, PrefillTask},
    resync::{MaxRemovals, Removals},
    selection::Properties,
    subscription::Registration,
};
use prefill_job::{
    Outcome, Shape,
    attempt::{self, Options},
    source::{
        Source,
        dump::Dump,
        udm::{BrokenObjects, Config, Credentials, Retries, Udm},
    },
};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Effect, Faults, On, Rule, StandIn};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(60);

fn dn(id: &str) -> String {
    format!("uid={id},dc=x")
}

fn user(id: &str) -> Value {
    json!({"dn": dn(id), "objectType": "users/user", "id": id, "position": "dc=x", "uuid": format!("uuid-{id}"),
           "properties": {"username": id, "univentionObjectIdentifier": format!("ident-{id}")}})
}

/// A subscription that tracks, its directory and its dispatcher.
struct World {
    broker: Broker,
    udm: StandIn,
    queue: Queue,
    copier: Copier,
    subscription: Subscription,
    incoming_seq: u64,
    round: u32,
    /// What each prefill may tell, unless a test is about that.
    max_removals: MaxRemovals,
    shape: Shape,
    _server: NatsServer,
}

impl World {
    async fn with(topics: &[&str], users: &[&str], selection: Option<Selection>) -> Self {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let tracked = |r: &mut Registration| *r = Registration { track: true, selection, ..r.clone() };
        let (subscription, queue) = ready_subscription_with(&broker, topics, tracked).await;
        let copier = Copier::open(queue.clone()).await.unwrap().unwrap().tracking(true);
        let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
        udm.directory().add_module("users/user");
        for id in users {
            udm.directory().put(&user(id).to_string()).unwrap();
        }
        let (incoming_seq, round, max_removals) = (0, 0, MaxRemovals::Objects(u64::MAX));
        let shape = Shape::Udm;
        Self {
            broker,
            udm,
            queue,
            copier,
            subscription,
            incoming_seq,
            round,
            max_removals,
            shape,
            _server: server,
        }
    }

    async fn new(users: &[&str]) -> Self {
        Self::with(&["users/user"], users, None).await
    }

    fn config(&self) -> Config {
        let credentials = Credentials::Basic { username: "cn=admin".into(), password: "univention".into() };
        let mut config = Config::new(self.udm.base_url(), credentials);
        config.retries = Retries { first_wait: Duration::from_millis(5), ..Retries::default() };
        config.reads_primary = true;
        config
    }

    fn source(&self) -> Source {
        Source::Udm(Udm::new(self.config()).unwrap())
    }

    /// An event, in the directory or not.
    async fn event(&mut self, old: Value, new: Value) {
        self.incoming_seq += 1;
        let event = json!({"publisher_name": "udm-listener", "ts": "2026-01-01T00:00:00", "realm": "udm",
                           "topic": "users/user", "body": {"old": old, "new": new}});
        let copy =
            Copy { incoming_seq: self.incoming_seq, accepted: None, payload: event.to_string().into() };
        self.copier.copy(&[copy]).await.unwrap();
    }

    /// The next round, up to its boundary.
    async fn begin(&mut self, mode: PrefillMode) -> PrefillTask {
        self.order(PrefillOrder { mode: Some(mode), ..PrefillOrder::default() }).await
    }

    async fn order(&mut self, order: PrefillOrder) -> PrefillTask {
        if self.round > 0 {
            let again = |s: &Subscription| s.with_prefill_ordered(order, s.created.clone());
            self.modify(again).await;
        }
        self.round += 1;
        self.incoming_seq += 1;
        self.copier.mark(self.incoming_seq, &self.subscription.marker()).await.unwrap();
        PrefillTask::of(&self.subscription)
    }

    async fn modify(&mut self, change: impl Fn(&Subscription) -> Option<Subscription>) {
        let (name, incarnation) = (&self.subscription.name, self.subscription.incarnation);
        self.broker.registry().modify(name, incarnation, change).await.unwrap();
        self.subscription = self.broker.registry().subscription(name).await.unwrap().unwrap().value;
    }

    async fn run(&self, source: &Source, task: &PrefillTask) -> Outcome {
        let options = Options { shape: self.shape, max_removals: self.max_removals, told: None };
        attempt::run_with(&self.broker, source, task, "pod", &CancellationToken::new(), options).await
    }

    /// Kills an attempt when so many messages are written; `Some`: it had ended before.
    async fn run_until(&self, source: &Source, task: &PrefillTask, messages: u64) -> Option<Outcome> {
        let written = async || self.queue.pending().await.unwrap().unwrap().prefill;
        tokio::select! {
            outcome = self.run(source, task) => Some(outcome),
            _ = eventually("enough is written", SOON, written, |n| *n >= messages) => None,
        }
    }

    async fn done(&mut self) {
        self.modify(|s| s.with_prefill_state(PrefillState::Done, None, None, s.created.clone())).await;
    }

    /// A whole round.
    async fn prefill(&mut self, mode: PrefillMode) -> Counts {
        let task = self.begin(mode).await;
        let outcome = self.run(&self.source(), &task).await;
        self.done().await;
        let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
        counts
    }

    async fn resync(&mut self) -> Counts {
        self.prefill(PrefillMode::Resync).await
    }

    /// All that waits, acknowledged: the objects after, and the removals that a prefill told.
    async fn read(&self) -> (Vec<String>, Vec<Value>) {
        let (mut present, mut removed) = (Vec::new(), Vec::new());
        for message in self.read_all().await {
            match message["body"]["new"]["dn"].as_str() {
                Some(dn) => present.push(dn.to_owned()),
                None if message["publisher_name"] == "udm-pre-fill" => {
                    assert!(message["topic"] == "users/user" && message["realm"] == "udm");
                    removed.push(message["body"]["old"].clone());
                }
                None => {}
            }
        }
        (present, removed)
    }

    async fn read_all(&self) -> Vec<Value> {
        let cancel = CancellationToken::new();
        let view = self.broker.registry().view(cancel.clone());
        view.synced().await;
        let readers = Readers::new(self.broker.clone(), view, ReaderConfig::default());
        let mut messages = Vec::new();
        let wait = Duration::from_millis(200);
        let (name, incarnation) = (&self.subscription.name, self.subscription.incarnation);
        while let Some(got) = readers.next(name, incarnation, wait, &cancel, true).await.unwrap() {
            messages.push(serde_json::from_slice(&got.payload).unwrap());
        }
        cancel.cancel();
        messages
    }

    /// DNs that were told as removed.
    async fn read_removed(&self) -> Vec<String> {
        self.read().await.1.iter().map(|old| old["dn"].as_str().unwrap().to_owned()).collect()
    }

    /// The set: present ones, and those whose removal was told.
    async fn known(&self) -> (usize, usize) {
        let (mut present, mut removed, mut next) = (0, 0, 1);
        loop {
            let chunks = self.queue.known_from(next, false).await.unwrap();
            let Some(last) = chunks.last() else { return (present, removed) };
            next = last.sequence + 1;
            for chunk in chunks {
                *if chunk.known.removed { &mut removed } else { &mut present } += chunk.known.objects.len();
            }
        }
    }
}

#[tokio::test]
async fn what_prefill_and_live_events_told_of_and_what_is_gone_is_told_once() {
    let mut world = World::new(&["a", "b", "c"]).await;
    assert_eq!(world.prefill(PrefillMode::Prefill).await.messages, 3);
    world.udm.directory().put(&user("d").to_string()).unwrap();
    world.event(json!({}), user("d")).await;
    // Made and gone between the two, and its deletion never came.
    world.event(json!({}), user("e")).await;
    assert_eq!(world.read().await.0.len(), 5);
    assert_eq!(world.known().await, (5, 0));
    world.udm.directory().remove(&dn("b")).unwrap();
    // A prefill as it always was tells nothing of it.
    assert_eq!(world.prefill(PrefillMode::Prefill).await, Counts { messages: 3, ..Counts::default() });
    assert_eq!((world.read().await.1.len(), world.known().await), (0, (5, 0)));
    let counts = world.resync().await;
    assert_eq!((counts.messages, counts.removed), (5, 2));
    let (present, removed) = world.read().await;
    assert_eq!(present, ["a", "c", "d"].map(dn));
    let whole = |id: &str| {
        json!({"dn": dn(id), "objectType": "users/user", "id": id, "uuid": format!("uuid-{id}"),
               "properties": {"univentionObjectIdentifier": format!("ident-{id}")}})
    };
    assert_eq!(removed, ["b", "e"].map(whole));
    assert_eq!(world.known().await, (3, 2));
    assert_eq!(world.resync().await.removed, 0);
    assert_eq!(world.known().await, (3, 0));
}

#[tokio::test]
async fn removals_that_nobody_has_read_are_told_again() {
    let mut world = World::new(&["a", "b"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    world.udm.directory().remove(&dn("b")).unwrap();
    for mode in [PrefillMode::Resync, PrefillMode::Resync, PrefillMode::Prefill, PrefillMode::Resync] {
        assert_eq!(world.prefill(mode).await.removed, u64::from(mode == PrefillMode::Resync), "{mode:?}");
    }
    assert_eq!(world.read_removed().await, [dn("b")]);
    assert_eq!(world.resync().await.removed, 0);
}

#[tokio::test]
async fn a_set_of_many_parts_is_compared_and_made_small_again() {
    let ids: Vec<String> = (0..3000).map(|n| format!("user{n:04}")).collect();
    let mut world = World::new(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    for id in &ids[..1300] {
        world.udm.directory().remove(&dn(id)).unwrap();
    }
    let counts = world.resync().await;
    assert_eq!((counts.messages, counts.removed), (3000, 1300));
    assert_eq!(world.known().await, (1700, 1300));
    assert_eq!(world.read_removed().await, ids[..1300].iter().map(|id| dn(id)).collect::<Vec<_>>());
    world.resync().await;
    assert_eq!(world.known().await, (1700, 0));
}

/// `user`, elsewhere.
fn moved(id: &str) -> Value {
    let mut moved = user(id);
    moved["dn"] = json!(format!("uid={id},ou=away,dc=x"));
    moved
}

#[tokio::test]
async fn a_move_is_told_as_a_change_from_where_it_was_to_where_it_is() {
    let mut world = World::new(&["a", "b"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    world.udm.directory().remove(&dn("a")).unwrap();
    world.udm.directory().put(&moved("a").to_string()).unwrap();
    let counts = world.resync().await;
    assert_eq!((counts.messages, counts.removed, counts.moved), (3, 0, 1));
    let mut messages = world.read_all().await;
    let told = messages.pop().unwrap();
    assert_eq!((&told["publisher_name"], &told["topic"]), (&json!("udm-pre-fill"), &json!("users/user")));
    let former = json!({"dn": dn("a"), "objectType": "users/user", "id": "a", "uuid": "uuid-a",
                        "properties": {"univentionObjectIdentifier": "ident-a"}});
    assert_eq!(told["body"]["old"], former);
    assert_eq!(told["body"]["new"]["dn"], moved("a")["dn"]);
    assert_eq!(told["body"]["new"]["properties"], moved("a")["properties"]);
    assert!(messages.iter().all(|message| message["body"]["old"] == json!({})), "{messages:?}");
    let again = world.resync().await;
    assert_eq!((again.removed, again.moved), (0, 0));
}

#[tokio::test]
async fn nothing_that_lives_is_removed_by_any_key_whatever_is_selected_and_in_either_shape() {
    for shape in [Shape::Udm, Shape::Live] {
        for properties in [
            None,
            Some(Properties::Keep(vec!["username".into()])),
            Some(Properties::Strip(vec!["univentionObjectIdentifier".into()])),
        ] {
            let selection = Selection { properties: properties.clone(), ..Selection::default() };
            let mut world = World::with(&["users/user"], &["a", "b"], Some(selection)).await;
            world.shape = shape;
            world.prefill(PrefillMode::Prefill).await;
            world.read().await;
            world.udm.directory().remove(&dn("a")).unwrap();
            world.udm.directory().put(&moved("a").to_string()).unwrap();
            let counts = world.resync().await;
            assert_eq!((counts.removed, counts.moved), (0, 1), "{shape:?} {properties:?}");
            let (_, removed) = world.read().await;
            assert!(removed.is_empty(), "{shape:?} {properties:?}: {removed:?}");
        }
    }
}

#[tokio::test]
async fn one_that_was_replaced_under_its_dn_is_removed_and_the_other_one_comes_behind() {
    let mut world = World::new(&["a", "b"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    let mut other = user("a");
    other["uuid"] = json!("uuid-other");
    other["properties"]["univentionObjectIdentifier"] = json!("ident-other");
    world.udm.directory().remove(&dn("a")).unwrap();
    world.udm.directory().put(&other.to_string()).unwrap();
    assert_eq!(world.resync().await.removed, 1);
    let messages = world.read_all().await;
    let [_, _, removal, again] = messages.as_slice() else { panic!("{messages:?}") };
    // Its id is the other one's, too: by that nothing is to be removed.
    let former = json!({"dn": dn("a"), "objectType": "users/user", "uuid": "uuid-a",
                        "properties": {"univentionObjectIdentifier": "ident-a"}});
    assert_eq!(removal["body"], json!({"old": former, "new": {}}));
    assert_eq!((&again["body"]["old"], &again["body"]["new"]["uuid"]), (&json!({}), &other["uuid"]));
    assert_eq!(world.resync().await.removed, 0);
}

#[tokio::test]
async fn an_identifier_that_is_invented_at_each_answer_makes_no_removal() {
    let mut world = World::new(&["a", "b"]).await;
    let invent = |n: u32| {
        let mut a = user("a");
        a["properties"]["univentionObjectIdentifier"] = json!(format!("invented-{n}"));
        a
    };
    for n in 0..4 {
        world.udm.directory().put(&invent(n).to_string()).unwrap();
        if n == 2 {
            // A live event has yet another one, and no UUID.
            let mut event = invent(99);
            event.as_object_mut().unwrap().remove("uuid");
            event["id"] = json!("invented-99");
            world.event(json!({}), event).await;
        }
        let counts = world.prefill(if n == 0 { PrefillMode::Prefill } else { PrefillMode::Resync }).await;
        assert_eq!((counts.removed, counts.moved), (0, 0), "{n}");
        world.read().await;
    }
}

#[tokio::test]
async fn a_live_event_during_the_resync_tells_the_fate_of_its_object_itself() {
    let mut world = World::new(&["a", "b", "c"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    world.udm.directory().remove(&dn("b")).unwrap();
    world.udm.directory().remove(&dn("c")).unwrap();
    let task = world.begin(PrefillMode::Resync).await;
    world.udm.faults().update(|faults| faults.get_delay_ms = 300);
    let (broker, queue, source) = (world.broker.clone(), world.queue.clone(), world.source());
    let running =
        tokio::spawn(
            async move { attempt::run(&broker, &source, &task, "pod", &CancellationToken::new()).await },
        );
    let claimed = async || queue.fence().await.unwrap().unwrap().value.round;
    eventually("the attempt to begin", SOON, claimed, |round| *round == 2).await;
    // It is elsewhere by now, which comes behind the prefill.
    world.event(user("b"), moved("b")).await;
    let outcome = running.await.unwrap();
    let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
    world.done().await;
    assert_eq!((counts.removed, world.read_removed().await), (1, vec![dn("c")]));
    // Both of its places were named since, so they are still known.
    assert_eq!(world.resync().await.removed, 2);
}

#[tokio::test]
async fn what_is_not_selected_any_more_or_not_asked_for_any_more() {
    let filter = Some(Selection { filter: Some("(username=*)".into()), ..Selection::default() });
    let mut world = World::with(&["users/user", "groups/group"], &["a", "b"], filter).await;
    world.udm.directory().add_module("groups/group");
    let group =
        json!({"dn": "cn=g,dc=x", "objectType": "groups/group", "id": "g", "properties": {"username": "x"}});
    world.udm.directory().put(&group.to_string()).unwrap();
    world.prefill(PrefillMode::Prefill).await;
    assert_eq!(world.read().await.0.len(), 3);
    let mut left_out = user("b");
    left_out["properties"] = json!({});
    world.udm.directory().put(&left_out.to_string()).unwrap();
    world.udm.directory().remove("cn=g,dc=x").unwrap();
    // Groups may well exist: nobody asks for them any more.
    world.modify(|s| s.with_topics(&s.realms_topics[..1])).await;
    let counts = world.resync().await;
    assert_eq!((counts.not_selected, counts.removed), (1, 1));
    assert_eq!(world.read_removed().await, [dn("b")]);
    assert_eq!(world.known().await, (2, 1));
}

#[tokio::test]
async fn nothing_is_told_as_removed_unless_all_was_read() {
    let mut world = World::new(&["a", "b", "c"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    world.udm.directory().remove(&dn("c")).unwrap();
    let task = world.begin(PrefillMode::Resync).await;
    // The second object can't be read: the first is in the queue, and no removal.
    world.udm.faults().add(Rule::new(Effect::Status { code: 500 }).dn(&dn("b")));
    let strict = Config { broken_objects: BrokenObjects::Fail, ..world.config() };
    let outcome = world.run(&Source::Udm(Udm::new(strict).unwrap()), &task).await;
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.code == ExitCode::Transient),
        "{outcome:?}"
    );
    for effect in [Effect::Status { code: 403 }, Effect::Status { code: 500 }] {
        world.udm.faults().set(Faults::default());
        world.udm.faults().add(Rule::new(effect.clone()).on(On::List));
        let outcome = world.run(&world.source(), &task).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{effect:?}: {outcome:?}");
    }
    world.udm.faults().set(Faults::default());
    let outcome = world.run(&world.source(), &task).await;
    let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((counts.messages, counts.removed), (3, 1));
    world.done().await;
    assert_eq!(world.read_removed().await, [dn("c")]);
}

#[tokio::test]
async fn a_type_that_the_directory_lost_is_no_removal_of_all_its_objects() {
    let mut world = World::with(&["users/user", "test/.*"], &["a", "b"], None).await;
    let thing = json!({"dn": "cn=thing,dc=x", "objectType": "test/thing", "id": "thing", "properties": {}});
    world.udm.directory().put(&thing.to_string()).unwrap();
    world.prefill(PrefillMode::Prefill).await;
    assert_eq!(world.read().await.0.len(), 3);
    let without = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
    without.directory().put(&user("a").to_string()).unwrap();
    let credentials = world.config().credentials;
    let lost = Config::new(without.base_url(), credentials);
    let lost = Config { missing_wait: Duration::ZERO, reads_primary: true, ..lost };
    let task = world.begin(PrefillMode::Resync).await;
    let outcome = world.run(&Source::Udm(Udm::new(lost).unwrap()), &task).await;
    let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((counts.messages, counts.removed, counts.missing), (2, 1, vec!["test/.*".to_owned()]));
    world.done().await;
    assert_eq!((world.read_removed().await, world.known().await), (vec![dn("b")], (2, 1)));
}

#[tokio::test]
async fn an_attempt_that_is_killed_anywhere_leaves_the_set_for_the_next() {
    let ids: Vec<String> = (0..400).map(|n| format!("user{n:03}")).collect();
    let mut world = World::new(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    for id in &ids[..200] {
        world.udm.directory().remove(&dn(id)).unwrap();
    }
    let task = world.begin(PrefillMode::Resync).await;
    let source = world.source();
    for messages in [1, 100, 199, 201, 300] {
        let ended = world.run_until(&source, &task, messages).await;
        assert!(matches!(ended, None | Some(Outcome::Done(_))), "{ended:?}");
    }
    let outcome = world.run(&source, &task).await;
    // One that came too far sealed it, and the next finds the seal.
    let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((counts.messages, counts.removed), (400, 200));
    world.done().await;
    let (present, removed) = world.read().await;
    assert_eq!((present.len(), removed.len()), (200, 200));
    world.resync().await;
    assert_eq!(world.known().await, (200, 0));
}

#[tokio::test]
async fn where_the_directory_may_lag_behind_what_is_young_stays() {
    let mut world = World::new(&["a"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.event(json!({}), user("young")).await;
    world.read().await;
    let lagging = Source::Udm(Udm::new(Config { reads_primary: false, ..world.config() }).unwrap());
    let task = world.begin(PrefillMode::Resync).await;
    let outcome = world.run(&lagging, &task).await;
    let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((counts.messages, counts.removed), (1, 0));
    world.done().await;
    assert_eq!(world.resync().await.removed, 1);
}

#[tokio::test]
async fn a_dump_is_nothing_to_compare_with() {
    let mut world = World::new(&["a"]).await;
    let task = world.begin(PrefillMode::Prefill).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.jsonl");
    std::fs::write(&path, format!("{}\n", user("a"))).unwrap();
    let dump = Source::Dump(Dump::new(&path));
    assert!(matches!(world.run(&dump, &task).await, Outcome::Done(_)));
    world.done().await;
    assert_eq!(world.known().await, (1, 0));
    let task = world.begin(PrefillMode::Resync).await;
    let Outcome::Failed(failure) = world.run(&dump, &task).await else { panic!("it ran") };
    assert_eq!((failure.code, failure.reason), (ExitCode::BadRequest, Reason::BadRequest));
    assert!(failure.message.contains("SOURCE"), "{}", failure.message);
    // What nobody has read of the former prefill is still there.
    assert_eq!(world.queue.pending().await.unwrap().unwrap().prefill, 1);
}

#[tokio::test]
async fn who_does_not_track_pays_nothing() {
    let server = NatsServer::start().await;
    let broker = server.broker().await;
    let (s, queue) = ready_subscription(&broker, &["users/user"]).await;
    let mut copier = Copier::open(queue.clone()).await.unwrap().unwrap();
    copier.mark(1, &s.marker()).await.unwrap();
    let event = json!({"topic": "users/user", "body": {"old": {}, "new": user("a")}});
    copier
        .copy(&[Copy { incoming_seq: 2, accepted: None, payload: event.to_string().into() }])
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.jsonl");
    std::fs::write(&path, format!("{}\n", user("b"))).unwrap();
    let task = PrefillTask::of(&s);
    assert!(!task.track);
    let dump = Source::Dump(Dump::new(&path));
    let outcome = attempt::run(&broker, &dump, &task, "pod", &CancellationToken::new()).await;
    assert!(matches!(&outcome, Outcome::Done(Some(counts)) if counts.messages == 1), "{outcome:?}");
    assert!(queue.known_from(1, false).await.unwrap().is_empty());
}

/// Types that lost one of theirs: in a pattern, while the pattern still matches another one.
#[tokio::test]
async fn a_type_that_is_just_not_loaded_loses_nothing_though_its_pattern_matches_others() {
    let mut world = World::with(&["test/.*"], &[], None).await;
    let thing = |kind: &str, n: u32| {
        json!({"dn": format!("cn={kind}{n},dc=x"), "objectType": format!("test/{kind}"), "id": format!("{kind}{n}"),
               "uuid": format!("uuid-{kind}{n}"), "properties": {}})
    };
    for n in 0..5 {
        world.udm.directory().put(&thing("one", n).to_string()).unwrap();
        world.udm.directory().put(&thing("two", n).to_string()).unwrap();
    }
    assert_eq!(world.prefill(PrefillMode::Prefill).await.messages, 10);
    world.read().await;
    let half = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
    for n in 0..5 {
        half.directory().put(&thing("two", n).to_string()).unwrap();
    }
    let config = Config { reads_primary: true, ..Config::new(half.base_url(), world.config().credentials) };
    let task = world.begin(PrefillMode::Resync).await;
    let outcome = world.run(&Source::Udm(Udm::new(config).unwrap()), &task).await;
    let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((counts.messages, counts.removed), (5, 0));
}

/// What a person does about a prefill that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Approve,
    Cancel,
    AskAgain,
}

/// A subscription of fifty users whose list is suddenly empty.
async fn held() -> (World, PrefillTask, Counts) {
    let ids: Vec<String> = (0..50).map(|n| format!("user{n:02}")).collect();
    let mut world = World::new(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.max_removals = MaxRemovals::default();
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    for id in &ids {
        world.udm.directory().remove(&dn(id)).unwrap();
    }
    let task = world.begin(PrefillMode::Resync).await;
    let outcome = world.run(&world.source(), &task).await;
    let Outcome::Held(counts) = outcome else { panic!("{outcome:?}") };
    (world, task, counts)
}

#[tokio::test]
async fn a_list_that_is_well_and_empty_is_held_until_a_person_decides() {
    for decision in [Decision::Approve, Decision::Cancel, Decision::AskAgain] {
        let (mut world, task, counts) = held().await;
        assert_eq!(counts.removals["users/user"], Removals { known: 50, removed: 50 }, "{decision:?}");
        // What comes meanwhile waits behind it.
        world.event(json!({}), user("new")).await;
        assert!(world.read_all().await.is_empty(), "{decision:?}");
        // Another pod of the attempt finds it held, and changes nothing of what is to be approved.
        let fence = world.queue.fence().await.unwrap().unwrap().revision;
        assert_eq!(world.run(&world.source(), &task).await, Outcome::Held(counts.clone()));
        assert_eq!(world.queue.fence().await.unwrap().unwrap().revision, fence);
        let (attempt, queue) = (task.attempt, world.queue.clone());
        match decision {
            Decision::Approve => {
                assert!(!queue.approve_fence(attempt + 1).await.unwrap());
                // Once, or twice, or at the same time.
                let (one, two) = tokio::join!(queue.approve_fence(attempt), queue.approve_fence(attempt));
                assert!(one.unwrap() && two.unwrap() && queue.approve_fence(attempt).await.unwrap());
                assert!(!queue.cancel_fence(attempt).await.unwrap());
                world.done().await;
                let (present, removed) = world.read().await;
                assert_eq!((present, removed.len()), (vec![dn("new")], 50));
                // They were read: what was known before is forgotten, and not told again.
                assert_eq!(world.resync().await.removed, 1);
                assert_eq!(world.known().await, (0, 1));
            }
            Decision::Cancel => {
                assert!(queue.cancel_fence(attempt).await.unwrap());
                assert!(!queue.approve_fence(attempt).await.unwrap());
                assert_eq!(world.run(&world.source(), &task).await, Outcome::Cancelled);
                assert!(world.read_all().await.is_empty());
            }
            Decision::AskAgain => {
                let failed = |s: &Subscription| {
                    let reason = Some(Reason::TooManyRemovals);
                    s.with_prefill_state(PrefillState::Failed, reason, None, s.created.clone())
                };
                world.modify(failed).await;
                // It is held again: what was held before does not count as told.
                let next = world.begin(PrefillMode::Resync).await;
                let outcome = world.run(&world.source(), &next).await;
                let Outcome::Held(again) = outcome else { panic!("{outcome:?}") };
                assert_eq!(again.removals["users/user"], Removals { known: 51, removed: 51 });
                assert!(!queue.approve_fence(attempt).await.unwrap(), "that is another attempt");
                world.modify(failed).await;
                // The list is whole again.
                for n in 0..50 {
                    world.udm.directory().put(&user(&format!("user{n:02}")).to_string()).unwrap();
                }
                world.udm.directory().put(&user("new").to_string()).unwrap();
                let counts = world.resync().await;
                assert_eq!((counts.messages, counts.removed), (51, 0));
                assert_eq!(world.read().await.1.len(), 0);
            }
        }
    }
}

#[tokio::test]
async fn a_held_attempt_that_was_killed_anywhere_before_is_held_in_the_end() {
    let ids: Vec<String> = (0..300).map(|n| format!("user{n:03}")).collect();
    let mut world = World::new(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.max_removals = MaxRemovals::default();
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    for id in &ids[..200] {
        world.udm.directory().remove(&dn(id)).unwrap();
    }
    let task = world.begin(PrefillMode::Resync).await;
    let source = world.source();
    for messages in [1, 99, 101, 250, 300] {
        let ended = world.run_until(&source, &task, messages).await;
        assert!(matches!(ended, None | Some(Outcome::Held(_))), "{ended:?}");
    }
    let outcome = world.run(&source, &task).await;
    let Outcome::Held(counts) = outcome else { panic!("{outcome:?}") };
    assert_eq!((counts.messages, counts.removed), (300, 200));
    assert!(world.read_all().await.is_empty());
    assert!(world.queue.approve_fence(task.attempt).await.unwrap());
    world.done().await;
    let (present, removed) = world.read().await;
    assert_eq!((present.len(), removed.len()), (100, 200));
}

#[tokio::test]
async fn a_run_that_only_counts_writes_nothing_and_the_consumer_goes_on() {
    let mut world = World::new(&["a", "b", "c"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    world.udm.directory().remove(&dn("a")).unwrap();
    let known = world.known().await;
    let dry = PrefillOrder { mode: Some(PrefillMode::Resync), dry_run: true, ..PrefillOrder::default() };
    let task = world.order(dry).await;
    world.event(json!({}), user("d")).await;
    world.udm.directory().put(&user("d").to_string()).unwrap();
    // Not even a moment: it is pending now.
    assert_eq!(world.read().await.0, [dn("d")]);
    let outcome = world.run(&world.source(), &task).await;
    let Outcome::Done(Some(counts)) = outcome else { panic!("{outcome:?}") };
    assert!(counts.dry_run && counts.messages == 4);
    assert_eq!(counts.removals["users/user"], Removals { known: 4, removed: 1 });
    assert_eq!(world.queue.pending().await.unwrap().unwrap().prefill, 0);
    assert_eq!(world.known().await, (known.0 + 1, known.1));
    world.done().await;
    world.event(json!({}), user("e")).await;
    world.udm.directory().put(&user("e").to_string()).unwrap();
    assert_eq!(world.read().await.0, [dn("e")]);
    assert_eq!(world.resync().await.removed, 1);
    assert_eq!(world.read_removed().await, [dn("a")]);
}

#[tokio::test]
async fn objects_that_all_answer_404_are_no_removals() {
    let mut world = World::new(&["a", "b", "c"]).await;
    world.max_removals = MaxRemovals::default();
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    world.udm.faults().add(Rule::new(Effect::Status { code: 404 }).on(On::Object));
    let task = world.begin(PrefillMode::Resync).await;
    let outcome = world.run(&world.source(), &task).await;
    let told = match &outcome {
        Outcome::Done(Some(counts)) => counts.removed,
        _ => 0,
    };
    assert_eq!(told, 0, "{outcome:?}");
    world.done().await;
    assert!(world.read_removed().await.is_empty());
}
