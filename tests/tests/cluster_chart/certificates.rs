//! An authority, and Secrets with certificates of it, such as cert-manager makes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// A Secret with a certificate for a name.
    pub fn secret(&self, secret: &str, name: &str) -> Value {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": secret},
            "data": {
                "tls.crt": STANDARD.encode(certificate.pem()),
                "tls.key": STANDARD.encode(key.serialize_pem()),
                "ca.crt": STANDARD.encode(&self.pem),
            },
        })
    }
}
