//! One attempt: fence, fill, seal.

use std::time::Duration;

use broker::{Broker, Claimed, FenceHolder, Queue};
use bytes::Bytes;
use model::{
    ExitCode, Message, Reason, Timestamp,
    fence::Counts,
    message::{Body, Publisher},
    prefill::{Phase, PrefillMode, PrefillTask},
    resync::{KnownObject, MaxRemovals},
    topic::UDM_REALM,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letter,
    delivered_objects::{Former, Known, Lag, Step, Unwritten},
    outcome::{Failure, Outcome, gone},
    progress::{Teller, Told},
    seam::SeamWatch,
    shape::{Shape, Shaper},
    source::{SnapshotObject, Source, SourceEvent},
};

/// Most messages of a batch (ADR-50 allows 1000; measured: 500 of 3 KB are near the best, `docs/benchmarks.md`).
const BATCH_MESSAGES: usize = 500;
/// Bytes after which a batch is written although it has room: the server holds it in memory.
const BATCH_BYTES: usize = 4 << 20;
/// How long a batch may wait for more: a batch costs a sync of the disk, however small it is.
const BATCH_WAITS: Duration = Duration::from_millis(100);
/// Bytes of a message besides its object, roughly.
const ENVELOPE: usize = 256;
/// Objects that wait between source and queue: back-pressure both ways. The source bounds their bytes.
const CHANNEL: usize = 2 * BATCH_MESSAGES;

/// So many per cent of a type that are gone when they are read are worth a warning.
const VANISHED_PERCENT: u64 = 3;
/// If they are so many at least.
const VANISHED_MIN: u64 = 3;

/// Runs one attempt to its end. `holder` names the pod or worker, for people. Cancelling `shutdown` ends it cleanly
/// between two batches.
pub async fn run(
    broker: &Broker,
    source: &Source,
    task: &PrefillTask,
    holder: &str,
    shutdown: &CancellationToken,
) -> Outcome {
    run_with(broker, source, task, holder, shutdown, Options::default()).await
}

/// What an attempt may do otherwise.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// In which shape objects come.
    pub shape: Shape,
    /// How many removals a resync may tell without being approved, where nothing else was asked for.
    pub max_removals: MaxRemovals,
    /// Who else hears of the progress.
    pub told: Option<Told>,
}

/// As [`run`], with options.
pub async fn run_with(
    broker: &Broker,
    source: &Source,
    task: &PrefillTask,
    holder: &str,
    shutdown: &CancellationToken,
    options: Options,
) -> Outcome {
    let shaper = match Shaper::new(options.shape, task) {
        Ok(shaper) => shaper,
        Err(error) => {
            let text = format!("the selection can't be used: {error}");
            return Outcome::Failed(Failure::permanent(ExitCode::BadRequest, Reason::BadRequest, text));
        }
    };
    if task.mode == PrefillMode::Resync && !source.is_directory() {
        let text = "a resync compares with the directory as it is, and SOURCE is a dump: set it to the UDM REST API, \
                    or ask for a prefill";
        return Outcome::Failed(Failure::permanent(ExitCode::BadRequest, Reason::BadRequest, text));
    }
    let queue = broker.queue(&task.subscription, task.incarnation);
    let teller = Teller::start(broker, task, options.told);
    tokio::select! {
        () = shutdown.cancelled() => return Outcome::Failed(stopped()),
        ready = boundary(&queue, task, &teller) => if let Err(failure) = ready {
            return Outcome::Failed(failure);
        },
    }
    let former = match task.track {
        true => match Former::look(&queue).await {
            Ok(former) => Some(former),
            Err(error) => return Outcome::Failed(error.into()),
        },
        false => None,
    };
    let mut fence = match queue.claim_fence(task.round, task.attempt, holder).await {
        Ok(Claimed::Holder(fence)) => fence,
        Ok(Claimed::Sealed) => return Outcome::Done(sealed_counts(&queue).await),
        Ok(Claimed::Held) => return Outcome::Held(sealed_counts(&queue).await.unwrap_or_default()),
        Ok(Claimed::Overtaken) => return Outcome::Obsolete,
        Ok(Claimed::Cancelled) => return Outcome::Cancelled,
        Ok(Claimed::Gone) => return Outcome::Failed(gone()),
        Err(error) => return Outcome::Failed(error.into()),
    };
    tracing::info!(
        subscription = %task.subscription, incarnation = %task.incarnation, attempt = task.attempt,
        holder = fence.holder(), "filling the queue"
    );
    let lag = match source.is_current() || former.is_none() {
        true => Lag::None,
        // Now: each write under the fence replaces it.
        false => match fence.claimed_when().await {
            Ok(when) => Lag::Since(when),
            Err(error) => return Outcome::Failed(error.into()),
        },
    };
    // What a consumer has not read yet is not of those who only count.
    if !task.dry_run
        && let Err(error) = fence.purge_below().await
    {
        return error.into();
    }
    // A replica may not show yet what was accepted before the boundary, and no live event will tell of that.
    if !source.lag().is_zero() {
        teller.phase(Phase::Waiting);
        tokio::select! {
            () = shutdown.cancelled() => return Outcome::Failed(stopped()),
            () = tokio::time::sleep(source.lag()) => {}
        }
    }
    teller.phase(Phase::Listing);
    let seam = match source.is_current() && !task.dry_run {
        true => SeamWatch::start(&queue, task).await,
        false => SeamWatch::blind(),
    };
    let max_removals = task.max_removals.unwrap_or(options.max_removals);
    let how = How { shaper: &shaper, teller: &teller, seam: &seam, lag, max_removals };
    let known = former.map(Known::new);
    let outcome = fill(broker, source, task, &mut fence, &how, known, shutdown).await;
    if task.track
        && !task.dry_run
        && matches!(outcome, Outcome::Done(_))
        && let Err(error) = fence.forget_known().await
    {
        tracing::warn!(%error, "what was known before this prefill is looked at again by the next one");
    }
    teller.finish().await;
    outcome
}

