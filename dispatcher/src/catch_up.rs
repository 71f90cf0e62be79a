//! A lane that has lost its backlog reads the log itself, until it is where the main reader is.
//!
//! The same rules as for the main reader: strictly in order, from markers of its own subscription on by their topics.
//! [`Mailbox`](crate::mailbox::Mailbox) says when it may end.

use std::time::Duration;

use broker::{Copier, Copy, Head, LargeEvent, Letter, LogEntry, LogItem};
use futures::{FutureExt, Stream, StreamExt};
use model::{checkpoint::Marker, topic::Route};
use tokio::sync::SemaphorePermit;

use crate::{
    keeper::Standing,
    lane::{BATCH_BYTES, GivenBack, Lane, Pace, Report},
    metrics::Wait,
    turns::{self, Urgency},
    writer::{Gone, Trouble, Writer},
};

/// How close to the main reader a lane joins: what comes meanwhile waits in its mailbox.
const CLOSE: u64 = 1_000;
/// Entries after which another lane gets its turn.
const STRETCH: u64 = 20_000;
/// Entries that are looked at before the progress is told, if none of them is ours.
const LOOKED_AT: u64 = 5_000;
/// How long the log may be quiet before we look whether it has been purged under us.
const QUIET: Duration = Duration::from_secs(1);

/// What one look at the log brought.
struct Portion {
    batch: Vec<Copy>,
    /// What is not copied ends the portion.
    last: Option<Last>,
    /// Last entry that was looked at.
    through: u64,
    end: End,
}

/// What is done behind the copies of a portion.
enum Last {
    /// A marker of our subscription.
    Marker(Marker),
    /// An event that NATS does not carry.
    Large(LargeEvent),
}

/// Why a portion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There is more, or it is not there yet.
    More,
    /// The log is quiet.
    Quiet,
    /// The next entry is not there: the log has a gap before this one.
    Gap { found: u64 },
    /// The next entry is a marker of ours that can't be read, or whose topics can't be used.
    Unreadable,
}

impl Lane {
    /// Reads from an entry on until the mailbox has everything else.
    pub(crate) async fn catch_up(&mut self, from: u64) -> Result<(), Gone> {
        let _counted = self.writer.metrics.count_catching_up();
        tracing::info!(
            subscription = %self.writer.name, incoming_seq = from,
            "this queue does not keep up with the event log: its copies are read from it again from here on"
        );
        let mut next = from;
        let (mut patience, mut full) = (self.writer.patience(), false);
        loop {
            match self.stretch(&mut next, full).await {
                Ok(true) => break,
                Ok(false) => (patience, full) = (self.writer.patience(), false),
                Err(trouble) => {
                    full = trouble.is_full();
                    patience.after(trouble).await?;
                }
            }
        }
        tracing::info!(subscription = %self.writer.name, incoming_seq = next - 1, "this queue has caught up");
        Ok(())
    }

    /// Reads until it has caught up (true), or until others should have their turn. One that was `full` looks for room
    /// first.
    async fn stretch(&mut self, next: &mut u64, full: bool) -> Result<bool, Trouble> {
        if full {
            self.writer.look().await?;
        }
        let pace = self.pace.clone();
        let (urgency, reading) = self.reading(&pace).await;
        let begin = *next;
        let mut log = self.writer.broker.event_log().follow(begin).await?;
        while *next < begin + STRETCH {
            let Portion { mut batch, last, through, end } = self.read(&mut log, *next).await?;
            let turn = if batch.is_empty() { None } else { self.turn(&pace).await };
            let mut trouble = match self.copy(&mut batch, turn).await {
                Ok(turn) => {
                    turns::end(turn).await;
                    None
                }
                Err(trouble) => Some(trouble),
            };
            if trouble.is_none() {
                trouble = match &last {
                    Some(Last::Marker(marker)) => {
                        let marked = self.writer.mark(through, marker).await;
                        self.follow_checkpoint();
                        marked.err()
                    }
                    Some(Last::Large(event)) => {
                        self.writer.set_aside_large(through, event, self.matcher.selects()).await.err()
                    }
                    None => None,
                };
            }
            if let Some(trouble) = trouble {
                // A lane that waits reads nothing, leaves its turn to others, and holds one batch in memory.
                drop(log);
                drop(reading);
                return match self.go_on(batch, last, through, trouble).await {
                    Ok(None) => Ok(self.step(next, through)),
                    Ok(Some(GivenBack(trouble))) => Err(trouble),
                    Err(Gone) => Err(Trouble::Gone),
                };
            }
            if end == End::Unreadable {
                self.step(next, through);
                return Err(self.unreadable(*next).await);
            }
            if self.step(next, through) || self.look_back(next, end).await? || self.join(*next) {
                return Ok(true);
            }
            // Lanes that are waited for have places of their own.
            if end != End::More || self.urgency().await != urgency {
                break;
            }
        }
        Ok(false)
    }

