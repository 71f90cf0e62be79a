//! Figures: what a run gave, and what is made of several runs. Pure.

use std::time::Duration;

/// What one run gave: our figure, and the raw one for the same bytes where there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Our figure.
    pub ours: f64,
    /// JetStream's, measured right before or after ours.
    pub raw: Option<f64>,
}

impl Run {
    /// A run with its raw counterpart.
    pub fn pair(ours: f64, raw: f64) -> Self {
        Self { ours, raw: Some(raw) }
    }

    /// A run of something that has no raw counterpart.
    pub fn alone(ours: f64) -> Self {
        Self { ours, raw: None }
    }
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Our median is at least this.
    AtLeast(f64),
    /// Our median is at most this.
    AtMost(f64),
    /// The median of the ratios is at least this, 0 to 1.
    OfRaw(f64),
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Unit of all figures of the row.
    pub unit: &'static str,
    /// The runs; none: the row was left out, and the note says why.
    pub runs: Vec<Run>,
    /// What was aimed at.
    pub aims: Vec<Aim>,
    /// What is to be known about this row.
    pub note: Option<String>,
}

impl Row {
    /// A row without an aim.
    pub fn new(name: impl Into<String>, unit: &'static str, runs: Vec<Run>) -> Self {
        Self { name: name.into(), unit, runs, aims: Vec::new(), note: None }
    }

    /// A row that was left out.
    pub fn left_out(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { note: Some(why.into()), ..Self::new(name, "", Vec::new()) }
    }

    /// With one more aim.
    pub fn aim(mut self, aim: Aim) -> Self {
        self.aims.push(aim);
        self
    }

    /// Median, smallest and largest of our figures.
    pub fn ours(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().map(|run| run.ours))
    }

    /// Of the raw figures.
    pub fn raw(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.raw))
    }

    /// Of the ratios within each run, so that a slow moment of the machine hits both sides.
    pub fn ratio(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.raw.map(|raw| run.ours / raw)))
    }

    /// Whether an aim was met; `None` where nothing was measured.
    pub fn met(&self, aim: Aim) -> Option<bool> {
        match aim {
            Aim::AtLeast(least) => self.ours().map(|ours| ours.median >= least),
            Aim::AtMost(most) => self.ours().map(|ours| ours.median <= most),
            Aim::OfRaw(least) => self.ratio().map(|ratio| ratio.median >= least),
        }
    }
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub least: f64,
    /// Largest.
    pub most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        Some(Self { median: percentile(&values, 50.0)?, least, most })
    }
}

/// A percentile of sorted values, between two neighbours where it falls between them.
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = percent / 100.0 * last as f64;
    let (low, high) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(low + (high - low) * place.fract())
}

/// Percentiles 50 and 99 of durations, in milliseconds.
pub fn p50_p99(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    Some((percentile(&values, 50.0)?, percentile(&values, 99.0)?))
}

/// How many in a second.
pub fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_neighbours() {
        let values = [1.0, 2.0, 3.0, 4.0];
        for (percent, expected) in [(0.0, 1.0), (50.0, 2.5), (100.0, 4.0)] {
            assert_eq!(percentile(&values, percent), Some(expected));
        }
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(p50_p99(vec![3.0, 1.0, 2.0]), Some((2.0, 2.98)));
    }

    #[test]
    fn the_ratio_is_taken_within_each_run() {
        // Twice the machine was slow for both: the ratio of the medians would be 0.2.
        let runs = vec![Run::pair(50.0, 100.0), Run::pair(20.0, 40.0), Run::pair(20.0, 100.0)];
        let row = Row::new("x", "msg/s", runs).aim(Aim::OfRaw(0.5)).aim(Aim::AtLeast(30.0));
        assert_eq!(row.ratio().map(|r| r.median), Some(0.5));
        assert_eq!(row.met(Aim::OfRaw(0.5)), Some(true));
        assert_eq!(row.met(Aim::AtLeast(30.0)), Some(false));
        assert_eq!(row.met(Aim::AtMost(20.0)), Some(true));
        assert_eq!(Row::left_out("x", "why").met(Aim::AtMost(20.0)), None);
    }
}
