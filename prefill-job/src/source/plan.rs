//! From requested topics to the modules that are read, and their order.

use model::{
    RealmTopic,
    topic::{TopicPattern, UDM_REALM},
};

use super::SourceError;

/// Modules that show users once more: `users/self` answers 403 to everybody else, `users/passwd` is a view. No live
/// event ever carries their names.
const NEVER_READ: [&str; 2] = ["users/self", "users/passwd"];

/// The requested topics that have a snapshot, in order.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    patterns: Vec<TopicPattern>,
}

/// What to read of the modules that there are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Modules {
    /// Each module once, at the first topic that matches it.
    pub names: Vec<String>,
    /// Topics that match nothing.
    pub unmatched: Vec<String>,
}

impl Plan {
    /// Compiles the topics of the realm `udm`.
    pub fn new(topics: &[RealmTopic]) -> Result<Self, SourceError> {
        let of_udm = topics.iter().filter(|topic| topic.realm == UDM_REALM);
        let compile = |topic: &RealmTopic| {
            let refused = |problem: String| SourceError::Topic { topic: topic.topic.clone(), problem };
            let pattern = TopicPattern::new(&topic.topic).map_err(|e| refused(e.to_string()))?;
            match NEVER_READ.contains(&topic.topic.as_str()) {
                true => Err(refused("this module shows what is in users/user: ask for that".to_owned())),
                false => Ok(pattern),
            }
        };
        Ok(Self { patterns: of_udm.map(compile).collect::<Result<_, _>>()? })
    }

    /// Is nothing to be read?
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Was this type asked for?
    pub fn is_match(&self, object_type: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_match(object_type))
    }

    /// The modules to read, in the order of the topics, and for each topic in the order of the index.
    pub fn modules<'a>(&self, index: impl IntoIterator<Item = &'a str>) -> Modules {
        let index: Vec<&str> = index.into_iter().filter(|name| !NEVER_READ.contains(name)).collect();
        let mut modules = Modules { names: Vec::new(), unmatched: Vec::new() };
        for pattern in &self.patterns {
            let mut matched = index.iter().filter(|name| pattern.is_match(name)).peekable();
            if matched.peek().is_none() {
                modules.unmatched.push(pattern.as_str().to_owned());
            }
            for name in matched {
                if !modules.names.iter().any(|known| known == name) {
                    modules.names.push((*name).to_owned());
                }
            }
        }
        modules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: [&str; 7] = [
        "computers/computer",
        "computers/linux",
        "groups/group",
        "users/contact",
        "users/passwd",
        "users/self",
        "users/user",
    ];

    fn plan(topics: &[&str]) -> Result<Plan, SourceError> {
        let topic = |topic: &&str| RealmTopic { realm: "udm".to_owned(), topic: (*topic).to_owned() };
        Plan::new(&topics.iter().map(topic).collect::<Vec<_>>())
    }

    #[test]
    fn modules_are_read_in_the_order_of_the_topics_and_each_once() {
        for (topics, names, unmatched) in [
            (&["users/user", "groups/group"][..], &["users/user", "groups/group"][..], &[][..]),
            (&["groups/group", "users/user"], &["groups/group", "users/user"], &[]),
            (&["groups/group", "groups/.*", ".*/user"], &["groups/group", "users/user"], &[]),
            (&["users/.*"], &["users/contact", "users/user"], &[]),
            (
                &["users/user", ".*"],
                &["users/user", "computers/computer", "computers/linux", "groups/group", "users/contact"],
                &[],
            ),
            (&["users/use", "user", "users/user"], &["users/user"], &["users/use", "user"]),
            (&["users/self.*"], &[], &["users/self.*"]),
            (&[], &[], &[]),
        ] {
            let found = plan(topics).unwrap().modules(INDEX);
            assert_eq!(
                (&*found.names, &*found.unmatched),
                (&*owned(names), &*owned(unmatched)),
                "{topics:?}"
            );
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn other_realms_have_no_snapshot() {
        let topics =
            ["other", "UDM", ""].map(|realm| RealmTopic { realm: realm.to_owned(), topic: "(".to_owned() });
        assert!(Plan::new(&topics).unwrap().is_empty());
    }

    #[test]
    fn topics_that_can_never_be_read_are_refused_by_name() {
        for topic in ["users/self", "users/passwd", "(", ""] {
            let error = plan(&["users/user", topic]).unwrap_err();
            assert!(!error.is_transient());
            assert!(error.to_string().contains(&format!("{topic:?}")), "{error}");
        }
    }
}
