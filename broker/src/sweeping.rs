//! Removing what no consumer has read: old messages, or all of a queue.

use std::time::{Duration, SystemTime};

use model::{Incarnation, SubscriptionName, limits::GivenUp};
use serde::Deserialize;

use crate::{
    Broker, Error, Modified, Queue,
    names::Part,
    wire::{Got, code},
};

/// Looks for the first young message of a subject by halves: what is old comes first.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// A message that is old.
    old: u64,
    /// From here on all are young.
    young: u64,
}

impl Search {
    /// The number from which on to look next; `None` at the end.
    fn middle(self) -> Option<u64> {
        let middle = self.old + (self.young - self.old) / 2;
        (middle > self.old).then_some(middle)
    }

    /// What the first message from `middle` on is: its number if it is old.
    fn narrowed(self, middle: u64, old: Option<u64>) -> Self {
        match old {
            Some(old) => Self { old, ..self },
            None => Self { young: middle, ..self },
        }
    }
}

impl Queue {
    /// When the oldest message that waits for the consumer was written, by the clock of NATS; `None`: none waits.
    ///
    /// # Errors
    /// NATS away.
    pub async fn oldest(&self) -> Result<Option<SystemTime>, Error> {
        let first = async |part| {
            let found = self.wire().next(&self.stream, &self.subject(part), 1).await?.message();
            Ok::<_, Error>(found.map(|message| SystemTime::from(message.time)))
        };
        let (main, prefill) = futures::try_join!(first(Part::Main), first(Part::Prefill))?;
        Ok(main.into_iter().chain(prefill).min())
    }

    /// For how long the oldest message has waited, by the clock of NATS alone; `None`: none waits.
    ///
    /// # Errors
    /// NATS away.
    pub async fn oldest_age(&self) -> Result<Option<Duration>, Error> {
        let Some(oldest) = self.oldest().await? else { return Ok(None) };
        // Asked second, so that it is not before.
        let Some(now) = self.time().await? else { return Ok(None) };
        Ok(Some(now.duration_since(oldest).unwrap_or_default()))
    }

    /// Removes live messages that have been in the queue for longer than `age`; answers how many. NATS stamps them, so
    /// it is also asked what the time is: our own clock says nothing about them.
    ///
    /// # Errors
    /// NATS away: some may be removed and not counted; calling it again is safe.
    pub async fn sweep(&self, age: Duration) -> Result<u64, Error> {
        let Some(now) = self.time().await? else { return Ok(0) };
        let Some(limit) = now.checked_sub(age) else { return Ok(0) };
        let subject = self.subject(Part::Main);
        // The first message from a number on, if it is old.
        let old = async |from: u64| match self.wire().next(&self.stream, &subject, from).await? {
            Got::Message(message) => {
                let at = SystemTime::from(message.time);
                Ok::<_, Error>((at < limit).then_some(message.sequence))
            }
            Got::Nothing | Got::NoStream => Ok(None),
        };
        let Some(first) = old(1).await? else { return Ok(0) };
        let Some(last) = self.wire().last(&self.stream, &subject).await?.message() else { return Ok(0) };
        let mut search = Search { old: first, young: last.sequence + 1 };
        while let Some(middle) = search.middle() {
            search = search.narrowed(middle, old(middle).await?);
        }
        self.wire().purge_below(&self.stream, Some(&subject), search.young).await
    }

    /// What the time is where the queue's messages are stamped; `None`: the queue is gone.
    async fn time(&self) -> Result<Option<SystemTime>, Error> {
        #[derive(Deserialize)]
        struct Info {
            ts: String,
        }
        let action = format!("asking for the time of the queue of {}", self.name);
        match self.wire().api::<Info>(&action, &format!("STREAM.INFO.{}", self.stream), &()).await {
            Ok(Info { ts }) => {
                let now = ts.parse::<jiff::Timestamp>();
                now.map(|now| Some(now.into())).map_err(|e| Error::corrupt("the time of NATS", e))
            }
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Broker {
    /// Gives a queue up: the entry records it first, so that nobody takes the loss for anything else, then the stream
    /// is deleted. True if the queue is given up, now or before; false if the subscription is not ready.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn give_up(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        given_up: &GivenUp,
    ) -> Result<bool, Error> {
        let queue = self.queue(name, incarnation);
        // Noted before the stream that tells it is deleted: as for a removal.
        let next_sequence = queue.next_sequence().await?;
        let recorded =
            self.registry().modify(name, incarnation, |s| s.with_given_up(given_up, next_sequence)).await?;
        let entry = match recorded {
            Modified::Changed(entry) | Modified::Unchanged(entry) => entry,
            Modified::Gone => return Ok(false),
        };
        if entry.value.given_up.is_none() {
            return Ok(false);
        }
        queue.delete().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_young_message_is_found() {
        // Numbers with holes; those below the limit are old.
        let numbers = [3, 4, 9, 17, 18, 40];
        for limit in 0..50 {
            let old = |from: u64| numbers.iter().copied().find(|n| *n >= from).filter(|n| *n < limit);
            let Some(first) = old(1) else { continue };
            let mut search = Search { old: first, young: 41 };
            while let Some(middle) = search.middle() {
                search = search.narrowed(middle, old(middle));
            }
            for number in numbers {
                assert_eq!(number < search.young, number < limit, "limit {limit}: {search:?}");
            }
        }
    }
}
