//! A socket whose other end has to take what is written to it, and has to be there.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

/// What has to be taken of a write that waits, in bytes: one byte a minute is no progress.
const ENOUGH: usize = 16 * 1024;
/// After such a silence the other end is asked whether it is there, so often and so long.
const ASKED_AFTER: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED: u32 = 3;
/// How long what was sent may remain without a word that it has arrived.
const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// A connection on which a write that makes no progress for some time is an error.
pub(super) struct Socket {
    stream: TcpStream,
    patience: Duration,
    waiting: Option<Waiting>,
}

struct Waiting {
    until: Pin<Box<Sleep>>,
    taken: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, patience, waiting: None }
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => {
                let patience = self.patience;
                let waiting = self.waiting.get_or_insert_with(|| Waiting {
                    until: Box::pin(tokio::time::sleep(patience)),
                    taken: 0,
                });
                ready!(waiting.until.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
            }
            Poll::Ready(Ok(taken)) => {
                self.waiting = self.waiting.take().filter(|waiting| waiting.taken + taken < ENOUGH);
                if let Some(waiting) = &mut self.waiting {
                    waiting.taken += taken;
                }
                Poll::Ready(Ok(taken))
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

/// Small answers go out at once, and a client that has vanished is noticed within minutes, not hours.
pub(super) fn prepare(stream: &TcpStream) {
    let set = || {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        let asked = TcpKeepalive::new().with_time(ASKED_AFTER).with_interval(ASKED_EVERY).with_retries(ASKED);
        socket.set_tcp_keepalive(&asked)?;
        socket.set_tcp_user_timeout(Some(HEARD_WITHIN))
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "a connection keeps the system's settings");
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            // All of it is in the hands of the system.
            self.waiting = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_client_that_vanished_is_asked_for_and_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream);
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), ASKED_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), ASKED_EVERY);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), ASKED);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(HEARD_WITHIN));
    }
}
