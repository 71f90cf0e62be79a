//! A wire to NATS that can be damaged.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
};

use super::NatsServer;
use crate::NatsConfig;

/// A proxy before a nats-server, which loses answers, holds requests back and cuts connections. What is damaged are the
/// connections of that moment: later ones work.
#[derive(Debug)]
pub struct LossyProxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

/// Connections have numbers, from 1; each damage names the last one that it is about.
#[derive(Debug, Default)]
struct State {
    latest: AtomicU64,
    answers_lost: AtomicU64,
    requests_held: watch::Sender<u64>,
    cut: watch::Sender<u64>,
    /// Bytes of answers after which a connection is cut; 0: never.
    cut_after: AtomicU64,
    /// A text in an answer that later connections lose.
    lost_message: Mutex<Option<String>>,
    cut_after_requests: Countdown,
    held_after_requests: Countdown,
}

/// Requests that a connection may still send, and which connection.
#[derive(Debug, Default)]
struct Countdown(Mutex<Option<(u64, u32)>>);

impl Countdown {
    fn begin(&self, number: u64, requests: u32) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, requests));
    }

    /// A request of a connection is about to be passed on: is it the last? That is so once.
    fn is_last(&self, number: u64) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, left)) = counted.as_mut().filter(|(of, _)| *of == number) else { return false };
        *left = left.saturating_sub(1);
        let last = *left == 0;
        if last {
            *counted = None;
        }
        last
    }
}

