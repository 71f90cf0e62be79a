//! How to reach NATS.

use std::path::PathBuf;

use anyhow::bail;
use broker::{ClientCertificate, NatsConfig, NatsTls, Secret};
use clap::Args;

use super::secret;

#[derive(Debug, Args)]
pub struct Nats {
    /// Address of NATS, or several separated by commas. tls:// instead of nats:// enforces encryption.
    /// Default: nats://NATS_HOST:NATS_PORT.
    #[arg(long, env, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Host of NATS, if NATS_URL is not set.
    #[arg(long, env, value_name = "HOST", default_value = "127.0.0.1")]
    pub nats_host: String,
    /// Port of NATS, if NATS_URL is not set.
    #[arg(long, env, value_name = "PORT", default_value = "4222")]
    pub nats_port: u16,
    #[command(flatten)]
    pub access: NatsAccess,
    /// Copies of each stream in a NATS cluster, 1 to 5.
    #[arg(long, env, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
}

/// Who connects, and how the connection is protected.
#[derive(Debug, Args)]
pub struct NatsAccess {
    /// NATS user.
    #[arg(long, env, value_name = "USER")]
    pub nats_user: Option<String>,
    /// Password of that user.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub nats_password: Option<Secret>,
    /// File with that password instead; read at each connection.
    #[arg(long, env, value_name = "FILE")]
    pub nats_password_file: Option<PathBuf>,
    /// Connect only with TLS; same as tls:// in the address.
    #[arg(long, env, value_name = "BOOL", default_value = "false", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub nats_tls: bool,
    /// Certificates (PEM) of the authorities trusted for NATS; default: those of the system. Requires TLS; read at
    /// each connection.
    #[arg(long, env, value_name = "FILE")]
    pub nats_ca_file: Option<PathBuf>,
    /// Client certificate (PEM), if NATS requires one; needs its key. Requires TLS; read at each connection.
    #[arg(long, env, value_name = "FILE")]
    pub nats_client_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, env, value_name = "FILE")]
    pub nats_client_key_file: Option<PathBuf>,
}

impl Nats {
    /// The configuration of one component.
    pub fn config(&self, component: &'static str) -> anyhow::Result<NatsConfig> {
        let Self { nats_url, nats_host, nats_port, access, nats_replicas } = self;
        let url = nats_url.clone().unwrap_or_else(|| format!("nats://{nats_host}:{nats_port}"));
        Ok(NatsConfig { replicas: usize::from(*nats_replicas), ..access.config(url, component)? })
    }
}

impl NatsAccess {
    /// The configuration of one component for a server without copies.
    pub fn config(&self, url: String, component: &'static str) -> anyhow::Result<NatsConfig> {
        let Self {
            nats_user,
            nats_password,
            nats_password_file,
            nats_tls,
            nats_ca_file,
            nats_client_cert_file,
            nats_client_key_file,
        } = self;
        if url.contains('@') {
            bail!(
                "there is a user or password in the address of NATS: give them with --nats-user (NATS_USER) and \
                 --nats-password-file (NATS_PASSWORD_FILE) or NATS_PASSWORD instead of --nats-url (NATS_URL)"
            );
        }
        let client = match (nats_client_cert_file.clone(), nats_client_key_file.clone()) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (None, None) => None,
            (Some(_), None) => {
                bail!(
                    "--nats-client-cert-file (NATS_CLIENT_CERT_FILE) needs --nats-client-key-file (NATS_CLIENT_KEY_FILE)"
                )
            }
            (None, Some(_)) => {
                bail!(
                    "--nats-client-key-file (NATS_CLIENT_KEY_FILE) needs --nats-client-cert-file (NATS_CLIENT_CERT_FILE)"
                )
            }
        };
        let password =
            secret::optional("NATS_PASSWORD", nats_password.as_ref(), nats_password_file.as_deref())?;
        if password.is_some() && nats_user.is_none() {
            bail!("a password for NATS is given, but no user: give --nats-user (NATS_USER)");
        }
        Ok(NatsConfig {
            user: nats_user.clone(),
            password,
            tls: NatsTls { required: *nats_tls, ca_file: nats_ca_file.clone(), client },
            ..NatsConfig::new(url, component)
        })
    }
}
