//! Events on Jobs, for `kubectl describe`. Best effort, by a task of its own: an API server that is away must not
//! keep a state from being recorded.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::error::caught;
use model::shorten;

/// Events that wait; more are dropped.
const WAITING_MAX: usize = 256;
/// Longest time for one.
const LIMIT: Duration = Duration::from_secs(5);

/// Longest text of an Event that the API server takes, in bytes.
const NOTE_MAX: usize = 1024;
/// How long a text is remembered, to be counted when it is told again: as long as kube's recorder counts.
const REMEMBERED: Duration = Duration::from_secs(360);

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
        let mut recorders = Recorders { client, reporter, by_text: HashMap::new() };
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
                let published = tokio::time::timeout(LIMIT, recorders.publish(&event, &about));
                match caught(published).await {
                    Ok(Ok(Ok(()))) => {}
                    Ok(Ok(Err(error))) => {
                        tracing::warn!(
                            job,
                            error = model::error_chain(&error),
                            "an Event could not be written"
                        )
                    }
                    Ok(Err(_)) => tracing::warn!(job, "an Event could not be written in time"),
                    Err(error) => {
                        tracing::error!(job, error = model::error_chain(&error), "an Event is not written")
                    }
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

/// kube's recorder takes Events of one word on one Job for the same, and keeps the first text: `pause` and `resume` are
/// both answered by `RequestDone`. So each text has a recorder of its own.
struct Recorders {
    client: Client,
    reporter: Reporter,
    by_text: HashMap<String, (Recorder, Instant)>,
}

impl Recorders {
    async fn publish(&mut self, event: &Event, about: &ObjectReference) -> kube::Result<()> {
        self.by_text.retain(|_, (_, used)| used.elapsed() < REMEMBERED);
        let text = event.note.clone().unwrap_or_default();
        match self.recorder(&text).publish(event, about).await {
            // The Event that was to be counted up is gone: it is told once more.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.by_text.remove(&text);
                self.recorder(&text).publish(event, about).await
            }
            published => published,
        }
    }

    fn recorder(&mut self, text: &str) -> &Recorder {
        let new = || (Recorder::new(self.client.clone(), self.reporter.clone()), Instant::now());
        let (recorder, used) = self.by_text.entry(text.to_owned()).or_insert_with(new);
        *used = Instant::now();
        recorder
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
    let note = shorten(&note, NOTE_MAX);
    (Event { type_, reason, note: Some(note), action: action.to_owned(), secondary: None }, about)
}
