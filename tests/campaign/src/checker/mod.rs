//! The checker: from a history to the promises that it breaks. Pure; it knows what producer and consumers saw, and
//! nothing of streams, fences or attempts.
//!
//! For each *life* (a subscription from its registration to its removal):
//!
//! 1. **No hole.** An event whose accepted POST began after the registration was answered is delivered live, and from the
//!    first one on each. The versions of an object form a chain: none is left out between a prefill and live messages,
//!    and none among these. A prefill holds each object that was there from before it was asked for until its first
//!    message came, no older than it was when it was asked for, and than what came before. At the end the consumer's
//!    picture is the directory.
//! 2. **Order.** Live messages come in the order of the changes, the same one again only where its POST had an unknown
//!    outcome, and then as often in each life. A prefill comes in the order of the topics, each object once; live
//!    messages of its round come after it is acknowledged. After a prefill was asked for again, no event that was posted
//!    after the answer comes before the new prefill, and none that was accepted before comes after it.
//! 3. **Acknowledged is removed, and nothing else is.** A message comes again only as the head of what is not
//!    acknowledged. An acknowledgement of a message that is there finds it, and one of several takes all or none.
//! 4. **Lives are apart.** Numbers grow over the lives of a name, also those that were never delivered, and no event from
//!    before a life is delivered in it.
//! 5. **Paused is paused.** Once it was seen to wait, nothing of a prefill comes until it is resumed, nor does it end, if
//!    nobody is disturbed who could not have seen it.
//! 6. **Passwords.** From the answer on the new one is let in, and a second later the former one is not.
//! 7. **Dead letters.** What NATS does not carry is listed for each life that wants its topic.
//! 8. **Nothing stops.** An answer without messages is judged by what must be there when all was well for long enough;
//!    at the end each queue has delivered the last event in time.
//!
//! What the consumer can't see is not assumed: whether a request of unknown outcome was carried out, and which of
//! several prefills a message belongs to, is followed in all ways in which it may be (`seam`).

mod directory;
mod health;
#[cfg(test)]
mod holes;
#[cfg(test)]
mod kept_back;
mod life;
mod queue;
#[cfg(test)]
mod requests;
mod seam;
#[cfg(test)]
mod tests;
mod wanted;

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
    /// A prefill goes on while it is paused.
    PrefillPaused,
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
    /// A password is let in that does not count, or refused although it does.
    Password,
    /// An event that NATS does not carry is no dead letter.
    LetterMissing,
    /// An answer that no rule explains.
    Unexpected,
    /// Something is still in NATS that nobody needs any more.
    LeftOver,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Life { consumer, life } = &self.life;
        let (seconds, rest) = (self.at / 1_000_000, self.at / 1000 % 1000);
        write!(f, "{:?} at {seconds}.{rest:03} s, {consumer} life {life}: {}", self.promise, self.text)
    }
}

/// What the product was set up to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// UDM reads the directory's primary, so an event that a prefill surely holds is left out.
    pub leaves_out: bool,
}

/// Checks a whole history. `ended`: the run came to its end, so whoever has not drained has stopped.
#[must_use]
pub fn check(history: &[Record], rules: Rules, ended: bool) -> Vec<Violation> {
    judge(history, rules, ended).0
}

/// The same, with what was judged.
#[must_use]
pub fn judge(history: &[Record], rules: Rules, ended: bool) -> (Vec<Violation>, Judged) {
    let world = directory::World::new(history);
    let health = health::Health::new(history);
    let ended = ended || history.iter().any(|record| record.event == Event::Ended);
    let mut lives: BTreeMap<&Life, Vec<&Record>> = BTreeMap::new();
    for record in history {
        if let Some(life) = life_of(&record.event) {
            lives.entry(life).or_default().push(record);
        }
    }
    let (mut violations, mut judged) = (Vec::new(), Judged::default());
    let mut numbers: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    let mut all = Vec::new();
    for (life, mut records) in lives {
        records.sort_by_key(|record| record.end);
        let mut checked = life::check(&world, &health, rules, life, &records, ended);
        let former = numbers.entry(&life.consumer).or_default();
        for (kind, highest) in former.iter_mut().enumerate() {
            if let Some((lowest, at)) = checked.lowest[kind]
                && lowest <= *highest
            {
                let text = format!("number {lowest} comes although the former life had {highest}");
                checked.violations.push(Violation {
                    at,
                    life: life.clone(),
                    promise: Promise::Foreign,
                    text,
                });
            }
            *highest = checked.highest[kind].max(*highest);
        }
        judged.prefills += checked.prefills;
        judged.silent_lives += usize::from(checked.lowest == [None, None]);
        judged.longest = judged.longest.max(checked.longest);
        violations.append(&mut checked.violations);
        all.push((life, checked));
    }
    violations.extend(unlike(&world, &all, &mut judged));
    for record in history {
        if let Event::Left { what } = &record.event {
            let life = Life { consumer: "NATS".to_owned(), life: 0 };
            violations.push(Violation {
                at: record.end,
                life,
                promise: Promise::LeftOver,
                text: what.clone(),
            });
        }
    }
    violations.sort_by_key(|violation| violation.at);
    (violations, judged)
}

/// There is one log, so what is twice in it comes twice to all who are past it: one copy more, or less, in one queue is
/// the dispatcher's.
fn unlike(world: &directory::World, lives: &[(&Life, life::Checked)], judged: &mut Judged) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, posted) in world.events.iter().filter(|(_, posted)| posted.unknown > 0) {
        let there = lives.iter().filter(|(_, life)| life.registered.is_some_and(|at| at <= posted.first));
        let times: Vec<(&Life, usize)> =
            there.filter_map(|(life, checked)| Some((*life, *checked.times.get(number)?))).collect();
        judged.duplicates += usize::from(times.iter().any(|(_, times)| *times > 1));
        let Some(least) = times.iter().map(|(_, times)| *times).min() else { continue };
        if let Some((life, times)) = times.into_iter().find(|(_, times)| *times > least) {
            let text = format!("event {number} comes {times} times, and to another consumer {least} times");
            let at = posted.last().min(posted.first);
            violations.push(Violation { at, life: life.clone(), promise: Promise::LiveOrder, text });
        }
    }
    violations
}

/// How much was judged: a run that reached none of a kind proves nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Prefills that were surely found whole.
    pub prefills: usize,
    /// Lives without one delivery.
    pub silent_lives: usize,
    /// Events that are twice in the log.
    pub duplicates: usize,
    /// The longest time from the acceptance of an event to its delivery.
    pub longest: Moment,
}

fn life_of(event: &Event) -> Option<&Life> {
    match event {
        Event::Registered { life, .. }
        | Event::Asked { life, .. }
        | Event::Topics { life, .. }
        | Event::Cancelled { life, .. }
        | Event::Paused { life, .. }
        | Event::Waits { life }
        | Event::Resumed { life, .. }
        | Event::Password { life, .. }
        | Event::LoggedIn { life, .. }
        | Event::Letters { life, .. }
        | Event::Empty { life }
        | Event::Used { life, .. }
        | Event::Removed { life, .. }
        | Event::Delivered { life, .. }
        | Event::Acknowledged { life, .. }
        | Event::Drained { life }
        | Event::Unexpected { life, .. } => Some(life),
        _ => None,
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
                Event::Fault { over: false, .. } => tally.faults += 1,
                _ => {}
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
