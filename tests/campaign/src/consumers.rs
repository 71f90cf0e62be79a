//! Consumers: register, read, acknowledge, ask again, remove, in three ways of reading. Each is one task and does one
//! thing at a time, so its history is a sequence.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Api, Role},
    history::{Event, Life, Message, Moment, Outcome, Recorder},
    inside::Inside,
    plan::{Action, ConsumerPlan, Reading},
};

mod actions;
mod stream;
mod upkeep;

/// Pause before a request is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(150);
/// Most messages of a batch.
const BATCH: usize = 40;

/// Reads between two actions: what is overdue must not leave nothing but actions.
const READS_BETWEEN: u32 = 3;
/// An action that is later than this may be left out.
const OVERDUE_MS: u64 = 3_000;

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
    inside: Inside,
    dice: ChaCha12Rng,
    replica: usize,
    life: Life,
    /// The one that counts. It is kept over lives: a late request of a former one must not fail for its password.
    password: String,
    topics: Vec<String>,
    registered: bool,
    /// Is what it is told recorded, so that it may be resynced?
    tracked: bool,
    /// Was a resync asked for that may be held?
    braked: bool,
    /// Number of the last live message, and of the newest change in any message.
    newest: u64,
    newest_held: u64,
    /// Reads in a row that brought nothing.
    quiet: u32,
    /// Is what it got last of a prefill, as the head of the queue says?
    at_prefill: bool,
    ending: Arc<Ending>,
    /// Messages that came, whose acknowledgement is still to be sent.
    unacknowledged: Vec<u64>,
    stream: Option<stream::Open>,
}

impl Consumer {
    /// One that does as planned.
    pub fn new(
        plan: ConsumerPlan,
        api: Api,
        recorder: Recorder,
        inside: Inside,
        ending: Arc<Ending>,
    ) -> Self {
        let life = Life { consumer: plan.name.clone(), life: 0 };
        let dice = ChaCha12Rng::seed_from_u64(plan.seed);
        Self {
            plan,
            api,
            recorder,
            inside,
            dice,
            replica: 0,
            life,
            password: "consumer-secret".to_owned(),
            topics: Vec::new(),
            registered: false,
            tracked: false,
            braked: false,
            newest: 0,
            newest_held: 0,
            quiet: 0,
            at_prefill: false,
            ending,
            unacknowledged: Vec::new(),
            stream: None,
        }
    }

    /// Does what is planned, and reads until the last event has come. Ends only then: the caller has a deadline.
    pub async fn run(mut self) {
        let mut actions: VecDeque<(u64, Action)> = std::mem::take(&mut self.plan.actions).into();
        let mut settled = false;
        let mut reads = 0;
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
            if !self.registered || reads >= READS_BETWEEN {
                leave_out(&mut actions, now);
                if actions.front().is_some_and(|(at, _)| *at <= now)
                    && let Some((_, action)) = actions.pop_front()
                {
                    reads = 0;
                    self.act(action).await;
                    continue;
                }
            }
            if !self.registered {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            reads += 1;
            self.read().await;
        }
        // Once more: nothing may follow.
        self.read().await;
        if self.unacknowledged.is_empty() {
            self.look_at_itself().await;
            self.look_at_letters().await;
            self.note(self.recorder.now(), Event::Drained { life: self.life.clone() });
            // Of half of them nothing may be left.
            if self.dice.random_ratio(1, 2) {
                self.remove().await;
            }
        }
    }

