//! One reading of the log, from the position in KV on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use broker::{Broker, Copier, LogEntry, LogItem, Revised, WriteError};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use model::{Checkpoint, Entry, Epoch, Incarnation, Lifecycle, Marker, Room, Subscription, SubscriptionName};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{
    Config,
    choice::{Choice, route_of},
    crowd::Crowd,
    lane::{Inlet, Lane, Pace, Report},
    mailbox::{Bound, Item, Mailbox},
    metrics::Metrics,
    routes::{Head, Routes},
    writer::Writer,
};

/// Lanes that are opened at once.
const OPENED_AT_ONCE: usize = 32;
/// Lanes that read the log themselves at once.
const READERS: usize = 4;
/// How often a crowd is looked at.
const CROWD_EVERY: Duration = Duration::from_millis(50);

/// Contradictions that a person must decide about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log ends before the position: an older backup of NATS was restored.
    #[error(
        "the event log ends at {last}, before the position {position}: NATS was restored from an older backup. \
         Consumers would miss events: delete the subscriptions and register them again"
    )]
    Behind {
        /// Last sequence of the log.
        last: u64,
        /// Position of the dispatcher.
        position: u64,
    },
    /// Entries after the position are gone, and no other dispatcher has moved it.
    #[error(
        "the event log has lost the entries {from} to {to} before they were dispatched: delete the subscriptions and \
         register them again"
    )]
    Hole {
        /// First missing sequence.
        from: u64,
        /// Last missing sequence.
        to: u64,
    },
}

/// A gap in the log: what came, and where the position was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    expected: u64,
    found: u64,
    position_revision: u64,
}

/// Why a session ended.
pub(crate) enum Ended {
    /// The log has a gap.
    Gap(Gap),
    /// A lane that reads the log itself has found a gap, or the position has gone back.
    Doubt,
    Broker(broker::Error),
    Fatal(Error),
}

impl From<broker::Error> for Ended {
    fn from(error: broker::Error) -> Self {
        Self::Broker(error)
    }
}

/// Reads and dispatches until something says that another dispatcher is active. `hole` is the gap that ended the
/// session before.
pub(crate) async fn run(config: Config, broker: &Broker, metrics: &Metrics, hole: Option<Gap>) -> Ended {
    let mut session = match Session::load(config, broker, metrics).await {
        Ok(session) => session,
        Err(ended) => return ended,
    };
    match session.dispatch(hole).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

/// One reading of the log.
///
/// **Why two dispatchers do no harm.** Both read strictly in order, and whatever makes or changes a route is a marker
/// that stands in the log. A dispatcher that has read the entry `s` has read every marker from its start on, and at
/// its start it loaded the position first and then the entries: a marker at or below that position was read by
/// whoever moved the position there, which wrote the checkpoint into the queue first, so the queue shows that it is
/// active. So at the place `s` all dispatchers know a lane for the same subscriptions, except for those that were
/// removed, and a position that reaches `s` was moved by somebody who had a lane for each of them and had seen each
/// of their copies stored. The topics stand in the marker, too, and from there in the queue's checkpoint: so all choose by
/// the same topics at the same place.
///
/// Nobody needs what somebody else purged: what a lane still holds of it is in the queue, and its checkpoint refuses it
/// the second time. So a position that somebody else has moved is only read again; it grows. Only a gap in front of the
/// main reader means that markers may have been missed, and everything is loaded again.
struct Session<'a> {
    config: Config,
    broker: &'a Broker,
    metrics: &'a Metrics,
    position: Revised<u64>,
    /// Last entry that was read.
    read: u64,
    routes: Routes,
    lanes: HashMap<Incarnation, Arc<Inlet>>,
    crowd: Crowd,
    pace: Arc<Pace>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    /// Dropping the set ends all lanes.
    tasks: JoinSet<()>,
    next_move: Instant,
    /// May the position move?
    stepped: bool,
}

/// Opens the queue of a subscription that had a lane before, or whose entry is new.
async fn open_known(broker: &Broker, subscription: &Subscription) -> Result<Option<Copier>, broker::Error> {
    let Subscription { name, incarnation, given_up, track, .. } = subscription;
    if let Some(given_up) = given_up {
        // Whoever recorded it may have died before the stream was deleted.
        broker.give_up(name, *incarnation, given_up).await?;
        return Ok(None);
    }
    open(broker, name, *incarnation, *track).await
}

