//! Where the objects of a prefill come from.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use prefill_job::source::{
    Source,
    dump::Dump,
    udm::{self, Credentials, Secret},
};

#[derive(Debug, Args)]
pub struct SourceAddress {
    /// The directory: address of the UDM REST API (http://host:9979/univention/udm/), or the path of a dump in JSON
    /// lines or LDIF, plain or compressed with gzip or zstd.
    #[arg(long, env, value_name = "PATH-OR-URL")]
    pub source: String,
}

#[derive(Debug, Args)]
pub struct Udm {
    /// User at UDM.
    #[arg(long, env, value_name = "USER", default_value = "cn=admin")]
    pub udm_username: String,
    /// Its password.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub udm_password: Option<String>,
    /// Objects that are read from UDM at once.
    #[arg(long, env, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub udm_concurrency: u16,
    /// Does UDM read the LDAP primary, and no replica? Then live events that a prefill holds already are left out.
    #[arg(long, env, value_name = "BOOL", default_value = "false", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub udm_reads_primary: bool,
    /// Certificates (PEM) of the authorities that are trusted for UDM; default: those of the system.
    #[arg(long, env, value_name = "FILE")]
    pub udm_ca_file: Option<PathBuf>,
}

impl SourceAddress {
    /// The source, not yet read.
    pub fn open(&self, udm: &Udm) -> anyhow::Result<Source> {
        let address = &self.source;
        if !(address.starts_with("http://") || address.starts_with("https://")) {
            anyhow::ensure!(
                !address.contains("://"),
                "the source {address:?} (--source, SOURCE) is neither a path nor an http(s) URL"
            );
            return Ok(Source::Dump(Dump::new(address)));
        }
        let password = udm
            .udm_password
            .clone()
            .context("a UDM source needs a password: give --udm-password or UDM_PASSWORD")?;
        let credentials =
            Credentials::Basic { username: udm.udm_username.clone(), password: Secret::Value(password) };
        let ca_pem = match &udm.udm_ca_file {
            None => None,
            Some(path) => Some(std::fs::read(path).with_context(|| {
                format!("can't read the certificates {} (--udm-ca-file, UDM_CA_FILE)", path.display())
            })?),
        };
        let concurrency = usize::from(udm.udm_concurrency);
        let reads_primary = udm.udm_reads_primary;
        let config =
            udm::Config { concurrency, reads_primary, ca_pem, ..udm::Config::new(address, credentials) };
        Ok(Source::Udm(udm::Udm::new(config)?))
    }
}
