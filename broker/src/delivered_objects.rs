//! What a consumer was told of, in the stream of its queue: written with each batch of copies and by each attempt, read
//! and made small again by the next attempt. The rules are those of `model::resync::KnownObject`: the set only grows between
//! two prefills, so a message that comes twice, or of an attempt that failed, does no harm.

use std::time::SystemTime;

use model::resync::{KnownObject, KnownObjects};

use serde::Serialize;

use crate::{
    Error, FenceHolder, Queue,
    batch_read::Limits,
    names,
    wire::{Outgoing, headers},
};

/// What is read at once: some chunks of an attempt, or many small ones of live messages.
const PAGE: Limits = Limits { messages: 256, bytes: 2 << 20 };

/// A part of the set.
#[derive(Clone, Debug)]
pub struct KnownChunk {
    /// Its number in the queue.
    pub sequence: u64,
    /// When it was written, by the server's clock.
    pub written: SystemTime,
    /// It came with live messages.
    pub live: bool,
    /// What was named.
    pub known: KnownObjects,
}

/// How objects are written: as `KnownObjects`, without a copy of each.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    absent: bool,
    objects: Vec<&'a KnownObject>,
}

impl Queue {
    /// Messages that add objects to the set, each with a subject of its own.
    pub(crate) fn known_messages(
        &self,
        KnownObjects { removed, absent, objects }: &KnownObjects,
        mut subject: impl FnMut(usize) -> String,
    ) -> Result<Vec<Outgoing>, Error> {
        let (removed, absent) = (*removed, *absent);
        let message = |(n, objects)| {
            let subject = subject(n);
            let written = Written { removed, absent, objects };
            let payload = serde_json::to_vec(&written).map_err(|e| Error::corrupt(&subject, e))?;
            let headers = headers([(names::EXPECTED_STREAM, self.stream.clone())]);
            Ok(Outgoing { subject, headers, payload: payload.into() })
        };
        in_parts(objects, self.broker.largest_message() / 2).into_iter().enumerate().map(message).collect()
    }

    /// The next parts of the set at or above a number, in order; none at the end. `live`: only those that came with
    /// live messages.
    ///
    /// # Errors
    /// NATS away, or a part that can't be read.
    pub async fn known_from(&self, sequence: u64, live: bool) -> Result<Vec<KnownChunk>, Error> {
        let subject =
            if live { names::known_live_subjects(&self.name) } else { names::known_subjects(&self.name) };
        // Not by direct gets, which attempts may not use.
        let page = self.wire().many_from_leader(&self.stream, &subject, sequence, PAGE).await?;
        let parsed = page.unwrap_or_default().messages.into_iter().map(|message| {
            let known = serde_json::from_slice(&message.payload)
                .map_err(|e| Error::corrupt(format!("{} of {}", message.subject, self.stream), e))?;
            let live = names::is_known_live(&message.subject);
            Ok(KnownChunk { sequence: message.sequence, written: message.time.into(), live, known })
        });
        parsed.collect()
    }

    /// Removes what was known before an attempt: once that is sealed, what is left of it was written anew.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn forget_known_below(&self, sequence: u64) -> Result<(), Error> {
        let subjects = names::known_subjects(&self.name);
        self.wire().purge_below(&self.stream, Some(&subjects), sequence).await.map(drop)
    }
}

/// Divides objects so that NATS carries each part.
fn in_parts(objects: &[KnownObject], largest: usize) -> Vec<Vec<&KnownObject>> {
    let mut parts: Vec<Vec<&KnownObject>> = Vec::new();
    let mut bytes = 0;
    for object in objects {
        let size = object.size();
        match parts.last_mut() {
            Some(part) if bytes + size <= largest => part.push(object),
            _ => {
                parts.push(vec![object]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    parts
}

impl FenceHolder {
    /// The number below which the set is what was known before this attempt.
    #[must_use]
    pub fn claimed_at(&self) -> u64 {
        self.claimed_at
    }

    /// When the fence was taken, by the server's clock. To be asked for before anything is written: the fence is
    /// replaced later, and what was replaced is gone. `None`: it is.
    ///
    /// # Errors
    /// NATS away.
    pub async fn claimed_when(&self) -> Result<Option<SystemTime>, Error> {
        let found = self.queue.wire().message(&self.queue.stream, self.claimed_at).await?.message();
        Ok(found.map(|message| message.time.into()))
    }

    /// Removes what was known before this attempt: to be called after the seal, when what is left of it was written
    /// anew. Not done, it only makes the next attempt look at more.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn forget_known(&self) -> Result<(), Error> {
        self.queue.forget_known_below(self.claimed_at).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_large_as_nats_carries_and_leave_nothing_out() {
        let object = |dn: &str| KnownObject::at("users/user".to_owned(), dn.to_owned());
        let size = object("dn").size();
        for (count, largest, expected) in [
            (0, size, vec![]),
            (1, size, vec![1]),
            (5, 2 * size, vec![2, 2, 1]),
            (4, 2 * size, vec![2, 2]),
            (4, 2 * size - 1, vec![1, 1, 1, 1]),
            (7, 3 * size + 1, vec![3, 3, 1]),
            // One that is too large alone is refused by NATS, and not by us for ever.
            (2, 1, vec![1, 1]),
        ] {
            let objects: Vec<KnownObject> = (0..count).map(|_| object("dn")).collect();
            let parts = in_parts(&objects, largest);
            assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{count} in {largest}");
        }
    }
}
