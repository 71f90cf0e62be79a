//! What the API tells of itself: all names in one place.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// One kind of request. Labels are fixed words and codes, never what a client sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Request {
    pub method: &'static str,
    pub route: String,
    pub status: u16,
}

/// Figures of the API.
pub(crate) struct Metrics {
    registry: Registry,
    pub requests: Family<Request, Counter>,
    pub events: Counter,
    pub deliveries: Counter,
    pub acknowledgements: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let (requests, events) = (Family::default(), Counter::default());
        let (deliveries, acknowledgements) = (Counter::default(), Counter::default());
        registry.register("headstart_api_requests", "Requests, by route and status", requests.clone());
        registry.register("headstart_api_events_accepted", "Events accepted", Counter::clone(&events));
        registry.register(
            "headstart_api_messages_delivered",
            "Messages delivered",
            Counter::clone(&deliveries),
        );
        registry.register(
            "headstart_api_messages_acknowledged",
            "Messages acknowledged",
            Counter::clone(&acknowledgements),
        );
        Self { registry, requests, events, deliveries, acknowledgements }
    }

    /// All figures in the OpenMetrics text format.
    pub(crate) fn text(&self) -> Option<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).ok().map(|()| text)
    }
}
