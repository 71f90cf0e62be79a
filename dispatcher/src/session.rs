//! One reading of the log, from the position in KV on.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use broker::{Broker, Head, LargeEvent, Letter, LogEntry, LogItem, Revised, Routes, WentBack, Whose};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use model::{Entry, Incarnation, Lifecycle, Marker, Route, Selection, Subscription, SubscriptionName, chain};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;

use crate::{
    Config,
    crowd::Crowd,
    keeper::Keeper,
    lane::{Inlet, Pace, Report},
    mailbox::{Bound, Item, Mailbox},
    memory::{self, Memory},
    metrics::Metrics,
    position::Mover,
    unreadable::Holder,
};

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
    /// What could not be read is another entry now.
    Changed,
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
    let (mut session, mover) = match Session::load(config, broker, metrics).await {
        Ok(loaded) => loaded,
        Err(ended) => return ended,
    };
    tokio::select! {
        dispatched = session.dispatch(hole) => match dispatched {
            Ok(never) => match never {},
            Err(ended) => ended,
        },
        crate::position::WentBack = mover.run() => Ended::Doubt,
    }
}

/// One reading of the log.
///
/// **Why two dispatchers do no harm.** Both read strictly in order, and whatever makes or changes a route is a marker
/// that stands in the log. A dispatcher that has read the entry `s` has read every marker from its start on, and at
/// its start it loaded the position first and then the entries: a marker at or below that position was read by
/// whoever moved the position there, which wrote the checkpoint into the queue first, so the queue shows that it is
/// active. A queue that can't be opened yet has a lane that begins at the position, and so holds it. So at the place `s` all dispatchers know a lane for the same subscriptions, except for those that were
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
    /// Where the position is, and how far it may move.
    position: watch::Receiver<Revised<u64>>,
    done: watch::Sender<u64>,
    /// Last entry that was read.
    read: u64,
    routes: Routes,
    lanes: HashMap<Incarnation, Arc<Inlet>>,
    crowd: Crowd,
    memory: Memory,
    /// Memory is short: the reading waits.
    full: bool,
    pace: Arc<Pace>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    /// Dropping the set ends all lanes.
    tasks: JoinSet<()>,
    next_look: Instant,
    /// May the position move?
    stepped: bool,
}

/// What is seen of the reading of the log.
struct Watched {
    metrics: Metrics,
    pace: Arc<Pace>,
}

impl broker::Watcher for Watched {
    fn opened(&self, last: u64) {
        self.pace.set_last(last);
        self.metrics.runs();
    }

    fn broken(&self, error: &broker::Error) {
        self.metrics.stops(chain(error));
    }

    fn last(&self) -> u64 {
        self.pace.last()
    }
}

/// Whose lane it is.
struct Owner<'a> {
    name: &'a SubscriptionName,
    incarnation: Incarnation,
    selection: Option<&'a Selection>,
    track: bool,
}

impl<'a> Session<'a> {
    /// Loads the position first, then the routes. A queue that can't be opened at once is waited for by its lane alone.
    async fn load(config: Config, broker: &'a Broker, metrics: &'a Metrics) -> Result<(Self, Mover), Ended> {
        let position = broker.position().get().await?;
        let last = broker.event_log().last_sequence().await?;
        if last < position.value {
            return Err(Ended::Fatal(Error::Behind { last, position: position.value }));
        }
        let read = position.value;
        let (reporter, reports) = mpsc::unbounded_channel();
        let pace = Arc::new(Pace::new(read, broker.replicas()));
        let (done, may_move) = watch::channel(read);
        let (moved, position) = watch::channel(position);
        let mover = Mover {
            config,
            broker: broker.clone(),
            metrics: metrics.clone(),
            pace: pace.clone(),
            done: may_move,
            position: moved,
        };
        let mut session = Self {
            config,
            broker,
            metrics,
            read,
            pace,
            position,
            done,
            routes: Routes::default(),
            lanes: HashMap::new(),
            crowd: Crowd::default(),
            memory: Memory::default(),
            full: false,
            reports,
            reporter,
            tasks: JoinSet::new(),
            next_look: Instant::now(),
            stepped: false,
        };
        let mut awaited = HashSet::new();
        let listed = broker.registry().list().await?;
        for name in listed.unreadable.iter().filter_map(|entry| entry.name.parse().ok()) {
            session.hold_for(name);
        }
        for (_, entry) in listed.entries {
            if let Entry::Subscription(s) = &entry.value
                && s.lifecycle != Lifecycle::Deleting
                && s.lost.is_none()
            {
                let Subscription { name, incarnation, selection, track, .. } = s;
                let owner =
                    Owner { name, incarnation: *incarnation, selection: selection.as_ref(), track: *track };
                session.add(&owner, |bound| Mailbox::behind(bound, read + 1));
                awaited.insert(*incarnation);
            }
        }
        session.await_lanes(awaited).await;
        metrics.position.set(read);
        metrics.read.set(read);
        metrics.log_last.set(last);
        tracing::info!(incoming_seq = read, lanes = session.lanes.len(), "dispatching");
        Ok((session, mover))
    }

