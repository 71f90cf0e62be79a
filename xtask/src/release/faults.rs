//! What keeps the workspace from being released.

use std::{fs, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{commands, workspace};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chart {
    version: String,
    app_version: String,
}

/// All reasons against a release of the workspace as this version.
///
/// # Errors
/// A file can't be read, or git fails.
pub fn all(version: &str) -> Result<Vec<String>> {
    let read = |path: &str| fs::read_to_string(workspace::root().join(path)).with_context(|| path.to_owned());
    let mut faults = of_chart(&read("charts/headstart/Chart.yaml")?, version)?;
    faults.extend(of_changelog(&read("CHANGELOG.md")?, version));
    let mut git = Command::new("git");
    let changed = commands::output(git.args(["status", "--porcelain"]).current_dir(workspace::root()))?;
    if !changed.is_empty() {
        faults.push(format!("there are changes that are not committed:\n{}", changed.trim_end()));
    }
    Ok(faults)
}

fn of_chart(text: &str, version: &str) -> Result<Vec<String>> {
    let chart: Chart = serde_saphyr::from_str(text).context("Chart.yaml")?;
    let fields = [("version", chart.version), ("appVersion", chart.app_version)];
    let differing = fields.into_iter().filter(|(_, found)| found != version);
    Ok(differing.map(|(name, found)| format!("Chart.yaml: {name} is {found}, not {version}")).collect())
}

/// The version needs a section with a date and a text, and nothing may be left in *Unreleased*.
fn of_changelog(text: &str, version: &str) -> Vec<String> {
    let sections =
        text.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, "")));
    let (mut dated, mut faults) = (false, Vec::new());
    for (heading, body) in sections {
        if heading.trim() == "Unreleased" {
            if !body.trim().is_empty() {
                faults.push(format!("CHANGELOG.md: Unreleased is not empty; move it to {version}"));
            }
        } else if let Some((found, date)) = heading.split_once(" – ")
            && found == version
        {
            dated = date.trim().len() == "2026-01-31".len() && !body.trim().is_empty();
        }
    }
    if !dated {
        faults.push(format!("CHANGELOG.md has no section `## {version} – YYYY-MM-DD` with a text"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_version_of_the_workspace() {
        let chart = "name: headstart\nversion: 1.2.0\nappVersion: \"1.2.3\"\n";
        assert_eq!(of_chart(chart, "1.2.3").unwrap(), ["Chart.yaml: version is 1.2.0, not 1.2.3"]);
        assert!(of_chart(&chart.replace("1.2.0", "1.2.3"), "1.2.3").unwrap().is_empty());
    }

    #[test]
    fn the_changelog_describes_the_version_and_nothing_is_left_over() {
        let ready = "# Changelog\n\n## Unreleased\n\n## 1.2.3 – 2026-01-31\n\n* new\n\n## 1.2.2 – 2026-01-01\n\n* old\n";
        assert!(of_changelog(ready, "1.2.3").is_empty());
        for (changed, fault) in [
            (ready.replace("* new\n", ""), "no section"),
            (ready.replace("1.2.3", "1.2.30"), "no section"),
            (ready.replace(" – 2026-01-31", ""), "no section"),
            (ready.replace("Unreleased\n", "Unreleased\n\n* more\n"), "not empty"),
        ] {
            let faults = of_changelog(&changed, "1.2.3");
            assert!(faults.len() == 1 && faults[0].contains(fault), "{faults:?}");
        }
    }
}
