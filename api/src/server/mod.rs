//! Connections: how many, how long each may take, plain or with TLS.
//!
//! ```text
//!  accept ─► a place? ─► task: (TLS handshake) ─► HTTP/1.1 ─► router
//!              └ none ─► task: 503, or "ok" to a liveness probe
//! ```
//!
//! **Invariants**
//! * Nothing that a client does or leaves undone delays the acceptance of the next one.
//! * Each step that waits for a client has a bound: the handshake, the head of a request, its body (`body.rs`), and
//!   what is written to it. An answer may take as long as the client goes on taking it: streams are meant to.

mod socket;
mod tls;

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    code::Code,
    config::{Bounds, TlsFiles},
    connections::{Connection, Connections, Full},
    error::{Error, before_routes},
    origin::is_trusted,
};
use socket::Socket;
use tls::Acceptor;

/// Connections beyond the bound that are told so.
const TOLD_AT_ONCE: usize = 64;
/// How long they may take.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// Largest head of a request, and most of a body that is read ahead, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;
/// How often it is logged that there are too many.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Pause when the system has no room for another connection (no file descriptors, no memory).
const NO_ROOM_PAUSE: Duration = Duration::from_millis(200);

struct Server {
    router: Router,
    bounds: Bounds,
    tls: Option<Acceptor>,
    shutdown: CancellationToken,
}

/// Serves any routes until `shutdown`; then nothing is accepted any more, and what is under way is answered.
///
/// # Errors
/// [`Error::Certificate`] if the certificate or its key is no good at the start.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: &Bounds,
    tls: Option<&TlsFiles>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let connections = Connections::new(bounds.connections);
    serve_counted(listener, router, connections, bounds, tls, shutdown).await
}

/// As [`serve`], with places for connections that somebody else looks at, too.
pub(crate) async fn serve_counted(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    bounds: &Bounds,
    tls: Option<&TlsFiles>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let tls = tls.map(|files| Acceptor::start(files, shutdown.clone())).transpose()?;
    let server = Arc::new(Server { router, bounds: bounds.clone(), tls, shutdown });
    let told = Arc::new(Semaphore::new(TOLD_AT_ONCE));
    let tasks = TaskTracker::new();
    let mut logged: Option<Instant> = None;
    while let Some(accepted) = server.shutdown.run_until_cancelled(listener.accept()).await {
        let (socket, peer) = match accepted {
            Ok((socket, peer)) => (socket, peer.ip().to_canonical()),
            Err(error) => {
                not_accepted(&error).await;
                continue;
            }
        };
        let full = match connections.admit(peer, is_trusted(peer, &bounds.trusted_proxies)) {
            Ok(connection) => {
                tasks.spawn(server.clone().connection(socket, connection));
                continue;
            }
            Err(full) => full,
        };
        if logged.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            let limit = bounds.connections;
            match full {
                Full::All => tracing::warn!(limit, "there are as many connections as there may be"),
                Full::Unknown => {
                    tracing::warn!(limit, "half of the connections have not logged in: no more of these");
                }
                Full::Address => {
                    tracing::warn!(limit, %peer, "an address has too many connections that have not logged in");
                }
            }
            logged = Some(Instant::now());
        }
        if let Ok(place) = told.clone().try_acquire_owned() {
            let connection = connections.beyond(peer);
            tasks
                .spawn(tokio::time::timeout(TOLD_WITHIN, server.clone().too_many(socket, connection, place)));
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

impl Server {
    async fn connection(self: Arc<Self>, socket: TcpStream, connection: Connection) {
        let router = self.router.clone();
        self.handshake(socket, connection, router).await;
    }

    async fn too_many(
        self: Arc<Self>,
        socket: TcpStream,
        connection: Connection,
        _place: OwnedSemaphorePermit,
    ) {
        let router = Router::new().fallback(busy);
        self.handshake(socket, connection, router).await;
    }

    async fn handshake(&self, stream: TcpStream, connection: Connection, router: Router) {
        socket::prepare(&stream);
        match &self.tls {
            None => self.http(Socket::new(stream, self.bounds.taken_within), connection, router).await,
            Some(tls) => {
                let accepted = tls.accept(stream, self.bounds.taken_within);
                match self.shutdown.run_until_cancelled(accepted).await {
                    Some(Ok(stream)) => self.http(stream, connection, router).await,
                    Some(Err(problem)) => tracing::debug!(problem, "no TLS with a client"),
                    None => {}
                }
            }
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        connection: Connection,
        router: Router,
    ) {
        let asking = Arc::new(Asking::default());
        let (of_request, asked) = (connection.clone(), asking.clone());
        let service = service_fn(move |request: axum::http::Request<Incoming>| {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(of_request.clone());
            let asked = asked.begin();
            let answer = router.clone().oneshot(request);
            async move {
                let answer = answer.await;
                drop(asked);
                answer
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new());
        builder.header_read_timeout(self.bounds.head_within).max_buf_size(LARGEST_HEAD);
        let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let stranger = asking.silent(&connection, self.bounds.first_head_within);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = stranger => {
                if !asking.has_begun() {
                    return;
                }
                served.as_mut().graceful_shutdown();
                served.await
            }
            () = self.shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = model::error_chain(&error), "a connection broke off");
        }
    }
}

/// The requests of one connection: whether there was one, whether one is being answered, and since when none is.
struct Asking(Mutex<Asked>);

#[derive(Clone, Copy)]
struct Asked {
    begun: bool,
    running: bool,
    idle_since: Instant,
}

/// A request that is being answered, until this is dropped.
struct Running(Arc<Asking>);

impl Default for Asking {
    fn default() -> Self {
        Self(Mutex::new(Asked { begun: false, running: false, idle_since: Instant::now() }))
    }
}

impl Asking {
    fn begin(self: &Arc<Self>) -> Running {
        let mut asked = self.asked();
        (asked.begun, asked.running) = (true, true);
        Running(self.clone())
    }

    fn has_begun(&self) -> bool {
        self.asked().begun
    }

    /// Waits until a connection over which nobody has logged in was idle for so long.
    async fn silent(&self, connection: &Connection, within: Duration) {
        loop {
            let Asked { running, idle_since, .. } = *self.asked();
            let now = Instant::now();
            let until = if running { now + within } else { idle_since + within };
            if !connection.is_unknown() {
                // From now on the bound between two requests holds.
                return std::future::pending().await;
            }
            if now >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut asked = self.0.asked();
        (asked.running, asked.idle_since) = (false, Instant::now());
    }
}

/// What is answered to connections beyond the bound. Being alive and being ready are not the same: the process is not
/// killed because it is asked much.
async fn busy(request: Request) -> Response {
    if request.uri().path() == "/healthz" {
        return ([(CONNECTION, HeaderValue::from_static("close"))], "ok\n").into_response();
    }
    let text = "The server has as many connections as it may have; try again";
    let mut answer = before_routes(Code::TooMany, text, request.headers());
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A client that is gone before it was accepted is nobody's trouble; else the system has no room.
async fn not_accepted(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "a connection can't be accepted");
        tokio::time::sleep(NO_ROOM_PAUSE).await;
    }
}
