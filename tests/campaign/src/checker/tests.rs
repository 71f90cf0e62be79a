//! Hand-made histories, good and bad, for each promise.

use super::{Promise, Rules, Violation};
use crate::history::{Event, Life, Message, Outcome, Record};
use Outcome::{Already, Done, Missing, Unknown};
use Promise::*;

fn check(records: &[Record], ended: bool) -> Vec<Violation> {
    super::check(records, Rules::default(), ended)
}

/// A history in the making: each step takes ten units of time.
#[derive(Clone, Default)]
pub(super) struct Story {
    pub records: Vec<Record>,
    pub now: u64,
    number: u64,
    pub life: u32,
    /// Of the objects that are changed.
    pub shade: &'static str,
}

pub(super) const USERS: &str = "users/user";
pub(super) const GROUPS: &str = "groups/group";

impl Story {
    pub(super) fn step(self, event: Event) -> Self {
        let (start, end) = (self.now + 1, self.now + 9);
        self.at(start, end, event)
    }

    /// One that takes its time, beside others.
    pub(super) fn at(mut self, start: u64, end: u64, event: Event) -> Self {
        self.records.push(Record { start, end, event });
        self.records.sort_by_key(|record| record.end);
        self.now = self.now.max(start / 10 * 10 + 10);
        self
    }

    pub(super) fn life(&self) -> Life {
        Life { consumer: "c".to_owned(), life: self.life }
    }

    pub(super) fn change(mut self, object: &str, version: u64, present: bool, moved: bool) -> Self {
        self.number += 1;
        let topic = if object.starts_with('g') { GROUPS } else { USERS }.to_owned();
        let (number, object) = (self.number, object.to_owned());
        let (shade, place) = (self.shade.to_owned(), 0);
        self.step(Event::Changed { number, object, topic, version, present, moved, shade, place })
    }

    /// A change and its event.
    pub(super) fn event(self, object: &str, version: u64) -> Self {
        self.change(object, version, true, false).post(Done)
    }

    pub(super) fn post(self, outcome: Outcome) -> Self {
        let number = self.number;
        self.step(Event::Posted { number, outcome })
    }

    pub(super) fn register(mut self, prefill: bool) -> Self {
        self.life += 1;
        let (life, topics) = (self.life(), topics());
        self.step(Event::Registered { life, topics, prefill, selection: None, outcome: Done })
    }

    pub(super) fn remove(self) -> Self {
        self.remove_as(Done)
    }

    pub(super) fn remove_as(self, outcome: Outcome) -> Self {
        let life = self.life();
        self.step(Event::Removed { life, outcome })
    }

    pub(super) fn register_as(mut self, outcome: Outcome) -> Self {
        self.life += 1;
        self.register_again(outcome)
    }

    pub(super) fn register_again(self, outcome: Outcome) -> Self {
        let (life, topics) = (self.life(), topics());
        self.step(Event::Registered { life, topics, prefill: false, selection: None, outcome })
    }

    /// A registration with a prefill that takes its time.
    pub(super) fn registering(mut self, start: u64, end: u64) -> Self {
        self.life += 1;
        let (life, topics) = (self.life(), topics());
        let event = Event::Registered { life, topics, prefill: true, selection: None, outcome: Done };
        self.at(start, end, event)
    }

    /// The same without.
    pub(super) fn registering_plainly(mut self, start: u64, end: u64) -> Self {
        self.life += 1;
        let (life, topics) = (self.life(), topics());
        let event = Event::Registered { life, topics, prefill: false, selection: None, outcome: Done };
        self.at(start, end, event)
    }

    /// A request for a prefill that takes its time.
    pub(super) fn asking(self, start: u64, end: u64) -> Self {
        let life = self.life();
        self.at(start, end, Event::Asked { life, resync: false, dry_run: false, brake: false, outcome: Done })
    }

    /// An object gets another DN in the middle of something else.
    pub(super) fn moved(mut self, at: u64, object: &str, version: u64) -> Self {
        let now = self.now;
        self.now = at;
        self = self.change(object, version, true, true).post(Done);
        self.now = now.max(at + 20);
        self
    }

