//! What the main reader hands to a lane, how long it is held, and how a lane that fell behind comes back. Pure: no I/O,
//! no clock of its own.
//!
//! A lane that can't keep up loses its backlog in memory: the mailbox is *shut* at the first entry that was thrown
//! away. The lane then reads the log itself, from that entry on. When it is close to the main reader it *joins*: from
//! the main reader's place on everything is put in again, and the lane reads itself up to that place.
//!
//! ```text
//!  the log      … 4 5 6 7 8 9 10 11 12 13 14 …
//!  main reader                      ▲ 12: put in, because above 11
//!  lane               ▲ 6: read by the lane itself, which began at 5 (shut) and goes on until 11 (joined at 11)
//! ```
//!
//! **No gap and no repeat.** Who joins at `until` reads all of `..=until` itself, and takes only what is above it from
//! the mailbox. The main reader announces each entry (a counter that `join` is given) *before* it puts it into any
//! mailbox; both `put` and `join` happen under the mailbox's lock. So an entry above `until` has not been announced
//! when the lane joined, and will be put in; one at or below it is ignored when it is put in late.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use broker::LargeEvent;
use bytes::Bytes;
use model::checkpoint::Marker;
use tokio::time::Instant;

/// What a lane is asked to do, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Copy this event.
    Event { sequence: u64, accepted: SystemTime, payload: Bytes },
    /// Copy this message, whatever was asked for: a dead letter that is sent again.
    Letter { sequence: u64, accepted: SystemTime, payload: Bytes },
    /// From here on the events of this marker follow.
    Marker { sequence: u64, marker: Arc<Marker> },
    /// An event that NATS does not carry: a dead letter.
    TooLarge { sequence: u64, event: Arc<LargeEvent> },
}

impl Item {
    pub(crate) fn sequence(&self) -> u64 {
        let (Self::Event { sequence, .. }
        | Self::Letter { sequence, .. }
        | Self::Marker { sequence, .. }
        | Self::TooLarge { sequence, .. }) = self;
        *sequence
    }

    fn size(&self) -> usize {
        match self {
            Self::Event { payload, .. } | Self::Letter { payload, .. } => payload.len(),
            Self::Marker { .. } | Self::TooLarge { .. } => 0,
        }
    }
}

impl Item {
    /// Is it copied together with others?
    fn is_copied(&self) -> bool {
        matches!(self, Self::Event { .. } | Self::Letter { .. })
    }
}

/// Places for items that a mailbox keeps when it is empty.
const KEPT_CAPACITY: usize = 64;

/// How much a mailbox should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub entries: usize,
    pub bytes: usize,
}

/// One lane's mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    bound: Bound,
    /// Since when they wait, and what they are.
    items: VecDeque<(Instant, Item)>,
    /// How many of them are not copied.
    controls: usize,
    bytes: usize,
    door: Door,
    /// First sequence of what the lane has taken and not done.
    hands: Option<u64>,
    own: Option<OwnReading>,
    /// The lane's queue refuses copies, or did when the lane had last something to do.
    stuck: bool,
    /// Nobody waits for its copies: the main reader does not wait for them either.
    unhurried: bool,
    /// The newest marker that was handed over: what comes before it is needed soon.
    marker: u64,
    /// Grows whenever the lane has done something.
    steps: u64,
}

#[derive(Clone, Copy, Debug)]
enum Door {
    /// What is above this is put in.
    Open { above: u64 },
    /// Nothing is put in. The first that was thrown away.
    Shut { from: u64 },
    /// The lane has ended: nothing is needed any more.
    Ended,
}

/// The lane reads the log itself.
#[derive(Clone, Copy, Debug)]
struct OwnReading {
    /// First entry that is not done.
    next: u64,
    /// Where it ends, once the lane has joined.
    until: Option<u64>,
}

/// What a lane finds in its mailbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Do this, then say [`Mailbox::done`]. What is not copied comes alone.
    Items(Vec<Item>),
    Nothing,
    /// Read the log from this entry on.
    Behind {
        from: u64,
    },
}

/// How long what waits may wait for consumers that read it from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Until(Instant),
    /// It is much: no longer than until it is known what of it was acknowledged.
    TooMuch,
    /// Nothing waits, or it is no event.
    No,
}

