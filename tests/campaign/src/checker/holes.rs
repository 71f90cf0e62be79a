//! Histories that break a promise in ways that are easily overlooked: each must be seen.

use super::{
    Promise::*,
    tests::{Story, directory, live, prefill, prefilled},
};
use crate::history::{
    Event, Message,
    Outcome::{Already, Done, Missing, Refused, Unknown},
};

/// A registration that lasts from 101 to 199, with a prefill.
fn long_registration() -> Story {
    let mut story = directory();
    story.now = 200;
    story.registering(101, 199)
}

impl Story {
    /// A change and its event in the middle of something else.
    fn meanwhile(mut self, at: u64, object: &str, version: u64) -> Self {
        let now = self.now;
        self.now = at;
        self = self.event(object, version);
        self.now = now.max(at + 20);
        self
    }

    /// All of the directory as a prefill, that of u1 with this version.
    pub(super) fn whole(self, from: u64, version: u64) -> Self {
        self.read(prefill(from, "g1", 1)).read(prefill(from + 1, "u1", version)).read(prefill(
            from + 2,
            "u2",
            1,
        ))
    }
}

#[test]
fn a_version_is_left_out_between_prefill_and_live() {
    // u1 was changed while it registered: the prefill does not have that, and it does not come.
    let story = long_registration().meanwhile(110, "u1", 2).whole(3, 1);
    let hole = story.clone().event("u1", 3).read(live(6, "u1", 3, 5));
    assert!(hole.clone().drained().breaks().contains(&EventMissing));
    assert!(hole.remove().breaks().contains(&EventMissing));
    story.read(live(6, "u1", 2, 4)).event("u1", 3).read(live(7, "u1", 3, 5)).drained().is(&[]);
}

#[test]
fn an_object_that_moved_is_in_neither_prefill_nor_live() {
    let moved = long_registration().moved(110, "u2", 2);
    let story = moved.read(prefill(3, "g1", 1)).read(prefill(4, "u1", 1));
    let lost = story.clone().event("u1", 2).read(live(6, "u1", 2, 5)).remove();
    assert!(lost.breaks().contains(&EventMissing));
    let skipped = story.clone().event("u2", 3).read(live(6, "u2", 3, 5)).remove();
    assert!(skipped.breaks().contains(&EventMissing));
    story.read(live(5, "u2", 2, 4)).event("u1", 2).read(live(6, "u1", 2, 5)).drained().is(&[]);
}

#[test]
fn an_object_that_was_made_meanwhile_is_in_neither_prefill_nor_live() {
    let story = long_registration().meanwhile(110, "u3", 1).whole(3, 1);
    let lost = story.clone().event("u3", 2).read(live(6, "u3", 2, 5)).event("u1", 2);
    assert!(lost.read(live(7, "u1", 2, 6)).remove().breaks().contains(&EventMissing));
    let never = story.event("u1", 2).read(live(6, "u1", 2, 5)).remove();
    assert!(never.breaks().contains(&EventMissing));
}

#[test]
fn a_prefill_is_older_than_what_came_before_it() {
    // The request lasts long; what is accepted meanwhile may be of the round before, and then the prefill holds it.
    let mut story = prefilled();
    let at = story.now;
    story.now = at + 100;
    let story = story.asking(at + 1, at + 99).meanwhile(at + 10, "u1", 2);
    let story = story.read(live(6, "u1", 2, 4));
    let old = story.clone().whole(8, 1).event("u1", 3).read(live(11, "u1", 3, 5));
    assert!(old.breaks().contains(&PrefillOutdated));
    story.whole(8, 2).event("u1", 3).read(live(11, "u1", 3, 5)).drained().is(&[]);
}

