//! The lanes of a session, and which events go to which of them.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use broker::{Broker, Head, LargeEvent, Letter, Routes, Whose};
use bytes::Bytes;
use model::{
    Incarnation, Selection, SubscriptionName,
    checkpoint::{Epoch, Marker},
    topic::Route,
};
use tokio::{sync::mpsc, task::JoinSet};
use uuid::Uuid;

use crate::{
    Config,
    backpressure::Backpressure,
    keeper::Keeper,
    lane::{Inlet, Pace, Report},
    mailbox::{Bound, Item, Mailbox},
    memory::{self, Memory},
    metrics::Metrics,
    unreadable::Holder,
};

/// Whose lane it is.
pub(crate) struct Owner<'a> {
    pub name: &'a SubscriptionName,
    pub incarnation: Incarnation,
    pub selection: Option<&'a Selection>,
    pub track: bool,
}

/// All lanes, and what is in effect for each.
pub(crate) struct Lanes {
    config: Config,
    broker: Broker,
    metrics: Metrics,
    routes: Routes,
    inlets: HashMap<Incarnation, Arc<Inlet>>,
    backpressure: Backpressure,
    memory: Memory,
    /// Memory is short: the reading waits.
    full: bool,
    pace: Arc<Pace>,
    reporter: mpsc::UnboundedSender<Report>,
    /// Dropping the set ends all lanes.
    tasks: JoinSet<()>,
}

