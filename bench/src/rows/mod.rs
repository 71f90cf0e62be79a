//! The rows of the table, a file per group. Each group has an installation of its own, so that any may run alone.

use std::time::Instant;

use anyhow::Result;

use crate::{
    installation::Programs,
    measure::{Row, Run},
    table::Group,
};

mod dispatch;
mod events;
mod latency;
mod load;
mod prefill;
mod reading;
mod recovery;
mod registration;
mod resources;
mod size;
mod streams;

/// The groups by the name that `--only` knows, with their titles.
pub const GROUPS: [(&str, &str); 9] = [
    ("reading", "Reading"),
    ("dispatch", "Dispatching"),
    ("events", "Events to many subscriptions"),
    ("latency", "Latency from accepted to delivered"),
    ("registration", "Registration"),
    ("resources", "Memory and CPU"),
    ("size", "Cost by number of subscriptions and length of a queue"),
    ("recovery", "Back in work after kill -9"),
    ("prefill", "Prefill"),
];

/// What all rows need to know.
pub struct Bench {
    /// Where the programs are.
    pub programs: Programs,
    /// Runs of each row.
    pub runs: usize,
    /// Smaller amounts, for a trial.
    pub quick: bool,
    /// When it began.
    pub began: Instant,
}

impl Bench {
    /// An amount, or a smaller one for a trial.
    pub fn amount(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Tells how far it is.
    pub fn say(&self, what: &str) {
        println!("{:>4} s  {what}", self.began.elapsed().as_secs());
    }

    /// Our figure and the raw one, one after the other, as often as there are runs.
    pub async fn pairs(
        &self,
        name: &str,
        mut ours: impl AsyncFnMut() -> Result<f64>,
        mut raw: impl AsyncFnMut() -> Result<f64>,
    ) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for number in 1..=self.runs {
            let run = Run::pair(ours().await?, raw().await?);
            let raw = run.raw.unwrap_or_default();
            self.say(&format!("{name}, run {number}: {:.1}, raw {raw:.1}", run.ours));
            runs.push(run);
        }
        Ok(runs)
    }

    /// Our figure alone, as often as there are runs.
    pub async fn alone(&self, name: &str, mut ours: impl AsyncFnMut() -> Result<f64>) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for number in 1..=self.runs {
            let run = Run::alone(ours().await?);
            self.say(&format!("{name}, run {number}: {:.1}", run.ours));
            runs.push(run);
        }
        Ok(runs)
    }

    /// Measures a group.
    pub async fn group(&self, name: &str) -> Result<Group> {
        let rows: Vec<Row> = match name {
            "reading" => reading::rows(self).await?,
            "dispatch" => dispatch::rows(self).await?,
            "events" => events::rows(self).await?,
            "latency" => latency::rows(self).await?,
            "registration" => registration::rows(self).await?,
            "resources" => resources::rows(self).await?,
            "size" => size::rows(self).await?,
            "recovery" => recovery::rows(self).await?,
            "prefill" => prefill::rows(self).await?,
            other => anyhow::bail!("no group of rows is called {other}"),
        };
        let title = GROUPS.iter().find(|(known, _)| *known == name).map_or("", |(_, title)| title);
        Ok(Group { title, rows })
    }
}