#[test]
fn a_prefill_brings_back_what_was_told_as_gone() {
    let mut story = prefilled();
    let at = story.now;
    story.now = at + 100;
    let mut story = story.asking(at + 1, at + 99);
    let now = story.now;
    story.now = at + 10;
    let mut story = story.change("u1", 2, false, false).post(Done);
    story.now = now;
    let story = story.read(Message { deleted: true, ..live(6, "u1", 2, 4) });
    let back = story.clone().whole(8, 1).remove();
    assert!(back.breaks().contains(&PrefillOutdated));
    story.read(prefill(8, "g1", 1)).read(prefill(9, "u2", 1)).drained().is(&[]);
}

#[test]
fn an_event_is_left_out_between_two_live_messages() {
    let mut story = directory();
    story.now = 200;
    let story = story.registering_plainly(101, 199);
    let story = story.meanwhile(110, "u1", 2).meanwhile(140, "u2", 2).event("u1", 3).event("u2", 3);
    let gap = story.clone().read(live(6, "u1", 2, 4)).read(live(7, "u1", 3, 6)).read(live(8, "u2", 3, 7));
    assert!(gap.drained().breaks().contains(&EventMissing));
    // Neither of the first two: then they were before the registration.
    story.read(live(7, "u1", 3, 6)).read(live(8, "u2", 3, 7)).drained().is(&[]);
}

#[test]
fn nothing_comes_although_all_is_well() {
    const SECOND: u64 = 1_000_000;
    let stalled = |trouble: Option<&str>| {
        let mut story = directory().register(false).event("u1", 2);
        story.now = 30 * SECOND;
        let target = trouble.map(str::to_owned);
        let story = story.step(Event::Fault { what: "stop".to_owned(), target, over: false });
        let life = story.life();
        let mut story = story.at(60 * SECOND, 61 * SECOND, Event::Empty { life });
        story.now = 62 * SECOND;
        story
    };
    stalled(None).read(live(6, "u1", 2, 4)).drained().is(&[Stopped]);
    stalled(None).remove().is(&[Stopped]);
    stalled(Some("dispatcher-0")).remove().is(&[Stopped]);
    stalled(Some("nats")).read(live(6, "u1", 2, 4)).drained().is(&[]);
    let prefill = |after: u64| {
        let story = directory().register(true);
        let life = story.life();
        let mut story = story.at(after * SECOND, (after + 1) * SECOND, Event::Empty { life });
        story.now = (after + 2) * SECOND;
        story
    };
    prefill(100).whole(3, 1).drained().is(&[Stopped]);
    prefill(50).whole(3, 1).drained().is(&[]);
}

#[test]
fn a_removal_that_is_not_answered_excuses_nothing() {
    let story = directory().register(false).event("u1", 2);
    let life = story.life();
    story.step(Event::Removed { life, outcome: Unknown }).is(&[Stopped]);
    let mut story = directory().register(false).event("u1", 2);
    let now = story.now;
    story.records.push(crate::history::Record { start: now, end: now, event: Event::Ended });
    assert_eq!(super::check(&story.records, super::Rules::default(), false).len(), 1);
}

#[test]
fn an_event_is_not_twice_for_one_of_two() {
    let twice = |other: usize, outcome| {
        let story = directory().register(false).change("u1", 2, true, false).post(outcome).post(Done);
        let mut story = story.event("u2", 2);
        for sequence in [6, 7] {
            story = story.read(live(sequence, "u1", 2, 4));
        }
        story = story.read(live(8, "u2", 2, 5)).drained();
        for sequence in 0..other {
            story = story.other(live(16 + sequence as u64, "u1", 2, 4));
        }
        story.other(live(18, "u2", 2, 5))
    };
    twice(2, Unknown).is(&[]);
    twice(1, Unknown).is(&[LiveOrder]);
    // Refused is not unknown: it can't be there twice.
    twice(2, Refused).is(&[LiveOrder]);
}

