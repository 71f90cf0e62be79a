//! Reading queues on a real nats-server: gates, long polls, batches, redelivery, acknowledgement.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::{
    Copier, ReadError, ReaderConfig, Readers,
    testing::{NatsServer, eventually},
};
use model::{Incarnation, PrefillState, Subscription};
use support::{Case, LONG, text};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[tokio::test]
async fn the_prefill_comes_first_and_only_when_it_is_done() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.live(7, "live1").await;
    case.fill(1, &["a", "b"], true).await;
    assert_eq!(case.next(50).await, None);
    // Not even by its number.
    let heads: Vec<bool> = futures::future::join_all((1..6).map(|n| case.ack(n))).await;
    assert_eq!(heads.iter().filter(|acked| **acked).count(), 1, "only the live message: {heads:?}");
    case.live(8, "live2").await;
    case.state(PrefillState::Running).await;
    assert_eq!(case.next(50).await, None);
    case.state(PrefillState::Done).await;
    for expected in ["a", "b", "live2"] {
        assert_eq!(case.text_then_ack().await, expected);
    }
    assert_eq!(case.next(50).await, None);
}

#[tokio::test]
async fn a_waiting_poll_wakes_when_the_prefill_is_done() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["a"], true).await;
    let began = Instant::now();
    let (got, ()) = tokio::join!(case.next(20_000), case.state(PrefillState::Done));
    assert!(got.is_some());
    assert!(began.elapsed() < Duration::from_secs(10), "it waited for its time-out");
}

#[tokio::test]
async fn a_waiting_poll_wakes_when_an_event_arrives_also_after_a_kill_of_the_server() {
    let mut server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    for round in 0..3u64 {
        let began = Instant::now();
        let text = format!("live{round}");
        let (got, ()) = tokio::join!(case.next(20_000), async {
            // The poll is waiting by then, or not: both must work.
            tokio::task::yield_now().await;
            case.live(7 + round, &text).await;
        });
        assert!(case.ack(got.expect("the event").id.sequence).await);
        assert!(began.elapsed() < Duration::from_secs(10), "it waited for its time-out");
        server.restart().await;
        eventually(
            "the connection",
            Duration::from_secs(20),
            async || case.queue.exists().await.ok(),
            |e| *e == Some(true),
        )
        .await;
    }
}

#[tokio::test]
async fn an_unacknowledged_head_comes_again_after_the_delay() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    case.live(7, "one").await;
    case.live(8, "two").await;
    let first = case.next(1000).await.unwrap();
    assert_eq!(first.num_delivered, 1);
    let again = case.next(5000).await.unwrap();
    assert_eq!((again.id.sequence, again.num_delivered), (first.id.sequence, 2));
    assert!(case.ack(first.id.sequence).await);
    assert!(!case.ack(first.id.sequence).await, "the second acknowledgement finds nothing");
    assert_eq!(case.text_then_ack().await, "two");
}

#[tokio::test]
async fn messages_may_be_acknowledged_in_any_order() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    for n in 0..3 {
        case.live(7 + n, &format!("m{n}")).await;
    }
    let head = case.next(1000).await.unwrap().id.sequence;
    // Each copy has a checkpoint before it, so numbers have gaps: fence and checkpoint can't be acknowledged.
    let acked: Vec<u64> =
        futures::future::join_all((head + 1..head + 6).map(async |n| case.ack(n).await.then_some(n)))
            .await
            .into_iter()
            .flatten()
            .collect();
    assert_eq!(acked.len(), 2);
    assert!(case.ack(head).await);
    assert_eq!(case.next(50).await, None);
    assert!(case.queue.exists().await.unwrap());
}

#[tokio::test]
async fn only_the_done_attempt_is_delivered() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["old1", "old2"], false).await;
    case.fill(2, &["new"], true).await;
    case.broker
        .registry()
        .modify(&case.s.name, case.s.incarnation, |s| {
            let mut s = s.clone();
            s.prefill.attempt = 2;
            s.prefill.state = PrefillState::Done;
            Some(s)
        })
        .await
        .unwrap();
    assert_eq!(case.text_then_ack().await, "new");
    assert_eq!(case.next(50).await, None);
}

#[tokio::test]
async fn popping_removes_on_delivery() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    case.live(7, "one").await;
    let cancel = CancellationToken::new();
    let pop =
        || case.readers.next(&case.s.name, case.s.incarnation, Duration::from_millis(50), &cancel, true);
    assert!(pop().await.unwrap().is_some());
    assert_eq!(pop().await.unwrap(), None);
    assert_eq!(case.queue.pending().await.unwrap().unwrap().main, 0);
}