    /// Waits until each lane is open, or known to take longer.
    async fn await_lanes(&mut self, mut awaited: HashSet<Incarnation>) {
        while !awaited.is_empty()
            && let Some(report) = self.reports.recv().await
        {
            match report {
                Report::Opened { lane, active, needed } => {
                    let first = awaited.remove(&lane);
                    match active {
                        Some((epoch, route)) => {
                            self.routes.take_effect(lane, epoch, route);
                            if let Some(inlet) = self.lanes.get(&lane) {
                                inlet.with(Mailbox::open);
                            }
                            needed.send(true).ok();
                        }
                        // Its marker has not come: that makes a lane.
                        None if first => {
                            self.forget(lane);
                            needed.send(false).ok();
                        }
                        None => {
                            needed.send(true).ok();
                        }
                    }
                }
                Report::Delayed { lane } => {
                    awaited.remove(&lane);
                }
                Report::Ended { lane, inlet } => {
                    awaited.remove(&lane);
                    self.ended(lane, &inlet);
                }
                Report::Gap | Report::Changed => {}
            }
        }
    }

    /// Begins a lane.
    fn add(&mut self, owner: &Owner<'_>, mailbox: impl FnOnce(Bound) -> Mailbox) {
        let inlet = Inlet::new(mailbox(self.bound()));
        let keeper = Keeper {
            config: self.config,
            broker: self.broker.clone(),
            metrics: self.metrics.clone(),
            name: owner.name.clone(),
            incarnation: owner.incarnation,
            selection: owner.selection.cloned(),
            track: owner.track,
            inlet: inlet.clone(),
            pace: self.pace.clone(),
            reports: self.reporter.clone(),
        };
        self.tasks.spawn(keeper.run());
        self.crowd.remove(owner.incarnation);
        let bound = self.bound();
        self.lanes.insert(owner.incarnation, inlet);
        self.metrics.lanes.set(self.lanes.len() as u64);
        if self.bound() != bound {
            self.share();
        }
    }

    /// How much may wait for each lane.
    fn bound(&self) -> Bound {
        let entries = memory::share(self.lanes.len(), self.config.lane_entries_max);
        Bound { entries, bytes: self.config.lane_bytes_max }
    }

    fn share(&self) {
        let bound = self.bound();
        for inlet in self.lanes.values() {
            inlet.with(|mailbox| mailbox.set_bound(bound));
        }
    }

    /// The log keeps what an entry that can't be read may need.
    fn hold_for(&mut self, name: SubscriptionName) {
        let lane = Incarnation(Uuid::from_u128(self.lanes.len() as u128));
        let bound = Bound { entries: 0, bytes: 0 };
        let inlet = Inlet::new(Mailbox::behind(bound, self.read + 1));
        let holder = Holder {
            broker: self.broker.clone(),
            metrics: self.metrics.clone(),
            name,
            lane,
            inlet: inlet.clone(),
            reports: self.reporter.clone(),
        };
        self.tasks.spawn(holder.run());
        self.lanes.insert(lane, inlet);
    }

