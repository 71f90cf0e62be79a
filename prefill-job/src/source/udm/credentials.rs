//! Who asks, and secrets that do not show.

use std::fmt;
use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
        let secret = secret.read().map_err(|e| refused(format!("{secret:?}: {e}")))?;
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

/// A password or token, which never shows in a log.
#[derive(Clone)]
pub enum Secret {
    /// The value.
    Value(String),
    /// A file with the value, read again when UDM refuses it: Secrets that are mounted change while a pod runs. One
    /// line end at the end does not count.
    File(PathBuf),
}

impl Secret {
    /// The value as it is now.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read(&self) -> io::Result<String> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => formatter.write_str("Secret(…)"),
            Self::File(path) => write!(formatter, "Secret(file {})", path.display()),
        }
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::Value(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::Value(value.to_owned())
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

    #[test]
    fn a_file_may_end_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, value) in [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", "")] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(Secret::File(file.path().to_owned()).read().unwrap(), value);
        }
        assert!(Secret::File("/no/such/file".into()).read().is_err());
    }
}
