//! Requests: one at a time, tried again within bounds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Response, Url, redirect};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::address::Base;
use super::answer;
use super::entries::Entry;
use super::gate::Gate;
use super::list::{self, Listed, Wanted};
use super::resolver::Turns;
use super::retry::{self, Failure, Kind, Verdict};
use super::room::Space;
use super::{BrokenObjects, Config, tls};
use crate::source::cut::Cutter;
use crate::source::{AsOf, SnapshotObject, SourceError, SourceEvent, object};

/// Headers of one answer. UDM sends a `Link` header for each link, references included in some versions; hyper's
/// own limit is 100, and 400 KB for all of them.
const HEADERS_MAX: usize = 2048;

/// Pieces of a list that wait to be parsed, of some 16 KB each.
const PIECES_WAITING: usize = 16;

/// Redirects on the same origin that are followed.
const REDIRECTS_MAX: usize = 5;

/// Bytes of an answer that is no object: the index has 60 KB, and of an error only the first words are read.
const SMALL_MAX: usize = 16 << 20;

/// Sends requests with our credentials, to one origin only.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Base,
    config: Config,
    authorization: RwLock<HeaderValue>,
    /// Were our credentials accepted once?
    accepted: AtomicBool,
}

/// A request.
struct Asking {
    kind: Kind,
    url: Url,
    /// For errors and logs.
    what: String,
}

/// What came of asking for an object.
#[derive(Debug)]
pub(super) enum Got {
    /// The object.
    Object(SnapshotObject),
    /// It is gone.
    Gone,
    /// It can't be read, and is to be left out; why.
    Broken(String),
}

/// How one try ended without what was asked for.
enum Stop {
    /// Again, within bounds.
    Again(Failure),
    /// The object is gone.
    Gone,
    /// Not again.
    Never(SourceError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Again(failure)
    }
}