impl LossyProxy {
    /// A proxy before this server.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn before(server: &NatsServer) -> Self {
        Self::to(server.port).await
    }

    /// A proxy to this port of the loopback.
    ///
    /// # Panics
    /// If there is no free port.
    #[allow(clippy::expect_used)] // a test's helper: a panic is its way to fail
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(nats) = TcpStream::connect(("127.0.0.1", port)).await {
                    client.set_nodelay(true).ok();
                    nats.set_nodelay(true).ok();
                    let number = shared.latest.fetch_add(1, Ordering::SeqCst) + 1;
                    let ((from_client, to_client), (from_nats, to_nats)) =
                        (client.into_split(), nats.into_split());
                    tokio::spawn(requests(shared.clone(), number, from_client, to_nats));
                    tokio::spawn(answers(shared.clone(), number, from_nats, to_client));
                }
            }
        });
        Self { address, state, accepting: accepting.abort_handle() }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a component connects through it.
    #[must_use]
    pub fn config(&self, component: &'static str) -> NatsConfig {
        NatsConfig::new(format!("nats://{}", self.address), component)
    }

    /// From now on no answer comes back.
    pub fn lose_answers(&self) {
        self.state.answers_lost.store(self.latest(), Ordering::SeqCst);
    }

    /// From now on no request arrives, until [`release_requests`](Self::release_requests): also of a connection that is
    /// cut for the client meanwhile.
    pub fn hold_requests(&self) {
        self.state.requests_held.send_replace(self.latest());
    }

    /// What was held back arrives.
    pub fn release_requests(&self) {
        self.state.requests_held.send_replace(0);
    }

    /// Cuts the connections for the client.
    pub fn cut(&self) {
        self.state.cut.send_replace(self.latest());
    }

    /// The next connections are cut after so many bytes of answers; 0: not any more.
    pub fn cut_after(&self, bytes: u64) {
        self.state.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// The next connection loses the first message from the server that contains this text, and nothing else.
    pub fn lose_message(&self, text: &str) {
        *self.state.lost_message.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    /// The present connection is cut after so many requests that come one by one: the last one arrives, and its answer
    /// is lost.
    pub fn cut_after_requests(&self, requests: u32) {
        self.state.cut_after_requests.begin(self.latest(), requests);
    }

    /// What the present connection sends after so many requests that come one by one is held back, until
    /// [`release_requests`](Self::release_requests).
    pub fn hold_after_requests(&self, requests: u32) {
        self.state.held_after_requests.begin(self.latest(), requests);
    }

    /// Returns when requests are held back.
    pub async fn holds(&self) {
        self.state.requests_held.subscribe().wait_for(|held| *held > 0).await.ok();
    }

    /// Connections that there have been.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.state.latest.load(Ordering::SeqCst)
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// Returns when a value has reached a number.
async fn reaches(value: &mut watch::Receiver<u64>, number: u64) {
    if value.wait_for(|value| *value >= number).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn requests(state: Arc<State>, number: u64, mut client: OwnedReadHalf, mut nats: OwnedWriteHalf) {
    let (mut cut, mut held) = (state.cut.subscribe(), state.requests_held.subscribe());
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let count = tokio::select! {
            read = client.read(&mut buffer) => read.unwrap_or(0),
            () = reaches(&mut cut, number) => 0,
            _ = held.changed() => {
                if *held.borrow() < number && nats.write_all(&std::mem::take(&mut kept)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let last = count > 0 && state.cut_after_requests.is_last(number);
        if last {
            state.answers_lost.store(number, Ordering::SeqCst);
        }
        if *held.borrow() >= number {
            kept.extend_from_slice(&buffer[..count]);
        } else if nats.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if last {
            state.cut.send_replace(number);
        }
        if count > 0 && state.held_after_requests.is_last(number) {
            state.requests_held.send_replace(number);
        }
        if count == 0 {
            break;
        }
    }
    // The client is gone, but what it has sent is still on its way.
    if held.wait_for(|held| *held < number).await.is_ok() && !kept.is_empty() {
        nats.write_all(&kept).await.ok();
    }
}

async fn answers(state: Arc<State>, number: u64, mut nats: OwnedReadHalf, mut client: OwnedWriteHalf) {
    let mut cut = state.cut.subscribe();
    let (mut passed, mut buffer) = (0, vec![0; 4 << 10]);
    let mut losing =
        state.lost_message.lock().unwrap_or_else(PoisonError::into_inner).take().map(Losing::new);
    loop {
        let count = tokio::select! {
            read = nats.read(&mut buffer) => read.unwrap_or(0),
            () = reaches(&mut cut, number) => 0,
        };
        let lost = state.answers_lost.load(Ordering::SeqCst) >= number;
        let answer = match &mut losing {
            Some(losing) => losing.pass(&buffer[..count]),
            None => buffer[..count].to_vec(),
        };
        if count == 0 || (!lost && client.write_all(&answer).await.is_err()) {
            break;
        }
        passed += count as u64;
        let after = state.cut_after.load(Ordering::SeqCst);
        if after > 0 && passed > after {
            break;
        }
    }
    // Both directions, for the client.
    client.shutdown().await.ok();
    drop(client);
    // The server must not be stopped by what nobody reads.
    while nats.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// What a server sends, without the first message that contains a text.
struct Losing {
    text: Option<String>,
    incomplete: Vec<u8>,
}

impl Losing {
    fn new(text: String) -> Self {
        Self { text: Some(text), incomplete: Vec::new() }
    }

    /// Takes what was sent, and gives what is passed on: whole messages of the protocol only.
    fn pass(&mut self, sent: &[u8]) -> Vec<u8> {
        self.incomplete.extend_from_slice(sent);
        let mut passed = Vec::new();
        while let Some(length) = message_length(&self.incomplete) {
            let rest = self.incomplete.split_off(length);
            let message = std::mem::replace(&mut self.incomplete, rest);
            let contains =
                |text: &mut String| message.windows(text.len()).any(|part| part == text.as_bytes());
            if self.text.take_if(contains).is_none() {
                passed.extend(message);
            }
        }
        passed
    }
}

/// Length of the protocol message at the beginning: a line, and its payload where it has one
/// (<https://docs.nats.io/reference/reference-protocols/nats-protocol>). `None`: it is not complete.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")? + 2;
    let mut words = str::from_utf8(&bytes[..line]).ok()?.split_whitespace();
    let payload = match words.next() {
        Some("MSG" | "HMSG") => words.next_back()?.parse::<usize>().ok()? + 2,
        _ => 0,
    };
    (bytes.len() >= line + payload).then_some(line + payload)
}
