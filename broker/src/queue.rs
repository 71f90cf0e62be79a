//! The queue of one incarnation of a subscription: a stream with four subjects, and more where it is recorded what the
//! consumer is told of.

use std::time::Duration;

use bytes::Bytes;
use model::{
    Incarnation, Subscription, SubscriptionName,
    checkpoint::Checkpoint,
    fence::{Fence, FenceState},
    limits::QueueUse,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Broker, Error, Revised,
    backoff::Backoff,
    names::{self, Part},
    wire::{Got, Outgoing, Refusal, Wire, code, headers},
};

/// Numbers left free above the last one that a removed queue is known to have used: what is written between the
/// look and the deletion must not be used again either.
const NUMBERS_LEFT_FREE: u64 = 1_000_000;

/// First number that a stream may use after one that had this last.
pub(crate) fn first_free(last: u64) -> u64 {
    last.saturating_add(NUMBERS_LEFT_FREE)
}

/// How long a stream that was just made may be without a leader.
const MADE_WITHIN: Duration = Duration::from_secs(2);

/// The queue of one incarnation of a subscription.
#[derive(Clone, Debug)]
pub struct Queue {
    pub(crate) broker: Broker,
    pub(crate) name: SubscriptionName,
    pub(crate) incarnation: Incarnation,
    pub(crate) stream: String,
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Live messages.
    pub main: u64,
    /// Messages of the prefill.
    pub prefill: u64,
    /// Bytes of all of it, fence and checkpoint included.
    pub bytes: u64,
    /// Most messages of each kind that the stream takes; `None`: any number.
    pub limit: Option<u64>,
}

impl From<QueueCounts> for QueueUse {
    fn from(QueueCounts { main, prefill, bytes, limit }: QueueCounts) -> Self {
        Self { live: main, prefill, bytes, stream_limit: limit }
    }
}

impl Queue {
    pub(crate) fn new(broker: Broker, name: SubscriptionName, incarnation: Incarnation) -> Self {
        let stream = names::queue_stream(&name, incarnation);
        Self { broker, name, incarnation, stream }
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.broker.wire
    }

    pub(crate) fn subject(&self, part: Part) -> String {
        part.subject(&self.name)
    }

    /// Makes the stream, the first fence and the first checkpoint. What exists of this incarnation is kept; a stream
    /// that another incarnation left behind is removed, but only while the entry still carries ours.
    ///
    /// # Errors
    /// NATS away, or the name belongs to another incarnation meanwhile; calling it again is safe.
    pub async fn create(&self, subscription: &Subscription) -> Result<(), Error> {
        let known = subscription.track.then(|| names::known_subjects(&self.name));
        let subjects = Part::ALL.map(|part| self.subject(part)).into_iter().chain(known).collect();
        let config = self.broker.queue_config(self.stream.clone(), subjects, subscription.first_sequence);
        match self.broker.create_stream(&config).await {
            Err(Error::Refused { code: code::SUBJECT_OVERLAP, .. }) => {
                self.remove_left_over().await?;
                self.broker.create_stream(&config).await?;
            }
            other => other?,
        }
        let fence = Fence::taken(self.incarnation, 0, 0, "registration".to_owned());
        let checkpoint = Checkpoint {
            incarnation: self.incarnation,
            incoming_seq: 0,
            epoch: subscription.epoch(),
            realms_topics: Vec::new(),
            active: false,
        };
        // They have nothing to do with each other, so neither waits for the other's disk.
        let (fence, checkpoint) =
            (self.write_first(Part::Fence, &fence), self.write_first(Part::Copied, &checkpoint));
        futures::try_join!(fence, checkpoint).map(|_| ())
    }

    /// Writes the first message of a subject that always holds one. "Not there yet" is the number 0, which can't come
    /// again within this stream: fence and checkpoint are never purged.
    async fn write_first(&self, part: Part, value: &impl Serialize) -> Result<(), Error> {
        let action = format!("making the queue of {}", self.name);
        let mut tries = Backoff::within(MADE_WITHIN);
        loop {
            match self.write_state(part, value, 0).await {
                Ok(_) | Err(Refusal::WrongLast(_)) => return Ok(()),
                // In a cluster a stream that was just made has no leader yet.
                Err(refusal @ (Refusal::Nobody | Refusal::NotWritten(_))) => {
                    tries.again(refusal.into_error(&action)).await?;
                }
                Err(refusal) => return Err(refusal.into_error(&action)),
            }
        }
    }

