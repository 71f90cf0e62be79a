//! Passwords and certificates of the connection to NATS: right, wrong, missing, and renewed while we run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{path::PathBuf, time::Duration};

use broker::{
    Broker, ClientCertificate, Error, NatsConfig, NatsTls, Secret,
    testing::{NatsServer, eventually},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// A folder of certificates, as a mounted Secret would be.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new authority `<name>.ca`, and a certificate and key of it for a host.
    fn issue(&self, name: &str, host: &str) {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        for (end, pem) in [("ca", issuer.pem()), ("crt", certificate.pem()), ("key", key.serialize_pem())] {
            std::fs::write(self.path(&format!("{name}.{end}")), pem).unwrap();
        }
    }

    /// Configuration of a server with the certificate `server`.
    fn server(&self, extra: &str) -> String {
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, timeout: 5 {extra} }}",
            self.path("server.crt"),
            self.path("server.key")
        )
    }

    fn trusting(&self, server: &NatsServer, name: &str) -> NatsConfig {
        let tls = NatsTls { ca_file: Some(self.path(&format!("{name}.ca"))), ..NatsTls::default() };
        NatsConfig { tls, ..server.config("test") }
    }

    fn client(&self, name: &str) -> Option<ClientCertificate> {
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        Some(ClientCertificate { certificate, key })
    }
}

