//! What whoever looks after a consumer does now and then: prefills that are paused, passwords, dead letters.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Consumer, actions::conflicts};
use crate::{
    client::Role,
    history::{Event, Outcome},
    workload::large_of,
};

/// After this time a worker that can do so has seen that its prefill is paused, and has stopped.
const STOPS_WITHIN: Duration = Duration::from_secs(3);
/// After this time a former password counts nowhere.
const PASSWORD_WITHIN: Duration = Duration::from_secs(1);

impl Consumer {
    /// Asks for a prefill, pauses it, finds that nothing of it comes, and resumes it, whatever became of it.
    pub(super) async fn pause_prefill(&mut self, after_ms: u64, for_ms: u64) {
        if !self.registered {
            return;
        }
        self.ask(false, false, false).await;
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        if self.set_paused(true).await == Outcome::Missing {
            return;
        }
        tokio::time::sleep(STOPS_WITHIN).await;
        let path = format!("/v1/subscriptions/{}/prefill", self.plan.name);
        let start = self.recorder.now();
        if let Some((200, shown)) = self.call(Role::Admin, Method::GET, &path, None).await
            && shown["paused"] == true
        {
            self.note(start, Event::Waits { life: self.life.clone() });
        }
        let until = tokio::time::Instant::now() + Duration::from_millis(for_ms);
        self.read().await;
        while tokio::time::Instant::now() < until {
            self.read().await;
        }
        self.set_paused(false).await;
    }

    async fn set_paused(&mut self, paused: bool) -> Outcome {
        let word = if paused { "pause" } else { "resume" };
        let path = format!("/v1/subscriptions/{}/prefill/{word}", self.plan.name);
        let meaning = |status, answer: &Value| match status {
            202 => Some(Outcome::Done),
            200 => Some(Outcome::Already),
            409 if conflicts(answer, &["prefill_ended"]) => Some(Outcome::Missing),
            _ => None,
        };
        let event = |life, outcome| match paused {
            true => Event::Paused { life, outcome },
            false => Event::Resumed { life, outcome },
        };
        self.settle("pausing or resuming a prefill", (Method::POST, &path, None), meaning, event).await
    }

    /// Gets another password, and tries both at both replicas.
    pub(super) async fn change_password(&mut self) {
        if !self.registered {
            return;
        }
        let path = format!("/v1/subscriptions/{}", self.plan.name);
        let former = self.password.clone();
        self.password = format!("consumer-secret-{}", self.recorder.now());
        let body = json!({"password": self.password});
        let meaning = |status, _: &Value| (status == 200).then_some(Outcome::Done);
        let event = |life, outcome| Event::Password { life, outcome };
        self.settle("changing the password", (Method::PATCH, &path, Some(body)), meaning, event).await;
        let current = self.password.clone();
        for replica in 0..2 {
            self.log_in(replica, &current, false).await;
        }
        tokio::time::sleep(PASSWORD_WITHIN).await;
        for replica in 0..2 {
            self.log_in(replica, &former, true).await;
        }
    }

    async fn log_in(&mut self, replica: usize, password: &str, former: bool) {
        let name = self.plan.name.clone();
        let path = format!("/v1/subscriptions/{name}");
        let start = self.recorder.now();
        let role = Role::Consumer(&name, password);
        let outcome = match self.api.call(replica, role, Method::GET, &path, None).await {
            Some((200, _)) => Outcome::Done,
            Some((401, _)) => Outcome::Refused,
            other => self.unknown("logging in", other),
        };
        self.note(start, Event::LoggedIn { life: self.life.clone(), former, outcome });
    }

    /// Those from before what it has read are there.
    pub(super) async fn look_at_letters(&mut self) {
        let path = format!("/v1/subscriptions/{}/dead-letters", self.plan.name);
        for _ in 0..5 {
            let start = self.recorder.now();
            match self.call(Role::Admin, Method::GET, &path, None).await {
                Some((200, letters)) => {
                    let dns = letters.as_array().into_iter().flatten().filter_map(|l| l["dn"].as_str());
                    let large = dns.filter_map(large_of).collect();
                    self.note(start, Event::Letters { life: self.life.clone(), large });
                    return;
                }
                other => drop(self.unknown("looking at dead letters", other)),
            }
            self.pause().await;
        }
    }
}
