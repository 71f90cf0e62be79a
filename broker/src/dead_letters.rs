//! Dead letters: what a queue can't carry is set aside with its reason, and can be sent again.
//!
//! A letter is one atomic batch in the stream `dead-letters`: its record, and right after it the message itself in
//! parts that fit. So it is there whole or not at all, and its parts follow from its number.

use bytes::{Bytes, BytesMut};
use model::{DeadLetter, Incarnation, KnownObject, Subscription, SubscriptionName};

use crate::{
    Broker, Error, names,
    names::Part,
    wire::{Got, LARGEST_BATCH, Outgoing, Wire, header, headers},
};

/// Largest message that is kept with its letter, in bytes; of a larger one the record remains.
const LARGEST_KEPT: usize = 64 << 20;

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

    /// Sets a message aside. Setting it aside again, after a crash, makes a second letter.
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
        let subject = names::dead_letter_subject(name, letter.incarnation);
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
        let mut batch = vec![outgoing(&subject, Bytes::from(record), parts.len())];
        let below = format!("{subject}.part");
        batch.extend(parts.into_iter().map(|part| outgoing(&below, Bytes::copy_from_slice(part), 0)));
        self.wire.publish_batch(batch).await.map(drop).map_err(|refusal| refusal.into_error(&action))
    }

    /// The letters of a subscription, oldest first, at most `limit`.
    ///
    /// # Errors
    /// NATS away, or a letter can't be read.
    pub async fn list(
        &self,
        name: &SubscriptionName,
        incarnation: Incarnation,
        limit: usize,
    ) -> Result<Vec<Stored>, Error> {
        let subject = names::dead_letter_subject(name, incarnation);
        let (mut letters, mut from) = (vec![], 1);
        while letters.len() < limit {
            let Some(message) = self.wire.next(names::DEAD_LETTERS, &subject, from).await?.message() else {
                break;
            };
            from = message.sequence + 1;
            letters.push(stored(&message)?);
        }
        Ok(letters)
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
        match self.wire.message(names::DEAD_LETTERS, id).await? {
            Got::Message(m) if *m.subject == names::dead_letter_subject(name, incarnation) => {
                stored(&m).map(Some)
            }
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
        let subject = names::dead_letter_subject(name, incarnation);
        for subject in [format!("{subject}.part"), subject] {
            self.wire.purge_below(names::DEAD_LETTERS, Some(&subject), u64::MAX).await?;
        }
        Ok(())
    }
}

impl Broker {
    /// Sends a dead letter's message again: it goes to the end of the queue, as a live message of the current round.
    /// Then the letter is removed; a crash in between sends it twice.
    ///
    /// # Errors
    /// NATS away, or the queue is full or gone.
    pub async fn redeliver(
        &self,
        subscription: &Subscription,
        letter: &Stored,
        message: Bytes,
    ) -> Result<(), Error> {
        let Subscription { name, track, prefill, .. } = subscription;
        let incarnation = letter.letter.incarnation;
        let queue = self.queue(name, incarnation);
        let named = if *track { KnownObject::named_by(&message) } else { Vec::new() };
        let subject = |n| names::known_live_subject(name, format_args!("letter{}", letter.id), n);
        let mut batch = queue.known_messages(&named, false, subject)?;
        batch.push(Outgoing {
            subject: queue.subject(Part::Main),
            headers: headers([
                (names::EXPECTED_STREAM, queue.stream.clone()),
                (names::INCARNATION, incarnation.to_string()),
                (names::ROUND, prefill.round.to_string()),
                // Of no event of the log.
                (names::INCOMING_SEQ, "0".to_owned()),
            ]),
            payload: message,
        });
        let action = format!("sending a dead letter of {name} again");
        queue.wire().publish_batch(batch).await.map_err(|refusal| refusal.into_error(&action))?;
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