    /// Writes fence or checkpoint on the condition that the last one is still `expected`.
    pub(crate) async fn write_state(
        &self,
        part: Part,
        value: &impl Serialize,
        expected: u64,
    ) -> Result<u64, Refusal> {
        let message = self.state_message(part, value, expected).map_err(Refusal::Other)?;
        self.wire().publish(message).await
    }

    pub(crate) fn state_message(
        &self,
        part: Part,
        value: &impl Serialize,
        expected: u64,
    ) -> Result<Outgoing, Error> {
        let payload = serde_json::to_vec(value).map_err(|e| Error::corrupt(self.subject(part), e))?;
        Ok(Outgoing {
            subject: self.subject(part),
            headers: headers([
                (names::EXPECTED_STREAM, self.stream.clone()),
                (names::EXPECTED_LAST_SUBJECT, expected.to_string()),
                (names::ROLLUP, "sub".to_owned()),
            ]),
            payload: Bytes::from(payload),
        })
    }

    /// Is the queue complete: stream, fence and checkpoint?
    ///
    /// # Errors
    /// NATS away.
    pub async fn exists(&self) -> Result<bool, Error> {
        Ok(self.fence().await?.is_some() && self.checkpoint().await?.is_some())
    }

    /// The fence, from the leader; `None` if the stream or the fence is not there.
    ///
    /// # Errors
    /// NATS away, or the value can't be read.
    pub async fn fence(&self) -> Result<Option<Revised<Fence>>, Error> {
        self.read_state(Part::Fence).await
    }

    /// The checkpoint, from the leader; `None` if the stream or the checkpoint is not there.
    ///
    /// # Errors
    /// NATS away, or the value can't be read.
    pub async fn checkpoint(&self) -> Result<Option<Revised<Checkpoint>>, Error> {
        self.read_state(Part::Copied).await
    }

    async fn read_state<T: DeserializeOwned>(&self, part: Part) -> Result<Option<Revised<T>>, Error> {
        let subject = self.subject(part);
        match self.wire().last(&self.stream, &subject).await? {
            Got::Message(message) => serde_json::from_slice(&message.payload)
                .map(|value| Some(Revised { value, revision: message.sequence }))
                .map_err(|e| Error::corrupt(format!("{subject} of {}", self.stream), e)),
            Got::Nothing | Got::NoStream => Ok(None),
        }
    }

    /// Approves an attempt that is held: from here on it is sealed. False: it is not held, so there is nothing to approve,
    /// or another attempt has the queue. Of one that was approved before it is true again.
    ///
    /// # Errors
    /// NATS away: the outcome is unknown; calling it again is safe.
    pub async fn approve_fence(&self, attempt: u32) -> Result<bool, Error> {
        loop {
            let Some(found) = self.fence().await? else { return Ok(false) };
            if found.value.seals(self.incarnation, attempt) && found.value.approved {
                return Ok(true);
            }
            if !found.value.holds(self.incarnation, attempt) {
                return Ok(false);
            }
            // Exactly what was read: whoever approves has seen these numbers.
            let sealed = Fence { state: FenceState::Sealed, approved: true, ..found.value };
            match self.write_state(Part::Fence, &sealed, found.revision).await {
                Ok(_) => return Ok(true),
                Err(Refusal::WrongLast(_)) => {}
                Err(refusal) => return Err(refusal.into_error("approving a prefill")),
            }
        }
    }

    /// Cancels an attempt by taking its fence. False: it is sealed already, or another attempt has the queue.
    ///
    /// # Errors
    /// NATS away: the outcome is unknown; calling it again is safe.
    pub async fn cancel_fence(&self, attempt: u32) -> Result<bool, Error> {
        loop {
            let Some(found) = self.fence().await? else { return Ok(false) };
            if found.value.attempt > attempt || found.value.seals(self.incarnation, attempt) {
                return Ok(false);
            }
            if found.value.attempt == attempt && found.value.state == FenceState::Cancelled {
                return Ok(true);
            }
            let Fence { incarnation, round, holder, .. } = found.value;
            let taken = Fence::taken(incarnation, round, attempt, holder);
            let cancelled = Fence { state: FenceState::Cancelled, ..taken };
            match self.write_state(Part::Fence, &cancelled, found.revision).await {
                Ok(_) => return Ok(true),
                Err(Refusal::WrongLast(_)) => {}
                Err(refusal) => return Err(refusal.into_error("cancelling a prefill")),
            }
        }
    }

