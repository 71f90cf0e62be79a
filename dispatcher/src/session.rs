//! One reading of the log, from the position in KV on.

use std::collections::HashMap;

use broker::{Broker, Copier, LogEntry, LogItem, Revised, WriteError};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use model::{Entry, Incarnation, Lifecycle, Route, Subscription, SubscriptionName};
use serde::Deserialize;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{
    Config,
    lane::{Item, Lane, Report},
    metrics::Metrics,
    routes::Routes,
    tracker::Tracker,
};

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
    Gap(Gap),
    Overtaken,
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

struct Session<'a> {
    config: Config,
    broker: &'a Broker,
    metrics: &'a Metrics,
    position: Revised<u64>,
    tracker: Tracker,
    routes: Routes,
    lanes: HashMap<Incarnation, mpsc::UnboundedSender<Item>>,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    /// Dropping the set ends all lanes.
    tasks: JoinSet<()>,
    next_move: Instant,
}

/// The part of an event that routes it.
#[derive(Deserialize)]
struct Head {
    realm: String,
    topic: String,
}

fn route_of(subscription: &Subscription) -> Option<Route> {
    let told = |(index, error): (usize, model::TopicError)| {
        tracing::error!(subscription = %subscription.name, index, %error, "a topic can't be used: no events for it");
    };
    Route::new(&subscription.realms_topics).map_err(told).ok()
}

impl<'a> Session<'a> {
    /// Loads the position first, then the routes: a marker at or below the position has its boundary recorded by
    /// now, and one above it will be read.
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
            tracker: Tracker::new(position.value),
            position,
            routes: Routes::default(),
            lanes: HashMap::new(),
            reports,
            reporter,
            tasks: JoinSet::new(),
            next_move: Instant::now(),
        };
        for (_, entry) in broker.registry().list().await? {
            if let Entry::Subscription(subscription) = entry.value
                && subscription.lifecycle != Lifecycle::Deleting
            {
                session.open(&subscription, false).await?;
            }
        }
        tracing::info!(incoming_seq = session.position.value, lanes = session.lanes.len(), "dispatching");
        Ok(session)
    }

    /// Opens the lane of a subscription; without a marker only if it had one before.
    async fn open(&mut self, subscription: &Subscription, marker: bool) -> Result<(), Ended> {
        let Subscription { name, incarnation, .. } = subscription;
        let Some(route) = route_of(subscription) else { return Ok(()) };
        let Some(copier) = Copier::open(self.broker.queue(name, *incarnation)).await? else {
            tracing::warn!(subscription = %name, %incarnation, "registered, but its queue does not exist");
            return Ok(());
        };
        if !marker && !copier.checkpoint().active {
            return Ok(());
        }
        let (sender, items) = mpsc::unbounded_channel();
        let lane = Lane {
            broker: self.broker.clone(),
            name: name.clone(),
            incarnation: *incarnation,
            copier,
            metrics: self.metrics.clone(),
            reports: self.reporter.clone(),
        };
        self.tasks.spawn(lane.run(items));
        self.lanes.insert(*incarnation, sender);
        self.routes.insert(*incarnation, route);
        self.metrics.lanes.set(self.lanes.len() as u64);
        Ok(())
    }

    async fn dispatch(&mut self, hole: Option<Gap>) -> Result<std::convert::Infallible, Ended> {
        let mut log = self.broker.event_log().follow(self.tracker.next()).await?;
        self.metrics.ready(true);
        loop {
            let room = self.tracker.bytes() < self.config.backlog_bytes_max;
            let moves = self.tracker.position() > self.position.value;
            tokio::select! {
                report = self.reports.recv() => {
                    if let Some(report) = report {
                        self.note(report);
                    }
                }
                () = tokio::time::sleep_until(self.next_move), if moves => self.move_position().await?,
                entry = log.next(), if room => {
                    let entry = entry.ok_or_else(|| broker::Error::LayoutMissing {
                        what: "the event log".to_owned(),
                    })??;
                    self.handle(entry, hole).await?;
                    // What has arrived by now goes with it: lanes fill their batches.
                    while let Some(Some(entry)) = log.next().now_or_never() {
                        self.handle(entry?, hole).await?;
                        if self.tracker.bytes() >= self.config.backlog_bytes_max {
                            break;
                        }
                    }
                    self.metrics.read.set(self.tracker.read());
                }
            }
        }
    }

    async fn handle(&mut self, entry: LogEntry, hole: Option<Gap>) -> Result<(), Ended> {
        let expected = self.tracker.next();
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
        self.tracker.read_one();
        match entry.item {
            LogItem::Event(payload) => self.route(entry.sequence, &payload),
            LogItem::Marker { subscription, incarnation, round } => {
                self.activate(entry.sequence, &subscription, incarnation, round).await?;
            }
            LogItem::Unreadable => {}
        }
        Ok(())
    }

    fn route(&mut self, sequence: u64, payload: &Bytes) {
        let head: Head = match serde_json::from_slice(payload) {
            Ok(head) => head,
            Err(error) => {
                // The API checks every event: this one came from somewhere else.
                tracing::error!(incoming_seq = sequence, %error, "an event can't be read and is skipped");
                return;
            }
        };
        for incarnation in self.routes.of(&head.realm, &head.topic).to_vec() {
            self.hand(incarnation, Item::Event { sequence, payload: payload.clone() }, payload.len());
        }
    }

    fn hand(&mut self, incarnation: Incarnation, item: Item, size: usize) {
        // A lane that has ended has reported so, or is about to.
        if let Some(lane) = self.lanes.get(&incarnation)
            && lane.send(item).is_ok()
        {
            self.tracker.handed(incarnation, size);
        }
    }

    async fn activate(
        &mut self,
        sequence: u64,
        name: &SubscriptionName,
        incarnation: Incarnation,
        round: u32,
    ) -> Result<(), Ended> {
        let entry = self.broker.registry().subscription(name).await?;
        let Some(entry) = entry.filter(|s| s.value.incarnation == incarnation) else {
            // If it has a lane, that will find the queue gone.
            tracing::debug!(subscription = %name, %incarnation, "a marker of a removed subscription");
            return Ok(());
        };
        if self.lanes.contains_key(&incarnation) {
            // Its topics may have changed: from this place on the new ones count.
            if let Some(route) = route_of(&entry.value) {
                self.routes.insert(incarnation, route);
            }
        } else {
            self.open(&entry.value, true).await?;
        }
        self.hand(incarnation, Item::Marker { sequence, round, topics: entry.value.realms_topics.into() }, 0);
        Ok(())
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Done { lane, through } => self.tracker.done(lane, through),
            Report::Ended { lane } => {
                self.lanes.remove(&lane);
                self.routes.remove(lane);
                self.tracker.ended(lane);
                self.metrics.lanes.set(self.lanes.len() as u64);
            }
        }
    }

    async fn move_position(&mut self) -> Result<(), Ended> {
        let target = self.tracker.position();
        match self.broker.position().set(target, self.position.revision).await {
            Ok(revision) => self.position = Revised { value: target, revision },
            Err(WriteError::Conflict) => return Err(Ended::Overtaken),
            Err(WriteError::Other(error)) => return Err(Ended::Broker(error)),
        }
        self.metrics.position.set(target);
        self.broker.event_log().purge_through(target).await?;
        self.next_move = Instant::now() + self.config.position_interval;
        Ok(())
    }
}