#[tokio::test]
async fn two_replicas_share_a_queue() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let shutdown = CancellationToken::new();
    let view = case.broker.registry().view(shutdown.clone());
    let other = Readers::new(case.broker.clone(), view, ReaderConfig::default());
    case.live(7, "one").await;
    case.live(8, "two").await;
    let head = case.next(1000).await.unwrap().id.sequence;
    assert!(other.acknowledge(&case.s.name, case.s.incarnation, head).await.unwrap());
    let wait = Duration::from_secs(5);
    let got = other.next(&case.s.name, case.s.incarnation, wait, &shutdown, false).await.unwrap().unwrap();
    assert_eq!(case.text_then_ack().await, "two");
    assert!(!other.acknowledge(&case.s.name, case.s.incarnation, got.id.sequence).await.unwrap());
    shutdown.cancel();
}

#[tokio::test]
async fn a_removed_subscription_is_gone_and_a_lost_queue_is_broken() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let (got, removed) = tokio::join!(case.try_next(20_000), async {
        tokio::task::yield_now().await;
        case.broker.remove_subscription(&case.s.name, case.s.incarnation).await
    });
    removed.unwrap();
    assert!(matches!(got, Err(ReadError::Gone)), "{got:?}");
    assert!(matches!(case.try_next(50).await, Err(ReadError::Gone)));

    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = format!("stream:mail:{}", case.s.incarnation.short());
    async_nats::jetstream::new(client).delete_stream(stream).await.unwrap();
    assert!(matches!(case.try_next(50).await, Err(ReadError::Broken)));
}

#[tokio::test]
async fn shutdown_ends_a_poll_with_nothing() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let cancel = CancellationToken::new();
    let wait = Duration::from_secs(60);
    let poll = case.readers.next(&case.s.name, case.s.incarnation, wait, &cancel, false);
    let (got, ()) = tokio::join!(poll, async { cancel.cancel() });
    assert_eq!(got.unwrap(), None);
}

#[tokio::test]
async fn a_look_costs_at_most_two_round_trips() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["a", "b"], true).await;
    case.state(PrefillState::Done).await;
    case.live(7, "live1").await;
    case.live(8, "live2").await;
    // Two heads and the entry at once. When the prefill is drained the fence says that it stays so, and from then on one
    // head is enough. A removal is one request, since it is known what was delivered; the other message tells streams of it.
    let mut seen = Vec::new();
    for expected in ["a", "b", "live1", "live2"] {
        let before = case.sent().await;
        let got = case.next(20_000).await.expect("a message");
        let read = case.sent().await;
        assert!(case.ack(got.id.sequence).await);
        seen.push((expected, read - before - 1, case.sent().await - read - 1));
        assert_eq!(text(&got), expected);
    }
    assert_eq!(seen, [("a", 3, 2), ("b", 3, 2), ("live1", 4, 2), ("live2", 1, 2)]);
    // A poll that waits looks twice: before, and when it listens. Then it is silent until something comes.
    assert_eq!(case.next(50).await, None);
    let before = case.sent().await;
    assert_eq!(case.next(1000).await, None);
    assert_eq!(case.sent().await - before - 1, 2, "the first look, and the last one at the deadline");
}

#[tokio::test]
async fn a_batch_is_in_order_and_live_messages_wait_for_the_prefill() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.live(7, "live1").await;
    assert_eq!(case.batch(50, 10).await, [""; 0]);
    case.fill(1, &["a", "b", "c"], true).await;
    case.live(8, "live2").await;
    case.state(PrefillState::Done).await;
    let numbers = case.numbers(20_000, 2).await;
    assert_eq!(case.batch(20_000, 2).await, ["a", "b"], "what is not acknowledged comes again");
    assert_eq!(case.through(numbers[1]).await, 2);
    assert_eq!(case.through(numbers[1]).await, 0, "the second time there is nothing");
    assert_eq!(case.through(numbers[0]).await, 0);
    let numbers = case.numbers(20_000, 10).await;
    assert_eq!(numbers.len(), 1, "only the rest of the prefill");
    // Live messages have not been delivered yet, so nothing is removed by their numbers.
    let live: Vec<u64> = futures::future::join_all((1..numbers[0]).map(|n| case.through(n))).await;
    assert_eq!(live.iter().sum::<u64>(), 0);
    assert!(case.ack(numbers[0]).await);
    let got = case.readers.batch(&case.s.name, case.s.incarnation, LONG, &CancellationToken::new(), 10).await;
    let got = got.unwrap();
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["live1", "live2"]);
    assert!(got[0].id.sequence > numbers[0], "numbers of live messages are above those of prefills");
    assert_eq!(case.through(got[1].id.sequence).await, 2);
    let left = case.queue.pending().await.unwrap().unwrap();
    assert_eq!((left.main, left.prefill), (0, 0));
    assert!(case.queue.exists().await.unwrap());
}

