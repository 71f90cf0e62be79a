//! Events in at one end, messages out at the other.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use serde_json::json;
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

/// Events that several producers post together.
pub struct Posts<'a> {
    topic: &'a str,
    most: Cell<usize>,
    begun: Cell<usize>,
    accepted: Cell<usize>,
    refused: Cell<usize>,
}

impl<'a> Posts<'a> {
    /// At most so many.
    pub fn new(topic: &'a str, most: usize) -> Self {
        Self {
            topic,
            most: Cell::new(most),
            begun: Cell::new(0),
            accepted: Cell::new(0),
            refused: Cell::new(0),
        }
    }

    /// How many were accepted until now.
    pub fn accepted(&self) -> usize {
        self.accepted.get()
    }

    /// How many were refused for the time being (503), and posted again. Whether they are in the log is not known.
    pub fn refused(&self) -> usize {
        self.refused.get()
    }

    /// No more are begun.
    pub fn stop(&self) {
        self.most.set(0);
    }

    /// Posts them over so many connections, each one event each `every` or as fast as it can.
    pub async fn run(
        &self,
        installation: &Installation,
        clients: usize,
        every: Option<Duration>,
    ) -> Result<()> {
        try_join_all((0..clients).map(async |_| {
            let mut producer = installation.producer().await?;
            let mut tick = every.map(interval);
            loop {
                if let Some(tick) = &mut tick {
                    tick.tick().await;
                }
                let number = self.begun.get();
                if number >= self.most.get() {
                    return Ok::<_, anyhow::Error>(());
                }
                self.begun.set(number + 1);
                let event = payload::event(self.topic, number, payload::SIZE);
                let answer = producer.send("POST", "/v1/messages", &event).await?;
                match answer.status {
                    202 => self.accepted.set(self.accepted.get() + 1),
                    503 => {
                        self.refused.set(self.refused.get() + 1);
                        self.begun.set(self.begun.get() - 1);
                    }
                    other => bail!("an event was answered with {other}"),
                }
            }
        }))
        .await
        .map(drop)
    }
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

/// Acknowledges all up to a message.
pub async fn acknowledge_through(consumer: &mut Connection, name: &str, through: u64) -> Result<()> {
    let status = try_acknowledge_through(consumer, name, through).await?;
    ensure!(status < 300, "an acknowledgement of {name} was answered with {status}");
    Ok(())
}

/// The same; answers the status.
pub async fn try_acknowledge_through(consumer: &mut Connection, name: &str, through: u64) -> Result<u16> {
    let path = format!("/v1/subscriptions/{name}/messages/acknowledgements");
    let answer = consumer.send("POST", &path, json!({ "through": through }).to_string().as_bytes()).await?;
    Ok(answer.status)
}
