//! Answers of NATS that are lost, requests that come late, and connections that break in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use broker::{
    Broker, Claimed, Copier, FenceHolder, Queue, ReaderConfig, Readers, Removal,
    testing::{LossyProxy, NatsServer, ready_subscription},
};
use bytes::Bytes;
use model::{
    Entry, Subscription,
    dead_letter::{DeadLetter, DeadLetterReason, Origin},
    fence::Counts,
};
use support::{Case, LONG, now};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

fn messages(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("{{\"n\":{n}}}"))).collect()
}

struct Lossy {
    server: NatsServer,
    proxy: LossyProxy,
    broker: Broker,
    s: Subscription,
    /// Over the damaged wire, and directly.
    queue: Queue,
    direct: Queue,
}

impl Lossy {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let (s, direct) = ready_subscription(&server.broker().await, &["users/user"]).await;
        let proxy = LossyProxy::before(&server).await;
        let broker = Broker::connect(&proxy.config("test")).await.unwrap();
        let queue = broker.queue(&s.name, s.incarnation);
        Self { server, proxy, broker, s, queue, direct }
    }

    async fn holder(&self) -> Box<FenceHolder> {
        match self.queue.claim_fence(1, 1, "pod").await.unwrap() {
            Claimed::Holder(holder) => holder,
            other => panic!("{other:?}"),
        }
    }

    async fn fence(&self) -> u64 {
        self.direct.fence().await.unwrap().unwrap().revision
    }

    async fn prefill(&self) -> u64 {
        self.direct.pending().await.unwrap().unwrap().prefill
    }

    /// Cuts the connection as soon as NATS has what was asked for.
    async fn cut_when<F: Future<Output = bool>>(&self, asked: impl Fn() -> F) {
        broker::testing::eventually("NATS to have it", LONG, asked, |has| *has).await;
        self.proxy.cut();
    }
}