#[test]
fn a_request_of_unknown_outcome_does_not_excuse_a_lost_prefill() {
    let story = directory().register(true).read(prefill(3, "g1", 1)).ask(Unknown).ask(Already);
    let story = story.event("u1", 2).event("u2", 2);
    let lost = story.clone().read(live(6, "u1", 2, 4)).read(live(7, "u2", 2, 5)).drained();
    assert!(lost.breaks().contains(&ObjectMissing));
    // The first one went on, or another one began.
    let first = story.clone().read(prefill(4, "u1", 1)).read(prefill(5, "u2", 1));
    first.read(live(6, "u1", 2, 4)).read(live(7, "u2", 2, 5)).drained().is(&[]);
    let other = story.read(prefill(8, "g1", 1)).read(prefill(9, "u1", 2)).read(prefill(10, "u2", 2));
    other.read(live(11, "u1", 2, 4)).read(live(12, "u2", 2, 5)).drained().is(&[]);
}

#[test]
fn another_question_does_not_hide_a_live_message_before_its_prefill() {
    let story = prefilled().ask(Done).event("u1", 2).ask(Unknown).read(live(6, "u1", 2, 4)).ask(Already);
    assert!(!story.clone().drained().breaks().is_empty());
    story.whole(8, 2).drained().is(&[]);
}

#[test]
fn the_first_part_of_a_prefill_does_not_come_twice() {
    let story = prefilled().ask(Unknown).ask(Done);
    let twice = story.clone().read(prefill(8, "g1", 1)).read(prefill(9, "u1", 1)).whole(10, 1);
    assert!(!twice.drained().breaks().is_empty());
    story.whole(8, 1).drained().is(&[]);
}

#[test]
fn answers_mean_what_they_say() {
    let story = directory().register(false);
    story.clone().remove_as(Missing).is(&[Unexpected]);
    story.clone().remove_as(Unknown).remove_as(Missing).is(&[]);
    story.clone().remove().register_as(Already).drained().is(&[Unexpected]);
    story.remove().register_as(Unknown).register_again(Already).drained().is(&[]);
    prefilled().ask(Already).drained().is(&[Unexpected]);
    prefilled().ask(Done).ask(Already).whole(8, 1).drained().is(&[]);
}

#[test]
fn an_event_from_long_before_the_registration_does_not_come() {
    let story = directory().change("u1", 2, true, false).post(Unknown).post(Done);
    let story = story.event("u2", 2).event("u2", 3).register(false);
    story.clone().read(live(6, "u1", 2, 4)).drained().is(&[Foreign]);
    story.drained().is(&[]);
}

#[test]
fn an_acknowledgement_takes_all_or_nothing() {
    let story = directory().register(false).event("u1", 2).event("u2", 2);
    let (first, second) = (live(6, "u1", 2, 4), live(7, "u2", 2, 5));
    let story = story.deliver(vec![first.clone(), second.clone()]).ack(7, Unknown);
    story.clone().deliver(vec![second.clone()]).ack(7, Done).drained().is(&[LostUnacknowledged]);
    story.clone().deliver(vec![first, second]).ack(7, Done).drained().is(&[]);
    story.clone().drained().is(&[]);
    // Done once, and there was nothing to do.
    let twice = directory().register(false).event("u1", 2).read(live(6, "u1", 2, 4));
    twice.clone().ack(6, Done).drained().is(&[AcknowledgedAgain]);
    twice.clone().ack(6, Missing).drained().is(&[]);
    twice.ack(9, Done).drained().is(&[AcknowledgedAgain]);
}

#[test]
fn a_stream_waits_for_the_acknowledgement_of_a_prefill() {
    let story = directory().register(true).event("u1", 2);
    let story = story.deliver(vec![prefill(3, "g1", 1), prefill(4, "u1", 2)]);
    let early = story.clone().go_on(vec![prefill(5, "u2", 1), live(6, "u1", 2, 4)]).ack(6, Done);
    assert!(early.drained().breaks().contains(&LiveBeforePrefill));
    let good = story.go_on(vec![prefill(5, "u2", 1)]).ack(5, Done).go_on(vec![live(6, "u1", 2, 4)]);
    good.ack(6, Done).drained().is(&[]);
}