#[tokio::test]
async fn a_batch_ends_where_the_next_round_begins() {
    let server = NatsServer::start().await;
    let mut case = Case::new(&server, true).await;
    case.fill(1, &["a"], true).await;
    case.state(PrefillState::Done).await;
    case.live(7, "live1").await;
    case.live(8, "live2").await;
    assert_eq!(case.text_then_ack().await, "a");
    case.again().await;
    let mut copier = Copier::open(case.queue.clone()).await.unwrap().unwrap();
    copier.mark(9, &case.s.marker()).await.unwrap();
    case.live(10, "live3").await;
    let numbers = case.numbers(20_000, 10).await;
    assert_eq!(numbers.len(), 2, "the events before the marker");
    assert_eq!(case.through(numbers[1]).await, 2);
    assert_eq!(case.batch(50, 10).await, [""; 0]);
    case.fill_round(2, 2, &["A", "B"]).await;
    case.state(PrefillState::Done).await;
    let numbers = case.numbers(20_000, 10).await;
    assert_eq!(numbers.len(), 2);
    assert_eq!(case.through(numbers[1]).await, 2);
    assert_eq!(case.batch(20_000, 10).await, ["live3"]);
}

#[tokio::test]
async fn an_acknowledged_round_is_over_although_the_replica_remembers_it() {
    let server = NatsServer::start().await;
    let mut case = Case::new(&server, true).await;
    case.fill(1, &["a", "b"], true).await;
    case.state(PrefillState::Done).await;
    let numbers = case.numbers(20_000, 10).await;
    // Asked again while "a" and "b" are out: they may not be acknowledged any more, remembered or not.
    case.again().await;
    case.known(2).await;
    assert!(!case.ack(numbers[0]).await);
    assert_eq!(case.through(numbers[1]).await, 0);
    case.fill_round(2, 2, &["A"]).await;
    case.state(PrefillState::Done).await;
    assert_eq!(case.text_then_ack().await, "A");
}

#[tokio::test]
async fn large_batches_are_bounded_in_bytes_and_nothing_is_left_out() {
    let server = NatsServer::start().await;
    // With the streams of a cluster, too: there the leader is asked message by message.
    for direct in [true, false] {
        let case = Case::named(&server, if direct { "direct" } else { "leader" }, false).await;
        if !direct {
            case.forbid_direct(&server).await;
        }
        let large = "x".repeat(1 << 20);
        for n in 0..9_u64 {
            case.live(7 + n, &format!("{n}{large}")).await;
        }
        for n in 9..40_u64 {
            case.live(7 + n, &n.to_string()).await;
        }
        let mut seen = Vec::new();
        let mut sizes = Vec::new();
        while seen.len() < 40 {
            let cancel = CancellationToken::new();
            let got = case.readers.batch(&case.s.name, case.s.incarnation, LONG, &cancel, 30);
            let got = got.await.unwrap();
            let texts: Vec<String> = got.iter().map(text).collect();
            sizes.push(texts.len());
            seen.extend(texts.iter().map(|t| t.trim_end_matches('x').parse::<u64>().unwrap()));
            assert_eq!(case.through(got.last().unwrap().id.sequence).await, got.len() as u64);
        }
        assert_eq!(seen, (0..40).collect::<Vec<u64>>(), "direct: {direct}");
        assert!(sizes[0] <= 5, "4 MiB and one message: {sizes:?}");
        assert!(sizes.len() <= 5, "not one by one: {sizes:?}");
    }
}

#[tokio::test]
async fn after_a_kill_of_the_server_a_waiting_poll_is_soon_back_in_work() {
    let mut server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let poll = case.next(120_000);
    let events = async {
        eventually("the poll to listen", LONG, || case.is_listened_to(&server), |is| *is).await;
        server.restart().await;
        eventually("the connection", LONG, async || case.queue.exists().await.ok(), |e| *e == Some(true))
            .await;
        case.live(7, "one").await;
        Instant::now()
    };
    let (got, written) = tokio::join!(poll, events);
    assert_eq!(text(&got.expect("the event")), "one");
    assert!(written.elapsed() < Duration::from_secs(15), "woken {:?} late", written.elapsed());
}