async fn open(
    broker: &Broker,
    name: &SubscriptionName,
    incarnation: Incarnation,
    track: bool,
) -> Result<Option<Copier>, broker::Error> {
    let copier = Copier::open(broker.queue(name, incarnation)).await?.map(|copier| copier.tracking(track));
    if copier.is_none() {
        tracing::warn!(subscription = %name, %incarnation, "its queue does not exist: no events for it");
    }
    Ok(copier)
}

impl<'a> Session<'a> {
    /// Loads the position first, then the routes.
    async fn load(config: Config, broker: &'a Broker, metrics: &'a Metrics) -> Result<Self, Ended> {
        let position = broker.position().get().await?;
        let last = broker.event_log().last_sequence().await?;
        if last < position.value {
            return Err(Ended::Fatal(Error::Behind { last, position: position.value }));
        }
        let (reporter, reports) = mpsc::unbounded_channel();
        let mut session = Self {
            config,
            broker,
            metrics,
            read: position.value,
            pace: Arc::new(Pace::new(position.value, READERS)),
            position,
            routes: Routes::default(),
            lanes: HashMap::new(),
            crowd: Crowd::default(),
            reports,
            reporter,
            tasks: JoinSet::new(),
            next_move: Instant::now(),
            stepped: false,
        };
        let subscriptions = broker.registry().list().await?.into_iter().filter_map(|(_, entry)| {
            let Entry::Subscription(subscription) = entry.value else { return None };
            (subscription.lifecycle != Lifecycle::Deleting).then_some(subscription)
        });
        let mut opened = futures::stream::iter(subscriptions)
            .map(async |s: Subscription| (open_known(broker, &s).await, s))
            .buffer_unordered(OPENED_AT_ONCE);
        while let Some((copier, subscription)) = opened.next().await {
            // Without a marker only those that had one before: what is in effect then stands in the queue.
            if let Some(copier) = copier?
                && copier.checkpoint().active
            {
                let Checkpoint { epoch, realms_topics, .. } = copier.checkpoint().clone();
                let choice = Choice::new(&subscription.name, &realms_topics, subscription.selection.as_ref());
                session.add(&subscription.name, epoch, choice, copier);
            }
        }
        drop(opened);
        metrics.lanes.set(session.lanes.len() as u64);
        metrics.position.set(session.position.value);
        tracing::info!(incoming_seq = session.position.value, lanes = session.lanes.len(), "dispatching");
        Ok(session)
    }

    /// Begins a lane, unless what was chosen can't be used.
    fn add(&mut self, name: &SubscriptionName, epoch: Epoch, choice: Option<Choice>, copier: Copier) {
        let Some(choice) = choice else { return };
        let route = choice.route.clone();
        let incarnation = copier.checkpoint().incarnation;
        let bound = Bound { entries: self.config.lane_entries_max, bytes: self.config.lane_bytes_max };
        let inlet = Inlet::new(Mailbox::new(bound));
        let writer = Writer {
            broker: self.broker.clone(),
            name: name.clone(),
            incarnation,
            copier,
            limits: self.config.limits,
            metrics: self.metrics.clone(),
            room: Room::default(),
        };
        let (pace, reports) = (self.pace.clone(), self.reporter.clone());
        let lane = Lane { writer, choice, inlet: inlet.clone(), pace, reports };
        self.tasks.spawn(lane.run());
        self.lanes.insert(incarnation, inlet);
        self.routes.insert(incarnation, epoch, route);
    }

    async fn dispatch(&mut self, hole: Option<Gap>) -> Result<std::convert::Infallible, Ended> {
        let mut log = self.broker.event_log().follow(self.read + 1).await?;
        self.metrics.ready(true);
        let pace = self.pace.clone();
        loop {
            let crowded = !self.crowd.is_empty();
            tokio::select! {
                report = self.reports.recv() => {
                    if let Some(report) = report {
                        self.note(report)?;
                    }
                }
                () = pace.stepped.notified(), if !self.stepped || crowded => {
                    self.stepped = true;
                    self.crowd.look(&self.lanes);
                }
                () = tokio::time::sleep(CROWD_EVERY), if crowded => self.crowd.look(&self.lanes),
                () = tokio::time::sleep_until(self.next_move), if self.stepped => self.move_position().await?,
                entry = log.next(), if !crowded => {
                    let entry = entry.ok_or_else(|| broker::Error::LayoutMissing {
                        what: "the event log".to_owned(),
                    })??;
                    self.handle(entry, hole).await?;
                    // What has arrived by now goes with it: lanes fill their batches.
                    while self.crowd.is_empty() && let Some(Some(entry)) = log.next().now_or_never() {
                        self.handle(entry?, hole).await?;
                    }
                    self.stepped = true;
                    self.metrics.read.set(self.read);
                }
            }
        }
    }

