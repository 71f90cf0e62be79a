//! `docs/SUMMARY.md`, the book's table of contents.

use std::{collections::BTreeSet, fs};

use anyhow::{Result, bail};

use crate::{check::links, workspace};

/// Where it is.
pub const PATH: &str = "docs/SUMMARY.md";

/// The pages that it lists, from the repository's root.
pub fn pages(summary: &str) -> Vec<String> {
    links::targets(PATH, summary).collect()
}

/// The same table of contents with links from the repository's root, where the book is built.
pub fn from_the_root(summary: &str) -> String {
    let lines =
        summary.lines().map(|line| match (line.split_once("]("), links::targets(PATH, line).next()) {
            (Some((title, _)), Some(page)) => format!("{title}]({page})\n"),
            _ => format!("{line}\n"),
        });
    lines.collect()
}

/// Whether each page of `docs/` is listed, and once.
///
/// # Errors
/// One is missing, or is listed twice.
pub fn check() -> Result<()> {
    let listed = pages(&fs::read_to_string(workspace::root().join(PATH))?);
    let files = workspace::files(&["--cached", "--others", "--", "docs/*.md"])?;
    let there = files.into_iter().filter(|file| file != PATH && workspace::root().join(file).exists());
    let faults = faults(&listed, there);
    if !faults.is_empty() {
        bail!("{PATH}:\n{}", faults.join("\n"));
    }
    Ok(())
}

fn faults(listed: &[String], there: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut faults: Vec<String> = listed
        .iter()
        .filter(|page| !seen.insert(*page))
        .map(|page| format!("{page} is listed twice"))
        .collect();
    faults.extend(there.filter(|page| !seen.contains(page)).map(|page| format!("{page} is not listed")));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "# Contents\n\n[A](../README.md)\n\n- [B](b.md)\n  - [C](c/d.md)\n";

    #[test]
    fn pages_are_named_from_the_root() {
        assert_eq!(pages(SUMMARY), ["README.md", "docs/b.md", "docs/c/d.md"]);
        let moved = "# Contents\n\n[A](README.md)\n\n- [B](docs/b.md)\n  - [C](docs/c/d.md)\n";
        assert_eq!(from_the_root(SUMMARY), moved);
    }

    #[test]
    fn a_page_is_listed_once() {
        let listed = ["docs/a.md", "docs/b.md", "docs/a.md"].map(str::to_owned);
        let there = ["docs/a.md", "docs/c.md"].map(str::to_owned).into_iter();
        assert_eq!(faults(&listed, there), ["docs/a.md is listed twice", "docs/c.md is not listed"]);
    }
}
