//! What the same work takes in JetStream alone: straight on async-nats, one connection, nothing checked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::{
    Client, HeaderMap,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::{Value, json};

/// A connection to JetStream.
#[derive(Clone)]
pub struct Raw {
    client: Client,
    js: jetstream::Context,
}

impl Raw {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self> {
        let client = async_nats::connect(url).await.context("connecting to nats-server")?;
        let js = jetstream::new(client.clone());
        Ok(Self { client, js })
    }

    /// Makes a stream with the settings of a queue.
    pub async fn create_stream(&self, name: &str, subjects: &[String]) -> Result<()> {
        let config = Config {
            name: name.to_owned(),
            subjects: subjects.to_vec(),
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            max_messages: -1,
            max_bytes: -1,
            max_messages_per_subject: 10_000_000,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            allow_rollup: true,
            allow_atomic_publish: true,
            ..Config::default()
        };
        self.api(&format!("STREAM.CREATE.{name}"), &config).await.map(drop)
    }

    /// Deletes a stream.
    pub async fn delete_stream(&self, name: &str) -> Result<()> {
        self.js.delete_stream(name).await?;
        Ok(())
    }

    /// Makes a bucket.
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let config = jetstream::kv::Config {
            bucket: bucket.to_owned(),
            history: 1,
            storage: StorageType::File,
            ..jetstream::kv::Config::default()
        };
        self.js.create_key_value(config).await?;
        Ok(())
    }

    /// The stream that holds a subject.
    pub async fn stream_of(&self, subject: &str) -> Result<String> {
        let found = self.api("STREAM.NAMES", &json!({"subject": subject})).await?;
        found["streams"][0].as_str().map(str::to_owned).with_context(|| format!("no stream has {subject}"))
    }

    /// Takes the first messages of a subject, one after the other: get the next, delete it.
    pub async fn get_and_remove(&self, stream: &str, subject: &str, count: usize) -> Result<()> {
        let handle = self.js.get_stream_no_info(stream).await?;
        for _ in 0..count {
            let message = handle.raw_message_builder().next_by_subject(subject).sequence(1).send().await?;
            let ask = json!({"seq": message.sequence, "no_erase": true});
            self.api(&format!("STREAM.MSG.DELETE.{stream}"), &ask).await?;
        }
        Ok(())
    }

    /// Reads the first messages of a subject through a consumer that acknowledges nothing, 500 at a time, and purges up
    /// to each `purge_each`th.
    pub async fn read_and_purge(
        &self,
        stream: &str,
        subject: &str,
        count: usize,
        purge_each: usize,
    ) -> Result<()> {
        let handle = self.js.get_stream_no_info(stream).await?;
        let consumer = self.consumer(stream, subject, DeliverPolicy::All).await?;
        let mut messages = consumer.stream().max_messages_per_batch(500).messages().await?;
        for number in 1..=count {
            let message = messages.try_next().await?.context("the consumer has ended")?;
            if number % purge_each == 0 || number == count {
                let sequence = message.info().map_err(|e| anyhow::anyhow!("{e}"))?.stream_sequence;
                handle.purge().filter(subject).sequence(sequence + 1).await?;
            }
        }
        Ok(())
    }

    /// A consumer that acknowledges nothing.
    pub async fn consumer(
        &self,
        stream: &str,
        subject: &str,
        deliver_policy: DeliverPolicy,
    ) -> Result<PullConsumer> {
        let handle = self.js.get_stream_no_info(stream).await?;
        let config = pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            filter_subject: subject.to_owned(),
            inactive_threshold: Duration::from_secs(60),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        Ok(handle.create_consumer(config).await?)
    }

    /// Publishes and waits for the acknowledgement.
    pub async fn publish(&self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<()> {
        let answer = self.client.request_with_headers(subject.to_owned(), headers, payload).await?;
        acknowledged(&answer.payload)
    }

    /// Publishes an atomic batch (ADR-50): what a copy consists of, a checkpoint and then messages of `payload`.
    pub async fn publish_copies(&self, name: &str, payload: &Bytes, count: usize) -> Result<()> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        for index in 0..=count {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string().as_str());
            headers.insert("Nats-Expected-Stream", name);
            if index == 0 {
                headers.insert("Nats-Rollup", "sub");
                let checkpoint = Bytes::from_static(&[b'x'; 120]);
                let subject = format!("{name}.copied");
                let opened = self.client.request_with_headers(subject, headers, checkpoint).await?;
                ensure!(opened.payload.is_empty(), "{}", String::from_utf8_lossy(&opened.payload));
                continue;
            }
            // As long as the headers of a copy.
            headers.insert("Raw-Incarnation-000", id.as_str());
            headers.insert("Raw-Round-00000", "0");
            headers.insert("Raw-Incoming-Sequence", index.to_string().as_str());
            let subject = format!("{name}.main");
            if index == count {
                headers.insert("Nats-Batch-Commit", "1");
                self.publish(&subject, headers, payload.clone()).await?;
            } else {
                self.client.publish_with_headers(subject, headers, payload.clone()).await?;
            }
        }
        Ok(())
    }

    async fn api(&self, subject: &str, body: &impl serde::Serialize) -> Result<Value> {
        let body = Bytes::from(serde_json::to_vec(body)?);
        let answer = self.client.request(format!("$JS.API.{subject}"), body).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(answer["error"].is_null(), "{subject}: {}", answer["error"]);
        Ok(answer)
    }
}

fn acknowledged(answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["error"].is_null(), "{}", answer["error"]);
    Ok(())
}
