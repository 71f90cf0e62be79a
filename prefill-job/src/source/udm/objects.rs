//! The objects of a list: asked for many at once, sent in the list's order.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Client, Got};
use super::entries::{Entries, Entry};
use super::gate::Gate;
use super::room::{Room, Space};
use crate::source::outlet::Outlet;
use crate::source::plan::Plan;
use crate::source::{AsOf, SnapshotObject, SourceError, SourceEvent};

/// Objects that may be asked for or wait, read, behind one that is slow: this times the concurrency.
const WINDOW_FACTOR: usize = 8;
/// And so many at least.
const WINDOW_MIN: usize = 32;

/// So many broken objects one after the other are no broken objects but a broken UDM.
const BROKEN_IN_A_ROW_MAX: u32 = 16;
/// And so many in one snapshot: as many as the API shows dead letters.
const BROKEN_MAX: u32 = 1000;

/// Reads objects.
pub(super) struct Objects {
    pub client: Arc<Client>,
    pub gate: Arc<Gate>,
    pub plan: Plan,
    pub as_of: AsOf,
    pub out: Outlet,
    pub broken: Broken,
}

/// Counts broken objects, so that a broken UDM is not taken for many of them.
#[derive(Debug, Default)]
pub(super) struct Broken {
    in_a_row: u32,
    all: u32,
}

impl Broken {
    /// Counts an object that was there.
    fn well(&mut self) {
        self.in_a_row = 0;
    }

    /// Counts a broken one; an error if it is one too many.
    fn one(&mut self, problem: &str) -> Result<(), SourceError> {
        self.in_a_row += 1;
        self.all += 1;
        if self.in_a_row < BROKEN_IN_A_ROW_MAX && self.all <= BROKEN_MAX {
            return Ok(());
        }
        let (in_a_row, all) = (self.in_a_row, self.all);
        Err(SourceError::TooManyBroken { in_a_row, all, problem: problem.to_owned() })
    }
}

type Reading = AbortOnDropHandle<(Result<Got, SourceError>, Space)>;

impl Objects {
    /// Reads the objects of a module's list.
    pub async fn read(&mut self, module: &str, mut entries: Entries) -> Result<(), SourceError> {
        let topic = module.to_owned();
        let total = Some(entries.len() as u64);
        self.out.send(SourceEvent::TopicStarted { topic: topic.clone(), total }).await?;
        self.gate.other_type();
        let room = Room::new();
        let teller = self.out.teller();
        // Tasks, so that requests go on while the engine writes.
        let mut reading: VecDeque<(Entry, Reading)> = VecDeque::new();
        let (mut asked, mut sent) = (0, 0);
        loop {
            while reading.len() < (self.gate.limit() * WINDOW_FACTOR).max(WINDOW_MIN) {
                let Some(entry) = entries.next().map_err(|e| kept_list(module, &e))? else { break };
                let task = self.task(entry.clone(), room.space(asked), teller.clone());
                reading.push_back((entry, task));
                asked += 1;
            }
            let Some((entry, task)) = reading.pop_front() else { break };
            room.turn(sent);
            let (got, space) = match task.await {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            let event = self.event(module, entry, got?)?;
            self.out.send(event).await?;
            drop(space);
            sent += 1;
        }
        self.out.send(SourceEvent::TopicFinished { topic }).await
    }

    fn task(&self, entry: Entry, mut space: Space, teller: mpsc::Sender<SourceEvent>) -> Reading {
        let (client, gate, as_of) = (Arc::clone(&self.client), Arc::clone(&self.gate), self.as_of.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let got = client.object(&entry, &gate, &mut space, &as_of, &teller).await;
            (got, space)
        }))
    }

    fn event(&mut self, module: &str, entry: Entry, got: Got) -> Result<SourceEvent, SourceError> {
        let topic = module.to_owned();
        if !matches!(got, Got::Broken(_)) {
            self.broken.well();
        }
        Ok(match got {
            Got::Object(object) if self.still_wanted(&object, module) => SourceEvent::Object(object),
            Got::Object(_) | Got::Gone => SourceEvent::Skipped { topic, dn: entry.dn, confirmed: false },
            Got::Broken(problem) => {
                self.broken.one(&problem)?;
                SourceEvent::Broken { topic, dn: entry.dn, problem }
            }
        })
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
    fn a_broken_udm_is_not_many_broken_objects() {
        let mut broken = Broken::default();
        for _ in 1..BROKEN_IN_A_ROW_MAX {
            broken.one("500").unwrap();
        }
        let error = broken.one("500").unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("16 objects"), "{error}");

        let mut broken = Broken::default();
        for _ in 0..BROKEN_MAX {
            broken.one("500").unwrap();
            broken.well();
        }
        assert!(broken.one("500").is_err());
    }
}
