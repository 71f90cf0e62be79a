//! What the consumer is told of, of one attempt: recorded while the snapshot is written, and compared in the end with
//! what was known before. A resync tells what is missing; a prefill only takes it over into the new set.

use std::{
    collections::{BTreeSet, VecDeque},
    hash::RandomState,
    time::{Duration, SystemTime},
};

use broker::{FenceHolder, FillError, KnownChunk, Queue};
use model::{
    fence::FenceState,
    prefill::{PrefillMode, PrefillTask},
    resync::{Comparison, KnownObject, KnownObjects, Named, Present, RemovalsByType, Rules, Verdict, Whence},
};
use uuid::Uuid;

/// Objects that wait to be written into the set, about.
const PART_MAX: usize = 1000;
/// Where the directory may lag behind the events: what was named within this time before the attempt began is not told
/// as removed.
const LAG: Duration = Duration::from_secs(600);

/// What an attempt must know before it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Former {
    /// Has the consumer read all that the last prefill told?
    was_read: bool,
}

impl Former {
    /// To be called before the fence is taken and the last prefill is removed. A failed attempt in between leaves an
    /// open fence, and then it is not known any more, so what was told is told again.
    pub(crate) async fn look(queue: &Queue) -> Result<Self, broker::Error> {
        let fence = queue.fence().await?.map(|fence| fence.value);
        let sealed = fence.filter(|fence| fence.state == FenceState::Sealed);
        if let Some(before) = sealed.as_ref().and_then(|fence| fence.known_below) {
            // It was held and is approved, or its pod died then: what it compared with would be told once more.
            queue.forget_known_below(before).await?;
        }
        let left = queue.pending().await?.map_or(0, |counts| counts.prefill);
        Ok(Self { was_read: sealed.is_some() && left == 0 })
    }
}

/// The set of one attempt.
pub(crate) struct Known {
    present: Present<RandomState>,
    former: Former,
    /// Types of which all was read.
    read: BTreeSet<String>,
    /// Types with an object of which nobody can tell which it is.
    unnamed: BTreeSet<String>,
    /// What was listed and vanished before it was read, and nobody knows why.
    vanished: Vec<KnownObject>,
    pub(crate) unwritten: Unwritten,
}

/// What goes into the set with the next batch.
#[derive(Default)]
pub(crate) struct Unwritten {
    named: Vec<KnownObject>,
    told: Vec<KnownObject>,
    absent: Vec<KnownObject>,
}

impl Unwritten {
    /// Should it be written, although no message goes with it?
    pub(crate) fn is_full(&self) -> bool {
        self.named.len().max(self.told.len()).max(self.absent.len()) >= PART_MAX
    }

    /// What is not written yet.
    pub(crate) fn take(&mut self) -> Vec<KnownObjects> {
        let Self { named, told, absent } = std::mem::take(self);
        let parts = [(false, false, named), (true, false, told), (false, true, absent)];
        let filled = parts.into_iter().filter(|(_, _, objects)| !objects.is_empty());
        filled.map(|(removed, absent, objects)| KnownObjects { removed, absent, objects }).collect()
    }
}

impl Known {
    pub(crate) fn new(former: Former) -> Self {
        Self {
            present: Present::new(RandomState::new()),
            former,
            read: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            vanished: Vec::new(),
            unwritten: Unwritten::default(),
        }
    }

    /// An object that exists; `message` is its place in this attempt, if it could be written.
    pub(crate) fn exists(&mut self, object: KnownObject, message: Option<u64>) {
        self.present.saw(&object, message);
        self.unwritten.named.push(object);
    }

    /// An object that was listed and can't be read. If nobody can tell its DN it may be any that is missing: then
    /// nothing of its type is told as removed.
    pub(crate) fn broken(&mut self, topic: String, dn: String, uuid: Option<Uuid>) {
        if uuid.is_some_and(|uuid| dn == format!("entryUUID={uuid}")) {
            self.unnamed.insert(topic);
            return;
        }
        let uuid = uuid.map(|uuid| uuid.to_string());
        self.exists(KnownObject { uuid, ..KnownObject::at(topic, dn) }, None);
    }

    /// An object that was listed and could not be found. Unless the directory has said that there is no such object it
    /// may have moved, or be hidden by whoever answered.
    pub(crate) fn vanished(&mut self, topic: String, dn: String) {
        self.vanished.push(KnownObject::at(topic, dn));
    }

    /// All of a type was read: only then can something of it be missing.
    pub(crate) fn finished(&mut self, topic: String) {
        if !self.unnamed.contains(&topic) {
            self.read.insert(topic);
        }
    }

