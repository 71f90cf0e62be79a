//! The fixed users of the API.

use clap::Args;

#[derive(Debug, Args)]
pub struct Roles {
    /// Who registers and removes subscriptions.
    #[arg(long, env, value_name = "USER", default_value = "admin")]
    pub admin_username: String,
    /// Its password.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub admin_password: String,
    /// Who sends events.
    #[arg(long, env, value_name = "USER", default_value = "udm")]
    pub events_username_udm: String,
    /// Its password.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub events_password_udm: String,
    /// Who may set the state of a prefill.
    #[arg(long, env, value_name = "USER", default_value = "prefill")]
    pub prefill_username: String,
    /// Its password.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub prefill_password: String,
}

/// As [`Roles`], where passwords that are not given are generated.
#[derive(Debug, Args)]
pub struct OptionalRoles {
    /// Who registers and removes subscriptions.
    #[arg(long, env, value_name = "USER", default_value = "admin")]
    pub admin_username: String,
    /// Its password; generated, kept in the data directory and printed once if it is not given.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub admin_password: Option<String>,
    /// Who sends events.
    #[arg(long, env, value_name = "USER", default_value = "udm")]
    pub events_username_udm: String,
    /// Its password; as above.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub events_password_udm: Option<String>,
    /// Who may set the state of a prefill.
    #[arg(long, env, value_name = "USER", default_value = "prefill")]
    pub prefill_username: String,
    /// Its password; as above.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub prefill_password: Option<String>,
}
