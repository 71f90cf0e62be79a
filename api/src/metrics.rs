//! What the API tells of itself: all names in one place.

use std::time::SystemTime;

use broker::Delivered;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Requests by method, route and status. The text format adds `_total` to counters.
pub(crate) const REQUESTS: &str = "headstart_api_requests";
/// Time from request to answer by method and route, in seconds (the format adds the unit); polls wait on purpose.
pub(crate) const REQUEST_DURATION: &str = "headstart_api_request_duration";
/// Polls that wait for a message at this moment.
pub(crate) const POLLS_WAITING: &str = "headstart_api_polls_waiting";
/// Streams that are open at this moment.
pub(crate) const STREAMS_OPEN: &str = "headstart_api_streams_open";
/// Entries of subscriptions that can't be read.
pub(crate) const UNREADABLE: &str = "headstart_api_unreadable_entries";
/// Events that were stored.
pub(crate) const EVENTS_ACCEPTED: &str = "headstart_api_events_accepted";
/// Events that are larger than NATS carries: accepted, and dead letters.
pub(crate) const EVENTS_TOO_LARGE: &str = "headstart_api_events_too_large";
/// Messages that were given to consumers, redeliveries included.
pub(crate) const MESSAGES_DELIVERED: &str = "headstart_api_messages_delivered";
/// Time from the acceptance of an event to its first delivery by a replica, in seconds (the format adds the unit).
pub(crate) const DELIVERY_DELAY: &str = "headstart_api_delivery_delay";
/// Messages that consumers have acknowledged.
pub(crate) const MESSAGES_ACKNOWLEDGED: &str = "headstart_api_messages_acknowledged";

/// Logins that were refused.
pub(crate) const LOGINS_REFUSED: &str = "headstart_api_logins_refused";
/// Open connections.
pub(crate) const CONNECTIONS: &str = "headstart_api_connections";
/// Bytes of requests that are held.
pub(crate) const BODY_BYTES: &str = "headstart_api_body_bytes_held";
/// Bytes of answers that clients have not taken yet.
pub(crate) const ANSWER_BYTES: &str = "headstart_api_answer_bytes_held";

/// Upper bounds in seconds: a look at NATS takes a millisecond, a password hash 30, Kubernetes up to 16 s.
const BUCKETS_S: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// Upper bounds in seconds: a consumer that waits has an event after some milliseconds, one that was away for a
/// weekend after days.
const DELAYS_S: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0, 3600.0, 86_400.0, 604_800.0];

/// One kind of request. Labels are fixed words and codes, never what a client sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Request {
    pub method: &'static str,
    pub route: String,
    pub status: u16,
}

/// A route, as it stands in the description.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Route {
    pub method: &'static str,
    pub route: String,
}

/// Why a login was refused: `wrong`, or `throttled` where it was not looked at or was wrong after many others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Refusal {
    pub reason: &'static str,
}

