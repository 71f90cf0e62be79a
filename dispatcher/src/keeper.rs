//! Keeps one subscription's lane: opens its queue, however long that takes, and again after trouble; and says when it
//! is over.
//!
//! A queue that is not found although its subscription is ready holds the log for a while, since NATS may be wrong for
//! a moment. Then the loss is written into the entry, and only after that the log is let go: a queue that comes back
//! later has a hole, and must never be taken for whole. What can't be read, of the entry or of the queue, was written
//! by a newer version: it holds the log until it can be read, or the subscription is removed.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use broker::{Broker, Copier, CopyError, Matcher, Revised};
use futures::FutureExt;
use model::{
    Entry, Incarnation, Selection, SubscriptionName, Timestamp,
    checkpoint::Checkpoint,
    error_chain,
    limits::{GivenUp, Lost, Room},
    subscription::Lifecycle,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    Config,
    copy_delay::CopyDelay,
    lane::{Inlet, Lane, Pace, Report},
    mailbox::Mailbox,
    metrics::{Metrics, Wait},
    writer::{Gone, Patience, Trouble, Writer},
};

/// Pause before a queue that seemed to be gone is opened again.
const REOPENED_AFTER: Duration = Duration::from_millis(100);
/// A queue that opens within this time is waited for when dispatching begins.
const WAITED_FOR: Duration = Duration::from_secs(1);
/// Pauses after a fault of ours.
const FAULT_PAUSE: Duration = Duration::from_millis(200);
const FAULT_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What an entry says of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It must be there.
    Ready,
    /// It may not be there yet, and then its marker is not in the log yet either.
    Unfinished,
    /// It is to be deleted.
    GivenUp(GivenUp),
    /// Nobody needs it: removed, being removed, recorded as lost, or of another incarnation.
    Over,
}

impl Standing {
    pub(crate) fn of(entry: Option<Entry>, incarnation: Incarnation) -> Self {
        match entry {
            Some(Entry::Subscription(s)) if s.incarnation == incarnation => match (s.lifecycle, s.given_up) {
                (Lifecycle::Deleting, _) => Self::Over,
                (_, Some(given_up)) => Self::GivenUp(given_up),
                _ if s.lost.is_some() => Self::Over,
                (Lifecycle::Registering, None) => Self::Unfinished,
                (Lifecycle::Ready, None) => Self::Ready,
            },
            Some(Entry::Subscription(_) | Entry::Tombstone(_)) | None => Self::Over,
        }
    }
}

/// What a look at a queue found.
#[allow(clippy::large_enum_variant)] // it lives for a moment
enum Found {
    Queue(Copier),
    /// It is not there, and must be.
    Missing,
    Over,
}

/// Keeps one lane.
pub(crate) struct Keeper {
    pub config: Config,
    pub broker: Broker,
    pub metrics: Metrics,
    pub name: SubscriptionName,
    pub incarnation: Incarnation,
    pub selection: Option<Selection>,
    pub track: bool,
    pub inlet: Arc<Inlet>,
    pub pace: Arc<Pace>,
    pub reports: mpsc::UnboundedSender<Report>,
}

impl Keeper {
    /// Works until the subscription is gone. A fault of ours costs a pause, and the queue is opened again.
    pub(crate) async fn run(self) {
        let mut pause = FAULT_PAUSE;
        while let Err(panic) = AssertUnwindSafe(self.live()).catch_unwind().await {
            self.metrics.panics.inc();
            tracing::error!(
                subscription = %self.name, incarnation = %self.incarnation, panic = words(&*panic),
                "the dispatcher has a fault; this queue is tried again"
            );
            let _counted = self.metrics.count_waiting(Wait::Panic);
            self.inlet.with(Mailbox::restart);
            self.delayed();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(FAULT_PAUSE_MAX);
        }
        let lane = self.incarnation;
        tracing::info!(subscription = %self.name, incarnation = %lane, "no more copies for this queue");
        self.inlet.with(Mailbox::end);
        // The session may be over by now: then nobody needs the report.
        self.reports.send(Report::Ended { lane, inlet: self.inlet.clone() }).ok();
    }

