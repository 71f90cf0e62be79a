//! Where the objects of a prefill come from.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use broker::Secret;
use clap::{Args, ValueEnum};
use prefill_job::source::{
    Source,
    dump::Dump,
    udm::{self, Credentials},
};

use super::secret;

#[derive(Debug, Args)]
pub struct SourceAddress {
    /// Directory to read: address of the UDM REST API (http://host:9979/univention/udm/), or path of a dump in JSON
    /// lines or LDIF, plain or compressed with gzip or zstd.
    #[arg(long, env, value_name = "PATH-OR-URL")]
    pub source: String,
}

#[derive(Debug, Args)]
pub struct Udm {
    /// UDM user.
    #[arg(long, env, value_name = "USER", default_value = "cn=admin")]
    pub udm_username: String,
    /// Password of that user.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub udm_password: Option<Secret>,
    /// File with the password instead, such as a mounted Secret; read again when UDM refuses the password.
    #[arg(long, env, value_name = "FILE")]
    pub udm_password_file: Option<PathBuf>,
    /// Bearer token, instead of user and password.
    #[arg(long, env, value_name = "TOKEN", hide_env_values = true)]
    pub udm_token: Option<Secret>,
    /// File with the token instead; read again when UDM refuses the token.
    #[arg(long, env, value_name = "FILE")]
    pub udm_token_file: Option<PathBuf>,
    /// Maximum number of concurrent object requests to UDM. Below this limit, the number adapts to UDM's response
    /// times.
    #[arg(long, env, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub udm_concurrency: u16,
    /// What to do about a requested topic that still matches no UDM module after the wait: leave it out and report it
    /// (skip), or fail.
    #[arg(long, env, value_name = "skip|fail", default_value = "skip")]
    pub udm_missing_types: MissingTypes,
    /// Seconds to wait for such topics: extensions of UDM are loaded late.
    #[arg(long, env, value_name = "SECONDS", default_value = "120")]
    pub udm_missing_seconds: u32,
    /// What to do about an object that UDM lists and can't show: make it a dead letter (set-aside), or fail.
    #[arg(long, env, value_name = "set-aside|fail", default_value = "set-aside")]
    pub udm_broken_objects: BrokenObjects,
    /// Seconds to wait for UDM, or the directory behind it, when nothing answers.
    #[arg(long, env, value_name = "SECONDS", default_value = "600")]
    pub udm_away_seconds: u32,
    /// Seconds to retry credentials that UDM refuses: somebody may just be changing them.
    #[arg(long, env, value_name = "SECONDS", default_value = "180")]
    pub udm_refused_seconds: u32,
    /// UDM reads the LDAP primary, and no replica: live events that a prefill already contains are then left out.
    #[arg(long, env, value_name = "BOOL", default_value = "false", action = clap::ArgAction::Set,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub udm_reads_primary: bool,
    /// How far the replica that UDM reads may be behind the events, in seconds: a prefill waits this long before it
    /// reads the lists. Not if UDM reads the primary.
    #[arg(long, env, value_name = "SECONDS", default_value = "0")]
    pub udm_lag_seconds: u32,
    /// Certificates (PEM) of the authorities trusted for UDM; default: those of the system.
    #[arg(long, env, value_name = "FILE")]
    pub udm_ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MissingTypes {
    Fail,
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BrokenObjects {
    Fail,
    SetAside,
}

impl Udm {
    /// Who asks: exactly one of password and token, from its variable or its file.
    fn credentials(&self) -> anyhow::Result<Credentials> {
        let Self { udm_username, udm_password, udm_password_file, udm_token, udm_token_file, .. } = self;
        let password = secret::optional("UDM_PASSWORD", udm_password.as_ref(), udm_password_file.as_deref())?;
        let token = secret::optional("UDM_TOKEN", udm_token.as_ref(), udm_token_file.as_deref())?;
        match (password, token) {
            (Some(password), None) => Ok(Credentials::Basic { username: udm_username.clone(), password }),
            (None, Some(token)) => Ok(Credentials::Bearer(token)),
            (Some(_), Some(_)) => anyhow::bail!(
                "both a password and a token for UDM are given: give --udm-password (UDM_PASSWORD) or --udm-token \
                 (UDM_TOKEN)"
            ),
            (None, None) => {
                anyhow::bail!("a UDM source: {}, or --udm-token (UDM_TOKEN)", secret::missing("UDM_PASSWORD"))
            }
        }
    }

    /// The configuration of the UDM at an address.
    pub fn config(&self, address: &str) -> anyhow::Result<udm::Config> {
        let ca_pem = match &self.udm_ca_file {
            None => None,
            Some(path) => Some(std::fs::read(path).with_context(|| {
                format!("can't read the certificates {} (--udm-ca-file, UDM_CA_FILE)", path.display())
            })?),
        };
        Ok(udm::Config {
            concurrency_max: usize::from(self.udm_concurrency),
            missing_types: match self.udm_missing_types {
                MissingTypes::Fail => udm::MissingTypes::Fail,
                MissingTypes::Skip => udm::MissingTypes::Skip,
            },
            missing_wait: seconds(self.udm_missing_seconds),
            retries: udm::Retries {
                away: seconds(self.udm_away_seconds),
                refused: seconds(self.udm_refused_seconds),
                ..udm::Retries::default()
            },
            broken_objects: match self.udm_broken_objects {
                BrokenObjects::Fail => udm::BrokenObjects::Fail,
                BrokenObjects::SetAside => udm::BrokenObjects::SetAside,
            },
            reads_primary: self.udm_reads_primary,
            lag: seconds(self.udm_lag_seconds),
            ca_pem,
            ..udm::Config::new(address, self.credentials()?)
        })
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

impl SourceAddress {
    /// The source, not yet read.
    pub fn open(&self, udm: &Udm) -> anyhow::Result<Source> {
        let address = &self.source;
        if address.starts_with("http://") || address.starts_with("https://") {
            return Ok(Source::Udm(udm::Udm::new(udm.config(address)?)?));
        }
        anyhow::ensure!(
            !address.contains("://"),
            "the source {address:?} (--source, SOURCE) is neither a path nor an http(s) URL"
        );
        Ok(Source::Dump(Dump::new(address)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        source: SourceAddress,
        #[command(flatten)]
        udm: Udm,
    }

    fn open(arguments: &[&str]) -> Result<Source, String> {
        let always = ["headstart", "--source", "http://udm:9979/univention/udm/"];
        let cli = Cli::try_parse_from(always.iter().chain(arguments)).map_err(|e| e.to_string())?;
        cli.source.open(&cli.udm).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn exactly_one_secret_is_needed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let path = file.path().to_str().unwrap();
        for (arguments, problem) in [
            (&["--udm-password", "a"][..], None),
            (&["--udm-password-file", path], None),
            (&["--udm-token", "a"], None),
            (&["--udm-token-file", path], None),
            (&[], Some("UDM_PASSWORD_FILE")),
            (&["--udm-password", "a", "--udm-token", "b"], Some("both a password and a token")),
            (&["--udm-token-file", "/no/such/file"], Some("UDM_TOKEN_FILE")),
        ] {
            match (open(arguments), problem) {
                (Ok(_), None) => {}
                (Err(error), Some(words)) => assert!(error.contains(words), "{error}"),
                (opened, _) => panic!("{arguments:?}: {opened:?}"),
            }
        }
    }

    #[test]
    fn switches_are_words() {
        for (flag, good, bad) in [
            ("--udm-missing-types", &["fail", "skip"], "ignore"),
            ("--udm-broken-objects", &["fail", "set-aside"], "skip"),
        ] {
            for word in good {
                open(&["--udm-password", "a", flag, word]).unwrap();
            }
            let error = open(&["--udm-password", "a", flag, bad]).unwrap_err();
            assert!(error.contains(flag) && error.contains(good[1]), "{error}");
        }
        let error = open(&["--udm-password", "a", "--udm-concurrency", "0"]).unwrap_err();
        assert!(error.contains("--udm-concurrency"), "{error}");
    }
}
