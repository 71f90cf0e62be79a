//! A dump of the directory as a source: JSON lines (an object of UDM each), or LDIF (`slapcat`, `ldapsearch`), plain
//! or compressed with gzip or zstd. All of that is told by content.
//!
//! ```text
//!  file ─► Lines (decompressed, bounded) ─► Records ─┬─ a JSON line ────────────────────────────┬─► object
//!                                                    └─ LDIF block ─► Entry ─► unmap (+ Facts) ─┘
//! ```
//!
//! The dump may be in any order, the prefill is in the order of the topics, and neither fits into memory. So the
//! file is scanned once: every record is checked before anything is sent, it is noted where each type begins and ends,
//! and what entries tell of each other ([`Facts`]). Then all small types together are read into memory, and each large
//! one between its places. A dump of a directory, in whatever order, is read some three times.

mod entry;
mod facts;
mod ldif;
mod lines;
mod records;
mod scan;
mod summary;
mod unmap;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::lines::Lines;
use self::records::{Found, Record, Records};
use self::scan::Scan;
use self::unmap::unmap;
use super::outlet::Outlet;
use super::plan::{Modules, Plan};
use super::{SnapshotObject, SourceError, SourceEvent};

pub use summary::{Format, Problem, Summary, TypeSummary};
pub use writer::{DumpWriter, WriteError};

