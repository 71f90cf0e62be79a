//! Resync: what the consumer was told of and what does not exist any more is told as removed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::time::Duration;

use broker::{
    Broker, Copier, Copy, Queue, ReaderConfig, Readers,
    testing::{NatsServer, eventually, ready_subscription, ready_subscription_with},
};
use model::{
    Counts, ExitCode, PrefillMode, PrefillState, PrefillTask, Reason, Registration, Selection, Subscription,
};
use prefill_job::{
    Outcome, attempt,
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
        Self { broker, udm, queue, copier, subscription, incoming_seq: 0, round: 0, _server: server }
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
        let copy = Copy { incoming_seq: self.incoming_seq, payload: event.to_string().into() };
        self.copier.copy(&[copy]).await.unwrap();
    }

    /// The next round, up to its boundary.
    async fn begin(&mut self, mode: PrefillMode) -> PrefillTask {
        if self.round > 0 {
            let again = |s: &Subscription| s.with_prefill_of(Some(mode), s.created.clone());
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
        attempt::run(&self.broker, source, task, "pod", &CancellationToken::new()).await
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
        let cancel = CancellationToken::new();
        let view = self.broker.registry().view(cancel.clone());
        view.synced().await;
        let readers = Readers::new(self.broker.clone(), view, ReaderConfig::default());
        let (mut present, mut removed) = (Vec::new(), Vec::new());
        let wait = Duration::from_millis(200);
        let (name, incarnation) = (&self.subscription.name, self.subscription.incarnation);
        while let Some(got) = readers.next(name, incarnation, wait, &cancel, true).await.unwrap() {
            let message: Value = serde_json::from_slice(&got.payload).unwrap();
            match message["body"]["new"]["dn"].as_str() {
                Some(dn) => present.push(dn.to_owned()),
                None if message["publisher_name"] == "udm-pre-fill" => {
                    assert!(message["topic"] == "users/user" && message["realm"] == "udm");
                    removed.push(message["body"]["old"].clone());
                }
                None => {}
            }
        }
        cancel.cancel();
        (present, removed)
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
        json!({"dn": dn(id), "objectType": "users/user", "id": id,
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

#[tokio::test]
async fn of_what_has_moved_only_the_former_place_is_told() {
    let mut world = World::new(&["a", "b"]).await;
    world.prefill(PrefillMode::Prefill).await;
    world.read().await;
    world.udm.directory().remove(&dn("a")).unwrap();
    let mut moved = user("a");
    moved["dn"] = json!("uid=a,ou=away,dc=x");
    world.udm.directory().put(&moved.to_string()).unwrap();
    world.resync().await;
    let (present, removed) = world.read().await;
    assert!(present.contains(&"uid=a,ou=away,dc=x".to_owned()), "{present:?}");
    assert_eq!(removed, [json!({"dn": dn("a"), "objectType": "users/user"})]);
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
    let mut moved = user("b");
    moved["dn"] = json!("uid=b,ou=away,dc=x");
    world.event(user("b"), moved).await;
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
    assert_eq!(outcome, Outcome::Done(Some(Counts { messages: 3, removed: 1, ..Counts::default() })));
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
    let missing = vec!["test/.*".to_owned()];
    assert_eq!(
        outcome,
        Outcome::Done(Some(Counts { messages: 2, removed: 1, missing, ..Counts::default() }))
    );
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
        let written = async || world.queue.pending().await.unwrap().unwrap().prefill;
        tokio::select! {
            outcome = world.run(&source, &task) => assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}"),
            _ = eventually("enough is written", SOON, written, |n| *n >= messages) => {}
        }
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
    assert_eq!(outcome, Outcome::Done(Some(Counts { messages: 1, ..Counts::default() })));
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
    copier.copy(&[Copy { incoming_seq: 2, payload: event.to_string().into() }]).await.unwrap();
    assert!(queue.known_from(1, false).await.unwrap().is_empty());
}