    fn forget(&mut self, lane: Incarnation) {
        self.lanes.remove(&lane);
        self.routes.remove(lane);
        self.crowd.remove(lane);
        self.metrics.lanes.set(self.lanes.len() as u64);
    }

    /// A lane has ended, unless another one is in its place by now.
    fn ended(&mut self, lane: Incarnation, inlet: &Arc<Inlet>) {
        if self.lanes.get(&lane).is_some_and(|known| Arc::ptr_eq(known, inlet)) {
            self.forget(lane);
        }
        while self.tasks.try_join_next().is_some() {}
        self.stepped = true;
    }

    async fn dispatch(&mut self, hole: Option<Gap>) -> Result<Infallible, Ended> {
        let mut log = self
            .broker
            .log_from(self.read + 1, Watched { metrics: self.metrics.clone(), pace: self.pace.clone() });
        let pace = self.pace.clone();
        loop {
            let crowded = self.is_crowded();
            tokio::select! {
                report = self.reports.recv() => {
                    if let Some(report) = report {
                        self.note(report)?;
                    }
                }
                () = pace.stepped.notified(), if !self.stepped || crowded => {
                    self.stepped = true;
                    self.look_at_crowd();
                }
                () = tokio::time::sleep(CROWD_EVERY), if crowded => self.look_at_crowd(),
                () = tokio::time::sleep_until(self.next_look), if self.stepped => {
                    self.next_look = Instant::now() + self.config.position_interval;
                    self.stepped = false;
                    self.done.send_replace(self.done_through());
                }
                entry = log.next(), if !crowded => {
                    self.handle(entry, hole)?;
                    // What has arrived by now goes with it: lanes fill their batches.
                    while !self.is_crowded() && let Some(entry) = log.next().now_or_never() {
                        self.handle(entry, hole)?;
                    }
                    self.stepped = true;
                    self.metrics.read.set(self.read);
                }
            }
        }
    }

    /// Does the reading wait?
    fn is_crowded(&mut self) -> bool {
        self.full = self.full || self.memory.is_full(false);
        self.full || !self.crowd.is_empty()
    }

    fn look_at_crowd(&mut self) {
        self.crowd.look(&self.lanes, self.pace.slowest());
        if self.full {
            for inlet in self.lanes.values() {
                inlet.with(Mailbox::make_room);
            }
            self.full = self.memory.is_full(true);
        }
    }

    fn handle(&mut self, entry: Option<Result<LogEntry, WentBack>>, hole: Option<Gap>) -> Result<(), Ended> {
        let Some(Ok(entry)) = entry else { return Err(Ended::Doubt) };
        let expected = self.read + 1;
        if entry.sequence != expected {
            let position_revision = self.position.borrow().revision;
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
            LogItem::Event(payload) => self.route(entry.sequence, entry.accepted, &payload),
            LogItem::TooLarge(event) => self.route_large(entry.sequence, event),
            LogItem::Letter(letter) => self.route_letter(entry.sequence, entry.accepted, &letter),
            LogItem::Marker(marker) => self.activate(entry.sequence, marker),
            LogItem::Unreadable(Some(whose)) => self.hold(entry.sequence, &whose),
            LogItem::Unreadable(None) => {
                tracing::error!(
                    incoming_seq = entry.sequence,
                    "an entry of the event log is neither an event nor a marker, and is skipped"
                );
            }
        }
        Ok(())
    }

    fn route(&mut self, sequence: u64, accepted: SystemTime, payload: &Bytes) {
        let Head { realm, topic } = match Head::of(payload) {
            Ok(head) => head,
            Err(error) => {
                // The API checks every event: this one came from somewhere else.
                tracing::error!(incoming_seq = sequence, %error, "an event can't be read and is skipped");
                return;
            }
        };
        let mut own = None;
        for incarnation in self.routes.of(&realm, &topic) {
            // A lane that has ended has reported so, or is about to.
            if let Some(inlet) = self.lanes.get(incarnation) {
                let payload = own.get_or_insert_with(|| self.memory.keep(payload)).clone();
                inlet.put(Item::Event { sequence, accepted, payload });
                self.crowd.put(*incarnation, inlet);
            }
        }
    }