impl Lanes {
    /// None yet. They report to the session.
    pub(crate) fn new(
        config: Config,
        broker: &Broker,
        metrics: &Metrics,
        pace: Arc<Pace>,
        reporter: mpsc::UnboundedSender<Report>,
    ) -> Self {
        Self {
            config,
            broker: broker.clone(),
            metrics: metrics.clone(),
            routes: Routes::default(),
            inlets: HashMap::new(),
            backpressure: Backpressure::default(),
            memory: Memory::default(),
            full: false,
            pace,
            reporter,
            tasks: JoinSet::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.inlets.len()
    }

    /// A lane's queue is open, and this is in effect in it. Returns the lane's end, if there is such a lane.
    pub(crate) fn take_effect(&mut self, lane: Incarnation, epoch: Epoch, route: Route) -> Option<&Inlet> {
        let inlet = self.inlets.get(&lane)?;
        self.routes.take_effect(lane, epoch, route);
        Some(inlet)
    }

    /// Begins a lane.
    pub(crate) fn add(&mut self, owner: &Owner<'_>, mailbox: impl FnOnce(Bound) -> Mailbox) {
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
        self.backpressure.remove(owner.incarnation);
        let bound = self.bound();
        self.inlets.insert(owner.incarnation, inlet);
        self.metrics.lanes.set(self.inlets.len() as u64);
        if self.bound() != bound {
            self.share();
        }
    }

    /// How much may wait for each lane.
    fn bound(&self) -> Bound {
        let entries = memory::share(self.inlets.len(), self.config.lane_entries_max);
        Bound { entries, bytes: self.config.lane_bytes_max }
    }

    fn share(&self) {
        let bound = self.bound();
        for inlet in self.inlets.values() {
            inlet.with(|mailbox| mailbox.set_bound(bound));
        }
    }

    /// The log keeps what an entry that can't be read may need.
    pub(crate) fn hold_for(&mut self, name: SubscriptionName, read: u64) {
        let lane = Incarnation(Uuid::from_u128(self.inlets.len() as u128));
        let bound = Bound { entries: 0, bytes: 0 };
        let inlet = Inlet::new(Mailbox::behind(bound, read + 1));
        let holder = Holder {
            broker: self.broker.clone(),
            metrics: self.metrics.clone(),
            name,
            lane,
            inlet: inlet.clone(),
            reports: self.reporter.clone(),
        };
        self.tasks.spawn(holder.run());
        self.inlets.insert(lane, inlet);
    }

    pub(crate) fn forget(&mut self, lane: Incarnation) {
        self.inlets.remove(&lane);
        self.routes.remove(lane);
        self.backpressure.remove(lane);
        self.metrics.lanes.set(self.inlets.len() as u64);
    }

    /// A lane has ended, unless another one is in its place by now.
    pub(crate) fn ended(&mut self, lane: Incarnation, inlet: &Arc<Inlet>) {
        if self.inlets.get(&lane).is_some_and(|known| Arc::ptr_eq(known, inlet)) {
            self.forget(lane);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Does the reading wait?
    pub(crate) fn is_crowded(&mut self) -> bool {
        self.full = self.full || self.memory.is_full(false);
        self.full || !self.backpressure.is_empty()
    }

    pub(crate) fn look_at_crowd(&mut self) {
        self.backpressure.look(&self.inlets, self.pace.slowest());
        if self.full {
            for inlet in self.inlets.values() {
                inlet.with(Mailbox::make_room);
            }
            self.full = self.memory.is_full(true);
        }
    }

    pub(crate) fn route(&mut self, sequence: u64, accepted: SystemTime, payload: &Bytes) {
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
            if let Some(inlet) = self.inlets.get(incarnation) {
                let payload = own.get_or_insert_with(|| self.memory.keep(payload)).clone();
                inlet.put(Item::Event { sequence, accepted, payload });
                self.backpressure.put(*incarnation, inlet);
            }
        }
    }

    /// A letter of a subscription that is gone by now is nobody's.
    pub(crate) fn route_letter(&mut self, sequence: u64, accepted: SystemTime, letter: &Letter) {
        let incarnation = letter.whose.incarnation;
        if let Some(inlet) = self.inlets.get(&incarnation) {
            let payload = self.memory.keep(&letter.message);
            inlet.put(Item::Letter { sequence, accepted, payload });
            self.backpressure.put(incarnation, inlet);
        }
    }

    pub(crate) fn route_large(&mut self, sequence: u64, event: LargeEvent) {
        let event = Arc::new(event);
        for incarnation in self.routes.of(&event.realm, &event.topic) {
            if let Some(inlet) = self.inlets.get(incarnation) {
                inlet.put(Item::TooLarge { sequence, event: event.clone() });
                self.backpressure.put(*incarnation, inlet);
            }
        }
    }

    /// The lane of a marker; a new one, if there is none.
    fn lane_of(&mut self, owner: &Owner<'_>, mailbox: impl FnOnce(Bound) -> Mailbox) -> Arc<Inlet> {
        let lane = owner.incarnation;
        if self.inlets.get(&lane).is_none_or(|inlet| inlet.with(|mailbox| mailbox.is_ended())) {
            self.add(owner, mailbox);
        }
        self.inlets
            .get(&lane)
            .cloned()
            .unwrap_or_else(|| Inlet::new(Mailbox::new(Bound { entries: 0, bytes: 0 })))
    }

    pub(crate) fn activate(&mut self, sequence: u64, marker: Marker) {
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
    pub(crate) fn hold(&mut self, sequence: u64, Whose { subscription, incarnation }: &Whose) {
        tracing::error!(
            %subscription, incoming_seq = sequence,
            "a marker can't be read: a newer version wrote it; what follows for this subscription waits in the log"
        );
        let owner = Owner { name: subscription, incarnation: *incarnation, selection: None, track: false };
        let inlet = self.lane_of(&owner, |bound| Mailbox::behind(bound, sequence));
        inlet.with(|mailbox| mailbox.close_at(sequence));
    }

    /// The last entry of which nobody needs anything any more.
    pub(crate) fn done_through(&self, read: u64) -> u64 {
        let oldest = self.inlets.values().filter_map(|inlet| inlet.with(|mailbox| mailbox.oldest())).min();
        // A lane that reads itself may be ahead of us.
        oldest.map_or(read, |oldest| read.min(oldest - 1))
    }
}