/// Bytes of text of types that are read together, into memory.
const TOGETHER_MAX: u64 = 16 << 20;

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
        self.blocking(move |dump, stop| {
            let mut file = dump.open()?;
            let mut scan = Scan::read(dump, &mut file, stop, Some(problems_max))?;
            scan.measure(dump, &mut file, stop)?;
            Ok(scan.summary)
        })
        .await
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
        let mut scan = Scan::read(self, &mut file, stop, None)?;
        if let Some(Problem { line, problem }) = scan.summary.problems.pop() {
            return Err(SourceError::DumpLine { path: self.path.clone(), line, problem });
        }
        let summary = &scan.summary;
        if summary.types.is_empty() {
            let (path, untyped) = (self.path.clone(), summary.untyped);
            return Err(SourceError::DumpEmpty { path, untyped });
        }
        let not_listed: u64 = summary.not_listed.values().sum();
        if not_listed > 0 || summary.untyped > 0 {
            tracing::info!(
                path = %self.path.display(), untyped = summary.untyped, not_listed,
                "entries of the LDIF that UDM would not list are left out; `headstart validate` tells more"
            );
        }
        let Modules { names, unmatched } = plan.modules(summary.types.keys().map(String::as_str));
        for topic in unmatched {
            // Unlike UDM's index, a dump can't tell a type without objects from one that does not exist.
            send(SourceEvent::NoModule { topic })?;
        }
        let mut kept = self.read_together(&mut file, &scan, &names, stop)?;
        for topic in names {
            let Some(total) = scan.summary.types.get(&topic).map(|of_type| of_type.objects) else { continue };
            send(SourceEvent::TopicStarted { topic: topic.clone(), total: Some(total) })?;
            let mut sent = 0;
            let mut object = |object| {
                sent += 1;
                send(SourceEvent::Object(SnapshotObject { topic: topic.clone(), object, as_of: None }))
            };
            match kept.remove(&topic) {
                Some(objects) => objects.into_iter().try_for_each(&mut object)?,
                None => self.read_types(&mut file, &scan, &[&topic], stop, &mut |_, text| object(text))?,
            }
            if sent != total {
                return Err(self.changed(&format!("it had {total} objects of {topic}, and now {sent}")));
            }
            send(SourceEvent::TopicFinished { topic })?;
        }
        Ok(())
    }

    /// The objects of small types, which one pass brings together.
    fn read_together(
        &self,
        file: &mut File,
        scan: &Scan,
        names: &[String],
        stop: &CancellationToken,
    ) -> Result<BTreeMap<String, VecDeque<Box<RawValue>>>, SourceError> {
        let bytes = |name: &str| scan.summary.types.get(name).map_or(0, |of_type| of_type.text_bytes);
        let mut small: Vec<&str> = names.iter().map(String::as_str).collect();
        small.sort_by_key(|name| bytes(name));
        let mut left = TOGETHER_MAX;
        small.retain(|name| match left.checked_sub(bytes(name)) {
            Some(less) => {
                left = less;
                true
            }
            None => false,
        });
        let mut kept = BTreeMap::<String, VecDeque<Box<RawValue>>>::new();
        // A single one is as well read when it is its turn.
        if small.len() > 1 {
            self.read_types(file, scan, &small, stop, &mut |topic, object| {
                kept.entry(topic.to_owned()).or_default().push_back(object);
                Ok(())
            })?;
        }
        Ok(kept)
    }

    /// Reads the objects of some types, in the order of the file.
    fn read_types(
        &self,
        file: &mut File,
        scan: &Scan,
        topics: &[&str],
        stop: &CancellationToken,
        take: &mut impl FnMut(&str, Box<RawValue>) -> Result<(), SourceError>,
    ) -> Result<(), SourceError> {
        let places =
            topics.iter().filter_map(|topic| scan.summary.types.get(*topic)).map(|found| &found.place);
        let (begin, end) =
            places.fold((u64::MAX, 0), |(begin, end), place| (begin.min(place.start), end.max(place.end)));
        let mut records = self.records(file, scan.summary.format, begin.min(end))?;
        loop {
            if stop.is_cancelled() {
                return Err(SourceError::ReceiverGone);
            }
            let next = records.next().map_err(|e| self.unreadable(0, e))?;
            let Some(Found { begin, record, .. }) = next.filter(|found| found.begin < end) else {
                return Ok(());
            };
            match record {
                Record::Object(object) => {
                    if let Some(topic) = topics.iter().find(|topic| **topic == object.object_type) {
                        take(topic, object.into_raw().map_err(|e| self.changed(&e.to_string()))?)?;
                    }
                }
                Record::Entry(entry) => {
                    let attributes = entry.attributes();
                    let wanted = attributes.object_type();
                    let topic = wanted.and_then(|name| topics.iter().find(|topic| **topic == name));
                    if let Some(topic) = topic.filter(|topic| scan.is_listed(topic, &attributes)) {
                        let object = unmap(topic, &attributes, &scan.facts, scan.now).object.to_string();
                        take(
                            topic,
                            RawValue::from_string(object).map_err(|e| self.changed(&e.to_string()))?,
                        )?;
                    }
                }
                Record::Bad(Problem { problem, .. }) => {
                    return Err(self.changed(&format!("at byte {begin} of its text: {problem}")));
                }
            }
        }
    }

    fn open(&self) -> Result<File, SourceError> {
        let open = || {
            // Before it is opened: a pipe to which nobody writes would keep us waiting.
            let found = std::fs::metadata(&self.path)?;
            if !found.is_file() && !found.is_dir() {
                let problem = "it is no file: a dump is read more than once, so write it to one first";
                return Err(io::Error::new(io::ErrorKind::NotSeekable, problem));
            }
            File::open(&self.path)
        };
        open().map_err(|e| self.unreadable(0, e))
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

/// The objects of a text that is LDIF, for fuzzing.
pub(super) fn objects_of(text: &[u8]) -> Option<Vec<String>> {
    let mut file = tempfile::tempfile().ok()?;
    io::Write::write_all(&mut file, text).ok()?;
    let dump = Dump { path: "text.ldif".into(), max_record_bytes: 1 << 20 };
    let scan = Scan::read(&dump, &mut file, &CancellationToken::new(), None).ok()?;
    let types: Vec<&str> = scan.summary.types.keys().map(String::as_str).collect();
    let mut objects = Vec::new();
    dump.read_types(&mut file, &scan, &types, &CancellationToken::new(), &mut |_, object| {
        objects.push(object.get().to_owned());
        Ok(())
    })
    .ok()?;
    (scan.summary.problem_count == 0).then(|| {
        assert_eq!(objects.len() as u64, scan.summary.objects(), "what was counted comes");
        objects
    })
}
