//! The UDM REST API as a source: the index once, then for each module a cheap list of names, then one GET for each
//! object, as many at a time as UDM can take.
//!
//! ```text
//!  list ─► list::read ─► Entries (25 bytes each) ─► tasks: Gate (how many), Room (how many bytes) ─► in order ─► Outlet
//!          on a thread                                Limiter learns from each answer
//! ```
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
mod gate;
mod limiter;
mod list;
mod objects;
mod resolver;
mod retry;
mod room;
mod tls;

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use self::client::Client;
use self::gate::Gate;
use self::list::{Listed, Wanted};
use self::objects::{Broken, Objects};
use super::outlet::Outlet;
use super::plan::{Modules, Plan};
use super::{AsOf, SourceError, SourceEvent};

pub use broker::Secret;
pub use config::{BrokenObjects, Config, MissingTypes, Retries};
pub use credentials::Credentials;
pub use retry::Failure;

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
        self.client.exists(object_type, dn).await
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

    /// See [`super::Source::read`].
    pub(super) async fn read(
        &self,
        plan: Plan,
        out: mpsc::Sender<SourceEvent>,
        as_of: &AsOf,
    ) -> Result<(), SourceError> {
        let config = self.client.config();
        let skip_missing = config.missing_types == MissingTypes::Skip;
        let index = self.client.index(&out).await?;
        let Modules { names, unmatched } = plan.modules(index.iter().map(String::as_str));
        let mut objects = Objects {
            client: Arc::clone(&self.client),
            gate: Arc::new(Gate::new(config.concurrency_max)),
            plan: plan.clone(),
            as_of: as_of.clone(),
            out: Outlet::new(out.clone()),
            broken: Broken::default(),
        };
        for topic in unmatched {
            if !skip_missing {
                return Err(SourceError::NoModule { topic });
            }
            objects.out.send(SourceEvent::NoModule { topic }).await?;
        }
        let modules: Arc<[String]> = names.into();
        let mut strays = HashSet::new();
        for module in modules.iter() {
            let wanted =
                Wanted { module: module.clone(), modules: Arc::clone(&modules), plan: plan.clone(), strays };
            match self.client.list(&wanted, &out).await {
                Ok(Listed { entries, results, wanted }) => {
                    if entries.len() == 0 && results > 0 {
                        tracing::info!(
                            topic = module,
                            results,
                            "the module only shows objects of other types"
                        );
                    }
                    strays = wanted.strays;
                    objects.read(module, entries).await?;
                }
                // In the index, but not loaded by whoever answers.
                Err(SourceError::Refused { status: 404, .. }) if skip_missing => {
                    strays = wanted.strays;
                    objects.out.send(SourceEvent::NoModule { topic: module.clone() }).await?;
                }
                Err(error) => return Err(error),
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
