//! Passwords that were not given: generated once, kept in the data directory.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

/// A password, and whether it was made just now.
pub struct Kept {
    pub value: String,
    pub generated: bool,
}

/// Name of the file that keeps the password of a variable.
pub fn file_of(variable: &str) -> &'static str {
    match variable {
        "ADMIN_PASSWORD" => "admin",
        "EVENTS_PASSWORD_UDM" => "events",
        _ => "prefill",
    }
}

/// The password that is kept in the file; else a new one, which is then kept there.
pub fn keep(file: &Path) -> anyhow::Result<Kept> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            let value = text.trim_end().to_owned();
            ensure!(
                !value.is_empty(),
                "the password in {} is empty: write one into it, or remove the file and one is made",
                file.display()
            );
            Ok(Kept { value, generated: false })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let value = uuid::Uuid::new_v4().simple().to_string();
            write_private(file, &format!("{value}\n"))?;
            Ok(Kept { value, generated: true })
        }
        Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
    }
}

/// Writes a file that only we may read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut temporary = PathBuf::from(path);
    temporary.as_mut_os_string().push(".new");
    let write = || {
        let mut file =
            std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_made_once_and_never_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin");
        let made = keep(&file).unwrap();
        assert!(made.generated && made.value.len() == 32);
        let kept = keep(&file).unwrap();
        assert!(!kept.generated && kept.value == made.value);
        for empty in ["", "\n", " \n\n"] {
            std::fs::write(&file, empty).unwrap();
            let error = keep(&file).err().unwrap().to_string();
            assert!(error.contains("admin") && error.contains("empty"), "{error}");
        }
    }
}
