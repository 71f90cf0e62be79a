//! How the API serves: HTTPS, and how much clients may take.

use std::{path::PathBuf, time::Duration};

use api::{Bounds, Network, TlsFiles};
use clap::{Args, builder::RangedU64ValueParser};

#[derive(Debug, Args)]
pub struct Serving {
    /// PEM certificate chain; enables HTTPS instead of HTTP. Read again when it changes.
    #[arg(long, env, value_name = "FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, env, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Maximum number of concurrent connections; further ones are answered with 503.
    #[arg(long, env, value_name = "N", default_value = "1024",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_connections: usize,
    /// Maximum number of open streams of a subscription per replica; further ones are answered with 429.
    #[arg(long, env, value_name = "N", default_value = "16",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub streams_per_subscription: usize,
    /// Maximum number of waiting polls of a subscription per replica; further ones are answered with 429.
    #[arg(long, env, value_name = "N", default_value = "100",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub polls_per_subscription: usize,
    /// Seconds for which requests are still accepted after SIGTERM, while /readyz reports not ready.
    #[arg(long, env, value_name = "SECONDS", default_value = "5", value_parser = super::seconds_or_none)]
    pub shutdown_delay: Duration,
    /// Proxies in front, as addresses or networks (10.0.0.0/8,2001:db8::/32): failed logins are counted by the
    /// address that they add to X-Forwarded-For.
    #[arg(long, env, value_name = "NETWORKS", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
}

impl Serving {
    /// Certificate and key, if both are given: flags see to it that none is given alone.
    pub fn tls(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_cert_file.clone()?, self.tls_key_file.clone()?);
        Some(TlsFiles { certificate, key })
    }

    /// The bounds of one replica.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            connections: self.max_connections,
            streams_per_subscription: self.streams_per_subscription,
            polls_per_subscription: self.polls_per_subscription,
            trusted_proxies: self.trusted_proxies.clone(),
            ..Bounds::default()
        }
    }
}
