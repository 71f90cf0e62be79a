//! What a run reached: how often each thing happened that it is there to try. A run that found nothing and reached
//! nothing proves nothing; it is *vacuous*.

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use crate::{
    checker::Judged,
    history::{Event, Outcome, Record},
    plan::Profile,
};

/// What processes write into their logs when it happens.
const LOGGED: [(&str, &str); 13] = [
    ("unknown batches", "it is unknown whether a batch was written"),
    ("unknown copies", "it is unknown whether copies were written"),
    ("unknown fences", "it is unknown whether the fence was taken"),
    ("overtaken dispatchers", "the log has a gap: another dispatcher is active"),
    ("lanes that read the log", "it reads the event log itself from here on"),
    ("lanes that caught up", "this queue has caught up"),
    ("seals with events left out", "the prefill holds these live events already"),
    ("overtaken attempts", "a later attempt has taken over"),
    ("cancelled attempts", "the prefill is cancelled"),
    ("workers that stopped for a pause", "the prefill is paused; it goes on when somebody resumes it"),
    ("approved attempts", "the prefill is approved"),
    ("late tasks", "the task may come again"),
    ("views from the beginning", "the subscriptions are watched from the beginning again"),
];

/// What the nemesis notes when it has done it, by the beginning or the end of its words.
const DONE: [(&str, &str, &str); 9] = [
    ("tasks hit", "a task is queued", ""),
    ("kills", "kill ", ""),
    ("stops", "stop ", ""),
    ("ends", "end ", ""),
    ("twins", "stop twin ", ""),
    ("batches hit", "a batch of ", ""),
    ("wires damaged", "the connection of ", " ms"),
    ("trouble of UDM", "UDM answers with ", ""),
    ("approvals", "consumer-", " approved"),
];

/// What must have happened in five minutes, at least: about a fifth of what does.
const EXPECTED: [(&str, &[(Profile, usize)]); 18] = {
    use Profile::{Dispatchers, General, Recreate, Rounds, Zombies};
    [
        ("prefills found whole", &[(General, 10), (Zombies, 8), (Recreate, 10), (Rounds, 10)]),
        (
            "deliveries",
            &[(General, 1500), (Zombies, 500), (Recreate, 1000), (Dispatchers, 2000), (Rounds, 1000)],
        ),
        ("kills", &[(General, 10), (Zombies, 5), (Recreate, 5), (Dispatchers, 10), (Rounds, 5)]),
        ("wires damaged", &[(General, 3), (Dispatchers, 3), (Rounds, 3)]),
        ("twins", &[(Zombies, 5)]),
        ("tasks hit", &[(Rounds, 5)]),
        ("batches hit", &[(General, 1), (Zombies, 3), (Dispatchers, 2)]),
        ("unknown batches", &[(Zombies, 1)]),
        ("unknown copies", &[(Dispatchers, 1)]),
        ("overtaken dispatchers", &[(Dispatchers, 1)]),
        ("overtaken attempts", &[(Zombies, 1)]),
        ("cancelled", &[(General, 1), (Rounds, 2)]),
        ("resumed", &[(General, 3), (Zombies, 2), (Rounds, 3)]),
        ("former passwords refused", &[(General, 10), (Recreate, 5), (Rounds, 5)]),
        ("dead letters", &[(General, 4), (Dispatchers, 2), (Rounds, 2)]),
        ("other topics", &[(General, 1), (Rounds, 2)]),
        ("resyncs", &[(General, 1), (Rounds, 2)]),
        ("selecting lives", &[(General, 1), (Recreate, 5), (Rounds, 1)]),
    ]
};

/// How often each thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, usize>);

impl Coverage {
    /// Counts, in the history and in the logs of a run's folder.
    #[must_use]
    pub fn of(history: &[Record], judged: &Judged, folder: &Path) -> Self {
        let mut coverage = Self::default();
        for (name, ..) in LOGGED {
            coverage.count(name, 0);
        }
        for (name, ..) in DONE {
            coverage.count(name, 0);
        }
        coverage.count("prefills found whole", judged.prefills);
        coverage.count("lives without a delivery", judged.silent_lives);
        coverage.count("events twice in the log", judged.duplicates);
        for record in history {
            coverage.record(&record.event);
        }
        for entry in std::fs::read_dir(folder.join("logs")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            for (name, words) in LOGGED {
                coverage.count(name, text.matches(words).count());
            }
        }
        coverage
    }

