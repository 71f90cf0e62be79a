//! What a subscription gets: by its topics, and by its selection, if it has one. What has none is copied byte by byte,
//! and never looked into.

use bytes::Bytes;
use model::{RealmTopic, Route, Seen, Selection, Selector, SubscriptionName};

use crate::metrics::Metrics;

/// What a subscription gets.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub route: Route,
    selector: Option<Selector>,
}

impl Choice {
    /// `None`: it can't be used, which was told. The API lets nothing of that kind in.
    pub(crate) fn new(
        name: &SubscriptionName,
        topics: &[RealmTopic],
        selection: Option<&Selection>,
    ) -> Option<Self> {
        let route = route_of(name, topics)?;
        let told = |error: model::SelectionError| {
            tracing::error!(subscription = %name, %error, "the selection can't be used: no events for it");
        };
        let selector = selection.map(Selection::compile).transpose().map_err(told).ok()?;
        Some(Self { route, selector })
    }

    /// Does it get only some objects of its topics?
    pub(crate) fn selects(&self) -> bool {
        self.selector.is_some()
    }

    /// An event of its topics as the subscription sees it; `None` if it does not.
    pub(crate) fn see(&self, name: &SubscriptionName, payload: Bytes, metrics: &Metrics) -> Option<Bytes> {
        let Some(selector) = &self.selector else { return Some(payload) };
        match selector.event(&payload) {
            Ok(Seen::AsItIs) => Some(payload),
            Ok(Seen::Changed(text)) => Some(text.into()),
            Ok(Seen::Nothing) => {
                metrics.not_selected.inc();
                None
            }
            Err(error) => {
                // What can't be told apart may be what the subscription must not have.
                tracing::error!(subscription = %name, %error, "an event can't be read and is not selected");
                metrics.not_selected.inc();
                None
            }
        }
    }
}

/// Compiles topics.
pub(crate) fn route_of(name: &SubscriptionName, topics: &[RealmTopic]) -> Option<Route> {
    let told = |(index, error): (usize, model::TopicError)| {
        tracing::error!(subscription = %name, index, %error, "a topic can't be used: no events for it");
    };
    Route::new(topics).map_err(told).ok()
}
