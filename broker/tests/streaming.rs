//! Queues as streams on a real nats-server: windows, resuming, rounds, kills.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::time::Duration;

use broker::{
    Copier, QueueStream, ReadError, StreamEnd,
    testing::{NatsServer, eventually, messages_sent},
};
use model::{PrefillState, delivery::EventId};
use support::{Case, LONG, text};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SHORT: Duration = Duration::from_millis(100);

/// The next messages, at least `count` of them, as (id, text).
async fn read(stream: &mut QueueStream, count: usize) -> Vec<(EventId, String)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let got = stream.next(LONG).await.unwrap();
        assert!(!got.is_empty(), "{count} were expected, and only {seen:?} came");
        seen.extend(got.iter().map(|m| (m.id, text(m))));
    }
    seen
}

fn texts(seen: &[(EventId, String)]) -> Vec<&str> {
    seen.iter().map(|(_, text)| text.as_str()).collect()
}

/// Nothing comes although it is there.
async fn silent(stream: &mut QueueStream) {
    let got = stream.next(SHORT).await.unwrap();
    assert!(got.is_empty(), "{got:?}");
}

#[tokio::test]
async fn live_messages_are_held_back_until_the_prefill_is_removed() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.live(7, "live1").await;
    let mut stream = case.stream(100, None).await;
    silent(&mut stream).await;
    case.fill(1, &["a", "b", "c"], true).await;
    silent(&mut stream).await;
    case.state(PrefillState::Done).await;
    let prefill = read(&mut stream, 3).await;
    assert_eq!(texts(&prefill), ["a", "b", "c"]);
    assert!(prefill.iter().all(|(id, _)| id.to_string().starts_with('p')));
    silent(&mut stream).await;
    assert_eq!(case.through(prefill[1].0.sequence).await, 2);
    silent(&mut stream).await;
    assert!(case.ack(prefill[2].0.sequence).await);
    let live = read(&mut stream, 1).await;
    assert_eq!(texts(&live), ["live1"]);
    assert!(live[0].0.to_string().starts_with('l'));
    // From here on they come as they arrive, acknowledged or not.
    case.live(8, "live2").await;
    assert_eq!(texts(&read(&mut stream, 1).await), ["live2"]);
}

#[tokio::test]
async fn a_full_window_is_opened_by_another_replica() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let (other, _guard) = case.other_replica(&server).await;
    let count = 30_u64;
    for n in 0..count {
        case.live(7 + n, &n.to_string()).await;
    }
    let mut stream = case.stream(10, None).await;
    let first = read(&mut stream, 10).await;
    assert_eq!(first.len(), 10, "the window is full");
    silent(&mut stream).await;
    // Not the head: only the notice tells.
    assert!(other.acknowledge(&case.s.name, case.s.incarnation, first[3].0.sequence).await.unwrap());
    assert_eq!(texts(&read(&mut stream, 1).await), ["10"]);
    silent(&mut stream).await;
    let mut seen = first.len() + 1;
    let mut last = first[9].0;
    while seen < count as usize {
        let through = other.acknowledge_through(&case.s.name, case.s.incarnation, last.sequence).await;
        assert!(through.unwrap() > 0);
        let got = read(&mut stream, 1).await;
        assert!(got.len() <= 10);
        assert_eq!(texts(&got), (seen..seen + got.len()).map(|n| n.to_string()).collect::<Vec<_>>());
        seen += got.len();
        last = got.last().unwrap().0;
    }
}

#[tokio::test]
async fn a_lost_notice_costs_a_second_and_looks_are_bounded() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    for n in 0..4 {
        case.live(7 + n, &n.to_string()).await;
    }
    let mut stream = case.stream(2, None).await;
    let first = read(&mut stream, 2).await;
    let before = messages_sent(&case.broker);
    let began = Instant::now();
    assert!(stream.next(Duration::from_millis(2500)).await.unwrap().is_empty());
    let looks = messages_sent(&case.broker) - before;
    // Each is the checkpoint and the head.
    assert!(looks <= 5, "{looks} requests in {:?}", began.elapsed());
    // Removed without a word.
    let head = case.queue.live_from(1).await.unwrap().unwrap();
    assert_eq!(model::delivery::live_number(head.tag.unwrap().incoming_seq), first[0].0.sequence);
    let js = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    js.get_stream(case.stream_name()).await.unwrap().delete_message(head.sequence).await.unwrap();
    assert_eq!(texts(&read(&mut stream, 1).await), ["2"]);
}

#[tokio::test]
async fn a_stream_is_resumed_behind_an_id_or_from_the_head() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    case.fill(1, &["a", "b", "c"], true).await;
    case.state(PrefillState::Done).await;
    case.live(8, "live1").await;
    let seen = read(&mut case.stream(100, None).await, 3).await;
    let mut again = case.stream(100, None).await;
    let got = again.next(LONG).await.unwrap();
    assert_eq!(got.iter().map(|m| m.num_delivered).collect::<Vec<_>>(), [2, 2, 2], "all of them, at once");
    let mut behind = case.stream(100, Some(&seen[1].0.to_string())).await;
    assert_eq!(texts(&read(&mut behind, 1).await), ["c"]);
    silent(&mut behind).await;
    // What the client has counts for the window.
    let mut full = case.stream(2, Some(&seen[1].0.to_string())).await;
    silent(&mut full).await;
    assert!(case.ack(seen[0].0.sequence).await);
    assert_eq!(texts(&read(&mut full, 1).await), ["c"]);
    assert_eq!(case.through(seen[2].0.sequence).await, 2);
    for stream in [&mut again, &mut behind, &mut full] {
        assert_eq!(texts(&read(stream, 1).await), ["live1"]);
    }
    // An id of the prefill says nothing of live messages, whatever their numbers.
    let mut late = case.stream(100, Some(&seen[2].0.to_string())).await;
    assert_eq!(texts(&read(&mut late, 1).await), ["live1"]);
    let unknown: EventId = "l1000000".parse().unwrap();
    let stop = CancellationToken::new();
    let unknown = case.readers.stream(&case.s.name, case.s.incarnation, 9, Some(unknown), stop).await;
    assert!(unknown.unwrap().is_none(), "the queue never had that number");
}

