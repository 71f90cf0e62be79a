//! One reading of UDM: what is asked, and asked again, until it is answered or there is no use in asking again.
//!
//! The loop is the same for all requests ([`Asked::settle`]); how long it goes on is decided in [`retry`] by how
//! long UDM has been silent, and not by how many of the requests that are under way happened to fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Dn;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::answer;
use super::client::{Asking, Client, Stop, timed};
use super::entries::Entry;
use super::list::{Listed, Wanted};
use super::parts;
use super::permits::Permits;
use super::read_ahead::Reservation;
use super::retry::{self, Circumstances, Class, Failure, Kind, Next};
use crate::source::{AsOf, SnapshotObject, SourceError, SourceEvent, object};

/// Names under which an object that moves is looked for: more often it does not move while it is being read.
const MOVES_MAX: usize = 4;

/// How long UDM may take to show that it answers others, when one object is not answered.
const LOOK_WITHIN: Duration = Duration::from_secs(15);

/// One reading.
pub(super) struct Session {
    client: Arc<Client>,
    pub permits: Permits,
    as_of: AsOf,
    /// For people: what is tried again.
    out: mpsc::Sender<SourceEvent>,
    health: Health,
}

/// What came of asking for an object.
#[derive(Debug)]
pub(super) enum Got {
    /// The object.
    Object(SnapshotObject),
    /// It is gone.
    Gone {
        /// A search for its UUID has not found it either.
        confirmed: bool,
    },
}

/// What came of one try.
enum Seen {
    Object(SnapshotObject),
    Gone { confirmed: bool },
    Moved { to: String },
}

/// What a search for one entry finds.
enum Found {
    /// The entry, here.
    At(String),
    /// No such entry.
    Nowhere,
    /// Whoever answered does not know the type.
    NoModule,
}

/// A request that is asked until it is answered.
struct Asked<'a> {
    session: &'a Session,
    asking: &'a Asking,
    tried: Tried,
}

/// Failed tries of one request.
#[derive(Default)]
struct Tried {
    all: u32,
    /// Of the class that it failed with last.
    class: Option<(Class, u32)>,
    /// UDM was seen to answer others meanwhile.
    looked: bool,
}

impl Tried {
    fn count(&mut self, class: Class) -> u32 {
        self.all += 1;
        let before = self.class.filter(|(last, _)| *last == class).map_or(0, |(_, tried)| tried);
        self.class = Some((class, before + 1));
        before + 1
    }
}

impl Asked<'_> {
    /// Takes how a try ended: what was asked for, or `None` when it is time for the next try.
    async fn settle<T>(&mut self, tried: Result<T, Stop>) -> Result<Option<T>, SourceError> {
        let failure = match tried {
            Ok(answer) => {
                self.session.health.answered();
                return Ok(Some(answer));
            }
            Err(Stop::Again(failure)) => failure,
            Err(Stop::Never(error)) => return Err(error),
            Err(Stop::Gone) => Failure::NotLoaded,
        };
        let wait = self.session.before_next(self.asking, &mut self.tried, failure).await?;
        tokio::time::sleep(wait).await;
        Ok(None)
    }
}

