//! Trying again, with pauses that grow, until a deadline.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// The pauses between the tries of one thing.
#[derive(Debug)]
pub(crate) struct Backoff {
    deadline: Instant,
    pause: Duration,
}

impl Backoff {
    /// First pause, which doubles, and the longest.
    const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

    pub(crate) fn within(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, pause: Self::PAUSES.0 }
    }

    /// Pauses before the next try. The error, if there is no time for one.
    pub(crate) async fn again(&mut self, error: Error) -> Result<(), Error> {
        if Instant::now() >= self.deadline {
            return Err(error);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Self::PAUSES.1);
        Ok(())
    }

    /// Reads until there is an answer.
    pub(crate) async fn read<T, F>(&mut self, read: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        loop {
            match read().await {
                Err(error) if error.is_transient() => self.again(error).await?,
                answer => return answer,
            }
        }
    }
}