#[tokio::test]
async fn a_new_round_in_the_middle_of_a_stream() {
    let server = NatsServer::start().await;
    for resumed in [false, true] {
        let mut case = Case::named(&server, if resumed { "resumed" } else { "same" }, true).await;
        case.fill(1, &["a", "b"], true).await;
        case.state(PrefillState::Done).await;
        let mut stream = case.stream(100, None).await;
        let prefill = read(&mut stream, 2).await;
        assert_eq!(case.through(prefill[1].0.sequence).await, 2);
        case.live(7, "live1").await;
        let live1 = read(&mut stream, 1).await;
        // Asked for again: what is accepted before the marker still comes.
        case.again().await;
        case.known(2).await;
        case.live(8, "live2").await;
        let mut copier = Copier::open(case.queue.clone()).await.unwrap().unwrap();
        copier.mark(9, &case.s.marker()).await.unwrap();
        case.live(10, "live3").await;
        if resumed {
            stream = case.stream(100, Some(&live1[0].0.to_string())).await;
        }
        let live2 = read(&mut stream, 1).await;
        assert_eq!(texts(&live2), ["live2"]);
        silent(&mut stream).await;
        case.fill_round(2, 2, &["A", "B"]).await;
        case.state(PrefillState::Done).await;
        // The events before the marker are still out.
        silent(&mut stream).await;
        assert_eq!(case.through(live2[0].0.sequence).await, 2);
        let prefill = read(&mut stream, 2).await;
        assert_eq!(texts(&prefill), ["A", "B"]);
        silent(&mut stream).await;
        assert_eq!(case.through(prefill[1].0.sequence).await, 2);
        assert_eq!(texts(&read(&mut stream, 1).await), ["live3"]);
    }
}

#[tokio::test]
async fn what_is_unread_of_a_prefill_is_dropped_when_it_is_asked_for_again() {
    let server = NatsServer::start().await;
    let mut case = Case::new(&server, true).await;
    case.fill(1, &["a", "b", "c"], true).await;
    case.state(PrefillState::Done).await;
    let mut stream = case.stream(2, None).await;
    let first = read(&mut stream, 2).await;
    case.again().await;
    case.known(2).await;
    silent(&mut stream).await;
    assert!(!case.ack(first[0].0.sequence).await);
    case.fill_round(2, 2, &["A", "B"]).await;
    case.state(PrefillState::Done).await;
    assert_eq!(texts(&read(&mut stream, 2).await), ["A", "B"], "the window is free of what was dropped");
}

#[tokio::test]
async fn a_stream_outlasts_a_kill_of_the_server() {
    let mut server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    case.live(7, "one").await;
    let mut stream = case.stream(100, None).await;
    assert_eq!(texts(&read(&mut stream, 1).await), ["one"]);
    silent(&mut stream).await;
    let reading = read(&mut stream, 1);
    let killing = async {
        eventually("the stream to listen", LONG, || case.is_listened_to(&server), |is| *is).await;
        server.restart().await;
        eventually("the connection", LONG, async || case.queue.exists().await.ok(), |e| *e == Some(true))
            .await;
        case.live(8, "two").await;
        Instant::now()
    };
    let (got, written) = tokio::join!(reading, killing);
    assert_eq!(texts(&got), ["two"], "each once, and in order");
    assert!(written.elapsed() < Duration::from_secs(15), "{:?} late", written.elapsed());
}

#[tokio::test]
async fn a_stream_ends_with_its_subscription_and_with_the_server() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let stop = CancellationToken::new();
    let stream = case.readers.stream(&case.s.name, case.s.incarnation, 9, None, stop.clone()).await;
    let mut stream = stream.unwrap().unwrap();
    let (end, ()) = tokio::join!(stream.next(LONG), async { stop.cancel() });
    assert!(matches!(end, Err(StreamEnd::Stopping)), "{end:?}");
    let mut stream = case.stream(9, None).await;
    let (end, removed) = tokio::join!(stream.next(LONG), async {
        case.broker.remove_subscription(&case.s.name, case.s.incarnation).await
    });
    removed.unwrap();
    assert!(matches!(end, Err(StreamEnd::Failed(ReadError::Gone))), "{end:?}");
    let gone = case.readers.stream(&case.s.name, case.s.incarnation, 9, None, stop).await;
    assert!(matches!(gone, Err(ReadError::Gone)));
}

#[tokio::test]
async fn a_lost_queue_ends_a_stream() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, false).await;
    let mut stream = case.stream(9, None).await;
    let lose = async {
        eventually("the stream to listen", LONG, || case.is_listened_to(&server), |is| *is).await;
        let js = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
        js.delete_stream(case.stream_name()).await.unwrap();
    };
    let (end, ()) = tokio::join!(stream.next(LONG), lose);
    assert!(matches!(end, Err(StreamEnd::Failed(ReadError::Broken))), "{end:?}");
}
