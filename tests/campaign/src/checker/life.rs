//! One life of a subscription: its records in order, and what they break.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

use super::{
    Promise, Rules, Violation,
    directory::{Change, Posted, World},
    health::Health,
    queue::{New, Window},
    seam::{Round, Seam},
    wanted::Wanted,
};
use kept_back::Pausing;

use crate::history::{Event, Life, Message, Moment, Outcome, Record};

mod kept_back;
mod picture;

/// What came of the check.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub violations: Vec<Violation>,
    /// Lowest number that was delivered, and when: of live messages, and of those of prefills. Numbers of live messages
    /// are places in the log of all.
    pub lowest: [Option<(u64, Moment)>; 2],
    /// Highest number of each that was used.
    pub highest: [u64; 2],
    /// How often each event came that surely did not have to be left out, of those before the last one.
    pub times: BTreeMap<u64, usize>,
    /// When the registration was answered.
    pub registered: Option<Moment>,
    /// Prefills that were surely whole.
    pub prefills: usize,
    /// The longest time between the acceptance of an event and its delivery.
    pub longest: Moment,
}

/// Most violations told of one life: after a first one the others mostly follow from it.
const TOLD: usize = 8;
/// So long an event may take from its acceptance, while all is well that it needs. Others may use the machine.
const COPIED_WITHIN: Moment = 20_000_000;
/// So long a prefill may take, of which all was well for the last half.
const FILLED_WITHIN: Moment = 90_000_000;

/// An object as the consumer knows it.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Version of the last message, which may be older than the highest at a seam.
    version: u64,
    /// The highest version that came.
    highest: u64,
    /// The highest that a prefill held.
    filled: u64,
    deleted: bool,
    /// Was it ever told as there?
    told: bool,
    /// A consumer that lost what came would still have it: a resync was asked for, and has not told of it.
    stale: bool,
}

struct Check<'a> {
    world: &'a World,
    health: &'a Health,
    rules: Rules,
    life: &'a Life,
    wanted: Wanted,
    /// Topics that were not wanted all the time: what is known of their objects is not known to be all.
    unsteady: BTreeSet<String>,
    prefill: bool,
    selects: bool,
    /// Start of the first try to register, and when it was answered.
    registering: Moment,
    registered: Option<Moment>,
    window: Window,
    seam: Seam,
    pausing: Pausing,
    /// When the last password was answered for.
    password: Option<Moment>,
    /// Number of the last live message, and how often its event came.
    live: (u64, usize),
    picture: BTreeMap<String, Known>,
    /// Tries to register, remove or ask, whose outcome is unknown, since the last one that was answered.
    open: usize,
    checked: Checked,
}

/// Checks the records of one life, in the order of their ends.
pub(super) fn check(
    world: &World,
    health: &Health,
    rules: Rules,
    life: &Life,
    records: &[&Record],
    ended: bool,
) -> Checked {
    let selection = records.iter().find_map(|record| match &record.event {
        Event::Registered { selection, .. } => selection.as_ref(),
        _ => None,
    });
    let selected = selection.map(|selection| world.selected(selection));
    let mut check = Check {
        world: selected.as_ref().unwrap_or(world),
        health,
        rules,
        life,
        wanted: Wanted::default(),
        unsteady: BTreeSet::new(),
        prefill: false,
        selects: selected.is_some(),
        registering: Moment::MAX,
        registered: None,
        window: Window::default(),
        seam: Seam::default(),
        pausing: Pausing::default(),
        password: None,
        live: (0, 0),
        picture: BTreeMap::new(),
        open: 0,
        checked: Checked::default(),
    };
    let (mut drained, mut removed) = (false, false);
    for record in records {
        if let Event::Removed { outcome, .. } = &record.event {
            removed |= matches!(outcome, Outcome::Done | Outcome::Missing);
        }
        drained |= matches!(record.event, Event::Drained { .. });
        check.record(record);
    }
    let at = records.last().map_or(0, |record| record.end);
    if drained {
        check.finish(at);
    } else if ended && !removed {
        let last = check.live.0;
        check.complain(at, Promise::Stopped, format!("the last event did not come; the last one was {last}"));
    }
    check.so_far(at);
    check.checked.violations.truncate(TOLD);
    check.checked.registered = check.registered;
    check.checked.prefills = check.seam.checked;
    check.checked
}

