//! Events in at one end, messages out at the other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, interval};

use crate::{http::Connection, installation::Installation, measure::ms, payload};

/// What a load showed.
pub struct Seen {
    /// From the answer to the producer to the message at the consumer, in milliseconds.
    pub latencies: Vec<f64>,
    /// How long it all took.
    pub took: Duration,
}

/// One producer posts events, one each `every` or as fast as it can, and one consumer takes them by waiting `next` and
/// acknowledgement. Its queue must be empty.
pub async fn post_and_consume(
    installation: &Installation,
    name: &str,
    topic: &str,
    count: usize,
    every: Option<Duration>,
) -> Result<Seen> {
    let (mut producer, mut consumer) = (installation.producer().await?, installation.consumer(name).await?);
    let began = Instant::now();
    let post = async {
        let mut accepted = Vec::with_capacity(count);
        let mut tick = every.map(interval);
        for number in 0..count {
            if let Some(tick) = &mut tick {
                tick.tick().await;
            }
            let event = payload::event(topic, number, payload::SIZE);
            producer.expect(202, "POST", "/v1/messages", &event).await?;
            accepted.push(Instant::now());
        }
        Ok::<_, anyhow::Error>(accepted)
    };
    let consume = async {
        let mut delivered = Vec::with_capacity(count);
        for number in 0..count {
            let message = next(&mut consumer, name, 30).await?.context("an event did not arrive")?;
            delivered.push(Instant::now());
            let arrived = payload::number(&message);
            ensure!(arrived == Some(number), "{arrived:?} came instead of {number}");
            acknowledge(&mut consumer, name, &message).await?;
        }
        Ok::<_, anyhow::Error>(delivered)
    };
    let (accepted, delivered) = tokio::try_join!(post, consume)?;
    let took = began.elapsed();
    // What was delivered before the producer had its answer waited for nothing.
    let latencies =
        accepted.iter().zip(delivered).map(|(a, d)| ms(d.saturating_duration_since(*a))).collect();
    Ok(Seen { latencies, took })
}

/// Takes messages by single `next` and acknowledgement.
pub async fn drain(consumer: &mut Connection, name: &str, count: usize) -> Result<()> {
    for _ in 0..count {
        let message = next(consumer, name, 5).await?.context("the queue is empty too early")?;
        acknowledge(consumer, name, &message).await?;
    }
    Ok(())
}

/// The next message, waiting for it up to some seconds.
pub async fn next(consumer: &mut Connection, name: &str, seconds: u32) -> Result<Option<Vec<u8>>> {
    let path = format!("/v1/subscriptions/{name}/messages/next?timeout={seconds}");
    let message = consumer.expect(200, "GET", &path, &[]).await?;
    Ok((message != b"null").then_some(message))
}

/// Acknowledges a message.
pub async fn acknowledge(consumer: &mut Connection, name: &str, message: &[u8]) -> Result<()> {
    let sequence = payload::last_sequence(message).context("a message without sequence_number")?;
    let path = format!("/v1/subscriptions/{name}/messages/{sequence}/status");
    consumer.expect(200, "PATCH", &path, br#"{"status":"ok"}"#).await.map(drop)
}
