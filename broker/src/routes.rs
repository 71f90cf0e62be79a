//! Who wants an event: the routes of many subscriptions, with the answers remembered by topic.

use std::collections::{BTreeMap, HashMap};

use model::{Incarnation, checkpoint::Epoch, topic::Route};
use serde::Deserialize;

/// The part of an event that routes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Head {
    /// Its realm.
    pub realm: String,
    /// Its topic.
    pub topic: String,
}

impl Head {
    /// Reads it from an event.
    ///
    /// # Errors
    /// It is none.
    pub fn of(payload: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(payload)
    }
}

/// The routes of many subscriptions.
#[derive(Debug, Default)]
pub struct Routes {
    routes: BTreeMap<Incarnation, (Epoch, Route)>,
    /// Answers by realm and topic. There are few topics, and regular expressions are slow.
    answers: HashMap<(String, String), Vec<Incarnation>>,
}

/// Answers kept; beyond this somebody invents topics, and remembering is of no use.
const ANSWERS_MAX: usize = 10_000;

impl Routes {
    /// A route takes effect, unless a newer one has: a marker may have been sent twice, and a queue may be opened when
    /// the log has said more already.
    pub fn take_effect(&mut self, incarnation: Incarnation, epoch: Epoch, route: Route) {
        if self.routes.get(&incarnation).is_none_or(|(known, _)| epoch >= *known) {
            self.routes.insert(incarnation, (epoch, route));
            self.answers.clear();
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, incarnation: Incarnation) {
        self.routes.remove(&incarnation);
        self.answers.clear();
    }

    /// The subscriptions that asked for this topic.
    pub fn of(&mut self, realm: &str, topic: &str) -> &[Incarnation] {
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.clear();
        }
        let routes = &self.routes;
        self.answers.entry((realm.to_owned(), topic.to_owned())).or_insert_with(|| {
            routes.iter().filter(|(_, (_, route))| route.is_match(realm, topic)).map(|(i, _)| *i).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::RealmTopic;
    use uuid::Uuid;

    fn route(topic: &str) -> Route {
        Route::new(&[RealmTopic { realm: "udm".into(), topic: topic.into() }]).unwrap()
    }

    #[test]
    fn answers_follow_the_routes() {
        let (a, b) = (Incarnation(Uuid::from_u128(1)), Incarnation(Uuid::from_u128(2)));
        let mut routes = Routes::default();
        assert!(routes.of("udm", "users/user").is_empty());
        routes.take_effect(a, Epoch::default(), route("users/user"));
        routes.take_effect(b, Epoch::default(), route("users/.*"));
        assert_eq!(routes.of("udm", "users/user"), [a, b]);
        assert_eq!(routes.of("udm", "users/ldap"), [b]);
        assert!(routes.of("other", "users/user").is_empty());
        routes.remove(a);
        assert_eq!(routes.of("udm", "users/user"), [b]);
    }

    #[test]
    fn the_newer_route_stays_whichever_comes_last() {
        let a = Incarnation(Uuid::from_u128(1));
        let epoch = |round, topics_version| Epoch { round, topics_version };
        let mut routes = Routes::default();
        for (epoch, topic, expected) in [
            (epoch(1, 0), "first", "first"),
            (epoch(1, 1), "second", "second"),
            (epoch(1, 0), "late", "second"),
            (epoch(2, 0), "third", "third"),
            (epoch(1, 1), "late", "third"),
            (epoch(2, 0), "same", "same"),
        ] {
            routes.take_effect(a, epoch, route(topic));
            let of = ["first", "second", "late", "third", "same"].map(|t| !routes.of("udm", t).is_empty());
            let is = ["first", "second", "late", "third", "same"].map(|t| t == expected);
            assert_eq!(of, is, "{topic}");
        }
    }
}
