//! Topics: what a subscription asks for, and whether an event or an object is part of it.

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The realm of the directory. Only this realm has a snapshot; events of other realms are live only.
pub const UDM_REALM: &str = "udm";

/// One requested topic, as the client wrote it. The topic may be a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct RealmTopic {
    /// The source of the events, `udm` for the directory.
    pub realm: String,
    /// A UDM module such as `users/user`, or a regular expression that matches whole module names.
    pub topic: String,
}

/// A topic that is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The topic is empty.
    #[error("the topic is empty: name a UDM module such as users/user, or a regular expression")]
    Empty,
    /// The regular expression does not compile, or is too big.
    #[error("the topic is no valid regular expression: {0}")]
    Regex(String),
}

/// A topic as a pattern that matches *whole* topic names, in the prefill and live alike.
#[derive(Clone, Debug)]
pub struct TopicPattern {
    text: String,
    /// `None` when the text has no special character: then equality decides, which is much cheaper.
    regex: Option<Regex>,
}

impl TopicPattern {
    /// Compiles a topic.
    ///
    /// # Errors
    /// [`TopicError`] if it is empty or no regular expression.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        let regex = if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-')) {
            None
        } else {
            // Compiled alone first: `a)(b` must not become valid by our own parentheses.
            Regex::new(text).map_err(|e| TopicError::Regex(last_line(&e)))?;
            Some(Regex::new(&format!(r"\A(?:{text})\z")).map_err(|e| TopicError::Regex(last_line(&e)))?)
        };
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Does the pattern match this whole topic name?
    #[must_use]
    pub fn is_match(&self, topic: &str) -> bool {
        match &self.regex {
            None => self.text == topic,
            Some(regex) => regex.is_match(topic),
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The regex crate draws a picture over several lines; its last line says what is wrong.
fn last_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Everything that one subscription asked for, compiled.
#[derive(Clone, Debug, Default)]
pub struct Route {
    topics: Vec<(String, TopicPattern)>,
}

impl Route {
    /// Compiles all topics of a subscription.
    ///
    /// # Errors
    /// The index of the first topic that is not usable, and why.
    pub fn new(topics: &[RealmTopic]) -> Result<Self, (usize, TopicError)> {
        let compile = |(index, topic): (usize, &RealmTopic)| {
            TopicPattern::new(&topic.topic).map(|p| (topic.realm.clone(), p)).map_err(|e| (index, e))
        };
        Ok(Self { topics: topics.iter().enumerate().map(compile).collect::<Result<_, _>>()? })
    }

    /// Did the subscription ask for this? A topic that is listed twice still counts once.
    #[must_use]
    pub fn is_match(&self, realm: &str, topic: &str) -> bool {
        self.topics.iter().any(|(r, pattern)| r == realm && pattern.is_match(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::new(text).unwrap()
    }

    #[test]
    fn a_plain_name_matches_only_itself() {
        assert!(pattern("users/user").is_match("users/user"));
        for other in ["users/user2", "xusers/user", "users", "", "users/user\n"] {
            assert!(!pattern("users/user").is_match(other), "{other:?}");
        }
    }

    #[test]
    fn an_expression_matches_whole_names() {
        for (text, yes, no) in [
            ("users/.*", "users/user", "xusers/user"),
            ("users|groups/group", "groups/group", "users/user"),
            ("(?i)USERS/user", "users/user", "users/user2"),
            ("users/user$", "users/user", "users/user\n"),
        ] {
            assert!(pattern(text).is_match(yes), "{text} {yes}");
            assert!(!pattern(text).is_match(no), "{text} {no}");
        }
    }

    #[test]
    fn what_does_not_compile_is_refused() {
        assert_eq!(TopicPattern::new("").unwrap_err(), TopicError::Empty);
        for bad in ["(", "a)(b", "[", "*", r"\", "a{1000000}{1000000}"] {
            assert!(matches!(TopicPattern::new(bad), Err(TopicError::Regex(_))), "{bad}");
        }
    }

    #[test]
    fn a_route_looks_at_the_realm_too() {
        let topics = [("udm", "users/user"), ("other", ".*")];
        let topics = topics.map(|(r, t)| RealmTopic { realm: r.into(), topic: t.into() });
        let route = Route::new(&topics).unwrap();
        assert!(route.is_match("udm", "users/user") && route.is_match("other", "x"));
        assert!(!route.is_match("udm", "x"));
        assert!(!Route::default().is_match("udm", "users/user"));
    }
}
