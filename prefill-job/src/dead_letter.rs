//! Objects that can't be written: set aside with their reason, so that one of them does not keep everybody from
//! everything.

use broker::Broker;
use model::{
    Message, Timestamp,
    dead_letter::{DeadLetter, DeadLetterReason, Origin},
    prefill::PrefillTask,
};

use crate::outcome::{Failure, Outcome};

/// Sets an object aside that is larger than NATS carries.
pub(crate) async fn too_large(
    broker: &Broker,
    task: &PrefillTask,
    topic: String,
    message: &[u8],
) -> Result<(), Outcome> {
    let (size, limit) = (message.len() as u64, broker.largest_message() as u64);
    let dn = Message::dn(message);
    let letter = DeadLetter { size, limit, dn, ..letter(task, DeadLetterReason::TooLarge, topic) };
    tracing::warn!(
        subscription = %task.subscription, topic = letter.topic, dn = letter.dn, size, limit,
        "an object is larger than NATS carries and is set aside; raise max_payload and send it again"
    );
    set_aside(broker, task, &letter, message).await
}

/// Records an object that the directory lists and can't show.
pub(crate) async fn unreadable(
    broker: &Broker,
    task: &PrefillTask,
    topic: String,
    dn: String,
    problem: String,
) -> Result<(), Outcome> {
    tracing::warn!(
        subscription = %task.subscription, topic, problem,
        "an object can't be read and is set aside; see the dead letters"
    );
    let letter = DeadLetter {
        dn: Some(dn),
        problem: Some(problem),
        ..letter(task, DeadLetterReason::Unreadable, topic)
    };
    set_aside(broker, task, &letter, &[]).await
}

fn letter(task: &PrefillTask, reason: DeadLetterReason, topic: String) -> DeadLetter {
    DeadLetter {
        incarnation: task.incarnation,
        origin: Origin::Prefill { attempt: task.attempt },
        reason,
        problem: None,
        dn: None,
        topic,
        size: 0,
        limit: 0,
        at: Timestamp::from_utc(jiff::Timestamp::now()),
    }
}

async fn set_aside(
    broker: &Broker,
    task: &PrefillTask,
    letter: &DeadLetter,
    message: &[u8],
) -> Result<(), Outcome> {
    let set = broker.dead_letters().set_aside(&task.subscription, letter, message).await;
    set.map_err(|error| Outcome::Failed(Failure::from(error)))
}
