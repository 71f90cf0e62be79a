//! What a subscription gets: by its topics, and by its selection, if it has one. What has none goes out byte by byte, and
//! is never looked into.
//!
//! The dispatcher copies by it, and replicas of the API read from the log by it: so both choose the same.

use bytes::Bytes;
use model::{
    RealmTopic, Selection,
    selection::{Seen, SelectionError, Selector},
    topic::{Route, TopicError},
};

/// What a subscription gets.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Its topics.
    pub route: Route,
    selector: Option<Selector>,
}

/// Why a matcher can't be used. The API lets nothing of that kind in.
#[derive(Debug, thiserror::Error)]
pub enum MatcherError {
    /// A topic.
    #[error("topic {0}: {1}")]
    Topic(usize, #[source] TopicError),
    /// The selection.
    #[error("the selection: {0}")]
    Selection(#[from] SelectionError),
}

impl Matcher {
    /// Compiles topics and selection.
    ///
    /// # Errors
    /// They can't be used.
    pub fn new(topics: &[RealmTopic], selection: Option<&Selection>) -> Result<Self, MatcherError> {
        let route = Route::new(topics).map_err(|(index, error)| MatcherError::Topic(index, error))?;
        let selector = selection.map(Selection::compile).transpose()?;
        Ok(Self { route, selector })
    }

    /// Does it get only some objects of its topics?
    #[must_use]
    pub fn selects(&self) -> bool {
        self.selector.is_some()
    }

    /// An event of its topics as the subscription sees it; `None` if it does not.
    ///
    /// # Errors
    /// The event can't be read. What can't be told apart may be what the subscription must not have.
    pub fn see(&self, payload: Bytes) -> serde_json::Result<Option<Bytes>> {
        let Some(selector) = &self.selector else { return Ok(Some(payload)) };
        Ok(match selector.event(&payload)? {
            Seen::AsItIs => Some(payload),
            Seen::Changed(text) => Some(text.into()),
            Seen::Nothing => None,
        })
    }
}