    /// A message to another consumer, which is there from the beginning.
    pub(super) fn other(mut self, message: Message) -> Self {
        let life = Life { consumer: "other".to_owned(), life: 1 };
        if !self.records.iter().any(|record| super::life_of(&record.event) == Some(&life)) {
            let (life, topics) = (life.clone(), topics());
            let event = Event::Registered { life, topics, prefill: false, selection: None, outcome: Done };
            // When the first one registers.
            self.records.push(Record { start: 61, end: 62, event });
            self.records.sort_by_key(|record| record.end);
            let event =
                Event::Removed { life: Life { consumer: "other".to_owned(), life: 1 }, outcome: Done };
            self.records.push(Record { start: 900_000, end: 900_000, event });
        }
        let through = message.sequence;
        let delivered = Event::Delivered { life: life.clone(), from_head: true, messages: vec![message] };
        self.step(delivered).step(Event::Acknowledged { life, through, outcome: Done })
    }

    pub(super) fn ask(self, outcome: Outcome) -> Self {
        let life = self.life();
        self.step(Event::Asked { life, resync: false, dry_run: false, brake: false, outcome })
    }

    pub(super) fn deliver(self, messages: Vec<Message>) -> Self {
        let life = self.life();
        self.step(Event::Delivered { life, from_head: true, messages })
    }

    /// A stream goes on.
    pub(super) fn go_on(self, messages: Vec<Message>) -> Self {
        let life = self.life();
        self.step(Event::Delivered { life, from_head: false, messages })
    }

    pub(super) fn ack(self, through: u64, outcome: Outcome) -> Self {
        let life = self.life();
        self.step(Event::Acknowledged { life, through, outcome })
    }

    /// A message that is delivered and acknowledged.
    pub(super) fn read(self, message: Message) -> Self {
        let sequence = message.sequence;
        self.deliver(vec![message]).ack(sequence, Done)
    }

    pub(super) fn drained(self) -> Self {
        let life = self.life();
        self.step(Event::Drained { life })
    }

    /// The promises that it breaks, each once, in order.
    pub(super) fn breaks(&self) -> Vec<Promise> {
        let mut found: Vec<Promise> = check(&self.records, true).iter().map(|v| v.promise).collect();
        found.sort();
        found.dedup();
        found
    }

    #[track_caller]
    pub(super) fn is(self, expected: &[Promise]) {
        assert_eq!(self.breaks(), expected, "{:#?}", check(&self.records, true));
    }
}

fn topics() -> Vec<String> {
    vec![GROUPS.to_owned(), USERS.to_owned()]
}

fn message(sequence: u64, object: &str, version: u64, number: u64, prefill: bool) -> Message {
    let topic = if object.starts_with('g') { GROUPS } else { USERS }.to_owned();
    Message {
        sequence,
        prefill,
        topic,
        object: object.to_owned(),
        version,
        number,
        deleted: false,
        after: false,
        shade: None,
    }
}

pub(super) fn live(sequence: u64, object: &str, version: u64, number: u64) -> Message {
    message(sequence, object, version, number, false)
}

pub(super) fn prefill(sequence: u64, object: &str, version: u64) -> Message {
    message(sequence, object, version, 0, true)
}

/// A directory of two users and a group; events 1 to 3 came before anybody registered.
pub(super) fn directory() -> Story {
    Story::default().event("u1", 1).event("u2", 1).event("g1", 1)
}

/// All of it was read as the first prefill.
pub(super) fn prefilled() -> Story {
    let story = directory().register(true);
    story.read(prefill(3, "g1", 1)).read(prefill(4, "u1", 1)).read(prefill(5, "u2", 1))
}

#[test]
fn a_good_life() {
    prefilled().event("u1", 2).read(live(6, "u1", 2, 4)).drained().is(&[]);
    directory().register(false).event("u1", 2).read(live(6, "u1", 2, 4)).drained().is(&[]);
    // Posted before the registration was answered: it may come or not.
    let early = directory().change("u1", 2, true, false).post(Done).register(false).drained();
    early.is(&[]);
}

#[test]
fn no_event_is_missing() {
    let story = directory().register(false).event("u1", 2).event("u2", 2);
    story.clone().read(live(7, "u2", 2, 5)).drained().is(&[EventMissing]);
    story.clone().read(live(6, "u1", 2, 4)).drained().is(&[EventMissing]);
    story.read(live(6, "u1", 2, 4)).read(live(7, "u2", 2, 5)).drained().is(&[]);
    // Also in a life that was removed before it was drained.
    let removed =
        directory().register(false).event("u1", 2).event("u2", 2).read(live(7, "u2", 2, 5)).remove();
    removed.is(&[EventMissing]);
}

