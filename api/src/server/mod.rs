//! Connections: how many, how long each may take, plain or with TLS.
//!
//! ```text
//!  accept ─► a place? ─► task: (TLS handshake) ─► HTTP/1.1 ─► router
//!              └ none ─► task: 503, or "ok" to a liveness probe
//! ```
//!
//! **Invariants**
//! * Nothing that a client does or leaves undone delays the acceptance of the next one.
//! * Each step that waits for a client has a bound: the handshake, the head of a request, its body (`request.rs`). Only
//!   answers may take as long as the client likes: streams are meant to.

mod tls;

use std::{io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    config::{Bounds, TlsFiles},
    error::{Error, json as json_answer},
    peer::Peer,
    request_id::{REQUEST_ID, request_id},
};
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
    head_within: Duration,
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
    let tls = tls.map(|files| Acceptor::start(files, shutdown.clone())).transpose()?;
    let server = Arc::new(Server { router, head_within: bounds.head_within, tls, shutdown });
    let (places, told) =
        (Arc::new(Semaphore::new(bounds.connections)), Arc::new(Semaphore::new(TOLD_AT_ONCE)));
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
        if let Ok(place) = places.clone().try_acquire_owned() {
            tasks.spawn(server.clone().connection(socket, peer, place));
            continue;
        }
        if logged.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            tracing::warn!(limit = bounds.connections, "there are as many connections as there may be");
            logged = Some(Instant::now());
        }
        if let Ok(place) = told.clone().try_acquire_owned() {
            tasks.spawn(tokio::time::timeout(TOLD_WITHIN, server.clone().too_many(socket, peer, place)));
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

impl Server {
    async fn connection(self: Arc<Self>, socket: TcpStream, peer: IpAddr, _place: OwnedSemaphorePermit) {
        let router = self.router.clone();
        self.handshake(socket, peer, self.head_within, router).await;
    }

    async fn too_many(self: Arc<Self>, socket: TcpStream, peer: IpAddr, _place: OwnedSemaphorePermit) {
        let router = Router::new().fallback(busy);
        self.handshake(socket, peer, TOLD_WITHIN, router).await;
    }

    async fn handshake(&self, socket: TcpStream, peer: IpAddr, head_within: Duration, router: Router) {
        // Small answers go out at once.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        match &self.tls {
            None => self.http(socket, peer, head_within, router).await,
            Some(tls) => {
                let stream = self.shutdown.run_until_cancelled(tls.accept(socket)).await;
                match stream {
                    Some(Ok(stream)) => self.http(stream, peer, head_within, router).await,
                    Some(Err(problem)) => tracing::debug!(%peer, problem, "no TLS with a client"),
                    None => {}
                }
            }
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        peer: IpAddr,
        head_within: Duration,
        router: Router,
    ) {
        let service = service_fn(move |request: axum::http::Request<Incoming>| {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            router.clone().oneshot(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head_within).max_buf_size(LARGEST_HEAD);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = model::chain(&error), "a connection broke off");
        }
    }
}

/// What is answered to connections beyond the bound. Being alive and being ready are not the same: the process is not
/// killed because it is asked much.
async fn busy(request: Request) -> Response {
    if request.uri().path() == "/healthz" {
        return ([(CONNECTION, HeaderValue::from_static("close"))], "ok\n").into_response();
    }
    let body = json!({"detail": "The server has as many connections as it may have; try again"});
    let mut answer = json_answer(StatusCode::SERVICE_UNAVAILABLE, &body);
    answer.headers_mut().insert(REQUEST_ID, request_id(request.headers()));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
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
