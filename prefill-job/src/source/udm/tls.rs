//! TLS: rustls with ring, told so explicitly, so that no default of the process is needed.
//!
//! reqwest without a provider of its own panics at its first client unless the process has a default one. It also
//! fails where the system has no certificates, as in an image with one binary, even if only `http` is spoken. A
//! configuration of our own avoids both.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::source::SourceError;

/// The configuration for an address, which trusts the authorities of `ca_pem`, or those of the system.
pub(super) fn config(is_https: bool, ca_pem: Option<&[u8]>) -> Result<ClientConfig, SourceError> {
    let refused = |problem: String| SourceError::Setting { setting: "UDM CA certificate", problem };
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| refused(format!("not PEM: {e}")))?;
                roots.add(certificate).map_err(|e| refused(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(refused("there is no certificate in it".to_owned()));
            }
        }
        None if is_https => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(refused(
                    "the system has no certificates: name a file with UDM's authority".to_owned(),
                ));
            }
        }
        None => {}
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(e.to_string()))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_needs_no_certificates_of_the_system() {
        assert!(config(false, None).is_ok());
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_the_name_of_the_setting() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "hello", broken] {
            let error = config(true, Some(pem.as_bytes())).unwrap_err();
            assert!(error.to_string().contains("UDM CA certificate"), "{error}");
        }
    }
}
