//! Who wants an event: the routes of all lanes, with the answers remembered by topic.

use std::collections::{BTreeMap, HashMap};

use model::{Epoch, Incarnation, Route};
use serde::Deserialize;

/// The part of an event that routes it.
#[derive(Deserialize)]
pub(crate) struct Head {
    pub realm: String,
    pub topic: String,
}

impl Head {
    pub(crate) fn of(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}

/// The routes of all subscriptions that are active.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    routes: BTreeMap<Incarnation, (Epoch, Route)>,
    /// Answers by realm and topic. There are few topics, and regular expressions are slow.
    answers: HashMap<(String, String), Vec<Incarnation>>,
}

/// Answers kept; beyond this somebody invents topics, and remembering is of no use.
const ANSWERS_MAX: usize = 10_000;

impl Routes {
    pub(crate) fn insert(&mut self, incarnation: Incarnation, epoch: Epoch, route: Route) {
        self.routes.insert(incarnation, (epoch, route));
        self.answers.clear();
    }

    /// What is in effect for this subscription at the place that is read.
    pub(crate) fn epoch(&self, incarnation: Incarnation) -> Option<Epoch> {
        self.routes.get(&incarnation).map(|(epoch, _)| *epoch)
    }

    pub(crate) fn remove(&mut self, incarnation: Incarnation) {
        self.routes.remove(&incarnation);
        self.answers.clear();
    }

    /// The subscriptions that asked for this topic.
    pub(crate) fn of(&mut self, realm: &str, topic: &str) -> &[Incarnation] {
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
        routes.insert(a, Epoch::default(), route("users/user"));
        routes.insert(b, Epoch::default(), route("users/.*"));
        assert_eq!(routes.of("udm", "users/user"), [a, b]);
        assert_eq!(routes.of("udm", "users/ldap"), [b]);
        assert!(routes.of("other", "users/user").is_empty());
        routes.remove(a);
        assert_eq!(routes.of("udm", "users/user"), [b]);
    }
}
