//! What the consumer knows of the directory, compared with what the directory was.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Promise};
use crate::{checker::directory::Change, history::Moment};

impl Check<'_> {
    /// The versions of an object form a chain: none is left out between what came and what comes.
    pub(super) fn chain(&mut self, object: &str, version: u64, end: Moment) {
        let topic = self.world.topic(object);
        if self.unsteady.contains(topic) {
            return;
        }
        let known = self.picture.get(object).map(|known| known.version);
        if known.is_none() && !self.seam.is_whole() {
            return;
        }
        // What nobody has told of was not there, or not selected, at some time before.
        let absent = self.world.changes(object).filter(|c| !c.present && c.version < version).last();
        let after = known.unwrap_or_else(|| absent.map_or(0, |change| change.version));
        let held = |number: u64| self.world.events.get(&number).is_some_and(|e| self.is_held(number, e));
        let left_out = |c: &&Change| c.wanted && c.version > after && c.version < version && !held(c.number);
        let Some(first) = self.world.changes(object).find(left_out) else { return };
        // What was moved or went while the prefill was read is not in it; its event says so.
        let excused = |c: &Change| (c.moved || !c.present) && c.version >= version && c.start <= end;
        if known.is_none() && self.world.changes(object).any(excused) {
            return;
        }
        let text = format!("{object}: version {} did not come between {after} and {version}", first.version);
        self.complain(end, Promise::EventMissing, text);
    }

    /// The consumer's picture holds all up to the last event that came.
    pub(super) fn so_far(&mut self, at: Moment) {
        let (last, whole) = (self.live.0, self.seam.is_whole());
        if last == 0 {
            return;
        }
        let topics = self.wanted.always(0, Moment::MAX);
        let lacks = |object: &&str| {
            let latest = self.world.changes(object).filter(|c| c.number <= last && c.wanted).last();
            let Some(latest) = latest else { return false };
            let event = self.world.events.get(&latest.number);
            if event.is_some_and(|event| self.is_held(latest.number, event)) {
                return false;
            }
            match self.picture.get(*object) {
                Some(known) => known.highest < latest.version,
                None => {
                    let excused =
                        |c: &Change| c.version > latest.version && (c.moved || !c.present) && c.start <= at;
                    whole && latest.present && !self.world.changes(object).any(excused)
                }
            }
        };
        let of_topics = self.world.objects(&topics).filter(|o| !self.unsteady.contains(self.world.topic(o)));
        let lacking: Vec<&str> = of_topics.filter(lacks).collect();
        if let Some(first) = lacking.first() {
            let text = format!("{} objects are older than event {last}, such as {first}", lacking.len());
            self.complain(at, Promise::EventMissing, text);
        }
    }

    pub(super) fn finish(&mut self, at: Moment) {
        self.missing(self.live.0, u64::MAX, at);
        if let Some((promise, text)) = self.seam.finish(self.world, &self.wanted, at) {
            self.complain(at, promise, text);
        }
        let topics: Vec<String> =
            self.wanted.always(0, Moment::MAX).into_iter().filter(|t| !self.unsteady.contains(t)).collect();
        let directory = self.world.finally(&topics);
        let known =
            self.picture.keys().map(String::as_str).filter(|o| !self.unsteady.contains(self.world.topic(o)));
        let names: BTreeSet<&str> =
            if self.prefill { directory.keys().copied().chain(known).collect() } else { known.collect() };
        let wrong: Vec<String> =
            names.into_iter().filter_map(|name| self.differs(&directory, name)).collect();
        if let Some(first) = wrong.first() {
            let text = format!("{} objects differ from the directory, such as {first}", wrong.len());
            self.complain(at, Promise::PictureDiffers, text);
        }
    }

    fn differs(&self, directory: &BTreeMap<&str, u64>, name: &str) -> Option<String> {
        let is = directory.get(name).copied();
        let known = self.picture.get(name);
        let seen = known.filter(|known| !known.deleted || known.stale).map(|known| known.version);
        let word = |version: Option<u64>| version.map_or("absent".to_owned(), |v| format!("version {v}"));
        (is != seen).then(|| format!("{name}: {} instead of {}", word(seen), word(is)))
    }
}
