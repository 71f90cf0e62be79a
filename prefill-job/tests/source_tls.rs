//! The UDM source over TLS, in a process without a default crypto provider.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod source_support;

use std::sync::Arc;
use std::time::Duration;

use prefill_job::source::Source;
use prefill_job::source::udm::{Config, Credentials, Udm};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use source_support::read;
use stand_in_udm::{Directory, Faults, Population, StandIn};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// An authority, and a server's certificate of it.
struct Authority {
    pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn authority(server_name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new([server_name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Authority { pem: issuer.pem(), chain: vec![server.der().clone()], key }
}

/// Ends TLS and passes everything on to the stand-in, until it is dropped.
async fn tls_in_front_of(udm: &StandIn, authority: &Authority) -> (u16, AbortOnDropHandle<()>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth();
    let config = config.with_single_cert(authority.chain.clone(), authority.key.clone_key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), udm.address());
    let serving = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut outside = acceptor.accept(socket).await?;
                let mut inside = TcpStream::connect(behind).await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    (port, AbortOnDropHandle::new(serving))
}

#[tokio::test]
async fn the_named_authority_is_trusted_and_no_other() {
    let population = Population { users: 20, ..Population::default() };
    let udm = StandIn::start(Directory::generated(population), Faults::default()).await.unwrap();
    let (right, wrong) = (authority("localhost"), authority("localhost"));
    let (port, _serving) = tls_in_front_of(&udm, &right).await;
    let source = |host: &str, pem: &str| {
        let credentials = Credentials::Basic { username: "cn=admin".into(), password: "univention".into() };
        let mut config = Config::new(format!("https://{host}:{port}/univention/udm/"), credentials);
        config.ca_pem = Some(pem.as_bytes().to_vec());
        config.retries.tries = 2;
        config.retries.first_wait = Duration::from_millis(1);
        Source::Udm(Udm::new(config).unwrap())
    };
    let both = format!("{}{}", wrong.pem, right.pem);
    for pem in [&right.pem, &both] {
        assert_eq!(read(&source("localhost", pem), &["users/user"]).await.well().objects().len(), 20);
    }
    udm.counters().reset();
    for (host, pem) in [("localhost", &wrong.pem), ("127.0.0.1", &right.pem)] {
        let read = read(&source(host, pem), &["users/user"]).await;
        let error = format!("{:?}", read.error());
        assert!(error.to_lowercase().contains("certificate"), "{error}");
    }
    assert!(udm.counters().asked().is_empty(), "no credentials for strangers");
}