#[test]
fn numbers_that_were_used_and_not_delivered_do_not_come_again() {
    let story = directory().register(false).event("u1", 2).event("u2", 2).read(live(6, "u1", 2, 4));
    let life = story.life();
    let story = story.step(Event::Used { life, highest: 7 }).remove().register(false).event("u1", 3);
    story.clone().read(live(7, "u1", 3, 6)).drained().is(&[Foreign]);
    story.read(live(8, "u1", 3, 6)).drained().is(&[]);
    // Live messages and prefills have numbers of their own.
    let story = directory().register(false).event("u1", 2).read(live(90, "u1", 2, 4)).remove().register(true);
    story
        .clone()
        .read(prefill(7, "g1", 1))
        .read(prefill(8, "u1", 2))
        .read(prefill(9, "u2", 1))
        .drained()
        .is(&[]);
}

#[test]
fn what_is_left_in_nats_is_told() {
    let story = directory().register(false).drained();
    story.step(Event::Left { what: "a queue of nobody".to_owned() }).is(&[LeftOver]);
}

#[test]
fn what_was_accepted_before_a_question_comes_before_its_prefill() {
    let story = prefilled().event("u1", 2).ask(Done);
    let late = story.clone().whole(8, 2).read(live(6, "u1", 2, 4)).drained();
    assert!(late.breaks().contains(&LiveOrder));
    story.read(live(6, "u1", 2, 4)).whole(8, 2).drained().is(&[]);
}

#[test]
fn an_event_that_is_delivered_while_its_post_is_under_way_is_no_foreign_one() {
    // What is known so far, in the middle of a run.
    let story = directory().register(false).change("u1", 2, true, false);
    let story = story.step(Event::Posting { number: 4 }).read(live(6, "u1", 2, 4));
    assert!(super::check(&story.records, super::Rules::default(), false).is_empty());
}

#[test]
fn what_a_prefill_surely_holds_may_be_left_out() {
    let story = directory().register(true).event("u1", 2).event("u2", 2).event("u1", 3);
    let story = story.read(prefill(3, "g1", 1)).read(prefill(4, "u1", 3)).read(prefill(5, "u2", 1));
    let left_out = story.read(live(6, "u2", 2, 5)).drained();
    assert!(left_out.breaks().contains(&EventMissing));
    let rules = super::Rules { leaves_out: true };
    assert!(super::check(&left_out.records, rules, true).is_empty());
}

#[test]
fn what_a_dropped_prefill_surely_held_may_be_left_out_until_the_next_one() {
    // Nobody has read the first prefill, which held u1 as it was changed.
    let story = directory().register(true).event("u1", 2).event("u2", 2).ask(Done);
    let story = story.read(live(6, "u2", 2, 5)).event("u1", 3);
    let whole = story.clone().read(prefill(8, "g1", 1)).read(prefill(9, "u1", 2)).read(prefill(10, "u2", 2));
    let left_out = whole.read(live(11, "u1", 3, 6)).drained();
    assert!(left_out.breaks().contains(&EventMissing));
    let rules = super::Rules { leaves_out: true };
    assert_eq!(super::check(&left_out.records, rules, true), []);
    // It held u1 after it had gone and come back, too; but where it stays away, no prefill holds that.
    for back in [true, false] {
        let story = directory().register(true).change("u1", 2, false, false).post(Done);
        let story = if back { story.event("u1", 3) } else { story.change("u2", 3, true, true).post(Done) };
        let story = story.event("u2", 4).ask(Done).read(live(6, "u2", 4, 6));
        let story = story.read(prefill(8, "g1", 1));
        let story = if back { story.read(prefill(9, "u1", 3)) } else { story };
        let left_out = story.read(prefill(10, "u2", 4)).event("u2", 5).read(live(11, "u2", 5, 7)).drained();
        let found = super::check(&left_out.records, rules, true);
        assert_eq!(found.is_empty(), back, "{found:#?}");
    }
}
