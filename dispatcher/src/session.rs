//! One reading of the log, from the position in KV on.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use broker::{Broker, LogEntry, LogItem, Revised, WentBack};
use futures::{FutureExt, StreamExt};
use model::{Entry, Incarnation, Subscription, error_chain, subscription::Lifecycle};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    Config,
    lane::{Pace, Report},
    lanes::{Lanes, Owner},
    mailbox::Mailbox,
    metrics::Metrics,
    position::Mover,
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
    lanes: Lanes,
    pace: Arc<Pace>,
    reports: mpsc::UnboundedReceiver<Report>,
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
        self.metrics.stops(error_chain(error));
    }

    fn last(&self) -> u64 {
        self.pace.last()
    }
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
        let lanes = Lanes::new(config, broker, metrics, pace.clone(), reporter);
        let mut session = Self {
            config,
            broker,
            metrics,
            read,
            pace,
            position,
            done,
            lanes,
            reports,
            next_look: Instant::now(),
            stepped: false,
        };
        let mut awaited = HashSet::new();
        let listed = broker.registry().list().await?;
        for name in listed.unreadable.iter().filter_map(|entry| entry.name.parse().ok()) {
            session.lanes.hold_for(name, read);
        }
        for (_, entry) in listed.entries {
            if let Entry::Subscription(s) = &entry.value
                && s.lifecycle != Lifecycle::Deleting
                && s.lost.is_none()
            {
                let Subscription { name, incarnation, selection, track, .. } = s;
                let owner =
                    Owner { name, incarnation: *incarnation, selection: selection.as_ref(), track: *track };
                session.lanes.add(&owner, |bound| Mailbox::behind(bound, read + 1));
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
                            if let Some(inlet) = self.lanes.take_effect(lane, epoch, route) {
                                inlet.with(Mailbox::open);
                            }
                            needed.send(true).ok();
                        }
                        // Its marker has not come: that makes a lane.
                        None if first => {
                            self.lanes.forget(lane);
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
                    self.lanes.ended(lane, &inlet);
                    self.stepped = true;
                }
                Report::Gap | Report::Changed => {}
            }
        }
    }

    async fn dispatch(&mut self, hole: Option<Gap>) -> Result<Infallible, Ended> {
        let mut log = self
            .broker
            .log_from(self.read + 1, Watched { metrics: self.metrics.clone(), pace: self.pace.clone() });
        let pace = self.pace.clone();
        loop {
            let crowded = self.lanes.is_crowded();
            tokio::select! {
                report = self.reports.recv() => {
                    if let Some(report) = report {
                        self.note(report)?;
                    }
                }
                () = pace.stepped.notified(), if !self.stepped || crowded => {
                    self.stepped = true;
                    self.lanes.look_at_crowd();
                }
                () = tokio::time::sleep(CROWD_EVERY), if crowded => self.lanes.look_at_crowd(),
                () = tokio::time::sleep_until(self.next_look), if self.stepped => {
                    self.next_look = Instant::now() + self.config.position_interval;
                    self.stepped = false;
                    self.done.send_replace(self.lanes.done_through(self.read));
                }
                entry = log.next(), if !crowded => {
                    self.handle(entry, hole)?;
                    // What has arrived by now goes with it: lanes fill their batches.
                    while !self.lanes.is_crowded() && let Some(entry) = log.next().now_or_never() {
                        self.handle(entry, hole)?;
                    }
                    self.stepped = true;
                    self.metrics.read.set(self.read);
                }
            }
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
            LogItem::Event(payload) => self.lanes.route(entry.sequence, entry.accepted, &payload),
            LogItem::TooLarge(event) => self.lanes.route_large(entry.sequence, event),
            LogItem::Letter(letter) => self.lanes.route_letter(entry.sequence, entry.accepted, &letter),
            LogItem::Marker(marker) => self.lanes.activate(entry.sequence, marker),
            LogItem::Unreadable(Some(whose)) => self.lanes.hold(entry.sequence, &whose),
            LogItem::Unreadable(None) => {
                tracing::error!(
                    incoming_seq = entry.sequence,
                    "an entry of the event log is neither an event nor a marker, and is skipped"
                );
            }
        }
        Ok(())
    }

    fn note(&mut self, report: Report) -> Result<(), Ended> {
        match report {
            Report::Opened { lane, active, needed } => {
                if let Some((epoch, route)) = active {
                    self.lanes.take_effect(lane, epoch, route);
                }
                needed.send(true).ok();
                Ok(())
            }
            Report::Delayed { .. } => Ok(()),
            Report::Ended { lane, inlet } => {
                self.lanes.ended(lane, &inlet);
                self.stepped = true;
                Ok(())
            }
            Report::Gap => Err(Ended::Doubt),
            Report::Changed => Err(Ended::Changed),
        }
    }
}
