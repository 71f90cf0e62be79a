//! The rules that can be left out: each patch still fits the sources, and says what it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{path::Path, process::Command};

#[test]
fn each_mutant_applies_and_says_which_rule_it_leaves_out() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(own.join("mutants")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for head in ["Rule: ", "Breaks: ", "Found by: "] {
            assert!(text.lines().any(|line| line.starts_with(head)), "{}: no line {head:?}", path.display());
        }
        let mut git = Command::new("git");
        git.args(["apply", "--check"]).arg(&path).current_dir(own.join("../.."));
        let output = git.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} does not fit any more: {told}", path.display());
        count += 1;
    }
    assert_eq!(count, 31, "mutants: docs/explanation/campaign.md lists them");
}
