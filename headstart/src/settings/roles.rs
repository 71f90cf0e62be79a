//! The fixed users of the API.

use std::path::PathBuf;

use api::{RoleCredentials, Roles as ApiRoles};
use broker::Secret;
use clap::Args;

use super::secret;

/// A name with which somebody can log in: in the header, it ends at the first colon.
fn user(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains(':') {
        return Err("nobody can log in with this name: it is empty or holds a colon");
    }
    Ok(text.to_owned())
}

/// The administrator, to the API itself and to those who call it.
#[derive(Debug, Args)]
pub struct Admin {
    /// User who registers and removes subscriptions.
    #[arg(long, env, value_name = "USER", default_value = "admin", value_parser = user)]
    pub admin_username: String,
    /// Password of that user.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub admin_password: Option<Secret>,
    /// File with that password instead; read again when it changes.
    #[arg(long, env, value_name = "FILE")]
    pub admin_password_file: Option<PathBuf>,
}

impl Admin {
    /// The password, which must be given.
    pub fn password(&self) -> anyhow::Result<Secret> {
        secret::required("ADMIN_PASSWORD", self.admin_password.as_ref(), self.admin_password_file.as_deref())
    }
}

/// Each password is given as a value or as a file; `standalone` makes those that are not given.
#[derive(Debug, Args)]
pub struct Roles {
    #[command(flatten)]
    pub admin: Admin,
    /// User who posts events.
    #[arg(long, env, value_name = "USER", default_value = "udm", value_parser = user)]
    pub events_username_udm: String,
    /// Password of that user. (Same rules as --admin-password.)
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub events_password_udm: Option<Secret>,
    /// File with that password instead; read again when it changes.
    #[arg(long, env, value_name = "FILE")]
    pub events_password_udm_file: Option<PathBuf>,
    /// User who may set the state of a prefill.
    #[arg(long, env, value_name = "USER", default_value = "prefill", value_parser = user)]
    pub prefill_username: String,
    /// Password of that user. (Same rules as --admin-password.)
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub prefill_password: Option<Secret>,
    /// File with that password instead; read again when it changes.
    #[arg(long, env, value_name = "FILE")]
    pub prefill_password_file: Option<PathBuf>,
}

impl Roles {
    /// The users. `make` is asked for the password of a variable and user where none was given.
    pub fn users(
        &self,
        mut make: impl FnMut(&'static str, &str) -> anyhow::Result<Secret>,
    ) -> anyhow::Result<ApiRoles> {
        let mut role = |variable, user: &String, value: &Option<Secret>, file: &Option<PathBuf>| {
            let password = match secret::optional(variable, value.as_ref(), file.as_deref())? {
                Some(password) => password,
                None => make(variable, user)?,
            };
            anyhow::Ok(RoleCredentials { username: user.clone(), password })
        };
        let Self {
            admin: Admin { admin_username, admin_password, admin_password_file },
            events_username_udm,
            events_password_udm,
            events_password_udm_file,
            prefill_username,
            prefill_password,
            prefill_password_file,
        } = self;
        let events =
            role("EVENTS_PASSWORD_UDM", events_username_udm, events_password_udm, events_password_udm_file);
        Ok(ApiRoles {
            admin: role("ADMIN_PASSWORD", admin_username, admin_password, admin_password_file)?,
            events: events?,
            prefill: role("PREFILL_PASSWORD", prefill_username, prefill_password, prefill_password_file)?,
        })
    }

    /// The users, whose passwords must all be given.
    pub fn given(&self) -> anyhow::Result<ApiRoles> {
        self.users(|variable, _| anyhow::bail!(secret::missing(variable)))
    }
}
