//! Reading an open stream, as server-sent events or as lines of JSON.

use std::time::Duration;

use futures::StreamExt;
use rand::RngExt;
use reqwest::{Method, header};
use serde_json::Value;

use super::Consumer;
use crate::{
    client::{PATIENCE, Role},
    history::Moment,
};

/// How long one look at the stream waits.
const LOOK: Duration = Duration::from_secs(1);
/// Silence after which the stream counts as dead: heartbeats come more often.
const SILENT: Duration = Duration::from_secs(20);

/// A stream that is open.
pub struct Open {
    bytes: futures::stream::BoxStream<'static, Option<Vec<u8>>>,
    buffer: Vec<u8>,
    lines: bool,
    /// Event id of the last whole event.
    last_id: Option<String>,
    heard: tokio::time::Instant,
    /// Did nothing come yet since it was opened?
    fresh: bool,
    /// When it was asked for.
    asked: Moment,
}

/// A part of a stream.
enum Part {
    Message(Option<String>, Value),
    Nothing,
    End,
}

impl Consumer {
    pub(super) async fn read_stream(&mut self) {
        if self.stream.is_none() && !self.open_stream(None).await {
            self.pause().await;
            return;
        }
        let Some(open) = self.stream.as_mut() else { return };
        let (start, asked) = (self.recorder.now(), open.asked);
        let mut came = Vec::new();
        let (mut ended, mut heard) = (false, false);
        match tokio::time::timeout(LOOK, open.bytes.next()).await {
            Err(_) => {
                ended = open.heard.elapsed() > SILENT;
                self.quiet += 1;
            }
            Ok(Some(Some(bytes))) => {
                open.heard = tokio::time::Instant::now();
                heard = true;
                open.buffer.extend(bytes);
                while let Some(part) = open.take() {
                    match part {
                        Part::Message(id, message) => {
                            open.last_id = id.or(open.last_id.take());
                            came.push(message);
                        }
                        Part::Nothing => {}
                        Part::End => ended = true,
                    }
                }
            }
            Ok(_) => ended = true,
        }
        let from_head = open.fresh && !came.is_empty();
        if !came.is_empty() {
            open.fresh = false;
        }
        let last_id = open.last_id.clone();
        if !came.is_empty() {
            self.delivered(asked, from_head, &came);
            let count = self.unacknowledged.len();
            self.acknowledge_through(count).await;
            if !self.unacknowledged.is_empty() {
                // It has "crashed" and knows nothing of what it got. To tell where it was would mean that it does.
                self.stream = None;
                return;
            }
        }
        // A heartbeat says that there is nothing; silence says nothing.
        if came.is_empty() && heard && !ended {
            self.nothing(start).await;
        }
        // A client that reconnects, with or without telling where it was.
        if ended || self.dice.random_ratio(1, 150) {
            self.stream = None;
            let resumes = last_id.filter(|_| self.dice.random_ratio(1, 2));
            if resumes.is_some() {
                self.open_stream(resumes).await;
            }
        }
    }

    async fn open_stream(&mut self, last_id: Option<String>) -> bool {
        let asked = self.recorder.now();
        let lines = self.dice.random_ratio(1, 2);
        let window = self.dice.random_range(1..100);
        let name = self.plan.name.clone();
        let path = format!("/v1/subscriptions/{name}/messages/stream?window={window}");
        let form = if lines { "application/x-ndjson" } else { "text/event-stream" };
        if self.dice.random_ratio(1, 3) {
            self.replica += 1;
        }
        let mut request = self
            .api
            .request(self.replica, Role::Consumer(&name, &self.password), Method::GET, &path, None)
            .timeout(Duration::from_secs(600))
            .header(header::ACCEPT, form);
        if let Some(id) = &last_id {
            request = request.header("Last-Event-ID", id);
        }
        match tokio::time::timeout(PATIENCE, request.send()).await {
            Ok(Ok(response)) if response.status().as_u16() == 200 => {
                let bytes = response.bytes_stream().map(|bytes| bytes.ok().map(|b| b.to_vec())).boxed();
                let heard = tokio::time::Instant::now();
                // What is resumed goes on where it was; otherwise it begins at the head.
                let fresh = last_id.is_none();
                self.stream = Some(Open { bytes, buffer: Vec::new(), lines, last_id, heard, fresh, asked });
                true
            }
            Ok(Ok(response)) => {
                let status = response.status().as_u16();
                let body = Value::String(response.text().await.unwrap_or_default());
                self.unknown("opening a stream", Some((status, body)));
                false
            }
            _ => {
                self.unknown("opening a stream", None);
                false
            }
        }
    }
}

impl Open {
    /// The next whole part.
    fn take(&mut self) -> Option<Part> {
        let end: &[u8] = if self.lines { b"\n" } else { b"\n\n" };
        let at = self.buffer.windows(end.len()).position(|window| window == end)?;
        let text = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
        self.buffer.drain(..at + end.len());
        Some(if self.lines { line(&text) } else { event(&text) })
    }
}

fn line(text: &str) -> Part {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Part::Nothing };
    if value.get("end").is_some() {
        return Part::End;
    }
    // The state of a prefill that has failed.
    if value.get("prefill").is_some() {
        return Part::Nothing;
    }
    Part::Message(value["event_id"].as_str().map(str::to_owned), value)
}

fn event(text: &str) -> Part {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim_start().to_owned()))
    };
    if field("event").as_deref() == Some("end") {
        return Part::End;
    }
    if field("event").is_some_and(|kind| kind != "message") {
        return Part::Nothing;
    }
    match field("data").and_then(|data| serde_json::from_str(&data).ok()) {
        Some(message) => Part::Message(field("id"), message),
        None => Part::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert!(matches!(line(r#"{"event_id":"7","x":1}"#), Part::Message(Some(id), _) if id == "7"));
        assert!(matches!(line(""), Part::Nothing));
        assert!(matches!(line(r#"{"prefill":{"state":"failed"}}"#), Part::Nothing));
        assert!(matches!(event("event: prefill\ndata: {\"state\":\"failed\"}"), Part::Nothing));
        assert!(matches!(line(r#"{"end":{"reason":"x"}}"#), Part::End));
        assert!(
            matches!(event("id: 7\nevent: message\ndata: {\"x\":1}"), Part::Message(Some(id), _) if id == "7")
        );
        assert!(matches!(event(": heartbeat"), Part::Nothing));
        assert!(matches!(event("event: end\ndata: {\"reason\":\"x\"}"), Part::End));
    }
}