/// Figures of the API.
pub(crate) struct Metrics {
    registry: Registry,
    pub requests: Family<Request, Counter>,
    pub durations: Family<Route, Histogram, fn() -> Histogram>,
    polls: Gauge,
    streams: Gauge,
    unreadable: Gauge,
    pub events: Counter,
    pub events_too_large: Counter,
    deliveries: Counter,
    delivery_delay: Histogram,
    pub acknowledgements: Counter,
    pub logins_refused: Family<Refusal, Counter>,
    connections: Gauge,
    body_bytes: Gauge,
    answer_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<Request, Counter>::default();
        registry.register(REQUESTS, "Requests, by route and status", requests.clone());
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS_S)) as fn() -> Histogram);
        let help = "Time from request to answer, by method and route; polls wait on purpose";
        registry.register_with_unit(REQUEST_DURATION, help, Unit::Seconds, durations.clone());
        let polls = Gauge::default();
        registry.register(POLLS_WAITING, "Polls that wait for a message", Gauge::clone(&polls));
        let streams = Gauge::default();
        registry.register(STREAMS_OPEN, "Streams that are open", Gauge::clone(&streams));
        let unreadable = Gauge::default();
        registry.register(
            UNREADABLE,
            "Entries of subscriptions that can't be read: the log names them, and the administrator may delete them",
            Gauge::clone(&unreadable),
        );
        let (events, deliveries, acknowledgements) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register(EVENTS_ACCEPTED, "Events accepted", Counter::clone(&events));
        let events_too_large = Counter::default();
        let help = "Events larger than NATS carries, which became dead letters";
        registry.register(EVENTS_TOO_LARGE, help, Counter::clone(&events_too_large));
        registry.register(
            MESSAGES_DELIVERED,
            "Messages delivered, redeliveries included",
            Counter::clone(&deliveries),
        );
        let delivery_delay = Histogram::new(DELAYS_S);
        let help = "Time from the acceptance of an event to its first delivery by this replica";
        registry.register_with_unit(DELIVERY_DELAY, help, Unit::Seconds, delivery_delay.clone());
        registry.register(MESSAGES_ACKNOWLEDGED, "Messages acknowledged", Counter::clone(&acknowledgements));
        let logins_refused = Family::<Refusal, Counter>::default();
        registry.register(LOGINS_REFUSED, "Logins refused, by reason", logins_refused.clone());
        let [connections, body_bytes, answer_bytes] = [
            (CONNECTIONS, "Open connections"),
            (BODY_BYTES, "Bytes of requests that are held"),
            (ANSWER_BYTES, "Bytes of answers that clients have not taken yet"),
        ]
        .map(|(name, help)| {
            let gauge = Gauge::default();
            registry.register(name, help, Gauge::clone(&gauge));
            gauge
        });
        Self {
            registry,
            requests,
            durations,
            polls,
            streams,
            unreadable,
            events,
            events_too_large,
            deliveries,
            delivery_delay,
            acknowledgements,
            logins_refused,
            connections,
            body_bytes,
            answer_bytes,
        }
    }

    /// What is looked at when the figures are asked for.
    pub(crate) fn set_held(&self, connections: usize, body_bytes: usize, answer_bytes: usize) {
        for (gauge, value) in [
            (&self.connections, connections),
            (&self.body_bytes, body_bytes),
            (&self.answer_bytes, answer_bytes),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Messages go out to a consumer.
    pub(crate) fn delivered(&self, messages: &[Delivered]) {
        self.deliveries.inc_by(messages.len() as u64);
        let now = SystemTime::now();
        let first = messages.iter().filter(|message| message.num_delivered == 1);
        for accepted in first.filter_map(|message| message.accepted) {
            // Two clocks: ours may be behind that of NATS.
            self.delivery_delay.observe(now.duration_since(accepted).unwrap_or_default().as_secs_f64());
        }
    }

    /// Counts a poll as waiting until the answer is dropped, also when its client goes away.
    pub(crate) fn waiting_poll(&self) -> Counted {
        Counted::new(&self.polls)
    }

    /// Counts a stream as open until the answer is dropped.
    pub(crate) fn open_stream(&self) -> Counted {
        Counted::new(&self.streams)
    }

    /// All figures in the OpenMetrics text format. `unreadable`: how many entries can't be read.
    pub(crate) fn text(&self, unreadable: usize) -> Option<String> {
        self.unreadable.set(i64::try_from(unreadable).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry).ok().map(|()| text)
    }
}

/// One more, for as long as it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_of_metrics_is_that_of_the_code() {
        let metrics = Metrics::new();
        _ = metrics.requests.get_or_create(&Request { method: "GET", route: String::new(), status: 200 });
        _ = metrics.durations.get_or_create(&Route { method: "GET", route: String::new() });
        _ = metrics.logins_refused.get_or_create(&Refusal { reason: "wrong" });
        let text = metrics.text(0).unwrap();
        reference::keep("metrics.md", "API", &reference::metrics(&text, &metrics.registry));
    }
}
