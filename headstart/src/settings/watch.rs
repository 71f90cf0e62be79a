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
    /// Address of the API, including the prefix of a reverse proxy if there is one.
    #[arg(long = "api", env = "API_URL", value_name = "URL", default_value = "http://127.0.0.1:7777")]
    pub api: String,
    /// Certificates (PEM) of the authorities trusted for the API; default: those of the system.
    #[arg(long, env, value_name = "FILE")]
    pub api_ca_file: Option<PathBuf>,
    /// Password of the subscription; without it, the administrator's account is used.
    #[arg(long, env = "SUBSCRIPTION_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub password: Option<Secret>,
    #[command(flatten)]
    pub admin: Admin,
    /// Give up after this many seconds. Default: never.
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
