//! No older after newer: live events that a prefill holds already are left out where that can be proven.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{sync::Arc, time::Duration};

use broker::{
    Broker, Claimed, Copier, Copy, FillError, Queue, ReaderConfig, Readers, TasksConfig,
    testing::{NatsServer, eventually, hear, ready_subscription, refuse_removals},
};
use futures::StreamExt;
use model::{PrefillState, Subscription, fence::Counts, prefill::PrefillTask};
use prefill_job::{
    source::{
        Source,
        udm::{Config, Credentials, Secret, Udm},
    },
    worker,
};
use serde_json::{Value, json};
use stand_in_udm::{Directory, Effect, Faults, Rule, StandIn};
use tokio_util::sync::{CancellationToken, DropGuard};

const SOON: Duration = Duration::from_secs(30);

fn user(id: &str, version: u32) -> Value {
    json!({"dn": format!("uid={id},dc=x"), "objectType": "users/user", "id": id, "position": "dc=x",
           "properties": {"username": id, "description": version.to_string()}})
}

/// One change of the directory: first there, then as an event.
struct World {
    broker: Broker,
    udm: StandIn,
    copier: Copier,
    queue: Queue,
    subscription: Subscription,
    incoming_seq: u64,
}

impl World {
    async fn new(broker: Broker) -> Self {
        let (subscription, queue) = ready_subscription(&broker, &["users/user"]).await;
        let mut copier = Copier::open(queue.clone()).await.unwrap().unwrap();
        copier.mark(1, &subscription.marker()).await.unwrap();
        let udm = StandIn::start(Directory::empty(), Faults::default()).await.unwrap();
        udm.directory().add_module("users/user");
        for id in ["a", "b", "c"] {
            udm.directory().put(&user(id, 0).to_string()).unwrap();
        }
        Self { broker, udm, copier, queue, subscription, incoming_seq: 1 }
    }

    async fn event(&mut self, old: Value, new: Value) {
        self.incoming_seq += 1;
        let event = json!({"publisher_name": "udm-listener", "ts": "2026-01-01T00:00:00", "realm": "udm",
                           "topic": "users/user", "body": {"old": old, "new": new}});
        let copy =
            Copy { incoming_seq: self.incoming_seq, accepted: None, payload: event.to_string().into() };
        self.copier.copy(&[copy]).await.unwrap();
    }

    async fn change(&mut self, id: &str, version: u32) {
        self.udm.directory().put(&user(id, version).to_string()).unwrap();
        self.event(user(id, version - 1), user(id, version)).await;
    }

    async fn delete(&mut self, id: &str) {
        self.udm.directory().remove(&format!("uid={id},dc=x")).unwrap();
        self.event(user(id, 0), json!({})).await;
    }

    fn source(&self, reads_primary: bool) -> Source {
        let password = Secret::from("univention".to_owned());
        let credentials = Credentials::Basic { username: "cn=admin".to_owned(), password };
        let config =
            Config { reads_primary, concurrency_max: 1, ..Config::new(self.udm.base_url(), credentials) };
        Source::Udm(Udm::new(config).unwrap())
    }

    /// A worker on the task.
    async fn work(&self, reads_primary: bool) -> DropGuard {
        let shutdown = CancellationToken::new();
        let ended = shutdown.clone().drop_guard();
        self.broker.tasks().submit(&PrefillTask::of(&self.subscription)).await.unwrap();
        let config = worker::Config {
            max_removals: model::resync::MaxRemovals::default(),
            parallel: 1,
            tries_max: None,
            holder: "worker".to_owned(),
            tasks: TasksConfig::default(),
            shape: prefill_job::Shape::default(),
            metrics: prefill_job::Metrics::default(),
        };
        let source = Arc::new(self.source(reads_primary));
        tokio::spawn(worker::run(config, self.broker.clone(), source, shutdown));
        ended
    }

    async fn state(&self) -> PrefillState {
        let entry = self.broker.registry().subscription(&self.subscription.name).await.unwrap().unwrap();
        entry.value.prefill.state
    }