    fn is_complete(&self) -> bool {
        let last = self.ending.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = last.as_ref() else { return false };
        let wanted = self.topics.iter().filter_map(|topic| last.get(topic)).max();
        // What a prefill holds may be left out behind it.
        let newest = if self.quiet > 2 { self.newest_held.max(self.newest) } else { self.newest };
        wanted.is_none_or(|wanted| newest >= *wanted) && self.unacknowledged.is_empty()
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
        match self.call_own(Method::GET, &path, None).await {
            Some((200, Value::Null)) => self.nothing(start).await,
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
        match self.call_own(Method::GET, &path, None).await {
            Some((200, Value::Array(messages))) => {
                if messages.is_empty() {
                    self.nothing(start).await;
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
        if self.dice.random_ratio(1, 40) {
            self.guess().await;
        }
        let name = self.plan.name.clone();
        // Not for ever: what never answers is looked at by reading again.
        for _ in 0..5 {
            let (method, path, body) = request(&name, through);
            let start = self.recorder.now();
            let outcome = match self.call_own(method, &path, Some(body)).await {
                Some((200, _)) => Outcome::Done,
                Some((404, _)) => Outcome::Missing,
                other => self.unknown("acknowledging", other),
            };
            self.note(start, Event::Acknowledged { life: self.life.clone(), through, outcome });
            if outcome != Outcome::Unknown {
                self.unacknowledged.drain(..count);
                if outcome == Outcome::Done && self.dice.random_ratio(1, 60) {
                    self.acknowledge_again(&request, through).await;
                }
                return;
            }
            self.pause().await;
        }
    }

    /// What is acknowledged is gone: nothing is found by another one.
    async fn acknowledge_again(
        &mut self,
        request: &impl Fn(&str, u64) -> (Method, String, Value),
        through: u64,
    ) {
        let name = self.plan.name.clone();
        let (method, path, body) = request(&name, through);
        let start = self.recorder.now();
        if let Some((200, _)) = self.call_own(method, &path, Some(body)).await {
            let life = self.life.clone();
            self.note(start, Event::Acknowledged { life, through, outcome: Outcome::Done });
        }
    }

    /// Acknowledges what was not delivered to it: nothing may come of that.
    async fn guess(&mut self) {
        let name = self.plan.name.clone();
        let Some(forbidden) = self.inside.forbidden(&name).await else { return };
        for sequence in forbidden.state {
            let path = format!("/v1/subscriptions/{name}/messages/{sequence}/status");
            let body = Some(json!({"status": "ok"}));
            if let Some((200, _)) = self.call_own(Method::PATCH, &path, body).await {
                self.unexpected(format!("{sequence} is no message of a consumer, but was acknowledged"));
            }
        }
        // Live messages behind a prefill that it has not read yet.
        if let Some(sequence) = forbidden.live.filter(|_| self.at_prefill) {
            let path = format!("/v1/subscriptions/{name}/messages/acknowledgements");
            let body = Some(json!({"through": sequence}));
            if let Some((200, _)) = self.call_own(Method::POST, &path, body).await {
                self.unexpected(format!("{sequence} was not delivered, but was acknowledged"));
            }
        }
    }

    /// Notes that there was nothing. A resync that is held is approved then.
    async fn nothing(&mut self, start: Moment) {
        self.quiet += 1;
        self.note(start, Event::Empty { life: self.life.clone() });
        if self.braked {
            self.approve().await;
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
                    self.newest_held = self.newest_held.max(message.number);
                    self.quiet = 0;
                    if !message.prefill {
                        self.newest = self.newest.max(message.number);
                    }
                    messages.push(message);
                }
                None => self.unexpected(format!("a message that is none: {body}")),
            }
        }
        self.at_prefill =
            from_head && messages.iter().all(|message| message.prefill) && self.stream.is_none();
        self.note(start, Event::Delivered { life: self.life.clone(), from_head, messages });
    }

    /// Asks as the consumer itself.
    async fn call_own(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let (name, password) = (self.plan.name.clone(), self.password.clone());
        self.call(Role::Consumer(&name, &password), method, path, body).await
    }

    async fn call(&mut self, role: Role<'_>, method: Method, path: &str, body: Option<Value>) -> Answer {
        // Mostly the same replica, sometimes the other one: both must do.
        if self.dice.random_ratio(1, 6) {
            self.replica += 1;
        }
        self.api.call(self.replica, role, method, path, body).await
    }

    /// Sends a request of the administrator until its outcome is known, and notes each try. `meaning` is the outcome that
    /// an answer stands for; `None`: none that can be explained.
    async fn settle(
        &mut self,
        what: &str,
        (method, path, body): (Method, &str, Option<Value>),
        meaning: impl Fn(u16, &Value) -> Option<Outcome>,
        event: impl Fn(Life, Outcome) -> Event,
    ) -> Outcome {
        loop {
            let start = self.recorder.now();
            let answer = self.call(Role::Admin, method.clone(), path, body.clone()).await;
            let outcome = match answer.as_ref().and_then(|(status, body)| meaning(*status, body)) {
                Some(outcome) => outcome,
                None => self.unknown(what, answer),
            };
            self.note(start, event(self.life.clone(), outcome));
            if outcome != Outcome::Unknown {
                return outcome;
            }
            self.pause().await;
        }
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
    let number = image["properties"]["change"].as_u64();
    let version = image["properties"]["version"].as_u64();
    let prefill = body["publisher_name"].as_str()? == "udm-pre-fill";
    // What a resync tells as gone says only what is needed to find it.
    let (number, version) =
        if prefill && deleted { (number.or(Some(0)), version.or(Some(0))) } else { (number, version) };
    Some(Message {
        sequence: body["sequence_number"].as_u64()?,
        prefill,
        topic: body["topic"].as_str()?.to_owned(),
        object: name(image)?,
        version: version?,
        number: number?,
        deleted,
        after: prefill && old.as_object().is_some_and(|old| !old.is_empty()),
        shade: image["properties"]["shade"].as_str().map(str::to_owned),
    })
}

/// An object's name: what a resync tells as gone may have no id, but it has a key that no other object has, or a DN.
fn name(image: &Value) -> Option<String> {
    let key = |value: &Value| {
        let (_, last) = value.as_str()?.rsplit_once('-')?;
        Some(format!("object-{}", u64::from_str_radix(last, 16).ok()?))
    };
    let id = image["id"].as_str().filter(|id| id.starts_with("object-")).map(str::to_owned);
    let dn = || image["dn"].as_str()?.strip_prefix("cn=")?.split_once(',').map(|(name, _)| name.to_owned());
    id.or_else(|| key(&image["uuid"]))
        .or_else(|| key(&image["properties"]["univentionObjectIdentifier"]))
        .or_else(dn)
}

/// Pauses that are overdue are left out, and of requests for a prefill all but the last: what is made up for at once is
/// not what was planned.
fn leave_out(actions: &mut VecDeque<(u64, Action)>, now: u64) {
    while let Some((at, action)) = actions.front()
        && at + OVERDUE_MS < now
    {
        let next_is_due = actions.get(1).is_some_and(|(at, _)| *at <= now);
        let register = matches!(action, Action::Register { .. });
        if register || !(matches!(action, Action::Pause { .. }) || next_is_due) {
            return;
        }
        actions.pop_front();
    }
}
