//! Everything that ever was to be seen of a namespace's Jobs: by a watch, so that nothing between two looks is missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio_util::sync::CancellationToken;

/// A Job's name, and its annotations for state and reason.
type Shown = (String, String, Option<String>);

#[derive(Default)]
struct Seen {
    shown: BTreeSet<Shown>,
    uids: BTreeMap<String, BTreeSet<String>>,
    /// Jobs that take a place now.
    running: BTreeSet<String>,
    running_most: usize,
    /// Jobs in the order of their admission, each with how many older ones waited.
    admitted: Vec<(String, usize)>,
    waiting: BTreeMap<String, (i64, String)>,
}

/// What was seen so far.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Seen>>);

impl Recorder {
    pub async fn start(namespace: &str, stop: &CancellationToken) -> Result<Self> {
        let jobs: Api<Job> = Api::namespaced(kube::Client::try_default().await?, namespace);
        let recorder = Self::default();
        let (seen, stop) = (recorder.0.clone(), stop.clone());
        tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(jobs, watcher::Config::default()));
            while let Some(event) = tokio::select! {
                () = stop.cancelled() => None,
                event = events.next() => event,
            } {
                match event {
                    Ok(Event::Apply(job) | Event::InitApply(job)) => seen.lock().unwrap().note(&job),
                    Ok(Event::Delete(job)) => seen.lock().unwrap().forget(&job),
                    Ok(Event::Init | Event::InitDone) | Err(_) => {}
                }
            }
        });
        Ok(recorder)
    }

    pub fn annotations(&self) -> BTreeSet<Shown> {
        self.0.lock().unwrap().shown.clone()
    }

    /// How many Jobs of each name there have been.
    pub fn made(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().uids.iter().map(|(name, uids)| (name.clone(), uids.len())).collect()
    }

    /// Most Jobs that ever had a place at once.
    pub fn running_most(&self) -> usize {
        self.0.lock().unwrap().running_most
    }

    /// Jobs in the order of their admission, each with how many older ones waited then.
    pub fn admitted(&self) -> Vec<(String, usize)> {
        self.0.lock().unwrap().admitted.clone()
    }
}

impl Seen {
    fn note(&mut self, job: &Job) {
        let annotation = |key: &str| job.metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
        let name = job.metadata.name.clone().unwrap_or_default();
        if let Some(state) = annotation(controller::annotations::STATE) {
            self.shown.insert((name.clone(), state, annotation(controller::annotations::REASON)));
        }
        self.uids.entry(name.clone()).or_default().extend(job.metadata.uid.clone());
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false);
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ended = conditions.into_iter().any(|c| {
            matches!(c.type_.as_str(), "Complete" | "Failed" | "SuccessCriteriaMet" | "FailureTarget")
                && c.status == "True"
        });
        if suspended {
            let created = job.metadata.creation_timestamp.as_ref().map_or(0, |at| at.0.as_second());
            self.waiting.insert(name.clone(), (created, name.clone()));
            self.running.remove(&name);
        } else if ended {
            self.running.remove(&name);
        } else {
            if let Some(age) = self.waiting.remove(&name) {
                let older = self.waiting.values().filter(|other| **other < age).count();
                self.admitted.push((name.clone(), older));
            }
            self.running.insert(name);
            self.running_most = self.running_most.max(self.running.len());
        }
    }

    fn forget(&mut self, job: &Job) {
        let name = job.metadata.name.clone().unwrap_or_default();
        self.running.remove(&name);
        self.waiting.remove(&name);
    }
}
