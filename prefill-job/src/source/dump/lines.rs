//! The text of a dump: opened, decompressed, and cut into lines of bounded length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;

const BUFFER: usize = 256 * 1024;
/// How UTF-8 files of some editors begin.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// A longer line does not keep its memory for all that follow.
const KEPT: usize = 1 << 20;

/// Lines of bounded length.
pub(super) struct Lines<'a> {
    text: Box<dyn BufRead + 'a>,
    /// Where the next line begins, in the uncompressed text.
    pub place: u64,
    /// Number of the last line, from 1, if it was begun at the start of the text.
    pub number: u64,
    line: Vec<u8>,
    /// The last line was the first of the text.
    first: bool,
    max_bytes: usize,
}

/// What a step over the text found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line: [`Lines::text`].
    Line,
    /// A line that has too many bytes; it has been passed over.
    TooLong,
    /// No more lines.
    End,
}

/// How a file is compressed, told by how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Plain,
    Gzip,
    Zstd,
    /// One that is not read here.
    Other(&'static str),
    /// Text of two bytes a character, as some editors of Windows write it.
    Utf16,
}

impl Compression {
    const MAGIC: usize = 6;

    fn of(begin: &[u8]) -> Self {
        match begin {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // RFC 8878: a frame, or one to be skipped, which parallel compressors write first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Other("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => Self::Other("bzip2"),
            [b'P', b'K', 3, 4, ..] => Self::Other("zip"),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=0x7f, 0, ..] | [1..=0x7f, 0, 1..=0x7f, 0, ..] => {
                Self::Utf16
            }
            _ => Self::Plain,
        }
    }
}

impl<'a> Lines<'a> {
    /// The lines from a place in the uncompressed text on.
    pub fn open(file: &'a mut File, place: u64, max_bytes: usize) -> io::Result<Self> {
        file.rewind()?;
        let mut begin = Vec::with_capacity(Compression::MAGIC);
        file.by_ref().take(Compression::MAGIC as u64).read_to_end(&mut begin)?;
        file.rewind()?;
        let decompressed = |mut text: Box<dyn BufRead + 'a>| {
            if place == 0 && Compression::of(text.fill_buf()?) == Compression::Utf16 {
                return Err(utf16());
            }
            io::copy(&mut text.by_ref().take(place), &mut io::sink())?;
            Ok::<_, io::Error>(text)
        };
        let text: Box<dyn BufRead + 'a> = match Compression::of(&begin) {
            Compression::Plain => {
                file.seek(SeekFrom::Start(place))?;
                Box::new(BufReader::with_capacity(BUFFER, file))
            }
            Compression::Gzip => {
                let gzip = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
                decompressed(Box::new(BufReader::with_capacity(BUFFER, gzip)))?
            }
            Compression::Zstd => {
                let zstd = Damage(zstd::Decoder::new(file)?);
                decompressed(Box::new(BufReader::with_capacity(BUFFER, zstd)))?
            }
            Compression::Utf16 => return Err(utf16()),
            Compression::Other(name) => {
                let advice = format!("it is compressed with {name}: only gzip and zstd are read");
                return Err(io::Error::new(ErrorKind::InvalidData, advice));
            }
        };
        Ok(Self { text, place, number: 0, line: Vec::new(), first: false, max_bytes })
    }

    /// Goes to the next line.
    pub fn step(&mut self) -> io::Result<Next> {
        self.line.clear();
        if self.line.capacity() > KEPT {
            self.line.shrink_to(KEPT);
        }
        self.number += 1;
        self.first = self.place == 0;
        let bound = self.max_bytes as u64 + 1;
        let read = self.text.by_ref().take(bound).read_until(b'\n', &mut self.line)?;
        self.place += read as u64;
        if read == 0 {
            return Ok(Next::End);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > self.max_bytes {
            self.place += self.text.skip_until(b'\n')? as u64;
            return Ok(Next::TooLong);
        }
        Ok(Next::Line)
    }

    /// The line without its end.
    pub fn text(&self) -> &[u8] {
        let text = if self.first {
            self.line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.line)
        } else {
            &self.line
        };
        text.strip_suffix(b"\r").unwrap_or(text)
    }
}

fn utf16() -> io::Error {
    let advice = "it is text in UTF-16, and only UTF-8 is read: write it as that (iconv -f UTF-16 -t UTF-8)";
    io::Error::new(ErrorKind::InvalidData, advice)
}

/// A decompressor whose own complaints are told apart from those of the disk.
struct Damage<R>(R);

impl<R: Read> Read for Damage<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            ErrorKind::Other => io::Error::new(ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_are_told_by_how_they_begin() {
        for (begin, expected) in [
            (&b"{\"dn\":"[..], Compression::Plain),
            (b"", Compression::Plain),
            (b"\x1f\x8b", Compression::Gzip),
            (b"\x28\xb5\x2f\xfd\x04\x00", Compression::Zstd),
            (b"\x5a\x2a\x4d\x18\x00\x00", Compression::Zstd),
            (b"\xfd7zXZ\0", Compression::Other("xz")),
            (b"BZh91A", Compression::Other("bzip2")),
            (b"PK\x03\x04\x0a\0", Compression::Other("zip")),
            (b"\xff\xfed\0n\0", Compression::Utf16),
            (b"\xfe\xff\0d\0n", Compression::Utf16),
            (b"d\0n\0:\0", Compression::Utf16),
            (b"\0{\0\"\0d", Compression::Utf16),
            (b"dn: \0a", Compression::Plain),
        ] {
            assert_eq!(Compression::of(begin), expected, "{begin:x?}");
        }
    }
}
