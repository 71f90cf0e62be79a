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
use super::{AsOf, Place, SourceError, SourceEvent};

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

    /// See [`super::Source::is_current`].
    pub(super) fn is_current(&self) -> bool {
        self.client.config().reads_primary
    }

    /// See [`super::Source::read_on`].
    pub(super) async fn read(
        &self,
        plan: Plan,
        out: mpsc::Sender<SourceEvent>,
        as_of: &AsOf,
        from: Option<Place>,
    ) -> Result<(), SourceError> {
        let config = self.client.config();
        let index = self.client.index(&out).await?;
        let Modules { names, unmatched } = plan.modules(index.iter().map(String::as_str));
        let skip_missing = config.missing_types == MissingTypes::Skip;
        if let Some(topic) = unmatched.first().filter(|_| !skip_missing) {
            return Err(SourceError::NoModule { topic: topic.clone() });
        }
        let objects = Objects {
            client: Arc::clone(&self.client),
            gate: Arc::new(Gate::new(config.concurrency_max)),
            plan,
            as_of: as_of.clone(),
            out: Outlet::new(out.clone()),
            broken: Broken::default(),
        };
        let mut reading =
            Reading { objects, out, modules: names.into(), strays: HashSet::new(), skip_missing };
        let begin = reading.go_on(from).await?;
        for topic in unmatched {
            reading.objects.out.send(SourceEvent::NoModule { topic }).await?;
        }
        reading.modules_from(begin).await
    }
}

/// One snapshot while it is read.
struct Reading {
    objects: Objects,
    out: mpsc::Sender<SourceEvent>,
    /// What is read, in order.
    modules: Arc<[String]>,
    /// DNs of objects whose type has no module.
    strays: HashSet<String>,
    skip_missing: bool,
}

/// Where to begin: the number of a module and, if its list is known already, that and the entries that are done.
type Begin = (usize, Option<(Listed, u64)>);

impl Reading {
    /// Looks whether the list at a place is what it was. Says so first of all if it is; else all begins anew.
    async fn go_on(&mut self, from: Option<Place>) -> Result<Begin, SourceError> {
        let Some(place) = from else { return Ok((0, None)) };
        let Some(number) = self.modules.iter().position(|module| *module == place.topic) else {
            return Ok((0, None));
        };
        let Some(listed) = self.list(number).await? else { return Ok((0, None)) };
        if listed.digest != place.list
            || place.done > listed.entries.len() as u64
            || !listed.wanted.strays.is_empty()
        {
            tracing::info!(topic = place.topic, "the list is not what it was: all objects are read again");
            return Ok((0, None));
        }
        let done = place.done;
        self.objects.out.send(SourceEvent::Listed { place }).await?;
        Ok((number, Some((listed, done))))
    }

    /// Reads modules in their order.
    async fn modules_from(&mut self, (begin, mut known): Begin) -> Result<(), SourceError> {
        let modules = Arc::clone(&self.modules);
        for (number, module) in modules.iter().enumerate().skip(begin) {
            let (listed, done) = match known.take() {
                Some(known) => known,
                None => match self.list(number).await? {
                    Some(listed) => (listed, 0),
                    None => {
                        self.objects.out.send(SourceEvent::NoModule { topic: module.clone() }).await?;
                        continue;
                    }
                },
            };
            let Listed { entries, results, digest, wanted } = listed;
            if entries.len() == 0 && results > 0 {
                tracing::info!(topic = module, results, "the module only shows objects of other types");
            }
            self.strays = wanted.strays;
            // Which strays there were is not in the list's digest: then nobody may go on from here.
            if self.strays.is_empty() && done == 0 {
                let place = Place { topic: module.clone(), list: digest, done };
                self.objects.out.send(SourceEvent::Listed { place }).await?;
            }
            self.objects.read(module, entries, done).await?;
        }
        Ok(())
    }

    /// The list of a module; `None` if there is none and that may be.
    async fn list(&mut self, number: usize) -> Result<Option<Listed>, SourceError> {
        let Some(module) = self.modules.get(number) else { return Ok(None) };
        let wanted = Wanted {
            module: module.clone(),
            modules: Arc::clone(&self.modules),
            plan: self.objects.plan.clone(),
            strays: self.strays.clone(),
        };
        match self.objects.client.list(&wanted, &self.out).await {
            Ok(listed) => Ok(Some(listed)),
            // In the index, but not loaded by whoever answers.
            Err(SourceError::Refused { status: 404, .. }) if self.skip_missing => Ok(None),
            Err(error) => Err(error),
        }
    }
}