    /// How many messages wait.
    ///
    /// # Errors
    /// NATS away.
    pub async fn pending(&self) -> Result<Option<QueueCounts>, Error> {
        #[derive(Serialize)]
        struct Ask {
            subjects_filter: String,
        }
        #[derive(Deserialize)]
        struct Info {
            state: State,
            config: Config,
        }
        #[derive(Deserialize)]
        struct State {
            bytes: u64,
            #[serde(default)]
            subjects: std::collections::HashMap<String, u64>,
        }
        #[derive(Deserialize)]
        struct Config {
            max_msgs_per_subject: i64,
        }
        let ask = Ask { subjects_filter: format!("{}.*", self.name) };
        let action = format!("counting the queue of {}", self.name);
        match self.wire().api::<Info>(&action, &format!("STREAM.INFO.{}", self.stream), &ask).await {
            Ok(Info { state, config }) => {
                let of = |part| state.subjects.get(&self.subject(part)).copied().unwrap_or(0);
                let limit = u64::try_from(config.max_msgs_per_subject).ok().filter(|limit| *limit > 0);
                let (main, prefill) = (of(Part::Main), of(Part::Prefill));
                Ok(Some(QueueCounts { main, prefill, bytes: state.bytes, limit }))
            }
            Err(Error::Refused { code: code::STREAM_NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// First number that another stream of this name may use; `None` if the stream is not there.
    pub(crate) async fn next_sequence(&self) -> Result<Option<u64>, Error> {
        let state = self.broker.stream_state(&self.stream).await?;
        Ok(state.map(|state| first_free(state.last_seq)))
    }

    /// Deletes the stream. False: it was not there.
    pub(crate) async fn delete(&self) -> Result<bool, Error> {
        self.broker.delete_stream(&self.stream).await
    }

    /// Removes streams of other incarnations that hold our subjects.
    async fn remove_left_over(&self) -> Result<(), Error> {
        let action = format!("looking for left-overs of {}", self.name);
        for stream in self.broker.streams_of(&self.name).await? {
            if stream == self.stream {
                continue;
            }
            let entry = self.broker.registry().subscription(&self.name).await?;
            if entry.is_none_or(|e| e.value.incarnation != self.incarnation) {
                return Err(Error::unavailable(action, "another registration has taken the name meanwhile"));
            }
            tracing::warn!(subscription = %self.name, stream, "removing what a former incarnation left behind");
            self.broker.delete_stream(&stream).await?;
        }
        Ok(())
    }
}

/// What `STREAM.NAMES` answers.
#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    total: usize,
    streams: Option<Vec<String>>,
}

impl Broker {
    /// Is there a queue of this name, of whatever incarnation?
    ///
    /// # Errors
    /// NATS away.
    pub async fn has_queue_of(&self, name: &SubscriptionName) -> Result<bool, Error> {
        Ok(!self.streams_of(name).await?.is_empty())
    }

    /// The streams of all incarnations of a name that are there.
    pub(crate) async fn streams_of(&self, name: &SubscriptionName) -> Result<Vec<String>, Error> {
        #[derive(Serialize)]
        struct Ask {
            subject: String,
        }
        let ask = Ask { subject: Part::Main.subject(name) };
        let action = format!("looking for the streams of {name}");
        let found: Names = self.wire.api(&action, "STREAM.NAMES", &ask).await?;
        let prefix = format!("stream:{name}:");
        let ours = found.streams.unwrap_or_default().into_iter().filter(|s| s.starts_with(&prefix));
        Ok(ours.collect())
    }

    /// The names of all streams.
    pub(crate) async fn stream_names(&self) -> Result<Vec<String>, Error> {
        #[derive(Serialize)]
        struct Ask {
            offset: usize,
        }
        let mut names = Vec::new();
        loop {
            let ask = Ask { offset: names.len() };
            let Names { total, streams } = self.wire.api("listing the streams", "STREAM.NAMES", &ask).await?;
            let page = streams.unwrap_or_default();
            if page.is_empty() {
                return Ok(names);
            }
            names.extend(page);
            if names.len() >= total {
                return Ok(names);
            }
        }
    }
}