/// Readers over the damaged wire.
async fn readers(proxy: &LossyProxy) -> (Readers, DropGuard) {
    let broker = Broker::connect(&proxy.config("test")).await.unwrap();
    let stop = CancellationToken::new();
    let view = broker.registry().view(stop.clone());
    view.synced().await;
    (Readers::new(broker, view, ReaderConfig::default()), stop.drop_guard())
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_written_once() {
    let lossy = Lossy::start().await;
    let mut holder = lossy.holder().await;
    let before = lossy.fence().await;
    lossy.proxy.lose_answers();
    let (batch, landed) = (messages(1), async || lossy.prefill().await == 1);
    let (written, ()) = tokio::join!(holder.write(1, &batch), lossy.cut_when(landed));
    written.unwrap();
    assert_eq!(lossy.prefill().await, 1);
    assert!(lossy.fence().await > before, "nothing that is on its way may land");
    // Of several messages the first waits for an answer, too: here nothing was committed.
    lossy.proxy.lose_answers();
    let batch = messages(3);
    let cut = async {
        lossy.server.broker().await;
        lossy.proxy.cut();
    };
    let (written, ()) = tokio::join!(holder.write(2, &batch), cut);
    written.unwrap();
    assert_eq!(lossy.prefill().await, 4);
    // And here all of it.
    lossy.proxy.cut_after_requests(2);
    holder.write(5, &messages(2)).await.unwrap();
    assert_eq!(lossy.prefill().await, 6);
    for (index, n) in (1..).zip([0, 0, 1, 2, 0, 1]) {
        assert_eq!(holder.message(index).await.unwrap(), Some(messages(3)[n].clone()), "{index}");
    }
}

#[tokio::test]
async fn an_event_whose_acknowledgement_is_written_and_not_answered_is_acknowledged() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let marker = case.broker.events().marker(&case.s).await.unwrap();
    Copier::open(case.queue.clone()).await.unwrap().unwrap().mark(marker, &case.s.marker()).await.unwrap();
    let proxy = LossyProxy::before(&server).await;
    let (readers, _stop) = readers(&proxy).await;
    let stop = CancellationToken::new();
    let (name, incarnation) = (&case.s.name, case.s.incarnation);
    for through in [false, true] {
        let event = Bytes::from_static(br#"{"realm":"udm","topic":"users/user"}"#);
        let place = case.broker.events().publish(event, Instant::now()).await.unwrap();
        let got = readers.next(name, incarnation, LONG, &stop, false).await.unwrap().expect("the event");
        let number = got.id.sequence;
        proxy.lose_answers();
        let acknowledging = async {
            match through {
                false => readers.acknowledge(name, incarnation, number).await.unwrap(),
                true => readers.acknowledge_through(name, incarnation, number).await.unwrap() == 1,
            }
        };
        let written = async || {
            let checkpoint = case.queue.checkpoint().await.unwrap().unwrap();
            checkpoint.value.incoming_seq == place
        };
        let cut = async {
            broker::testing::eventually("it to be written", LONG, written, |has| *has).await;
            proxy.cut();
        };
        let (acknowledged, ()) = tokio::join!(acknowledging, cut);
        assert!(acknowledged, "through: {through}");
        assert_eq!(case.queue.pending().await.unwrap().unwrap().main, 0);
    }
    stop.cancel();
}

#[tokio::test]
async fn a_claim_and_a_seal_whose_answers_are_lost_are_known_again() {
    let lossy = Lossy::start().await;
    let before = lossy.fence().await;
    lossy.proxy.lose_answers();
    // The claim reads the fence first, and even that answer is lost.
    let claim = lossy.queue.claim_fence(1, 1, "pod");
    let cut = async {
        tokio::task::yield_now().await;
        lossy.proxy.cut();
    };
    let (claimed, ()) = tokio::join!(claim, cut);
    let Claimed::Holder(mut holder) = claimed.unwrap() else { panic!() };
    assert!(lossy.fence().await > before);
    holder.write(1, &messages(2)).await.unwrap();
    lossy.proxy.lose_answers();
    let sealed = async || lossy.direct.fence().await.unwrap().unwrap().value.seals(lossy.s.incarnation, 1);
    let counts = Counts { messages: 2, ..Counts::default() };
    let (result, ()) = tokio::join!(holder.seal(counts), lossy.cut_when(sealed));
    result.unwrap();
}

#[tokio::test]
async fn a_write_that_comes_late_lands_nowhere() {
    let lossy = Lossy::start().await;
    let mut holder = lossy.holder().await;
    lossy.proxy.hold_requests();
    let batch = messages(1);
    let cut = async {
        // The write is on its way, and held back.
        lossy.server.broker().await;
        lossy.proxy.cut();
    };
    let (written, ()) = tokio::join!(holder.write(1, &batch), cut);
    written.unwrap();
    lossy.proxy.release_requests();
    // What was held back is there when a later write of another connection is.
    for index in 2..20 {
        holder.write(index, &messages(1)).await.unwrap();
        assert_eq!(lossy.prefill().await, index);
    }
}

#[tokio::test]
async fn what_was_asked_on_a_connection_that_breaks_ends_with_it() {
    let lossy = Lossy::start().await;
    let registry = lossy.broker.registry();
    let entry = registry.get(&lossy.s.name).await.unwrap().unwrap();
    lossy.proxy.lose_answers();
    let next = Subscription { topics_version: 9, ..lossy.s.clone() };
    let direct = lossy.server.broker().await.registry();
    let written =
        async || direct.subscription(&lossy.s.name).await.unwrap().unwrap().value.topics_version == 9;
    let next = Entry::Subscription(next);
    let (updated, ()) =
        tokio::join!(registry.update(&lossy.s.name, &next, entry.revision), lossy.cut_when(written));
    let error = updated.unwrap_err();
    assert!(model::error_chain(&error).contains("the connection broke"), "{}", model::error_chain(&error));
    // A read is asked again.
    lossy.proxy.lose_answers();
    let cut = async {
        tokio::task::yield_now().await;
        lossy.proxy.cut();
    };
    let (read, ()) = tokio::join!(registry.get(&lossy.s.name), cut);
    assert_eq!(read.unwrap().unwrap().value, next);
}

#[tokio::test]
async fn a_dead_letter_whose_answer_is_lost_is_written_once() {
    let lossy = Lossy::start().await;
    let s = &lossy.s;
    let letter = DeadLetter {
        incarnation: s.incarnation,
        origin: Origin::Prefill { attempt: s.prefill.attempt },
        reason: DeadLetterReason::Unreadable,
        problem: None,
        topic: "users/user".to_owned(),
        dn: None,
        size: 0,
        limit: 0,
        at: now(),
    };
    lossy.proxy.lose_answers();
    let direct = lossy.server.broker().await.dead_letters();
    let (letters, written) = (lossy.broker.dead_letters(), async || direct.count(s).await.unwrap() == 1);
    let (set_aside, ()) = tokio::join!(letters.set_aside(&s.name, &letter, b""), lossy.cut_when(written));
    set_aside.unwrap();
    assert_eq!(direct.count(s).await.unwrap(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_leaves_nothing_out() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    for n in 2..60 {
        case.live(n, &"x".repeat(500)).await;
    }
    let all = case.numbers(1000, 100).await;
    assert_eq!(all.len(), 58);
    let proxy = LossyProxy::before(&server).await;
    for bytes in [9_000, 15_000, 25_000, 40_000] {
        proxy.cut_after(0);
        let (readers, _stop) = readers(&proxy).await;
        proxy.cut_after(bytes);
        let read =
            readers.batch(&case.s.name, case.s.incarnation, LONG, &CancellationToken::new(), 100).await;
        let numbers: Vec<u64> = read.unwrap().iter().map(|m| m.id.sequence).collect();
        assert!(!numbers.is_empty() && all.starts_with(&numbers), "{bytes}: {numbers:?}");
    }
}

#[tokio::test]
async fn an_answer_with_a_gap_ends_at_the_gap() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    for n in 2..14 {
        case.live(n, &format!("text-{n}-")).await;
    }
    let all = case.numbers(1000, 100).await;
    assert_eq!(all.len(), 12);
    let proxy = LossyProxy::before(&server).await;
    for lost in [4, 13] {
        proxy.lose_message(&format!("text-{lost}-"));
        let (readers, _stop) = readers(&proxy).await;
        let read =
            readers.batch(&case.s.name, case.s.incarnation, LONG, &CancellationToken::new(), 100).await;
        let numbers: Vec<u64> = read.unwrap().iter().map(|m| m.id.sequence).collect();
        assert!(!numbers.is_empty() && all.starts_with(&numbers), "{lost}: {numbers:?}");
    }
}

#[tokio::test]
async fn a_removal_that_dies_anywhere_leaves_nothing_that_no_entry_names() {
    let server = NatsServer::start().await;
    let direct = server.broker().await;
    let proxy = LossyProxy::before(&server).await;
    let mut survived = 0;
    for requests in 1.. {
        let (s, queue) = ready_subscription_again(&direct).await;
        let broker = Broker::connect(&proxy.config("test")).await.unwrap();
        broker.registry().get(&s.name).await.unwrap();
        let connections = proxy.latest();
        proxy.cut_after_requests(requests);
        let removed = broker.remove_subscription(&s.name, s.incarnation).await;
        assert_eq!(direct.orphans().await.unwrap(), [], "cut after {requests} requests");
        let entry = direct.registry().get(&s.name).await.unwrap().unwrap().value;
        if matches!(entry, Entry::Tombstone(_)) {
            assert!(!queue.exists().await.unwrap());
            assert_eq!(direct.credentials().get(&s.name).await.unwrap(), None);
        } else {
            survived += 1;
            let finished = direct.remove_subscription(&s.name, s.incarnation).await.unwrap();
            assert_eq!(finished, Removal::Removed);
        }
        if removed.is_ok() && proxy.latest() == connections {
            break;
        }
    }
    assert!(survived >= 5, "{survived} removals died half-way");
}

/// The subscription `mail`, whatever it was before.
async fn ready_subscription_again(broker: &Broker) -> (Subscription, Queue) {
    let name = "mail".parse().unwrap();
    let Some(found) = broker.registry().get(&name).await.unwrap() else {
        let (s, queue) = ready_subscription(broker, &["users/user"]).await;
        broker.credentials().put(&s.name, s.incarnation, "hash").await.unwrap();
        return (s, queue);
    };
    let Entry::Tombstone(tombstone) = found.value else { panic!("{found:?}") };
    let registration = model::subscription::Registration {
        request_prefill: true,
        ..model::subscription::Registration::new(name, vec![])
    };
    let incarnation = model::Incarnation(uuid::Uuid::new_v4());
    let mut s = Subscription::reserve(registration, incarnation, tombstone.next_sequence, now());
    s.lifecycle = model::subscription::Lifecycle::Ready;
    broker.registry().update(&s.name, &Entry::Subscription(s.clone()), found.revision).await.unwrap();
    let queue = broker.queue(&s.name, s.incarnation);
    queue.create(&s).await.unwrap();
    broker.credentials().put(&s.name, s.incarnation, "hash").await.unwrap();
    (s, queue)
}
