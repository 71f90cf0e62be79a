//! What came of the tests: the runners' own result lines, and their sum.

use std::process::ExitCode;

/// Sums, and what is shown at the end.
#[derive(Default)]
pub struct Report {
    results: Vec<String>,
    failures: Vec<String>,
    skipped: Vec<String>,
    sum: Counts,
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// The tests in what `--list` prints.
pub fn listed(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

impl Report {
    /// Whether a line is a runner's result.
    pub fn is_result(line: &str) -> bool {
        Counts::parse(line).is_some()
    }

    /// Takes over the result lines of a runner, and whether it ended well.
    pub fn results(&mut self, lines: Vec<String>, ended_well: bool) {
        let of_runner =
            lines.iter().filter_map(|line| Counts::parse(line)).fold(Counts::default(), Counts::plus);
        if !ended_well && of_runner.failed == 0 {
            self.failed("a test did not compile, or its process died");
        }
        self.sum = std::mem::take(&mut self.sum).plus(of_runner);
        self.results.extend(lines);
    }

    /// Counts tests that did not run.
    pub fn skipped(&mut self, tests: &[String], why: &str) {
        let names = tests.iter().map(|test| format!("\n  {test}")).collect::<String>();
        self.skipped.push(format!("SKIPPED {} tests: {why}{names}", tests.len()));
        self.sum.skipped += tests.len() as u64;
    }

    /// Counts a failure that no runner counted.
    pub fn failed(&mut self, why: &str) {
        self.failures.push(why.to_owned());
        self.sum.failed += 1;
    }

    /// Counts the reason for which the rest was not run.
    pub fn broke_off(&mut self, error: &anyhow::Error) {
        self.failed(&format!("broke off: {error:#}"));
    }

    /// Prints the end of the run.
    pub fn finish(self) -> ExitCode {
        println!();
        self.skipped.iter().for_each(|skipped| println!("{skipped}"));
        self.failures.iter().for_each(|failure| println!("FAILED: {failure}"));
        let empty = |result: &&String| Counts::parse(result) == Some(Counts::default());
        self.results.iter().filter(|result| !empty(result)).for_each(|result| println!("{result}"));
        let Counts { passed, failed, skipped } = self.sum;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Counts {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`.
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim_end().parse::<u64>().ok())
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s";
        assert_eq!(Counts::parse(line), Some(Counts { passed: 12, failed: 3, skipped: 1 }));
        for other in ["test result: ", "test a::result ... ok", "12 passed; 3 failed; 1 ignored"] {
            assert_eq!(Counts::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_runner_that_breaks_off_without_a_failed_test_is_a_failure() {
        let mut report = Report::default();
        report.results(Vec::new(), false);
        assert_eq!(report.sum, Counts { passed: 0, failed: 1, skipped: 0 });
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        report.results(vec![failed.to_owned()], false);
        assert_eq!(report.sum, Counts { passed: 1, failed: 3, skipped: 0 });
    }

    #[test]
    fn lists_name_their_tests() {
        let list = "a::b: test\nbench_it: benchmark\nc: test\n\n2 tests, 1 benchmark\n";
        assert_eq!(listed(list), ["a::b", "c"]);
    }
}
