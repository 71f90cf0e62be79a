//! Prefills without Kubernetes: a work queue of tasks, one a subscription.

use std::time::Duration;

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, pull},
};
use bytes::Bytes;
use futures::StreamExt;
use model::{Incarnation, SubscriptionName, prefill::PrefillTask};

use crate::{
    Error, names,
    wire::{Outgoing, Refusal, Wire, headers},
};

/// How tasks are handed out again.
#[derive(Clone, Debug)]
pub struct TasksConfig {
    /// How long a worker may be silent before its task is handed out again, by number of tries: the last one holds
    /// for all later tries. This is the back-off after a crash.
    pub backoff: Vec<Duration>,
}

impl Default for TasksConfig {
    /// 3 s, then twice as long each time, up to about 5 minutes.
    fn default() -> Self {
        Self { backoff: (0..8).map(|n| Duration::from_secs(3) * 2u32.pow(n)).collect() }
    }
}

/// The task queue.
#[derive(Clone, Debug)]
pub struct Tasks {
    wire: Wire,
}

/// One task in the hands of a worker.
#[derive(Debug)]
pub struct Task {
    message: jetstream::Message,
    /// What to do; `Err` if it can't be read: then it is to be given up.
    pub request: Result<PrefillTask, String>,
    /// How often it was handed out, this time included.
    pub tries: u64,
}

impl Tasks {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Puts a task into the queue. Sending the same again is harmless; a task of another incarnation or of an earlier
    /// attempt of this name is replaced. One of a later attempt stays: whoever sends this one was slow.
    ///
    /// # Errors
    /// NATS away: the outcome is unknown; calling it again is safe.
    pub async fn submit(&self, task: &PrefillTask) -> Result<(), Error> {
        let action = format!("queueing the prefill of {}", task.subscription);
        let payload = serde_json::to_vec(task).map_err(|e| Error::corrupt(action.as_str(), e))?;
        let message = Outgoing {
            subject: names::task_subject(&task.subscription),
            headers: headers([(names::EXPECTED_STREAM, names::TASKS.to_owned())]),
            payload: Bytes::from(payload),
        };
        for _ in 0..2 {
            match self.wire.publish(message.clone()).await {
                Ok(_) => return Ok(()),
                // The place is taken.
                Err(Refusal::Full(text)) => match self.waiting(&task.subscription).await? {
                    Some((_, Some(waiting))) if waiting == *task || overtakes(&waiting, task) => {
                        return Ok(());
                    }
                    Some((sequence, _)) => drop(self.wire.remove(names::TASKS, sequence).await?),
                    None if text.contains("per subject") => {}
                    None => return Err(Refusal::Full(text).into_error(&action)),
                },
                Err(refusal) => return Err(refusal.into_error(&action)),
            }
        }
        Err(Error::unavailable(action, "another task of this subscription is in the way"))
    }

    /// Removes the task of this attempt, waiting or in the hands of a worker; that of another attempt stays.
    ///
    /// # Errors
    /// NATS away.
    pub async fn withdraw(&self, task: &PrefillTask) -> Result<(), Error> {
        if let Some((sequence, Some(waiting))) = self.waiting(&task.subscription).await?
            && (waiting.incarnation, waiting.attempt) == (task.incarnation, task.attempt)
        {
            self.wire.remove(names::TASKS, sequence).await?;
        }
        Ok(())
    }

    /// Removes the task of an incarnation.
    ///
    /// # Errors
    /// NATS away.
    pub async fn remove(&self, name: &SubscriptionName, incarnation: Incarnation) -> Result<(), Error> {
        if let Some((sequence, task)) = self.waiting(name).await?
            && task.is_none_or(|task| task.incarnation == incarnation)
        {
            self.wire.remove(names::TASKS, sequence).await?;
        }
        Ok(())
    }

    /// Removes the task of a name, whatever it is.
    pub(crate) async fn remove_any(&self, name: &SubscriptionName) -> Result<(), Error> {
        if let Some((sequence, _)) = self.waiting(name).await? {
            self.wire.remove(names::TASKS, sequence).await?;
        }
        Ok(())
    }

    /// Is this task in the queue, waiting or in the hands of a worker?
    ///
    /// # Errors
    /// NATS away.
    pub async fn contains(&self, task: &PrefillTask) -> Result<bool, Error> {
        Ok(self.waiting(&task.subscription).await?.and_then(|(_, waiting)| waiting).as_ref() == Some(task))
    }

    async fn waiting(&self, name: &SubscriptionName) -> Result<Option<(u64, Option<PrefillTask>)>, Error> {
        let got = self.wire.last(names::TASKS, &names::task_subject(name)).await?;
        Ok(got.message().map(|m| (m.sequence, serde_json::from_slice(&m.payload).ok())))
    }

    /// Waits up to `wait` for a task.
    ///
    /// # Errors
    /// NATS away.
    pub async fn next(&self, config: &TasksConfig, wait: Duration) -> Result<Option<Task>, Error> {
        let action = "waiting for a task";
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| Error::unavailable(action, e);
        let consumer = pull::Config {
            durable_name: Some(names::TASK_CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: config.backoff.first().copied().unwrap_or(Duration::from_secs(3)),
            backoff: config.backoff.clone(),
            // The worker counts tries and gives up with a reason; the server alone would just stop.
            max_deliver: -1,
            ..pull::Config::default()
        };
        let stream = self.wire.js.get_stream_no_info(names::TASKS).await.map_err(|e| failed(e.into()))?;
        let consumer = stream.create_consumer(consumer).await.map_err(|e| failed(e.into()))?;
        let mut batch =
            consumer.batch().max_messages(1).expires(wait).messages().await.map_err(|e| failed(e.into()))?;
        let Some(message) = batch.next().await else { return Ok(None) };
        let message = message.map_err(failed)?;
        let tries = message.info().map_err(|e| Error::corrupt("a task", e))?.delivered;
        let request = serde_json::from_slice(&message.payload).map_err(|e| e.to_string());
        Ok(Some(Task { message, request, tries: tries.unsigned_abs() }))
    }
}

/// Is this the task of a later attempt?
fn overtakes(waiting: &PrefillTask, task: &PrefillTask) -> bool {
    waiting.incarnation == task.incarnation && waiting.attempt > task.attempt
}

impl Task {
    /// Tells the server that the work goes on, so that nobody else gets the task.
    ///
    /// # Errors
    /// NATS away.
    pub async fn in_progress(&self) -> Result<(), Error> {
        self.ack(AckKind::Progress, "keeping a task").await
    }

    /// The task is finished, for good or for bad; returns when the server has confirmed it.
    ///
    /// # Errors
    /// NATS away: the task may come again.
    pub async fn finish(&self) -> Result<(), Error> {
        self.message.double_ack().await.map_err(|e| Error::unavailable("finishing a task", e))
    }

    /// Gives the task back, to be tried again after a pause.
    ///
    /// # Errors
    /// NATS away: it comes again anyhow.
    pub async fn retry_after(&self, pause: Duration) -> Result<(), Error> {
        self.ack(AckKind::Nak(Some(pause)), "giving a task back").await
    }

    async fn ack(&self, kind: AckKind, action: &str) -> Result<(), Error> {
        self.message.ack_with(kind).await.map_err(|e| Error::unavailable(action, e))
    }
}