    async fn handle(&mut self, entry: LogEntry, hole: Option<Gap>) -> Result<(), Ended> {
        let expected = self.read + 1;
        if entry.sequence != expected {
            let position_revision = self.position.revision;
            let gap = Gap { expected, found: entry.sequence, position_revision };
            // The same gap at the same position: nobody else was active, the entries are lost.
            return Err(if hole == Some(gap) {
                Ended::Fatal(Error::Hole { from: expected, to: entry.sequence - 1 })
            } else {
                Ended::Gap(gap)
            });
        }
        self.read = expected;
        self.pace.announce(expected);
        match entry.item {
            LogItem::Event(payload) => self.route(entry.sequence, &payload),
            LogItem::Marker(marker) => self.activate(entry.sequence, marker).await?,
            LogItem::Unreadable => {}
        }
        Ok(())
    }

    fn route(&mut self, sequence: u64, payload: &Bytes) {
        let Head { realm, topic } = match Head::of(payload) {
            Ok(head) => head,
            Err(error) => {
                // The API checks every event: this one came from somewhere else.
                tracing::error!(incoming_seq = sequence, %error, "an event can't be read and is skipped");
                return;
            }
        };
        for incarnation in self.routes.of(&realm, &topic) {
            // A lane that has ended has reported so, or is about to.
            if let Some(inlet) = self.lanes.get(incarnation) {
                inlet.put(Item::Event { sequence, payload: payload.clone() });
                self.crowd.put(*incarnation, inlet);
            }
        }
    }

    async fn activate(&mut self, sequence: u64, marker: Marker) -> Result<(), Ended> {
        let Marker { subscription, incarnation, epoch, realms_topics, selection, track } = &marker;
        match self.routes.epoch(*incarnation) {
            // From this place on the new topics count.
            Some(known) if *epoch >= known => {
                if let Some(route) = route_of(subscription, realms_topics) {
                    self.routes.insert(*incarnation, *epoch, route);
                }
            }
            // A marker that was sent twice may be older than what is in effect.
            Some(_) => {}
            None => {
                let Some(copier) = open(self.broker, subscription, *incarnation, *track).await? else {
                    return Ok(());
                };
                // Of a marker that is read again, the queue may know more.
                let known = copier.checkpoint();
                let known = (known.active && known.epoch > *epoch).then(|| known.clone());
                let (epoch, topics) = match &known {
                    Some(known) => (known.epoch, &known.realms_topics),
                    None => (*epoch, realms_topics),
                };
                let choice = Choice::new(subscription, topics, selection.as_ref());
                self.add(subscription, epoch, choice, copier);
                self.metrics.lanes.set(self.lanes.len() as u64);
            }
        }
        if let Some(inlet) = self.lanes.get(incarnation) {
            inlet.put(Item::Marker { sequence, marker: Arc::new(marker) });
        }
        Ok(())
    }

    fn note(&mut self, report: Report) -> Result<(), Ended> {
        match report {
            Report::Ended { lane } => {
                self.lanes.remove(&lane);
                self.routes.remove(lane);
                self.crowd.remove(lane);
                self.stepped = true;
                self.metrics.lanes.set(self.lanes.len() as u64);
                Ok(())
            }
            Report::Gap => Err(Ended::Doubt),
        }
    }

    /// The last entry of which nobody needs anything any more.
    fn done_through(&self) -> u64 {
        let oldest = self.lanes.values().filter_map(|inlet| inlet.with(|mailbox| mailbox.oldest())).min();
        // A lane that reads itself may be ahead of us.
        oldest.map_or(self.read, |oldest| self.read.min(oldest - 1))
    }

    async fn move_position(&mut self) -> Result<(), Ended> {
        self.next_move = Instant::now() + self.config.position_interval;
        self.stepped = false;
        let target = self.done_through();
        if target <= self.position.value {
            return Ok(());
        }
        match self.broker.position().set(target, self.position.revision).await {
            Ok(revision) => self.position = Revised { value: target, revision },
            Err(WriteError::Conflict) => {
                let found = self.broker.position().get().await?;
                if found.value < self.position.value {
                    return Err(Ended::Doubt);
                }
                self.metrics.position.set(found.value);
                self.position = found;
                // Not yet where we are? Then it is our turn the next time.
                self.stepped = true;
                return Ok(());
            }
            Err(WriteError::Other(error)) => return Err(Ended::Broker(error)),
        }
        self.metrics.position.set(target);
        self.broker.event_log().purge_through(target).await?;
        Ok(())
    }
}
