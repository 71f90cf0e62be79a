//! Writes a dump in JSON lines: whole, or not at all. What is no file, such as a pipe or standard output, is written to
//! as the objects come.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use serde_json::value::RawValue;
use tempfile::NamedTempFile;

const BUFFER: usize = 256 * 1024;

/// The path that means standard output.
const STANDARD_OUTPUT: &str = "-";

/// A dump that is being written. Its file appears with [`finish`](Self::finish); until then, and if the writer is
/// dropped, what was there before stays. Only its owner may read it: it holds personal data.
#[derive(Debug)]
pub struct DumpWriter {
    /// As people know it.
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

type Target = BufWriter<Sink>;

/// Where the bytes go.
#[derive(Debug)]
enum Sink {
    /// A file beside the one that it becomes.
    File { beside: NamedTempFile, becomes: PathBuf },
    /// A pipe, a terminal or another device.
    Open(File),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { beside, .. } => beside.write(bytes),
            Self::Open(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { beside, .. } => beside.flush(),
            Self::Open(file) => file.flush(),
        }
    }
}

impl Sink {
    fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new(STANDARD_OUTPUT) {
            return Ok(Self::Open(io::stdout().as_fd().try_clone_to_owned()?.into()));
        }
        // Replacing a pipe or a device with a file would take it away from all other programs.
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return OpenOptions::new().write(true).open(path).map(Self::Open);
        }
        // A link stays; its target is replaced.
        let becomes = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // What a power cut leaves behind says what it was to become.
        let prefix = format!(".{}.", becomes.file_name().unwrap_or_default().to_string_lossy());
        let beside = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder(&becomes))?;
        Ok(Self::File { beside, becomes })
    }

    /// Gives a file its name, and brings both to the disk.
    fn finish(self) -> io::Result<()> {
        let Self::File { beside, becomes } = self else { return Ok(()) };
        beside.as_file().sync_all()?;
        beside.persist(&becomes).map_err(|error| error.error)?;
        // The new name, too.
        File::open(folder(&becomes))?.sync_all()
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

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
    /// Begins a dump at a path, compressed as the name ends: `.gz`, `.zst`, or not. `-` is standard output.
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
            let target = BufWriter::with_capacity(BUFFER, Sink::open(&path)?);
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
        let begun = begun();
        let path = if path == Path::new(STANDARD_OUTPUT) { "standard output".into() } else { path };
        match begun {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(WriteError::Io { path, source }),
        }
    }

    /// Where it is written to, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does it become a file, which is there whole or not at all?
    #[must_use]
    pub fn becomes_file(&self) -> bool {
        let target = match &self.text {
            Text::Plain(target) => target,
            Text::Gzip(encoder) => encoder.get_ref(),
            Text::Zstd(Zstd(encoder)) => encoder.get_ref(),
        };
        matches!(target.get_ref(), Sink::File { .. })
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

    /// Brings it to the disk and gives it its name. A file that had the name before is replaced.
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
            target.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
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
