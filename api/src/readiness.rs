//! Whether NATS has what we need, looked at once a second at most: anybody may ask, and a look is several requests.

use std::time::Duration;

use broker::Broker;
use tokio::{sync::Mutex, time::Instant};

/// How long an answer counts.
const COUNTS_FOR: Duration = Duration::from_secs(1);
/// How long a probe waits for NATS: shorter than the second that Kubernetes waits for a probe.
const LOOK_WITHIN: Duration = Duration::from_millis(800);

/// The last look. Who asks while somebody looks waits for what that one sees.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), &'static str>)>>);

impl Readiness {
    /// Why not, for people.
    pub(crate) async fn look(&self, broker: &Broker) -> Result<(), &'static str> {
        if !broker.is_connected() {
            return Err("NATS is away");
        }
        let mut last = self.0.lock().await;
        if let Some((_, answer)) = last.filter(|(at, _)| at.elapsed() < COUNTS_FOR) {
            return answer;
        }
        let answer = match tokio::time::timeout(LOOK_WITHIN, broker.await_layout()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready");
                Err("NATS does not have our streams")
            }
            Err(_) => Err("NATS does not answer"),
        };
        *last = Some((Instant::now(), answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::testing::{NatsServer, messages_sent};

    /// Anybody may ask, without a password.
    #[tokio::test]
    async fn however_often_it_is_asked_nats_is_asked_once_a_second() {
        let server = NatsServer::start().await;
        let broker = server.broker().await;
        let readiness = Readiness::default();
        let began = Instant::now();
        assert_eq!(readiness.look(&broker).await, Ok(()));
        let (asked_after, first) = (Instant::now(), messages_sent(&broker));
        while asked_after.elapsed() < COUNTS_FOR / 2 {
            assert_eq!(readiness.look(&broker).await, Ok(()));
            tokio::task::yield_now().await;
        }
        // Unless this took so long that another look was due.
        assert!(messages_sent(&broker) == first || began.elapsed() >= COUNTS_FOR);
        while messages_sent(&broker) == first {
            assert_eq!(readiness.look(&broker).await, Ok(()));
            tokio::task::yield_now().await;
        }
        assert!(began.elapsed() >= COUNTS_FOR);
    }
}
