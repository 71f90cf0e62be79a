//! Reading from the event log what nobody has copied, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{collections::BTreeSet, time::Duration};

use broker::{
    Copier, Copy, Letter, LogItem, QueueStream, Readers, Whose,
    testing::{LossyProxy, NatsServer, letter_of_former_version},
};
use bytes::Bytes;
use futures::StreamExt;
use model::{PrefillState, RealmTopic, Subscription, delivery::live_number};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::{Case, LONG, text};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn event(topic: &str, text: &str) -> Bytes {
    format!(r#"{{"realm":"udm","topic":"{topic}","t":"{text}"}}"#).into()
}

/// A queue without prefill, whose marker is in effect.
async fn active(server: &NatsServer) -> Case {
    let case = Case::new(server, false).await;
    mark(&case, &case.s).await;
    case
}

/// The marker is written, and the dispatcher gets to it.
async fn mark(case: &Case, s: &Subscription) {
    let place = case.broker.events().marker(s).await.unwrap();
    Copier::open(case.queue.clone()).await.unwrap().unwrap().mark(place, &s.marker()).await.unwrap();
}

async fn post(case: &Case, topic: &str, text: &str) -> u64 {
    case.broker.events().publish(event(topic, text), Instant::now()).await.unwrap()
}

/// The dispatcher copies these entries of the log.
async fn copy(case: &Case, places: &[u64]) {
    let mut copier = Copier::open(case.queue.clone()).await.unwrap().unwrap();
    let mut copies = Vec::new();
    for place in places {
        let entry = case.broker.event_log().follow(*place).await.unwrap().next().await.unwrap().unwrap();
        let payload = match entry.item {
            LogItem::Event(payload) => payload,
            LogItem::Letter(letter) => letter.message,
            other => panic!("{other:?}"),
        };
        copies.push(Copy { incoming_seq: *place, accepted: None, payload });
    }
    copier.copy(&copies).await.unwrap();
}

async fn stored(case: &Case) -> u64 {
    case.queue.pending().await.unwrap().unwrap().main
}

async fn checkpoint(case: &Case) -> u64 {
    case.queue.checkpoint().await.unwrap().unwrap().value.incoming_seq
}

async fn next_of(case: &Case, readers: &Readers, wait: Duration) -> Option<(u64, String)> {
    let got = readers.next(&case.s.name, case.s.incarnation, wait, &CancellationToken::new(), false).await;
    got.unwrap().map(|message| (message.id.sequence, text(&message)))
}

#[tokio::test]
async fn an_event_is_read_and_acknowledged_without_a_copy() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    post(&case, "groups/group", "not for us").await;
    let place = post(&case, "users/user", "one").await;
    let got = case.next(5000).await.expect("the event");
    assert_eq!((got.id.sequence, text(&got).as_str()), (live_number(place), "one"));
    assert!(got.accepted.is_some());
    assert_eq!((stored(&case).await, checkpoint(&case).await), (0, 1), "nothing was written for it");
    assert!(case.ack(got.id.sequence).await);
    assert_eq!((stored(&case).await, checkpoint(&case).await), (0, place));
    assert!(!case.ack(got.id.sequence).await, "it is gone");
    assert_eq!(case.next(50).await, None);
    // What dispatchers have of it is left out.
    copy(&case, &[place]).await;
    assert_eq!(stored(&case).await, 0);
}

#[tokio::test]
async fn a_copy_that_is_made_meanwhile_has_the_same_number() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    let (one, two) = (post(&case, "users/user", "one").await, post(&case, "users/user", "two").await);
    let first = case.next(5000).await.expect("the event").id.sequence;
    copy(&case, &[one, two]).await;
    assert_eq!(case.next(5000).await.expect("the copy").id.sequence, first);
    // At a replica that has delivered nothing of it the copy is looked for.
    let (other, _guard) = case.other_replica(&server).await;
    assert!(other.acknowledge(&case.s.name, case.s.incarnation, live_number(two)).await.unwrap());
    assert!(case.ack(first).await);
    assert_eq!((stored(&case).await, checkpoint(&case).await), (0, two));
}

