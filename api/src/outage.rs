//! NATS is away for a moment, as in a roll-out: consumers that end at a 503 are held instead.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks again until NATS has answered, the time has passed, or the server stops.
///
/// # Errors
/// Those of the last attempt.
pub(crate) async fn outlast<T, Asking: Future<Output = Result<T, ApiError>>>(
    until: Instant,
    stopping: &CancellationToken,
    mut ask: impl FnMut() -> Asking,
) -> Result<T, ApiError> {
    loop {
        match ask().await {
            Err(ApiError::Away { .. }) if Instant::now() < until && !stopping.is_cancelled() => {
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = stopping.cancelled() => {}
                }
            }
            answered => return answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away<T>() -> Result<T, ApiError> {
        Err(ApiError::Away { cause: String::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_outlasted_until_its_end_the_bound_or_the_stop_of_the_server() {
        let stopping = CancellationToken::new();
        let began = Instant::now();
        let (mut asked, until) = (0, began + Duration::from_secs(30));
        let answered = outlast(until, &stopping, || {
            asked += 1;
            std::future::ready(if asked < 3 { away() } else { Ok(asked) })
        });
        assert_eq!(answered.await.ok(), Some(3));
        assert!(outlast(until, &stopping, || std::future::ready(away::<()>())).await.is_err());
        assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
        stopping.cancel();
        let (mut asked, until) = (0, Instant::now() + Duration::from_secs(30));
        let stopped = outlast(until, &stopping, || {
            asked += 1;
            std::future::ready(away::<()>())
        });
        assert!(stopped.await.is_err());
        assert_eq!(asked, 1, "who stops answers at once");
        let other = outlast(until, &stopping, || std::future::ready(Err::<(), _>(ApiError::Broken))).await;
        assert!(matches!(other, Err(ApiError::Broken)));
    }
}
