//! Looking at a prefill from outside.

use std::{path::PathBuf, time::Duration};

use broker::Secret;
use clap::Args;

use super::Admin;

#[derive(Debug, Args)]
pub struct Watch {
    /// Name of the subscription.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Address of the API, with the prefix under which a reverse proxy shows it, if there is one.
    #[arg(long = "api", env = "API_URL", value_name = "URL", default_value = "http://127.0.0.1:7777")]
    pub api: String,
    /// Certificates (PEM) of the authorities that are trusted for the API; default: those of the system.
    #[arg(long, env, value_name = "FILE")]
    pub api_ca_file: Option<PathBuf>,
    /// The subscription's own password; without it the administrator looks.
    #[arg(long, env = "SUBSCRIPTION_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub password: Option<Secret>,
    #[command(flatten)]
    pub admin: Admin,
    /// Seconds after which it is no longer waited for. Default: never.
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    pub timeout: Option<Duration>,
}

impl Watch {
    /// Who looks.
    pub fn credentials(&self) -> anyhow::Result<(&str, Secret)> {
        match &self.password {
            Some(password) => Ok((&self.name, password.clone())),
            None => Ok((&self.admin.admin_username, self.admin.password()?)),
        }
    }
}