impl Session {
    pub fn new(client: Arc<Client>, as_of: AsOf, out: mpsc::Sender<SourceEvent>) -> Self {
        let permits = Permits::new(client.config().concurrency_max);
        Self { client, permits, as_of, out, health: Health::new() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Says what is waited for or tried again: left out while the engine has enough to do.
    pub fn tell(&self, error: String) {
        _ = self.out.try_send(SourceEvent::Retrying { error });
    }

    /// The names of all modules, as UDM has loaded them.
    pub async fn index(&self) -> Result<Vec<String>, SourceError> {
        let asking = self.asking_index();
        let mut asked = self.asked(&asking);
        loop {
            let tried = self.client.body(&asking).await;
            let modules = tried.and_then(|body| Ok(answer::modules(&body)?));
            if let Some(modules) = asked.settle(modules).await? {
                return Ok(modules);
            }
        }
    }

    fn asking_index(&self) -> Asking {
        let what = "the index of modules (GET /udm/)".to_owned();
        Asking { kind: Kind::Index, url: self.client.base.index(), what }
    }

    /// A module's list, parsed while it comes; in parts if UDM can't give it as a whole. `None`: whoever answers does
    /// not know the module.
    pub async fn list(&self, wanted: &Wanted) -> Result<Option<Listed>, SourceError> {
        let what = format!("the list of {}", wanted.module);
        let url = self.client.base.list(&wanted.module);
        match self.one_list(&Asking { kind: Kind::List, url, what }, wanted).await {
            Err(error) if parts::may_help(&error) => parts::list(self, wanted, error).await.map(Some),
            done => done,
        }
    }

    /// The part of a list whose UUIDs are within a range, both ends included.
    pub async fn part(&self, wanted: &Wanted, from: Uuid, to: Uuid) -> Result<Listed, SourceError> {
        let what = format!("the list of {} from {from} to {to}", wanted.module);
        let url = self.client.base.part(&wanted.module, from, to);
        let asking = Asking { kind: Kind::Part, url, what };
        let listed = self.one_list(&asking, wanted).await?;
        listed.ok_or_else(|| unavailable(&asking, 1, Failure::NotLoaded))
    }

    async fn one_list(&self, asking: &Asking, wanted: &Wanted) -> Result<Option<Listed>, SourceError> {
        let mut asked = self.asked(asking);
        loop {
            let listed = match self.client.listed(asking, wanted.clone()).await {
                Err(Stop::Gone) => Ok(None),
                tried => tried.map(Some),
            };
            if let Some(listed) = asked.settle(listed).await? {
                return Ok(listed);
            }
        }
    }

    /// One object, wherever it is by now. Each try waits at the gate; its bytes are held in `space`.
    pub async fn object(&self, entry: &Entry, reservation: &mut Reservation) -> Result<Got, SourceError> {
        let mut dn = entry.dn.clone();
        for _ in 0..MOVES_MAX {
            let asking = self.asking_object(entry, &dn);
            let mut asked = self.asked(&asking);
            let seen = loop {
                let tried = self.try_object(&asking, entry, &dn, reservation).await;
                if let Some(seen) = asked.settle(tried).await? {
                    break seen;
                }
            };
            match seen {
                Seen::Object(object) => return Ok(Got::Object(object)),
                Seen::Gone { confirmed } => return Ok(Got::Gone { confirmed }),
                Seen::Moved { to } => dn = to,
            }
        }
        let moves = Failure::Unreadable("it moves as fast as it is read".to_owned());
        let what = self.asking_object(entry, &dn).what;
        Err(SourceError::BrokenObject { what, tries: MOVES_MAX as u32, source: moves })
    }

    fn asking_object(&self, entry: &Entry, dn: &str) -> Asking {
        let what = match entry.uuid {
            // Not the DN, which has people's names in it: `GET /udm/object/<uuid>` leads to the object.
            Some(uuid) => format!("the object {uuid} of {}", entry.object_type),
            None => format!("the object {dn} of {}", entry.object_type),
        };
        Asking { kind: Kind::Object, url: self.client.base.object(&entry.object_type, dn), what }
    }

    async fn try_object(
        &self,
        asking: &Asking,
        entry: &Entry,
        dn: &str,
        reservation: &mut Reservation,
    ) -> Result<Seen, Stop> {
        let pass = self.permits.enter(reservation.number()).await;
        // Before the request: what is accepted later may be missing in the answer.
        let as_of = self.as_of.now();
        let limit = self.client.config().request_timeout;
        let mut left = limit;
        let answer = self.client.text(asking, reservation, &mut left).await;
        match answer.and_then(|text| Ok(object::take(text).map_err(answer::unreadable)?)) {
            Ok((topic, object)) => {
                pass.answered(limit - left);
                Ok(Seen::Object(SnapshotObject { topic, object, as_of }))
            }
            Err(Stop::Gone) => self.gone(entry, dn).await,
            Err(stop) => {
                reservation.clear();
                if matches!(&stop, Stop::Again(failure) if failure.is_push_back()) {
                    pass.pushed_back();
                }
                Err(stop)
            }
        }
    }

    /// UDM has nothing under a DN that it has listed. That need not be a deletion: the object may have moved, or the
    /// process that answers may not know its type.
    async fn gone(&self, entry: &Entry, dn: &str) -> Result<Seen, Stop> {
        let Some(uuid) = entry.uuid else { return Ok(Seen::Gone { confirmed: false }) };
        let again = |words: &str| {
            let words = format!(", but {words}");
            Err(Stop::Again(Failure::Fault { status: 404, words }))
        };
        match self.find(&entry.object_type, uuid).await {
            Ok(Found::Nowhere) => Ok(Seen::Gone { confirmed: true }),
            Ok(Found::NoModule) => Err(Stop::Again(Failure::NotLoaded)),
            Ok(Found::At(now)) if now.parse::<Dn>() == dn.parse::<Dn>() => again(
                "it is still listed there: may the account read it, and does a proxy rewrite addresses?",
            ),
            Ok(Found::At(to)) => Ok(Seen::Moved { to }),
            Err(error @ SourceError::Refused { .. }) => {
                again(&format!("whether it is gone can't be told: {error}"))
            }
            Err(error) => Err(Stop::Never(error)),
        }
    }

    /// Looks for the entry of a UUID.
    async fn find(&self, object_type: &str, uuid: Uuid) -> Result<Found, SourceError> {
        let what = format!("the search for {uuid} of {object_type}");
        let asking = Asking { kind: Kind::Find, url: self.client.base.find(object_type, uuid), what };
        let mut asked = self.asked(&asking);
        loop {
            let found = match self.client.body(&asking).await {
                Ok(body) => {
                    answer::first_dn(&body).map(|dn| dn.map_or(Found::Nowhere, Found::At)).map_err(Stop::from)
                }
                Err(Stop::Gone) => Ok(Found::NoModule),
                Err(stop) => Err(stop),
            };
            if let Some(found) = asked.settle(found).await? {
                return Ok(found);
            }
        }
    }

    /// Is there such an object, and does UDM know its type?
    pub async fn exists(&self, object_type: &str, dn: &str) -> Result<bool, SourceError> {
        let what = format!("the object {dn} of {object_type}");
        let asking = Asking { kind: Kind::Object, url: self.client.base.object(object_type, dn), what };
        let mut asked = self.asked(&asking);
        loop {
            let there = match self.client.head(&asking).await {
                Err(Stop::Gone) => Ok(false),
                tried => tried.map(|()| true),
            };
            if let Some(there) = asked.settle(there).await? {
                return Ok(there);
            }
        }
    }

    fn asked<'a>(&'a self, asking: &'a Asking) -> Asked<'a> {
        Asked { session: self, asking, tried: Tried::default() }
    }

    /// How long to wait before a request is sent again; an error if there is no use in that.
    async fn before_next(
        &self,
        asking: &Asking,
        tried: &mut Tried,
        failure: Failure,
    ) -> Result<Duration, SourceError> {
        let retries = &self.client.config().retries;
        let class = retry::class(asking.kind, &failure, retries);
        let now = Circumstances { tried: tried.count(class), ..self.health.note(class, &failure) };
        match retry::next(asking.kind, &failure, now, retries) {
            Next::Again => {}
            Next::End => return Err(self.given_up(asking, class, tried.all, failure)),
            Next::Look if self.answers_others().await => {
                // It may have recovered just now: then it answers this one, too.
                if std::mem::replace(&mut tried.looked, true) {
                    return Err(self.given_up(asking, Class::Wrong, tried.all, failure));
                }
            }
            Next::Look if self.health.silence() >= retries.away => {
                return Err(unavailable(asking, tried.all, failure));
            }
            Next::Look => {}
        }
        if class == Class::Refused {
            self.client.renew_credentials()?;
        }
        let wait = retry::wait(tried.all, failure.retry_after(), retries, random());
        let error = format!("{}: {}", asking.what, failure.without_words());
        let wait_ms = wait.as_millis();
        tracing::warn!(error, tried = tried.all, wait_ms, "a request to UDM failed and is sent again");
        self.tell(error);
        if asking.kind == Kind::Object && failure.is_of_all() {
            // What holds for one holds for all: nobody asks before.
            self.permits.close_for(wait);
        }
        Ok(wait)
    }

    /// Does UDM answer something else, while an object is not answered?
    async fn answers_others(&self) -> bool {
        let within = self.client.config().request_timeout.min(LOOK_WITHIN);
        let asking = self.asking_index();
        let answered = timed(within, self.client.head(&asking)).await.is_ok();
        if answered {
            self.health.answered();
        }
        answered
    }

    /// The error after the last try.
    fn given_up(&self, asking: &Asking, class: Class, tries: u32, failure: Failure) -> SourceError {
        let what = asking.what.clone();
        match (failure, asking.kind, class) {
            (Failure::Unauthorized, ..) => {
                SourceError::CredentialsRefused { account: self.client.config().credentials.account(), what }
            }
            (Failure::Fault { status: 404, words }, Kind::Index, _) => SourceError::Refused {
                what,
                status: 404,
                message: words,
                advice: "there is no UDM REST API at this path: check the UDM base URL and its prefix",
            },
            (source, Kind::Object, Class::Wrong) => SourceError::BrokenObject { what, tries, source },
            (failure, ..) => unavailable(asking, tries, failure),
        }
    }
}

fn unavailable(asking: &Asking, tries: u32, source: Failure) -> SourceError {
    SourceError::Unavailable { what: asking.what.clone(), tries, source }
}

/// When UDM was heard of last: of all requests of a reading, since what is under way at once fails at once.
struct Health {
    last: Mutex<Last>,
}

#[derive(Clone, Copy)]
struct Last {
    heard: Instant,
    /// Since when credentials are refused at once.
    refused: Option<Instant>,
}

impl Health {
    fn new() -> Self {
        Self { last: Mutex::new(Last { heard: Instant::now(), refused: None }) }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        *self.last() = Last { heard: Instant::now(), refused: None };
    }

    fn silence(&self) -> Duration {
        self.last().heard.elapsed()
    }

    /// Notes a failure, which may be an answer, too.
    fn note(&self, class: Class, failure: &Failure) -> Circumstances {
        let mut last = self.last();
        match (class, failure) {
            (Class::Wrong, _) => *last = Last { heard: Instant::now(), refused: None },
            (Class::Refused, _) => _ = last.refused.get_or_insert_with(Instant::now),
            (_, Failure::DirectoryAway(_)) => last.refused = None,
            _ => {}
        }
        let refused = last.refused.map_or(Duration::ZERO, |since| since.elapsed());
        Circumstances { tried: 0, silence: last.heard.elapsed(), refused }
    }
}

/// Sixteen bits out of a random UUID: enough to spread waits.
fn random() -> u16 {
    let bytes = Uuid::new_v4();
    u16::from_le_bytes([bytes.as_bytes()[0], bytes.as_bytes()[1]])
}
