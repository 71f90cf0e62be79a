//! What a consumer, or who looks after it, does besides reading.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Consumer;
use crate::{
    client::Role,
    history::{Event, Outcome, Selection},
    plan::Action,
};

/// How long it may take at the end until all is shown as it is.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

impl Consumer {
    pub(super) async fn act(&mut self, action: Action) {
        match action {
            Action::Register { topics, prefill, gap_ms, late, selection, track } => {
                if self.registered {
                    if late {
                        self.leave_late_requests().await;
                    }
                    self.remove().await;
                    tokio::time::sleep(Duration::from_millis(gap_ms)).await;
                }
                self.register(topics, prefill, selection, track).await;
            }
            Action::Ask { resync, brake, dry_run } => self.ask(resync, brake, dry_run).await,
            Action::Cancel { after_ms } => self.cancel(after_ms).await,
            Action::Topics { topics } => self.change_topics(topics).await,
            Action::PausePrefill { after_ms, for_ms } => self.pause_prefill(after_ms, for_ms).await,
            Action::Password => self.change_password().await,
            Action::Pause { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    async fn register(
        &mut self,
        topics: Vec<String>,
        prefill: bool,
        selection: Option<Selection>,
        track: bool,
    ) {
        self.life.life += 1;
        self.topics.clone_from(&topics);
        let mut body = json!({
            "name": self.plan.name, "password": self.password, "realms_topics": listed(&topics),
            "request_prefill": prefill,
        });
        if let Some(Selection { shade, place }) = &selection {
            body["selection"] = json!({
                "filter": shade.as_ref().map(|shade| format!("(shade=*{shade}*)")),
                "position": place.map(|place| format!("cn=place-{place},dc=example,dc=org")),
            });
        }
        if track {
            body["track"] = json!(true);
        }
        let meaning = |status, _: &Value| match status {
            201 => Some(Outcome::Done),
            200 => Some(Outcome::Already),
            _ => None,
        };
        let event = |life, outcome| Event::Registered {
            life,
            topics: topics.clone(),
            prefill,
            selection: selection.clone(),
            outcome,
        };
        self.settle("registering", (Method::POST, "/v1/subscriptions", Some(body)), meaning, event).await;
        self.registered = true;
        self.tracked = track;
        self.braked = false;
        (self.newest, self.newest_held, self.quiet) = (0, 0, 0);
        self.unacknowledged.clear();
    }

    pub(super) async fn remove(&mut self) {
        self.stream = None;
        self.look_at_letters().await;
        let start = self.recorder.now();
        if let Some(highest) = self.inside.last_number(&self.plan.name).await {
            self.note(start, Event::Used { life: self.life.clone(), highest });
        }
        let path = format!("/v1/subscriptions/{}", self.plan.name);
        let meaning = |status, _: &Value| match status {
            200 => Some(Outcome::Done),
            404 => Some(Outcome::Missing),
            _ => None,
        };
        let event = |life, outcome| Event::Removed { life, outcome };
        self.settle("removing", (Method::DELETE, &path, None), meaning, event).await;
        self.registered = false;
    }

    /// Reads a message and leaves its acknowledgement under way, on both replicas, as a consumer does that is ended just
    /// then: it must do no harm to the next life, whose numbers it does not know.
    async fn leave_late_requests(&mut self) {
        self.stream = None;
        let name = self.plan.name.clone();
        let path = format!("/v1/subscriptions/{name}/messages/next?timeout=0.3");
        let start = self.recorder.now();
        if let Some((200, body)) = self.call_own(Method::GET, &path, None).await
            && !body.is_null()
        {
            self.delivered(start, true, &[body]);
        }
        let Some(first) = self.unacknowledged.first().copied() else { return };
        let start = self.recorder.now();
        for replica in 0..2 {
            let (api, name, password) = (self.api.clone(), name.clone(), self.password.clone());
            tokio::spawn(async move {
                let path = format!("/v1/subscriptions/{name}/messages/{first}/status");
                let body = Some(json!({"status": "ok"}));
                api.call(replica, Role::Consumer(&name, &password), Method::PATCH, &path, body).await;
            });
        }
        let (life, outcome) = (self.life.clone(), Outcome::Unknown);
        self.note(start, Event::Acknowledged { life, through: first, outcome });
    }

    pub(super) async fn ask(&mut self, resync: bool, brake: bool, dry_run: bool) {
        if !self.registered {
            return;
        }
        let resync = (resync || dry_run) && self.tracked;
        let (dry_run, brake) = (dry_run && resync, brake && resync);
        // Each removal is too much, or none is: the default would hold some, and nobody looks.
        let limit = if brake { 0 } else { 1_000_000 };
        let body = resync.then(|| json!({"mode": "resync", "max_removals": limit, "dry_run": dry_run}));
        let path = format!("/v1/subscriptions/{}/prefill", self.plan.name);
        let meaning = |status, answer: &Value| match status {
            202 => Some(Outcome::Done),
            200 => Some(Outcome::Already),
            // Another one is under way, or the consumer has not read the last one yet.
            409 if conflicts(answer, &["prefill_under_way", "dry_run_too_early"]) => Some(Outcome::Missing),
            _ => None,
        };
        let event = |life, outcome| Event::Asked { life, resync, dry_run, brake, outcome };
        self.settle("asking for a prefill", (Method::POST, &path, body), meaning, event).await;
        self.braked = self.braked || brake;
    }

    /// Lets a resync be read that is held, if it is.
    pub(super) async fn approve(&mut self) {
        let path = format!("/v1/subscriptions/{}/prefill", self.plan.name);
        let Some((200, shown)) = self.call(Role::Admin, Method::GET, &path, None).await else { return };
        if shown["state"] == "done" {
            self.braked = false;
        }
        if shown["reason"] != "TooManyRemovals" {
            return;
        }
        let path = format!("{path}/approve");
        let body = json!({"attempt": shown["attempt"]});
        match self.call(Role::Admin, Method::POST, &path, Some(body)).await {
            Some((200 | 202, _)) => self.recorder.fault(format!("{} approved", self.plan.name)),
            Some((409, body)) if conflicts(&body, &["not_held", "other_attempt"]) => {}
            other => drop(self.unknown("approving a prefill", other)),
        }
    }

    /// Asks for a prefill, cancels it, finds an empty queue, and asks again.
    async fn cancel(&mut self, after_ms: u64) {
        if !self.registered {
            return;
        }
        self.ask(false, false, false).await;
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        let path = format!("/v1/subscriptions/{}/prefill", self.plan.name);
        let meaning = |status, answer: &Value| match status {
            200 => Some(Outcome::Done),
            409 if conflicts(answer, &["prefill_ended"]) => Some(Outcome::Missing),
            _ => None,
        };
        let event = |life, outcome| Event::Cancelled { life, outcome };
        let outcome =
            self.settle("cancelling a prefill", (Method::DELETE, &path, None), meaning, event).await;
        if outcome == Outcome::Done {
            for _ in 0..3 {
                self.read().await;
            }
            self.ask(false, false, false).await;
        }
    }

    async fn change_topics(&mut self, topics: Vec<String>) {
        if !self.registered || topics == self.topics {
            return;
        }
        let path = format!("/v1/subscriptions/{}", self.plan.name);
        let body = json!({"realms_topics": listed(&topics)});
        let meaning = |status, answer: &Value| match status {
            200 => Some(Outcome::Done),
            409 if conflicts(answer, &["prefill_under_way", "changed_by_others"]) => Some(Outcome::Missing),
            _ => None,
        };
        let event = |life, outcome| Event::Topics { life, topics: topics.clone(), outcome };
        self.topics =
            match self.settle("changing topics", (Method::PATCH, &path, Some(body)), meaning, event).await {
                Outcome::Done => topics,
                // A try before may have been carried out.
                _ => self.shown_topics().await,
            };
    }

    async fn shown_topics(&mut self) -> Vec<String> {
        loop {
            if let Some(shown) = self.shown().await {
                let topics = shown["realms_topics"].as_array().into_iter().flatten();
                return topics.filter_map(|topic| Some(topic["topic"].as_str()?.to_owned())).collect();
            }
            self.pause().await;
        }
    }

    async fn shown(&mut self) -> Option<Value> {
        let path = format!("/v1/subscriptions/{}", self.plan.name);
        match self.call(Role::Admin, Method::GET, &path, None).await {
            Some((200, shown)) => Some(shown),
            other => {
                self.unknown("looking at a subscription", other);
                None
            }
        }
    }

    /// All is read: what the API shows must be just that, as soon as a prefill that only counts has ended, too.
    pub(super) async fn look_at_itself(&mut self) {
        let end = tokio::time::Instant::now() + SHOWN_WITHIN;
        loop {
            let shown = self.shown().await.unwrap_or_default();
            let waits = |part: &str| shown["queue"][part].as_u64().unwrap_or(1);
            if shown["realms_topics"] == listed(&self.topics)
                && shown["prefill_queue_status"] == "done"
                && waits("prefill") + waits("live") == 0
            {
                return;
            }
            if tokio::time::Instant::now() > end {
                self.unexpected(format!("all is read, but it is shown as {shown}"));
                return;
            }
            self.pause().await;
        }
    }
}

fn listed(topics: &[String]) -> Value {
    topics.iter().map(|topic| json!({"realm": "udm", "topic": topic})).collect()
}

pub(super) fn conflicts(body: &Value, codes: &[&str]) -> bool {
    codes.iter().any(|code| body["code"] == *code)
}
