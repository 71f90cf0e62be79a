//! Selections, other topics, cancelled prefills, resyncs: what a consumer must see then.

use super::{
    Promise::*,
    Rules, check,
    tests::{GROUPS, Story, USERS, directory, live, prefill, prefilled},
};
use crate::history::{
    Event, Message,
    Outcome::{Done, Missing, Unknown},
    Selection,
};

impl Story {
    fn shade(mut self, shade: &'static str) -> Self {
        self.shade = shade;
        self
    }

    fn selecting(mut self, shade: &str, prefill: bool) -> Self {
        self.life += 1;
        let life = self.life();
        let selection = Some(Selection { shade: Some(shade.to_owned()), place: None });
        let topics = vec![GROUPS.to_owned(), USERS.to_owned()];
        self.step(Event::Registered { life, topics, prefill, selection, outcome: Done })
    }

    fn topics(self, topics: &[&str], outcome: crate::history::Outcome) -> Self {
        let life = self.life();
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.step(Event::Topics { life, topics, outcome })
    }

    fn cancel(self, outcome: crate::history::Outcome) -> Self {
        let life = self.life();
        self.step(Event::Cancelled { life, outcome })
    }

    fn resync(self, dry_run: bool) -> Self {
        let life = self.life();
        self.step(Event::Asked { life, resync: true, dry_run, brake: false, outcome: Done })
    }
}

fn gone(message: Message) -> Message {
    Message { deleted: true, ..message }
}

#[test]
fn a_selection_looks_as_if_nothing_else_existed() {
    let story = Story::default().shade("red").event("u1", 1).shade("blue").event("u2", 1);
    let story = story.selecting("red", true);
    // u2 comes to be selected, u1 leaves.
    let changed =
        story.clone().read(prefill(3, "u1", 1)).shade("red").event("u2", 2).shade("blue").event("u1", 2);
    let good = changed.clone().read(live(4, "u2", 2, 3)).read(gone(live(5, "u1", 1, 4)));
    good.clone().drained().is(&[]);
    // What is not selected before and after does not come.
    let outside = good.clone().shade("blue").event("u1", 3);
    outside.clone().drained().is(&[]);
    outside.read(live(6, "u1", 3, 5)).drained().is(&[Foreign, PictureDiffers]);
    // The leaving is lost, or told as a change.
    changed.clone().read(live(4, "u2", 2, 3)).drained().is(&[EventMissing, PictureDiffers]);
    assert!(changed.read(live(4, "u2", 2, 3)).read(live(5, "u1", 2, 4)).breaks().contains(&PictureDiffers));
    // What was selected once, and then not, is not missed from before.
    let back = story.clone().remove().shade("blue").event("u1", 2).event("u1", 3).selecting("red", true);
    let back = back.shade("blue").event("u2", 2).shade("red").event("u1", 4).read(live(9, "u1", 4, 6));
    back.drained().is(&[]);
    // A prefill holds what is selected, and nothing else.
    assert!(story.clone().read(prefill(3, "u2", 1)).breaks().contains(&PrefillOutdated));
    story.clone().drained().is(&[ObjectMissing, PictureDiffers]);
}

#[test]
fn other_topics_count_from_a_place_between_question_and_answer() {
    let story = directory().register(false).event("u1", 2).read(live(6, "u1", 2, 4));
    let story = story.topics(&[GROUPS], Done).event("u1", 3).event("g1", 2);
    story.clone().read(live(8, "g1", 2, 6)).drained().is(&[]);
    story.clone().read(live(7, "u1", 3, 5)).read(live(8, "g1", 2, 6)).drained().is(&[Foreign]);
    story.drained().is(&[EventMissing]);
    // Nobody knows whether it took effect.
    let unknown = directory().register(false).topics(&[GROUPS], Unknown).event("u1", 2);
    unknown.clone().drained().is(&[]);
    unknown.read(live(6, "u1", 2, 4)).drained().is(&[]);
    // They came into effect between two copies of one event.
    let mut twice = directory().register(false).topics(&[GROUPS], Done);
    twice = twice.change("u1", 2, true, false).post(Unknown);
    twice = twice.topics(&[USERS], Done).post(Done).event("u2", 2).read(live(6, "u1", 2, 4));
    twice = twice.read(live(8, "u2", 2, 5)).drained();
    for (sequence, number) in [(16, 4), (17, 4), (18, 5)] {
        twice = twice.other(live(sequence, if number == 4 { "u1" } else { "u2" }, 2, number));
    }
    assert!(!twice.breaks().contains(&LiveOrder), "{:?}", twice.breaks());
    let refused = directory().register(false).topics(&[GROUPS], Missing).event("u1", 2);
    refused.drained().is(&[EventMissing]);
}

