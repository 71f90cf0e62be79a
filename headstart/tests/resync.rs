//! Resync as a consumer sees it: whatever it has lost, afterwards it has what the directory has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Effect, Faults, On, Rule, StandIn};
use support::{SOON, Standalone};

const PREFILL: &str = "/v1/subscriptions/mail/prefill";
const MAIL: (&str, &str) = ("mail", "pw");
/// The brake has a test of its own.
fn resync() -> Value {
    json!({"mode": "resync", "max_removals": 1_000_000})
}

const TOPICS: [&str; 2] = ["groups/group", "users/user"];

/// Knuth's generator, by its high bits.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Name and place make the DN; the identifier stays when they change.
fn object(topic: &str, name: usize, place: &str, identifier: &str) -> Value {
    let (rdn, id) = if topic == "users/user" { ("uid", "u") } else { ("cn", "g") };
    let position = format!("{place}dc=x");
    json!({"dn": format!("{rdn}={id}{name},{position}"), "objectType": topic, "id": format!("{id}{name}"),
           "position": position, "uuid": format!("uuid-{identifier}"),
           "properties": {"description": "", "univentionObjectIdentifier": identifier}})
}

fn user(name: usize) -> Value {
    object("users/user", name, "", &format!("ident-{name}"))
}

/// The key under which a consumer finds an object.
fn key(object: &Value) -> Option<String> {
    Some(object["dn"].as_str()?.to_lowercase())
}

fn keys(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().filter_map(key).collect()
}

fn identifier(object: &Value) -> &Value {
    &object["properties"]["univentionObjectIdentifier"]
}

