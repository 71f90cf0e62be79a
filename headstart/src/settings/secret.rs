//! Passwords: as a value, or as a file that is read again when it changes.

use std::path::Path;

use anyhow::{Context, bail};
use broker::Secret;

/// A password of which the value, the file, or neither was given. `variable` is that of the value, such as
/// `NATS_PASSWORD`; the file's is `NATS_PASSWORD_FILE`. A file is read here, so that a wrong one is reported
/// at the start.
pub fn optional(
    variable: &str,
    value: Option<&Secret>,
    file: Option<&Path>,
) -> anyhow::Result<Option<Secret>> {
    let (of_value, of_file) = (named(variable), named(&format!("{variable}_FILE")));
    match (value, file) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => bail!("both {of_value} and {of_file} are given: give one of them"),
        (Some(value), None) if value.read()?.is_empty() => bail!("the password is empty: {of_value}"),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => {
            let secret = Secret::file(path);
            secret.read().context(of_file)?;
            Ok(Some(secret))
        }
    }
}

/// A password that must be given.
pub fn required(variable: &str, value: Option<&Secret>, file: Option<&Path>) -> anyhow::Result<Secret> {
    optional(variable, value, file)?.with_context(|| missing(variable))
}

/// What to say where a password is missing.
pub fn missing(variable: &str) -> String {
    format!("a password is missing: give {} or {}", named(&format!("{variable}_FILE")), named(variable))
}

/// A setting by its flag and its variable.
fn named(variable: &str) -> String {
    format!("--{} ({variable})", variable.to_ascii_lowercase().replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "of the file\n").unwrap();
        let path = Some(file.path());
        assert_eq!(optional("P", None, None).unwrap(), None);
        assert_eq!(required("P", Some(&"v".into()), None).unwrap().read().unwrap(), "v");
        assert_eq!(required("P", None, path).unwrap().read().unwrap(), "of the file");
        let missing = Some(Path::new("/no/such/file"));
        for (value, file, told) in [
            (Some("v"), path, &["--a-password (A_PASSWORD)", "--a-password-file (A_PASSWORD_FILE)"][..]),
            (None, None, &["--a-password (A_PASSWORD)", "--a-password-file (A_PASSWORD_FILE)"]),
            (None, missing, &["--a-password-file (A_PASSWORD_FILE)", "/no/such/file"]),
            (Some(""), None, &["empty", "A_PASSWORD"]),
        ] {
            let error =
                format!("{:#}", required("A_PASSWORD", value.map(Secret::from).as_ref(), file).unwrap_err());
            assert!(
                told.iter().all(|part| error.contains(part)) && !error.contains("of the file"),
                "{error}"
            );
        }
        std::fs::write(file.path(), "\n").unwrap();
        let empty = format!("{:#}", optional("A_PASSWORD", None, path).unwrap_err());
        assert!(empty.contains("A_PASSWORD_FILE") && empty.contains("empty"), "{empty}");
    }
}