#[test]
fn no_object_is_missing_in_a_prefill() {
    let start = directory().register(true).read(prefill(3, "g1", 1)).read(prefill(4, "u1", 1));
    start.clone().event("u1", 2).read(live(6, "u1", 2, 4)).drained().is(&[ObjectMissing, PictureDiffers]);
    start.drained().is(&[ObjectMissing, PictureDiffers]);
    // One that is moved or deleted meanwhile may be missing: its event says the rest.
    let story = directory().register(true).change("u2", 2, true, true).post(Done);
    let story = story.read(prefill(3, "g1", 1)).read(prefill(4, "u1", 1)).read(live(5, "u2", 2, 4));
    story.drained().is(&[]);
}

#[test]
fn a_prefill_is_not_outdated() {
    let story = directory().event("u1", 2).register(true).read(prefill(3, "g1", 1));
    let old = story.clone().read(prefill(4, "u1", 1)).read(prefill(5, "u2", 1));
    assert!(old.event("u2", 2).read(live(6, "u2", 2, 5)).breaks().contains(&PrefillOutdated));
    let never = story.clone().read(prefill(4, "u1", 3)).read(prefill(5, "u2", 1));
    assert!(never.event("u2", 2).read(live(6, "u2", 2, 5)).breaks().contains(&PrefillOutdated));
    let good = story.read(prefill(4, "u1", 2)).read(prefill(5, "u2", 1));
    good.event("u2", 2).read(live(6, "u2", 2, 5)).drained().is(&[]);
}

#[test]
fn a_prefill_is_in_order_and_comes_once() {
    let story = directory().register(true).event("u1", 2);
    let last = live(9, "u1", 2, 4);
    let topics = story.clone().read(prefill(3, "u1", 2)).read(prefill(4, "u2", 1)).read(prefill(5, "g1", 1));
    assert!(topics.read(last.clone()).breaks().contains(&PrefillOrder));
    let twice = story.read(prefill(3, "g1", 1)).read(prefill(4, "u1", 1)).read(prefill(5, "u1", 1));
    assert!(twice.read(prefill(6, "u2", 1)).read(last).breaks().contains(&PrefillOrder));
    let again = prefilled().event("u1", 2).read(live(6, "u1", 2, 4)).read(prefill(7, "u1", 2)).drained();
    again.is(&[PrefillUnasked]);
}

#[test]
fn live_comes_after_its_prefill() {
    let story = directory().register(true).event("u1", 2);
    assert!(story.read(live(6, "u1", 2, 4)).breaks().contains(&LiveBeforePrefill));
    let again = prefilled().event("u1", 2).read(live(6, "u1", 2, 4)).ask(Done).event("u1", 3);
    assert!(again.clone().read(live(9, "u1", 3, 5)).breaks().contains(&LiveBeforePrefill));
    let whole = again.read(prefill(7, "g1", 1)).read(prefill(8, "u2", 1)).read(prefill(10, "u1", 3));
    whole.read(live(9, "u1", 3, 5)).drained().is(&[]);
    // The first try was before it was asked for, and may have been accepted then.
    let early =
        prefilled().event("u2", 2).read(live(6, "u2", 2, 4)).change("u1", 2, true, false).post(Unknown);
    let early = early.ask(Done).post(Done).read(live(7, "u1", 2, 5)).read(prefill(8, "g1", 1));
    let early = early.read(prefill(9, "u2", 2)).read(prefill(10, "u1", 2)).read(live(11, "u1", 2, 5));
    early.drained().is(&[]);
    let batch = directory().register(true).event("u1", 2);
    let all = vec![prefill(3, "g1", 1), prefill(4, "u2", 1), prefill(5, "u1", 2), live(6, "u1", 2, 4)];
    assert!(batch.deliver(all).ack(6, Done).breaks().contains(&LiveBeforePrefill));
}

