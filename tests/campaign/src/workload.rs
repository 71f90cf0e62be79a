//! Changes of the directory, and their events: strictly one after the other, as the directory's listener does it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use stand_in_udm::Directory;

use crate::{
    client::{Answer, Api, Role},
    history::{Event, Outcome, Recorder},
    plan::{Change, Kind, Large, PLACES, Plan, SHADES, TOPICS},
};

/// Pause before an event is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(150);

/// More than NATS carries here (`max_payload`, 8 MB).
const LARGE_BYTES: usize = 9 << 20;
/// Numbers of the last objects.
const LAST_OBJECTS: usize = 1_000_000;
/// Codes of answers that say that an event was not put into the log.
const REFUSALS: [&str; 2] = ["log_full", "event_late"];
/// So long it may take until an event is accepted: longer than any fault.
const POSTED_WITHIN: Duration = Duration::from_secs(180);

/// The directory and who changes it.
pub struct Workload {
    directory: Directory,
    recorder: Recorder,
    api: Api,
    known: HashMap<usize, Known>,
    number: u64,
    larges: u64,
    tries: usize,
}

#[derive(Clone, Debug)]
struct Known {
    topic: usize,
    dn: String,
    version: u64,
    place: u64,
    shade: String,
}

impl Workload {
    /// Fills the directory.
    ///
    /// # Errors
    /// The directory refuses an object.
    pub fn new(plan: &Plan, directory: Directory, api: Api, recorder: Recorder) -> Result<Self> {
        let mut workload =
            Self { directory, recorder, api, known: HashMap::new(), number: 0, larges: 0, tries: 0 };
        for (object, topic) in plan.objects.iter().enumerate() {
            workload.apply(object, Kind::Create, *topic)?;
        }
        Ok(workload)
    }

    /// Carries out the plan's changes, each followed by its event.
    ///
    /// # Errors
    /// The directory refuses an object.
    pub async fn run(&mut self, plan: &Plan) -> Result<()> {
        let mut larges = plan.larges.iter().peekable();
        for Change { at_ms, object, kind } in &plan.changes {
            let due = Duration::from_millis(*at_ms);
            let now = Duration::from_micros(self.recorder.now());
            if now < due {
                tokio::time::sleep(due - now).await;
            }
            // After a stop of everything the plan's rest must not become one long burst.
            if now > Duration::from_millis(plan.length_ms) {
                return Ok(());
            }
            if let Some(large) = larges.next_if(|large| large.at_ms <= *at_ms) {
                self.post_large(large).await?;
            }
            // New objects have the topic that their number says.
            let event = self.apply(*object, *kind, [0, 1, 1, 1, 2, 3][object % 6])?;
            self.post(event).await?;
        }
        Ok(())
    }

    /// One last change of each topic; answers their numbers. Who has got it has got everything.
    ///
    /// # Errors
    /// The directory refuses an object.
    pub async fn finish(&mut self) -> Result<HashMap<String, u64>> {
        let mut last = HashMap::new();
        for (topic, name) in TOPICS.iter().enumerate() {
            // An object of its own: its change does not paint over what another one should have shown.
            let event = self.apply(LAST_OBJECTS + topic, Kind::Create, topic)?;
            self.post(event).await?;
            last.insert((*name).to_owned(), self.number);
        }
        Ok(last)
    }