    async fn live(&self) {
        while let Some((copier, matcher)) = self.open().await {
            if !self.is_needed(copier.checkpoint(), &matcher).await {
                return;
            }
            let writer = Writer {
                broker: self.broker.clone(),
                name: self.name.clone(),
                incarnation: self.incarnation,
                copier,
                limits: self.config.limits,
                metrics: self.metrics.clone(),
                room: Room::default(),
                turns: self.pace.turns.clone(),
                before_copy: self.config.before_copy,
            };
            let reads_from_log = self.broker.reads_from_log() && !self.track;
            let copy_delay = CopyDelay::new(self.config.copy_after, reads_from_log);
            let (inlet, pace, reports) = (self.inlet.clone(), self.pace.clone(), self.reports.clone());
            let Gone = Lane { writer, copy_delay, matcher, inlet, pace, reports }.work().await;
            self.inlet.with(Mailbox::restart);
            tokio::time::sleep(REOPENED_AFTER).await;
        }
    }

    /// Tells the session what is in effect in the queue, before anything is read for it.
    async fn is_needed(&self, checkpoint: &Checkpoint, matcher: &Matcher) -> bool {
        let active = checkpoint.active.then(|| (checkpoint.epoch, matcher.route.clone()));
        let (needed, answer) = oneshot::channel();
        self.reports.send(Report::Opened { lane: self.incarnation, active, needed }).ok();
        answer.await.unwrap_or(false)
    }

    fn delayed(&self) {
        self.inlet.with(Mailbox::stuck);
        self.pace.stepped.notify_one();
        self.reports.send(Report::Delayed { lane: self.incarnation }).ok();
    }

    /// Opens the queue. `None`: it is over.
    async fn open(&self) -> Option<(Copier, Matcher)> {
        let mut patience = Patience::new(&self.name, &self.metrics);
        let mut missing_since = None;
        loop {
            let trouble = match self.look_in_time().await {
                Ok(Found::Over) => return None,
                Ok(Found::Queue(copier)) => match self.matcher(copier.checkpoint()) {
                    Some(matcher) => return Some((copier, matcher)),
                    None => Trouble::Later {
                        why: Wait::Unreadable,
                        text: "its topics or its selection can't be used: change the topics, or remove it"
                            .to_owned(),
                    },
                },
                Ok(Found::Missing) => {
                    let since = *missing_since.get_or_insert_with(Instant::now);
                    match since.elapsed() >= self.config.lost_after {
                        true => match self.record_loss().await {
                            Ok(()) => return None,
                            Err(error) => error.into(),
                        },
                        false => Trouble::Later {
                            why: Wait::Missing,
                            text: "its queue is not found, though it is ready".to_owned(),
                        },
                    }
                }
                Err(error) => {
                    // Who does not answer says nothing of the queue.
                    missing_since = None;
                    error.into()
                }
            };
            self.delayed();
            if let Err(Gone) = patience.after(trouble).await {
                return None;
            }
        }
    }

    fn matcher(&self, checkpoint: &Checkpoint) -> Option<Matcher> {
        let told = |error| {
            tracing::error!(subscription = %self.name, error = error_chain(&error), "no events for this queue");
        };
        Matcher::new(&checkpoint.realms_topics, self.selection.as_ref()).map_err(told).ok()
    }

    /// Looks at queue and entry. One that does not answer soon keeps the others neither from opening nor from working.
    async fn look_in_time(&self) -> Result<Found, broker::Error> {
        let turn = self.pace.opening.acquire().await;
        let look = self.look();
        tokio::pin!(look);
        tokio::select! {
            found = &mut look => return found,
            () = tokio::time::sleep(WAITED_FOR) => {}
        }
        drop(turn);
        self.delayed();
        look.await
    }

