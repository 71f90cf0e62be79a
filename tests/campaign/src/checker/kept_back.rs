//! Paused prefills, other passwords, and what NATS does not carry.

use super::{
    Promise::*,
    tests::{GROUPS, Story, USERS, directory, live, prefilled},
};
use crate::history::{
    Event,
    Outcome::{self, Already, Done, Missing, Refused, Unknown},
};

const SECOND: u64 = 1_000_000;

impl Story {
    fn pause(self, outcome: Outcome) -> Self {
        let life = self.life();
        self.step(Event::Paused { life, outcome })
    }

    fn waits(self) -> Self {
        let life = self.life();
        self.step(Event::Waits { life })
    }

    fn resume(self, outcome: Outcome) -> Self {
        let life = self.life();
        self.step(Event::Resumed { life, outcome })
    }

    fn trouble(self, target: &str, over: bool) -> Self {
        let (what, target) = (format!("{target} is hit"), Some(target.to_owned()));
        self.step(Event::Fault { what, target, over })
    }

    fn later(mut self, time: u64) -> Self {
        self.now += time;
        self
    }

    fn empty(self) -> Self {
        let life = self.life();
        self.step(Event::Empty { life })
    }

    fn password(self, outcome: Outcome) -> Self {
        let life = self.life();
        self.step(Event::Password { life, outcome })
    }

    fn log_in(self, former: bool, outcome: Outcome) -> Self {
        let life = self.life();
        self.step(Event::LoggedIn { life, former, outcome })
    }

    fn large(self, large: u64, topic: &str, outcome: Outcome) -> Self {
        let topic = topic.to_owned();
        self.step(Event::Large { large, topic, outcome })
    }

    fn letters(self, large: &[u64]) -> Self {
        let life = self.life();
        self.step(Event::Letters { life, large: large.to_vec() })
    }
}

#[test]
fn a_paused_prefill_waits_and_then_comes_whole() {
    let paused = directory().register(true).pause(Done);
    let good = paused.clone().waits().empty().resume(Done).whole(3, 1).drained();
    good.is(&[]);
    // It was complete before its worker saw that, or that is not known.
    paused.clone().whole(3, 1).resume(Missing).drained().is(&[]);
    paused.clone().resume(Unknown).resume(Already).whole(3, 1).drained().is(&[]);
    paused.clone().waits().resume(Unknown).whole(3, 1).resume(Missing).drained().is(&[]);
    // It goes on although it waits.
    paused.clone().waits().whole(3, 1).resume(Done).drained().is(&[PrefillPaused]);
    paused.clone().waits().resume(Missing).whole(3, 1).drained().is(&[PrefillPaused]);
    // Whoever was stopped may go on.
    let stopped = directory().register(true).trouble("worker-1", false).pause(Done).waits();
    stopped.trouble("worker-1", true).whole(3, 1).resume(Missing).drained().is(&[]);
    let twin = paused.waits().trouble("twin", false).whole(3, 1).trouble("twin", true);
    twin.resume(Missing).drained().is(&[]);
}

#[test]
fn nobody_is_said_to_have_paused_it_before() {
    let story = directory().register(true);
    assert!(story.clone().pause(Already).breaks().contains(&Unexpected));
    assert!(story.clone().pause(Done).resume(Already).breaks().contains(&Unexpected));
    story.pause(Unknown).pause(Already).resume(Done).whole(3, 1).drained().is(&[]);
}

#[test]
fn what_was_resumed_is_due_from_then_on() {
    let paused = directory().register(true).pause(Done).waits();
    let long = paused.later(200 * SECOND).empty();
    assert!(!long.breaks().contains(&Unexpected) && long.breaks() == [Stopped], "only that it did not drain");
    long.clone().resume(Done).later(60 * SECOND).empty().whole(3, 1).drained().is(&[]);
    long.resume(Done).later(100 * SECOND).empty().whole(3, 1).drained().is(&[Stopped]);
    let refused = directory().register(true).pause(Missing).later(100 * SECOND).empty();
    refused.whole(3, 1).drained().is(&[Stopped]);
}

#[test]
fn a_former_password_ends_and_the_new_one_begins() {
    let changed = || directory().register(false).password(Unknown).password(Done);
    let good = changed().log_in(false, Done).log_in(true, Done).later(SECOND).log_in(true, Refused);
    good.clone().event("u1", 2).read(live(6, "u1", 2, 4)).drained().is(&[]);
    good.clone().log_in(true, Unknown).log_in(false, Unknown).drained().is(&[]);
    changed().log_in(false, Refused).drained().is(&[Password]);
    good.log_in(true, Done).drained().is(&[Password]);
    // Nobody knows which one counts.
    directory().register(false).password(Unknown).log_in(false, Refused).drained().is(&[]);
}

#[test]
fn what_nats_does_not_carry_is_a_dead_letter_of_all_who_want_it() {
    let story =
        directory().register(false).large(1, USERS, Done).large(2, GROUPS, Unknown).large(2, GROUPS, Done);
    // Nothing has come that was accepted later: they may be on their way.
    story.clone().letters(&[]).drained().is(&[]);
    let story = story.event("u1", 2).read(live(6, "u1", 2, 4));
    story.clone().letters(&[1, 2]).drained().is(&[]);
    story.clone().letters(&[2, 1, 2]).drained().is(&[]);
    story.clone().letters(&[2]).drained().is(&[LetterMissing]);
    story.clone().letters(&[1, 2, 1]).drained().is(&[LiveOrder]);
    story.clone().letters(&[1, 2, 3]).drained().is(&[Foreign]);
    // Of another topic, from before, and from while it was registered.
    story.clone().large(3, "mail/domain", Done).letters(&[1, 2, 3]).drained().is(&[Foreign]);
    let before = Story::default().large(1, USERS, Done).register(false);
    let before = before.event("u1", 1).read(live(6, "u1", 1, 1));
    before.clone().letters(&[]).drained().is(&[]);
    before.letters(&[1]).drained().is(&[Foreign]);
    // The others are not held up.
    story.event("u1", 3).letters(&[1, 2]).drained().is(&[EventMissing, PictureDiffers]);
}

#[test]
fn a_pause_of_what_is_read_already_changes_nothing() {
    let story = prefilled().pause(Missing).event("u1", 2).read(live(6, "u1", 2, 4));
    story.drained().is(&[]);
}
