//! The UDM REST API as a source: the index once, then for each module a cheap list of names, then one GET for each
//! object, a bounded number at a time.
//!
//! Why not otherwise: a list of whole objects blocks UDM's one process for all its users; its paging loses objects
//! (a page that is asked for again is empty). A list is no snapshot either: what changes while it is read is in the
//! live queue, which exists before this begins.

mod address;
mod client;
mod config;
mod list;
mod retry;
mod tls;

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use self::client::Client;
use self::list::Entries;
use super::plan::{Modules, Plan};
use super::{AsOf, SnapshotObject, SourceError, SourceEvent};

pub use config::{Config, Credentials, Retries, Secret};
pub use retry::Failure;

/// Objects that may wait, read, behind one that is slow: this times the concurrency.
const WINDOW_FACTOR: usize = 4;

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

    /// See [`super::Source::read`].
    pub(super) async fn read(
        &self,
        plan: Plan,
        out: mpsc::Sender<SourceEvent>,
        as_of: &AsOf,
    ) -> Result<(), SourceError> {
        let index = self.client.index(&out).await?;
        let Modules { names, unmatched } = plan.modules(index.iter().map(String::as_str));
        if let Some(topic) = unmatched.into_iter().next() {
            return Err(SourceError::NoModule { topic });
        }
        let mut strays = HashSet::new();
        for module in &names {
            let entries = Arc::new(self.client.list(module, &out).await?);
            let wanted = wanted(module, &entries, &plan, &names, &mut strays);
            self.read_module(module, &entries, wanted, &plan, &out, as_of).await?;
        }
        Ok(())
    }

    async fn read_module(
        &self,
        module: &str,
        entries: &Arc<Entries>,
        wanted: Vec<u32>,
        plan: &Plan,
        out: &mpsc::Sender<SourceEvent>,
        as_of: &AsOf,
    ) -> Result<(), SourceError> {
        let send = async |event| out.send(event).await.map_err(|_| SourceError::ReceiverGone);
        let topic = module.to_owned();
        send(SourceEvent::TopicStarted { topic: topic.clone(), total: Some(wanted.len() as u64) }).await?;

        // Tasks, so that requests go on while the engine writes; the permits bound how many are under way, the
        // window bounds how many results wait for their turn.
        let concurrency = self.client.config().concurrency.max(1);
        let permits = Arc::new(Semaphore::new(concurrency));
        let get = |index: u32| {
            let (client, entries) = (Arc::clone(&self.client), Arc::clone(entries));
            let (permits, out, as_of) = (Arc::clone(&permits), out.clone(), as_of.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                let _permit = permits.acquire().await;
                // Before the request: what is accepted later may be missing in the answer.
                let as_of = as_of.now();
                match entries.get(index as usize) {
                    Some(entry) => {
                        let object = client.object(entry, &out).await?;
                        Ok(object.map(|object| SnapshotObject { as_of, ..object }))
                    }
                    None => Ok(None),
                }
            }))
        };
        let mut objects = stream::iter(wanted).map(get).buffered(concurrency * WINDOW_FACTOR);
        while let Some(joined) = objects.next().await {
            let object = match joined {
                Ok(object) => object?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            let event = match object {
                Some(object) if still_wanted(&object, module, plan) => SourceEvent::Object(object),
                _ => SourceEvent::Skipped { topic: topic.clone() },
            };
            send(event).await?;
        }
        send(SourceEvent::TopicFinished { topic }).await
    }
}

/// Which entries of a module's list are read here.
///
/// A virtual module (`computers/computer`) lists the objects of others. They are read with their own module if that
/// is read too, so that each comes once and at its own topic's place. What is left are strays: objects whose type
/// was asked for but is not in the index; they are read at the first list that shows them.
fn wanted(
    module: &str,
    entries: &Entries,
    plan: &Plan,
    modules: &[String],
    strays: &mut HashSet<String>,
) -> Vec<u32> {
    let mut wanted = Vec::with_capacity(entries.len());
    let mut others = HashSet::new();
    for (index, entry) in (0..).zip(entries.iter()) {
        let own = entry.object_type == module;
        if !own {
            others.insert(entry.object_type);
        }
        let stray = || !modules.iter().any(|m| m == entry.object_type) && plan.is_match(entry.object_type);
        if own || (stray() && strays.insert(entry.dn.to_owned())) {
            wanted.push(index);
        }
    }
    if wanted.is_empty() && !others.is_empty() {
        tracing::info!(topic = module, types = ?others, "the module only shows objects of other types");
    }
    wanted
}

/// An object may have become one of another type since it was listed.
fn still_wanted(object: &SnapshotObject, module: &str, plan: &Plan) -> bool {
    object.topic == module || plan.is_match(&object.topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(listed: &[(&str, &str)]) -> Entries {
        let entry =
            |(object_type, dn): &(&str, &str)| format!(r#"{{"dn": "{dn}", "objectType": "{object_type}"}}"#);
        let text: Vec<_> = listed.iter().map(entry).collect();
        let json =
            format!(r#"{{"results": {}, "_embedded": {{"udm:object": [{}]}}}}"#, text.len(), text.join(","));
        list::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn of_a_virtual_module_only_strays_are_read_and_each_once() {
        let listed =
            [("dns/alias", "a"), ("dns/srv", "s"), ("dns/dns", "d"), ("dns/host", "h"), ("dns/srv", "t")];
        let entries = entries(&listed);
        // `dns/alias` is read with its own module, `dns/srv` is in no index, nobody asked for `dns/host`.
        let modules = ["dns/alias", "dns/dns"].map(str::to_owned);
        let topic = |topic: &str| model::RealmTopic { realm: "udm".to_owned(), topic: topic.to_owned() };
        let plan = Plan::new(&[topic("dns/(dns|alias|srv)")]).unwrap();
        let mut strays = HashSet::from(["t".to_owned()]);
        assert_eq!(wanted("dns/dns", &entries, &plan, &modules, &mut strays), [1, 2]);
        assert_eq!(wanted("dns/other", &entries, &plan, &modules, &mut strays), [] as [u32; 0]);
    }
}