impl Mailbox {
    pub(crate) fn new(bound: Bound) -> Self {
        Self {
            bound,
            items: VecDeque::new(),
            controls: 0,
            bytes: 0,
            door: Door::Open { above: 0 },
            hands: None,
            own: None,
            stuck: false,
            unhurried: false,
            marker: 0,
            steps: 0,
        }
    }

    /// One whose lane reads the log itself from an entry on, unless it is [opened](Self::open) in time.
    pub(crate) fn behind(bound: Bound, from: u64) -> Self {
        Self { door: Door::Shut { from }, ..Self::new(bound) }
    }

    /// The lane needs nothing that the main reader has read so far: what it reads from now on is put in. Only before
    /// the main reader begins.
    pub(crate) fn open(&mut self) {
        if let Door::Shut { from } = self.door {
            self.door = Door::Open { above: from - 1 };
        }
    }

    /// The main reader can't handle an entry for this lane: the lane reads the log itself from there on.
    pub(crate) fn close_at(&mut self, sequence: u64) {
        if let Door::Open { above } = self.door
            && sequence > above
        {
            self.door = Door::Shut { from: sequence };
        }
    }

    /// The lane has let go of what it had in its hands: it reads again all that it still needs.
    pub(crate) fn restart(&mut self) {
        if let Some(from) = self.oldest() {
            self.door = Door::Shut { from };
        }
        self.drop_items();
        (self.hands, self.own) = (None, None);
    }

    /// The lane has ended: nobody needs anything any more.
    pub(crate) fn end(&mut self) {
        self.drop_items();
        (self.hands, self.own, self.door) = (None, None, Door::Ended);
    }

