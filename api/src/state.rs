//! What all handlers share.

use std::{sync::Arc, time::SystemTime};

use axum::extract::State;
use broker::{Broker, EventPublisher, QueueCounts, Readers, RegistryView, Revised};
use model::{
    Subscription, SubscriptionName,
    prefill::{PrefillTask, Progress},
    resync::RemovalsByType,
    subscription::Lifecycle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    answers::Answers,
    auth::Auth,
    concurrency_limits::ConcurrencyLimits,
    config::{Config, Step},
    connections::Connections,
    error::{ApiError, Error},
    launcher::Launcher,
    metrics::Metrics,
    readiness::Readiness,
    reads::Reads,
    roles::KnownRoles,
    suspend_detector::SuspendDetector,
};

/// Why the process is not ready beside what the server knows itself; `None`: it is.
pub type NotReady = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What all handlers share.
pub(crate) struct App {
    pub config: Config,
    pub broker: Broker,
    pub view: RegistryView,
    pub readers: Readers,
    pub events: EventPublisher,
    pub launcher: Launcher,
    pub auth: Auth,
    pub metrics: Metrics,
    pub suspend_detector: Arc<SuspendDetector>,
    /// Why the process is not ready for other reasons.
    pub not_ready: NotReady,
    /// Streams and polls of each subscription.
    pub streams: ConcurrencyLimits,
    pub polls: ConcurrencyLimits,
    /// What is being sent.
    pub answers: Answers,
    pub connections: Arc<Connections>,
    /// Whether NATS answered, a moment ago.
    pub readiness: Readiness,
    pub reads: Reads,
    pub life: Life,
}

/// The two steps of the end.
#[derive(Clone)]
pub(crate) struct Life {
    /// Asked to end: not ready any more. Polls and streams end, but requests are still taken for a while, until
    /// everybody has learned to send them elsewhere.
    pub stopping: CancellationToken,
    /// Nothing is taken any more.
    pub closing: CancellationToken,
}

impl Life {
    /// What ends a poll or stream that begins now. One that begins after the stop is held until the close: it would
    /// come back at once.
    pub(crate) fn end(&self) -> CancellationToken {
        if self.stopping.is_cancelled() { self.closing.clone() } else { self.stopping.clone() }
    }
}

/// The handlers' way to it.
pub(crate) type Shared = State<Arc<App>>;

/// An entry that can't be read is no error of ours, and the administrator can do something about it.
pub(crate) fn unreadable(name: &SubscriptionName, error: broker::Error) -> ApiError {
    match error {
        broker::Error::Corrupt { .. } => ApiError::Unreadable(format!(
            "What NATS holds under the name {name} can't be read: it was written by something else, or by a newer \
             version. To free the name, the administrator deletes it (DELETE /v1/subscriptions/{name}) with all that \
             belongs to it"
        )),
        error => error.into(),
    }
}

/// What the API shows of a subscription beside its entry.
pub(crate) struct Details {
    /// The last progress that was written, of whatever attempt.
    pub progress: Option<Progress>,
    /// It is ready, but its queue does not exist: its events are lost.
    pub broken: bool,
    /// Name of the current attempt's Job, where prefills are Jobs.
    pub job: Option<String>,
    /// What the current attempt found gone, where it is held, or only counted.
    pub removals: Option<RemovalsByType>,
}

/// What the API shows of a queue.
#[derive(Default)]
pub(crate) struct QueueDetails {
    /// What waits in it, if it exists.
    pub counts: Option<QueueCounts>,
    pub dead_letters: u64,
    /// When the oldest message that waits in it was written.
    pub oldest: Option<SystemTime>,
    /// When its consumer asked for messages last.
    pub last_read: Option<SystemTime>,
}

impl App {
    pub(crate) fn new(
        config: Config,
        broker: Broker,
        launcher: Launcher,
        not_ready: NotReady,
        connections: Arc<Connections>,
        life: Life,
    ) -> Result<Arc<Self>, Error> {
        let roles = KnownRoles::read(&config.roles)?;
        roles.follow(life.closing.clone());
        let view = broker.registry().view(life.closing.clone());
        Ok(Arc::new(Self {
            readers: Readers::new(broker.clone(), view.clone(), config.reader),
            events: broker.events(),
            auth: Auth::new(roles, broker.credentials(), view.clone(), config.bounds.refused_after),
            metrics: Metrics::new(),
            suspend_detector: SuspendDetector::start(life.closing.clone()),
            streams: ConcurrencyLimits::new(config.bounds.streams_per_subscription),
            polls: ConcurrencyLimits::new(config.bounds.polls_per_subscription),
            config,
            broker,
            view,
            launcher,
            not_ready,
            answers: Answers::default(),
            connections,
            readiness: Readiness::default(),
            reads: Reads::default(),
            life,
        }))
    }

    /// The subscription of a name, from the leader; also one that is being removed.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Revised<Subscription>>, ApiError> {
        match name.parse::<SubscriptionName>() {
            Ok(name) => self.broker.registry().subscription(&name).await.map_err(|e| unreadable(&name, e)),
            Err(_) => Ok(None),
        }
    }

    /// What the API shows of a subscription beside its entry. `None`: it was removed meanwhile.
    pub(crate) async fn details(&self, entry: &Subscription) -> Result<Option<Details>, ApiError> {
        let Subscription { name, incarnation, lifecycle, prefill, .. } = entry;
        let queue = self.broker.queue(name, *incarnation);
        // One that was given up, or is back after it was not found, may be there: it is broken all the same.
        let has_queue = !entry.is_broken() && (*lifecycle != Lifecycle::Ready || queue.exists().await?);
        if !has_queue {
            // Being removed just now looks the same: the entry, read again, tells the difference.
            let now = self.broker.registry().subscription(name).await?;
            if now.is_none_or(|e| e.value.incarnation != *incarnation || e.value.lifecycle != *lifecycle) {
                return Ok(None);
            }
        }
        let progress = if prefill.attempt == 0 { None } else { self.broker.progress().get(name).await? };
        let job = if prefill.attempt == 0 { None } else { self.launcher.job_name(&PrefillTask::of(entry)) };
        let removals = match has_queue && (prefill.is_held() || prefill.dry_run) {
            true => {
                let fence = queue.fence().await?.filter(|fence| fence.value.attempt == prefill.attempt);
                fence.and_then(|fence| fence.value.counts).map(|counts| counts.removals)
            }
            false => None,
        };
        Ok(Some(Details { progress, broken: !has_queue, job, removals }))
    }

    /// What the API shows of a subscription's queue.
    pub(crate) async fn queue_details(&self, entry: &Subscription) -> Result<QueueDetails, ApiError> {
        let (name, incarnation) = (&entry.name, entry.incarnation);
        let queue = self.broker.queue(name, incarnation);
        let (letters, reads) = (self.broker.dead_letters(), self.broker.last_reads());
        let (counts, dead_letters, oldest, last_read) = futures::try_join!(
            queue.pending(),
            letters.count(entry),
            queue.oldest(),
            reads.get(name, incarnation)
        )?;
        Ok(QueueDetails { counts, dead_letters, oldest, last_read })
    }

    /// For tests of crashes: stops here for ever if the test wants so.
    pub(crate) async fn before(&self, step: Step) {
        if self.config.before_step.as_ref().is_some_and(|hook| (hook.0)(step)) {
            std::future::pending::<()>().await;
        }
    }
}
