//! What belongs to a subscription that is gone: streams and dead letters that no entry names. A slow registration, or a
//! writer that slept, makes them after a removal; they may hold personal data.

use std::collections::{BTreeSet, HashMap, HashSet};

use model::{Entry, SubscriptionName};

use crate::{Broker, Error, Listed, Registry, names};

/// A queue, or dead letters, of an incarnation that no entry names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Orphan {
    /// The name.
    pub name: SubscriptionName,
    /// The first digits of the incarnation.
    short: String,
}

impl Orphan {
    /// Of a stream's name, or of the subject of a dead letter.
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("stream:").map(|rest| rest.split_once(':'));
        let letter = || text.strip_prefix(names::DEAD_LETTERS)?.strip_prefix('.')?.split_once('.');
        let (name, rest) = rest.unwrap_or_else(letter)?;
        let short = rest.split('.').next()?.to_owned();
        let is_ours = short.len() == 8 && short.bytes().all(|b| b.is_ascii_hexdigit());
        Some(Self { name: name.parse().ok().filter(|_| is_ours)?, short })
    }

    fn belongs_to(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Subscription(s) if s.incarnation.short() == self.short)
    }
}

/// Those among names of streams and subjects of dead letters that no entry names. `listed` was read after them: an
/// entry is written before anything that belongs to it.
fn orphans(found: &BTreeSet<Orphan>, listed: &Listed) -> Vec<Orphan> {
    // A bucket without any entry is rather one that was lost.
    if listed.entries.is_empty() {
        return Vec::new();
    }
    let entries: HashMap<&SubscriptionName, &Entry> =
        listed.entries.iter().map(|(name, entry)| (name, &entry.value)).collect();
    let unreadable: HashSet<&str> = listed.unreadable.iter().map(|entry| entry.name.as_str()).collect();
    let named = |orphan: &Orphan| {
        unreadable.contains(orphan.name.as_str())
            || entries.get(&orphan.name).is_some_and(|entry| orphan.belongs_to(entry))
    };
    found.iter().filter(|orphan| !named(orphan)).cloned().collect()
}

impl Broker {
    /// Streams and dead letters that no entry names.
    ///
    /// # Errors
    /// NATS away.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, Error> {
        let streams = self.stream_names().await?;
        let letters = self.dead_letters().subjects().await?;
        let found = streams.iter().chain(&letters).filter_map(|text| Orphan::parse(text)).collect();
        Ok(orphans(&found, &self.registry().list().await?))
    }

    /// Removes what no entry names; false if an entry names it after all.
    ///
    /// # Errors
    /// NATS away; calling it again is safe.
    pub async fn remove_orphan(&self, orphan: &Orphan) -> Result<bool, Error> {
        // An incarnation never comes again, so what is not named at this moment never will be.
        let entry = Registry::new(self.wire.clone()).get(&orphan.name).await?;
        if entry.is_some_and(|entry| orphan.belongs_to(&entry.value)) {
            return Ok(false);
        }
        let Orphan { name, short } = orphan;
        self.delete_stream(&format!("stream:{name}:{short}")).await?;
        self.dead_letters().remove_of(name, short).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use model::{
        Incarnation, Subscription,
        subscription::{Registration, Tombstone},
    };
    use uuid::Uuid;

    use super::*;
    use crate::{Revised, Unreadable};

    const MINE: &str = "00000001";

    #[test]
    fn what_no_entry_names() {
        let registration =
            Registration { request_prefill: true, ..Registration::new("mail".parse().unwrap(), vec![]) };
        let now = "2026-01-01T00:00:00".parse().unwrap();
        let mail = Subscription::reserve(registration, Incarnation(Uuid::from_u128(1 << 96)), 1, now);
        let revised = |value| Revised { value, revision: 1 };
        let entries = vec![
            ("mail".parse().unwrap(), revised(Entry::Subscription(mail))),
            ("gone".parse().unwrap(), revised(Entry::Tombstone(Tombstone { next_sequence: 1 }))),
        ];
        let unreadable = vec![Unreadable { name: "newer".to_owned(), why: String::new() }];
        let listed = Listed { entries, unreadable };
        for (text, expected) in [
            (format!("stream:mail:{MINE}"), false),
            (format!("dead-letters.mail.{MINE}.live.7"), false),
            ("stream:mail:00000002".to_owned(), true),
            (format!("stream:gone:{MINE}"), true),
            (format!("dead-letters.gone.{MINE}.prefill-3.ab"), true),
            (format!("stream:never:{MINE}"), true),
            // Of a newer version, perhaps.
            (format!("stream:newer:{MINE}"), false),
            // Not ours.
            ("stream:gone".to_owned(), false),
            ("stream:gone:x".to_owned(), false),
            ("stream:gone:0000000g".to_owned(), false),
            ("incoming".to_owned(), false),
            ("KV_SUBSCRIPTIONS".to_owned(), false),
        ] {
            let found: BTreeSet<Orphan> = Orphan::parse(&text).into_iter().collect();
            assert_eq!(!orphans(&found, &listed).is_empty(), expected, "{text}");
            assert_eq!(orphans(&found, &Listed::default()), [], "an empty bucket names nothing");
        }
    }
}
