//! Whether the promises were kept: what had to come, what came, and in which order. It knows nothing of how Headstart
//! works inside.

use std::collections::BTreeSet;

use serde_json::Value;

/// What a message is, in the words of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// An object of the prefill: its topic and its DN.
    Object { topic: String, dn: String },
    /// The change of this number.
    Change(u64),
    /// Anything else.
    Unknown,
}

impl Received {
    /// Reads a message as the API gives it.
    pub fn of(message: &Value) -> Self {
        let new = &message["body"]["new"];
        if message["publisher_name"] == "udm-pre-fill" {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Self::Object { topic: text(&message["topic"]), dn: text(&new["dn"]) };
        }
        let description = new["properties"]["description"].as_str().unwrap_or_default();
        let number = description.strip_prefix("change ").and_then(|number| number.parse().ok());
        number.map_or(Self::Unknown, Self::Change)
    }
}

/// The books.
pub struct Account {
    expected_objects: [(&'static str, u64); 2],
    objects: BTreeSet<(String, String)>,
    /// The place in the requested order of topics of the last object.
    topic: usize,
    last_posted: u64,
    /// Changes whose posting had to be repeated with an unknown outcome: each may be there twice.
    may_repeat: BTreeSet<u64>,
    last_change: u64,
    last_sequence: u64,
    last_of_prefill: u64,
    last_of_live: u64,
    missed: BTreeSet<u64>,
    given_again: u64,
    out_of_order: Vec<String>,
    unexpected: Vec<String>,
}

impl Account {
    /// For a directory with so many users and groups, requested in this order.
    pub fn new(users: u64, groups: u64) -> Self {
        Self {
            expected_objects: [("users/user", users), ("groups/group", groups)],
            objects: BTreeSet::new(),
            topic: 0,
            last_posted: 0,
            may_repeat: BTreeSet::new(),
            last_change: 0,
            last_sequence: 0,
            last_of_prefill: 0,
            last_of_live: 0,
            missed: BTreeSet::new(),
            given_again: 0,
            out_of_order: Vec::new(),
            unexpected: Vec::new(),
        }
    }

    /// Objects that the prefill must bring.
    pub fn prefill_expected(&self) -> u64 {
        self.expected_objects.iter().map(|(_, count)| count).sum()
    }

    /// Different objects that the prefill brought.
    pub fn prefill_received(&self) -> u64 {
        self.objects.len() as u64
    }

    /// The number of the last change that came.
    pub fn live_received(&self) -> u64 {
        self.last_change
    }

    /// A change was accepted; `maybe_twice` if it had to be posted again.
    pub fn posted(&mut self, number: u64, maybe_twice: bool) {
        self.last_posted = number;
        if maybe_twice {
            self.may_repeat.insert(number);
        }
    }

    /// A message came.
    pub fn received(&mut self, sequence: u64, message: &Received) {
        if sequence == self.last_sequence {
            // Its acknowledgement was lost in a crash.
            self.given_again += 1;
            return;
        }
        self.last_sequence = sequence;
        // Prefill and live grow side by side in one numbering, so only each by itself is in its order.
        let last = match message {
            Received::Object { .. } => &mut self.last_of_prefill,
            Received::Change(_) | Received::Unknown => &mut self.last_of_live,
        };
        if sequence < *last {
            self.out_of_order.push(format!("message {sequence} after {last}"));
        }
        *last = sequence;
        match message {
            Received::Object { topic, dn } => self.received_object(topic, dn),
            Received::Change(number) => self.received_change(*number),
            Received::Unknown => self.unexpected.push(format!("message {sequence}")),
        }
    }

    fn received_object(&mut self, topic: &str, dn: &str) {
        match self.expected_objects.iter().position(|(expected, _)| *expected == topic) {
            None => self.unexpected.push(format!("an object of {topic}")),
            Some(place) if place < self.topic => self.out_of_order.push(format!("{dn} after later topics")),
            Some(place) => self.topic = place,
        }
        if self.last_change > 0 {
            self.out_of_order.push(format!("{dn} after live changes"));
        }
        if !self.objects.insert((topic.to_owned(), dn.to_owned())) {
            self.unexpected.push(format!("{dn} once more"));
        }
    }

    fn received_change(&mut self, number: u64) {
        if number == self.last_change && self.may_repeat.contains(&number) {
            self.given_again += 1;
        } else if number <= self.last_change {
            self.out_of_order.push(format!("change {number} after change {}", self.last_change));
        } else {
            self.missed.extend(self.last_change + 1..number);
            self.last_change = number;
        }
    }

    /// The sums in words, and whether all promises were kept; `complete` if all had to have come by now.
    pub fn verdict(&self, complete: bool) -> (String, bool) {
        let objects_missing = self.prefill_expected().saturating_sub(self.prefill_received());
        let changes_missing = self.missed.len() as u64 + self.last_posted.saturating_sub(self.last_change);
        let missing = match complete {
            true => objects_missing + changes_missing,
            // What waits in the queue is not lost. But once a change has come, all objects must have.
            false => self.missed.len() as u64 + if self.last_change > 0 { objects_missing } else { 0 },
        };
        let mut verdict = format!(
            "prefill: {} of {} objects received\nlive: {} of {} changes received\nout of order: {}\nmissing: {missing}\n\
             given again after a crash: {}",
            self.prefill_received(),
            self.prefill_expected(),
            self.last_change - self.missed.len() as u64,
            self.last_posted,
            self.out_of_order.len(),
            self.given_again,
        );
        for fault in self.out_of_order.iter().chain(&self.unexpected).take(10) {
            verdict += &format!("\n  {fault}");
        }
        let kept = missing == 0 && self.out_of_order.is_empty() && self.unexpected.is_empty();
        verdict += match (kept, complete) {
            (true, true) => "\nall promises kept",
            (true, false) => "\ninterrupted; all promises kept so far",
            (false, _) => "\nA PROMISE WAS BROKEN",
        };
        (verdict, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(topic: &str, dn: &str) -> Received {
        Received::Object { topic: topic.to_owned(), dn: dn.to_owned() }
    }

    fn verdict(messages: &[(u64, Received)]) -> bool {
        let mut account = Account::new(2, 1);
        account.posted(1, false);
        account.posted(2, true);
        messages.iter().for_each(|(sequence, message)| account.received(*sequence, message));
        account.verdict(true).1
    }

    fn all() -> Vec<(u64, Received)> {
        let (user, group) = ("users/user", "groups/group");
        vec![
            (3, object(user, "a")),
            (4, object(user, "b")),
            (6, object(group, "c")),
            (2, Received::Change(1)),
            (9, Received::Change(2)),
        ]
    }

    #[test]
    fn everything_once_in_order_is_good() {
        assert!(verdict(&all()));
    }

    #[test]
    fn what_a_crash_may_repeat_is_good() {
        let mut messages = all();
        messages.insert(1, messages[0].clone());
        messages.push((10, Received::Change(2)));
        assert!(verdict(&messages));
    }

    #[test]
    fn each_missing_message_is_found() {
        for left_out in 0..all().len() {
            let mut messages = all();
            messages.remove(left_out);
            assert!(!verdict(&messages), "{left_out}");
        }
    }

    #[test]
    fn each_swap_is_found_but_of_two_users() {
        for first in 1..all().len() - 1 {
            let mut messages = all();
            let (a, b) = (messages[first].1.clone(), messages[first + 1].1.clone());
            messages[first].1 = b;
            messages[first + 1].1 = a;
            assert!(!verdict(&messages), "{first}");
        }
        let mut messages = all();
        messages.swap(3, 4);
        assert!(!verdict(&messages), "sequence numbers");
    }

    #[test]
    fn a_repetition_without_a_crash_is_found() {
        let mut messages = all();
        messages.insert(4, (8, Received::Change(1)));
        assert!(!verdict(&messages));
        let mut messages = all();
        messages.push((8, Received::Change(2)));
        assert!(!verdict(&messages));
        let mut messages = all();
        messages.insert(1, (4, object("users/user", "a")));
        assert!(!verdict(&messages));
    }
}
