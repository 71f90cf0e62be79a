//! HTTP/1.1 over one kept connection, and no more of it than the API's answers need. A full client would cost about as
//! much as the server that is measured, on the same cores.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest that any answer may take: a poll of 30 s, and some.
const ANSWERS_WITHIN: Duration = Duration::from_secs(45);

/// A kept connection of one user.
pub struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    authorization: String,
    request: Vec<u8>,
    /// What was received and not yet used.
    received: Vec<u8>,
}

/// An answer with a body of known length.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr, user: &str, password: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        Ok(Self { stream, address, authorization, request: Vec::new(), received: Vec::new() })
    }

    /// Sends a request and reads its whole answer.
    pub async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let exchange = async {
            self.write(method, path, body, "application/json").await?;
            let head = self.head().await?;
            let body = if head.chunked {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk().await? {
                    body.extend_from_slice(&chunk);
                }
                body
            } else {
                self.take(head.length.unwrap_or(0)).await?
            };
            Ok(Answer { status: head.status, body })
        };
        timeout(ANSWERS_WITHIN, exchange).await.with_context(|| format!("no answer to {method} {path}"))?
    }

    /// As [`send`](Self::send), where any other status is an error.
    pub async fn expect(&mut self, status: u16, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let answer = self.send(method, path, body).await?;
        let said = || String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == status, "{method} {path} was answered with {}: {}", answer.status, said());
        Ok(answer.body)
    }

    /// Begins to read an answer that never ends, by [`lines`](Self::lines).
    pub async fn begin_stream(&mut self, path: &str) -> Result<()> {
        let begin = async {
            self.write("GET", path, &[], "application/x-ndjson").await?;
            self.head().await
        };
        let head = timeout(ANSWERS_WITHIN, begin).await.context("no answer to a stream")??;
        ensure!(head.status == 200 && head.chunked, "{path} was answered with {}", head.status);
        Ok(())
    }

    /// What has arrived of a stream: the bytes of its next chunk; `None` at its end.
    pub async fn lines(&mut self) -> Result<Option<Vec<u8>>> {
        timeout(ANSWERS_WITHIN, self.chunk()).await.context("a stream is silent")?
    }

    async fn write(&mut self, method: &str, path: &str, body: &[u8], accept: &str) -> Result<()> {
        let Self { address, authorization, .. } = self;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {authorization}\r\nAccept: {accept}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(body);
        Ok(self.stream.write_all(&self.request).await?)
    }

    async fn head(&mut self) -> Result<Head> {
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head = parse_head(self.received.get(..end).unwrap_or_default())?;
                self.received.drain(..end + 4);
                return Ok(head);
            }
            self.more().await?;
        }
    }

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let end = loop {
            match find(&self.received, b"\r\n") {
                Some(end) => break end,
                None => self.more().await?,
            }
        };
        let size = std::str::from_utf8(self.received.get(..end).unwrap_or_default())?;
        let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("a chunk of {size:?}"))?;
        self.received.drain(..end + 2);
        let chunk = self.take(size).await?;
        self.take(2).await?;
        Ok((size > 0).then_some(chunk))
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.received.len() < length {
            self.more().await?;
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    async fn more(&mut self) -> Result<()> {
        self.received.reserve(64 * 1024);
        if self.stream.read_buf(&mut self.received).await? == 0 {
            bail!("the connection was closed");
        }
        Ok(())
    }
}

fn parse_head(head: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(head).context("an answer that is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no status")?;
    let mut head = Head { status, length: None, chunked: false };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = value.trim().eq_ignore_ascii_case("chunked");
        }
    }
    Ok(head)
}

/// Place of the first occurrence.
pub fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Place of the last occurrence.
pub fn find_last(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nx: y").unwrap();
        assert_eq!((head.status, head.length, head.chunked), (200, Some(17), false));
        let head = parse_head(b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked").unwrap();
        assert_eq!((head.status, head.length, head.chunked), (404, None, true));
        assert!(parse_head(b"nonsense").is_err());
    }
}