#[tokio::test]
async fn a_copy_that_is_made_between_two_looks_is_not_passed_over() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    // However many looks it takes, a copy may be made after each.
    for looks in 1..=3 {
        let wire = LossyProxy::before(&server).await;
        let (readers, _guard) = case.replica_over(&wire.config("api")).await;
        assert_eq!(next_of(&case, &readers, Duration::from_millis(50)).await, None);
        let first = post(&case, "users/user", "first").await;
        let second = post(&case, "users/user", "second").await;
        wire.hold_after_requests(looks);
        let next = next_of(&case, &readers, Duration::from_secs(10));
        let meanwhile = async {
            // Fewer looks may be enough.
            tokio::time::timeout(Duration::from_secs(1), wire.holds()).await.ok();
            copy(&case, &[first]).await;
            wire.release_requests();
        };
        let (got, ()) = tokio::join!(next, meanwhile);
        assert_eq!(got, Some((live_number(first), "first".to_owned())), "{looks}");
        for place in [first, second] {
            assert_eq!(case.next(5000).await.expect("a message").id.sequence, live_number(place));
            assert!(case.ack(live_number(place)).await);
        }
    }
}

#[tokio::test]
async fn what_is_acknowledged_out_of_turn_leaves_copies_of_what_was_before_it() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    for n in 0..4 {
        post(&case, "users/user", &n.to_string()).await;
        post(&case, "groups/group", "not for us").await;
    }
    let numbers = case.numbers(5000, 10).await;
    assert_eq!(numbers.len(), 4);
    assert!(case.ack(numbers[2]).await);
    assert_eq!(stored(&case).await, 2);
    assert_eq!(case.batch(5000, 10).await, ["0", "1"], "copies come first");
    assert!(case.ack(numbers[0]).await);
    assert_eq!(case.numbers(5000, 10).await, numbers[1..2]);
    assert!(case.ack(numbers[1]).await);
    assert_eq!(case.numbers(5000, 10).await, numbers[3..]);
}

#[tokio::test]
async fn up_to_a_message_all_go_copied_or_not() {
    let server = NatsServer::start().await;
    for copied in [0, 1, 3, 5] {
        let case = Case::named(&server, &format!("q{copied}"), false).await;
        mark(&case, &case.s).await;
        let mut places = Vec::new();
        for n in 0..5 {
            places.push(post(&case, "users/user", &n.to_string()).await);
        }
        let numbers = case.numbers(5000, 10).await;
        copy(&case, &places[..copied]).await;
        assert_eq!(case.through(numbers[3]).await, 4, "{copied}");
        assert_eq!(case.through(numbers[3]).await, 0, "{copied}");
        assert_eq!(case.batch(5000, 10).await, ["4"], "{copied}");
    }
}

#[tokio::test]
async fn nobody_passes_a_marker_but_the_dispatcher() {
    let server = NatsServer::start().await;
    let mut case = active(&server).await;
    post(&case, "users/user", "before").await;
    let topics = [RealmTopic { realm: "udm".into(), topic: "groups/group".into() }];
    let registry = case.broker.registry();
    let changed = registry.modify(&case.s.name, case.s.incarnation, |s| s.with_topics(&topics)).await;
    let broker::Modified::Changed(changed) = changed.unwrap() else { panic!("unchanged") };
    case.s = changed.value;
    let marker = case.broker.events().marker(&case.s).await.unwrap();
    let user = post(&case, "users/user", "not any more").await;
    let group = post(&case, "groups/group", "after").await;
    assert_eq!(case.text_then_ack().await, "before");
    assert_eq!(case.next(500).await, None);
    for place in [marker, user, u64::MAX / 4] {
        let number = live_number(place);
        let late = case.readers.acknowledge(&case.s.name, case.s.incarnation, number);
        let late = tokio::time::timeout(Duration::from_millis(500), late).await;
        assert!(!matches!(late, Ok(Ok(true))), "{place}: {late:?}");
    }
    assert!(checkpoint(&case).await < marker);
    let waiting = case.next(20_000);
    let marking = async {
        Copier::open(case.queue.clone())
            .await
            .unwrap()
            .unwrap()
            .mark(marker, &case.s.marker())
            .await
            .unwrap();
    };
    let (got, ()) = tokio::join!(waiting, marking);
    let got = got.expect("the event of the new topics");
    assert_eq!((got.id.sequence, text(&got).as_str()), (live_number(group), "after"));
    assert!(!case.ack(live_number(user)).await, "nobody asked for it");
    assert!(case.ack(got.id.sequence).await);
}