/// A connection is refused, as no time mends, and these are named.
async fn refused(config: &NatsConfig, named: &[&str]) {
    let error = Broker::connect(config).await.unwrap_err();
    let text = model::error_chain(&error);
    assert!(matches!(error, Error::Tls { .. }) && !error.is_transient(), "{text}");
    for part in named {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test]
async fn only_the_named_authority_and_host_are_trusted() {
    let files = Files::new();
    files.issue("server", "127.0.0.1");
    files.issue("other", "127.0.0.1");
    let server = NatsServer::start_with(&files.server("")).await;
    let right = files.trusting(&server, "server");
    let broker = Broker::connect(&right).await.unwrap();
    broker.create_layout().await.unwrap();
    broker.await_layout().await.unwrap();
    let with_scheme = NatsConfig { url: right.url.replace("nats://", "tls://"), ..right.clone() };
    Broker::connect(&with_scheme).await.unwrap().await_layout().await.unwrap();

    refused(&files.trusting(&server, "other"), &["no authority in", "other.ca", "NATS_CA_FILE"]).await;
    // The system does not know the authority either, whatever it knows.
    refused(&server.config("test"), &["NATS_CA_FILE"]).await;
    let other_host = NatsConfig { url: right.url.replace("127.0.0.1", "localhost"), ..right.clone() };
    refused(&other_host, &["another host", "NATS_URL"]).await;
    for (content, told) in
        [(None, "can't be used"), (Some(""), "no certificate"), (Some("x"), "no certificate")]
    {
        let path = files.path("broken.ca");
        content.inspect(|text| std::fs::write(&path, text).unwrap());
        refused(&files.trusting(&server, "broken"), &[told, "broken.ca", "NATS_CA_FILE"]).await;
    }
}

#[tokio::test]
async fn nobody_talks_us_out_of_tls() {
    let files = Files::new();
    files.issue("server", "127.0.0.1");
    let server = NatsServer::start().await;
    let by_address = NatsConfig::new(server.url().replace("nats://", "tls://"), "test");
    let by_setting =
        NatsConfig { tls: NatsTls { required: true, ..NatsTls::default() }, ..server.config("test") };
    for config in [files.trusting(&server, "server"), by_address, by_setting] {
        refused(&config, &["NATS_URL", "NATS_TLS"]).await;
    }
    Broker::connect(&server.config("test")).await.unwrap();
}

#[tokio::test]
async fn a_server_may_ask_for_our_certificate() {
    let files = Files::new();
    files.issue("server", "127.0.0.1");
    files.issue("client", "headstart");
    files.issue("stranger", "headstart");
    let verify = format!(", verify: true, ca_file: {:?}", files.path("client.ca"));
    let server = NatsServer::start_with(&files.server(&verify)).await;
    let config = |name: Option<&str>| {
        let mut config = files.trusting(&server, "server");
        config.tls.client = name.and_then(|name| files.client(name));
        config
    };
    Broker::connect(&config(Some("client"))).await.unwrap().create_layout().await.unwrap();
    refused(&config(None), &["demands a client certificate", "NATS_CLIENT_CERT_FILE"]).await;
    refused(&config(Some("stranger")), &["refuses", "stranger.crt", "NATS_CLIENT_CERT_FILE"]).await;
    let mut mixed = config(Some("client"));
    mixed.tls.client =
        files.client("client").map(|c| ClientCertificate { key: files.path("stranger.key"), ..c });
    refused(&mixed, &["does not fit", "NATS_CLIENT_KEY_FILE", "NATS_CLIENT_CERT_FILE"]).await;
}

#[tokio::test]
async fn renewed_authorities_count_from_the_next_connection_on() {
    let files = Files::new();
    files.issue("server", "127.0.0.1");
    let mut server = NatsServer::start_with(&files.server("")).await;
    let broker = Broker::connect(&files.trusting(&server, "server")).await.unwrap();
    broker.create_layout().await.unwrap();
    server.kill();
    files.issue("server", "127.0.0.1");
    server.restart().await;
    works_again(&broker).await;
}

#[tokio::test]
async fn a_renewed_password_counts_from_the_next_connection_on() {
    let files = Files::new();
    let path = files.path("password");
    let users = |password: &str| format!("authorization {{ user: api, password: {password:?} }}");
    std::fs::write(&path, "first-secret\n").unwrap();
    let mut server = NatsServer::start_with(&users("first-secret")).await;
    let config =
        NatsConfig { user: Some("api".into()), password: Some(Secret::file(&path)), ..server.config("api") };
    let broker = Broker::connect(&config).await.unwrap();
    broker.create_layout().await.unwrap();
    server.kill();
    std::fs::write(&path, "second-secret\n").unwrap();
    server.restart_with("8MB", &users("second-secret")).await;
    works_again(&broker).await;

    std::fs::write(&path, "wrong-secret\n").unwrap();
    let error = Broker::connect(&config).await.unwrap_err();
    let text = model::error_chain(&error);
    assert!(matches!(error, Error::Connect { .. }) && text.contains("NATS_PASSWORD_FILE"), "{text}");
    assert!(!format!("{text} {error:?}").contains("-secret"), "{text}");
    std::fs::remove_file(&path).unwrap();
    let text = model::error_chain(&Broker::connect(&config).await.unwrap_err());
    assert!(text.contains(path.to_str().unwrap()), "{text}");
}

/// A server that reads the same Secret from its environment has the line end in its password; others have not.
#[tokio::test]
async fn a_line_end_of_the_passwords_file_is_part_of_the_password_or_not() {
    let files = Files::new();
    let path = files.path("password");
    for (end, in_the_server) in [("\n", "secret\n"), ("\r\n", "secret\r\n"), ("\n", "secret"), ("", "secret")]
    {
        std::fs::write(&path, format!("secret{end}")).unwrap();
        let users = format!("authorization {{ user: api, password: {in_the_server:?} }}");
        let mut server = NatsServer::start_with(&users).await;
        let password = Some(Secret::file(&path));
        let config = NatsConfig { user: Some("api".into()), password, ..server.config("api") };
        let broker =
            Broker::connect(&config).await.unwrap_or_else(|e| panic!("{end:?} {in_the_server:?}: {e}"));
        broker.create_layout().await.unwrap();
        server.kill();
        server.restart_with("8MB", &users).await;
        works_again(&broker).await;
    }
}

async fn works_again(broker: &Broker) {
    let look = async || broker.await_layout().await.map_err(|e| model::error_chain(&e));
    eventually("the layout over a new connection", SOON, look, Result::is_ok).await.unwrap();
}
