//! Who asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::Secret;
use reqwest::header::HeaderValue;

use crate::source::SourceError;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Basic authentication.
    Basic {
        /// User, e.g. `cn=admin`.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// A bearer token.
    Bearer(Secret),
}

impl Credentials {
    /// The value of the header, which does not show in a log.
    pub(super) fn authorization(&self) -> Result<HeaderValue, SourceError> {
        let (setting, secret) = match self {
            Self::Basic { password, .. } => ("UDM password", password),
            Self::Bearer(token) => ("UDM token", token),
        };
        let refused = |problem: String| SourceError::Setting { setting, problem };
        let secret = secret.read().map_err(|e| refused(model::error_chain(&e)))?;
        let text = match self {
            Self::Basic { username, .. } => {
                format!("Basic {}", STANDARD.encode(format!("{username}:{secret}")))
            }
            Self::Bearer(_) => format!("Bearer {secret}"),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| refused("it has characters that no header can have".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Who it is, for people.
    pub(super) fn account(&self) -> String {
        match self {
            Self::Basic { username, .. } => username.clone(),
            Self::Bearer(_) => "the bearer token".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let credentials = Credentials::Basic { username: "cn=admin".into(), password: "hunter2".into() };
        let config = super::super::Config::new("http://udm", credentials);
        assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
        assert!(!format!("{:?}", Credentials::Bearer("hunter2".into())).contains("hunter2"));
    }
}