    /// A letter of a subscription that is gone by now is nobody's.
    fn route_letter(&mut self, sequence: u64, accepted: SystemTime, letter: &Letter) {
        let incarnation = letter.whose.incarnation;
        if let Some(inlet) = self.lanes.get(&incarnation) {
            let payload = self.memory.keep(&letter.message);
            inlet.put(Item::Letter { sequence, accepted, payload });
            self.crowd.put(incarnation, inlet);
        }
    }

    fn route_large(&mut self, sequence: u64, event: LargeEvent) {
        let event = Arc::new(event);
        for incarnation in self.routes.of(&event.realm, &event.topic) {
            if let Some(inlet) = self.lanes.get(incarnation) {
                inlet.put(Item::TooLarge { sequence, event: event.clone() });
                self.crowd.put(*incarnation, inlet);
            }
        }
    }

    /// The lane of a marker; a new one, if there is none.
    fn lane_of(&mut self, owner: &Owner<'_>, mailbox: impl FnOnce(Bound) -> Mailbox) -> Arc<Inlet> {
        let lane = owner.incarnation;
        if self.lanes.get(&lane).is_none_or(|inlet| inlet.with(|mailbox| mailbox.is_ended())) {
            self.add(owner, mailbox);
        }
        self.lanes
            .get(&lane)
            .cloned()
            .unwrap_or_else(|| Inlet::new(Mailbox::new(Bound { entries: 0, bytes: 0 })))
    }

    fn activate(&mut self, sequence: u64, marker: Marker) {
        let Marker { subscription, incarnation, epoch, realms_topics, selection, track } = &marker;
        let owner = Owner {
            name: subscription,
            incarnation: *incarnation,
            selection: selection.as_ref(),
            track: *track,
        };
        let inlet = self.lane_of(&owner, Mailbox::new);
        match Route::new(realms_topics) {
            Ok(route) => {
                // From this place on the new topics count.
                self.routes.take_effect(*incarnation, *epoch, route);
                inlet.put(Item::Marker { sequence, marker: Arc::new(marker) });
            }
            Err((index, error)) => {
                tracing::error!(%subscription, index, %error, "a topic can't be used: no events for it");
                inlet.with(|mailbox| mailbox.close_at(sequence));
            }
        }
    }

    /// A marker that can't be read: only what follows for this subscription waits.
    fn hold(&mut self, sequence: u64, Whose { subscription, incarnation }: &Whose) {
        tracing::error!(
            %subscription, incoming_seq = sequence,
            "a marker can't be read: a newer version wrote it; what follows for this subscription waits in the log"
        );
        let owner = Owner { name: subscription, incarnation: *incarnation, selection: None, track: false };
        let inlet = self.lane_of(&owner, |bound| Mailbox::behind(bound, sequence));
        inlet.with(|mailbox| mailbox.close_at(sequence));
    }

    fn note(&mut self, report: Report) -> Result<(), Ended> {
        match report {
            Report::Opened { lane, active, needed } => {
                if let Some((epoch, route)) = active
                    && self.lanes.contains_key(&lane)
                {
                    self.routes.take_effect(lane, epoch, route);
                }
                needed.send(true).ok();
                Ok(())
            }
            Report::Delayed { .. } => Ok(()),
            Report::Ended { lane, inlet } => {
                self.ended(lane, &inlet);
                Ok(())
            }
            Report::Gap => Err(Ended::Doubt),
            Report::Changed => Err(Ended::Changed),
        }
    }

    /// The last entry of which nobody needs anything any more.
    fn done_through(&self) -> u64 {
        let oldest = self.lanes.values().filter_map(|inlet| inlet.with(|mailbox| mailbox.oldest())).min();
        // A lane that reads itself may be ahead of us.
        oldest.map_or(self.read, |oldest| self.read.min(oldest - 1))
    }
}