#[test]
fn asked_again() {
    let waiting = prefilled().event("u1", 2).ask(Done);
    // What waited comes first, then the new prefill, then what was posted after the answer.
    let good = waiting.clone().read(live(6, "u1", 2, 4)).event("u2", 2);
    let good = good.read(prefill(8, "g1", 1)).read(prefill(9, "u1", 2)).read(prefill(10, "u2", 2));
    good.clone().read(live(7, "u2", 2, 5)).drained().is(&[]);
    // Not the new prefill at all.
    let none = waiting.read(live(6, "u1", 2, 4)).drained();
    none.is(&[ObjectMissing]);
    // What is unread of the old one is dropped.
    let partly = directory().register(true).deliver(vec![prefill(3, "g1", 1)]).ask(Done).event("u1", 2);
    let partly = partly.read(prefill(8, "g1", 1)).read(prefill(9, "u2", 1)).read(prefill(10, "u1", 2));
    partly.read(live(7, "u1", 2, 4)).drained().is(&[]);
    // Nobody knows whether it was begun: both are fine.
    let unknown = prefilled().ask(Unknown).ask(Already).event("u1", 2);
    unknown.clone().read(live(6, "u1", 2, 4)).drained().is(&[]);
    let begun = unknown.read(prefill(8, "g1", 1)).read(prefill(9, "u2", 1)).read(prefill(10, "u1", 2));
    begun.read(live(6, "u1", 2, 4)).drained().is(&[]);
}

#[test]
fn what_was_read_of_a_dropped_prefill_is_told_apart() {
    // u1 was read of the old one and has changed since, so the new one has another order: u2, u1.
    let story = directory().register(true).read(prefill(3, "g1", 1)).read(prefill(4, "u1", 1));
    let story = story.event("u1", 2).ask(Done).event("u2", 2);
    for first in [None, Some(live(6, "u1", 2, 4))] {
        let mut good = story.clone();
        if let Some(message) = first {
            good = good.read(message);
        }
        let good = good.read(prefill(8, "g1", 1)).read(prefill(9, "u2", 2)).read(prefill(10, "u1", 2));
        let whole = good.read(live(7, "u2", 2, 5)).drained();
        assert!(!whole.breaks().iter().any(|p| *p != EventMissing), "{:?}", check(&whole.records, true));
    }
}

#[test]
fn several_prefills_in_a_row_are_dropped_before_they_are_read() {
    let mut story = directory().register(true).read(prefill(3, "g1", 1)).read(prefill(4, "u1", 1));
    for round in 1..4 {
        let number = 3 + round;
        story = story.ask(Done).event("u1", 1 + round);
        if round > 1 {
            story = story.read(live(10 * round - 1, "u1", round, number - 1));
        }
        story = story.read(prefill(10 * round, "g1", 1)).read(prefill(10 * round + 1, "u1", 1 + round));
    }
    story.read(prefill(32, "u2", 1)).read(live(33, "u1", 4, 6)).drained().is(&[]);
}

#[test]
fn what_is_deleted_between_a_dropped_prefill_and_the_new_one_may_be_missing() {
    // u0 was read of the old one, so nothing tells it from the new one's beginning.
    let story = Story::default().event("u0", 1).event("u1", 1).event("u2", 1).register(true);
    let story = story.read(prefill(3, "u0", 1)).ask(Done).change("u0", 2, false, false).post(Done);
    let story = story.change("u2", 2, false, false).post(Done).read(prefill(8, "u1", 1)).event("u1", 2);
    let gone = |sequence, object, number| Message { deleted: true, ..live(sequence, object, 2, number) };
    story.read(gone(4, "u0", 4)).read(gone(5, "u2", 5)).read(live(9, "u1", 2, 6)).drained().is(&[]);
}

#[test]
fn an_overtaken_prefill_does_not_come_with_the_new_one() {
    // The new prefill lacks what the old one had: a late purge, or a writer that was overtaken.
    let story = prefilled().event("u1", 2).read(live(6, "u1", 2, 4)).ask(Done).event("u2", 2);
    let story = story.read(prefill(8, "g1", 1)).read(prefill(9, "u1", 1)).read(prefill(10, "u2", 2));
    assert!(!story.read(live(7, "u2", 2, 5)).breaks().is_empty());
}

#[test]
fn live_messages_are_in_order() {
    let story = directory().register(false).event("u1", 2).event("u2", 2);
    let wrong = story.clone().read(live(6, "u1", 2, 4)).read(live(7, "u2", 2, 5)).read(live(8, "u1", 2, 4));
    assert!(wrong.breaks().contains(&LiveOrder));
    let twice = story.read(live(6, "u1", 2, 4)).read(live(7, "u1", 2, 4)).read(live(8, "u2", 2, 5)).drained();
    twice.is(&[LiveOrder]);
    let unknown = directory().register(false).change("u1", 2, true, false).post(Unknown).post(Done);
    let unknown = unknown.read(live(6, "u1", 2, 4)).read(live(7, "u1", 2, 4));
    unknown.clone().drained().is(&[]);
    unknown.read(live(8, "u1", 2, 4)).drained().is(&[LiveOrder]);
}

