//! What the API shows of a subscription, its queue and its prefill.

use std::time::SystemTime;

use broker::QueueCounts;
use model::{
    PrefillState, RealmTopic, Reason, Selection, Subscription, SubscriptionName, Timestamp,
    limits::{GivenUp, Lost, QueueLimits, QueueUse, WhenFull},
    prefill::{PAUSED_TEXT, PastAttempt, PrefillMode},
    resync::{MaxRemovals, RemovalsByType},
    subscription::Lifecycle,
};
use serde::Serialize;

use crate::state::{Details, QueueDetails};

const BROKEN: &str =
    "the queue is lost, and its events with it: remove the subscription and register it again";
const GIVEN_UP: &str = "the queue was full and was given up, and its events with it: remove the subscription and \
     register it again";

/// The prefill of a subscription, with its progress.
#[derive(Serialize)]
pub(crate) struct PrefillView<'a> {
    state: &'static str,
    mode: PrefillMode,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_removals: Option<MaxRemovals>,
    round: u32,
    attempt: u32,
    since: &'a Timestamp,
    reason: Option<Reason>,
    message: Option<&'a str>,
    /// Has the dispatcher reached the marker of this round?
    boundary_known: bool,
    /// Name of the attempt's Job, where prefills are Jobs.
    job: Option<String>,
    progress: Option<ProgressView<'a>>,
    /// What a resync found gone, by type; `None`: nothing was compared yet.
    removals: Option<&'a RemovalsByType>,
    paused: bool,
    /// The last attempts that have ended, oldest first.
    attempts: &'a [PastAttempt],
}

#[derive(Serialize)]
struct ProgressView<'a> {
    phase: &'static str,
    topic: Option<&'a str>,
    done: u64,
    total: Option<u64>,
    skipped: u64,
    set_aside: u64,
    missing: &'a [String],
    warnings: &'a [String],
    not_selected: u64,
    removed: u64,
    rate: f64,
    /// Seconds until it is done, at that rate.
    eta: Option<f64>,
    error: Option<&'a str>,
    /// All of it in a line for people.
    text: String,
}

impl<'a> PrefillView<'a> {
    /// Progress of another attempt is not shown: an overtaken one may still write it. A lost queue is shown whatever
    /// the entry says. Without details it is what the entry says.
    pub(crate) fn new(subscription: &'a Subscription, details: Option<&'a Details>) -> Self {
        let prefill = &subscription.prefill;
        let current = details.and_then(|d| d.progress.as_ref()).filter(|p| {
            p.incarnation == subscription.incarnation && p.attempt == prefill.attempt && p.attempt > 0
        });
        let broken = details.map_or_else(|| subscription.is_broken(), |d| d.broken);
        let (state, reason, message) = if broken {
            let message = if subscription.given_up.is_some() { GIVEN_UP } else { BROKEN };
            (PrefillState::Failed, Some(Reason::Broken), Some(message))
        } else if prefill.paused {
            // Whatever it waited for before; and whether or not anybody is there to see it.
            (prefill.state, Some(Reason::Paused), Some(PAUSED_TEXT))
        } else {
            (prefill.state, prefill.reason, prefill.message.as_deref())
        };
        Self {
            state: state.as_str(),
            mode: prefill.mode,
            dry_run: prefill.dry_run,
            max_removals: prefill.max_removals,
            round: prefill.round,
            attempt: prefill.attempt,
            since: &prefill.since,
            reason,
            message,
            boundary_known: prefill.boundary.is_some(),
            job: details.and_then(|d| d.job.clone()),
            progress: current.map(|p| ProgressView {
                phase: p.phase.as_str(),
                topic: p.topic.as_deref(),
                done: p.done,
                total: p.total,
                skipped: p.skipped,
                set_aside: p.set_aside,
                missing: &p.missing,
                warnings: &p.warnings,
                not_selected: p.not_selected,
                removed: p.removed,
                rate: p.rate,
                eta: p.eta(),
                error: p.error.as_deref(),
                text: p.to_string(),
            }),
            removals: details
                .and_then(|d| d.removals.as_ref())
                .or(current.map(|p| &p.removals))
                .filter(|removals| !removals.is_empty()),
            paused: prefill.paused,
            attempts: &prefill.attempts,
        }
    }
}

/// A subscription as the API shows it: the four fields of the former service first.
#[derive(Serialize)]
pub(crate) struct SubscriptionView<'a> {
    name: &'a SubscriptionName,
    realms_topics: &'a [RealmTopic],
    request_prefill: bool,
    prefill_queue_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<&'a Selection>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    track: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_removals: Option<MaxRemovals>,
    lifecycle: Lifecycle,
    created: &'a Timestamp,
    prefill: PrefillView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueView<'a>>,
}

/// What waits in a queue, its limits, and what became of it at them.
#[derive(Serialize)]
pub(crate) struct QueueView<'a> {
    prefill: u64,
    live: u64,
    dead_letters: u64,
    /// When the oldest message that waits was written, by the clock of NATS.
    oldest_at: Option<Timestamp>,
    /// When the consumer asked for messages last, to the minute.
    last_read_at: Option<Timestamp>,
    /// Most messages of each kind.
    limit: u64,
    full: bool,
    bytes: u64,
    limit_bytes: Option<u64>,
    /// Seconds that a live message waits at most.
    limit_age: Option<f64>,
    when_full: WhenFull,
    /// Live messages that were removed by age.
    swept: u64,
    given_up: Option<&'a GivenUp>,
    lost: Option<&'a Lost>,
}

impl<'a> QueueView<'a> {
    /// `None`: there is no queue, and none was given up or lost.
    pub(crate) fn new(
        subscription: &'a Subscription,
        details: &QueueDetails,
        limits: &QueueLimits,
    ) -> Option<Self> {
        let given_up = subscription.given_up.as_ref();
        // What is left of one that is broken is not delivered any more.
        let (counts, oldest) = match subscription.is_broken() {
            true => (QueueCounts::default(), None),
            false => (details.counts?, details.oldest),
        };
        let held = QueueUse::from(counts);
        Some(Self {
            prefill: held.prefill,
            live: held.live,
            dead_letters: details.dead_letters,
            oldest_at: oldest.and_then(shown_time),
            last_read_at: details.last_read.and_then(shown_time),
            limit: limits.messages_of(&held),
            full: limits.is_full(&held),
            bytes: held.bytes,
            limit_bytes: limits.bytes,
            limit_age: limits.age.map(|age| age.as_secs_f64()),
            when_full: limits.when_full,
            swept: subscription.swept,
            given_up,
            lost: subscription.lost.as_ref(),
        })
    }
}

impl<'a> SubscriptionView<'a> {
    pub(crate) fn new(
        subscription: &'a Subscription,
        prefill: PrefillView<'a>,
        queue: Option<QueueView<'a>>,
    ) -> Self {
        Self {
            name: &subscription.name,
            realms_topics: &subscription.realms_topics,
            request_prefill: subscription.request_prefill,
            prefill_queue_status: prefill.state,
            selection: subscription.selection.as_ref(),
            track: subscription.track,
            max_removals: subscription.max_removals,
            lifecycle: subscription.lifecycle,
            created: &subscription.created,
            prefill,
            queue,
        }
    }
}

fn shown_time(at: SystemTime) -> Option<Timestamp> {
    jiff::Timestamp::try_from(at).ok().map(Timestamp::from_utc)
}
