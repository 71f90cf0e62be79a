//! The API over TLS: real handshakes, renewed certificates, and clients that get it wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{sync::Arc, time::Duration};

use api::{Config, TlsFiles};
use broker::testing::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Client, StatusCode};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use support::{ADMIN, Server, answer, config, replica};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

const SOON: Duration = Duration::from_secs(30);

/// A mounted Secret with a certificate and its key.
struct Mounted(TempDir);

impl Mounted {
    fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.0.path().join("tls.crt"), key: self.0.path().join("tls.key") }
    }

    /// Writes a certificate of a new authority, which is answered.
    fn issue(&self) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let host = vec!["127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(host).unwrap().signed_by(&key, &issuer).unwrap();
        let files = self.files();
        std::fs::write(files.certificate, certificate.pem()).unwrap();
        std::fs::write(files.key, key.serialize_pem()).unwrap();
        issuer.der().clone()
    }
}

fn trusting(authority: &CertificateDer<'static>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Client::builder().no_proxy().timeout(2 * SOON).tls_backend_preconfigured(config).build().unwrap()
}

struct Secure {
    mounted: Mounted,
    authority: CertificateDer<'static>,
    address: String,
    _server: Server,
    _shutdown: DropGuard,
}

async fn start() -> Secure {
    let server = Server::start().await;
    let mounted = Mounted(tempfile::tempdir().unwrap());
    let authority = mounted.issue();
    let shutdown = CancellationToken::new();
    let config = Config { tls: Some(mounted.files()), ..config(None) };
    let base = replica(&server.broker, config, shutdown.clone()).await;
    let address = base.trim_start_matches("http://").to_owned();
    Secure { mounted, authority, address, _server: server, _shutdown: shutdown.drop_guard() }
}

impl Secure {
    async fn list(&self, client: &Client, path: &str) -> reqwest::Result<StatusCode> {
        let request = client.get(format!("https://{}{path}", self.address));
        Ok(request.basic_auth(ADMIN.0, Some(ADMIN.1)).send().await?.status())
    }
}

#[tokio::test]
async fn requests_and_probes_work() {
    let server = start().await;
    let client = trusting(&server.authority);
    for path in ["/healthz", "/readyz", "/metrics", "/v1/subscriptions"] {
        assert_eq!(server.list(&client, path).await.unwrap(), StatusCode::OK, "{path}");
    }
    let stranger = trusting(&Mounted(tempfile::tempdir().unwrap()).issue());
    assert!(server.list(&stranger, "/healthz").await.is_err());
    // A redirect stays within HTTPS.
    assert_eq!(server.list(&client, "/v1/subscriptions/").await.unwrap(), StatusCode::OK);
    let plain = Client::builder().no_proxy().build().unwrap();
    let plain = answer(plain.get(format!("http://{}/v1/subscriptions", server.address))).await;
    assert_eq!(plain.status, StatusCode::BAD_REQUEST);
    assert!(plain.json()["detail"].as_str().unwrap().contains("HTTPS"), "{plain:?}");
}

#[tokio::test]
async fn a_renewed_certificate_counts_and_connections_stay() {
    let server = start().await;
    let before = trusting(&server.authority);
    assert_eq!(server.list(&before, "/healthz").await.unwrap(), StatusCode::OK);
    let renewed = server.mounted.issue();
    let look = async || server.list(&trusting(&renewed), "/healthz").await.ok();
    eventually("the new certificate", SOON, look, Option::is_some).await;
    assert!(server.list(&trusting(&server.authority), "/healthz").await.is_err(), "the former one");
    assert_eq!(server.list(&before, "/healthz").await.unwrap(), StatusCode::OK, "over its old connection");
}

#[tokio::test]
async fn slow_handshakes_are_ended_and_hold_up_nobody() {
    let server = start().await;
    let mut slow = Vec::new();
    for sent in [&b""[..], &[22], &[22, 3, 1, 2, 0, 1], &[22, 3, 1, 0, 2, 0xff, 0xff]].iter().cycle().take(60)
    {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(server.list(&trusting(&server.authority), "/readyz").await.unwrap(), StatusCode::OK);
    for mut stream in slow {
        let closed = tokio::time::timeout(SOON, stream.read_to_end(&mut Vec::new())).await;
        closed.expect("a handshake that does not come is waited for").ok();
    }
}

#[tokio::test]
async fn wrong_files_end_it_at_the_start_with_the_setting() {
    let server = Server::start().await;
    let mounted = Mounted(tempfile::tempdir().unwrap());
    mounted.issue();
    let other = Mounted(tempfile::tempdir().unwrap());
    other.issue();
    let (good, missing) = (mounted.files(), mounted.0.path().join("none"));
    std::fs::write(mounted.0.path().join("empty"), "").unwrap();
    for (certificate, key, told) in [
        (&missing, &good.key, "TLS_CERT_FILE) can't be read"),
        (&good.certificate, &missing, "TLS_KEY_FILE) can't be read"),
        (&mounted.0.path().join("empty"), &good.key, "no certificate in"),
        (&good.certificate, &good.certificate, "TLS_KEY_FILE"),
        (&good.certificate, &other.files().key, "does not fit"),
    ] {
        let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
        let config = Config { tls: Some(files), ..config(None) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let launcher = api::Launcher::queue(server.broker.tasks());
        let ended = api::run(listener, config, server.broker.clone(), launcher, CancellationToken::new());
        let error = model::error_chain(&ended.await.unwrap_err());
        assert!(error.contains(told), "{error}");
    }
}