    /// The snapshot is complete: compares it with what was known before. `lags`: the directory may not show what was
    /// named shortly before the attempt began.
    pub(crate) async fn compare<'a>(
        self,
        queue: &'a Queue,
        fence: &FenceHolder,
        task: &PrefillTask,
        lags: Lag,
    ) -> Result<Missing<'a>, FillError> {
        let Self { present, former, read, vanished, unwritten, .. } = self;
        let tell = task.mode == PrefillMode::Resync;
        let rules = Rules { tell, read, former_was_read: former.was_read };
        let mut comparison = present.compare(rules);
        vanished.iter().for_each(|object| comparison.spare(object));
        let begin = fence.claimed_at();
        spare(queue, begin, &mut comparison).await?;
        let former = FormerSet { queue, begin, horizon: lags.horizon() };
        former.each(|named| comparison.learn(&named)).await?;
        if tell {
            former.each(|named| comparison.count(&named)).await?;
        }
        Ok(Missing { unwritten, former, comparison, next: 1, found: VecDeque::new() })
    }
}

/// How far the directory may lag behind the events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lag {
    /// It shows every change whose event was accepted.
    None,
    /// It may lag, and the attempt began then, by the server's clock; `None`: nobody knows.
    Since(Option<SystemTime>),
}

impl Lag {
    /// What was named after this may be younger than what the directory shows.
    fn horizon(self) -> Option<SystemTime> {
        match self {
            Self::None => None,
            Self::Since(began) => {
                Some(began.and_then(|began| began.checked_sub(LAG)).unwrap_or(SystemTime::UNIX_EPOCH))
            }
        }
    }
}

/// What was known before an attempt.
struct FormerSet<'a> {
    queue: &'a Queue,
    /// What was written from here on is of this attempt, or beside it.
    begin: u64,
    horizon: Option<SystemTime>,
}

impl FormerSet<'_> {
    async fn each(&self, mut look: impl FnMut(Named)) -> Result<(), FillError> {
        let mut next = 1;
        while next < self.begin {
            let (found, from) = self.from(next).await?;
            found.into_iter().for_each(&mut look);
            next = from;
        }
        Ok(())
    }

    /// The next ones at or above a number, and where to go on.
    async fn from(&self, next: u64) -> Result<(Vec<Named>, u64), FillError> {
        let chunks = self.queue.known_from(next, false).await?;
        let next = chunks.last().map_or(self.begin, |last| last.sequence + 1);
        let before = chunks.into_iter().take_while(|chunk| chunk.sequence < self.begin);
        Ok((before.flat_map(|chunk| self.named(chunk)).collect(), next))
    }

    fn named(&self, chunk: KnownChunk) -> impl Iterator<Item = Named> + use<> {
        let recent = self.horizon.is_some_and(|horizon| chunk.written > horizon);
        let whence = match chunk.known {
            KnownObjects { removed: true, .. } => Whence::Removed,
            KnownObjects { absent: true, .. } => Whence::Absent,
            KnownObjects { .. } if chunk.live => Whence::Live,
            KnownObjects { .. } => Whence::Snapshot,
        };
        chunk.known.objects.into_iter().map(move |object| Named { object, whence, recent })
    }
}

/// What was known before the snapshot and is not in it, bit by bit; all of it stays in the set as long as it must.
pub(crate) struct Missing<'a> {
    pub(crate) unwritten: Unwritten,
    former: FormerSet<'a>,
    comparison: Comparison<RandomState>,
    next: u64,
    found: VecDeque<Named>,
}

/// What is to be done next about what is missing.
pub(crate) enum Step {
    /// Tell a removal, and behind it again what is in that place now, by the place of its message in the attempt.
    Remove(KnownObject, Option<u64>),
    /// Tell that an object has moved, to where it is in that message of the attempt.
    Move(KnownObject, u64),
    /// Write what is to be kept.
    Flush,
    /// That was all.
    End,
}

impl Missing<'_> {
    /// How much is gone, before any of it is told.
    pub(crate) fn removals(&self) -> RemovalsByType {
        self.comparison.removals()
    }

    pub(crate) async fn next(&mut self) -> Result<Step, FillError> {
        while !self.unwritten.is_full() {
            let Some(named) = self.found.pop_front() else {
                if self.next >= self.former.begin {
                    return Ok(Step::End);
                }
                let (found, next) = self.former.from(self.next).await?;
                (self.found, self.next) = (found.into(), next);
                continue;
            };
            let verdict = self.comparison.judge(&named);
            let object = named.object;
            match verdict {
                Verdict::Forget => {}
                Verdict::Keep { absent: false } => self.unwritten.named.push(object),
                Verdict::Keep { absent: true } => self.unwritten.absent.push(object),
                Verdict::Remove { told, again } => {
                    self.unwritten.told.push(object);
                    return Ok(Step::Remove(told, again));
                }
                Verdict::Move { to } => {
                    self.unwritten.told.push(object.clone());
                    return Ok(Step::Move(object, to));
                }
            }
        }
        Ok(Step::Flush)
    }
}

/// What live messages have named since the attempt began: they come after it and tell what became of it.
async fn spare(queue: &Queue, begin: u64, comparison: &mut Comparison<RandomState>) -> Result<(), FillError> {
    let mut next = begin;
    loop {
        let chunks = queue.known_from(next, true).await?;
        let Some(last) = chunks.last() else { return Ok(()) };
        next = last.sequence + 1;
        for object in chunks.iter().flat_map(|chunk| &chunk.known.objects) {
            comparison.spare(object);
        }
    }
}
