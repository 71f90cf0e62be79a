//! Dead letters: what a queue can't carry is set aside with its reason, and can be sent again.
//!
//! A letter is one atomic batch in the stream `dead-letters`: its record, and right after it the message itself in
//! parts that fit. So it is there whole or not at all, and its parts follow from its number. Its subject is its own, and
//! says where it would have stood: so it is written once, and those of an overtaken attempt go together.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use model::{
    Incarnation, Subscription, SubscriptionName,
    dead_letter::{DeadLetter, Origin},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Broker, Error, Letter, Whose,
    backoff::Backoff,
    batch_read::Limits,
    names,
    wire::{Got, LARGEST_BATCH, Outgoing, Refusal, Wire, header, headers},
};

/// Largest message that is kept with its letter, in bytes; of a larger one the record remains.
const LARGEST_KEPT: usize = 64 << 20;

/// Bytes of records that are read at once.
const PAGE_BYTES: usize = 1 << 20;
/// How long a message is tried to be set aside: an attempt that gives up begins again from nothing.
const SET_ASIDE_WITHIN: Duration = Duration::from_secs(30);

/// A dead letter as it is kept.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number, which tells it from others.
    pub id: u64,
    /// Why, and where from.
    pub letter: DeadLetter,
    /// Messages that hold its parts; 0: only the record was kept.
    parts: u64,
}

impl Stored {
    /// Was the message itself kept?
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.parts > 0
    }
}

/// The dead letters of all subscriptions.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    wire: Wire,
}

impl DeadLetters {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Sets a message aside. A live message is set aside once, whoever does it, as long as its letter is there.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn set_aside(
        &self,
        name: &SubscriptionName,
        letter: &DeadLetter,
        message: &[u8],
    ) -> Result<(), Error> {
        let action = format!("setting a message of {name} aside");
        let subject = match letter.origin {
            Origin::Live { incoming_seq } => {
                names::dead_letter_subject(name, letter.incarnation, names::FROM_LIVE, incoming_seq)
            }
            // Of one attempt there is one writer, so a name of its own is enough to know it again.
            Origin::Prefill { attempt } => {
                let unique = Uuid::new_v4().simple();
                names::dead_letter_subject(name, letter.incarnation, &names::from_attempt(attempt), unique)
            }
        };
        let part_size = part_size(self.wire.client.max_payload());
        let parts = if fits(message.len(), part_size) { message.chunks(part_size).collect() } else { vec![] };
        let record = serde_json::to_vec(letter).map_err(|e| Error::corrupt(action.as_str(), e))?;
        let outgoing = |subject: &str, payload: Bytes, parts: usize| Outgoing {
            subject: subject.to_owned(),
            headers: headers([
                (names::EXPECTED_STREAM, names::DEAD_LETTERS.to_owned()),
                (names::PARTS, parts.to_string()),
            ]),
            payload,
        };
        let mut first = outgoing(&subject, Bytes::from(record), parts.len());
        first.headers.insert(names::EXPECTED_LAST_SUBJECT, "0");
        let mut batch = vec![first];
        let below = format!("{subject}.part");
        batch.extend(parts.into_iter().map(|part| outgoing(&below, Bytes::copy_from_slice(part), 0)));
        let mut tries = Backoff::within(SET_ASIDE_WITHIN);
        loop {
            match self.wire.publish_batch(batch.clone()).await {
                // It is there: set aside by somebody else, or by a try of ours whose answer was lost.
                Ok(_) | Err(Refusal::WrongLast(_)) => return Ok(()),
                Err(refusal @ (Refusal::Nobody | Refusal::NotWritten(_) | Refusal::Unknown(_))) => {
                    tries.again(refusal.into_error(&action)).await?;
                }
                Err(refusal) => return Err(refusal.into_error(&action)),
            }
        }
    }

