//! What the consumer is told of, of one attempt: recorded while the snapshot is written, and compared in the end with
//! what was known before. A resync tells what is missing; a prefill only takes it over into the new set.

use std::{
    collections::VecDeque,
    hash::RandomState,
    time::{Duration, SystemTime},
};

use broker::{FenceHolder, FillError, Queue};
use model::{
    Comparison, ExitCode, FenceState, KnownObject, KnownObjects, PrefillMode, PrefillTask, Present,
    RealmTopic, Reason, ResyncRules, Route, UDM_REALM, Verdict,
};

use crate::outcome::{Failure, Outcome};

/// Objects that wait to be written into the set, about.
const PART_MAX: usize = 1000;
/// Where the directory may lag behind the events: what was named within this time is not told as removed.
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
        let sealed = queue.fence().await?.is_some_and(|fence| fence.value.state == FenceState::Sealed);
        let left = queue.pending().await?.map_or(0, |counts| counts.prefill);
        Ok(Self { was_read: sealed && left == 0 })
    }
}

/// The set of one attempt.
pub(crate) struct Known {
    present: Present<RandomState>,
    former: Former,
    pub(crate) unwritten: Unwritten,
}

/// What goes into the set with the next batch.
#[derive(Default)]
pub(crate) struct Unwritten {
    named: Vec<KnownObject>,
    told: Vec<KnownObject>,
}

impl Unwritten {
    /// Should it be written, although no message goes with it?
    pub(crate) fn is_full(&self) -> bool {
        self.named.len() >= PART_MAX
    }

    /// What is not written yet.
    pub(crate) fn take(&mut self) -> Vec<KnownObjects> {
        let parts = [(false, &mut self.named), (true, &mut self.told)];
        let filled = parts.into_iter().filter(|(_, objects)| !objects.is_empty());
        filled.map(|(removed, objects)| KnownObjects { removed, objects: std::mem::take(objects) }).collect()
    }
}

impl Known {
    pub(crate) fn new(former: Former) -> Self {
        Self { present: Present::new(RandomState::new()), former, unwritten: Unwritten::default() }
    }

    /// A message of the snapshot.
    pub(crate) fn wrote(&mut self, message: &[u8]) {
        for object in KnownObject::named_by(message) {
            self.exists(object);
        }
    }

    /// An object that exists, although it could not be written.
    pub(crate) fn exists(&mut self, object: KnownObject) {
        self.present.saw(&object);
        self.unwritten.named.push(object);
    }

    /// The snapshot is complete: compares it with what was known before.
    pub(crate) async fn compare<'a>(
        self,
        queue: &'a Queue,
        fence: &FenceHolder,
        against: Against<'_>,
    ) -> Result<Missing<'a>, Outcome> {
        let mut comparison = self.present.compare(against.rules(self.former)?);
        let begin = fence.claimed_at();
        spare(queue, begin, &mut comparison).await?;
        let horizon = if against.is_current { None } else { SystemTime::now().checked_sub(LAG) };
        Ok(Missing {
            unwritten: self.unwritten,
            queue,
            comparison,
            begin,
            horizon,
            next: 1,
            found: VecDeque::new(),
        })
    }
}

/// What was known before the snapshot and is not in it, bit by bit; all of it stays in the set as long as it must.
pub(crate) struct Missing<'a> {
    pub(crate) unwritten: Unwritten,
    queue: &'a Queue,
    comparison: Comparison<RandomState>,
    /// What was written from here on is of this attempt, or beside it.
    begin: u64,
    /// What was named after this may be younger than what the directory shows.
    horizon: Option<SystemTime>,
    next: u64,
    found: VecDeque<Found>,
}

/// An object of the former set.
struct Found {
    object: KnownObject,
    removed: bool,
    recent: bool,
}

impl Missing<'_> {
    /// The next object whose removal is to be told, and whether it has only moved; `None` at the end, or where what
    /// is to be kept should be written first: then [`is_over`](Self::is_over) is false.
    pub(crate) async fn next(&mut self) -> Result<Option<(KnownObject, bool)>, FillError> {
        while !self.unwritten.is_full() {
            let Some(Found { object, removed, recent }) = self.found.pop_front() else {
                if self.read().await? {
                    continue;
                }
                return Ok(None);
            };
            match self.comparison.judge(&object, removed, recent) {
                Verdict::Forget => {}
                Verdict::Keep => self.unwritten.named.push(object),
                Verdict::Tell { moved } => {
                    self.unwritten.told.push(object.clone());
                    return Ok(Some((object, moved)));
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.next >= self.begin && self.found.is_empty()
    }

    /// Reads on in the former set. False: that was all.
    async fn read(&mut self) -> Result<bool, FillError> {
        if self.next >= self.begin {
            return Ok(false);
        }
        let chunks = self.queue.known_from(self.next, false).await?;
        self.next = chunks.last().map_or(self.begin, |last| last.sequence + 1);
        for chunk in chunks.into_iter().take_while(|chunk| chunk.sequence < self.begin) {
            let recent = self.horizon.is_some_and(|horizon| chunk.written > horizon);
            let removed = chunk.known.removed;
            self.found.extend(chunk.known.objects.into_iter().map(|object| Found {
                object,
                removed,
                recent,
            }));
        }
        Ok(true)
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

/// What the set is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Against<'a> {
    pub task: &'a PrefillTask,
    /// Topics that were left out, since the directory knows no such type.
    pub missing: &'a [String],
    /// Does the directory show every change whose event was accepted?
    pub is_current: bool,
}

impl Against<'_> {
    fn rules(&self, former: Former) -> Result<ResyncRules, Outcome> {
        let missing = self.missing.iter();
        let missing: Vec<_> =
            missing.map(|topic| RealmTopic { realm: UDM_REALM.to_owned(), topic: topic.clone() }).collect();
        let route = |topics: &[RealmTopic]| {
            // The source has refused them before.
            Route::new(topics).map_err(|(_, error)| {
                let text = format!("a topic can't be used: {error}");
                Outcome::Failed(Failure::permanent(ExitCode::BadRequest, Reason::BadRequest, text))
            })
        };
        Ok(ResyncRules {
            tell: self.task.mode == PrefillMode::Resync,
            topics: route(&self.task.realms_topics)?,
            missing: route(&missing)?,
            former_was_read: former.was_read,
        })
    }
}
