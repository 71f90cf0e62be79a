//! Events on Jobs, for `kubectl describe`. Best effort, by a task of its own: an API server that is away must not
//! keep a state from being recorded.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait; more are dropped.
const WAITING_MAX: usize = 256;
/// Longest time for one.
const LIMIT: Duration = Duration::from_secs(5);

/// Something that happened to a Job.
#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    /// Name of the Job, which may be gone.
    pub(crate) job: String,
    pub(crate) uid: Option<String>,
    /// Is it worth a look?
    pub(crate) warning: bool,
    /// The word: that of the reason, or the new state.
    pub(crate) reason: String,
    /// The sentence.
    pub(crate) note: String,
    /// What the controller did.
    pub(crate) action: &'static str,
}

/// Takes announcements.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    queue: mpsc::Sender<Announcement>,
}

impl Announcer {
    /// Starts the task that writes Events until `shutdown`.
    pub(crate) fn start(
        client: Client,
        namespace: &str,
        reporter: String,
        shutdown: CancellationToken,
    ) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Announcement>(WAITING_MAX);
        let reporter = Reporter { controller: "headstart-controller".to_owned(), instance: Some(reporter) };
        let recorder = Recorder::new(client, reporter);
        let namespace = namespace.to_owned();
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    () = shutdown.cancelled() => None,
                    next = waiting.recv() => next,
                };
                let Some(announcement) = next else { return };
                let job = announcement.job.clone();
                let (event, about) = event(announcement, &namespace);
                match tokio::time::timeout(LIMIT, recorder.publish(&event, &about)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(job, error = model::chain(&error), "an Event could not be written")
                    }
                    Err(_) => tracing::warn!(job, "an Event could not be written in time"),
                }
            }
        });
        Self { queue }
    }

    pub(crate) fn announce(&self, announcement: Announcement) {
        if let Err(error) = self.queue.try_send(announcement) {
            tracing::debug!(%error, "an Event is dropped");
        }
    }
}

fn event(announcement: Announcement, namespace: &str) -> (Event, ObjectReference) {
    let Announcement { job, uid, warning, reason, note, action } = announcement;
    let about = ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: Some(job),
        namespace: Some(namespace.to_owned()),
        uid,
        ..ObjectReference::default()
    };
    let type_ = if warning { EventType::Warning } else { EventType::Normal };
    (Event { type_, reason, note: Some(note), action: action.to_owned(), secondary: None }, about)
}