    /// Runs a worker on the task, and `meanwhile` once `a` was read and `b` is asked for in vain.
    async fn prefill(&mut self, reads_primary: bool, meanwhile: impl AsyncFnOnce(&mut Self)) {
        let away = Effect::LdapDown { retry_after: Some("1".to_owned()) };
        self.udm.faults().add(Rule::new(away).dn("uid=b,dc=x"));
        let _ended = self.work(reads_primary).await;
        let asked = async || self.udm.counters().asked();
        eventually("the read of b", SOON, asked, |asked| asked.iter().any(|a| a.target.contains("uid%3Db")))
            .await;
        meanwhile(self).await;
        self.udm.faults().set(Faults::default());
        eventually("the prefill", SOON, async || self.state().await, |state| *state == PrefillState::Done)
            .await;
    }

    /// What the consumer sees: publisher, name, version (none: deleted).
    async fn read(&self) -> Vec<String> {
        let cancel = CancellationToken::new();
        let view = self.broker.registry().view(cancel.clone());
        view.synced().await;
        let readers = Readers::new(self.broker.clone(), view, ReaderConfig::default());
        let Subscription { name, incarnation, .. } = &self.subscription;
        let mut seen = Vec::new();
        let wait = Duration::from_millis(100);
        while let Some(got) = readers.next(name, *incarnation, wait, &cancel, true).await.unwrap() {
            let json: Value = serde_json::from_slice(&got.payload).unwrap();
            let kind = if json["publisher_name"] == "udm-pre-fill" { "prefill" } else { "live" };
            let (old, new) = (&json["body"]["old"], &json["body"]["new"]);
            let id = new["id"].as_str().or(old["id"].as_str()).unwrap();
            let version = new["properties"]["description"].as_str().unwrap_or("gone");
            seen.push(format!("{kind} {id} {version}"));
        }
        cancel.cancel();
        seen
    }
}

#[tokio::test]
async fn a_change_that_was_read_does_not_come_again_and_one_after_the_read_does() {
    let server = NatsServer::start().await;
    let mut world = World::new(server.broker().await).await;
    world.change("a", 1).await;
    world.delete("b").await;
    world.change("b", 3).await;
    world.delete("c").await;
    world.prefill(true, async |world| world.change("a", 2).await).await;
    // Of `c`, which is not in the snapshot, nothing is known: its deletion stays.
    assert_eq!(world.read().await, ["prefill a 1", "prefill b 3", "live c gone", "live a 2"]);
}

#[tokio::test]
async fn where_a_replica_may_be_read_every_event_stays() {
    let server = NatsServer::start().await;
    let mut world = World::new(server.broker().await).await;
    world.change("a", 1).await;
    world.prefill(false, async |world| world.change("a", 2).await).await;
    // `a`, whose entry was written last, is listed last: it was read when it had both changes.
    assert_eq!(world.read().await, ["prefill b 0", "prefill c 0", "prefill a 2", "live a 1", "live a 2"]);
}

/// Who reads a queue whose prefill is done must not see an event that is about to be removed.
#[tokio::test]
async fn a_prefill_is_not_done_before_the_events_that_it_holds_are_removed() {
    let server = NatsServer::start().await;
    let mut world = World::new(server.broker().await).await;
    world.change("a", 1).await;
    refuse_removals(&world.queue).await;
    let mut removals = hear(&world.broker, "$JS.API.STREAM.MSG.DELETE.>").await;
    let _ended = world.work(true).await;
    tokio::time::timeout(SOON, removals.next()).await.unwrap().unwrap();
    assert_eq!(world.state().await, PrefillState::Running);
}

#[tokio::test]
async fn an_attempt_that_was_overtaken_leaves_nothing_out() {
    let server = NatsServer::start().await;
    let mut world = World::new(server.broker().await).await;
    world.change("a", 1).await;
    let queue = world.queue.clone();
    let live = queue.live_from(1).await.unwrap().unwrap().sequence;
    let claim = async |attempt| match queue.claim_fence(1, attempt, "pod").await.unwrap() {
        Claimed::Holder(holder) => holder,
        other => panic!("{other:?}"),
    };
    let mut first = claim(1).await;
    let mut second = claim(2).await;
    let late = first.seal_leaving_out(Counts::default(), vec![live]).await;
    assert!(matches!(late, Err(FillError::Overtaken)), "{late:?}");
    second.seal_leaving_out(Counts::default(), vec![live]).await.unwrap();
    assert_eq!(queue.remove_contained(1).await.unwrap(), 0);
    assert_eq!(queue.live_from(1).await.unwrap().unwrap().sequence, live);
    assert_eq!(queue.remove_contained(2).await.unwrap(), 1);
}
