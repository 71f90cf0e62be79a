//! Consumers that read by stream: what has arrived is counted, not parsed.

use std::{cell::Cell, convert::Infallible};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use tokio::time::{Duration, Instant, sleep};

use super::load::{self, Posts};
use crate::{
    http::Connection,
    installation::{Installation, SOON},
    payload,
};

/// What has arrived of a stream.
#[derive(Default)]
pub struct Lines {
    /// Messages that have arrived as a whole.
    pub taken: usize,
    /// The last one's `sequence_number`.
    pub through: Option<u64>,
    /// Beginning of a line that the next chunk goes on with.
    tail: Vec<u8>,
}

impl Lines {
    /// A chunk has arrived.
    pub fn add(&mut self, chunk: &[u8]) {
        let messages = ends_of_messages(&self.tail, chunk);
        self.taken += messages.len();
        self.tail.extend_from_slice(chunk);
        if let Some(end) = messages.last() {
            // The number stands at the end of a line.
            let end = self.tail.len() - chunk.len() + end;
            let number = self.tail.get(end.saturating_sub(200)..end).unwrap_or_default();
            self.through = payload::last_sequence(number);
            self.tail.drain(..end);
        }
    }
}

/// How far one consumer is.
#[derive(Default)]
pub struct Seen {
    taken: Cell<usize>,
    through: Cell<Option<u64>>,
}

/// Does some work while these consumers read, each acknowledging what it has whenever that is `each` messages or more.
/// They read from before the work begins. Afterwards all that they were given is acknowledged.
pub async fn while_reading<T>(
    installation: &Installation,
    names: &[String],
    each: usize,
    work: impl AsyncFnOnce(&[Seen]) -> Result<T>,
) -> Result<T> {
    let seen: Vec<Seen> = names.iter().map(|_| Seen::default()).collect();
    let open = try_join_all(names.iter().map(|name| Reader::open(installation, name)));
    let readers = open.await?.into_iter().zip(&seen).map(|(reader, seen)| reader.follow(seen, each));
    let done = tokio::select! {
        done = work(&seen) => done?,
        ended = try_join_all(readers) => { ended?; bail!("nobody reads") }
    };
    for (name, seen) in names.iter().zip(&seen) {
        if let Some(through) = seen.through.get() {
            let mut own = installation.consumer(name).await?;
            let status = load::try_acknowledge_through(&mut own, name, through).await?;
            // The reader may have acknowledged all of it.
            ensure!(
                matches!(status, 200 | 404),
                "the last acknowledgement of {name} was answered with {status}"
            );
        }
    }
    Ok(done)
}

/// Waits until each consumer has so many of these events.
pub async fn await_all(seen: &[Seen], count: usize, posts: &Posts<'_>) -> Result<()> {
    let began = Instant::now();
    loop {
        let taken = || seen.iter().map(|seen| seen.taken.get());
        let (least, most) = (taken().min().unwrap_or(count), taken().max().unwrap_or(count));
        ensure!(most <= count + posts.refused(), "{most} messages came instead of {count}");
        if least >= count {
            return Ok(());
        }
        ensure!(began.elapsed() < SOON, "only {least} of {count} messages came");
        sleep(Duration::from_millis(1)).await;
    }
}

struct Reader<'a> {
    name: &'a str,
    stream: Connection,
    acknowledging: Connection,
}

impl<'a> Reader<'a> {
    async fn open(installation: &Installation, name: &'a str) -> Result<Self> {
        let mut stream = installation.consumer(name).await?;
        stream.begin_stream(&format!("/v1/subscriptions/{name}/messages/stream?window=1000")).await?;
        Ok(Self { name, stream, acknowledging: installation.consumer(name).await? })
    }

    async fn follow(mut self, seen: &Seen, each: usize) -> Result<Infallible> {
        let (mut lines, mut acknowledged) = (Lines::default(), 0);
        loop {
            lines.add(&self.stream.lines().await?.context("the stream has ended")?);
            seen.taken.set(lines.taken);
            seen.through.set(lines.through);
            if lines.taken - acknowledged >= each {
                let through = lines.through.context("no sequence_number")?;
                load::acknowledge_through(&mut self.acknowledging, self.name, through).await?;
                acknowledged = lines.taken;
            }
        }
    }
}

/// Where in a chunk lines end that are messages; an empty line is a sign of life. `before`: the beginning of the line
/// that the chunk goes on with.
fn ends_of_messages(before: &[u8], chunk: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut empty = before.is_empty();
    for (place, byte) in chunk.iter().enumerate() {
        if *byte == b'\n' {
            if !empty {
                ends.push(place + 1);
            }
            empty = true;
        } else {
            empty = false;
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_unless_they_are_empty() {
        assert_eq!(ends_of_messages(b"", b"a\n\nbc\nd"), [2, 6]);
        assert_eq!(ends_of_messages(b"x", b"\ny"), [1]);
        assert_eq!(ends_of_messages(b"", b"\n\n"), Vec::<usize>::new());
    }

    #[test]
    fn messages_are_counted_wherever_chunks_end() {
        let text =
            b"{\"a\":1,\"sequence_number\":17}\n\n{\"a\":1,\"sequence_number\":18}\n{\"sequence_number\":1";
        for chunk in 1..text.len() {
            let mut lines = Lines::default();
            text.chunks(chunk).for_each(|chunk| lines.add(chunk));
            assert_eq!((lines.taken, lines.through), (2, Some(18)), "chunks of {chunk}");
        }
    }
}
