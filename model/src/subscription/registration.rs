//! What a client asks for when it registers, and what that means when the name is taken.

use crate::{RealmTopic, Selection, Subscription, SubscriptionName, resync::MaxRemovals};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Name of the subscription.
    pub name: SubscriptionName,
    /// Requested topics; their order is the order of the prefill.
    pub realms_topics: Vec<RealmTopic>,
    /// Should the queue begin with all that exists?
    pub request_prefill: bool,
    /// Which objects of the topics, and what of them; `None`: all.
    pub selection: Option<Selection>,
    /// Is it recorded what the consumer is told of, so that a resync can tell what it must remove?
    pub track: bool,
    /// How many removals a resync may tell without being approved; `None`: as the installation has it.
    pub max_removals: Option<MaxRemovals>,
}

impl Registration {
    /// What a client asks for that names nothing else: live events of these topics, all of each object.
    #[must_use]
    pub fn new(name: SubscriptionName, realms_topics: Vec<RealmTopic>) -> Self {
        Self {
            name,
            realms_topics,
            request_prefill: false,
            selection: None,
            track: false,
            max_removals: None,
        }
    }
}

/// What a registration means when the name is taken already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationOutcome {
    /// The same parameters: 200, and what is missing is completed.
    Same,
    /// Another order or set of topics: 409.
    TopicsDiffer,
    /// The other answer to "prefill?": 409.
    PrefillDiffers,
    /// Another selection: 409.
    SelectionDiffers,
    /// The other answer to "track?": 409.
    TrackDiffers,
    /// Another limit of removals: 409.
    MaxRemovalsDiffers,
}

/// Compares a request with what is registered. Topics are compared as an ordered list, because their order is the
/// order of the prefill.
#[must_use]
pub fn compare_registration(existing: &Subscription, asked: &Registration) -> RegistrationOutcome {
    if existing.realms_topics != asked.realms_topics {
        RegistrationOutcome::TopicsDiffer
    } else if existing.request_prefill != asked.request_prefill {
        RegistrationOutcome::PrefillDiffers
    } else if existing.selection != asked.selection {
        RegistrationOutcome::SelectionDiffers
    } else if existing.track != asked.track {
        RegistrationOutcome::TrackDiffers
    } else if existing.max_removals != asked.max_removals {
        RegistrationOutcome::MaxRemovalsDiffers
    } else {
        RegistrationOutcome::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;
    use uuid::Uuid;

    #[test]
    fn a_repeated_registration_is_compared_in_order() {
        let mut asked = Registration {
            request_prefill: true,
            ..Registration::new(
                "mail".parse().unwrap(),
                vec![RealmTopic { realm: "udm".into(), topic: "users/user".into() }],
            )
        };
        let now = "2026-01-01T00:00:00".parse().unwrap();
        let s = Subscription::reserve(asked.clone(), Incarnation(Uuid::from_u128(7)), 5, now);
        assert_eq!(compare_registration(&s, &asked), RegistrationOutcome::Same);
        asked.max_removals = Some(MaxRemovals::Objects(5));
        assert_eq!(compare_registration(&s, &asked), RegistrationOutcome::MaxRemovalsDiffers);
        asked.track = true;
        assert_eq!(compare_registration(&s, &asked), RegistrationOutcome::TrackDiffers);
        let filter = Some("(mail=*)".to_owned());
        asked.selection = Some(Selection { filter, ..Selection::default() });
        assert_eq!(compare_registration(&s, &asked), RegistrationOutcome::SelectionDiffers);
        asked.request_prefill = false;
        assert_eq!(compare_registration(&s, &asked), RegistrationOutcome::PrefillDiffers);
        asked.realms_topics.clear();
        assert_eq!(compare_registration(&s, &asked), RegistrationOutcome::TopicsDiffer);
    }
}
