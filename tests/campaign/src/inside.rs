//! Looks into NATS, past the product: numbers that were used, and what is left at the end.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use async_nats::jetstream::{self, stream::Info};
use broker::{Broker, NatsConfig};
use futures::TryStreamExt;

/// How long one look may take: the server may be stopped.
const LOOK: Duration = Duration::from_secs(2);
/// How long it may take at the end until nothing is left: some of it is removed in passing.
const CLEAN_WITHIN: Duration = Duration::from_secs(20);

/// The server.
#[derive(Clone, Debug)]
pub struct Inside {
    url: String,
}

/// Numbers that a consumer can only guess.
#[derive(Clone, Copy, Debug)]
pub struct Forbidden {
    /// Never messages for consumers.
    pub state: [u64; 2],
    /// The first live one.
    pub live: Option<u64>,
}

impl Inside {
    /// At this address.
    pub fn new(url: String) -> Self {
        Self { url }
    }

    /// The last number of a name's queue; `None` if the server does not say so in time.
    pub async fn last_number(&self, name: &str) -> Option<u64> {
        let streams = tokio::time::timeout(LOOK, self.streams()).await.ok()?.ok()?;
        let own = format!("stream:{name}:");
        let of_name = streams.into_iter().filter(|info| info.config.name.starts_with(&own));
        of_name.map(|info| info.state.last_sequence).max()
    }

    /// Numbers that a consumer may not acknowledge: of fence and checkpoint, and of the first live message.
    pub async fn forbidden(&self, name: &str) -> Option<Forbidden> {
        tokio::time::timeout(LOOK, self.forbidden_of(name)).await.ok()?.ok()
    }

    async fn forbidden_of(&self, name: &str) -> anyhow::Result<Forbidden> {
        let own = format!("stream:{name}:");
        let streams = self.streams().await?;
        let queue = streams.iter().find(|info| info.config.name.starts_with(&own)).context("no queue")?;
        let client = async_nats::connect(&self.url).await?;
        let stream = jetstream::new(client).get_stream(&queue.config.name).await?;
        let fence = stream.get_last_raw_message_by_subject(&format!("{name}.fence")).await?.sequence;
        let copied = stream.get_last_raw_message_by_subject(&format!("{name}.copied")).await?.sequence;
        let live = stream.get_first_raw_message_by_subject(format!("{name}.main"), 1).await.ok();
        Ok(Forbidden { state: [fence, copied], live: live.map(|message| message.sequence) })
    }

    async fn streams(&self) -> anyhow::Result<Vec<Info>> {
        let client = async_nats::connect(&self.url).await?;
        Ok(jetstream::new(client).streams().try_collect().await?)
    }

    /// What is in NATS although nobody needs it any more, once all consumers have read everything. `there`: those that
    /// are registered; `all`: those that ever were.
    pub async fn left(&self, all: &[String], there: &[String]) -> Vec<String> {
        let end = tokio::time::Instant::now() + CLEAN_WITHIN;
        loop {
            let found = match tokio::time::timeout(3 * LOOK, self.look(all, there)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => vec![format!("NATS can't be looked at: {error:#}")],
                Err(_) => vec!["NATS can't be looked at in time".to_owned()],
            };
            if found.is_empty() || tokio::time::Instant::now() > end {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn look(&self, all: &[String], there: &[String]) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        let client = async_nats::connect(&self.url).await?;
        let context = jetstream::new(client);
        let mut queues: BTreeMap<String, usize> = there.iter().map(|name| (name.clone(), 0)).collect();
        for info in context.streams().try_collect::<Vec<Info>>().await? {
            let name = info.config.name;
            if name == "tasks" && info.state.messages > 0 {
                found.push(format!("{} tasks", info.state.messages));
            }
            let Some((queue, _)) = name.strip_prefix("stream:").and_then(|rest| rest.rsplit_once(':')) else {
                continue;
            };
            match queues.get_mut(queue) {
                Some(count) => *count += 1,
                None => found.push(format!("{name}, of nobody")),
            }
            let stream = context.get_stream(&name).await?;
            let subjects: BTreeMap<String, usize> =
                stream.info_with_subjects(">").await?.try_collect().await?;
            let count = |part: &str| subjects.get(&format!("{queue}.{part}")).copied().unwrap_or(0);
            for (part, expected) in [("main", 0), ("prefill", 0), ("fence", 1), ("copied", 1)] {
                if count(part) != expected {
                    found.push(format!("{} of {part} in {name} instead of {expected}", count(part)));
                }
            }
        }
        let odd = queues.iter().filter(|(_, count)| **count != 1);
        found.extend(odd.map(|(name, count)| format!("{count} queues of {name}")));
        let broker = Broker::connect(&NatsConfig::new(&self.url, "campaign")).await?;
        for name in all.iter().filter(|name| !there.contains(name)) {
            let name = name.parse().map_err(anyhow::Error::msg)?;
            if broker.registry().subscription(&name).await?.is_some() {
                found.push(format!("the entry of {name}, which is removed"));
            }
            if broker.credentials().get(&name).await?.is_some() {
                found.push(format!("credentials of {name}, which is removed"));
            }
            if broker.progress().get(&name).await?.is_some() {
                found.push(format!("progress of {name}, which is removed"));
            }
        }
        broker.close().await;
        Ok(found)
    }
}
