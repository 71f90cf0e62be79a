//! Memory for bodies: so many bytes all together. What is sent by those who are not let in, and by subscriptions, has
//! memory of its own, so that events and registrations always find room.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::ApiError;

/// For the bodies of the fixed users: four of the largest events, and a part of the 256 MiB that the chart gives.
pub(crate) static BODIES: BodyMemory = BodyMemory::new(64 << 20);
/// For the bodies of subscriptions.
pub(crate) static OF_SUBSCRIBERS: BodyMemory = BodyMemory::new(8 << 20);
/// For what is read of those who are not let in.
pub(crate) static OF_STRANGERS: BodyMemory = BodyMemory::new(8 << 20);

/// How long a body waits for others to end before it is refused.
const WAIT_WITHIN: Duration = Duration::from_secs(5);
/// Counted in steps of so many bytes.
const STEP: usize = 1024;

/// A bounded number of bytes.
pub(crate) struct BodyMemory {
    steps: usize,
    free: Semaphore,
}

/// A part of it, until this is dropped.
#[derive(Default)]
pub(crate) struct Held<'a> {
    steps: usize,
    permit: Option<SemaphorePermit<'a>>,
}

impl BodyMemory {
    const fn new(bytes: usize) -> Self {
        let steps = bytes / STEP;
        Self { steps, free: Semaphore::const_new(steps) }
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        (self.steps - self.free.available_permits()) * STEP
    }

    /// Makes what is held enough for `bytes`.
    pub(crate) async fn hold<'a>(&'a self, held: &mut Held<'a>, bytes: usize) -> Result<(), ApiError> {
        let more = bytes.div_ceil(STEP).saturating_sub(held.steps);
        if more == 0 {
            return Ok(());
        }
        let full = |cause: &str| ApiError::Unavailable {
            detail: "Too much is being sent at once; try again",
            cause: format!("no memory for another body: {cause}"),
        };
        let asked = u32::try_from(more).map_err(|e| full(&e.to_string()))?;
        let granted = tokio::time::timeout(WAIT_WITHIN, self.free.acquire_many(asked)).await;
        let granted = granted.map_err(|_| full("none was given back in time"))?;
        let granted = granted.map_err(|e| full(&e.to_string()))?;
        held.steps += more;
        match &mut held.permit {
            Some(permit) => permit.merge(granted),
            None => held.permit = Some(granted),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_bounded_and_given_back() {
        let memory = BodyMemory::new(10 * STEP);
        let (mut first, mut second) = (Held::default(), Held::default());
        for bytes in [1, 2, STEP, STEP + 1, 6 * STEP] {
            memory.hold(&mut first, bytes).await.unwrap();
        }
        assert_eq!((first.steps, memory.free.available_permits()), (6, 4));
        memory.hold(&mut second, 4 * STEP).await.unwrap();
        let refused = memory.hold(&mut second, 4 * STEP + 1).await;
        assert!(matches!(refused, Err(ApiError::Unavailable { .. })), "{refused:?}");
        memory.hold(&mut second, 4 * STEP).await.unwrap();
        let waiting = memory.hold(&mut second, 5 * STEP);
        let freed = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        };
        tokio::join!(waiting, freed).0.unwrap();
        drop(second);
        assert_eq!(memory.free.available_permits(), 10);
    }
}