    /// Has the lane ended?
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.door, Door::Ended)
    }

    /// Their memory, too.
    fn drop_items(&mut self) {
        self.items = VecDeque::new();
        (self.controls, self.bytes) = (0, 0);
    }

    /// The main reader hands something over. A lane that is stuck loses what is too much; for one that works the
    /// main reader may wait: see [`is_crowded`](Self::is_crowded).
    pub(crate) fn put(&mut self, item: Item, now: Instant) {
        if let Item::Marker { sequence, .. } = &item {
            self.marker = *sequence;
        }
        match self.door {
            Door::Open { above } if item.sequence() > above => {
                self.bytes += item.size();
                self.controls += usize::from(!item.is_copied());
                self.items.push_back((now, item));
                if (self.stuck || self.unhurried) && self.is_over(self.bound) {
                    self.shut();
                }
            }
            Door::Open { .. } | Door::Shut { .. } | Door::Ended => {}
        }
    }

    /// Throws the backlog away; the lane will read it again itself.
    pub(crate) fn shut(&mut self) {
        if let Some((_, first)) = self.items.front() {
            self.door = Door::Shut { from: first.sequence() };
            self.drop_items();
        }
    }

    /// Does more wait than should? Until half of it is done.
    pub(crate) fn is_crowded(&self, was: bool) -> bool {
        let Bound { entries, bytes } = self.bound;
        self.is_over(if was { Bound { entries: entries / 2, bytes: bytes / 2 } } else { self.bound })
    }

    fn is_over(&self, bound: Bound) -> bool {
        self.items.len() > bound.entries || self.bytes > bound.bytes
    }

    /// How often the lane has done something.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Has the lane said that it can't go on?
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The lane can't go on for the time being.
    pub(crate) fn stuck(&mut self) {
        self.stuck = true;
        if self.is_over(self.bound) {
            self.shut();
        }
    }

    /// Nobody waits for what the lane has to do.
    pub(crate) fn unhurried(&mut self) {
        self.unhurried = true;
        if self.is_over(self.bound) {
            self.shut();
        }
    }

    /// Is what the lane has to do needed soon? What is not copied is, and so is what comes before it.
    pub(crate) fn is_hurried(&self) -> bool {
        self.controls > 0 || self.oldest().is_some_and(|oldest| oldest <= self.marker)
    }

    /// Has the lane nothing to do?
    pub(crate) fn is_idle(&self) -> bool {
        self.items.is_empty() && !matches!(self.door, Door::Shut { .. })
    }

    /// Memory is short: what need not be held is thrown away.
    pub(crate) fn make_room(&mut self) {
        if self.stuck || self.unhurried {
            self.shut();
        }
    }

    /// How much it should hold from now on.
    pub(crate) fn set_bound(&mut self, bound: Bound) {
        self.bound = bound;
    }

    /// How long what waits may wait for consumers that read it from the log, if each may for so long.
    pub(crate) fn held(&self, hold: Duration) -> Held {
        let Some((since, _)) = self.items.front() else { return Held::No };
        let Bound { entries, bytes } = self.bound;
        match self.is_over(Bound { entries: entries / 2, bytes: bytes / 2 }) {
            _ if self.controls > 0 || self.stuck => Held::No,
            true => Held::TooMuch,
            false => Held::Until(*since + hold),
        }
    }

    /// Consumers have acknowledged so far what they read from the log, or another dispatcher has copied it.
    pub(crate) fn pass(&mut self, checkpoint: u64) {
        while let Some((_, item)) =
            self.items.pop_front_if(|(_, item)| item.is_copied() && item.sequence() <= checkpoint)
        {
            self.bytes -= item.size();
        }
    }

    /// The lane takes what waits: up to so many events or, about, bytes; or one marker.
    pub(crate) fn take(&mut self, entries: usize, bytes: usize) -> Taken {
        let Some((_, first)) = self.items.pop_front() else {
            // It has kept up, or begins anew: it is not stuck any more.
            (self.stuck, self.unhurried) = (false, false);
            if self.items.capacity() > KEPT_CAPACITY {
                self.items = VecDeque::new();
            }
            return match self.door {
                Door::Open { .. } | Door::Ended => Taken::Nothing,
                Door::Shut { from } => {
                    self.own = Some(OwnReading { next: from, until: None });
                    Taken::Behind { from }
                }
            };
        };
        self.hands = Some(first.sequence());
        let mut size = first.size();
        let alone = !first.is_copied();
        self.controls -= usize::from(alone);
        let mut taken = vec![first];
        while !alone
            && taken.len() < entries
            && size < bytes
            && let Some((_, item)) = self.items.pop_front_if(|(_, item)| item.is_copied())
        {
            size += item.size();
            taken.push(item);
        }
        self.bytes -= size;
        Taken::Items(taken)
    }

    /// The lane has done what it took.
    pub(crate) fn done(&mut self) {
        self.hands = None;
        self.steps += 1;
    }

    /// The lane reads itself and is close to the main reader, which has announced the entries up to `read`. True: it
    /// need not read any further.
    pub(crate) fn join(&mut self, read: u64) -> bool {
        let Some(own) = &mut self.own else { return true };
        // The lane may even be ahead: then the main reader's copies of that are ignored.
        let until = read.max(own.next - 1);
        self.door = Door::Open { above: until };
        own.until = Some(until);
        self.end_own_reading()
    }

    /// Has the lane joined?
    pub(crate) fn has_joined(&self) -> bool {
        self.own.is_none_or(|own| own.until.is_some())
    }

    /// The lane, reading itself, has done everything up to here. True: it need not read any further.
    pub(crate) fn done_through(&mut self, sequence: u64) -> bool {
        self.steps += 1;
        let Some(own) = &mut self.own else { return true };
        own.next = own.next.max(sequence + 1);
        self.end_own_reading()
    }

    fn end_own_reading(&mut self) -> bool {
        let ends = self.own.is_some_and(|own| own.until.is_some_and(|until| own.next > until));
        if ends {
            self.own = None;
        }
        ends
    }

    /// The first entry that the lane still needs; `None`: none of those that the main reader has handed out.
    pub(crate) fn oldest(&self) -> Option<u64> {
        // What the lane has begun comes before what waits, and that before what was thrown away.
        let shut = match self.door {
            Door::Open { .. } | Door::Ended => None,
            Door::Shut { from } => Some(from),
        };
        let own = self.own.map(|own| own.next);
        self.hands.or(own).or_else(|| self.items.front().map(|(_, item)| item.sequence())).or(shut)
    }
}

#[cfg(test)]
mod tests;
