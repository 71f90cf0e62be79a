//! The checker: from a history to the promises that it breaks. Pure; it knows what producer and consumers saw, and
//! nothing of streams, fences or attempts.
//!
//! For each *life* (a subscription from its registration to its removal):
//!
//! 1. **No hole.** An event whose accepted POST began after the registration was answered is delivered live. A prefill
//!    holds each object that was there from before it was asked for until its first message came, no older than it
//!    was when it was asked for. At the end the consumer's picture is the directory.
//! 2. **Order.** Live messages come in the order of the changes, the same one again only where its POST had an unknown
//!    outcome. A prefill comes in the order of the topics, each object once; live messages of its round come after it.
//!    After a prefill was asked for again, no event that was posted after the answer comes before the new prefill.
//! 3. **Acknowledged is removed, and nothing else is.** A message comes again only as the head of what is not
//!    acknowledged. An acknowledgement of a message that is there finds it.
//! 4. **Lives are apart.** Numbers grow over the lives of a name, and no event from before a life is delivered in it.
//! 5. **Nothing stops.** At the end each queue has delivered the last event in time.
//!
//! What the consumer can't see is not assumed: a replica may know of a new round late, so until the first message that
//! surely belongs after the new prefill, what is unread of the old one may still come.

mod directory;
mod life;
mod queue;
mod seam;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use crate::history::{Event, Life, Moment, Outcome, Record};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When it showed.
    pub at: Moment,
    /// Whose queue.
    pub life: Life,
    /// Which promise.
    pub promise: Promise,
    /// In words.
    pub text: String,
}

/// The promises, by what breaks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// An event is missing.
    EventMissing,
    /// An object is missing in a prefill.
    ObjectMissing,
    /// A prefill shows something that was not so any more when it was asked for, or that never was.
    PrefillOutdated,
    /// A prefill holds an object twice, or its topics out of order.
    PrefillOrder,
    /// A prefill comes although none was asked for, or again.
    PrefillUnasked,
    /// A live message comes before the prefill that it belongs after.
    LiveBeforePrefill,
    /// Live messages come out of order, or again without a reason.
    LiveOrder,
    /// An acknowledged message comes again.
    AcknowledgedAgain,
    /// A message is gone although it was not acknowledged.
    LostUnacknowledged,
    /// A message comes again, but not as the next.
    AgainOutOfOrder,
    /// A message of a former life, or of a topic that was not asked for.
    Foreign,
    /// The consumer's last picture is not the directory.
    PictureDiffers,
    /// A queue has stopped.
    Stopped,
    /// An answer that no rule explains.
    Unexpected,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Life { consumer, life } = &self.life;
        let (seconds, rest) = (self.at / 1_000_000, self.at / 1000 % 1000);
        write!(f, "{:?} at {seconds}.{rest:03} s, {consumer} life {life}: {}", self.promise, self.text)
    }
}

/// Checks a whole history. `ended`: the run came to its end, so whoever has not drained has stopped.
#[must_use]
pub fn check(history: &[Record], ended: bool) -> Vec<Violation> {
    let world = directory::World::new(history);
    let mut lives: BTreeMap<&Life, Vec<&Record>> = BTreeMap::new();
    for record in history {
        if let Some(life) = life_of(&record.event) {
            lives.entry(life).or_default().push(record);
        }
    }
    let mut violations = Vec::new();
    let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
    for (life, mut records) in lives {
        records.sort_by_key(|record| record.end);
        let mut checked = life::check(&world, life, &records, ended);
        let highest = numbers.entry(&life.consumer).or_default();
        if let Some((lowest, at)) = checked.lowest
            && lowest <= *highest
        {
            let text = format!("number {lowest} comes although the former life had {highest}");
            checked.violations.push(Violation { at, life: life.clone(), promise: Promise::Foreign, text });
        }
        *highest = checked.highest.max(*highest);
        violations.extend(checked.violations);
    }
    violations.sort_by_key(|violation| violation.at);
    violations
}

fn life_of(event: &Event) -> Option<&Life> {
    match event {
        Event::Registered { life, .. }
        | Event::Asked { life, .. }
        | Event::Removed { life, .. }
        | Event::Delivered { life, .. }
        | Event::Acknowledged { life, .. }
        | Event::Drained { life }
        | Event::Unexpected { life, .. } => Some(life),
        Event::Changed { .. } | Event::Posted { .. } | Event::Fault { .. } => None,
    }
}

/// What a history holds, in numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Changes of the directory.
    pub changes: usize,
    /// Tries to post, and those of them whose outcome is unknown.
    pub posts: (usize, usize),
    /// Registrations that were answered.
    pub registrations: usize,
    /// Prefills asked for again.
    pub asked: usize,
    /// Messages delivered, and those of them that were of a prefill.
    pub deliveries: (usize, usize),
    /// Acknowledgements, and those of them whose outcome is unknown.
    pub acknowledgements: (usize, usize),
    /// What happened to processes.
    pub faults: usize,
}

impl Tally {
    /// Counts.
    #[must_use]
    pub fn of(history: &[Record]) -> Self {
        let mut tally = Self::default();
        for record in history {
            match &record.event {
                Event::Changed { .. } => tally.changes += 1,
                Event::Posted { outcome, .. } => {
                    tally.posts.0 += 1;
                    tally.posts.1 += usize::from(*outcome == Outcome::Unknown);
                }
                Event::Registered { outcome, .. } => {
                    tally.registrations += usize::from(*outcome != Outcome::Unknown);
                }
                Event::Asked { outcome, .. } => tally.asked += usize::from(*outcome == Outcome::Done),
                Event::Delivered { messages, .. } => {
                    tally.deliveries.0 += messages.len();
                    tally.deliveries.1 += messages.iter().filter(|m| m.prefill).count();
                }
                Event::Acknowledged { outcome, .. } => {
                    tally.acknowledgements.0 += 1;
                    tally.acknowledgements.1 += usize::from(*outcome == Outcome::Unknown);
                }
                Event::Fault { .. } => tally.faults += 1,
                Event::Removed { .. } | Event::Drained { .. } | Event::Unexpected { .. } => {}
            }
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} changes, {} posts ({} unknown), {} registrations, {} prefills asked again, {} deliveries ({} of \
             prefills), {} acknowledgements ({} unknown), {} faults",
            self.changes,
            self.posts.0,
            self.posts.1,
            self.registrations,
            self.asked,
            self.deliveries.0,
            self.deliveries.1,
            self.acknowledgements.0,
            self.acknowledgements.1,
            self.faults
        )
    }
}