#[tokio::test]
async fn only_when_the_prefill_is_read_and_never_where_it_is_tracked() {
    let server = NatsServer::start().await;
    let case = Case::new(&server, true).await;
    mark(&case, &case.s).await;
    post(&case, "users/user", "live").await;
    assert_eq!(case.next(50).await, None);
    case.fill(1, &["a"], true).await;
    assert_eq!(case.next(50).await, None);
    case.state(PrefillState::Done).await;
    assert_eq!(case.text_then_ack().await, "a");
    assert_eq!(case.text_then_ack().await, "live");
    assert_eq!(stored(&case).await, 0);

    let tracked = Case::with(&server, "tracked", false, |registration| registration.track = true).await;
    mark(&tracked, &tracked.s).await;
    let place = post(&tracked, "users/user", "recorded").await;
    assert_eq!(tracked.next(300).await, None);
    let (got, ()) = tokio::join!(tracked.next(20_000), async { copy(&tracked, &[place]).await });
    assert_eq!(text(&got.expect("the copy")), "recorded");
}

/// Found by the crash campaign: the prefill was asked for again while events were out.
#[tokio::test]
async fn what_came_before_another_round_can_still_be_acknowledged() {
    let server = NatsServer::start().await;
    let mut case = Case::new(&server, true).await;
    mark(&case, &case.s).await;
    case.fill(1, &["a"], true).await;
    case.state(PrefillState::Done).await;
    assert_eq!(case.text_then_ack().await, "a");
    for n in 0..3 {
        post(&case, "users/user", &n.to_string()).await;
    }
    let numbers = case.numbers(5000, 10).await;
    case.again().await;
    case.known(2).await;
    let (other, _guard) = case.other_replica(&server).await;
    let through = other.acknowledge_through(&case.s.name, case.s.incarnation, numbers[1]).await;
    assert_eq!(through.unwrap(), 2);
    assert!(case.ack(numbers[2]).await);
    // What comes after the marker is of the new round, and waits for its prefill.
    let marker = case.broker.events().marker(&case.s).await.unwrap();
    let later = post(&case, "users/user", "later").await;
    let early = other.acknowledge_through(&case.s.name, case.s.incarnation, live_number(later));
    assert!(!matches!(tokio::time::timeout(Duration::from_millis(500), early).await, Ok(Ok(1..))));
    Copier::open(case.queue.clone()).await.unwrap().unwrap().mark(marker, &case.s.marker()).await.unwrap();
    assert_eq!(case.through(live_number(later)).await, 0, "not its turn");
    assert!(checkpoint(&case).await == marker);
}

#[tokio::test]
async fn what_is_not_held_is_left_to_the_dispatcher_and_what_is_purged_is_not_wanted() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    let one = post(&case, "users/user", "one").await;
    let two = post(&case, "users/user", "two").await;
    // A replica that begins here holds the log from its position on, which says nothing of what is behind it.
    copy(&case, &[one]).await;
    case.broker.position().set(one, 0).await.unwrap();
    case.broker.event_log().purge_through(one).await.unwrap();
    let (other, _guard) = case.other_replica(&server).await;
    let (_, got) = next_of(&case, &other, LONG).await.expect("the copy first");
    assert_eq!(got, "one");
    assert!(other.acknowledge(&case.s.name, case.s.incarnation, live_number(one)).await.unwrap());
    assert_eq!(next_of(&case, &other, LONG).await, Some((live_number(two), "two".to_owned())));
    assert_eq!(checkpoint(&case).await, one);

    // A queue that wanted nothing for long: its checkpoint is far behind.
    let idle =
        Case::with(&server, "idle", false, |registration| registration.realms_topics[0].topic = "x".into());
    let idle = idle.await;
    mark(&idle, &idle.s).await;
    let before = checkpoint(&idle).await;
    let last = post(&idle, "users/user", "nothing for it").await;
    let revision = case.broker.position().get().await.unwrap().revision;
    case.broker.position().set(last, revision).await.unwrap();
    case.broker.event_log().purge_through(last).await.unwrap();
    let (fresh, _guard) = idle.other_replica(&server).await;
    let place = post(&idle, "x", "at last").await;
    assert_eq!(next_of(&idle, &fresh, LONG).await, Some((live_number(place), "at last".to_owned())));
    assert_eq!(checkpoint(&idle).await, before);
    assert!(fresh.acknowledge(&idle.s.name, idle.s.incarnation, live_number(place)).await.unwrap());
    assert_eq!(checkpoint(&idle).await, place);
}

