//! Consumers: register, read, acknowledge, ask again, remove, in three ways of reading. Each is one task and does one
//! thing at a time, so its history is a sequence.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Api, Role},
    history::{Event, Life, Message, Outcome, Recorder},
    plan::{Action, ConsumerPlan, Reading},
};

mod stream;

/// Pause before a request is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(150);
/// Most messages of a batch.
const BATCH: usize = 40;

/// How the run comes to its end: consumers stop acting, then the last events are posted, then all is read.
#[derive(Debug, Default)]
pub struct Ending {
    /// No more actions are begun.
    pub closing: AtomicBool,
    /// Consumers that will not act any more.
    pub settled: AtomicUsize,
    /// Numbers of the last events, by topic, once they are posted: who has got them is done.
    pub last: Mutex<Option<HashMap<String, u64>>>,
}

/// One consumer.
pub struct Consumer {
    plan: ConsumerPlan,
    api: Api,
    recorder: Recorder,
    dice: StdRng,
    replica: usize,
    life: Life,
    topics: Vec<String>,
    registered: bool,
    newest: u64,
    ending: Arc<Ending>,
    /// Messages that came, whose acknowledgement is still to be sent.
    unacknowledged: Vec<u64>,
    stream: Option<stream::Open>,
}

impl Consumer {
    /// One that does as planned.
    pub fn new(plan: ConsumerPlan, api: Api, recorder: Recorder, ending: Arc<Ending>) -> Self {
        let life = Life { consumer: plan.name.clone(), life: 0 };
        let dice = StdRng::seed_from_u64(plan.seed);
        Self {
            plan,
            api,
            recorder,
            dice,
            replica: 0,
            life,
            topics: Vec::new(),
            registered: false,
            newest: 0,
            ending,
            unacknowledged: Vec::new(),
            stream: None,
        }
    }

