//! A queue on a real nats-server, and what consumers, dispatchers and prefills do to it.
#![allow(dead_code)] // each test target uses its part

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use broker::{
    Broker, Claimed, Copier, Copy, Delivered, NatsConfig, Queue, QueueStream, ReadError, ReaderConfig,
    Readers, RegistryView,
    testing::{NatsServer, eventually, messages_sent},
};
use bytes::Bytes;
use model::{
    Incarnation, PrefillState, RealmTopic, Subscription, Timestamp,
    delivery::EventId,
    fence::Counts,
    subscription::{Lifecycle, Registration},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

pub const LONG: Duration = Duration::from_secs(20);

pub struct Case {
    pub broker: Broker,
    pub readers: Readers,
    pub view: RegistryView,
    pub s: Subscription,
    pub queue: Queue,
    _shutdown: DropGuard,
}

pub fn now() -> Timestamp {
    "2026-01-01T00:00:00".parse().unwrap()
}

impl Case {
    pub async fn new(server: &NatsServer, prefill: bool) -> Self {
        Self::named(server, "mail", prefill).await
    }

    pub async fn named(server: &NatsServer, name: &str, prefill: bool) -> Self {
        Self::with(server, name, prefill, |_| {}).await
    }

    pub async fn with(
        server: &NatsServer,
        name: &str,
        prefill: bool,
        change: impl FnOnce(&mut Registration),
    ) -> Self {
        let broker = server.broker().await;
        let mut registration = Registration {
            request_prefill: prefill,
            ..Registration::new(
                name.parse().unwrap(),
                vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            )
        };
        change(&mut registration);
        let mut s = Subscription::reserve(registration, Incarnation(Uuid::new_v4()), 1, now());
        s.lifecycle = Lifecycle::Ready;
        broker.registry().create(&s).await.unwrap();
        let queue = broker.queue(&s.name, s.incarnation);
        queue.create(&s).await.unwrap();
        let shutdown = CancellationToken::new();
        let view = broker.registry().view(shutdown.clone());
        view.synced().await;
        let config = ReaderConfig { redelivery_delay: Duration::from_millis(200) };
        let readers = Readers::new(broker.clone(), view.clone(), config);
        Self { broker, readers, view, s, queue, _shutdown: shutdown.drop_guard() }
    }

    pub async fn next(&self, wait_ms: u64) -> Option<Delivered> {
        self.try_next(wait_ms).await.unwrap()
    }

    pub async fn try_next(&self, wait_ms: u64) -> Result<Option<Delivered>, ReadError> {
        let cancel = CancellationToken::new();
        let wait = Duration::from_millis(wait_ms);
        self.readers.next(&self.s.name, self.s.incarnation, wait, &cancel, false).await
    }

    pub async fn ack(&self, sequence: u64) -> bool {
        self.readers.acknowledge(&self.s.name, self.s.incarnation, sequence).await.unwrap()
    }

    pub async fn text_then_ack(&self) -> String {
        let got = self.next(2000).await.expect("a message");
        assert!(self.ack(got.id.sequence).await);
        text(&got)
    }

    pub async fn live(&self, incoming_seq: u64, text: &str) {
        let mut copier = Copier::open(self.queue.clone()).await.unwrap().unwrap();
        if !copier.checkpoint().active {
            copier.mark(1, &self.s.marker()).await.unwrap();
        }
        copier.copy(&[Copy { incoming_seq, accepted: None, payload: message(text) }]).await.unwrap();
    }

    /// Texts of a batch.
    pub async fn batch(&self, wait_ms: u64, limit: usize) -> Vec<String> {
        let wait = Duration::from_millis(wait_ms);
        let cancel = CancellationToken::new();
        let got = self.readers.batch(&self.s.name, self.s.incarnation, wait, &cancel, limit).await;
        got.unwrap().iter().map(text).collect()
    }

    /// Numbers of a batch.
    pub async fn numbers(&self, wait_ms: u64, limit: usize) -> Vec<u64> {
        let wait = Duration::from_millis(wait_ms);
        let cancel = CancellationToken::new();
        let got = self.readers.batch(&self.s.name, self.s.incarnation, wait, &cancel, limit).await;
        got.unwrap().iter().map(|m| m.id.sequence).collect()
    }

    pub async fn through(&self, sequence: u64) -> u64 {
        self.readers.acknowledge_through(&self.s.name, self.s.incarnation, sequence).await.unwrap()
    }

    pub async fn stream(&self, window: usize, after: Option<&str>) -> QueueStream {
        self.stream_of(&self.readers, window, after).await
    }

    pub async fn stream_of(&self, readers: &Readers, window: usize, after: Option<&str>) -> QueueStream {
        let after = after.map(|id| id.parse::<EventId>().unwrap());
        let stop = CancellationToken::new();
        let stream = readers.stream(&self.s.name, self.s.incarnation, window, after, stop).await;
        stream.unwrap().expect("a known id")
    }

    /// Messages that were sent to NATS so far. One request more settles what is on its way.
    pub async fn sent(&self) -> u64 {
        self.queue.fence().await.unwrap();
        messages_sent(&self.broker)
    }

    /// Readers of another replica.
    pub async fn other_replica(&self, server: &NatsServer) -> (Readers, DropGuard) {
        self.replica_over(&NatsConfig::new(server.url(), "other")).await
    }

    /// Another replica, with a connection of its own.
    pub async fn replica_over(&self, config: &NatsConfig) -> (Readers, DropGuard) {
        let broker = Broker::connect(config).await.unwrap();
        let shutdown = CancellationToken::new();
        let view = broker.registry().view(shutdown.clone());
        view.synced().await;
        (Readers::new(broker, view, ReaderConfig::default()), shutdown.drop_guard())
    }

    /// The prefill is asked for again.
    pub async fn again(&mut self) {
        let change = |s: &Subscription| s.with_prefill_again(now());
        self.broker.registry().modify(&self.s.name, self.s.incarnation, change).await.unwrap();
        self.s.prefill.round += 1;
    }

    /// Waits until the readers know the round.
    pub async fn known(&self, round: u32) {
        let look = async || self.view.get(self.s.name.as_str()).map(|e| e.value.prefill.round);
        eventually("the round to be known", LONG, look, |r| *r == Some(round)).await;
    }

    pub fn stream_name(&self) -> String {
        format!("stream:{}:{}", self.s.name, self.s.incarnation.short())
    }

    /// As a stream with several replicas is.
    pub async fn forbid_direct(&self, server: &NatsServer) {
        let js = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
        let mut config = js.get_stream(self.stream_name()).await.unwrap().cached_info().config.clone();
        assert!(config.allow_direct);
        config.allow_direct = false;
        js.update_stream(config).await.unwrap();
    }

    /// Does anybody listen to arrivals? No consumer of JetStream does.
    pub async fn is_listened_to(&self, server: &NatsServer) -> bool {
        let client = async_nats::connect(server.url()).await.unwrap();
        let js = async_nats::jetstream::new(client.clone());
        assert_eq!(js.get_stream(self.stream_name()).await.unwrap().cached_info().state.consumer_count, 0);
        let subject = format!("headstart.arrived.{}.{}", self.s.name, self.s.incarnation.short());
        // Who hears it does not answer.
        let request = Request::new().timeout(Some(Duration::from_millis(200)));
        let asked = client.send_request(subject, request).await;
        asked.is_err_and(|error| error.kind() == RequestErrorKind::TimedOut)
    }

    pub async fn fill(&self, attempt: u32, texts: &[&str], seal: bool) {
        self.fill_as(1, attempt, texts, seal).await;
    }

    pub async fn fill_round(&self, round: u32, attempt: u32, texts: &[&str]) {
        self.fill_as(round, attempt, texts, true).await;
    }

    pub async fn fill_as(&self, round: u32, attempt: u32, texts: &[&str], seal: bool) {
        let Claimed::Holder(mut holder) = self.queue.claim_fence(round, attempt, "pod").await.unwrap() else {
            panic!("no holder")
        };
        holder.purge_below().await.unwrap();
        let messages: Vec<Bytes> = texts.iter().map(|t| message(t)).collect();
        holder.write(1, &messages).await.unwrap();
        if seal {
            holder.seal(Counts { messages: texts.len() as u64, ..Counts::default() }).await.unwrap();
        }
    }

    pub async fn state(&self, state: PrefillState) {
        let change = |s: &Subscription| s.with_prefill_state(state, None, None, now());
        self.broker.registry().modify(&self.s.name, self.s.incarnation, change).await.unwrap();
    }
}

pub fn text(message: &Delivered) -> String {
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(json["sequence_number"], message.id.sequence);
    assert_eq!(json["num_delivered"], message.num_delivered);
    json["t"].as_str().unwrap().to_owned()
}

pub fn message(text: &str) -> Bytes {
    Bytes::from(format!("{{\"t\":\"{text}\"}}"))
}
