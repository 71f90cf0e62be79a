//! Names of streams, subjects, buckets and headers: the layout of NATS in one place.

use std::fmt::Display;

use model::{Incarnation, SubscriptionName};

/// The event log: every accepted event and every marker, in the order of acceptance.
pub(crate) const INCOMING: &str = "incoming";
pub(crate) const EVENT_SUBJECT: &str = "incoming.event";
pub(crate) const MARKER_SUBJECT: &str = "incoming.marker";

/// Tasks of prefills without Kubernetes.
pub(crate) const TASKS: &str = "tasks";
pub(crate) const TASK_SUBJECTS: &str = "tasks.prefill.*";
pub(crate) const TASK_CONSUMER: &str = "prefill-workers";

/// What queues can't carry, in parts that fit: one stream for all subscriptions.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";
pub(crate) const DEAD_LETTER_SUBJECTS: &str = "dead-letters.>";

/// KV buckets.
pub(crate) const SUBSCRIPTIONS: &str = "SUBSCRIPTIONS";
pub(crate) const CREDENTIALS: &str = "CREDENTIALS";
pub(crate) const PREFILL: &str = "PREFILL";
pub(crate) const DISPATCHER: &str = "DISPATCHER";
pub(crate) const BUCKETS: [&str; 4] = [SUBSCRIPTIONS, CREDENTIALS, PREFILL, DISPATCHER];
/// Key in the bucket `DISPATCHER`.
pub(crate) const POSITION_KEY: &str = "position";

/// Key in the bucket `PREFILL` beside the progress: one token of a subject, and no name of a subscription.
pub(crate) fn last_read_key(name: &SubscriptionName) -> String {
    format!("read/{name}")
}

/// Headers of our messages.
pub(crate) const INCARNATION: &str = "Headstart-Incarnation";
pub(crate) const ROUND: &str = "Headstart-Round";
pub(crate) const ATTEMPT: &str = "Headstart-Attempt";
pub(crate) const INDEX: &str = "Headstart-Index";
pub(crate) const INCOMING_SEQ: &str = "Headstart-Incoming-Seq";
/// When the event was accepted, in milliseconds since 1970 by the clock of NATS.
pub(crate) const ACCEPTED: &str = "Headstart-Accepted";

/// Number of the messages that follow a dead letter and hold its parts.
pub(crate) const PARTS: &str = "Headstart-Parts";

/// Headers of JetStream.
pub(crate) const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
pub(crate) const EXPECTED_LAST: &str = "Nats-Expected-Last-Sequence";
pub(crate) const EXPECTED_LAST_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence";
/// Names the subject that [`EXPECTED_LAST_SUBJECT`] is about, where it is another one than the message's own.
pub(crate) const EXPECTED_LAST_SUBJECT_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
pub(crate) const ROLLUP: &str = "Nats-Rollup";
pub(crate) const BATCH_ID: &str = "Nats-Batch-Id";
pub(crate) const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
pub(crate) const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// Stream of a bucket.
pub(crate) fn bucket_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Subject of a key.
pub(crate) fn key_subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// Subject of a subscription's task.
pub(crate) fn task_subject(name: &SubscriptionName) -> String {
    format!("tasks.prefill.{name}")
}

/// Subject of one dead letter; its parts are on the one below it. `from` and `which` tell where it would have stood.
pub(crate) fn dead_letter_subject(
    name: &SubscriptionName,
    incarnation: Incarnation,
    from: &str,
    which: impl Display,
) -> String {
    format!("{DEAD_LETTERS}.{name}.{}.{from}.{which}", incarnation.short())
}

/// The dead letters of one incarnation, without their parts.
pub(crate) fn dead_letters_of(name: &SubscriptionName, short_incarnation: &str) -> String {
    format!("{DEAD_LETTERS}.{name}.{short_incarnation}.*.*")
}

/// Where a dead letter of a live message would have stood.
pub(crate) const FROM_LIVE: &str = "live";

/// Where one of a prefill would have stood.
pub(crate) fn from_attempt(attempt: u32) -> String {
    format!("prefill-{attempt}")
}

/// The reverse, of a subject; `None` for live messages.
pub(crate) fn attempt_of(dead_letter: &str) -> Option<u32> {
    dead_letter.split('.').nth(3)?.strip_prefix("prefill-")?.parse().ok()
}

/// Subject on which replicas tell each other what was removed from a queue. No stream has it.
pub(crate) fn removed_subject(name: &SubscriptionName, incarnation: Incarnation) -> String {
    format!("headstart.removed.{name}.{}", incarnation.short())
}

/// Subject on which dispatchers say that they have written to a queue. No stream has it.
pub(crate) fn arrived_subject(name: &SubscriptionName, incarnation: Incarnation) -> String {
    format!("headstart.arrived.{name}.{}", incarnation.short())
}

/// A queue's stream. It carries the incarnation, since `STREAM.DELETE` has no condition: a late delete must not hit
/// a re-created queue.
pub(crate) fn queue_stream(name: &SubscriptionName, incarnation: Incarnation) -> String {
    format!("stream:{name}:{}", incarnation.short())
}

/// What the consumer was told of, where that is recorded: each message has a subject of its own, so that a limit of
/// messages per subject does not count them. `of`: number of the first event that tells of them, or another word for
/// what does.
pub(crate) fn known_live_subject(name: &SubscriptionName, of: impl Display, part: usize) -> String {
    format!("{name}.known.live.{of}-{part}")
}

/// Is it one of those?
pub(crate) fn is_known_live(subject: &str) -> bool {
    subject.rsplit('.').nth(1) == Some("live")
}

/// The same, of an attempt.
pub(crate) fn known_prefill_subject(name: &SubscriptionName, attempt: u32, index: u32) -> String {
    format!("{name}.known.prefill.{attempt}-{index}")
}

/// All subjects of either.
pub(crate) fn known_subjects(name: &SubscriptionName) -> String {
    format!("{name}.known.*.*")
}

/// Those of live messages.
pub(crate) fn known_live_subjects(name: &SubscriptionName) -> String {
    format!("{name}.known.live.*")
}

/// The four subjects of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Live messages.
    Main,
    /// Objects of the snapshot.
    Prefill,
    /// The one writer's token.
    Fence,
    /// The checkpoint of the dispatcher.
    Copied,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Main, Self::Prefill, Self::Fence, Self::Copied];

    pub(crate) fn subject(self, name: &SubscriptionName) -> String {
        let last = match self {
            Self::Main => "main",
            Self::Prefill => "prefill",
            Self::Fence => "fence",
            Self::Copied => "copied",
        };
        format!("{name}.{last}")
    }
}