    /// Does what is planned, and reads until the last event has come. Ends only then: the caller has a deadline.
    pub async fn run(mut self) {
        let mut actions = std::mem::take(&mut self.plan.actions).into_iter().peekable();
        let mut settled = false;
        loop {
            let now = self.recorder.now() / 1000;
            // Whoever is late with its plan leaves out the rest, but is registered.
            if settled || self.registered && self.ending.closing.load(Ordering::SeqCst) {
                if !settled {
                    settled = true;
                    self.ending.settled.fetch_add(1, Ordering::SeqCst);
                }
                if self.is_complete() {
                    break;
                }
                self.read().await;
                continue;
            }
            // A time that has passed by long is not made up for: the plan goes on with what comes next.
            if let Some((_, action)) = actions.next_if(|(at, _)| *at <= now) {
                self.act(action).await;
                continue;
            }
            if !self.registered {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            self.read().await;
        }
        // Once more: nothing may follow.
        self.read().await;
        if self.unacknowledged.is_empty() {
            self.note(self.recorder.now(), Event::Drained { life: self.life.clone() });
        }
    }

    fn is_complete(&self) -> bool {
        let last = self.ending.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = last.as_ref() else { return false };
        let wanted = self.topics.iter().filter_map(|topic| last.get(topic)).max();
        wanted.is_none_or(|wanted| self.newest >= *wanted) && self.unacknowledged.is_empty()
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Register { topics, prefill, gap_ms, late } => {
                if self.registered {
                    if late {
                        self.leave_late_requests().await;
                    }
                    self.remove().await;
                    tokio::time::sleep(Duration::from_millis(gap_ms)).await;
                }
                self.register(topics, prefill).await;
            }
            Action::Ask => self.ask().await,
            Action::Pause { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    async fn register(&mut self, topics: Vec<String>, prefill: bool) {
        self.life.life += 1;
        self.topics.clone_from(&topics);
        let listed: Vec<Value> = topics.iter().map(|t| json!({"realm": "udm", "topic": t})).collect();
        let body = json!({
            "name": self.plan.name, "password": "consumer-secret", "realms_topics": listed, "request_prefill": prefill,
        });
        loop {
            let start = self.recorder.now();
            let answer = self.call(Role::Admin, Method::POST, "/v1/subscriptions", Some(body.clone())).await;
            let outcome = match answer {
                Some((201, _)) => Outcome::Done,
                Some((200, _)) => Outcome::Already,
                other => self.unknown("registering", other),
            };
            let (life, topics) = (self.life.clone(), topics.clone());
            self.note(start, Event::Registered { life, topics, prefill, outcome });
            if outcome != Outcome::Unknown {
                break;
            }
            self.pause().await;
        }
        self.registered = true;
        self.newest = 0;
        self.unacknowledged.clear();
    }

    async fn remove(&mut self) {
        self.stream = None;
        let path = format!("/v1/subscriptions/{}", self.plan.name);
        loop {
            let start = self.recorder.now();
            let outcome = match self.call(Role::Admin, Method::DELETE, &path, None).await {
                Some((200, _)) => Outcome::Done,
                Some((404, _)) => Outcome::Missing,
                other => self.unknown("removing", other),
            };
            self.note(start, Event::Removed { life: self.life.clone(), outcome });
            if outcome != Outcome::Unknown {
                break;
            }
            self.pause().await;
        }
        self.registered = false;
    }

    /// Reads a message and leaves its acknowledgement under way, on both replicas, as a consumer does that is ended just
    /// then: it must do no harm to the next life, whose numbers it does not know.
    async fn leave_late_requests(&mut self) {
        self.stream = None;
        let name = self.plan.name.clone();
        let path = format!("/v1/subscriptions/{name}/messages/next?timeout=0.3");
        let start = self.recorder.now();
        if let Some((200, body)) = self.call(Role::Consumer(&name), Method::GET, &path, None).await
            && !body.is_null()
        {
            self.delivered(start, true, &[body]);
        }
        let Some(first) = self.unacknowledged.first().copied() else { return };
        let start = self.recorder.now();
        for replica in 0..2 {
            let (api, name) = (self.api.clone(), name.clone());
            tokio::spawn(async move {
                let path = format!("/v1/subscriptions/{name}/messages/{first}/status");
                let body = Some(json!({"status": "ok"}));
                api.call(replica, Role::Consumer(&name), Method::PATCH, &path, body).await;
            });
        }
        let (life, outcome) = (self.life.clone(), Outcome::Unknown);
        self.note(start, Event::Acknowledged { life, through: first, outcome });
    }

    async fn ask(&mut self) {
        if !self.registered {
            return;
        }
        let path = format!("/v1/subscriptions/{}/prefill", self.plan.name);
        loop {
            let start = self.recorder.now();
            let outcome = match self.call(Role::Admin, Method::POST, &path, None).await {
                Some((202, _)) => Outcome::Done,
                Some((200, _)) => Outcome::Already,
                other => self.unknown("asking for a prefill", other),
            };
            self.note(start, Event::Asked { life: self.life.clone(), outcome });
            if outcome != Outcome::Unknown {
                return;
            }
            self.pause().await;
        }
    }

    async fn read(&mut self) {
        match self.plan.reading {
            Reading::Single => self.read_one().await,
            Reading::Batch => self.read_batch().await,
            Reading::Stream => self.read_stream().await,
        }
    }

    async fn read_one(&mut self) {
        let path = format!("/v1/subscriptions/{}/messages/next?timeout=1", self.plan.name);
        let start = self.recorder.now();
        let name = self.plan.name.clone();
        match self.call(Role::Consumer(&name), Method::GET, &path, None).await {
            Some((200, Value::Null)) => {}
            Some((200, body)) => {
                self.delivered(start, true, &[body]);
                self.acknowledge(1, |name, seq| {
                    (
                        Method::PATCH,
                        format!("/v1/subscriptions/{name}/messages/{seq}/status"),
                        json!({"status": "ok"}),
                    )
                })
                .await;
            }
            other => {
                self.unknown("reading", other);
                self.pause().await;
            }
        }
    }

    async fn read_batch(&mut self) {
        let limit = self.dice.random_range(1..BATCH);
        let path = format!("/v1/subscriptions/{}/messages?limit={limit}&timeout=1", self.plan.name);
        let start = self.recorder.now();
        let name = self.plan.name.clone();
        match self.call(Role::Consumer(&name), Method::GET, &path, None).await {
            Some((200, Value::Array(messages))) => {
                if messages.is_empty() {
                    return;
                }
                self.delivered(start, true, &messages);
                // Sometimes only a part, and the rest comes again.
                let count =
                    if self.dice.random_ratio(4, 5) { messages.len() } else { messages.len().div_ceil(2) };
                self.acknowledge_through(count).await;
            }
            other => {
                self.unknown("reading a batch", other);
                self.pause().await;
            }
        }
    }

    async fn acknowledge_through(&mut self, count: usize) {
        self.acknowledge(count, |name, seq| {
            let path = format!("/v1/subscriptions/{name}/messages/acknowledgements");
            (Method::POST, path, json!({"through": seq}))
        })
        .await;
    }

    /// Acknowledges the first so many of what came. Now and then the consumer "crashes" before: all comes again.
    async fn acknowledge(&mut self, count: usize, request: impl Fn(&str, u64) -> (Method, String, Value)) {
        let Some(through) = count.checked_sub(1).and_then(|last| self.unacknowledged.get(last)).copied()
        else {
            return;
        };
        if self.dice.random_ratio(1, 60) {
            return;
        }
        let name = self.plan.name.clone();
        // Not for ever: what never answers is looked at by reading again.
        for _ in 0..5 {
            let (method, path, body) = request(&name, through);
            let start = self.recorder.now();
            let outcome = match self.call(Role::Consumer(&name), method, &path, Some(body)).await {
                Some((200, _)) => Outcome::Done,
                Some((404, _)) => Outcome::Missing,
                other => self.unknown("acknowledging", other),
            };
            self.note(start, Event::Acknowledged { life: self.life.clone(), through, outcome });
            if outcome != Outcome::Unknown {
                self.unacknowledged.drain(..count);
                return;
            }
            self.pause().await;
        }
    }

    /// Notes what came.
    fn delivered(&mut self, start: u64, from_head: bool, bodies: &[Value]) {
        if from_head {
            self.unacknowledged.clear();
        }
        let mut messages = Vec::with_capacity(bodies.len());
        for body in bodies {
            match message(body) {
                Some(message) => {
                    self.unacknowledged.push(message.sequence);
                    if !message.prefill {
                        self.newest = self.newest.max(message.number);
                    }
                    messages.push(message);
                }
                None => self.unexpected(format!("a message that is none: {body}")),
            }
        }
        self.note(start, Event::Delivered { life: self.life.clone(), from_head, messages });
    }

    async fn call(&mut self, role: Role<'_>, method: Method, path: &str, body: Option<Value>) -> Answer {
        // Mostly the same replica, sometimes the other one: both must do.
        if self.dice.random_ratio(1, 6) {
            self.replica += 1;
        }
        self.api.call(self.replica, role, method, path, body).await
    }

    /// No answer, or 503: unknown. Anything else is not to be explained, and tried again as well.
    fn unknown(&mut self, what: &str, answer: Answer) -> Outcome {
        match answer {
            None | Some((503, _)) => {}
            Some((status, body)) => self.unexpected(format!("{what}: {status} {body}")),
        }
        self.replica += 1;
        Outcome::Unknown
    }

    fn unexpected(&self, what: String) {
        self.note(self.recorder.now(), Event::Unexpected { life: self.life.clone(), what });
    }

    fn note(&self, start: u64, event: Event) {
        self.recorder.note(start, event);
    }

    async fn pause(&mut self) {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn message(body: &Value) -> Option<Message> {
    let (old, new) = (&body["body"]["old"], &body["body"]["new"]);
    let deleted = new.as_object().is_none_or(serde_json::Map::is_empty);
    let image = if deleted { old } else { new };
    Some(Message {
        sequence: body["sequence_number"].as_u64()?,
        prefill: body["publisher_name"].as_str()? == "udm-pre-fill",
        topic: body["topic"].as_str()?.to_owned(),
        object: image["id"].as_str()?.to_owned(),
        version: image["properties"]["version"].as_u64()?,
        number: image["properties"]["change"].as_u64()?,
        deleted,
    })
}