#[tokio::test]
async fn what_the_log_has_lost_is_not_passed_over() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    let lost = post(&case, "users/user", "lost").await;
    let after = post(&case, "users/user", "after").await;
    // Nobody has moved the position over it: it may have been wanted.
    case.broker.event_log().purge_through(lost).await.unwrap();
    let (other, _guard) = case.other_replica(&server).await;
    assert_eq!(next_of(&case, &other, Duration::from_millis(500)).await, None);
    let early = other.acknowledge(&case.s.name, case.s.incarnation, live_number(after));
    assert!(tokio::time::timeout(Duration::from_millis(500), early).await.is_err(), "it waits");
    // Somebody says that it was not: the dispatcher.
    case.broker.position().set(lost, 0).await.unwrap();
    assert_eq!(next_of(&case, &other, LONG).await, Some((live_number(after), "after".to_owned())));
}

#[tokio::test]
async fn a_letter_reaches_one_queue_alone_and_is_not_lost_by_what_is_before_it() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    let other = Case::named(&server, "other", false).await;
    mark(&other, &other.s).await;
    let one = post(&case, "users/user", "one").await;
    let first = case.next(5000).await.expect("the event").id.sequence;
    let whose = Whose { subscription: case.s.name.clone(), incarnation: case.s.incarnation };
    let letter = Letter { whose, message: event("none", "letter") };
    let letter = case.broker.events().letter(letter).await.unwrap();
    copy(&case, &[one, letter]).await;
    assert_eq!(case.through(first).await, 1, "what came behind it stays");
    let got = case.next(5000).await.expect("the letter");
    assert_eq!((got.id.sequence, text(&got).as_str()), (live_number(letter), "letter"));
    assert_eq!(other.text_then_ack().await, "one");
    assert_eq!(other.next(50).await, None);
}

#[tokio::test]
async fn letters_that_a_former_version_sent_again_are_read_by_their_numbers() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    let place = post(&case, "users/user", "one").await;
    copy(&case, &[place]).await;
    letter_of_former_version(&case.queue, 0, event("none", "letter")).await;
    let mut stream = case.stream(9, None).await;
    let seen = read(&mut stream, 2).await;
    assert_eq!((seen[0].0, seen[1].1.as_str()), (live_number(place), "letter"));
    assert!(seen[1].0 < live_number(0), "{seen:?}");
    assert!(stream.next(Duration::from_millis(100)).await.unwrap().is_empty());
    assert!(case.ack(seen[0].0).await && case.ack(seen[1].0).await);
    assert_eq!(stored(&case).await, 0);
    post(&case, "users/user", "two").await;
    assert_eq!(read(&mut stream, 1).await[0].1, "two");
}

#[tokio::test]
async fn a_message_that_is_removed_on_delivery_is_given_once() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    for n in 0..3 {
        post(&case, "users/user", &n.to_string()).await;
    }
    let (other, _guard) = case.other_replica(&server).await;
    let pop = async |readers: &Readers| {
        let end = CancellationToken::new();
        let got = readers.next(&case.s.name, case.s.incarnation, LONG, &end, true).await;
        text(&got.unwrap().expect("a message"))
    };
    let (mut a, b, c) = tokio::join!(pop(&case.readers), pop(&other), pop(&case.readers));
    a.push_str(&b);
    a.push_str(&c);
    let mut got: Vec<char> = a.chars().collect();
    got.sort_unstable();
    assert_eq!(got, ['0', '1', '2']);
    assert_eq!(stored(&case).await, 0);
}

async fn read(stream: &mut QueueStream, count: usize) -> Vec<(u64, String)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let got = stream.next(LONG).await.unwrap();
        assert!(!got.is_empty(), "only {seen:?} came");
        seen.extend(got.iter().map(|m| (m.id.sequence, text(m))));
    }
    seen
}

