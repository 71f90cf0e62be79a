//! Looking at a prefill from outside.

use std::time::Duration;

use clap::Args;

#[derive(Debug, Args)]
pub struct Watch {
    /// Name of the subscription.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Address of the API, with the prefix under which a reverse proxy shows it, if there is one.
    #[arg(long = "api", env = "API_URL", value_name = "URL", default_value = "http://127.0.0.1:7777")]
    pub api: String,
    /// The subscription's own password; without it the administrator looks.
    #[arg(long, env = "SUBSCRIPTION_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// The administrator.
    #[arg(long, env, value_name = "USER", default_value = "admin")]
    pub admin_username: String,
    /// The administrator's password.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true, required_unless_present = "password")]
    pub admin_password: Option<String>,
    /// Seconds after which it is no longer waited for. Default: never.
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds)]
    pub timeout: Option<Duration>,
}

impl Watch {
    /// Who looks.
    pub fn credentials(&self) -> (&str, &str) {
        match (&self.password, &self.admin_password) {
            (Some(password), _) => (&self.name, password),
            (None, admin) => (&self.admin_username, admin.as_deref().unwrap_or_default()),
        }
    }
}