    async fn look(&self) -> Result<Found, broker::Error> {
        let (name, incarnation) = (&self.name, self.incarnation);
        let copier = Copier::open(self.broker.queue(name, incarnation)).await?;
        let mut copier = copier.map(|copier| copier.tracking(self.track));
        if let Some(copier) = &mut copier {
            self.confirm(copier).await?;
        }
        let entry = self.broker.registry().get(name).await?;
        Ok(match (Standing::of(entry.map(|Revised { value, .. }| value), incarnation), copier) {
            (Standing::Ready | Standing::Unfinished, Some(copier)) => Found::Queue(copier),
            (Standing::Ready, None) => Found::Missing,
            (Standing::Unfinished, None) | (Standing::Over, _) => Found::Over,
            (Standing::GivenUp(given_up), _) => {
                // Whoever recorded it may have died before the stream was deleted.
                self.broker.give_up(name, incarnation, &given_up).await?;
                Found::Over
            }
        })
    }

    /// What is in effect in the queue decides what is copied.
    async fn confirm(&self, copier: &mut Copier) -> Result<(), broker::Error> {
        loop {
            match copier.confirm().await {
                // The look after it says that the queue is gone, and at a limit nothing can be written: then nothing is
                // copied either.
                Ok(()) | Err(CopyError::Gone | CopyError::Full(_)) => return Ok(()),
                Err(CopyError::Stale | CopyError::Unknown) => {}
                Err(CopyError::Broker(error)) => return Err(error),
            }
        }
    }

    /// Writes into the entry that the queue is lost.
    async fn record_loss(&self) -> Result<(), broker::Error> {
        let incoming_seq =
            self.inlet.with(|mailbox| mailbox.oldest()).unwrap_or_else(|| self.pace.read() + 1);
        let lost = Lost { at: Timestamp::from_utc(jiff::Timestamp::now()), incoming_seq };
        let registry = self.broker.registry();
        if let broker::Modified::Changed(_) =
            registry.modify(&self.name, self.incarnation, |s| s.with_lost(&lost)).await?
        {
            self.metrics.lost.inc();
            tracing::error!(
                subscription = %self.name, incarnation = %self.incarnation, incoming_seq,
                "its queue does not exist: its events from here on are lost, and it is broken from now on, also if the \
                 queue comes back; remove the subscription and register it again"
            );
        }
        Ok(())
    }
}

/// What a panic says.
pub(crate) fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{
        Subscription,
        limits::Limit,
        subscription::{Registration, Tombstone},
    };
    use uuid::Uuid;

    #[test]
    fn an_entry_says_whether_a_queue_must_be_there() {
        let mine = Incarnation(Uuid::from_u128(1));
        let at: Timestamp = "2026-01-01T00:00:00".parse().unwrap();
        let registration = Registration::new("mail".parse().unwrap(), vec![]);
        let new = Subscription::reserve(registration, mine, 1, at.clone());
        let of = |lifecycle| Subscription { lifecycle, ..new.clone() };
        let ready = of(Lifecycle::Ready);
        let given_up = GivenUp { at: at.clone(), limit: Limit::Bytes, live: 1, prefill: 0 };
        let lost = Lost { at, incoming_seq: 1 };
        for (entry, expected) in [
            (ready.clone(), Standing::Ready),
            (of(Lifecycle::Registering), Standing::Unfinished),
            (of(Lifecycle::Deleting), Standing::Over),
            (ready.with_lost(&lost).unwrap(), Standing::Over),
            (ready.with_given_up(&given_up, None).unwrap(), Standing::GivenUp(given_up)),
            (Subscription { incarnation: Incarnation(Uuid::from_u128(2)), ..ready }, Standing::Over),
        ] {
            assert_eq!(Standing::of(Some(Entry::Subscription(entry.clone())), mine), expected, "{entry:?}");
        }
        assert_eq!(Standing::of(None, mine), Standing::Over);
        assert_eq!(
            Standing::of(Some(Entry::Tombstone(Tombstone { next_sequence: 1 })), mine),
            Standing::Over
        );
    }
}