/// Waits until the queue's checkpoint shows the round: from then on, what the list misses comes as a live event. It
/// is looked at here, and not only before the Job is started, because a Job may be resumed by hand.
async fn boundary(queue: &Queue, task: &PrefillTask, teller: &Teller) -> Result<(), Failure> {
    let mut pause = Duration::from_millis(20);
    loop {
        match queue.checkpoint().await? {
            None => return Err(gone()),
            Some(found) if found.value.incarnation != task.incarnation => return Err(gone()),
            Some(found) if found.value.active && found.value.epoch.round >= task.round => return Ok(()),
            Some(_) => teller.phase(Phase::Waiting),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn sealed_counts(queue: &Queue) -> Option<Counts> {
    queue.fence().await.ok().flatten().and_then(|fence| fence.value.counts)
}

fn stopped() -> Failure {
    Failure::transient(Reason::Internal, "stopped by a signal; the next pod begins anew")
}

/// What happens to objects on their way, and who is told.
struct How<'a> {
    shaper: &'a Shaper,
    teller: &'a Teller,
    seam: &'a SeamWatch,
    lag: Lag,
    max_removals: MaxRemovals,
}

/// Copies everything from the source into the queue and seals it.
async fn fill(
    broker: &Broker,
    source: &Source,
    task: &PrefillTask,
    fence: &mut FenceHolder,
    how: &How<'_>,
    mut known: Option<Known>,
    shutdown: &CancellationToken,
) -> Outcome {
    let How { teller, seam, .. } = how;
    let (objects, mut events) = mpsc::channel(CHANNEL);
    let as_of = seam.as_of();
    let read = async { source.read_as_of(&task.realms_topics, objects, &as_of).await.map_err(Failure::from) };
    let write = write_all(broker, task, &mut events, fence, how, &mut known, shutdown);
    // Both at once: the first failure drops the other. A source that has ended has dropped its sender, so the writer
    // ends too.
    let written = tokio::try_join!(async { read.await.map_err(Outcome::Failed) }, write);
    match written {
        Err(outcome) => outcome,
        Ok(((), mut counts)) => {
            counts.dry_run = task.dry_run;
            // Only now, when the source has said that this was all: what it did not come to must not be removed.
            if let Some(known) = known {
                let before = counts.messages;
                let compared = tokio::select! {
                    () = shutdown.cancelled() => Err(Outcome::Failed(stopped())),
                    compared = compare(broker, task, known, fence, &mut counts, how) => compared,
                };
                if let Err(outcome) = compared {
                    return outcome;
                }
                teller.update(|tally| {
                    (tally.done, tally.removed) = (counts.messages, counts.removed);
                    tally.removals.clone_from(&counts.removals);
                    // Nobody knew of them before.
                    tally.total = tally.total.map(|total| total + counts.messages - before);
                });
            }
            let contained = seam.contained();
            if !contained.is_empty() {
                let (subscription, events) = (&task.subscription, contained.len());
                tracing::info!(%subscription, attempt = task.attempt, events, "the prefill holds these live events already");
            }
            teller.phase(Phase::Sealing);
            // All of it is written by now, and nothing is read before the seal: so what is approved is what is read.
            let held = !task.dry_run && how.max_removals.is_passed_by(&counts.removals);
            let ended = match held {
                true => fence.hold(counts.clone(), contained).await,
                false => fence.seal_leaving_out(counts.clone(), contained).await,
            };
            if let Err(error) = ended {
                return error.into();
            }
            teller.phase(Phase::Done);
            if held { Outcome::Held(counts) } else { Outcome::Done(Some(counts)) }
        }
    }
}

/// Compares the whole snapshot with what was known before, and tells what a resync tells of the difference.
async fn compare(
    broker: &Broker,
    task: &PrefillTask,
    known: Known,
    fence: &mut FenceHolder,
    counts: &mut Counts,
    how: &How<'_>,
) -> Result<(), Outcome> {
    let queue = broker.queue(&task.subscription, task.incarnation);
    let mut batch = Batch::new();
    let mut missing = known.compare(&queue, fence, task, how.lag).await?;
    if task.mode == PrefillMode::Resync {
        counts.removals = missing.removals();
    }
    if task.dry_run {
        counts.removed = counts.removals.values().map(|of| of.removed).sum();
        counts.messages += counts.removed;
        return Ok(());
    }
    loop {
        let step = missing.next().await?;
        let ended = matches!(step, Step::End);
        let flush = matches!(step, Step::Flush);
        tell(broker, task, step, fence, counts, &mut batch).await?;
        if ended || flush || batch.is_full() {
            batch.write(fence, counts, Some(&mut missing.unwritten)).await?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// The messages of one difference.
async fn tell(
    broker: &Broker,
    task: &PrefillTask,
    step: Step,
    fence: &FenceHolder,
    counts: &mut Counts,
    batch: &mut Batch,
) -> Result<(), Outcome> {
    match step {
        Step::Flush | Step::End => {}
        Step::Remove(object, again) => {
            let size = object.size();
            let body = Body::removal(object.head());
            let (_, payload) =
                envelope(object.topic, body, size).map_err(|error| unwritable("a removal", &error))?;
            batch.push(payload);
            counts.removed += 1;
            // A consumer that finds objects by their DN has removed what is there now.
            if let Some(index) = again
                && let Some(payload) = fence.message(index).await.map_err(Failure::from)?
            {
                batch.push(payload);
            }
        }
        Step::Move(former, index) => {
            let Some(payload) = fence.message(index).await.map_err(Failure::from)? else { return Ok(()) };
            let moved = Message::stored(&payload)
                .and_then(|message| {
                    let body = Body { old: former.head(), new: message.body.new };
                    envelope(message.topic, body, payload.len() + former.size())
                })
                .map_err(|error| unwritable("a move", &error))?;
            let (topic, payload) = moved;
            if payload.len() > broker.largest_message() {
                dead_letter::too_large(broker, task, topic, &payload).await?;
                counts.set_aside += 1;
            } else {
                batch.push(payload);
                counts.moved += 1;
            }
        }
    }
    Ok(())
}

/// Writes what comes until the source closes the channel.
async fn write_all(
    broker: &Broker,
    task: &PrefillTask,
    events: &mut mpsc::Receiver<SourceEvent>,
    fence: &mut FenceHolder,
    how: &How<'_>,
    known: &mut Option<Known>,
    shutdown: &CancellationToken,
) -> Result<Counts, Outcome> {
    let How { shaper, teller, seam, .. } = how;
    let mut counts = Counts::default();
    let mut vanished = Vanished::default();
    let mut received = Vec::with_capacity(BATCH_MESSAGES);
    let mut batch = Batch::new();
    let mut coverage = shaper.coverage();
    loop {
        let arrived = tokio::select! {
            () = shutdown.cancelled() => return Err(Outcome::Failed(stopped())),
            arrived = events.recv_many(&mut received, BATCH_MESSAGES - batch.messages.len()) => Some(arrived),
            () = tokio::time::sleep_until(batch.due), if !batch.is_empty() => None,
        };
        for event in received.drain(..) {
            match event {
                SourceEvent::Object(object) => {
                    if batch.bytes >= BATCH_BYTES {
                        batch
                            .write(fence, &mut counts, known.as_mut().map(|known| &mut known.unwritten))
                            .await?;
                    }
                    let index = counts.messages + batch.messages.len() as u64 + 1;
                    let as_of = object.as_of;
                    coverage.note(object.object.get());
                    // Before anything is stripped from it: what it is recognised by need not be selected.
                    let whole = match known {
                        Some(_) => KnownObject::of_object(&object.topic, object.object.get()),
                        None => None,
                    };
                    let Some(Shaped { topic, payload, known: seen }) = message(object, index, shaper, whole)?
                    else {
                        counts.not_selected += 1;
                        continue;
                    };
                    let fits = payload.len() <= broker.largest_message();
                    if let (Some(known), Some(object)) = (known.as_mut(), seen) {
                        known.exists(object, fits.then_some(index));
                    }
                    if task.dry_run {
                        counts.messages += u64::from(fits);
                        counts.set_aside += u64::from(!fits);
                    } else if !fits {
                        dead_letter::too_large(broker, task, topic, &payload).await?;
                        counts.set_aside += 1;
                    } else {
                        seam.wrote(as_of, &payload);
                        batch.push(payload);
                    }
                }
                SourceEvent::Skipped { topic, dn, confirmed } => {
                    if let (Some(known), false) = (known.as_mut(), confirmed) {
                        known.vanished(topic, dn);
                    }
                    counts.skipped += 1;
                    vanished.skipped += 1;
                }
                SourceEvent::Broken { topic, dn, uuid, problem } => {
                    if let Some(known) = known {
                        known.broken(topic.clone(), dn.clone(), uuid);
                    }
                    if !task.dry_run {
                        dead_letter::unreadable(broker, task, topic, dn, problem).await?;
                    }
                    counts.set_aside += 1;
                }
                SourceEvent::NoModule { topic } => {
                    tracing::warn!(
                        subscription = %task.subscription, topic,
                        "no module of the directory matches the topic, which is left out"
                    );
                    counts.missing.push(topic);
                }
                SourceEvent::TopicStarted { topic, total } => {
                    vanished = Vanished { listed: total.unwrap_or(0), skipped: 0 };
                    teller.update(|tally| {
                        tally.topic = Some(topic.into());
                        tally.total = total.map(|n| tally.total.unwrap_or(0) + n).or(tally.total);
                    });
                }
                SourceEvent::TopicFinished { topic } => {
                    if let Some(warning) = vanished.warning(&topic) {
                        tracing::warn!(subscription = %task.subscription, "{warning}");
                        counts.warnings.push(warning);
                    }
                    if let Some(known) = known {
                        known.finished(topic);
                    }
                    teller.update(|tally| tally.topic = None);
                }
                SourceEvent::Retrying { error } => teller.update(|tally| tally.error = Some(error.into())),
            }
        }
        let ended = arrived == Some(0);
        if ended {
            for warning in coverage.warnings() {
                tracing::warn!(subscription = %task.subscription, warning);
                counts.warnings.push(warning);
            }
        }
        if task.dry_run
            && let Some(known) = known
        {
            known.unwritten.take();
        }
        let full = batch.is_full() || known.as_ref().is_some_and(|known| known.unwritten.is_full());
        if ended || arrived.is_none() || full {
            batch.write(fence, &mut counts, known.as_mut().map(|known| &mut known.unwritten)).await?;
        }
        teller.update(|tally| {
            if tally.done < counts.messages {
                tally.error = None;
            }
            tally.done = counts.messages;
            tally.skipped = counts.skipped;
            tally.set_aside = counts.set_aside;
            tally.not_selected = counts.not_selected;
            tally.missing.clone_from(&counts.missing);
            tally.warnings.clone_from(&counts.warnings);
        });
        if ended {
            return Ok(counts);
        }
    }
}

/// Objects of one type that were listed, and those of them that were gone when they were read.
#[derive(Clone, Copy, Debug, Default)]
struct Vanished {
    listed: u64,
    skipped: u64,
}

impl Vanished {
    /// A few objects are deleted while many are read. More than that is rather an account that may not read them, or a
    /// directory that is being changed by a machine: somebody should know.
    fn warning(self, topic: &str) -> Option<String> {
        let Self { listed, skipped } = self;
        let many = skipped >= VANISHED_MIN && skipped * 100 > listed * VANISHED_PERCENT;
        many.then(|| {
            format!("{skipped} of {listed} objects of {topic} were listed and gone (404) when they were read")
        })
    }
}

/// Messages that are written together, sooner or later.
struct Batch {
    messages: Vec<Bytes>,
    bytes: usize,
    /// When it is written although there is room.
    due: Instant,
}

impl Batch {
    fn new() -> Self {
        Self { messages: Vec::new(), bytes: 0, due: Instant::now() }
    }

    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES || self.bytes >= BATCH_BYTES
    }

    fn push(&mut self, message: Bytes) {
        if self.is_empty() {
            self.due = Instant::now() + BATCH_WAITS;
        }
        self.bytes += message.len();
        self.messages.push(message);
    }

    /// Writes the messages, and with them what they tell of.
    async fn write(
        &mut self,
        fence: &mut FenceHolder,
        counts: &mut Counts,
        unwritten: Option<&mut Unwritten>,
    ) -> Result<(), Outcome> {
        let known = unwritten.map_or_else(Vec::new, Unwritten::take);
        fence.write_knowing(counts.messages + 1, &self.messages, &known).await?;
        counts.messages += self.messages.len() as u64;
        self.messages.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// An object as its subscription gets it.
struct Shaped {
    topic: String,
    payload: Bytes,
    /// What is recorded of it.
    known: Option<KnownObject>,
}

/// The message of an object, as consumers know it; `None` if it is not selected. `whole`: what the object says of itself.
#[expect(clippy::result_large_err, reason = "an attempt ends once")]
fn message(
    object: SnapshotObject,
    index: u64,
    shaper: &Shaper,
    whole: Option<KnownObject>,
) -> Result<Option<Shaped>, Outcome> {
    let topic = object.topic.clone();
    let failed = |error: serde_json::Error| unwritable(&format!("object {index} ({topic})"), &error);
    let Some(object) = shaper.apply(object).map_err(failed)? else { return Ok(None) };
    let known = whole.map(|whole| whole.told_as(object.object.get()));
    let length = object.object.get().len();
    let (topic, payload) = envelope(object.topic, Body::snapshot(object.object), length).map_err(failed)?;
    Ok(Some(Shaped { topic, payload, known }))
}

/// Topic and message; `length` is that of the object.
fn envelope(topic: String, body: Body, length: usize) -> serde_json::Result<(String, Bytes)> {
    let message = Message {
        publisher_name: Publisher::UdmPreFill,
        ts: Timestamp::naive_utc(jiff::Timestamp::now()),
        realm: UDM_REALM.to_owned(),
        topic,
        body,
    };
    // At once as long as it will be: a group of everybody must not be doubled while it grows.
    let mut payload = Vec::with_capacity(length + ENVELOPE);
    serde_json::to_writer(&mut payload, &message)?;
    Ok((message.topic, Bytes::from(payload)))
}

fn unwritable(what: &str, error: &serde_json::Error) -> Outcome {
    let text = format!("{what} can't be written: {error}");
    Outcome::Failed(Failure::permanent(ExitCode::BadData, Reason::BadData, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_objects_that_are_gone_when_they_are_read_are_told() {
        for (listed, skipped, told) in [
            (5, 5, true),
            (5, 2, false),
            (1000, 30, false),
            (1000, 31, true),
            (0, 0, false),
            (100_000, 9, false),
        ] {
            let warning = Vanished { listed, skipped }.warning("a/b");
            assert_eq!(warning.is_some(), told, "{skipped} of {listed}: {warning:?}");
        }
    }
}
