//! A dump of the directory as a source: one JSON object a line, plain or compressed with gzip (told by content).
//!
//! The dump may be in any order, the prefill is in the order of the topics, and neither fits into memory. So the
//! file is scanned once, which checks every line before anything is sent and notes where each type begins and ends,
//! and then read once for each type, between those places. A dump that is grouped by type is read about twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::object::{self, ObjectError};
use super::plan::{Modules, Plan};
use super::{SnapshotObject, SourceError, SourceEvent};

/// How gzip files begin (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Problems that [`Dump::validate`] names one by one.
const PROBLEMS_NAMED: usize = 20;

/// A file of one object a line.
#[derive(Clone, Debug)]
pub struct Dump {
    path: PathBuf,
    /// A line may have so many bytes: a bound on memory.
    max_line_bytes: usize,
}

/// What is in a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By object type.
    pub types: BTreeMap<String, TypeSummary>,
    /// The first lines that are no objects.
    pub problems: Vec<Problem>,
    /// How many lines are no objects.
    pub problem_count: u64,
}

/// The objects of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeSummary {
    /// How many.
    pub objects: u64,
    /// Their bytes, without `_links`.
    pub bytes: u64,
    /// The biggest one's bytes.
    pub biggest_bytes: u64,
    /// Where the first one's line begins, in the uncompressed text.
    begin: u64,
    /// Where the last one's line ends.
    end: u64,
}

/// A line that is no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line number, from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

impl Summary {
    /// All objects.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.types.values().map(|of_type| of_type.objects).sum()
    }
}