#[tokio::test]
async fn a_stream_goes_on_from_the_queue_into_the_log_and_back() {
    let server = NatsServer::start().await;
    let case = active(&server).await;
    let mut places = vec![post(&case, "users/user", "0").await];
    copy(&case, &places).await;
    let mut stream = case.stream(5, None).await;
    let mut seen = read(&mut stream, 1).await;
    for n in 1..4 {
        places.push(post(&case, "users/user", &n.to_string()).await);
    }
    seen.extend(read(&mut stream, 3).await);
    // Copied meanwhile: what is out does not come again, what is new does, and the window holds.
    copy(&case, &places[1..]).await;
    places.push(post(&case, "users/user", "4").await);
    places.push(post(&case, "users/user", "5").await);
    copy(&case, &places[4..]).await;
    seen.extend(read(&mut stream, 1).await);
    assert!(stream.next(Duration::from_millis(200)).await.unwrap().is_empty(), "the window is full");
    assert_eq!(case.through(seen[2].0).await, 3);
    seen.extend(read(&mut stream, 1).await);
    places.push(post(&case, "users/user", "6").await);
    seen.extend(read(&mut stream, 1).await);
    let expected: Vec<(u64, String)> =
        places.iter().enumerate().map(|(n, place)| (live_number(*place), n.to_string())).collect();
    assert_eq!(seen, expected);
    // Another connection goes on behind what this one had, and knows what is out.
    let after = format!("l{}", live_number(places[5]));
    assert_eq!(read(&mut case.stream(9, Some(&after)).await, 1).await, expected[6..]);
    let unknown = format!("l{}", live_number(1 << 30)).parse().unwrap();
    let stop = CancellationToken::new();
    let stream = case.readers.stream(&case.s.name, case.s.incarnation, 9, Some(unknown), stop).await;
    assert!(stream.unwrap().is_none());
}

/// Two replicas, a dispatcher that copies now and then, and one consumer that takes what comes and acknowledges as it
/// likes: each event comes first in order, and none comes again after its acknowledgement.
#[tokio::test]
async fn whatever_happens_the_order_holds_and_nothing_acknowledged_returns() {
    for seed in 0..4 {
        let server = NatsServer::start().await;
        let case = active(&server).await;
        let (other, _guard) = case.other_replica(&server).await;
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut wanted, mut seen, mut acknowledged) = (Vec::new(), Vec::<u64>::new(), BTreeSet::new());
        let short = Duration::from_millis(5);
        for step in 0..250 {
            let readers = if dice.random_bool(0.5) { &case.readers } else { &other };
            match dice.random_range(0..10) {
                0..3 => wanted.push(live_number(post(&case, "users/user", &step.to_string()).await)),
                3 => drop(post(&case, "groups/group", "not for us").await),
                4 => {
                    // The dispatcher copies some of what is behind the checkpoint.
                    let known = live_number(checkpoint(&case).await);
                    let behind: Vec<u64> = wanted.iter().filter(|n| **n > known).copied().collect();
                    let some = dice.random_range(0..=behind.len());
                    let places: Vec<u64> = behind[..some].iter().map(|n| n - live_number(0)).collect();
                    copy(&case, &places).await;
                }
                5..8 => {
                    let end = CancellationToken::new();
                    let limit = dice.random_range(1..5);
                    let got =
                        readers.batch(&case.s.name, case.s.incarnation, short, &end, limit).await.unwrap();
                    for message in got {
                        let number = message.id.sequence;
                        assert!(!acknowledged.contains(&number), "seed {seed}: {number} was acknowledged");
                        if !seen.contains(&number) {
                            seen.push(number);
                            assert_eq!(Some(&number), wanted.get(seen.len() - 1), "seed {seed}: the order");
                        }
                    }
                }
                8 => {
                    let out: Vec<u64> = seen.iter().filter(|n| !acknowledged.contains(*n)).copied().collect();
                    if let Some(number) = out.get(dice.random_range(0..=out.len())) {
                        let done =
                            readers.acknowledge(&case.s.name, case.s.incarnation, *number).await.unwrap();
                        assert!(done, "seed {seed}: {number} could not be acknowledged");
                        acknowledged.insert(*number);
                    }
                }
                _ => {
                    let out: Vec<u64> = seen.iter().filter(|n| !acknowledged.contains(*n)).copied().collect();
                    if let Some(number) = out.get(dice.random_range(0..=out.len())) {
                        let count = readers.acknowledge_through(&case.s.name, case.s.incarnation, *number);
                        let expected = out.iter().filter(|n| *n <= number).count() as u64;
                        assert_eq!(count.await.unwrap(), expected, "seed {seed}: through {number}");
                        acknowledged.extend(seen.iter().filter(|n| *n <= number));
                    }
                }
            }
        }
        // All that is left comes, at either replica.
        while acknowledged.len() < wanted.len() {
            let (number, _) = next_of(&case, &other, LONG).await.expect("what is left");
            assert!(!acknowledged.contains(&number), "seed {seed}: {number} was acknowledged");
            assert!(other.acknowledge(&case.s.name, case.s.incarnation, number).await.unwrap());
            acknowledged.insert(number);
        }
        assert_eq!(acknowledged.into_iter().collect::<Vec<_>>(), wanted, "seed {seed}");
        assert_eq!(stored(&case).await, 0);
    }
}