#[test]
fn a_cancelled_prefill_gives_an_empty_queue_until_it_is_asked_for_again() {
    let story = directory().register(true).cancel(Done).event("u1", 2);
    assert!(story.clone().read(prefill(3, "g1", 1)).breaks().contains(&PrefillUnasked));
    assert!(story.clone().read(live(6, "u1", 2, 4)).breaks().contains(&LiveBeforePrefill));
    let again = story.ask(Done);
    assert!(again.clone().read(live(6, "u1", 2, 4)).breaks().contains(&LiveBeforePrefill));
    let whole = again.read(prefill(7, "g1", 1)).read(prefill(8, "u1", 2)).read(prefill(9, "u2", 1));
    whole.read(live(6, "u1", 2, 4)).drained().is(&[]);
    // The same, with a try of unknown outcome before.
    let again = directory().register(true).cancel(Done).event("u1", 2).ask(Unknown).ask(Done);
    let again = again.read(prefill(7, "g1", 1)).read(prefill(8, "u1", 2)).read(prefill(9, "u2", 1));
    again.read(live(6, "u1", 2, 4)).drained().is(&[]);
    // One that was asked for again: what was accepted before the question still comes.
    let second = prefilled().event("u1", 2).ask(Done).cancel(Done);
    second.clone().read(live(6, "u1", 2, 4)).is(&[Stopped]);
    let early = second.clone().event("u1", 3).read(live(6, "u1", 2, 4)).read(live(7, "u1", 3, 5));
    assert!(early.breaks().contains(&LiveBeforePrefill));
    let good = second.read(live(6, "u1", 2, 4)).event("u1", 3).ask(Done);
    let good = good.read(prefill(7, "g1", 1)).read(prefill(8, "u1", 3)).read(prefill(9, "u2", 1));
    good.read(live(10, "u1", 3, 5)).drained().is(&[]);
}

#[test]
fn a_resync_tells_of_all_that_is_gone() {
    // The consumer may have lost that u1 went: it is told again.
    let story = prefilled().change("u1", 2, false, false).post(Done).read(gone(live(6, "u1", 2, 4)));
    let asked = story.clone().resync(false).read(prefill(7, "g1", 1)).read(prefill(8, "u2", 1));
    let removed = |sequence, object| {
        gone(Message { prefill: true, after: true, version: 0, ..live(sequence, object, 0, 0) })
    };
    asked.clone().read(removed(9, "u1")).drained().is(&[]);
    let rules = Rules { leaves_out: true };
    let found = check(&asked.clone().drained().records, rules, true);
    assert_eq!(found.first().map(|v| v.promise), Some(PictureDiffers), "{found:#?}");
    // One that was only ever told as gone is not missed.
    let never = Story::default().event("u1", 1).event("u2", 1).register(true).change("u1", 2, false, false);
    let never = never.post(Done).read(prefill(4, "u2", 1)).read(gone(live(5, "u1", 2, 3)));
    let never = never.resync(false).read(prefill(7, "u2", 1)).drained();
    assert_eq!(check(&never.records, rules, true), []);
    // One whose prefill nobody has read went before the resync was read; then its event comes.
    let unread = Story::default().event("u1", 1).event("u2", 1).event("u1", 2).register(true).resync(false);
    let unread = unread.change("u1", 3, false, false).post(Done).read(prefill(4, "u2", 1));
    unread.read(removed(5, "u1")).read(gone(live(6, "u1", 3, 4))).drained().is(&[]);
    // Where UDM may lag, nothing of the last minutes is told.
    asked.clone().drained().is(&[]);
    let there = asked.read(removed(9, "u2"));
    assert!(there.breaks().contains(&PrefillOutdated));
    // One that moved is told again, with where it was; behind all objects, and in no other prefill.
    let elsewhere = |sequence, object| Message { after: true, ..prefill(sequence, object, 1) };
    let moved = prefilled().resync(false).whole(7, 1).read(elsewhere(10, "u1"));
    moved.clone().drained().is(&[]);
    let early = prefilled().resync(false).read(elsewhere(7, "u1")).read(prefill(8, "g1", 1));
    assert!(early.breaks().contains(&PrefillOrder));
    let plain = prefilled().ask(Done).whole(7, 1).read(elsewhere(10, "u1"));
    assert!(plain.breaks().contains(&PrefillUnasked));
    let wrong = prefilled().resync(false).read(prefill(7, "g1", 1)).read(prefill(8, "u1", 1));
    assert!(wrong.read(removed(9, "u2")).breaks().contains(&PrefillOutdated));
    // One that only counts shows nothing.
    story.clone().resync(true).drained().is(&[]);
    assert!(story.resync(true).read(prefill(7, "g1", 1)).breaks().contains(&PrefillUnasked));
}