    /// Changes the directory; answers the event.
    fn apply(&mut self, object: usize, kind: Kind, topic: usize) -> Result<Value> {
        self.number += 1;
        let start = self.recorder.now();
        let id = format!("object-{object}");
        let old = self.known.get(&object).cloned();
        let mut new = old.clone().unwrap_or_else(|| Known {
            topic,
            dn: format!("cn={id},cn=place-0,dc=example,dc=org"),
            version: 0,
            place: 0,
            shade: String::new(),
        });
        new.version += 1;
        // Another shade with each second change or so; the last objects have all of them.
        let shade = match usize::try_from(self.number / 2 % 3) {
            _ if object >= LAST_OBJECTS => SHADES.join(" "),
            Ok(which) => SHADES.get(which).copied().unwrap_or_default().to_owned(),
            Err(_) => String::new(),
        };
        // What goes is told as it was.
        if kind != Kind::Delete {
            new.shade = shade;
        }
        if kind == Kind::Move {
            new.place = (new.place + 1) % PLACES;
            new.dn = format!("cn={id},cn=place-{},dc=example,dc=org", new.place);
        }
        let uuid = format!("00000000-0000-4000-8000-{object:012x}");
        let image = |known: &Known, number: u64| {
            json!({
                "dn": known.dn, "objectType": TOPICS[known.topic], "id": id, "uuid": uuid,
                "properties": {
                    "version": known.version, "change": number, "shade": known.shade,
                    "univentionObjectIdentifier": uuid,
                },
            })
        };
        let after = image(&new, self.number);
        let before = old.as_ref().map_or(json!({}), |old| image(old, self.number));
        if let (Kind::Move, Some(old)) = (kind, &old) {
            self.directory.rename(&old.dn, &new.dn);
        }
        if kind == Kind::Delete {
            self.directory.remove(&new.dn);
            self.known.remove(&object);
        } else {
            self.directory.put(&after.to_string()).map_err(anyhow::Error::msg).context("the directory")?;
            self.known.insert(object, new.clone());
        }
        let (number, version, topic) = (self.number, new.version, TOPICS[new.topic]);
        let (present, moved) = (kind != Kind::Delete, kind == Kind::Move);
        let (shade, place) = (new.shade.clone(), new.place);
        let topic_name = topic.to_owned();
        let changed =
            Event::Changed { number, object: id, topic: topic_name, version, present, moved, shade, place };
        self.recorder.note(start, changed);
        // A deletion tells its number and version in what was.
        let (old, new) = if present { (before, after) } else { (after, json!({})) };
        Ok(json!({
            "publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": topic,
            "body": {"old": old, "new": new},
        }))
    }

    /// Sends a change's event until it is accepted.
    async fn post(&mut self, event: Value) -> Result<()> {
        let number = self.number;
        let begins = Some(Event::Posting { number });
        self.send(&event, begins, |outcome| Event::Posted { number, outcome }).await
    }

    /// Sends an event that NATS does not carry until it is accepted. Its object is in no directory.
    async fn post_large(&mut self, Large { topic, .. }: &Large) -> Result<()> {
        self.larges += 1;
        let (large, topic) = (self.larges, TOPICS[*topic]);
        let image = json!({
            "dn": large_dn(large), "objectType": topic, "id": format!("large-{large}"),
            "properties": {"ballast": "x".repeat(LARGE_BYTES)},
        });
        let event = json!({
            "publisher_name": "udm-listener", "ts": "2026-01-31T12:00:00", "realm": "udm", "topic": topic,
            "body": {"old": {}, "new": image},
        });
        let topic = topic.to_owned();
        self.send(&event, None, |outcome| Event::Large { large, topic: topic.clone(), outcome }).await
    }

    /// Sends an event until it is accepted; `tried` is what is noted of each try.
    async fn send(
        &mut self,
        event: &Value,
        begins: Option<Event>,
        tried: impl Fn(Outcome) -> Event,
    ) -> Result<()> {
        let deadline = Instant::now() + POSTED_WITHIN;
        loop {
            ensure!(
                Instant::now() < deadline,
                "an event was not accepted in {} s, the last one being {}",
                POSTED_WITHIN.as_secs(),
                self.number
            );
            // On to the other replica only when one fails.
            let replica = self.api.instead(self.tries);
            let start = self.recorder.now();
            if let Some(begins) = &begins {
                self.recorder.note(start, begins.clone());
            }
            let answer =
                self.api.call(replica, Role::Events, Method::POST, "/v1/messages", Some(event.clone()));
            let outcome = outcome(answer.await)?;
            self.recorder.note(start, tried(outcome));
            if outcome == Outcome::Done {
                return Ok(());
            }
            self.tries += 1;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

/// Where the object of an event is that NATS does not carry.
fn large_dn(large: u64) -> String {
    format!("cn=large-{large},dc=example,dc=org")
}

/// Which such event it is, if it is one.
pub(crate) fn large_of(dn: &str) -> Option<u64> {
    dn.strip_prefix("cn=large-")?.split_once(',')?.0.parse().ok()
}

/// What became of a try to post. Refused is what says that nothing was stored.
fn outcome(answer: Answer) -> Result<Outcome> {
    Ok(match answer {
        Some((202, _)) => Outcome::Done,
        Some((503, body)) if REFUSALS.iter().any(|code| body["code"] == *code) => Outcome::Refused,
        None | Some((503, _)) => Outcome::Unknown,
        Some((status, body)) => bail!("an event was answered with {status} {body}"),
    })
}
