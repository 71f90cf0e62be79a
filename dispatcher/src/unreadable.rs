//! Entries that can't be read. One that was never a subscription of ours has no queue, and is nothing to us. One that has
//! a queue was written by a newer version, or overwritten: nobody knows what it should get, so the log keeps it.

use std::sync::Arc;

use broker::{Broker, Error};
use model::{Incarnation, SubscriptionName};
use tokio::sync::mpsc;

use crate::{
    lane::{Inlet, Report},
    mailbox::Mailbox,
    metrics::{Metrics, Wait},
    writer::{Gone, Patience, Trouble},
};

/// Holds the log for one entry that can't be read.
pub(crate) struct Holder {
    pub broker: Broker,
    pub metrics: Metrics,
    pub name: SubscriptionName,
    /// Stands for its incarnation, which nobody can tell.
    pub lane: Incarnation,
    pub inlet: Arc<Inlet>,
    pub reports: mpsc::UnboundedSender<Report>,
}

impl Holder {
    /// Works until the entry can be read, or is nothing to us.
    pub(crate) async fn run(self) {
        let mut patience = Patience::new(&self.name, &self.metrics);
        let report = loop {
            let trouble = match self.look().await {
                Ok(Some(trouble)) => trouble,
                Ok(None) => {
                    self.inlet.with(Mailbox::end);
                    break Report::Ended { lane: self.lane, inlet: self.inlet.clone() };
                }
                Err(changed) => break changed,
            };
            if let Err(Gone) = patience.after(trouble).await {
                break Report::Changed;
            }
        };
        self.reports.send(report).ok();
    }

    async fn look(&self) -> Result<Option<Trouble>, Report> {
        let error = match self.broker.registry().get(&self.name).await {
            Ok(_) => return Err(Report::Changed),
            Err(error) => error,
        };
        if !matches!(error, Error::Corrupt { .. }) {
            return Ok(Some(error.into()));
        }
        Ok(match self.broker.has_queue_of(&self.name).await {
            Ok(false) => None,
            Ok(true) => Some(Trouble::Later {
                why: Wait::Unreadable,
                text: "its entry can't be read, and it has a queue: start the version that wrote it, or remove it"
                    .to_owned(),
            }),
            Err(error) => Some(error.into()),
        })
    }
}
