//! The fixed users and their passwords, which may change while we run.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use broker::SecretError;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::config::{RoleCredentials, Roles};

/// How often files with passwords are read: a changed one counts within five seconds, the time of a slow read included.
const READ_EVERY: Duration = Duration::from_secs(2);

/// One of the fixed users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Admin,
    Events,
    Prefill,
}

/// The fixed users with the passwords that hold now.
pub(crate) struct KnownRoles {
    admin: Known,
    events: Known,
    prefill: Known,
}

struct Known {
    credentials: RoleCredentials,
    /// A std lock: nothing awaits under it.
    password: RwLock<String>,
}

impl KnownRoles {
    /// Reads all passwords.
    pub(crate) fn read(roles: &Roles) -> Result<Arc<Self>, SecretError> {
        let Roles { admin, events, prefill } = roles;
        Ok(Arc::new(Self {
            admin: Known::read(admin)?,
            events: Known::read(events)?,
            prefill: Known::read(prefill)?,
        }))
    }

    /// Reads the files again and again until `shutdown`.
    pub(crate) fn follow(self: &Arc<Self>, shutdown: CancellationToken) {
        if self.all().iter().all(|known| known.credentials.password.path().is_none()) {
            return;
        }
        let roles = self.clone();
        tokio::spawn(async move {
            while shutdown.run_until_cancelled(tokio::time::sleep(READ_EVERY)).await.is_some() {
                let roles = roles.clone();
                let read = move || roles.all().into_iter().for_each(Known::read_again);
                if let Err(error) = tokio::task::spawn_blocking(read).await {
                    tracing::error!(%error, "the files with passwords could not be read");
                }
            }
        });
    }

    /// Is it the name of this fixed user?
    pub(crate) fn is_user(&self, user: &str, role: Role) -> bool {
        self.known(role).credentials.username == user
    }

    /// Is it the name of one of the fixed users?
    pub(crate) fn has_user(&self, user: &str) -> bool {
        self.all().iter().any(|known| known.credentials.username == user)
    }

    fn known(&self, role: Role) -> &Known {
        match role {
            Role::Admin => &self.admin,
            Role::Events => &self.events,
            Role::Prefill => &self.prefill,
        }
    }

    /// Is it this fixed user? Both parts are compared in constant time.
    pub(crate) fn is(&self, user: &str, password: &str, role: Role) -> bool {
        let Known { credentials, password: known } = self.known(role);
        let known = known.read().unwrap_or_else(PoisonError::into_inner);
        let user = user.as_bytes().ct_eq(credentials.username.as_bytes());
        let password = password.as_bytes().ct_eq(known.as_bytes());
        (user & password).into()
    }

    fn all(&self) -> [&Known; 3] {
        [&self.admin, &self.events, &self.prefill]
    }
}

impl Known {
    fn read(credentials: &RoleCredentials) -> Result<Self, SecretError> {
        let password = RwLock::new(credentials.password.read()?);
        Ok(Self { credentials: credentials.clone(), password })
    }

    fn read_again(&self) {
        let RoleCredentials { username, password } = &self.credentials;
        if password.path().is_none() {
            return;
        }
        match password.read() {
            Ok(new) => {
                let mut known = self.password.write().unwrap_or_else(PoisonError::into_inner);
                if *known != new {
                    *known = new;
                    tracing::info!(user = username, "the password has changed");
                }
            }
            // The file is replaced by somebody who takes their time, or is gone: nobody is locked out for that.
            Err(error) => tracing::warn!(
                user = username,
                error = model::error_chain(&error),
                "the former password stays in force"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::Secret;

    #[test]
    fn a_password_follows_its_file_and_outlives_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\n").unwrap();
        let role = |name: &str, password| RoleCredentials { username: name.to_owned(), password };
        let roles = KnownRoles::read(&Roles {
            admin: role("admin", Secret::file(file.path())),
            events: role("udm", Secret::new("events")),
            prefill: role("prefill", Secret::new("prefill")),
        })
        .unwrap();
        let admin = |password: &str| roles.is("admin", password, Role::Admin);
        let read_again = || roles.all().into_iter().for_each(Known::read_again);
        assert!(admin("one") && !admin("two") && !admin("") && !roles.is("other", "one", Role::Admin));
        assert!(roles.is("udm", "events", Role::Events) && !roles.is("udm", "events", Role::Admin));
        std::fs::write(file.path(), "two").unwrap();
        read_again();
        assert!(admin("two") && !admin("one"));
        for nothing in ["", "\n"] {
            std::fs::write(file.path(), nothing).unwrap();
            read_again();
            assert!(admin("two") && !admin(""), "a file that was emptied");
        }
        file.close().unwrap();
        read_again();
        assert!(admin("two"), "a file that is gone");
        assert!(roles.is("udm", "events", Role::Events));
    }
}