    fn record(&mut self, event: &Event) {
        match event {
            Event::Fault { what, over: false, .. } => {
                for (name, begin, end) in DONE {
                    self.count(name, usize::from(what.starts_with(begin) && what.ends_with(end)));
                }
            }
            Event::Posted { outcome, .. } => match outcome {
                Outcome::Unknown => self.count("posts of unknown outcome", 1),
                Outcome::Refused => self.count("posts that were refused", 1),
                _ => {}
            },
            Event::Registered { outcome: Outcome::Done | Outcome::Already, selection, .. } => {
                self.count("lives", 1);
                self.count("selecting lives", usize::from(selection.is_some()));
            }
            Event::Asked { outcome: Outcome::Unknown, .. } => self.count("questions of unknown outcome", 1),
            Event::Asked { outcome: Outcome::Done, resync, dry_run, .. } => {
                self.count("prefills asked again", 1);
                self.count("resyncs", usize::from(*resync && !*dry_run));
                self.count("dry runs", usize::from(*dry_run));
            }
            Event::Topics { outcome: Outcome::Done, .. } => self.count("other topics", 1),
            Event::Cancelled { outcome: Outcome::Done, .. } => self.count("cancelled", 1),
            Event::Paused { outcome: Outcome::Done, .. } => self.count("paused", 1),
            Event::Waits { .. } => self.count("seen to be paused", 1),
            Event::Resumed { outcome: Outcome::Done, .. } => self.count("resumed", 1),
            Event::Password { outcome: Outcome::Done, .. } => self.count("other passwords", 1),
            Event::LoggedIn { former: true, outcome: Outcome::Refused, .. } => {
                self.count("former passwords refused", 1);
            }
            Event::Large { outcome: Outcome::Done, .. } => self.count("large events", 1),
            Event::Letters { large, .. } => self.count("dead letters", large.len()),
            Event::Delivered { messages, .. } => {
                let removals = messages.iter().filter(|m| m.prefill && m.deleted).count();
                self.count("deliveries", messages.len());
                self.count("removals of resyncs", removals);
            }
            Event::Acknowledged { outcome: Outcome::Unknown, .. } => {
                self.count("acknowledgements of unknown outcome", 1);
            }
            Event::Acknowledged { outcome: Outcome::Missing, .. } => {
                self.count("acknowledgements that found nothing", 1);
            }
            _ => {}
        }
    }

    fn count(&mut self, name: &'static str, more: usize) {
        *self.0.entry(name).or_default() += more;
    }

    /// What should have happened in a run of this length and did not.
    #[must_use]
    pub fn vacuous(&self, profile: Profile, length: Duration) -> Vec<String> {
        let mut missed = Vec::new();
        for (name, profiles) in EXPECTED {
            let Some((_, expected)) = profiles.iter().find(|(of, _)| *of == profile) else { continue };
            let seconds = usize::try_from(length.as_secs()).unwrap_or(usize::MAX);
            // Short runs miss what is rare.
            let expected = expected.saturating_mul(seconds) / 300;
            let reached = self.0.get(name).copied().unwrap_or(0);
            if reached < expected {
                missed.push(format!("{name}: {reached}, at least {expected} are expected"));
            }
        }
        missed
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.0 {
            writeln!(f, "{count:>8}  {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_reached_nothing_is_vacuous() {
        let coverage = Coverage::default();
        let long = coverage.vacuous(Profile::General, Duration::from_secs(300));
        assert!(long.iter().any(|missed| missed.starts_with("prefills found whole: 0")), "{long:?}");
        assert!(coverage.vacuous(Profile::General, Duration::from_secs(0)).is_empty());
        let mut reached = Coverage::default();
        for (name, _) in EXPECTED {
            reached.count(name, 10_000);
        }
        assert!(reached.vacuous(Profile::Zombies, Duration::from_secs(300)).is_empty());
    }

    #[test]
    fn what_the_nemesis_did_is_counted() {
        let mut coverage = Coverage::default();
        for what in ["kill nats for 5 ms", "stop twin 3 0 ms after its fence for 7 ms", "consumer-3 approved"]
        {
            coverage.record(&Event::Fault { what: what.to_owned(), target: None, over: false });
        }
        let count = |name: &str| coverage.0.get(name).copied().unwrap_or(0);
        assert_eq!(["kills", "stops", "twins", "approvals", "ends"].map(count), [1, 1, 1, 1, 0]);
    }
}