    /// Writes what is left of a portion after trouble.
    async fn go_on(
        &mut self,
        batch: Vec<Copy>,
        last: Option<Last>,
        through: u64,
        trouble: Trouble,
    ) -> Result<Option<GivenBack>, Gone> {
        match last {
            Some(Last::Marker(marker)) if batch.is_empty() => {
                self.mark_later(through, &marker, trouble).await?;
                return Ok(None);
            }
            Some(_) | None => {}
        }
        let given_back = self.copy_later(batch, trouble).await?;
        if given_back.is_none() {
            match last {
                Some(Last::Marker(marker)) => self.mark(through, &marker).await?,
                Some(Last::Large(event)) => self.set_aside(through, &event).await?,
                None => {}
            }
        }
        Ok(given_back)
    }

    /// Waits for its turn to read, among the lanes of its urgency.
    async fn reading<'a>(&mut self, pace: &'a Pace) -> (Urgency, Option<SemaphorePermit<'a>>) {
        if self.urgency().await == Urgency::Unhurried {
            tokio::select! {
                permit = pace.turns.reading(Urgency::Unhurried) => return (Urgency::Unhurried, permit),
                () = self.hurried() => {}
            }
        }
        (Urgency::AtOnce, pace.turns.reading(Urgency::AtOnce).await)
    }

    /// What a marker says that can't be read is known to the version that wrote it: the log keeps what follows.
    async fn unreadable(&self, sequence: u64) -> Trouble {
        let Writer { broker, name, incarnation, .. } = &self.writer;
        let entry = broker.registry().get(name).await;
        match entry.map(|entry| Standing::of(entry.map(|e| e.value), *incarnation)) {
            Ok(Standing::Over) => Trouble::Gone,
            Ok(_) => Trouble::Later {
                why: Wait::Unreadable,
                text: format!(
                    "its marker {sequence} in the event log can't be read: start the version that wrote it, or remove \
                     the subscription"
                ),
            },
            Err(error) => error.into(),
        }
    }

    /// Tells the progress. True: caught up.
    fn step(&self, next: &mut u64, through: u64) -> bool {
        *next = (*next).max(through + 1);
        let caught_up = self.inlet.with(|mailbox| mailbox.done_through(through));
        self.pace.stepped.notify_one();
        caught_up
    }

    fn join(&self, next: u64) -> bool {
        // What is announced is looked at under the lock: see the mailbox.
        self.inlet.with(|mailbox| {
            let read = self.pace.read();
            !mailbox.has_joined() && read < next + CLOSE && mailbox.join(read)
        })
    }

    /// What is missing, or does not come, another dispatcher has copied, if the position says so: then its work is
    /// ours. True: caught up.
    async fn look_back(&mut self, next: &mut u64, end: End) -> Result<bool, Trouble> {
        if end == End::More {
            return Ok(false);
        }
        let position = self.writer.broker.position().get().await?.value;
        let accounted = match end {
            End::More | End::Quiet | End::Unreadable => position >= *next,
            End::Gap { found } => position + 1 >= found,
        };
        if accounted {
            // A marker of ours may have been among it.
            self.writer.reload_confirmed().await?;
            self.follow_checkpoint();
            return Ok(self.step(next, position));
        }
        if let End::Gap { found } = end {
            tracing::warn!(subscription = %self.writer.name, expected = *next, found, "the event log has a gap");
            self.reports.send(Report::Gap).ok();
            let text = "the event log has a gap".to_owned();
            return Err(Trouble::Later { why: Wait::Nats, text });
        }
        Ok(false)
    }

    /// Reads what is there, up to a full batch or a marker of ours.
    async fn read(
        &self,
        log: &mut (impl Stream<Item = Result<LogEntry, broker::Error>> + Unpin),
        next: u64,
    ) -> Result<Portion, Trouble> {
        let mut portion = Portion { batch: vec![], last: None, through: next - 1, end: End::More };
        let mut bytes = 0;
        let mut entry = match tokio::time::timeout(QUIET, log.next()).await {
            Ok(entry) => entry,
            Err(_) => return Ok(Portion { end: End::Quiet, ..portion }),
        };
        loop {
            let Some(found) = entry.transpose()? else {
                return Err(broker::Error::LayoutMissing { what: "the event log".to_owned() }.into());
            };
            if found.sequence != portion.through + 1 {
                portion.end = End::Gap { found: found.sequence };
                return Ok(portion);
            }
            portion.through = found.sequence;
            match found.item {
                LogItem::Event(payload) if self.wants(found.sequence, &payload) => {
                    if let Some(copy) = self.see(found.sequence, found.accepted, payload) {
                        bytes += copy.payload.len();
                        portion.batch.push(copy);
                    }
                }
                LogItem::Unreadable(Some(whose)) if whose.incarnation == self.writer.incarnation => {
                    portion.through = found.sequence - 1;
                    portion.end = End::Unreadable;
                    return Ok(portion);
                }
                LogItem::Marker(marker) if marker.incarnation == self.writer.incarnation => {
                    if Route::new(&marker.realms_topics).is_err() {
                        portion.through = found.sequence - 1;
                        portion.end = End::Unreadable;
                        return Ok(portion);
                    }
                    portion.last = Some(Last::Marker(marker));
                    return Ok(portion);
                }
                LogItem::TooLarge(event) if self.matcher.route.is_match(&event.realm, &event.topic) => {
                    portion.last = Some(Last::Large(event));
                    return Ok(portion);
                }
                LogItem::Letter(Letter { whose, message })
                    if whose.incarnation == self.writer.incarnation
                        && found.sequence > self.writer.checkpoint() =>
                {
                    bytes += message.len();
                    let (incoming_seq, accepted) = (found.sequence, Some(found.accepted));
                    portion.batch.push(Copy { incoming_seq, accepted, payload: message });
                }
                LogItem::Event(_)
                | LogItem::Marker(_)
                | LogItem::TooLarge(_)
                | LogItem::Letter(_)
                | LogItem::Unreadable(_) => {}
            }
            let full = portion.batch.len() >= Copier::LARGEST_BATCH || bytes >= BATCH_BYTES;
            if full || portion.through - next >= LOOKED_AT {
                return Ok(portion);
            }
            match log.next().now_or_never() {
                Some(more) => entry = more,
                None => return Ok(portion),
            }
        }
    }

    fn wants(&self, sequence: u64, payload: &[u8]) -> bool {
        // One that can't be read was told by the main reader.
        sequence > self.writer.checkpoint()
            && Head::of(payload)
                .is_ok_and(|Head { realm, topic }| self.matcher.route.is_match(&realm, &topic))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker::{
        Broker, Matcher, Queue,
        testing::{NatsServer, eventually, publish_raw, ready_subscription_with},
    };
    use model::{
        RealmTopic, Subscription,
        limits::{QueueLimits, Room},
    };
    use tokio::{sync::mpsc, time::Instant};

    use super::*;
    use crate::{
        copy_delay::CopyDelay,
        lane::{Inlet, Pace},
        mailbox::{Bound, Item, Mailbox, Taken},
        metrics::Metrics,
    };

    /// A subscription without prefill, whose marker is in effect.
    async fn active(broker: &Broker) -> (Subscription, Queue) {
        let without =
            |registration: &mut model::subscription::Registration| registration.request_prefill = false;
        let (s, queue) = ready_subscription_with(broker, &["users/user"], without).await;
        let place = broker.events().marker(&s).await.unwrap();
        Copier::open(queue.clone()).await.unwrap().unwrap().mark(place, &s.marker()).await.unwrap();
        (s, queue)
    }

    /// A lane that reads the log itself from the second entry on.
    async fn lane(broker: &Broker, s: &Subscription, queue: Queue, copy_delay: CopyDelay) -> Lane {
        let inlet = Inlet::new(Mailbox::behind(Bound { entries: 1, bytes: 1 }, 2));
        assert_eq!(inlet.with(|mailbox| mailbox.take(1, 1)), Taken::Behind { from: 2 });
        let (pace, reports) = (Arc::new(Pace::new(1, 1)), mpsc::unbounded_channel().0);
        let writer = Writer {
            broker: broker.clone(),
            name: s.name.clone(),
            incarnation: s.incarnation,
            copier: Copier::open(queue).await.unwrap().unwrap(),
            limits: QueueLimits::default(),
            metrics: Metrics::default(),
            room: Room::default(),
            turns: pace.turns.clone(),
            before_copy: None,
        };
        let matcher = Matcher::new(&s.realms_topics, None).unwrap();
        Lane { writer, copy_delay, matcher, inlet, pace, reports }
    }

    #[tokio::test]
    async fn what_another_dispatcher_has_copied_is_skipped_and_its_last_marker_obeyed() {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let (s, queue) = active(&broker).await;
        let mut other = Copier::open(queue.clone()).await.unwrap().unwrap();
        let mut lane = lane(&broker, &s, queue, CopyDelay::new(Duration::ZERO, false)).await;
        let topics = [RealmTopic { realm: "udm".into(), topic: "groups/group".into() }];
        other.mark(5, &s.with_topics(&topics).unwrap().marker()).await.unwrap();
        broker.position().set(8, 0).await.unwrap();
        let mut next = 2;
        assert!(!lane.look_back(&mut next, End::Gap { found: 9 }).await.unwrap(), "it has not joined");
        assert_eq!((next, lane.inlet.with(|mailbox| mailbox.oldest())), (9, Some(9)));
        let event = |topic: &str| format!(r#"{{"realm":"udm","topic":"{topic}"}}"#);
        for (sequence, topic, wanted) in
            [(9, "groups/group", true), (9, "users/user", false), (5, "groups/group", false)]
        {
            assert_eq!(lane.wants(sequence, event(topic).as_bytes()), wanted, "{sequence} {topic}");
        }
        // What nobody has accounted for is waited for.
        let gap = lane.look_back(&mut next, End::Gap { found: 11 }).await;
        assert!(matches!(gap, Err(Trouble::Later { .. })), "{gap:?}");
        assert_eq!(next, 9);
    }

    #[tokio::test]
    async fn a_lane_that_nobody_waits_for_any_more_leaves_its_place_to_those_that_are_waited_for() {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let (s, queue) = active(&broker).await;
        let mut lane = lane(&broker, &s, queue, CopyDelay::new(Duration::from_secs(2), true)).await;
        let event = || r#"{"realm":"udm","topic":"users/user"}"#.into();
        broker.events().publish(event(), Instant::now()).await.unwrap();
        let topics = [RealmTopic { realm: "udm".into(), topic: "users/.*".into() }];
        let change = |s: &Subscription| s.with_topics(&topics);
        broker.registry().modify(&s.name, s.incarnation, change).await.unwrap();
        let marker = s.with_topics(&topics).unwrap().marker();
        assert_eq!(broker.events().marker(&s.with_topics(&topics).unwrap()).await.unwrap(), 3);
        broker.events().publish(event(), Instant::now()).await.unwrap();
        // The main reader has seen the marker, and another lane has the turn of those that nobody waits for.
        lane.inlet.put(Item::Marker { sequence: 3, marker: marker.into() });
        let pace = lane.pace.clone();
        pace.announce(3 + 2 * CLOSE);
        let _other = pace.turns.unhurried().await;
        let mut next = 2;
        let stretch = tokio::time::timeout(Duration::from_secs(20), lane.stretch(&mut next, false));
        assert!(!stretch.await.expect("it does not wait for its turn").unwrap());
        assert_eq!(next, 4);
    }

    #[tokio::test]
    async fn a_lane_in_trouble_leaves_its_turn_to_the_others() {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let (s, queue) = active(&broker).await;
        let mut lane = lane(&broker, &s, queue, CopyDelay::new(Duration::from_secs(2), true)).await;
        let event = r#"{"realm":"udm","topic":"users/user"}"#.into();
        assert_eq!(broker.events().publish(event, Instant::now()).await.unwrap(), 2);
        // Its checkpoint can't be read any more, so that the copy is tried again and again.
        publish_raw(&broker, "mail.copied", r#"{"by": "a newer version"}"#).await;
        let (inlet, pace, mut next) = (lane.inlet.clone(), lane.pace.clone(), 2);
        let others = async {
            let stuck = async || inlet.with(|mailbox| mailbox.is_stuck());
            eventually("trouble", Duration::from_secs(20), stuck, |stuck| *stuck).await;
            pace.turns.unhurried().now_or_never().is_some()
        };
        tokio::select! {
            ended = lane.stretch(&mut next, false) => panic!("{ended:?}"),
            have_it = others => assert!(have_it),
        }
    }
}
