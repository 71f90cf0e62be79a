//! Resync as a consumer sees it: whatever it has lost, afterwards it has what the directory has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{collections::BTreeSet, time::Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Effect, Faults, On, Rule, StandIn};
use support::{SOON, Standalone};

const PREFILL: &str = "/v1/subscriptions/mail/prefill";
const MAIL: (&str, &str) = ("mail", "pw");

fn user(id: u64, place: &str) -> Value {
    json!({"dn": format!("uid=u{id},{place}dc=x"), "objectType": "users/user", "id": format!("u{id}"),
           "position": format!("{place}dc=x"), "uuid": format!("uuid-{id}"),
           "properties": {"username": format!("u{id}"), "univentionObjectIdentifier": format!("ident-{id}")}})
}

fn dn(object: &Value) -> String {
    object["dn"].as_str().unwrap().to_owned()
}

/// A directory, Headstart, and a consumer that loses what it is told to lose.
struct World {
    udm: StandIn,
    server: Standalone,
    has: BTreeSet<String>,
}

impl World {
    async fn new(users: u64) -> Self {
        let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
        for id in 0..users {
            udm.directory().put(&user(id, "").to_string()).unwrap();
        }
        let server = Standalone::with_udm(&udm.base_url()).await;
        let body = json!({"name": "mail", "password": "pw", "request_prefill": true, "track": true,
                          "realms_topics": [{"realm": "udm", "topic": "users/user"}]});
        let admin = ("admin", "admin-secret");
        let registered = server.request(Method::POST, "/v1/subscriptions", admin, Some(body)).await.unwrap();
        assert_eq!(registered.status(), StatusCode::CREATED);
        let mut world = Self { udm, server, has: BTreeSet::new() };
        world.await_state("done").await;
        assert_eq!(world.read(|_| false).await, 0);
        world.is_as_the_directory();
        world
    }

    fn is_as_the_directory(&self) {
        let there: BTreeSet<String> = self.udm.directory().dns("users/user").into_iter().collect();
        assert_eq!(self.has, there, "{}", self.server.log());
    }

    async fn prefill(&self) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            match self.server.request(Method::GET, PREFILL, MAIL, None).await {
                Ok(answer) if answer.status() == StatusCode::OK => return answer.json().await.unwrap(),
                other => assert!(Instant::now() < deadline, "{other:?}\n{}", self.server.log()),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn await_state(&self, state: &str) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let prefill = self.prefill().await;
            if prefill["state"] == state {
                return prefill;
            }
            assert!(Instant::now() < deadline, "{prefill}\n{}", self.server.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, body: Option<Value>) -> StatusCode {
        self.server.request(Method::POST, PREFILL, MAIL, body).await.unwrap().status()
    }

    /// Answers how many removals it told.
    async fn resync(&self) -> u64 {
        assert_eq!(self.ask(Some(json!({"mode": "resync"}))).await, StatusCode::ACCEPTED);
        self.await_state("done").await["progress"]["removed"].as_u64().unwrap()
    }

    /// The listener tells of a change.
    async fn event(&self, old: &Value, new: &Value) {
        let body = json!({"publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm",
                          "topic": "users/user", "body": {"old": old, "new": new}});
        let sent =
            self.server.request(Method::POST, "/v1/messages", ("udm", "events-secret"), Some(body)).await;
        assert_eq!(sent.unwrap().status(), StatusCode::ACCEPTED);
    }

    /// Reads all that waits, acknowledges it and applies what is not lost; answers how many removals a prefill told.
    async fn read(&mut self, lost: impl Fn(&Value) -> bool) -> usize {
        let mut removals = 0;
        while let Some(message) = self.server.next("mail", 0.5).await {
            let acknowledged = self.server.ack("mail", message["sequence_number"].as_u64().unwrap()).await;
            assert_eq!(acknowledged, Some(StatusCode::OK));
            let (old, new) = (&message["body"]["old"], &message["body"]["new"]);
            let told = message["publisher_name"] == "udm-pre-fill" && new.get("dn").is_none();
            removals += usize::from(told);
            if lost(&message) {
                continue;
            }
            if old.get("dn").is_some() {
                self.has.remove(&dn(old));
            }
            if new.get("dn").is_some() {
                self.has.insert(dn(new));
            }
        }
        removals
    }
}

#[tokio::test]
async fn whatever_is_lost_a_resync_brings_the_consumer_to_the_state_of_the_directory() {
    let mut world = World::new(12).await;
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        // Knuth's generator, by its high bits.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..3 {
        for _ in 0..20 {
            let (what, id, told) = (next(4), next(20), next(4) > 0);
            let places = ["", "ou=a,", "ou=b,"];
            let directory = world.udm.directory();
            let found = places.iter().map(|place| user(id, place)).find(|u| directory.get(&dn(u)).is_some());
            let place = places[next(3) as usize];
            let (old, new) = match (found, what) {
                (None, _) => (json!({}), user(id, place)),
                (Some(old), 0) => (old, json!({})),
                (Some(old), 1) => (old.clone(), old),
                (Some(old), _) => (old, user(id, place)),
            };
            if old.get("dn").is_some() {
                directory.remove(&dn(&old));
            }
            if new.get("dn").is_some() {
                directory.put(&new.to_string()).unwrap();
            }
            if told {
                world.event(&old, &new).await;
            }
        }
        // Every other message is lost.
        world.read(|message| message["sequence_number"].as_u64().unwrap() % 2 == round % 2).await;
        let removed = world.resync().await;
        assert_eq!(world.read(|_| false).await as u64, removed);
        world.is_as_the_directory();
    }
    assert_eq!(world.resync().await, 0);
}

#[tokio::test]
async fn killed_in_the_middle_it_goes_on_and_tells_the_same() {
    let mut world = World::new(300).await;
    for id in 0..100 {
        world.udm.directory().remove(&dn(&user(id, ""))).unwrap();
    }
    world.udm.faults().update(|faults| faults.get_delay_ms = 20);
    assert_eq!(world.ask(Some(json!({"mode": "resync"}))).await, StatusCode::ACCEPTED);
    for reads in [20, 60, 120] {
        let deadline = Instant::now() + SOON;
        while world.udm.counters().asked().iter().filter(|a| a.target.contains("uid%3D")).count()
            < 300 + reads
        {
            assert!(Instant::now() < deadline, "{}", world.server.log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        world.server.restart().await;
    }
    let prefill = world.await_state("done").await;
    assert_eq!((&prefill["mode"], &prefill["progress"]["removed"]), (&json!("resync"), &json!(100)));
    assert_eq!(world.read(|_| false).await, 100);
    world.is_as_the_directory();
}

#[tokio::test]
async fn a_list_that_is_refused_removes_nothing_and_the_next_try_is_a_resync_again() {
    let mut world = World::new(5).await;
    world.udm.directory().remove(&dn(&user(1, ""))).unwrap();
    world.udm.faults().add(Rule::new(Effect::Status { code: 403 }).on(On::List));
    assert_eq!(world.ask(Some(json!({"mode": "resync"}))).await, StatusCode::ACCEPTED);
    assert_eq!(world.await_state("failed").await["mode"], "resync");
    assert_eq!(world.server.next("mail", 0.1).await, None);
    world.udm.faults().set(Faults::default());
    assert_eq!(world.ask(None).await, StatusCode::ACCEPTED);
    world.await_state("done").await;
    assert_eq!(world.read(|_| false).await, 1);
    world.is_as_the_directory();
}
