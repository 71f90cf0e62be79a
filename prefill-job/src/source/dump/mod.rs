//! A dump of the directory as a source: JSON lines (an object of UDM each), or LDIF (`slapcat`, `ldapsearch`), plain
//! or compressed with gzip or zstd. All of that is told by content.
//!
//! ```text
//!  file ─► Lines (decompressed, bounded) ─► Records ─┬─ a JSON line ───────────────────┬─► object
//!                                                    └─ LDIF block ─► Entry ─► unmap ──┘
//! ```
//!
//! The dump may be in any order, the prefill is in the order of the topics, and neither fits into memory. So the
//! file is scanned once, which checks every record before anything is sent and notes where each type begins and ends,
//! and then read once for each type, between those places. A dump that is grouped by type is read about twice.

mod ldif;
mod lines;
mod records;
mod summary;
mod unmap;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::lines::Lines;
use self::records::{Found, Record, Records};
use super::outlet::Outlet;
use super::plan::{Modules, Plan};
use super::{SnapshotObject, SourceError, SourceEvent};

pub use summary::{Format, Problem, Summary, TypeSummary};
pub use writer::{DumpWriter, WriteError};

/// A file that holds a directory.
#[derive(Clone, Debug)]
pub struct Dump {
    path: PathBuf,
    /// A record may have so many bytes: a bound on memory.
    max_record_bytes: usize,
}

impl Dump {
    /// A dump at a path. The file is opened when it is read.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_record_bytes: 256 << 20 }
    }

    /// Refuses larger records.
    #[must_use]
    pub fn max_record_bytes(self, max_record_bytes: usize) -> Self {
        Self { max_record_bytes, ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it without sending anything. Records that are no objects are part of the answer, of which the
    /// first `problems_max` are named.
    ///
    /// # Errors
    /// [`SourceError::DumpFile`] if it can't be read to its end.
    ///
    /// # Cancel safety
    /// Dropping the future ends the reading.
    pub async fn validate(&self, problems_max: usize) -> Result<Summary, SourceError> {
        self.blocking(move |dump, stop| dump.scan(&mut dump.open()?, stop, Some(problems_max))).await
    }

    /// See [`super::Source::read`].
    pub(super) async fn read(&self, plan: Plan, out: mpsc::Sender<SourceEvent>) -> Result<(), SourceError> {
        let (mut out, waits) = (Outlet::new(out), Handle::current());
        self.blocking(move |dump, stop| dump.send(&plan, &mut |event| waits.block_on(out.send(event)), stop))
            .await
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
        send: &mut impl FnMut(SourceEvent) -> Result<(), SourceError>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let mut file = self.open()?;
        let summary = self.scan(&mut file, stop, None)?;
        if let Some(Problem { line, problem }) = summary.problems.into_iter().next() {
            return Err(SourceError::DumpLine { path: self.path.clone(), line, problem });
        }
        if summary.types.is_empty() {
            let (path, untyped) = (self.path.clone(), summary.untyped);
            return Err(SourceError::DumpEmpty { path, untyped });
        }
        let left_out: u64 = summary.types.values().flat_map(|t| t.left_out.values()).sum();
        if left_out > 0 || summary.untyped > 0 {
            tracing::info!(
                path = %self.path.display(), attributes = left_out, entries = summary.untyped,
                "not all of the LDIF has a place in objects of UDM; `headstart validate` tells what"
            );
        }
        let Modules { names, unmatched } = plan.modules(summary.types.keys().map(String::as_str));
        for topic in unmatched {
            // Unlike UDM's index, a dump can't tell a type without objects from one that does not exist.
            send(SourceEvent::NoModule { topic })?;
        }
        for topic in names {
            if let Some(of_type) = summary.types.get(&topic) {
                self.send_type(&mut file, summary.format, topic, of_type, send, stop)?;
            }
        }
        Ok(())
    }

    fn send_type(
        &self,
        file: &mut File,
        format: Format,
        topic: String,
        of_type: &TypeSummary,
        send: &mut impl FnMut(SourceEvent) -> Result<(), SourceError>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        send(SourceEvent::TopicStarted { topic: topic.clone(), total: Some(of_type.objects) })?;
        let mut sent = 0;
        let mut records = self.records(file, format, of_type.begin)?;
        loop {
            if stop.is_cancelled() {
                return Err(SourceError::ReceiverGone);
            }
            let next = records.next().map_err(|e| self.unreadable(0, e))?;
            let Some(Found { begin, record, .. }) = next.filter(|found| found.begin < of_type.end) else {
                break;
            };
            match record {
                Record::Object { object, .. } if object.object_type == topic => {
                    let object = object.into_raw().map_err(|e| self.changed(&e.to_string()))?;
                    send(SourceEvent::Object(SnapshotObject { topic: topic.clone(), object, as_of: None }))?;
                    sent += 1;
                }
                Record::Object { .. } | Record::Untyped => {}
                Record::Bad(Problem { problem, .. }) => {
                    return Err(self.changed(&format!("at byte {begin} of its text: {problem}")));
                }
            }
        }
        if sent != of_type.objects {
            let problem = format!("it had {} objects of {topic}, and now {sent}", of_type.objects);
            return Err(self.changed(&problem));
        }
        send(SourceEvent::TopicFinished { topic })
    }

    /// Reads every record; without a number of problems to name it ends with the first.
    fn scan(
        &self,
        file: &mut File,
        stop: &CancellationToken,
        problems_max: Option<usize>,
    ) -> Result<Summary, SourceError> {
        let format = self.format(file)?;
        let mut summary = Summary::new(format);
        let mut records = self.records(file, format, 0)?;
        loop {
            if stop.is_cancelled() {
                return Err(SourceError::ReceiverGone);
            }
            let line = records.line();
            let found = match records.next() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(summary),
                Err(error) => return Err(self.unreadable(line, error)),
            };
            summary.note(found, problems_max.unwrap_or(1));
            if problems_max.is_none() && summary.problem_count > 0 {
                return Ok(summary);
            }
        }
    }

    fn open(&self) -> Result<File, SourceError> {
        File::open(&self.path).map_err(|e| self.unreadable(0, e))
    }

    /// By its name, which also says of a file that begins badly what it should be, or by its content.
    fn format(&self, file: &mut File) -> Result<Format, SourceError> {
        match Format::of_name(&self.path) {
            Some(format) => Ok(format),
            None => {
                let lines = Lines::open(file, 0, self.max_record_bytes);
                lines.and_then(records::format).map_err(|e| self.unreadable(0, e))
            }
        }
    }

    /// The records from a place in the uncompressed text on.
    fn records<'a>(
        &self,
        file: &'a mut File,
        format: Format,
        place: u64,
    ) -> Result<Records<'a>, SourceError> {
        let lines = Lines::open(file, place, self.max_record_bytes).map_err(|e| self.unreadable(0, e))?;
        Ok(Records::new(lines, format, self.max_record_bytes))
    }

    fn unreadable(&self, line: u64, source: io::Error) -> SourceError {
        SourceError::DumpFile { path: self.path.clone(), line, source }
    }

    fn changed(&self, problem: &str) -> SourceError {
        SourceError::DumpChanged { path: self.path.clone(), problem: problem.to_owned() }
    }
}
