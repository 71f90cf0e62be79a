//! Requests: one at a time, tried again within bounds.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Response, Url, redirect};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use super::address::Base;
use super::list::{self, Entries, Entry};
use super::retry::{self, Failure, Kind, Verdict};
use super::{Config, Credentials, tls};
use crate::source::{SnapshotObject, SourceError, SourceEvent, object};

/// Headers of one answer. UDM sends a `Link` header for each link, references included in some versions; hyper's
/// own limit is 100, and 400 KB for all of them.
const HEADERS_MAX: usize = 2048;

/// Pieces of a list that wait to be parsed, of some 16 KB each.
const PIECES_WAITING: usize = 16;

/// Redirects on the same origin that are followed.
const REDIRECTS_MAX: usize = 5;

/// Characters of UDM's own words that an error repeats.
const MESSAGE_MAX: usize = 200;

/// Sends requests with our credentials, to one origin only.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Base,
    config: Config,
    authorization: RwLock<HeaderValue>,
}

/// A request.
struct Asking {
    kind: Kind,
    url: Url,
    /// For errors and logs.
    what: String,
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
            .http1_max_headers(HEADERS_MAX)
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.concurrency)
            .user_agent(concat!("headstart-prefill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| SourceError::Setting { setting: "UDM connection", problem: e.to_string() })?;
        let authorization = RwLock::new(authorization(&config.credentials)?);
        Ok(Self { http, base, config, authorization })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The names of all modules, as UDM has loaded them.
    pub async fn index(&self, out: &mpsc::Sender<SourceEvent>) -> Result<Vec<String>, SourceError> {
        let what = "the index of modules (GET /udm/)".to_owned();
        let asking = Asking { kind: Kind::Index, url: self.base.index(), what };
        let attempt = async || {
            let body = self.body(self.once(&asking).await?).await?;
            let index: Index =
                serde_json::from_slice(&body).map_err(|e| Failure::Unreadable(e.to_string()))?;
            Ok(index.links.object_types.into_iter().map(|module| module.name).collect())
        };
        let mut tried = 0;
        loop {
            match timed(self.config.request_timeout, attempt()).await {
                Ok(names) => return Ok(names),
                Err(stop) => self.wait(&asking, &mut tried, stop, out).await?,
            }
        }
    }

    /// A module's list, parsed while it comes.
    pub async fn list(&self, module: &str, out: &mpsc::Sender<SourceEvent>) -> Result<Entries, SourceError> {
        let what = format!("the list of {module}");
        let asking = Asking { kind: Kind::List, url: self.base.list(module), what };
        let attempt = async || {
            let head = timed(self.config.list_timeout, self.once(&asking)).await?;
            Ok(self.entries(head).await?)
        };
        let mut tried = 0;
        loop {
            match attempt().await {
                Ok(entries) => return Ok(entries),
                Err(stop) => self.wait(&asking, &mut tried, stop, out).await?,
            }
        }
    }

    /// One object; `None` if it is gone.
    pub async fn object(
        &self,
        entry: Entry<'_>,
        out: &mpsc::Sender<SourceEvent>,
    ) -> Result<Option<SnapshotObject>, SourceError> {
        let what = match entry.uuid {
            // Not the DN, which has people's names in it: `GET /udm/object/<uuid>` leads to the object.
            Some(uuid) => format!("the object {uuid} of {}", entry.object_type),
            None => format!("the object {} of {}", entry.dn, entry.object_type),
        };
        let url = self.base.object(entry.object_type, entry.dn);
        let asking = Asking { kind: Kind::Object, url, what };
        let attempt = async || Ok(snapshot(&self.body(self.once(&asking).await?).await?)?);
        let mut tried = 0;
        loop {
            match timed(self.config.request_timeout, attempt()).await {
                Ok(object) => return Ok(Some(object)),
                Err(Stop::Gone) => return Ok(None),
                Err(stop) => self.wait(&asking, &mut tried, stop, out).await?,
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
                Err(stop) => self.wait(&asking, &mut tried, stop, &out).await?,
            }
        }
    }

    /// Waits before a request is sent again; an error if there is no use in that.
    async fn wait(
        &self,
        asking: &Asking,
        tried: &mut u32,
        stop: Stop,
        out: &mpsc::Sender<SourceEvent>,
    ) -> Result<(), SourceError> {
        *tried += 1;
        let failure = match stop {
            Stop::Again(failure) => failure,
            Stop::Never(error) => return Err(error),
            Stop::Gone => return Err(self.given_up(asking, *tried, Failure::Fault { status: 404 })),
        };
        let tries = retry::tries(&failure, asking.kind, &self.config.retries);
        if *tried >= tries {
            return Err(self.given_up(asking, *tried, failure));
        }
        if matches!(failure, Failure::Unauthorized) {
            let fresh = authorization(&self.config.credentials)?;
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
        tokio::time::sleep(wait).await;
        Ok(())
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
            Verdict::Good => Ok(response),
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
                    Kind::Index | Kind::List => self.message(response).await,
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
                let account = match &self.config.credentials {
                    Credentials::Basic { username, .. } => username.clone(),
                    Credentials::Bearer(_) => "the bearer token".to_owned(),
                };
                SourceError::CredentialsRefused { account, what }
            }
            Failure::Unreadable(problem) => SourceError::Unreadable { what, problem },
            Failure::Fault { status } => match retry::advice_if_it_stays(asking.kind, status) {
                Some(advice) => SourceError::Refused { what, status, message: String::new(), advice },
                None => SourceError::Unavailable { what, tries, source: Failure::Fault { status } },
            },
            source => SourceError::Unavailable { what, tries, source },
        }
    }

    /// A whole body, within the bound.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let bound = self.config.max_object_bytes;
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
        let mut body = Vec::with_capacity(announced.unwrap_or(0).min(bound));
        while let Some(piece) = response.chunk().await.map_err(connection)? {
            if body.len() + piece.len() > bound {
                return Err(Failure::Unreadable(format!("it has more than {bound} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Parses a list on a thread of its own while it comes.
    async fn entries(&self, mut response: Response) -> Result<Entries, Failure> {
        let (sender, receiver) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let parser = tokio::task::spawn_blocking(move || list::read(list::Pieces::new(receiver)));
        loop {
            let piece = timeout(self.config.idle_timeout, response.chunk()).await;
            match piece.map_err(|_| Failure::Timeout(self.config.idle_timeout))?.map_err(connection)? {
                Some(piece) => match sender.send(piece).await {
                    Ok(()) => {}
                    // The parser has seen enough, and says why below.
                    Err(_) => break,
                },
                None => break,
            }
        }
        drop(sender);
        match parser.await {
            Ok(entries) => entries.map_err(|e| Failure::Unreadable(e.to_string())),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// What UDM says of an error, shortened; with `, ` before it.
    async fn message(&self, response: Response) -> String {
        let Ok(Ok(body)) = timeout(self.config.idle_timeout, self.body(response)).await else {
            return String::new();
        };
        let Ok(Problem { error }) = serde_json::from_slice(&body) else { return String::new() };
        let words: String = error.message.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
        if words.is_empty() { words } else { format!(", {words:?}") }
    }
}

/// Reads the answer to a GET of an object.
fn snapshot(body: &[u8]) -> Result<SnapshotObject, Failure> {
    let unreadable = |problem: &dyn std::fmt::Display| Failure::Unreadable(problem.to_string());
    let read = object::read(body).map_err(|e| unreadable(&e))?;
    Ok(SnapshotObject {
        topic: read.object_type.clone(),
        object: read.into_raw().map_err(|e| unreadable(&e))?,
        as_of: None,
    })
}

/// The value of the header, which does not show in a log.
fn authorization(credentials: &Credentials) -> Result<HeaderValue, SourceError> {
    use base64::Engine as _;
    let (setting, secret) = match credentials {
        Credentials::Basic { password, .. } => ("UDM password", password),
        Credentials::Bearer(token) => ("UDM token", token),
    };
    let refused = |problem: String| SourceError::Setting { setting, problem };
    let secret = secret.read().map_err(|e| refused(model::chain(&e)))?;
    let text = match credentials {
        Credentials::Basic { username, .. } => {
            let plain = format!("{username}:{secret}");
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain))
        }
        Credentials::Bearer(_) => format!("Bearer {secret}"),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| refused("it has characters that no header can have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Gives up after a time.
async fn timed<T, E: From<Failure>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(Failure::Timeout(limit).into()))
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

#[derive(Deserialize)]
struct Index {
    #[serde(rename = "_links")]
    links: IndexLinks,
}

#[derive(Deserialize)]
struct IndexLinks {
    #[serde(rename = "udm:object-types")]
    object_types: Vec<ModuleLink>,
}

#[derive(Deserialize)]
struct ModuleLink {
    name: String,
}

#[derive(Deserialize)]
struct Problem {
    error: ProblemWords,
}

#[derive(Deserialize)]
struct ProblemWords {
    message: String,
}