impl Client {
    /// Checks the settings. Nothing is sent yet.
    pub fn new(config: Config) -> Result<Self, SourceError> {
        let base = Base::parse(&config.base_url)?;
        let origin = base.clone();
        let same_origin = redirect::Policy::custom(move |attempt| {
            let follow = origin.is_same_origin(attempt.url()) && attempt.previous().len() <= REDIRECTS_MAX;
            if follow { attempt.follow() } else { attempt.stop() }
        });
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(base.is_https(), config.ca_pem.as_deref())?)
            .redirect(same_origin)
            // UDM is a neighbour in the cluster; a proxy for the outside must not see the password.
            .no_proxy()
            .dns_resolver(Turns::default())
            .http1_max_headers(HEADERS_MAX)
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.concurrency_max)
            .user_agent(concat!("headstart-prefill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| SourceError::Setting { setting: "UDM connection", problem: e.to_string() })?;
        let authorization = RwLock::new(config.credentials.authorization()?);
        Ok(Self { http, base, config, authorization, accepted: AtomicBool::new(false) })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The names of all modules, as UDM has loaded them.
    pub async fn index(&self, out: &mpsc::Sender<SourceEvent>) -> Result<Vec<String>, SourceError> {
        let what = "the index of modules (GET /udm/)".to_owned();
        let asking = Asking { kind: Kind::Index, url: self.base.index(), what };
        let attempt = async || Ok(answer::modules(&small(self.once(&asking).await?).await?)?);
        let mut tried = 0;
        loop {
            match timed(self.config.request_timeout, attempt()).await {
                Ok(names) => return Ok(names),
                Err(stop) => {
                    let wait = self.before_next(&asking, &mut tried, stop, out)?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// A module's list, parsed while it comes.
    pub async fn list(
        &self,
        wanted: &Wanted,
        out: &mpsc::Sender<SourceEvent>,
    ) -> Result<Listed, SourceError> {
        let what = format!("the list of {}", wanted.module);
        let asking = Asking { kind: Kind::List, url: self.base.list(&wanted.module), what };
        let attempt = async || {
            let head = timed(self.config.list_timeout, self.once(&asking)).await?;
            Ok(self.entries(head, wanted.clone()).await?)
        };
        let mut tried = 0;
        loop {
            match attempt().await {
                Ok(listed) => return Ok(listed),
                Err(stop) => {
                    let wait = self.before_next(&asking, &mut tried, stop, out)?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// One object. Each try waits at the gate; its bytes are held in `space`.
    pub async fn object(
        &self,
        entry: &Entry,
        gate: &Gate,
        space: &mut Space,
        as_of: &AsOf,
        out: &mpsc::Sender<SourceEvent>,
    ) -> Result<Got, SourceError> {
        let what = match entry.uuid {
            // Not the DN, which has people's names in it: `GET /udm/object/<uuid>` leads to the object.
            Some(uuid) => format!("the object {uuid} of {}", entry.object_type),
            None => format!("the object {} of {}", entry.dn, entry.object_type),
        };
        let url = self.base.object(&entry.object_type, &entry.dn);
        let asking = Asking { kind: Kind::Object, url, what };
        let mut tried = 0;
        loop {
            let pass = gate.enter(space.number()).await;
            // Before the request: what is accepted later may be missing in the answer.
            let as_of = as_of.now();
            let mut left = self.config.request_timeout;
            let answer = self.text(&asking, space, &mut left).await;
            let stop = match answer.and_then(|text| Ok(object::take(text).map_err(answer::unreadable)?)) {
                Ok((topic, object)) => {
                    pass.answered(self.config.request_timeout - left);
                    return Ok(Got::Object(SnapshotObject { topic, object, as_of }));
                }
                Err(Stop::Gone) => return Ok(Got::Gone),
                Err(stop) => stop,
            };
            space.clear();
            if matches!(&stop, Stop::Again(failure) if failure.is_push_back()) {
                pass.pushed_back();
            } else {
                drop(pass);
            }
            let everybody = matches!(
                &stop,
                Stop::Again(Failure::Unauthorized | Failure::Busy { retry_after: Some(_), .. })
            );
            match self.before_next(&asking, &mut tried, stop, out) {
                // What holds for one holds for all: nobody asks before.
                Ok(wait) if everybody => gate.close_for(wait),
                Ok(wait) => tokio::time::sleep(wait).await,
                Err(error) => {
                    return match (self.config.broken_objects, &error) {
                        (BrokenObjects::SetAside, _) if error.is_of_one_object() => {
                            Ok(Got::Broken(model::chain(&error)))
                        }
                        _ => Err(error),
                    };
                }
            }
        }
    }

    /// Is there such an object, and does UDM know its type?
    pub async fn exists(&self, object_type: &str, dn: &str) -> Result<bool, SourceError> {
        let what = format!("the object {dn} of {object_type}");
        let asking = Asking { kind: Kind::Object, url: self.base.object(object_type, dn), what };
        let (out, _nobody) = mpsc::channel(1);
        let mut tried = 0;
        loop {
            match timed(self.config.request_timeout, self.once(&asking)).await {
                Ok(_) => return Ok(true),
                Err(Stop::Gone) => return Ok(false),
                Err(stop) => {
                    tokio::time::sleep(self.before_next(&asking, &mut tried, stop, &out)?).await;
                }
            }
        }
    }

    /// How many objects of a module lack an attribute in LDAP, asked once; `None` if there is no answer to that.
    pub async fn lacking(&self, module: &str, attribute: &str) -> Option<u64> {
        let what = format!("the list of {module} without {attribute}");
        let asking = Asking { kind: Kind::List, url: self.base.lacking(module, attribute), what };
        let body = async { small(self.once(&asking).await?).await.map_err(Stop::from) };
        let body = timed(self.config.list_timeout, body).await.ok()?;
        answer::results(&body)
    }

    /// How long to wait before a request is sent again; an error if there is no use in that.
    fn before_next(
        &self,
        asking: &Asking,
        tried: &mut u32,
        stop: Stop,
        out: &mpsc::Sender<SourceEvent>,
    ) -> Result<Duration, SourceError> {
        *tried += 1;
        let failure = match stop {
            Stop::Again(failure) => failure,
            Stop::Never(error) => return Err(error),
            Stop::Gone => return Err(self.given_up(asking, *tried, Failure::Fault { status: 404 })),
        };
        let accepted = self.accepted.load(Ordering::Relaxed);
        let tries = retry::tries(&failure, asking.kind, accepted, &self.config.retries);
        if *tried >= tries {
            return Err(self.given_up(asking, *tried, failure));
        }
        if matches!(failure, Failure::Unauthorized) {
            let fresh = self.config.credentials.authorization()?;
            *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        let asked_for = match &failure {
            Failure::Busy { retry_after, .. } => *retry_after,
            _ => None,
        };
        let wait = retry::wait(*tried, asked_for, &self.config.retries, random());
        let error = format!("{}: {}", asking.what, model::chain(&failure));
        let wait_ms = wait.as_millis();
        tracing::warn!(error, tried, tries, wait_ms, "a request to UDM failed and is sent again");
        // For people: left out while the engine has enough to do.
        _ = out.try_send(SourceEvent::Retrying { error });
        Ok(wait)
    }

    /// Sends a request once, and looks at the head of its answer.
    async fn once(&self, asking: &Asking) -> Result<Response, Stop> {
        let authorization = self.authorization.read().unwrap_or_else(PoisonError::into_inner).clone();
        let request = self
            .http
            .get(asking.url.clone())
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json")
            // UDM runs a process for each language: ask for one only.
            .header(ACCEPT_LANGUAGE, "en-US")
            .header("X-Request-Id", Uuid::new_v4().to_string());
        let response = request.send().await.map_err(connection)?;
        let status = response.status().as_u16();
        match retry::verdict(asking.kind, status) {
            Verdict::Good => {
                self.accepted.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Verdict::Gone => Err(Stop::Gone),
            Verdict::Unauthorized => Err(Failure::Unauthorized.into()),
            Verdict::Fault => Err(Failure::Fault { status }.into()),
            Verdict::Busy => {
                let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after =
                    header.and_then(|header| retry::retry_after(header, jiff::Timestamp::now()));
                Err(Failure::Busy { status, retry_after }.into())
            }
            Verdict::Refused(advice) => {
                let message = match asking.kind {
                    Kind::Object => String::new(),
                    Kind::Index | Kind::List => {
                        let body = timeout(self.config.idle_timeout, small(response)).await;
                        body.ok().and_then(Result::ok).map_or_else(String::new, |body| answer::words(&body))
                    }
                };
                Err(Stop::Never(SourceError::Refused { what: asking.what.clone(), status, message, advice }))
            }
        }
    }

    /// The error after the last try.
    fn given_up(&self, asking: &Asking, tries: u32, failure: Failure) -> SourceError {
        let what = asking.what.clone();
        match failure {
            Failure::Unauthorized => {
                SourceError::CredentialsRefused { account: self.config.credentials.account(), what }
            }
            Failure::Unreadable(problem) => SourceError::Unreadable { what, problem },
            Failure::Fault { status } => match retry::advice_if_it_stays(asking.kind, status) {
                Some(advice) => SourceError::Refused { what, status, message: String::new(), advice },
                None => SourceError::Unavailable { what, tries, source: Failure::Fault { status } },
            },
            source => SourceError::Unavailable { what, tries, source },
        }
    }

    /// An object's text without its links, which are dropped while they come. Waiting for space takes nothing of the
    /// time that is left.
    async fn text(&self, asking: &Asking, space: &mut Space, left: &mut Duration) -> Result<Vec<u8>, Stop> {
        let limit = self.config.request_timeout;
        let mut response = spend(left, limit, self.once(asking)).await?;
        let (mut cutter, mut text) = (Cutter::new(), Vec::new());
        while let Some(piece) = spend(left, limit, next(&mut response)).await? {
            cutter.push(&piece, &mut text);
            if text.len() > self.config.max_object_bytes {
                let problem = format!("it has more than {} bytes", self.config.max_object_bytes);
                return Err(Failure::Unreadable(problem).into());
            }
            space.hold(text.len()).await;
        }
        Ok(text)
    }

    /// Parses a list on a thread of its own while it comes.
    async fn entries(&self, mut response: Response, wanted: Wanted) -> Result<Listed, Failure> {
        let (sender, receiver) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let parser = tokio::task::spawn_blocking(move || list::read(list::Pieces::new(receiver), wanted));
        let mut left = self.config.idle_timeout;
        while let Some(piece) = spend(&mut left, self.config.idle_timeout, next(&mut response)).await? {
            if sender.send(piece).await.is_err() {
                // The parser has seen enough, and says why below.
                break;
            }
            left = self.config.idle_timeout;
        }
        drop(sender);
        match parser.await {
            Ok(listed) => listed.map_err(answer::unreadable),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// A whole body that is no object.
async fn small(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(piece) = next(&mut response).await? {
        if body.len() + piece.len() > SMALL_MAX {
            return Err(Failure::Unreadable(format!("it has more than {SMALL_MAX} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

async fn next(response: &mut Response) -> Result<Option<Bytes>, Failure> {
    response.chunk().await.map_err(connection)
}

/// Gives up after a time.
async fn timed<T, E: From<Failure>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(Failure::Timeout(limit).into()))
}

/// Gives up when no time is left of a limit.
async fn spend<T, E: From<Failure>>(
    left: &mut Duration,
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let began = Instant::now();
    let done = timeout(*left, work).await.unwrap_or_else(|_| Err(Failure::Timeout(limit).into()));
    *left = left.saturating_sub(began.elapsed());
    done
}

/// The address is left out, because it has people's names in it.
fn connection(error: reqwest::Error) -> Failure {
    Failure::Connection(error.without_url())
}

/// Sixteen bits out of a random UUID: enough to spread waits.
fn random() -> u16 {
    let bytes = Uuid::new_v4();
    u16::from_le_bytes([bytes.as_bytes()[0], bytes.as_bytes()[1]])
}
