//! Marker and checkpoint: from which place of the event log on a queue gets which events, and how far it is.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, RealmTopic, Selection, Subscription, SubscriptionName};

/// A control message in the event log: the events behind it belong to this round, and are chosen by these topics.
///
/// The topics stand in the marker, and from there in the checkpoint, so that each dispatcher chooses by the same topics
/// at the same place of the log, whenever it reads that place: the entry may have changed again by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The subscription.
    pub subscription: SubscriptionName,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Which state of the subscription this is.
    #[serde(flatten)]
    pub epoch: Epoch,
    /// Its topics in that state.
    pub realms_topics: Vec<RealmTopic>,
    /// Which objects of them, and what of those; `None`: all. The same in each of its states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Is it recorded what the consumer is told of? The same in each of its states.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub track: bool,
}

/// The state of a subscription that a marker puts into effect. It only grows, and a marker may be sent twice and come
/// late: then it is older than what is in effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch {
    /// Round of the prefill.
    pub round: u32,
    /// How often the topics were changed.
    #[serde(default)]
    pub topics_version: u32,
}

impl Subscription {
    /// The state that the next marker puts into effect.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch { round: self.prefill.round, topics_version: self.topics_version }
    }

    /// The marker of this state.
    #[must_use]
    pub fn marker(&self) -> Marker {
        Marker {
            subscription: self.name.clone(),
            incarnation: self.incarnation,
            epoch: self.epoch(),
            realms_topics: self.realms_topics.clone(),
            selection: self.selection.clone(),
            track: self.track,
        }
    }
}

/// The message on `<name>.copied`. It is written first in each batch of copies, on the condition that it is still
/// the last one, so a copy is exactly once over any crash of dispatcher or server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whose queue this is.
    pub incarnation: Incarnation,
    /// Sequence in `incoming` of the last event that was looked at for this queue; 0 before activation.
    pub incoming_seq: u64,
    /// What is in effect from here on. A restarted dispatcher stamps live messages with its round.
    #[serde(flatten)]
    pub epoch: Epoch,
    /// The topics that are in effect from here on.
    #[serde(default)]
    pub realms_topics: Vec<RealmTopic>,
    /// False until the marker of the registration was seen: events up to it belong to the snapshot.
    pub active: bool,
}

impl Checkpoint {
    /// The checkpoint after a marker at `sequence`. `None` if that place is behind us, or the marker is older than what
    /// is in effect.
    #[must_use]
    pub fn after(&self, marker: &Marker, sequence: u64) -> Option<Self> {
        if self.active && (self.incoming_seq >= sequence || marker.epoch < self.epoch) {
            return None;
        }
        Some(Self {
            incarnation: self.incarnation,
            incoming_seq: sequence,
            epoch: marker.epoch,
            realms_topics: marker.realms_topics.clone(),
            active: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const MINE: Incarnation = Incarnation(Uuid::from_u128(1));

    fn marker(round: u32, topics_version: u32) -> Marker {
        let topic = format!("users/v{topics_version}");
        Marker {
            subscription: "mail".parse().unwrap(),
            incarnation: MINE,
            epoch: Epoch { round, topics_version },
            realms_topics: vec![RealmTopic { realm: "udm".into(), topic }],
            selection: None,
            track: false,
        }
    }

    #[test]
    fn a_marker_counts_once_and_never_takes_back() {
        let new = Checkpoint {
            incarnation: MINE,
            incoming_seq: 0,
            epoch: Epoch { round: 1, topics_version: 0 },
            realms_topics: vec![],
            active: false,
        };
        let first = new.after(&marker(1, 0), 7).unwrap();
        assert_eq!((first.incoming_seq, first.active), (7, true));
        assert_eq!(first.realms_topics, marker(1, 0).realms_topics);
        let changed = first.after(&marker(1, 1), 9).unwrap();
        for (sent_again, sequence, counts) in [
            (marker(1, 1), 9, false),
            (marker(1, 0), 12, false),
            (marker(1, 1), 12, true),
            (marker(2, 1), 12, true),
            (marker(2, 2), 8, false),
        ] {
            assert_eq!(changed.after(&sent_again, sequence).is_some(), counts, "{sent_again:?} {sequence}");
        }
        // A later round never goes back, whatever its topics say.
        let second = changed.after(&marker(2, 1), 20).unwrap();
        assert_eq!(second.after(&marker(1, 1), 30), None);
    }

    #[test]
    fn what_is_stored_is_flat() {
        let text = serde_json::to_value(marker(2, 3)).unwrap();
        assert_eq!((&text["round"], &text["topics_version"]), (&2.into(), &3.into()));
    }
}