    /// The letters of a subscription that still mean something, oldest first: at most `limit`, those after the letter
    /// `after`. One that can't be read is left out.
    ///
    /// # Errors
    /// NATS away.
    pub async fn list(
        &self,
        subscription: &Subscription,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, Error> {
        let subject = names::dead_letters_of(&subscription.name, &subscription.incarnation.short());
        let (mut letters, mut from) = (vec![], after.saturating_add(1));
        loop {
            let page = Limits { messages: limit - letters.len(), bytes: PAGE_BYTES };
            if page.messages == 0 {
                return Ok(letters);
            }
            // Not by direct gets: dead letters have none.
            let found = self.wire.many_from_leader(names::DEAD_LETTERS, &subject, from, page).await?;
            let found = found.unwrap_or_default();
            let Some(last) = found.messages.last() else { return Ok(letters) };
            from = last.sequence + 1;
            for message in &found.messages {
                match stored(message) {
                    Ok(stored) if stored.letter.is_current(subscription) => letters.push(stored),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(error = model::error_chain(&error), "a dead letter is left out")
                    }
                }
            }
            if !found.more {
                return Ok(letters);
            }
        }
    }

    /// How many letters of a subscription still mean something.
    ///
    /// # Errors
    /// NATS away.
    pub async fn count(&self, subscription: &Subscription) -> Result<u64, Error> {
        let Subscription { name, incarnation, .. } = subscription;
        let counts = self.counts(&names::dead_letters_of(name, &incarnation.short())).await?;
        let current = |attempt: Option<u32>| attempt.is_none_or(|n| n == subscription.prefill.attempt);
        Ok(counts.iter().filter(|(subject, _)| current(names::attempt_of(subject))).map(|(_, n)| n).sum())
    }

    /// The subjects of all letters.
    pub(crate) async fn subjects(&self) -> Result<Vec<String>, Error> {
        Ok(self.counts(&format!("{}.*.*.*.*", names::DEAD_LETTERS)).await?.into_keys().collect())
    }

