//! HTTPS: the certificate, read again when its files change, and handshakes within bounds.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::socket::Socket;
use crate::{config::TlsFiles, error::Error};

/// How long a client may take for its handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Handshakes that are under way at once; the others are cut off.
const HANDSHAKES_AT_ONCE: usize = 512;
/// How often the files are read.
const READ_EVERY: Duration = Duration::from_secs(3);
/// First byte of a record with a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// What is told to whoever sends a request without TLS.
const PLAIN_ANSWER: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
    {\"detail\":\"This port speaks HTTPS: use https\"}";

/// Takes handshakes with the certificate that holds now.
pub(super) struct Acceptor {
    tls: TlsAcceptor,
    handshakes: Semaphore,
}

/// The certificate that holds now. A std lock: nothing awaits under it.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Acceptor {
    /// Reads the files, and again and again until `shutdown`.
    pub(super) fn start(files: &TlsFiles, shutdown: CancellationToken) -> Result<Self, Error> {
        let contents = read(files).map_err(Error::Certificate)?;
        let certified = certified(&contents, files).map_err(Error::Certificate)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certified))));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Certificate(e.to_string()))?;
        let mut config = config.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        tokio::spawn(follow(files.clone(), contents, current, shutdown));
        let tls = TlsAcceptor::from(Arc::new(config));
        Ok(Self { tls, handshakes: Semaphore::new(HANDSHAKES_AT_ONCE) })
    }

    /// The handshake with one client; the error says why there is none.
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
        taken_within: Duration,
    ) -> Result<TlsStream<Socket>, String> {
        let Ok(_turn) = self.handshakes.try_acquire() else {
            return Err("too many handshakes at once".to_owned());
        };
        let handshake = tokio::time::timeout(HANDSHAKE_WITHIN, self.handshake(socket, taken_within)).await;
        handshake.map_err(|_| format!("no handshake within {HANDSHAKE_WITHIN:?}"))?
    }

    async fn handshake(
        &self,
        mut socket: TcpStream,
        taken_within: Duration,
    ) -> Result<TlsStream<Socket>, String> {
        let mut first = [0];
        let is_plain = match socket.peek(&mut first).await {
            Ok(0) => return Err("the client has gone".to_owned()),
            Ok(_) => first != [HANDSHAKE_RECORD],
            Err(error) => return Err(error.to_string()),
        };
        if is_plain {
            // What was not read would turn the end of the connection into an error that hides the answer.
            socket.try_read(&mut [0; 16 * 1024]).ok();
            let told = socket.write_all(PLAIN_ANSWER).await;
            let told = told.and(socket.shutdown().await);
            return Err(told.err().map_or("it sent no TLS".to_owned(), |error| error.to_string()));
        }
        self.tls.accept(Socket::new(socket, taken_within)).await.map_err(|error| error.to_string())
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Looks at what is in the files, whose times may lie: Kubernetes swaps a link for a new version of a mounted Secret.
async fn follow(files: TlsFiles, mut last: Contents, current: Arc<Current>, shutdown: CancellationToken) {
    let mut told = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(READ_EVERY)).await.is_some() {
        let of = files.clone();
        let Ok(found) = tokio::task::spawn_blocking(move || read(&of)).await else { continue };
        if found.as_ref() == Ok(&last) {
            told = None;
            continue;
        }
        match found.and_then(|contents| Ok((certified(&contents, &files)?, contents))) {
            Ok((new, contents)) => {
                *current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                last = contents;
                told = None;
                tracing::info!(certificate = %files.certificate.display(), "the certificate has changed");
            }
            // One of the two files may be newer than the other for a moment.
            Err(problem) if told.as_ref() != Some(&problem) => {
                tracing::warn!(problem, "the former certificate stays in force");
                told = Some(problem);
            }
            Err(_) => {}
        }
    }
}

fn read(files: &TlsFiles) -> Result<Contents, String> {
    let TlsFiles { certificate, key } = files;
    let read = |path: &std::path::Path, setting: &str| {
        std::fs::read(path).map_err(|e| format!("{} ({setting}) can't be read: {e}", path.display()))
    };
    Ok(Contents { certificate: read(certificate, CERTIFICATE)?, key: read(key, KEY)? })
}

const CERTIFICATE: &str = "--tls-cert-file, TLS_CERT_FILE";
const KEY: &str = "--tls-key-file, TLS_KEY_FILE";

/// Certificate and key, which must fit.
fn certified(contents: &Contents, files: &TlsFiles) -> Result<CertifiedKey, String> {
    let TlsFiles { certificate, key } = files;
    let certificate = format!("{} ({CERTIFICATE})", certificate.display());
    let key = format!("{} ({KEY})", key.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.certificate).collect();
    let chain = chain.map_err(|e| format!("{certificate} can't be used: {e}"))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in {certificate}"));
    }
    let private =
        PrivateKeyDer::from_pem_slice(&contents.key).map_err(|e| format!("{key} can't be used: {e}"))?;
    CertifiedKey::from_der(chain, private, &ring::default_provider())
        .map_err(|e| format!("{key} does not fit {certificate}: {e}"))
}
