//! Reading many messages of a subject in order: `docs/decisions/0004-reading-many.md`.

use async_nats::{StatusCode, jetstream::message::StreamMessage};
use bytes::Bytes;
use futures::{StreamExt, future::try_join_all};
use serde::Serialize;

use crate::{
    Error,
    wire::{Got, TIMEOUT, Wire, header},
};

/// How much is read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// At most so many messages.
    pub messages: usize,
    /// No further message beyond so many bytes; the one that passes the limit is read.
    pub bytes: usize,
}

impl Limits {
    pub(crate) const ONE: Self = Self { messages: 1, bytes: usize::MAX };

    /// What is left of the limits after some messages; `None`: nothing.
    pub(crate) fn after(self, messages: &[StreamMessage]) -> Option<Self> {
        let read: usize = messages.iter().map(|m| m.payload.len()).sum();
        let left = Self {
            messages: self.messages.saturating_sub(messages.len()),
            bytes: self.bytes.saturating_sub(read),
        };
        (left.messages > 0 && left.bytes > 0).then_some(left)
    }
}

/// Messages in order, without a gap.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub messages: Vec<StreamMessage>,
    /// False: when they were read these were the last of their subject.
    pub more: bool,
}

/// Requests that the leader is asked at once.
const REQUESTS_AT_ONCE: usize = 32;
/// Number of the message before this one in a batch, 0 for the first: a gap shows.
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
const PENDING: &str = "Nats-Num-Pending";
/// Status of the message that ends an answer ("EOB").
const END: u16 = 204;

impl Wire {
    /// The messages of a subject at or above a number, as its leader has them. `None`: no such stream.
    pub(crate) async fn many(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        limits: Limits,
    ) -> Result<Option<Page>, Error> {
        match self.many_direct(stream, subject, from, limits).await? {
            Some(page) => Ok(Some(page)),
            None => self.many_from_leader(stream, subject, from, limits).await,
        }
    }

    /// One request that is answered by many messages. `None`: the stream does not offer it, because a replica that
    /// lags behind could answer, or it does not exist.
    async fn many_direct(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
        limits: Limits,
    ) -> Result<Option<Page>, Error> {
        #[derive(Serialize)]
        struct Ask<'a> {
            seq: u64,
            next_by_subj: &'a str,
            batch: usize,
            #[serde(skip_serializing_if = "Option::is_none")]
            max_bytes: Option<usize>,
        }
        let action = format!("reading from {stream}");
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| Error::unavailable(action.clone(), error);
        let ask = Ask {
            seq: from,
            next_by_subj: subject,
            batch: limits.messages,
            max_bytes: (limits.bytes < usize::MAX).then_some(limits.bytes),
        };
        let ask = serde_json::to_vec(&ask).map_err(|e| failed(e.into()))?;
        let inbox = self.client.new_inbox();
        let mut connection = self.connection();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|e| failed(e.into()))?;
        let asked = format!("$JS.API.DIRECT.GET.{stream}");
        self.client.publish_with_reply(asked, inbox, Bytes::from(ask)).await.map_err(|e| failed(e.into()))?;
        let mut page = Page::default();
        let mut before = 0;
        loop {
            let answer = match tokio::time::timeout(TIMEOUT, connection.lasts_for(answers.next())).await {
                Ok(Ok(Some(answer))) => answer,
                // What came is in order and without a gap.
                _ if !page.messages.is_empty() => return Ok(Some(Page { more: true, ..page })),
                _ => return Err(failed("no answer".into())),
            };
            match answer.status {
                None | Some(StatusCode::OK) => {}
                Some(StatusCode::NO_RESPONDERS) => return Ok(None),
                Some(StatusCode::NOT_FOUND) => return Ok(Some(page)),
                // The end of the answer.
                Some(status) if status.as_u16() == END => {
                    let pending: Option<u64> = answer.headers.as_ref().and_then(|h| header(h, PENDING));
                    return Ok(Some(Page { more: pending != Some(0), ..page }));
                }
                Some(status) => {
                    return Err(failed(
                        format!("{status} {}", answer.description.unwrap_or_default()).into(),
                    ));
                }
            }
            let message = StreamMessage::try_from(answer).map_err(|e| failed(e.into()))?;
            // A connection that breaks off in the middle may lose some of the answers, and get later ones.
            if header(&message.headers, LAST_SEQUENCE).unwrap_or(0) != before {
                return match page.messages.is_empty() {
                    true => Err(failed("the beginning of the answer was lost".into())),
                    false => Ok(Some(Page { more: true, ..page })),
                };
            }
            before = message.sequence;
            page.messages.push(message);
        }
    }

    /// Many requests at once, each for the first message at or above a number: whatever gaps there are, the answers to
    /// n, n + 1, n + 2 … leave none out. Where numbers are sparse, answers are the same, so fewer are asked for.
    pub(crate) async fn many_from_leader(
        &self,
        stream: &str,
        subject: &str,
        mut from: u64,
        limits: Limits,
    ) -> Result<Option<Page>, Error> {
        let mut page = Page { messages: Vec::new(), more: true };
        let mut at_once = 1_usize;
        while let Some(left) = limits.after(&page.messages) {
            let largest = page.messages.iter().map(|m| m.payload.len()).max().unwrap_or(usize::MAX).max(1);
            let count = at_once.min(left.messages).min(left.bytes / largest).max(1) as u64;
            let asked = (from..from + count).map(|from| self.next(stream, subject, from));
            let known = page.messages.len();
            for got in try_join_all(asked).await? {
                match got {
                    // The same one again.
                    Got::Message(message) if message.sequence < from => {}
                    Got::Message(message) => {
                        from = message.sequence + 1;
                        page.messages.push(message);
                    }
                    Got::Nothing => return Ok(Some(Page { more: false, ..page })),
                    Got::NoStream => return Ok(None),
                }
            }
            at_once = (2 * (page.messages.len() - known)).clamp(1, REQUESTS_AT_ONCE);
        }
        Ok(Some(page))
    }
}