    /// How many letters there are, by subject.
    async fn counts(&self, records: &str) -> Result<HashMap<String, u64>, Error> {
        #[derive(Serialize)]
        struct Ask<'a> {
            subjects_filter: &'a str,
        }
        #[derive(Deserialize)]
        struct Info {
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            // Absent or null: none.
            subjects: Option<HashMap<String, u64>>,
        }
        let ask = Ask { subjects_filter: records };
        let subject = format!("STREAM.INFO.{}", names::DEAD_LETTERS);
        let Info { state } = self.wire.api("counting dead letters", &subject, &ask).await?;
        Ok(state.subjects.unwrap_or_default())
    }

    /// Removes the letters of attempts before this one, which is sealed: it has written or set aside the same. They
    /// would push others out.
    pub(crate) async fn forget_overtaken(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        attempt: u32,
    ) -> Result<(), Error> {
        let counts = self.counts(&names::dead_letters_of(name, &incarnation.short())).await?;
        let overtaken: BTreeSet<u32> =
            counts.keys().filter_map(|subject| names::attempt_of(subject)).filter(|n| *n < attempt).collect();
        for attempt in overtaken {
            let subjects = names::dead_letter_subject(name, incarnation, &names::from_attempt(attempt), "*");
            self.purge(&subjects).await?;
        }
        Ok(())
    }

    /// One letter; `None` if this subscription has none of that number.
    ///
    /// # Errors
    /// NATS away, or the letter can't be read.
    pub async fn get(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        id: u64,
    ) -> Result<Option<Stored>, Error> {
        let of_it = names::dead_letter_subject(name, incarnation, "", "");
        let of_it = of_it.trim_end_matches('.');
        let is_record = |subject: &str| {
            let rest = subject.strip_prefix(of_it).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|rest| rest.split('.').count() == 2)
        };
        match self.wire.message(names::DEAD_LETTERS, id).await? {
            Got::Message(m) if is_record(&m.subject) => stored(&m).map(Some),
            _ => Ok(None),
        }
    }

    /// The message of a letter; `None` if it was not kept, or not wholly.
    ///
    /// # Errors
    /// NATS away.
    pub async fn message(&self, letter: &Stored) -> Result<Option<Bytes>, Error> {
        let mut whole = BytesMut::new();
        for sequence in letter.id + 1..=letter.id + letter.parts {
            let Some(part) = self.wire.message(names::DEAD_LETTERS, sequence).await?.message() else {
                return Ok(None);
            };
            whole.extend_from_slice(&part.payload);
        }
        Ok(letter.is_kept().then(|| whole.freeze()))
    }

    /// Removes a letter: the record first, since without it the parts are nothing.
    ///
    /// # Errors
    /// NATS away; calling it again is safe, though parts may remain until the oldest go.
    pub async fn remove(&self, letter: &Stored) -> Result<(), Error> {
        for sequence in letter.id..=letter.id + letter.parts {
            self.wire.remove(names::DEAD_LETTERS, sequence).await?;
        }
        Ok(())
    }

    /// Removes all letters of an incarnation.
    pub(crate) async fn remove_all(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
    ) -> Result<(), Error> {
        self.remove_of(name, &incarnation.short()).await
    }

    pub(crate) async fn remove_of(&self, name: &SubscriptionName, short: &str) -> Result<(), Error> {
        self.purge(&names::dead_letters_of(name, short)).await
    }

    /// Removes all letters of a name, whatever its incarnations.
    pub(crate) async fn remove_of_name(&self, name: &SubscriptionName) -> Result<(), Error> {
        self.purge(&format!("{}.{name}.*.*.*", names::DEAD_LETTERS)).await
    }

    /// Removes records and their parts: the parts first, so that there is no record without them for long.
    async fn purge(&self, records: &str) -> Result<(), Error> {
        for subjects in [format!("{records}.part"), records.to_owned()] {
            self.wire.purge_below(names::DEAD_LETTERS, Some(&subjects), u64::MAX).await?;
        }
        Ok(())
    }
}

impl Broker {
    /// Sends a dead letter's message again: it takes its place in the event log, behind all events that were accepted
    /// before, and reaches this subscription alone. Then the letter is removed; a crash in between sends it twice.
    ///
    /// # Errors
    /// NATS away, or it refuses.
    pub async fn redeliver(
        &self,
        name: &SubscriptionName,
        letter: &Stored,
        message: Bytes,
    ) -> Result<(), Error> {
        let whose = Whose { subscription: name.clone(), incarnation: letter.letter.incarnation };
        self.events().letter(Letter { whose, message }).await?;
        self.dead_letters().remove(letter).await
    }
}

fn stored(message: &async_nats::jetstream::message::StreamMessage) -> Result<Stored, Error> {
    let letter = serde_json::from_slice(&message.payload)
        .map_err(|e| Error::corrupt(format!("dead letter {}", message.sequence), e))?;
    Ok(Stored { id: message.sequence, letter, parts: header(&message.headers, names::PARTS).unwrap_or(0) })
}

/// Bytes of one part: well below the payload limit, since headers count, too.
fn part_size(max_payload: usize) -> usize {
    (max_payload / 2).clamp(256, 1 << 20)
}

/// Is a message kept with its letter?
fn fits(size: usize, part_size: usize) -> bool {
    size <= LARGEST_KEPT && size.div_ceil(part_size) < LARGEST_BATCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_with_its_letter() {
        for (size, max_payload, expected) in [
            (10, 1 << 20, true),
            (64 << 20, 1 << 20, true),
            ((64 << 20) + 1, 1 << 20, false),
            (64 << 20, 8 << 20, true),
            // So many parts do not go into one batch.
            (64 << 20, 64 << 10, false),
        ] {
            assert_eq!(fits(size, part_size(max_payload)), expected, "{size} {max_payload}");
        }
    }
}
