//! Which topics a consumer wants when. A change of topics takes effect at a place of the event log that nobody sees: at
//! some moment between the request and its answer.

use crate::history::Moment;

/// The topics of a life, as they were changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    epochs: Vec<Epoch>,
}

#[derive(Clone, Debug)]
struct Epoch {
    start: Moment,
    /// `None`: nobody knows whether it took effect.
    answered: Option<Moment>,
    topics: Vec<String>,
}

impl Wanted {
    /// Other topics were asked for.
    pub(super) fn change(&mut self, start: Moment, answered: Option<Moment>, topics: &[String]) {
        self.epochs.push(Epoch { start, answered, topics: topics.to_vec() });
    }

    /// Epochs that may have been in effect at some moment between two.
    fn between(&self, from: Moment, to: Moment) -> impl Iterator<Item = &Epoch> {
        let over = self.epochs.iter().rposition(|e| e.answered.is_some_and(|at| at <= from)).unwrap_or(0);
        self.epochs.iter().skip(over).filter(move |epoch| epoch.start <= to)
    }

    /// Was the topic surely wanted all the time?
    pub(super) fn surely(&self, topic: &str, from: Moment, to: Moment) -> bool {
        self.between(from, to).all(|epoch| epoch.topics.iter().any(|t| t == topic))
    }

    /// Was the topic wanted at some time, perhaps?
    pub(super) fn perhaps(&self, topic: &str, from: Moment, to: Moment) -> bool {
        self.between(from, to).any(|epoch| epoch.topics.iter().any(|t| t == topic))
    }

    /// Topics that were surely wanted all the time.
    pub(super) fn always(&self, from: Moment, to: Moment) -> Vec<String> {
        let mut epochs = self.between(from, to);
        let first = epochs.next().map(|epoch| epoch.topics.clone()).unwrap_or_default();
        let rest: Vec<&Epoch> = epochs.collect();
        first.into_iter().filter(|topic| rest.iter().all(|epoch| epoch.topics.contains(topic))).collect()
    }

    /// The order of the topics, where it is known.
    pub(super) fn order(&self, from: Moment, to: Moment) -> Option<&[String]> {
        let mut epochs = self.between(from, to);
        let first = epochs.next()?;
        epochs.next().is_none().then_some(first.topics.as_slice())
    }
}
