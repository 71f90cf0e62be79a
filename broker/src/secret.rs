//! Passwords: where they come from, and that they do not show.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Longest file that is read for a password, in bytes: whoever names another file by mistake hears of it.
const LONGEST_FILE: u64 = 64 * 1024;

/// A password or token, as a value or as a file that holds it. Its `Debug` is blank.
///
/// Secrets that Kubernetes mounts change while a pod runs, so a file is read whenever the password is needed, never once
/// for all.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Origin);

#[derive(Clone, PartialEq, Eq)]
enum Origin {
    Value(String),
    File(PathBuf),
}

/// Why a file with a password can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system refuses to read it, or it is no text.
    #[error("the password file {} can't be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it, or nothing but a line end.
    #[error("the password file {} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is no password.
    #[error("the password file {} has more than {LONGEST_FILE} bytes: it is no password", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// A password that is known.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Origin::Value(text.into()))
    }

    /// A file with the password. One line end at its end does not count.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Origin::File(path.into()))
    }

    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Origin::Value(_) => None,
            Origin::File(path) => Some(path),
        }
    }

    /// The password as it is now. A file is read; it is small and in memory where Kubernetes mounts it.
    ///
    /// # Errors
    /// When the file can't be read or is empty; the error names it.
    pub fn read(&self) -> Result<String, SecretError> {
        match &self.0 {
            Origin::Value(value) => Ok(value.clone()),
            Origin::File(path) => read(path).map(|line| line.text),
        }
    }

    /// The password with the line end of its file, if the file has one. A server that reads the same Secret from its
    /// environment takes the line end for a part of the password.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub(crate) fn with_line_end(&self) -> Result<Option<String>, SecretError> {
        match &self.0 {
            Origin::Value(_) => Ok(None),
            Origin::File(path) => {
                let line = read(path)?;
                Ok((!line.end.is_empty()).then(|| line.text + line.end))
            }
        }
    }
}

/// A password as a file holds it, and what the file holds besides: at most one line end.
struct Line {
    text: String,
    end: &'static str,
}

fn read(path: &Path) -> Result<Line, SecretError> {
    let path_buf = || path.to_owned();
    let unreadable = |source| SecretError::Unreadable { path: path_buf(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > LONGEST_FILE {
        return Err(SecretError::TooLong { path: path_buf() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let end = ["\r\n", "\n", "\r"].into_iter().find(|end| text.ends_with(end)).unwrap_or_default();
    let line = text.strip_suffix(end).unwrap_or(&text);
    if line.is_empty() {
        return Err(SecretError::Empty { path: path_buf() });
    }
    Ok(Line { text: line.to_owned(), end })
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Value(_) => f.write_str("***"),
            Origin::File(path) => write!(f, "*** (of {})", path.display()),
        }
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let shown = format!("{:?} {:#?} {:?}", Secret::new("x7"), Secret::new("x7"), Secret::file("/etc/p"));
        assert_eq!(shown, "*** *** *** (of /etc/p)");
    }

    #[test]
    fn a_file_may_end_its_line_and_must_hold_something() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let secret = Secret::file(file.path());
        for (text, value) in [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")]
        {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(secret.read().unwrap(), value);
        }
        for text in ["", "\n", "\r\n"] {
            std::fs::write(file.path(), text).unwrap();
            assert!(matches!(secret.read(), Err(SecretError::Empty { .. })), "{text:?}");
        }
        std::fs::write(file.path(), vec![b'x'; 65 * 1024]).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::TooLong { .. })));
        let missing = Secret::file("/no/such/file").read().unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"), "{missing}");
        std::fs::write(file.path(), [0xff, 0xfe]).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Unreadable { .. })), "no UTF-8");
    }
}
