//! The UDM REST API as a source: the index once, then for each module a cheap list of names, then one GET for each
//! object, as many at a time as UDM can take.
//!
//! ```text
//!  list ─► list::read ─► Entries (25 bytes each) ─► tasks: Permits (how many), ReadAhead (how many bytes) ─► in order ─► Outlet
//!          on a thread                                Limiter learns from each answer
//! ```
//!
//! A [`Session`] is one reading: it asks again what failed, by the table in [`retry`], and asks a [`Client`] once.
//!
//! Why not otherwise: a list of whole objects blocks UDM's one process for all its users; its paging loses objects
//! (a page that is asked for again is empty). A list is no snapshot either: what changes while it is read is in the
//! live queue, which exists before this begins.

mod address;
mod answer;
mod client;
mod config;
mod credentials;
mod entries;
mod limiter;
mod list;
mod objects;
mod parts;
mod permits;
mod read_ahead;
mod resolver;
mod retry;
mod session;
mod tls;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use self::client::Client;
use self::list::{Listed, Wanted};
use self::objects::{Broken, Objects};
use self::session::Session;
use super::outlet::Outlet;
use super::plan::{Modules, Plan};
use super::{AsOf, SourceError, SourceEvent};

pub use broker::Secret;
pub use config::{BrokenObjects, Config, MissingTypes, Retries};
pub use credentials::Credentials;
pub use retry::Failure;

/// How often it is looked whether a type has come.
const MISSING_EVERY: Duration = Duration::from_secs(5);

/// The UDM REST API.
#[derive(Debug)]
pub struct Udm {
    client: Arc<Client>,
}

impl Udm {
    /// Checks the settings; nothing is sent yet.
    ///
    /// # Errors
    /// [`SourceError::Setting`], with the name of the setting.
    pub fn new(config: Config) -> Result<Self, SourceError> {
        Ok(Self { client: Arc::new(Client::new(config)?) })
    }

    /// Is there such an object? `false` also while UDM does not know its type.
    ///
    /// # Errors
    /// [`SourceError`]: UDM refuses, or does not answer within the bounds of [`Retries`].
    pub async fn exists(&self, object_type: &str, dn: &str) -> Result<bool, SourceError> {
        let (nobody, _) = mpsc::channel(1);
        Session::new(Arc::clone(&self.client), AsOf::default(), nobody).exists(object_type, dn).await
    }

    /// How many objects of a type have no `univentionObjectIdentifier` in LDAP: UDM may show another one of these at
    /// each answer. `None` if UDM does not tell.
    pub async fn without_identifier(&self, object_type: &str) -> Option<u64> {
        self.client.lacking(object_type, "univentionObjectIdentifier").await
    }

    /// See [`super::Source::is_current`].
    pub(super) fn is_current(&self) -> bool {
        self.client.config().reads_primary
    }

    /// See [`super::Source::lag`].
    pub(super) fn lag(&self) -> Duration {
        let config = self.client.config();
        if config.reads_primary { Duration::ZERO } else { config.lag }
    }

    /// See [`super::Source::read`].
    pub(super) async fn read(
        &self,
        plan: Plan,
        out: mpsc::Sender<SourceEvent>,
        as_of: &AsOf,
    ) -> Result<(), SourceError> {
        let session = Arc::new(Session::new(Arc::clone(&self.client), as_of.clone(), out.clone()));
        let mut missing = Missing { session: &session, waited: Duration::ZERO };
        let Modules { names, unmatched } = missing.modules(&plan).await?;
        let mut objects = Objects {
            session: Arc::clone(&session),
            plan: plan.clone(),
            out: Outlet::new(out),
            broken: Broken::default(),
            asked: 0,
        };
        for topic in unmatched {
            objects.out.send(missing.left_out(topic)?).await?;
        }
        let modules: Arc<[String]> = names.into();
        let mut strays = HashSet::new();
        for module in modules.iter() {
            let wanted =
                Wanted { module: module.clone(), modules: Arc::clone(&modules), plan: plan.clone(), strays };
            match missing.list(&wanted).await? {
                Some(listed) => {
                    if listed.entries.len() == 0 && listed.results > 0 {
                        let results = listed.results;
                        tracing::info!(
                            topic = module,
                            results,
                            "the module only shows objects of other types"
                        );
                    }
                    strays = objects.read(module, listed).await?;
                }
                None => {
                    strays = wanted.strays;
                    objects.out.send(missing.left_out(module.clone())?).await?;
                }
            }
        }
        Ok(())
    }
}

/// How many entries of users a list's text has, for fuzzing.
pub(super) fn entries_of(text: &[u8], plan: super::plan::Plan) -> Option<usize> {
    let wanted = list::Wanted {
        module: "users/user".to_owned(),
        modules: ["users/user".to_owned()].into(),
        plan,
        strays: std::collections::HashSet::new(),
    };
    let mut entries = list::read(text, wanted).ok()?.entries;
    let count = entries.len();
    let read = std::iter::from_fn(|| entries.next().ok().flatten()).count();
    assert_eq!(read, count, "what was kept comes out");
    Some(count)
}

/// Waits for types that the directory does not know yet.
struct Missing<'a> {
    session: &'a Session,
    /// The time that was waited, for all of them.
    waited: Duration,
}

impl Missing<'_> {
    /// The modules to read, once there are some for all topics or they have been waited for.
    async fn modules(&mut self, plan: &Plan) -> Result<Modules, SourceError> {
        loop {
            let index = self.session.index().await?;
            let modules = plan.modules(index.iter().map(String::as_str));
            if modules.unmatched.is_empty() || !self.wait(&modules.unmatched.join(", ")).await {
                return Ok(modules);
            }
        }
    }

    /// A module's list; `None` if whoever answers does not know the module after a while: it is in the index, so
    /// another process has loaded it.
    async fn list(&mut self, wanted: &Wanted) -> Result<Option<Listed>, SourceError> {
        let mut tried = 0;
        loop {
            if let Some(listed) = self.session.list(wanted).await? {
                return Ok(Some(listed));
            }
            tried += 1;
            if !self.wait(&wanted.module).await {
                if tried >= self.session.client().config().retries.tries_if_wrong {
                    return Ok(None);
                }
                tokio::time::sleep(self.pause()).await;
            }
        }
    }

    /// Waits a little; false: it was waited long enough.
    async fn wait(&mut self, topics: &str) -> bool {
        let most = self.session.client().config().missing_wait;
        if self.waited >= most {
            return false;
        }
        let seconds = most.as_secs();
        if self.waited.is_zero() {
            tracing::warn!(topics, seconds, "no module of the directory matches; it is waited for");
        }
        self.session
            .tell(format!("no module of the directory matches {topics}; waiting for up to {seconds} s"));
        let pause = self.pause();
        tokio::time::sleep(pause).await;
        self.waited += pause;
        true
    }

    fn pause(&self) -> Duration {
        (self.session.client().config().missing_wait / 24).clamp(Duration::from_millis(5), MISSING_EVERY)
    }

    /// What to do about a topic that has been waited for.
    fn left_out(&self, topic: String) -> Result<SourceEvent, SourceError> {
        match self.session.client().config().missing_types {
            MissingTypes::Skip => Ok(SourceEvent::NoModule { topic }),
            MissingTypes::Fail => Err(SourceError::NoModule { topic }),
        }
    }
}
