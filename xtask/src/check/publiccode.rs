//! `publiccode.yml`, by which catalogues of public software find the project, says the same as `Cargo.toml`.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace;

/// The version of the standard that the file follows.
const STANDARD: &str = "0.4";

/// What is checked; the rest is for people, and may be anything.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicCode {
    publiccode_yml_version: String,
    software_version: String,
    legal: Legal,
}

#[derive(Deserialize)]
struct Legal {
    license: String,
}

/// Holds the file against the workspace, whose version and licence this crate inherits.
///
/// # Errors
/// The file is missing, is no such YAML, or says something else.
pub fn check() -> Result<()> {
    let text = fs::read_to_string(workspace::root().join("publiccode.yml")).context("publiccode.yml")?;
    let wrong = faults(&text, env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_LICENSE"))?;
    if !wrong.is_empty() {
        bail!("publiccode.yml: {}", wrong.join("; "));
    }
    Ok(())
}

fn faults(text: &str, version: &str, license: &str) -> Result<Vec<String>> {
    let found: PublicCode = serde_saphyr::from_str(text).context("publiccode.yml")?;
    let pairs = [
        ("publiccodeYmlVersion", found.publiccode_yml_version, STANDARD),
        ("softwareVersion", found.software_version, version),
        ("legal.license", found.legal.license, license),
    ];
    let differing = pairs.into_iter().filter(|(_, found, expected)| found != expected);
    Ok(differing.map(|(key, found, expected)| format!("{key} is {found}, not {expected}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_licence_are_those_of_the_workspace() {
        let text = "publiccodeYmlVersion: \"0.4\"\nname: X\nsoftwareVersion: 1.2.3\nlegal:\n  license: MIT\n";
        assert!(faults(text, "1.2.3", "MIT").unwrap().is_empty());
        let wrong = faults(text, "1.3.0", "Apache-2.0").unwrap();
        assert_eq!(wrong, ["softwareVersion is 1.2.3, not 1.3.0", "legal.license is MIT, not Apache-2.0"]);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for text in ["", "name: [", "name: X\n", "- publiccodeYmlVersion\n"] {
            assert!(faults(text, "1.2.3", "MIT").is_err(), "{text}");
        }
    }
}
