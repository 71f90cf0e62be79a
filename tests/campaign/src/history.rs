//! What happened: every operation with its start, its end and its outcome, as its caller saw it.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

/// Microseconds since the campaign began, on one clock.
pub type Moment = u64;

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was begun.
    pub start: Moment,
    /// When its outcome was known, or given up on.
    pub end: Moment,
    /// What it was.
    #[serde(flatten)]
    pub event: Event,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 201 or 202: it was done by this request; 200 of an acknowledgement or removal.
    Done,
    /// 200 of a registration or of a prefill that was asked for: it was so before.
    Already,
    /// 404: there was nothing to do it to.
    Missing,
    /// No answer, or one that leaves open whether it was done. It may even be done later.
    Unknown,
    /// An answer that says that it was not done, and will not be.
    Refused,
}

/// Which objects a subscription selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Only those of this shade: a filter.
    #[serde(default)]
    pub shade: Option<String>,
    /// Only those at this place of the directory.
    #[serde(default)]
    pub place: Option<u64>,
}

/// One subscription of a consumer, from its registration to its removal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Life {
    /// Name of the subscription.
    pub consumer: String,
    /// Counts the registrations of that name.
    pub life: u32,
}

/// A message as the consumer got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `sequence_number`
    pub sequence: u64,
    /// Is it of a prefill?
    pub prefill: bool,
    /// Topic.
    pub topic: String,
    /// The object.
    pub object: String,
    /// Its version after the change.
    pub version: u64,
    /// Number of the change.
    pub number: u64,
    /// Does it tell that the object is gone?
    pub deleted: bool,
    /// Of a prefill: does it say what was before? Only what a resync tells behind all objects does.
    #[serde(default)]
    pub after: bool,
    /// A property that says nothing of the change.
    #[serde(default)]
    pub shade: Option<String>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Event {
    /// The directory was changed.
    Changed {
        /// Number of the change, from 1, over all objects.
        number: u64,
        /// The object.
        object: String,
        /// Its type.
        topic: String,
        /// Its version after the change.
        version: u64,
        /// Is it there after the change?
        present: bool,
        /// Did it get another DN?
        moved: bool,
        /// What filters look at.
        #[serde(default)]
        shade: String,
        /// Where it is.
        #[serde(default)]
        place: u64,
    },
    /// A try to post a change's event begins.
    Posting {
        /// Number of the change.
        number: u64,
    },
    /// One try to post a change's event.
    Posted {
        /// Number of the change.
        number: u64,
        /// Whether it was accepted.
        outcome: Outcome,
    },
    /// One try to register.
    Registered {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// Requested topics, in order.
        topics: Vec<String>,
        /// Was a prefill asked for?
        prefill: bool,
        /// Which objects of the topics; `None`: all.
        #[serde(default)]
        selection: Option<Selection>,
        /// How it ended.
        outcome: Outcome,
    },
    /// One try to change the topics.
    Topics {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// The new ones, in order.
        topics: Vec<String>,
        /// How it ended.
        outcome: Outcome,
    },
    /// One try to ask for a prefill again.
    Asked {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// With removals of what the consumer may still have?
        #[serde(default)]
        resync: bool,
        /// Only to count?
        #[serde(default)]
        dry_run: bool,
        /// With a limit of no removals, so that it may be held?
        #[serde(default)]
        brake: bool,
        /// How it ended. `Missing`: refused, since another one is under way or it is too early.
        outcome: Outcome,
    },
    /// One try to cancel the prefill.
    Cancelled {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// How it ended. `Missing`: there was nothing to cancel any more.
        outcome: Outcome,
    },
    /// One try to pause the prefill.
    Paused {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// How it ended. `Missing`: there was nothing to pause any more.
        outcome: Outcome,
    },
    /// The prefill was seen to wait, so long after it was paused that whoever worked on it has stopped.
    Waits {
        /// Whose.
        #[serde(flatten)]
        life: Life,
    },
    /// One try to resume it.
    Resumed {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// How it ended. `Missing`: it has ended.
        outcome: Outcome,
    },
    /// One try to change the password.
    Password {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// How it ended.
        outcome: Outcome,
    },
    /// One try to log in after that.
    LoggedIn {
        /// Who.
        #[serde(flatten)]
        life: Life,
        /// With the password that counted before?
        former: bool,
        /// `Refused`: it is wrong.
        outcome: Outcome,
    },
    /// One try to post an event that NATS does not carry.
    Large {
        /// Which.
        large: u64,
        /// Its topic.
        topic: String,
        /// Whether it was accepted.
        outcome: Outcome,
    },
    /// Which events that NATS does not carry are among the dead letters.
    Letters {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// Each as often as it is there.
        large: Vec<u64>,
    },
    /// One try to remove the subscription.
    Removed {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// How it ended.
        outcome: Outcome,
    },
    /// Messages were delivered.
    Delivered {
        /// To whom.
        #[serde(flatten)]
        life: Life,
        /// Do they begin at the queue's head? Otherwise they go on in a stream.
        from_head: bool,
        /// In their order. The record's start is that of the request, also where a stream goes on.
        messages: Vec<Message>,
    },
    /// There was nothing to deliver.
    Empty {
        /// To whom.
        #[serde(flatten)]
        life: Life,
    },
    /// Numbers up to this one were used by the time when it is removed.
    Used {
        /// Whose.
        #[serde(flatten)]
        life: Life,
        /// The highest.
        highest: u64,
    },
    /// One try to acknowledge everything up to a message.
    Acknowledged {
        /// By whom.
        #[serde(flatten)]
        life: Life,
        /// The message's number.
        through: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// At the end the consumer has got the last event, and nothing more came.
    Drained {
        /// Whose queue.
        #[serde(flatten)]
        life: Life,
    },
    /// An answer that no rule explains, such as 409 or 500.
    Unexpected {
        /// To whom.
        #[serde(flatten)]
        life: Life,
        /// What was asked and answered.
        what: String,
    },
    /// Something happened to a process.
    Fault {
        /// What, for people.
        what: String,
        /// What is disturbed from now on, or until now.
        #[serde(default)]
        target: Option<String>,
        /// Is it over?
        #[serde(default)]
        over: bool,
    },
    /// Something was found in NATS at the end that must not be there any more.
    Left {
        /// What.
        what: String,
    },
    /// The run came to its end: whoever has not drained by now has stopped.
    Ended,
}

/// Writes the history while it happens. Clones write the same one.
#[derive(Clone, Debug)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    began: Instant,
}

