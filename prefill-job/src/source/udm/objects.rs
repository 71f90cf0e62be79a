//! The objects of a list: asked for many at once, sent in the list's order.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::BrokenObjects;
use super::entries::Entry;
use super::list::{BrokenEntry, Listed};
use super::read_ahead::Reservation;
use super::session::{Got, Session};
use crate::source::outlet::Outlet;
use crate::source::plan::Plan;
use crate::source::{SnapshotObject, SourceError, SourceEvent};

/// Objects that may be asked for or wait, read, behind one that is slow: this times the concurrency.
const WINDOW_FACTOR: usize = 8;
/// And so many at least.
const WINDOW_MIN: usize = 32;

/// So many broken objects one after the other may be a broken UDM: then it is looked whether it still shows an object that
/// it has shown before. An import may have broken a whole container.
const BROKEN_IN_A_ROW_MAX: u32 = 16;
/// And so many in one snapshot: as many as the API shows dead letters.
const BROKEN_MAX: u32 = 1000;

/// Reads objects.
pub(super) struct Objects {
    pub session: Arc<Session>,
    pub plan: Plan,
    pub out: Outlet,
    pub broken: Broken,
    /// Objects that were asked for, of all lists: their numbers at the gate.
    pub asked: u64,
}

/// Counts broken objects, so that a broken UDM is not taken for many of them.
#[derive(Debug, Default)]
pub(super) struct Broken {
    in_a_row: u32,
    all: u32,
    /// Type and DN of the object that was read last.
    good: Option<(Arc<str>, String)>,
}

impl Broken {
    /// Counts an object that was there.
    fn well(&mut self) {
        self.in_a_row = 0;
    }

    /// Counts a broken one.
    fn one(&mut self) {
        self.in_a_row += 1;
        self.all += 1;
    }

    /// Are they as many as only a broken UDM has?
    fn verdict(&self) -> Breakage {
        match self {
            _ if self.all > BROKEN_MAX => Breakage::TooMany,
            Self { in_a_row: BROKEN_IN_A_ROW_MAX.., good: Some(_), .. } => Breakage::Doubtful,
            Self { in_a_row: BROKEN_IN_A_ROW_MAX.., good: None, .. } => Breakage::TooMany,
            _ => Breakage::Few,
        }
    }

    fn too_many(&self, problem: &str) -> SourceError {
        SourceError::TooManyBroken { in_a_row: self.in_a_row, all: self.all, problem: problem.to_owned() }
    }
}

/// What the number of broken objects tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breakage {
    Few,
    /// Only another request can tell whether UDM is broken.
    Doubtful,
    TooMany,
}

type Reading = AbortOnDropHandle<(Result<Got, SourceError>, Reservation)>;

impl Objects {
    /// Reads the objects of a module's list, and answers which strays were seen.
    pub async fn read(&mut self, module: &str, listed: Listed) -> Result<HashSet<String>, SourceError> {
        let Listed { mut entries, broken, wanted, .. } = listed;
        let topic = module.to_owned();
        let total = Some((entries.len() + broken.len()) as u64);
        self.out.send(SourceEvent::TopicStarted { topic: topic.clone(), total }).await?;
        for BrokenEntry { dn, uuid, problem } in broken {
            // UDM lists the others: it is well.
            self.broken.well();
            let event = self.broken(module, dn, Some(uuid), problem).await?;
            self.out.send(event).await?;
        }
        self.session.permits.other_type();
        // Tasks, so that requests go on while the engine writes.
        let mut reading: VecDeque<(Entry, Reading)> = VecDeque::new();
        let mut turn = self.asked;
        loop {
            while reading.len() < (self.session.permits.limit() * WINDOW_FACTOR).max(WINDOW_MIN) {
                let Some(entry) = entries.next().map_err(|e| kept_list(module, &e))? else { break };
                let task = self.task(entry.clone());
                reading.push_back((entry, task));
                self.asked += 1;
            }
            let Some((entry, task)) = reading.pop_front() else { break };
            self.session.permits.turn(turn);
            let (got, reservation) = match task.await {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            let event = self.event(module, entry, got).await?;
            self.out.send(event).await?;
            drop(reservation);
            turn += 1;
        }
        self.out.send(SourceEvent::TopicFinished { topic }).await?;
        Ok(wanted.strays)
    }

    fn task(&self, entry: Entry) -> Reading {
        let session = Arc::clone(&self.session);
        let mut reservation = session.permits.reservation(self.asked);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let got = session.object(&entry, &mut reservation).await;
            (got, reservation)
        }))
    }

    async fn event(
        &mut self,
        module: &str,
        entry: Entry,
        got: Result<Got, SourceError>,
    ) -> Result<SourceEvent, SourceError> {
        let topic = module.to_owned();
        let Entry { dn, uuid, object_type } = entry;
        Ok(match got {
            Err(error) if error.is_of_one_object() => {
                return self.broken(module, dn, uuid, error).await;
            }
            Err(error) => return Err(error),
            Ok(got) => {
                self.broken.well();
                match got {
                    Got::Object(object) if self.still_wanted(&object, module) => {
                        self.broken.good = Some((object_type, dn));
                        SourceEvent::Object(object)
                    }
                    Got::Object(_) => SourceEvent::Skipped { topic, dn, confirmed: false },
                    Got::Gone { confirmed } => SourceEvent::Skipped { topic, dn, confirmed },
                }
            }
        })
    }

    /// An object that can't be read: left out by name, or the end.
    async fn broken(
        &mut self,
        module: &str,
        dn: String,
        uuid: Option<Uuid>,
        error: SourceError,
    ) -> Result<SourceEvent, SourceError> {
        if self.session.client().config().broken_objects == BrokenObjects::Fail {
            return Err(error);
        }
        let problem = model::error_chain(&error);
        self.broken.one();
        match self.broken.verdict() {
            Breakage::Few => {}
            Breakage::Doubtful if self.shows_what_it_showed().await => self.broken.well(),
            Breakage::Doubtful | Breakage::TooMany => return Err(self.broken.too_many(&problem)),
        }
        Ok(SourceEvent::Broken { topic: module.to_owned(), dn, uuid, problem })
    }

    /// Does UDM still show the object that was read last?
    async fn shows_what_it_showed(&self) -> bool {
        let Some((object_type, dn)) = &self.broken.good else { return false };
        matches!(self.session.exists(object_type, dn).await, Ok(true))
    }

    /// An object may have become one of another type since it was listed.
    fn still_wanted(&self, object: &SnapshotObject, module: &str) -> bool {
        object.topic == module || self.plan.is_match(&object.topic)
    }
}

fn kept_list(module: &str, error: &std::io::Error) -> SourceError {
    SourceError::Unreadable { what: format!("the list of {module}"), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_broken_objects_are_doubtful_in_a_row_and_too_many_in_all() {
        let mut broken = Broken::default();
        for _ in 1..BROKEN_IN_A_ROW_MAX {
            broken.one();
            assert_eq!(broken.verdict(), Breakage::Few);
        }
        broken.one();
        assert_eq!(broken.verdict(), Breakage::TooMany, "nothing was ever read");
        broken.good = Some(("users/user".into(), "uid=a,dc=x".into()));
        assert_eq!(broken.verdict(), Breakage::Doubtful);
        let error = broken.too_many("500");
        assert!(error.is_transient() && error.to_string().contains("16 objects"), "{error}");

        while broken.all < BROKEN_MAX {
            broken.well();
            broken.one();
            assert_eq!(broken.verdict(), Breakage::Few);
        }
        broken.one();
        assert_eq!(broken.verdict(), Breakage::TooMany);
    }
}
