//! Topics: what a subscription asks for, and whether an event or an object is part of it.

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The realm of the directory. Only this realm has a snapshot; events of other realms are live only.
pub const UDM_REALM: &str = "udm";

/// Longest topic in characters. The longest module name of UDM has about forty.
pub const LONGEST: usize = 200;
/// Most bytes of a compiled topic: a hundred of them fit a subscription. `\w+/\w+` takes less, `\w{100}` 5 MB.
const LARGEST: usize = 128 * 1024;

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
    /// The topic is longer than any that there can be.
    #[error("the topic has more than {LONGEST} characters: name fewer modules in one topic")]
    TooLong,
    /// The regular expression does not compile.
    #[error("the topic is no valid regular expression: {0}")]
    Regex(String),
    /// The regular expression takes too much memory.
    #[error(
        "the regular expression is too complex: use fewer or shorter repetitions, and [a-z] instead of \\w"
    )]
    TooComplex,
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
        if text.chars().nth(LONGEST).is_some() {
            return Err(TopicError::TooLong);
        }
        let regex = if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-')) {
            None
        } else {
            // Parsed alone first: `a)(b` must not become valid by our own parentheses.
            regex_syntax::parse(text).map_err(|error| TopicError::Regex(last_line(&error)))?;
            let compiled = RegexBuilder::new(&format!(r"\A(?:{text})\z"))
                .size_limit(LARGEST)
                .dfa_size_limit(LARGEST)
                .build();
            Some(compiled.map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => TopicError::TooComplex,
                error => TopicError::Regex(last_line(&error)),
            })?)
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

/// The regex crates draw a picture over several lines; its last line says what is wrong.
fn last_line(error: &dyn std::error::Error) -> String {
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
            (r"\w+/\w+", "users/user", "users/"),
            (r"[^/]+/[^/]+", "users/user", "users/"),
        ] {
            assert!(pattern(text).is_match(yes), "{text} {yes}");
            assert!(!pattern(text).is_match(no), "{text} {no}");
        }
    }

    #[test]
    fn what_does_not_compile_is_refused() {
        assert_eq!(TopicPattern::new("").unwrap_err(), TopicError::Empty);
        for bad in ["(", "a)(b", "[", "*", r"\", "(?=a)b", r"(a)\1", "(?x)a # b"] {
            assert!(matches!(TopicPattern::new(bad), Err(TopicError::Regex(_))), "{bad}");
        }
    }

    #[test]
    fn what_takes_too_much_is_refused() {
        for bad in [r"\w{100}", "a{1000}{1000}", "(a{99}){99}", r"(\pL{9}){9}", "(x+x+)+y{9999}"] {
            assert_eq!(TopicPattern::new(bad).unwrap_err(), TopicError::TooComplex, "{bad}");
        }
        assert!(TopicPattern::new(&"a".repeat(200)).is_ok());
        for long in ["a".repeat(201), "a*".repeat(101)] {
            assert_eq!(TopicPattern::new(&long).unwrap_err(), TopicError::TooLong);
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