#[test]
fn acknowledged_is_gone_for_good() {
    let story = directory().register(false).event("u1", 2).event("u2", 2).read(live(6, "u1", 2, 4));
    let rest = |story: Story| story.read(live(7, "u2", 2, 5)).drained();
    rest(story.clone().deliver(vec![live(6, "u1", 2, 4)])).is(&[AcknowledgedAgain, LostUnacknowledged]);
    // The outcome was unknown: it may come again, and then 404 is fine.
    let story = directory().register(false).event("u1", 2).event("u2", 2).deliver(vec![live(6, "u1", 2, 4)]);
    let again = story.clone().ack(6, Unknown).deliver(vec![live(6, "u1", 2, 4)]);
    rest(again.clone().ack(6, Missing)).is(&[]);
    rest(again.ack(6, Done)).is(&[]);
    rest(story.clone().ack(6, Unknown)).is(&[]);
    // Then it has been carried out.
    let late = story.clone().ack(6, Unknown).read(live(7, "u2", 2, 5)).deliver(vec![live(6, "u1", 2, 4)]);
    late.drained().is(&[AcknowledgedAgain]);
    rest(story.ack(6, Missing)).is(&[LostUnacknowledged]);
}

#[test]
fn what_is_not_acknowledged_stays() {
    let story = directory().register(false).event("u1", 2).event("u2", 2);
    let (first, second) = (live(6, "u1", 2, 4), live(7, "u2", 2, 5));
    let lost = story.clone().deliver(vec![first.clone()]).read(second.clone());
    lost.drained().is(&[LostUnacknowledged]);
    let again = story.clone().deliver(vec![first.clone()]).deliver(vec![first.clone()]).ack(6, Done);
    again.read(second.clone()).drained().is(&[]);
    // A batch, half of it acknowledged: the rest comes again as the head.
    let both = vec![first, second.clone()];
    let half = story.clone().deliver(both.clone()).ack(6, Done).deliver(vec![second.clone()]).ack(7, Done);
    half.drained().is(&[]);
    let whole = story.deliver(both.clone()).deliver(both).ack(7, Done).drained();
    whole.is(&[]);
}

#[test]
fn lives_are_apart() {
    let story = directory().register(false).event("u1", 2).read(live(6, "u1", 2, 4)).remove();
    story.clone().register(false).event("u1", 3).read(live(20, "u1", 3, 5)).drained().is(&[]);
    story.clone().register(false).event("u1", 3).read(live(6, "u1", 3, 5)).drained().is(&[Foreign]);
    let former = story.register(false).read(live(19, "u1", 2, 4)).event("u1", 3);
    former.read(live(20, "u1", 3, 5)).drained().is(&[Foreign]);
}

#[test]
fn the_last_picture_is_the_directory() {
    // A deletion that came before the prefill's copy of the same object.
    let story = prefilled().ask(Done).change("u1", 2, false, false).post(Done);
    let gone = Message { deleted: true, ..live(6, "u1", 2, 4) };
    let story = story.read(prefill(8, "g1", 1)).read(prefill(9, "u2", 1));
    story.clone().read(gone).drained().is(&[]);
    let wrong = Message { deleted: false, ..live(6, "u1", 2, 4) };
    story.read(wrong).drained().is(&[PictureDiffers]);
}

#[test]
fn a_queue_that_stops_and_answers_that_nobody_explains() {
    directory().register(false).event("u1", 2).is(&[Stopped]);
    let story = directory().register(false);
    let life = story.life();
    story.step(Event::Unexpected { life, what: "500".to_owned() }).drained().is(&[Unexpected]);
}

#[test]
fn a_stream_that_begins_anew_goes_through_what_is_pending_in_portions() {
    let story = directory().register(false).event("u1", 2).event("u2", 2).event("u1", 3);
    let (first, second, third) = (live(6, "u1", 2, 4), live(7, "u2", 2, 5), live(8, "u1", 3, 6));
    let all = vec![first.clone(), second.clone(), third.clone()];
    // The client has forgotten everything.
    let anew = story.deliver(all).deliver(vec![first]);
    let whole = anew.clone().ack(6, Done).go_on(vec![second]).go_on(vec![third.clone()]).ack(8, Done);
    whole.drained().is(&[]);
    let gap = anew.ack(6, Done).go_on(vec![third]).ack(8, Done).drained();
    assert!(gap.breaks().contains(&LostUnacknowledged));
}
