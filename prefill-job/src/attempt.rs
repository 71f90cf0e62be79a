//! One attempt: fence, fill or go on, seal.

use std::time::Duration;

use broker::{Broker, Claimed, FenceHolder, Queue};
use model::{Counts, ExitCode, Phase, PrefillTask, Reason};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    fill::{CHANNEL, Filler, Progress},
    outcome::{Failure, Outcome, gone},
    progress::{Teller, Told},
    seam::SeamWatch,
    shape::{Shape, Shaper},
    source::Source,
};

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
    /// Who else hears of the progress.
    pub told: Option<Told>,
}

/// What happens to objects on their way, and who is told.
pub(crate) struct How<'a> {
    pub shaper: &'a Shaper,
    pub teller: &'a Teller,
    pub seam: &'a SeamWatch,
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
    let queue = broker.queue(&task.subscription, task.incarnation);
    let teller = Teller::start(broker, task, options.told);
    tokio::select! {
        () = shutdown.cancelled() => return Outcome::Failed(stopped()),
        ready = boundary(&queue, task, &teller) => if let Err(failure) = ready {
            return Outcome::Failed(failure);
        },
    }
    let mut fence = match queue.claim_fence(task.round, task.attempt, holder).await {
        Ok(Claimed::Holder(fence)) => fence,
        Ok(Claimed::Sealed) => return Outcome::Done(sealed_counts(&queue).await),
        Ok(Claimed::Overtaken | Claimed::Cancelled) => return Outcome::Obsolete,
        Ok(Claimed::Gone) => return Outcome::Failed(gone()),
        Err(error) => return Outcome::Failed(error.into()),
    };
    tracing::info!(
        subscription = %task.subscription, incarnation = %task.incarnation, attempt = task.attempt,
        holder = fence.holder(), "filling the queue"
    );
    let from = match fence.left_off().await {
        Ok(left_off) => left_off.and_then(|left_off| Progress::left_off(&left_off)),
        Err(error) => return Outcome::Failed(error.into()),
    };
    teller.phase(Phase::Listing);
    let seam = if source.is_current() { SeamWatch::start(&queue, task).await } else { SeamWatch::blind() };
    let how = How { shaper: &shaper, teller: &teller, seam: &seam };
    let outcome = fill(broker, source, task, &mut fence, from, &how, shutdown).await;
    teller.finish().await;
    outcome
}

/// Copies everything from the source into the queue and seals it.
async fn fill(
    broker: &Broker,
    source: &Source,
    task: &PrefillTask,
    fence: &mut FenceHolder,
    from: Option<Progress>,
    how: &How<'_>,
    shutdown: &CancellationToken,
) -> Outcome {
    let How { teller, seam, .. } = how;
    let (objects, events) = mpsc::channel(CHANNEL);
    let as_of = seam.as_of();
    let place = from.as_ref().and_then(|from| from.place.clone());
    let read = source.read_on(&task.realms_topics, objects, &as_of, place);
    let filler = Filler::new(broker, task, fence, how, from);
    let write = filler.run(events, shutdown);
    // Both at once: the first failure drops the other. A source that has ended has dropped its sender, so the writer
    // ends too.
    let written = tokio::try_join!(async { read.await.map_err(|e| Outcome::Failed(e.into())) }, write);
    let filled = match written {
        Err(outcome) => return outcome,
        Ok(((), filled)) => filled,
    };
    // What an earlier pod wrote, it wrote without telling when: then nothing is left out.
    let contained = if filled.went_on { Vec::new() } else { seam.contained() };
    if !contained.is_empty() {
        let events = contained.len();
        tracing::info!(subscription = %task.subscription, attempt = task.attempt, events, "the prefill holds these live events already");
    }
    teller.phase(Phase::Sealing);
    match fence.seal_leaving_out(filled.counts.clone(), contained).await {
        Ok(()) => {
            teller.phase(Phase::Done);
            Outcome::Done(Some(filled.counts))
        }
        Err(error) => error.into(),
    }
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

pub(crate) fn stopped() -> Failure {
    Failure::transient(Reason::Internal, "stopped by a signal; the next pod goes on, or begins anew")
}
