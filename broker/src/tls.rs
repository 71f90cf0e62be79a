//! TLS to NATS: what is trusted, what is presented, and what an error means.
//!
//! The client reads the files at each connection, so a renewed certificate or authority counts from the next one on.

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
};

use async_nats::ConnectOptions;
use rustls::{
    AlertDescription, CertificateError, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// How the connection to NATS is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatsTls {
    /// Without TLS there is no connection. A server that demands it gets it in any case.
    pub required: bool,
    /// Certificates (PEM) of the only authorities that are trusted; those of the system if `None`.
    pub ca_file: Option<PathBuf>,
    /// What is presented to a server that asks for a certificate.
    pub client: Option<ClientCertificate>,
}

/// A certificate of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and those between it and its authority (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

const CA_FILE: &str = "--nats-ca-file, NATS_CA_FILE";
const CLIENT_CERTIFICATE: &str = "--nats-client-cert-file, NATS_CLIENT_CERT_FILE";
const CLIENT_KEY: &str = "--nats-client-key-file, NATS_CLIENT_KEY_FILE";

impl NatsTls {
    /// Is plain text refused? Whoever names an authority or a certificate means TLS: a server, or somebody in its
    /// place, must not talk us out of it. One `tls://` of several addresses counts for all: those that a cluster tells
    /// have no scheme.
    pub(crate) fn demanded(&self, url: &str) -> bool {
        let Self { required, ca_file, client } = self;
        *required
            || ca_file.is_some()
            || client.is_some()
            || url.split(',').any(|address| address.trim_start().starts_with("tls://"))
    }

    pub(crate) fn apply(&self, options: ConnectOptions, url: &str) -> ConnectOptions {
        let options = options.require_tls(self.demanded(url));
        let options = match &self.ca_file {
            Some(path) => options.add_root_certificates(path.clone()),
            None => options,
        };
        match &self.client {
            Some(ClientCertificate { certificate, key }) => {
                options.add_client_certificate(certificate.clone(), key.clone())
            }
            None => options,
        }
    }

    /// Looks at the files; the error names the one that is no good.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(path) = &self.ca_file {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, CA_FILE)? {
                roots.add(certificate).map_err(|e| wrong(path, CA_FILE, &e))?;
            }
        }
        if let Some(ClientCertificate { certificate, key }) = &self.client {
            let chain = certificates(certificate, CLIENT_CERTIFICATE)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, CLIENT_KEY, &e))?;
            CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|e| {
                format!(
                    "{} does not fit {}: {e}",
                    named(key, CLIENT_KEY),
                    named(certificate, CLIENT_CERTIFICATE)
                )
            })?;
        }
        Ok(())
    }

    /// What to look at when a connection that stood is not had again: the client does not tell why.
    pub(crate) fn hint(&self) -> String {
        self.check().err().unwrap_or_else(|| match &self.ca_file {
            Some(path) => {
                format!("if this goes on: is the server's certificate of {}?", named(path, CA_FILE))
            }
            None => format!("if this goes on: does this system trust the server's certificate ({CA_FILE})?"),
        })
    }

    /// What is wrong if a connection failed because of TLS; the words name the setting.
    pub(crate) fn problem(&self, error: &(dyn StdError + 'static)) -> Option<String> {
        // What a file lacks shows in the client's errors only as "TLS error".
        self.check().err().or_else(|| tls_error(error).map(|error| self.explain(error)))
    }

    fn explain(&self, error: &rustls::Error) -> String {
        use AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(error) => self.explain_certificate(error),
            rustls::Error::InvalidMessage(_) => format!(
                "it does not speak TLS, which is demanded by tls:// in --nats-url (NATS_URL), by --nats-tls \
                 (NATS_TLS), or by a file of certificates ({CA_FILE}; {CLIENT_CERTIFICATE})"
            ),
            rustls::Error::AlertReceived(
                Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnknownCA
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::HandshakeFailure,
            ) => match &self.client {
                Some(client) => format!("it refuses {}", named(&client.certificate, CLIENT_CERTIFICATE)),
                None => format!(
                    "it demands a client certificate: name one ({CLIENT_CERTIFICATE}) and its key ({CLIENT_KEY})"
                ),
            },
            other => other.to_string(),
        }
    }

    fn explain_certificate(&self, error: &CertificateError) -> String {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => match &self.ca_file {
                Some(path) => format!("its certificate is of no authority in {}", named(path, CA_FILE)),
                None => format!(
                    "its certificate is of no authority that this system trusts: name a file with its authority \
                     ({CA_FILE})"
                ),
            },
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "its certificate is for another host than --nats-url (NATS_URL) or --nats-host (NATS_HOST) say: \
                     {error}"
                )
            }
            other => format!("its certificate is refused: {other}"),
        }
    }
}

fn named(path: &Path, setting: &str) -> String {
    format!("{} ({setting})", path.display())
}

fn wrong(path: &Path, setting: &str, problem: &dyn StdError) -> String {
    format!("{} can't be used: {problem}", named(path, setting))
}

/// The certificates in a file, of which there is at least one.
fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<_, _>>());
    let found = found.map_err(|e| wrong(path, setting, &e))?;
    if found.is_empty() {
        return Err(format!("there is no certificate in {}", named(path, setting)));
    }
    Ok(found)
}

/// The error of TLS among an error's causes.
pub(crate) fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| {
        // An I/O error hides what it was made of from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error
            .downcast_ref::<rustls::Error>()
            .or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_means_tls() {
        let with_ca = NatsTls { ca_file: Some("/ca".into()), ..NatsTls::default() };
        let required = NatsTls { required: true, ..NatsTls::default() };
        for (tls, url, demanded) in [
            (&NatsTls::default(), "nats://a", false),
            (&NatsTls::default(), "a:4222", false),
            (&NatsTls::default(), "tls://a", true),
            (&NatsTls::default(), "nats://a, tls://b", true),
            (&with_ca, "nats://a", true),
            (&required, "nats://a", true),
        ] {
            assert_eq!(tls.demanded(url), demanded, "{tls:?} {url}");
        }
    }
}
