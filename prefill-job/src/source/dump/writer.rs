//! Writes a dump in JSON lines: whole, or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use serde_json::value::RawValue;
use tempfile::NamedTempFile;

const BUFFER: usize = 256 * 1024;

/// A dump that is being written. Its file appears with [`finish`](Self::finish); until then, and if the writer is
/// dropped, what was there before stays. Only its owner may read it: it holds personal data.
#[derive(Debug)]
pub struct DumpWriter {
    path: PathBuf,
    text: Text,
}

/// Why a dump can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The name asks for what is not written.
    #[error("{} can't be written: {problem}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// The disk or the folder.
    #[error("can't write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

type Target = BufWriter<NamedTempFile>;

#[derive(Debug)]
enum Text {
    Plain(Target),
    Gzip(GzEncoder<Target>),
    Zstd(Zstd),
}

struct Zstd(zstd::Encoder<'static, Target>);

impl std::fmt::Debug for Zstd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Zstd")
    }
}

/// How a file is to be compressed, by its name.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Plain,
    Gzip,
    Zstd,
}

fn ending(path: &Path) -> Result<Ending, &'static str> {
    let name = path.file_name().ok_or("a file is expected")?.to_string_lossy().to_lowercase();
    let (name, ending) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(name), _) => (name, Ending::Gzip),
        (_, Some(name)) => (name, Ending::Zstd),
        (None, None) => (name.as_str(), Ending::Plain),
    };
    if name.ends_with(".ldif") {
        return Err("dumps are written in JSON lines, not in LDIF: name it .jsonl, .jsonl.gz or .jsonl.zst");
    }
    if [".xz", ".bz2", ".zip", ".7z"].iter().any(|other| name.ends_with(other)) {
        return Err("only gzip (.gz) and zstd (.zst) are written");
    }
    Ok(ending)
}

impl DumpWriter {
    /// Begins a dump at a path, compressed as the name ends: `.gz`, `.zst`, or not.
    ///
    /// # Errors
    /// [`WriteError`]: another compression or format is asked for, or the folder can't be written to.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, WriteError> {
        let path = path.into();
        let ending = match ending(&path) {
            Ok(ending) => ending,
            Err(problem) => return Err(WriteError::Name { path, problem }),
        };
        let begun = || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            // What a power cut leaves behind says what it was to become.
            let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
            let file =
                tempfile::Builder::new().prefix(&prefix).tempfile_in(folder.unwrap_or(Path::new(".")))?;
            let target = BufWriter::with_capacity(BUFFER, file);
            Ok(match ending {
                Ending::Plain => Text::Plain(target),
                Ending::Gzip => Text::Gzip(GzEncoder::new(target, flate2::Compression::default())),
                Ending::Zstd => {
                    let mut encoder = zstd::Encoder::new(target, 0)?;
                    encoder.include_checksum(true)?;
                    Text::Zstd(Zstd(encoder))
                }
            })
        };
        match begun() {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(WriteError::Io { path, source }),
        }
    }

    /// Adds an object.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn write(&mut self, object: &RawValue) -> Result<(), WriteError> {
        let text = object.get();
        // Between the parts of JSON a line's end is as good as a space; inside a string it can't stand.
        let text = match text.contains(['\n', '\r']) {
            true => &text.replace(['\n', '\r'], " "),
            false => text,
        };
        let to: &mut dyn Write = match &mut self.text {
            Text::Plain(to) => to,
            Text::Gzip(to) => to,
            Text::Zstd(Zstd(to)) => to,
        };
        let written = to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n"));
        written.map_err(|source| WriteError::Io { path: self.path.clone(), source })
    }

    /// Brings it to the disk and gives it its name. What had the name before is replaced.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn finish(self) -> Result<(), WriteError> {
        let Self { path, text } = self;
        let finish = || {
            let target = match text {
                Text::Plain(target) => target,
                Text::Gzip(encoder) => encoder.finish()?,
                Text::Zstd(Zstd(encoder)) => encoder.finish()?,
            };
            let file = target.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            // The new name, too.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        finish().map_err(|source| WriteError::Io { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_compression() {
        for (name, expected) in [
            ("a.jsonl", Some(Ending::Plain)),
            ("a", Some(Ending::Plain)),
            ("a.jsonl.GZ", Some(Ending::Gzip)),
            ("a.jsonl.zst", Some(Ending::Zstd)),
            ("a.ldif", None),
            ("a.ldif.gz", None),
            ("a.jsonl.xz", None),
            ("..", None),
        ] {
            assert_eq!(ending(Path::new(name)).ok(), expected, "{name}");
        }
    }
}