impl Check<'_> {
    fn record(&mut self, record: &Record) {
        let Record { start, end, event } = record;
        let (start, end) = (*start, *end);
        match event {
            Event::Registered { topics, prefill, outcome, .. } => {
                if self.registering == Moment::MAX {
                    self.registering = start;
                    self.prefill = *prefill;
                }
                self.only_again(*outcome, Outcome::Already, end, "registered although it was removed before");
                if *outcome != Outcome::Unknown && self.registered.is_none() {
                    self.registered = Some(end);
                    self.wanted.change(0, Some(end), topics);
                    self.seam.begin(self.registering, end, *prefill);
                }
            }
            // Refused: only a try before can have taken effect.
            Event::Topics { outcome: Outcome::Missing | Outcome::Refused, .. } => {}
            Event::Topics { topics, outcome, .. } => {
                let answered = matches!(outcome, Outcome::Done | Outcome::Already).then_some(end);
                let before = self.wanted.always(0, Moment::MAX);
                let all = topics.iter().chain(&before);
                let new = all.filter(|topic| !(topics.contains(topic) && before.contains(topic)));
                self.unsteady.extend(new.cloned().collect::<Vec<_>>());
                self.wanted.change(start, answered, topics);
            }
            Event::Asked { outcome, resync, dry_run, brake, .. } => {
                let answered = (*outcome == Outcome::Done).then_some(end);
                let (resync, silent, brake) = (*resync, *dry_run, *brake);
                self.ask(*outcome, Round { start, answered, resync, silent, brake, ..Round::default() }, end);
            }
            Event::Cancelled { outcome: Outcome::Done, .. } => self.seam.cancel(end),
            Event::Paused { outcome, .. } => self.paused(*outcome, (start, end)),
            Event::Waits { .. } => self.pausing.waits = Some(end),
            Event::Resumed { outcome, .. } => self.resumed(*outcome, (start, end)),
            Event::Password { outcome: Outcome::Done, .. } => self.password = Some(end),
            Event::LoggedIn { former, outcome, .. } => self.logged_in(*former, *outcome, (start, end)),
            Event::Letters { large, .. } => self.letters(large, end),
            Event::Delivered { from_head, messages, .. } => {
                if *from_head && messages.iter().any(|message| message.prefill) {
                    self.while_paused("a prefill is read", (start, end));
                }
                self.delivered(*from_head, messages, (start, end));
            }
            Event::Empty { .. } => self.empty(start, end),
            Event::Acknowledged { through, outcome, .. } => {
                let dropped = self.seam.dropped(end);
                if let Some((promise, text)) = self.window.acknowledge(*through, *outcome, dropped) {
                    self.complain(end, promise, text);
                }
            }
            Event::Unexpected { what, .. } => self.complain(end, Promise::Unexpected, what.clone()),
            Event::Removed { outcome, .. } => {
                self.only_again(*outcome, Outcome::Missing, end, "gone before it was removed");
            }
            Event::Used { highest, .. } => {
                self.checked.highest = self.checked.highest.map(|known| known.max(*highest));
            }
            _ => {}
        }
    }

    /// An outcome that only a try before, whose outcome is unknown, can explain.
    fn only_again(&mut self, outcome: Outcome, again: Outcome, at: Moment, text: &str) {
        if outcome == Outcome::Unknown {
            self.open += 1;
            return;
        }
        if outcome == again && self.open == 0 {
            self.complain(at, Promise::Unexpected, text.to_owned());
        }
        self.open = 0;
    }

    /// Each try that was not answered may have begun a round, and a later try another one, if the first was done by
    /// then. 200: none was begun, since one is pending or running.
    fn ask(&mut self, outcome: Outcome, round: Round, end: Moment) {
        match outcome {
            Outcome::Done | Outcome::Unknown => self.seam.ask(round),
            Outcome::Already if !self.seam.can_be_open(round.start) => {
                let text = "asked for a prefill, and was answered that one is under way";
                self.complain(end, Promise::Unexpected, text.to_owned());
            }
            Outcome::Already | Outcome::Missing | Outcome::Refused => {}
        }
        // Where UDM may lag behind the events, nothing counts as gone that an event named within the last minutes.
        if round.resync && !round.silent && outcome == Outcome::Done && self.rules.leaves_out {
            self.picture.values_mut().for_each(|known| known.stale = known.told);
        }
    }

    fn delivered(&mut self, from_head: bool, messages: &[Message], when: (Moment, Moment)) {
        let dropped = self.seam.dropped(when.1);
        let (new, complaints) = self.window.deliver(from_head, dropped, messages);
        for (promise, text) in complaints {
            self.complain(when.1, promise, text);
        }
        if messages.iter().any(|m| m.prefill) && messages.iter().any(|m| !m.prefill) && from_head {
            self.complain(when.1, Promise::LiveBeforePrefill, "prefill and live in one batch".to_owned());
        }
        for New { message, unread } in new {
            let sequence = message.sequence;
            let kind = usize::from(message.prefill);
            let (highest, lowest) = (&mut self.checked.highest[kind], &mut self.checked.lowest[kind]);
            *highest = sequence.max(*highest);
            if lowest.is_none_or(|(lowest, _)| sequence < lowest) {
                *lowest = Some((sequence, when.1));
            }
            if message.prefill { self.filled(message, when) } else { self.came(message, unread, when) }
        }
    }

    /// A message of a prefill.
    fn filled(&mut self, message: &Message, (start, end): (Moment, Moment)) {
        if !message.topic.is_empty() && !self.wanted.perhaps(&message.topic, 0, end) {
            self.complain(end, Promise::Foreign, format!("{} was not asked for", message.topic));
        }
        if let Some((promise, text)) = self.seam.prefill(self.world, &self.wanted, message, (start, end)) {
            self.complain(end, promise, text);
        }
        let object = &message.object;
        let shade = self.world.changes(object).find(|change| change.version == message.version);
        let shade = shade.map(|change| change.shade.clone()).unwrap_or_default();
        self.looks_as(message, &shade, end);
        // A resync tells of what went before it was read, whatever of it was told.
        let went = self.world.changes(object).filter(|change| !change.present && change.start <= end).last();
        let went = went.map_or(0, |change| change.version);
        let known = self.picture.entry(object.clone()).or_default();
        known.stale = false;
        if message.deleted {
            known.deleted = true;
            known.version = went.max(known.version);
            return;
        }
        let (version, before) = (message.version, known.highest);
        let outdated = version < before || known.deleted && version == before;
        known.version = version;
        known.filled = version;
        known.highest = version.max(before);
        known.deleted = false;
        known.told = true;
        if outdated {
            let text = format!("{object} version {version} comes after version {before}");
            self.complain(end, Promise::PrefillOutdated, text);
        }
    }

    /// A live message.
    fn came(&mut self, message: &Message, unread: bool, (start, end): (Moment, Moment)) {
        let number = message.number;
        let Some(change) = self.world.change(number) else {
            self.complain(end, Promise::Foreign, format!("event {number} never was"));
            return;
        };
        // It may come before its own POST is answered, or tried again.
        let unposted =
            Posted { topic: message.topic.clone(), object: message.object.clone(), ..Posted::default() };
        let unposted = Posted { first: change.start, wanted: change.wanted, ..unposted };
        let posted = self.world.events.get(&number).unwrap_or(&unposted);
        let last = posted.accepted.map_or(end, |(_, end)| end);
        let early = posted.accepted.is_some_and(|(_, end)| end < self.registering) && posted.unknown == 0;
        if early || self.world.overtaken(number).is_some_and(|at| at < self.registering) {
            let text = format!("event {number} is from before this registration");
            self.complain(end, Promise::Foreign, text);
            return;
        }
        if !self.wanted.perhaps(&message.topic, posted.first, last) || !posted.wanted {
            let text = format!("event {number} ({}) was not asked for", message.topic);
            self.complain(end, Promise::Foreign, text);
        }
        if let Some((_, accepted)) = posted.accepted {
            self.checked.longest = self.checked.longest.max(start.saturating_sub(accepted));
        }
        let complaint = self.seam.live(self.world, &self.wanted, posted, unread, (start, end));
        if let Some((promise, text)) = complaint {
            self.complain(end, promise, text);
        }
        self.live_order(number, posted, end);
        if number < self.live.0 {
            return;
        }
        self.chain(&message.object, change.version, end);
        self.looks_as(message, &change.shade, end);
        let deleted = !change.present;
        if deleted != message.deleted {
            let word = if message.deleted { "told as gone" } else { "told as there" };
            self.complain(
                end,
                Promise::PictureDiffers,
                format!("{} of event {number} is {word}", message.object),
            );
        }
        let known = self.picture.entry(message.object.clone()).or_default();
        known.version = change.version;
        known.highest = known.highest.max(change.version);
        (known.deleted, known.stale) = (deleted, false);
        known.told |= !deleted;
    }

    /// What is told of an object is what it was made.
    fn looks_as(&mut self, message: &Message, shade: &str, end: Moment) {
        if !message.deleted && message.shade.as_deref().is_some_and(|told| told != shade) {
            let text = format!("{} has another content than it was given", message.object);
            self.complain(end, Promise::PictureDiffers, text);
        }
    }

    fn live_order(&mut self, number: u64, posted: &Posted, end: Moment) {
        let (last, times) = self.live;
        if number < last {
            self.complain(end, Promise::LiveOrder, format!("event {number} comes after event {last}"));
            return;
        }
        if number == last {
            let tries = posted.unknown;
            if times > tries {
                let text = format!("event {number} comes {} times, of {tries} unknown tries", times + 1);
                self.complain(end, Promise::LiveOrder, text);
            }
            self.live.1 += 1;
            return;
        }
        let former = self.world.events.get(&last);
        // What was wanted only for a part of the time may be there for a part of the tries.
        let wanted = |former: &Posted| self.wanted.surely(&former.topic, former.first, former.last());
        if former.is_some_and(|former| wanted(former) && !self.is_held(last, former)) {
            self.checked.times.insert(last, times);
        }
        self.missing(last, number, end);
        self.live = (number, 1);
    }

    /// What a prefill holds may be left out afterwards, also if nobody has read that prefill: the next one holds it, too.
    fn is_held(&self, number: u64, posted: &Posted) -> bool {
        let Some(change) = self.world.change(number).filter(|_| self.rules.leaves_out) else { return false };
        // What goes is not in a prefill, unless it has come back.
        let back = |later: &Change| later.present && later.version > change.version;
        let there = change.present || self.world.changes(&posted.object).any(back);
        let dropped = posted.first <= self.seam.skipped && there && !change.moved;
        dropped || self.picture.get(&posted.object).is_some_and(|k| k.filled >= change.version)
    }

    /// Must this event come?
    fn must(&self, number: u64, posted: &Posted) -> bool {
        let Some(registered) = self.registered else { return false };
        let due = |(start, _)| start >= registered || self.live.0 > 0 && self.live.0 < number;
        posted.wanted
            && posted.accepted.is_some_and(due)
            && self.wanted.surely(&posted.topic, posted.first, posted.last())
            && !self.is_held(number, posted)
    }

    /// Events that must have come between two others.
    fn missing(&mut self, after: u64, before: u64, end: Moment) {
        let between = self.world.events.range((Excluded(after), Excluded(before)));
        let missing: Vec<(&u64, &Posted)> = between.filter(|(n, posted)| self.must(**n, posted)).collect();
        if let Some((first, posted)) = missing.first() {
            let text = format!("{} events did not come, such as {first} ({})", missing.len(), posted.object);
            self.complain(end, Promise::EventMissing, text);
        }
    }

    /// There was nothing, although all was well for long enough.
    fn empty(&mut self, start: Moment, end: Moment) {
        if !self.window.is_empty() || self.registered.is_none() {
            return;
        }
        if self.seam.is_live() {
            let Some(from) = start.checked_sub(COPIED_WITHIN) else { return };
            if !self.health.copies(from, end) {
                return;
            }
            let later = self.world.events.range((Excluded(self.live.0), Unbounded));
            let mut due = later.filter(|(_, posted)| posted.accepted.is_some_and(|(_, at)| at <= from));
            if let Some((number, _)) = due.find(|(number, posted)| self.must(**number, posted)) {
                let text = format!(
                    "event {number} is not there {} s after it was accepted",
                    COPIED_WITHIN / 1_000_000
                );
                self.complain(end, Promise::Stopped, text);
            }
        } else if let Some(due) = self.seam.due_since()
            && let Some(due) = self.pausing.due(due)
            && due + FILLED_WITHIN <= start
            && self.health.fills(start - FILLED_WITHIN / 2, end)
        {
            let text =
                format!("a prefill is not there {} s after it was asked for", FILLED_WITHIN / 1_000_000);
            self.complain(end, Promise::Stopped, text);
        }
    }

    fn complain(&mut self, at: Moment, promise: Promise, text: String) {
        self.checked.violations.push(Violation { at, life: self.life.clone(), promise, text });
    }
}