async fn soon<T>(server: &Standalone, what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn register(server: &Standalone) {
    let topics = TOPICS.map(|topic| json!({"realm": "udm", "topic": topic}));
    let body = json!({"name": "mail", "password": "pw", "request_prefill": true, "track": true,
                      "realms_topics": topics});
    let admin = ("admin", "admin-secret");
    let answer = server.request(Method::POST, "/v1/subscriptions", admin, Some(body)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

async fn ask(server: &Standalone, body: Value) {
    let answer = server.request(Method::POST, PREFILL, MAIL, Some(body)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
}

/// The prefill, when it is in this state.
async fn awaited(server: &Standalone, state: &str) -> Value {
    soon(server, state, async || {
        let answer = server.request(Method::GET, PREFILL, MAIL, None).await.ok()?;
        let prefill: Value = answer.json().await.ok()?;
        (prefill["state"] == state).then_some(prefill)
    })
    .await
}

/// A directory, Headstart, and a consumer that loses what it is told to lose.
struct World {
    udm: StandIn,
    server: Standalone,
    has: BTreeMap<String, Value>,
    ends: usize,
}

impl World {
    async fn new(users: usize, groups: usize) -> Self {
        let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
        let groups = (0..groups).map(|n| object("groups/group", n, "", &format!("ident-g{n}")));
        for object in (0..users).map(user).chain(groups) {
            udm.directory().put(&object.to_string()).unwrap();
        }
        let server = Standalone::with_udm(&udm.base_url()).await;
        register(&server).await;
        awaited(&server, "done").await;
        let mut world = Self { udm, server, has: BTreeMap::new(), ends: 0 };
        assert_eq!(world.read(|_| false).await, [json!(null); 0]);
        world.is_as_the_directory();
        world
    }

    /// What the directory has.
    fn there(&self) -> BTreeMap<String, Value> {
        let directory = self.udm.directory();
        let found = TOPICS.iter().flat_map(|topic| directory.dns(topic)).filter_map(|dn| directory.get(&dn));
        let parsed = found.map(|o| serde_json::from_str(&format!("{{{}}}", o.members)).unwrap());
        parsed.map(|object: Value| (key(&object).unwrap(), object)).collect()
    }

    fn is_as_the_directory(&self) {
        let seen = |objects: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
            objects.iter().map(|(key, object)| (key.clone(), object["properties"].clone())).collect()
        };
        assert_eq!(seen(&self.has), seen(&self.there()), "{}", self.server.log());
    }

    /// Nothing that exists.
    fn are_right(&self, removals: &[Value]) {
        let there = self.there();
        for old in removals {
            // By no key; where another has its place now, that one comes again behind the removal.
            let lives = |o: &Value| identifier(o) == identifier(old) || o["uuid"] == old["uuid"];
            assert!(!there.values().any(lives), "{old} exists\n{}", self.server.log());
            assert!(
                there.values().all(|o| old.get("id") != o.get("id") || o["objectType"] != old["objectType"])
            );
            let reads = ["dn", "objectType", "uuid", "properties"];
            assert!(reads.iter().all(|name| old.get(name).is_some()), "{old}");
        }
        let told: BTreeSet<_> = removals.iter().map(|old| (key(old), identifier(old).to_string())).collect();
        assert_eq!(told.len(), removals.len(), "told twice: {removals:?}");
    }

    /// One object is made, changed, moved or removed: as it was, and as it is.
    fn change(&self, random: &mut Random, number: usize) -> (Value, Value) {
        let there = self.there();
        let (place, name) = (["", "ou=a,", "ou=b,"][random.below(3)], random.below(6));
        let fresh = |topic, identifier: &str| Some(object(topic, name, place, identifier));
        let old = there.values().nth(random.below(there.len() + 5)).cloned();
        let topic = |old: &Value| *TOPICS.iter().find(|topic| old["objectType"] == **topic).unwrap();
        let new = match (&old, random.below(3)) {
            (None, _) => fresh(TOPICS[random.below(2)], &format!("ident-of-{number}")),
            (Some(_), 0) => None,
            (Some(old), 1) => Some(old.clone()),
            (Some(old), _) => fresh(topic(old), identifier(old).as_str().unwrap()),
        };
        let directory = self.udm.directory();
        old.as_ref().map(|old| directory.remove(old["dn"].as_str().unwrap()).unwrap());
        // Unless another is there already: then this one is gone.
        let new = new.filter(|new| directory.get(new["dn"].as_str().unwrap()).is_none()).map(|mut new| {
            new["properties"]["description"] = json!(format!("change {number}"));
            directory.put(&new.to_string()).unwrap();
            new
        });
        (old.unwrap_or_else(|| json!({})), new.unwrap_or_else(|| json!({})))
    }

    fn remove(&self, users: std::ops::Range<usize>) -> BTreeSet<String> {
        let gone: Vec<Value> = users.map(user).collect();
        for user in &gone {
            self.udm.directory().remove(user["dn"].as_str().unwrap()).unwrap();
        }
        keys(&gone)
    }

    /// The listener tells of a change.
    async fn event(&self, old: &Value, new: &Value) {
        let kind = if new == &json!({}) { old } else { new };
        let body = json!({"publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm",
                          "topic": kind["objectType"], "body": {"old": old, "new": new}});
        let listener = ("udm", "events-secret");
        let sent = self.server.request(Method::POST, "/v1/messages", listener, Some(body)).await;
        assert_eq!(sent.unwrap().status(), StatusCode::ACCEPTED);
    }

    /// Answers how many removals the resync that was asked for has told.
    async fn resynced(&self) -> u64 {
        let prefill = awaited(&self.server, "done").await;
        assert_eq!(prefill["mode"], "resync");
        prefill["progress"]["removed"].as_u64().unwrap()
    }

    async fn resync(&self) -> u64 {
        ask(&self.server, resync()).await;
        self.resynced().await
    }

    /// Reads all: these removals were told, and the consumer has what the directory has.
    async fn ends_with(&mut self, gone: &BTreeSet<String>) {
        let removals = self.read(|_| false).await;
        self.are_right(&removals);
        assert_eq!(keys(&removals), *gone);
        self.is_as_the_directory();
    }

    /// Reads a message, acknowledges it, and applies it unless it is lost.
    async fn take(&mut self, lost: &mut impl FnMut(&Value) -> bool) -> Option<Value> {
        let message = self.server.next("mail", 5.0).await?;
        let acknowledged = self.server.ack("mail", message["sequence_number"].as_u64().unwrap()).await;
        assert_eq!(acknowledged, Some(StatusCode::OK));
        if !lost(&message) {
            key(&message["body"]["old"]).map(|old| self.has.remove(&old));
            let new = &message["body"]["new"];
            key(new).map(|key| self.has.insert(key, new.clone()));
        }
        Some(message)
    }

    /// Reads all that was queued until now; answers what the prefill told as removed.
    async fn read(&mut self, mut lost: impl FnMut(&Value) -> bool) -> Vec<Value> {
        self.ends += 1;
        // It comes last.
        let end = json!({"objectType": "users/user", "id": format!("end-{}", self.ends)});
        self.event(&json!({}), &end).await;
        let deadline = Instant::now() + SOON;
        let mut removals = Vec::new();
        loop {
            assert!(Instant::now() < deadline, "{removals:?}\n{}", self.server.log());
            let Some(message) = self.take(&mut lost).await else { continue };
            let (old, new) = (&message["body"]["old"], &message["body"]["new"]);
            if new == &end {
                return removals;
            }
            if message["publisher_name"] == "udm-pre-fill" && new == &json!({}) {
                assert!(message["realm"] == "udm" && message["topic"] == old["objectType"], "{message}");
                removals.push(old.clone());
            }
        }
    }
}

async fn story(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new(6, 4).await;
    let mut number = 0;
    for _ in 0..3 {
        for _ in 0..20 {
            number += 1;
            let (old, new) = world.change(&mut random, number);
            // Of some changes the listener tells nothing.
            if old != new && random.below(4) > 0 {
                world.event(&old, &new).await;
            }
        }
        world.read(|_| random.below(2) == 0).await;
        let removed = world.resync().await;
        let removals = world.read(|_| false).await;
        assert_eq!(removals.len() as u64, removed);
        world.are_right(&removals);
        world.is_as_the_directory();
    }
    assert_eq!(world.resync().await, 0);
    world.ends_with(&BTreeSet::new()).await;
}

#[tokio::test]
async fn whatever_is_lost_a_resync_brings_the_consumer_to_the_state_of_the_directory() {
    tokio::join!(story(7), story(8), story(9));
}

#[tokio::test]
async fn live_messages_that_still_wait_and_changes_in_between_end_well_too() {
    let mut random = Random(11);
    let mut world = World::new(6, 4).await;
    for round in 0..6 {
        for number in 0..20 {
            // The resync begins while most messages are not read, and runs while others come.
            let running = number >= 10;
            if number == 10 {
                for _ in 0..round {
                    world.take(&mut |_: &Value| random.below(2) == 0).await;
                }
                world.udm.faults().update(|faults| faults.get_delay_ms = 30);
                ask(&world.server, resync()).await;
            }
            let (old, new) = world.change(&mut random, 100 * round + number);
            if old != new && (running || random.below(4) > 0) {
                world.event(&old, &new).await;
            }
        }
        awaited(&world.server, "done").await;
        world.read(|_| false).await;
        world.is_as_the_directory();
        world.udm.faults().set(Faults::default());
    }
}

#[tokio::test]
async fn removals_that_nobody_has_read_are_told_again() {
    let mut world = World::new(8, 2).await;
    let mut gone = world.remove(0..3);
    assert_eq!((world.resync().await, world.resync().await), (3, 3));
    // Of the second one the objects are read, but not the removals.
    for _ in 0..7 {
        world.take(&mut |_: &Value| false).await.unwrap();
    }
    world.udm.directory().put(&user(2).to_string()).unwrap();
    gone.remove(&key(&user(2)).unwrap());
    assert_eq!(world.resync().await, 2);
    world.ends_with(&gone).await;
    assert_eq!(world.resync().await, 0);
    world.ends_with(&BTreeSet::new()).await;
}

#[tokio::test]
async fn a_resync_that_is_paused_in_the_middle_tells_each_removal_once_and_one_that_is_held_is_not_paused() {
    let mut world = World::new(120, 2).await;
    let gone = world.remove(0..5);
    world.udm.faults().set(Faults { get_delay_ms: 300, ..Faults::default() });
    ask(&world.server, resync()).await;
    let tell = async |server: &Standalone, word: &str| {
        let path = format!("{PREFILL}/{word}");
        server.request(Method::POST, &path, MAIL, None).await.unwrap().status()
    };
    soon(&world.server, "some are written", async || {
        let shown: Value =
            world.server.request(Method::GET, PREFILL, MAIL, None).await.ok()?.json().await.ok()?;
        (shown["progress"]["done"].as_u64()? > 0).then_some(())
    })
    .await;
    assert_eq!(tell(&world.server, "pause").await, StatusCode::ACCEPTED);
    soon(&world.server, "it stops", async || {
        let read = || world.udm.counters().numbers().objects;
        let before = read();
        tokio::time::sleep(Duration::from_secs(1)).await;
        (read() == before).then_some(())
    })
    .await;
    world.udm.faults().set(Faults::default());
    assert_eq!(tell(&world.server, "resume").await, StatusCode::ACCEPTED);
    assert_eq!(world.resynced().await, 5);
    world.ends_with(&gone).await;
    world.remove(5..6);
    ask(&world.server, json!({"mode": "resync", "max_removals": 0})).await;
    assert_eq!(awaited(&world.server, "failed").await["reason"], "TooManyRemovals");
    for word in ["pause", "resume"] {
        assert_eq!(tell(&world.server, word).await, StatusCode::CONFLICT, "{word}");
    }
}

#[tokio::test]
async fn a_list_that_is_well_and_empty_is_held_until_an_administrator_approves_it() {
    let mut world = World::new(10, 3).await;
    let gone = world.remove(0..10);
    ask(&world.server, json!({"mode": "resync"})).await;
    let held = awaited(&world.server, "failed").await;
    assert_eq!(held["reason"], "TooManyRemovals");
    let removals =
        json!({"groups/group": {"known": 3, "removed": 0}, "users/user": {"known": 10, "removed": 10}});
    assert_eq!(held["removals"], removals);
    assert!(held["message"].as_str().unwrap().contains("users/user: 10 of 10"), "{held}");
    assert_eq!(world.server.next("mail", 0.5).await, None);
    let approve = format!("{PREFILL}/approve");
    let approve = async |who| world.server.request(Method::POST, &approve, who, None).await.unwrap().status();
    assert_eq!(approve(MAIL).await, StatusCode::UNAUTHORIZED);
    assert_eq!(approve(("admin", "admin-secret")).await, StatusCode::ACCEPTED);
    assert_eq!(approve(("admin", "admin-secret")).await, StatusCode::OK);
    awaited(&world.server, "done").await;
    world.ends_with(&gone).await;
}

#[tokio::test]
async fn killed_in_the_middle_it_goes_on_and_tells_the_same() {
    let mut world = World::new(300, 10).await;
    let gone = world.remove(0..100);
    world.udm.faults().update(|faults| faults.get_delay_ms = 30);
    world.udm.counters().reset();
    ask(&world.server, resync()).await;
    // The last time all may be read, and the removals are being written or are not.
    for (reads, only_nats) in [(20, false), (120, true), (210, false)] {
        let counters = world.udm.counters();
        soon(&world.server, "reads", async || {
            // Where the test is slower than the resync it is over already.
            let answer = world.server.request(Method::GET, PREFILL, MAIL, None).await;
            let prefill =
                if let Ok(answer) = answer { answer.json().await.unwrap_or_default() } else { Value::Null };
            (counters.numbers().objects >= reads || prefill["state"] == "done").then_some(())
        })
        .await;
        if only_nats {
            let pid = world.server.nats_pid().unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            continue;
        }
        world.server.kill();
        counters.reset();
        world.server.restart().await;
    }
    assert_eq!(world.resynced().await, 100);
    world.ends_with(&gone).await;
}

#[tokio::test]
async fn a_list_that_fails_removes_nothing_and_the_next_try_is_a_resync_again() {
    for (code, fails) in [(403, true), (500, false)] {
        let mut world = World::new(5, 2).await;
        let gone = world.remove(1..2);
        // The groups can be read, the users can't.
        world.udm.faults().add(Rule::new(Effect::Status { code }).on(On::List).module("users/user"));
        let counters = world.udm.counters();
        counters.reset();
        ask(&world.server, resync()).await;
        let lists = || counters.numbers().lists.get("users/user").copied();
        match fails {
            true => drop(awaited(&world.server, "failed").await),
            false => soon(&world.server, "tries", async || (lists() >= Some(2)).then_some(())).await,
        }
        assert_eq!(world.server.next("mail", 0.1).await, None);
        world.udm.faults().set(Faults::default());
        if fails {
            ask(&world.server, json!({})).await;
        }
        assert_eq!(world.resynced().await, 1);
        world.ends_with(&gone).await;
    }
}

#[tokio::test]
async fn a_dump_can_not_be_resynced_and_says_so() {
    let server = Standalone::start(1, 2).await;
    register(&server).await;
    awaited(&server, "done").await;
    ask(&server, resync()).await;
    let prefill = awaited(&server, "failed").await;
    assert_eq!(prefill["reason"], "BadRequest");
    assert!(prefill["message"].as_str().unwrap().contains("dump"), "{prefill}");
}