#[derive(Debug)]
struct Inner {
    records: Vec<Record>,
    file: BufWriter<File>,
}

impl Recorder {
    /// A history that begins now.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let inner = Arc::new(Mutex::new(Inner { records: Vec::new(), file }));
        Ok(Self { inner, began: Instant::now() })
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(Moment::MAX)
    }

    /// Notes an operation that began at `start` and has just ended.
    pub fn note(&self, start: Moment, event: Event) {
        let mut inner = self.lock();
        let record = Record { start, end: self.now(), event };
        if let Ok(line) = serde_json::to_string(&record) {
            // A full disk must not end the campaign: the checker reads what is in memory.
            writeln!(inner.file, "{line}").ok();
        }
        inner.records.push(record);
    }

    /// Notes something of a moment.
    pub fn fault(&self, what: impl Into<String>) {
        self.note(self.now(), Event::Fault { what: what.into(), target: None, over: false });
    }

    /// Notes that something is disturbed from now on.
    pub fn trouble(&self, what: impl Into<String>, target: impl ToString) {
        let target = Some(target.to_string());
        self.note(self.now(), Event::Fault { what: what.into(), target, over: false });
    }

    /// Notes that it is so no more.
    pub fn healed(&self, what: impl Into<String>, target: impl ToString) {
        let target = Some(target.to_string());
        self.note(self.now(), Event::Fault { what: what.into(), target, over: true });
    }

    /// All records so far, in the order of their ends.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let mut inner = self.lock();
        inner.file.flush().ok();
        inner.records.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a history that a run left behind.
///
/// # Errors
/// The file can't be read, or a line is no record.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