impl Dump {
    /// A dump at a path. The file is opened when it is read.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_line_bytes: 256 << 20 }
    }

    /// Refuses longer lines.
    #[must_use]
    pub fn max_line_bytes(self, max_line_bytes: usize) -> Self {
        Self { max_line_bytes, ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it without sending anything. Lines that are no objects are part of the answer.
    ///
    /// # Errors
    /// [`SourceError::DumpFile`] if it can't be read to its end.
    ///
    /// # Cancel safety
    /// Dropping the future ends the reading.
    pub async fn validate(&self) -> Result<Summary, SourceError> {
        self.blocking(|dump, stop| dump.scan(&mut dump.open()?, stop, PROBLEMS_NAMED)).await
    }

    /// See [`super::Source::read`].
    pub(super) async fn read(&self, plan: Plan, out: mpsc::Sender<SourceEvent>) -> Result<(), SourceError> {
        self.blocking(move |dump, stop| dump.send(&plan, &out, stop)).await
    }

    /// Runs on a thread that may wait for the disk, and stops it when the future is dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &CancellationToken) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (dump, stop) = (self.clone(), CancellationToken::new());
        let _stop_on_drop = stop.clone().drop_guard();
        match tokio::task::spawn_blocking(move || work(&dump, &stop)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn send(
        &self,
        plan: &Plan,
        out: &mpsc::Sender<SourceEvent>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let mut file = self.open()?;
        let summary = self.scan(&mut file, stop, 1)?;
        if let Some(Problem { line, problem }) = summary.problems.into_iter().next() {
            return Err(SourceError::DumpLine { path: self.path.clone(), line, problem });
        }
        if summary.types.is_empty() {
            return Err(SourceError::DumpEmpty { path: self.path.clone() });
        }
        let Modules { names, unmatched } = plan.modules(summary.types.keys().map(String::as_str));
        for topic in unmatched {
            // Unlike UDM's index, a dump can't tell a type without objects from one that does not exist.
            tracing::warn!(topic, path = %self.path.display(), "the dump has no object of the topic");
        }
        let send = |event| out.blocking_send(event).map_err(|_| SourceError::ReceiverGone);
        for topic in names {
            let Some(of_type) = summary.types.get(&topic) else { continue };
            send(SourceEvent::TopicStarted { topic: topic.clone(), total: Some(of_type.objects) })?;
            let mut sent = 0;
            let mut lines = self.lines(&mut file, of_type.begin)?;
            while lines.place < of_type.end && !stop.is_cancelled() {
                let Some(line) = lines.next_line().map_err(|e| self.unreadable(0, e))? else { break };
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let object = object::read(line).map_err(|e| self.changed(&e.to_string()))?;
                if object.object_type == topic {
                    let object = object.into_raw().map_err(|e| self.changed(&e.to_string()))?;
                    send(SourceEvent::Object(SnapshotObject { topic: topic.clone(), object, as_of: None }))?;
                    sent += 1;
                }
            }
            if stop.is_cancelled() {
                return Err(SourceError::ReceiverGone);
            }
            if sent != of_type.objects {
                let problem = format!("it had {} objects of {topic}, and now {sent}", of_type.objects);
                return Err(self.changed(&problem));
            }
            send(SourceEvent::TopicFinished { topic })?;
        }
        Ok(())
    }

    /// Reads every line; ends early after `problems_max` bad ones if that is 1.
    fn scan(
        &self,
        file: &mut File,
        stop: &CancellationToken,
        problems_max: usize,
    ) -> Result<Summary, SourceError> {
        let mut summary = Summary::default();
        let mut lines = self.lines(file, 0)?;
        loop {
            let begin = lines.place;
            if stop.is_cancelled() {
                return Err(SourceError::ReceiverGone);
            }
            let read = match lines.next_line() {
                Ok(None) => return Ok(summary),
                Ok(Some(line)) if line.trim_ascii().is_empty() => continue,
                Ok(Some(line)) => object::read(line).map(|o| (o.object_type, o.text.len() as u64)),
                Err(LineError::TooLong) => Err(ObjectError::TooLong(self.max_line_bytes)),
                Err(error) => return Err(self.unreadable(lines.number, error)),
            };
            match read {
                Ok((object_type, bytes)) => {
                    let fresh = TypeSummary { objects: 0, bytes: 0, biggest_bytes: 0, begin, end: 0 };
                    let of_type = summary.types.entry(object_type).or_insert(fresh);
                    of_type.objects += 1;
                    of_type.bytes += bytes;
                    of_type.biggest_bytes = of_type.biggest_bytes.max(bytes);
                    of_type.end = lines.place;
                }
                Err(error) => {
                    summary.problem_count += 1;
                    if summary.problems.len() < problems_max {
                        summary.problems.push(Problem { line: lines.number, problem: error.to_string() });
                    }
                    if problems_max == 1 {
                        return Ok(summary);
                    }
                }
            }
        }
    }

    fn open(&self) -> Result<File, SourceError> {
        File::open(&self.path).map_err(|e| self.unreadable(0, LineError::Io(e)))
    }

    /// The lines from a place in the uncompressed text on.
    fn lines<'a>(&self, file: &'a mut File, place: u64) -> Result<Lines<'a>, SourceError> {
        let open = || -> io::Result<Box<dyn BufRead + 'a>> {
            const BUFFER: usize = 256 * 1024;
            file.rewind()?;
            let mut magic = Vec::new();
            file.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
            if magic != GZIP_MAGIC {
                file.seek(SeekFrom::Start(place))?;
                return Ok(Box::new(BufReader::with_capacity(BUFFER, file)));
            }
            file.rewind()?;
            let file = BufReader::with_capacity(BUFFER, file);
            let mut text = BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file));
            io::copy(&mut text.by_ref().take(place), &mut io::sink())?;
            Ok(Box::new(text))
        };
        let text = open().map_err(|e| self.unreadable(0, LineError::Io(e)))?;
        Ok(Lines { text, place, number: 0, line: Vec::new(), max_bytes: self.max_line_bytes })
    }

    fn unreadable(&self, line: u64, error: LineError) -> SourceError {
        let path = self.path.clone();
        match error {
            LineError::TooLong => self.changed("a line has become longer"),
            LineError::Io(source) => SourceError::DumpFile { path, line, source },
        }
    }

    fn changed(&self, problem: &str) -> SourceError {
        SourceError::DumpChanged { path: self.path.clone(), problem: problem.to_owned() }
    }
}

/// Lines of bounded length.
struct Lines<'a> {
    text: Box<dyn BufRead + 'a>,
    /// Where the next line begins.
    place: u64,
    /// Number of the last line, from 1, if it was begun at the start of the text.
    number: u64,
    line: Vec<u8>,
    max_bytes: usize,
}

enum LineError {
    Io(io::Error),
    /// The rest of the line has been passed over.
    TooLong,
}

impl Lines<'_> {
    /// The next line without its end; `None` at the end of the text.
    fn next_line(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.line.clear();
        // A huge line must not keep its memory for all that follow.
        if self.line.capacity() > (1 << 20) {
            self.line.shrink_to(1 << 20);
        }
        self.number += 1;
        let bound = self.max_bytes as u64 + 1;
        let read = self.text.by_ref().take(bound).read_until(b'\n', &mut self.line).map_err(LineError::Io)?;
        self.place += read as u64;
        if read == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > self.max_bytes {
            self.place += self.text.skip_until(b'\n').map_err(LineError::Io)? as u64;
            return Err(LineError::TooLong);
        }
        Ok(Some(&self.line))
    }
}
