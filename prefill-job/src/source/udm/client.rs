//! Requests, each sent once: what to ask again, and when, is the [`Session`](super::session::Session)'s.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, Url, redirect};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::address::Base;
use super::answer;
use super::list::{self, Listed, Wanted};
use super::read_ahead::Reservation;
use super::resolver::Turns;
use super::retry::{self, Failure, Kind, Verdict};
use super::{Config, tls};
use crate::source::SourceError;
use crate::source::strip_links::LinkStripper;

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
    pub base: Base,
    config: Config,
    authorization: RwLock<HeaderValue>,
}

/// A request.
pub(super) struct Asking {
    pub kind: Kind,
    pub url: Url,
    /// For errors and logs.
    pub what: String,
}

/// How one try ended without what was asked for.
pub(super) enum Stop {
    /// Again, within bounds.
    Again(Failure),
    /// There is nothing under this address.
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
        Ok(Self { http, base, config, authorization })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the credentials again, which may be in a file that has changed.
    pub fn renew_credentials(&self) -> Result<(), SourceError> {
        let fresh = self.config.credentials.authorization()?;
        *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    async fn send(&self, url: &Url) -> Result<(Response, Duration), Failure> {
        let authorization = self.authorization.read().unwrap_or_else(PoisonError::into_inner).clone();
        let request = self
            .http
            .get(url.clone())
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json")
            // UDM runs a process for each language: ask for one only.
            .header(ACCEPT_LANGUAGE, "en-US")
            .header("X-Request-Id", Uuid::new_v4().to_string());
        let began = Instant::now();
        let answered = request.send().await;
        let took = began.elapsed();
        // The address is left out, because it has people's names in it.
        let response = answered.map_err(|error| Failure::Connection { took, source: error.without_url() })?;
        Ok((response, took))
    }

    /// Sends a request once, and looks at the head of its answer.
    pub async fn once(&self, asking: &Asking) -> Result<Response, Stop> {
        let (response, took) = self.send(&asking.url).await?;
        let status = response.status().as_u16();
        match retry::verdict(asking.kind, status) {
            Verdict::Good => Ok(response),
            Verdict::Gone => Err(Stop::Gone),
            Verdict::Unauthorized if took >= self.config.retries.slow_refusal => {
                Err(Failure::DirectoryAway(took).into())
            }
            Verdict::Unauthorized => Err(Failure::Unauthorized.into()),
            Verdict::Fault => {
                let words = self.words(response).await;
                Err(Failure::Fault { status, words }.into())
            }
            Verdict::Busy => {
                let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after =
                    header.and_then(|header| retry::retry_after(header, jiff::Timestamp::now()));
                Err(Failure::Busy { status, retry_after, took }.into())
            }
            Verdict::Refused(advice) => {
                let message = self.words(response).await;
                Err(Stop::Never(SourceError::Refused { what: asking.what.clone(), status, message, advice }))
            }
        }
    }

    /// UDM's own words on what is wrong.
    async fn words(&self, response: Response) -> String {
        let body = timeout(self.config.idle_timeout, small(response)).await;
        body.ok().and_then(Result::ok).map_or_else(String::new, |body| answer::words(&body))
    }

    /// A whole body that is no object.
    pub async fn body(&self, asking: &Asking) -> Result<Vec<u8>, Stop> {
        timed(self.config.request_timeout, async { Ok(small(self.once(asking).await?).await?) }).await
    }

    /// A list's head in time, then its entries while they come.
    pub async fn listed(&self, asking: &Asking, wanted: Wanted) -> Result<Listed, Stop> {
        let head = timed(self.config.list_timeout, self.once(asking)).await?;
        Ok(self.entries(head, wanted).await?)
    }

    /// Is there something, whatever it is?
    pub async fn head(&self, asking: &Asking) -> Result<(), Stop> {
        timed(self.config.request_timeout, self.once(asking)).await.map(drop)
    }

    /// How many objects of a module lack an attribute in LDAP, asked once; `None` if there is no answer to that.
    pub async fn lacking(&self, module: &str, attribute: &str) -> Option<u64> {
        let what = format!("the list of {module} without {attribute}");
        let asking = Asking { kind: Kind::List, url: self.base.lacking(module, attribute), what };
        let body = async { small(self.once(&asking).await?).await.map_err(Stop::from) };
        answer::results(&timed(self.config.list_timeout, body).await.ok()?)
    }

    /// An object's text without its links, which are dropped while they come. Waiting for space takes nothing of the
    /// time that is left.
    pub async fn text(
        &self,
        asking: &Asking,
        reservation: &mut Reservation,
        left: &mut Duration,
    ) -> Result<Vec<u8>, Stop> {
        let limit = self.config.request_timeout;
        let mut response = spend(left, limit, self.once(asking)).await?;
        let (mut cutter, mut text) = (LinkStripper::new(), Vec::new());
        while let Some(piece) = spend(left, limit, next(&mut response)).await? {
            cutter.push(&piece, &mut text);
            if text.len() > self.config.max_object_bytes {
                let problem = format!("it has more than {} bytes", self.config.max_object_bytes);
                return Err(Failure::Unreadable(problem).into());
            }
            reservation.hold(text.len()).await;
        }
        Ok(text)
    }

    /// The DN of the entry of a UUID: UDM redirects to the object. `None` if it does not say.
    pub async fn dn_of(&self, uuid: Uuid) -> Option<String> {
        let url = self.base.by_uuid(uuid);
        let answered = timed(self.config.request_timeout, self.send(&url)).await.ok()?;
        let (response, _) = answered;
        // To the same origin it was followed; whether the object can be shown does not matter here.
        let elsewhere = response.headers().get(LOCATION).and_then(|to| url.join(to.to_str().ok()?).ok());
        Base::dn_of(&elsewhere.unwrap_or_else(|| response.url().clone()))
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

/// The next piece of a body. The address is left out, because it has people's names in it.
async fn next(response: &mut Response) -> Result<Option<Bytes>, Failure> {
    response.chunk().await.map_err(|error| Failure::BrokenOff(error.without_url()))
}

/// Gives up after a time.
pub(super) async fn timed<T, E: From<Failure>>(
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