#[tokio::test]
async fn many_polls_share_one_listener_and_all_wake() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let began = Instant::now();
    let polls = futures::future::join_all((0..8).map(|_| case.next(8_000)));
    let event = async {
        eventually("the polls to listen", LONG, || case.is_listened_to(&server), |is| *is).await;
        case.live(7, "one").await;
    };
    let (got, ()) = tokio::join!(polls, event);
    // One gets it first, the others after the redelivery delay, one after the other.
    let mut times: Vec<u64> = got.into_iter().flatten().map(|m| m.num_delivered).collect();
    times.sort_unstable();
    assert_eq!(times, (1..=8).collect::<Vec<u64>>());
    assert!(began.elapsed() < Duration::from_secs(8));
}

/// Found by the crash campaign: a replica that had not heard of the new registration answered its consumer that the
/// subscription does not exist, which was the former one.
#[tokio::test]
async fn a_queue_of_a_former_registration_is_told_from_one_that_is_gone() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    case.live(2, "former").await;
    let sequence = case.next(2000).await.expect("a message").id.sequence;
    case.broker.remove_subscription(&case.s.name, case.s.incarnation).await.unwrap();
    assert!(matches!(case.try_next(50).await, Err(ReadError::Gone)));
    let Some(tombstone) = case.broker.registry().get(&case.s.name).await.unwrap() else {
        panic!("no tombstone")
    };
    let again = Subscription {
        incarnation: Incarnation(Uuid::new_v4()),
        first_sequence: 2_000_000,
        ..case.s.clone()
    };
    let entry = model::Entry::Subscription(again.clone());
    case.broker.registry().update(&again.name, &entry, tombstone.revision).await.unwrap();
    case.broker.queue(&again.name, again.incarnation).create(&again).await.unwrap();
    assert!(matches!(case.try_next(50).await, Err(ReadError::Replaced)));
    let late = case.readers.acknowledge(&case.s.name, case.s.incarnation, sequence).await;
    assert!(matches!(late, Err(ReadError::Replaced)), "{late:?}");
}

/// Found by the crash campaign: a prefill was asked for again while the former one was partly unread; one replica knew
/// of it and delivered a live message, and then another one, whose view lagged, the rest of the former prefill.
#[tokio::test]
async fn a_replica_that_lags_does_not_deliver_the_rest_of_a_former_prefill_after_live_messages() {
    let server = NatsServer::start().await;
    let mut case = Case::new(&server, true).await;
    case.fill(1, &["a", "b"], true).await;
    case.state(PrefillState::Done).await;
    case.live(7, "deleted").await;
    let lagging = lagging(&case, PrefillState::Done).await;
    case.again().await;
    case.known(2).await;
    for limit in [1, 10] {
        let next =
            lagging.batch(&case.s.name, case.s.incarnation, LONG, &CancellationToken::new(), limit).await;
        assert_eq!(next.unwrap().iter().map(text).collect::<Vec<_>>(), ["deleted"]);
    }
}

/// A replica whose view has ended: it hears of nothing any more.
async fn lagging(case: &Case, known: PrefillState) -> Readers {
    let ended = CancellationToken::new();
    let view = case.broker.registry().view(ended.clone());
    view.synced().await;
    let state = async || view.get("mail").map(|e| e.value.prefill.state);
    eventually("the view", LONG, state, |state| *state == Some(known)).await;
    ended.cancel();
    Readers::new(case.broker.clone(), view, ReaderConfig { redelivery_delay: Duration::ZERO })
}

#[tokio::test]
async fn a_replica_that_lags_does_not_deliver_a_prefill_that_is_not_done_any_more() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["a"], true).await;
    case.state(PrefillState::Done).await;
    let lagging = lagging(&case, PrefillState::Done).await;
    // By request: round and attempt stay what they are.
    case.state(PrefillState::Running).await;
    let (wait, cancel) = (Duration::from_millis(50), CancellationToken::new());
    let next = lagging.next(&case.s.name, case.s.incarnation, wait, &cancel, false).await;
    assert_eq!(next.unwrap(), None);
}

#[tokio::test]
async fn a_prefill_that_is_done_by_request_while_an_attempt_goes_on_is_not_drained() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &[], false).await;
    case.state(PrefillState::Done).await;
    case.live(2, "live").await;
    assert_eq!(case.text_then_ack().await, "live");
    case.fill(1, &["late"], true).await;
    assert_eq!(case.text_then_ack().await, "late");
}

#[tokio::test]
async fn nobody_listens_for_a_queue_that_nobody_waits_for() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    assert_eq!(case.next(50).await, None);
    let look = async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        case.is_listened_to(&server).await
    };
    eventually("the listener to be gone", LONG, look, |is| !*is).await;
}
