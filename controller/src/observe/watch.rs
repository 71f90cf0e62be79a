//! The caches of Jobs and Pods: kept by watches that list again after each interruption (410, API server away).

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Resource,
    runtime::{
        reflector::{self, Store, store::Writer},
        watcher::{self, Event},
    },
};
use manifests::identity_of;
use model::{SubscriptionName, error_chain};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{cluster::Cluster, error::caught, metrics::Metrics};

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Change {
    /// Something about this subscription's objects.
    Of(SubscriptionName),
    /// All was listed again.
    Listed,
    /// The watch broke off.
    Interrupted,
}

/// The caches.
pub(crate) struct Watches {
    pub(crate) jobs: Store<Job>,
    pub(crate) pods: Store<Pod>,
    pub(crate) changes: mpsc::UnboundedReceiver<Change>,
}

/// Pauses after errors: an API server that comes back is found soon, one that is away is not flooded.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the API server keeps a watch open, in seconds. One that says nothing for 5 s longer is taken for dead (a
/// router that forgot the connection tells nobody), so this is how long we may be blind without knowing. kube's 290 s
/// are made for controllers that don't mind.
const WATCH_S: u32 = 30;
/// How often everything is listed and looked at although nothing broke off: what a watch has lost without a word is found
/// by it, as is a decision that nothing would bring about any more.
const LIST_EVERY: Duration = Duration::from_secs(600);
/// A connection on which an answer is awaited for longer is given up: more than a watch may be silent.
const SILENCE: Duration = Duration::from_secs(45);

/// A client that gives up connections that have died without a word. kube's own waits for ever.
///
/// # Errors
/// The configuration can't be used.
pub fn client(mut config: kube::Config) -> kube::Result<kube::Client> {
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    kube::Client::try_from(config)
}

/// Starts the watches. They end with `shutdown`.
pub(crate) fn start(
    cluster: &Cluster,
    selector: &str,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Watches {
    let (sender, changes) = mpsc::unbounded_channel();
    Watches {
        jobs: watch(cluster.jobs.clone(), selector, sender.clone(), metrics.clone(), shutdown.clone()),
        pods: watch(cluster.pods.clone(), selector, sender, metrics.clone(), shutdown.clone()),
        changes,
    }
}

fn watch<K>(
    api: Api<K>,
    selector: &str,
    changes: mpsc::UnboundedSender<Change>,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let config = watcher::Config::default().labels(selector).timeout(WATCH_S);
    let kind = K::kind(&()).into_owned();
    tokio::spawn(async move {
        let mut cache = Cache { api, config, writer, changes };
        let mut pause = PAUSE_MIN;
        loop {
            // A list each time: whatever was missed is found by it.
            let watched = tokio::select! {
                () = shutdown.cancelled() => return,
                watched = caught(cache.watch(&mut pause)) => watched,
            };
            let error = match watched {
                Ok(Ok(())) => continue,
                Ok(Err(Ended::NobodyListens)) => return,
                Ok(Err(Ended::BrokeOff(error))) => error_chain(&error).to_string(),
                Err(panicked) => {
                    metrics.failed(&panicked);
                    error_chain(&panicked).to_string()
                }
            };
            metrics.watch_interruptions.inc();
            tracing::warn!(error, "the watch of {kind}s broke off; it is begun anew");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if cache.changes.send(Change::Interrupted).is_err() {
                return;
            }
        }
    });
    reader
}

/// Why a watch has ended.
enum Ended {
    BrokeOff(watcher::Error),
    NobodyListens,
}

struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    api: Api<K>,
    config: watcher::Config,
    writer: Writer<K>,
    changes: mpsc::UnboundedSender<Change>,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Lists, and watches from there until something breaks or it is time for another list.
    async fn watch(&mut self, pause: &mut Duration) -> Result<(), Ended> {
        #[allow(deprecated)] // the watcher of the whole object is what is wanted
        let events = watcher::watcher(self.api.clone(), self.config.clone());
        let mut events = std::pin::pin!(events.take_until(tokio::time::sleep(LIST_EVERY)));
        while let Some(event) = events.next().await {
            let event = event.map_err(Ended::BrokeOff)?;
            self.writer.apply_watcher_event(&event);
            let change = match &event {
                Event::Init | Event::InitApply(_) => continue,
                Event::InitDone => Change::Listed,
                Event::Apply(object) | Event::Delete(object) => match identity_of(object.meta()) {
                    Some(identity) => Change::Of(identity.subscription),
                    None => continue,
                },
            };
            *pause = PAUSE_MIN;
            self.changes.send(change).map_err(|_| Ended::NobodyListens)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use manifests::JobTemplate;
    use model::{Incarnation, prefill::PrefillTask};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Answer, TEMPLATE, api_server, status};

    fn list(version: &str, items: &[Value]) -> Answer {
        let metadata = json!({"resourceVersion": version});
        Answer::Json(200, json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    fn job(template: &JobTemplate) -> Value {
        let task = PrefillTask {
            subscription: "mail".parse().unwrap(),
            incarnation: Incarnation(uuid::Uuid::from_u128(7)),
            round: 1,
            attempt: 1,
            realms_topics: vec![],
            selection: None,
            track: false,
            mode: model::prefill::PrefillMode::Prefill,
            max_removals: None,
            dry_run: false,
        };
        let mut job = manifests::job(template, &task);
        job.metadata.uid = Some("u".into());
        job.metadata.namespace = Some("test".into());
        json!(job)
    }

    /// The API server is away at first, then lists nothing; the watch is told that its version is too old (410): what
    /// was made meanwhile is only found by listing again.
    #[tokio::test]
    async fn a_watch_survives_an_api_server_that_is_away_and_410() {
        let template = JobTemplate::parse(TEMPLATE).unwrap();
        let made = job(&template);
        let asked = Arc::new(AtomicU32::new(0));
        let client = api_server(move |request| {
            if request.path.contains("/pods") {
                return if request.path.contains("watch=true") { Answer::Never } else { list("1", &[]) };
            }
            match (asked.fetch_add(1, Ordering::Relaxed), request.path.contains("watch=true")) {
                (0, false) => status(503, "ServiceUnavailable"),
                (1, false) => list("1", &[]),
                (2, true) => {
                    let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
                                      "message": "too old resource version"});
                    Answer::Json(200, json!({"type": "ERROR", "object": gone}))
                }
                (3, false) => list("9", std::slice::from_ref(&made)),
                (4.., true) => Answer::Never,
                (n, watch) => panic!("call {n}, watch: {watch}: {}", request.path),
            }
        });
        let cluster = Cluster::new(client, "test", &template);
        let (metrics, stop) = (Metrics::default(), CancellationToken::new());
        let _stop = stop.clone().drop_guard();
        let mut watches = start(&cluster, &template.selector(), &metrics, &stop);
        let mut told = vec![];
        while watches.jobs.state().is_empty() {
            let change = tokio::time::timeout(Duration::from_secs(20), watches.changes.recv());
            told.push(format!("{:?}", change.await.unwrap().unwrap()));
        }
        assert_eq!(told.iter().filter(|change| *change == "Interrupted").count(), 2, "{told:?}");
        assert_eq!(metrics.watch_interruptions.get(), 2);
        assert_eq!(watches.jobs.state()[0].metadata.uid.as_deref(), Some("u"));
    }
}
