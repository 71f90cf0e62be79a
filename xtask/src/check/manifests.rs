//! Versions and lints stand in the workspace's `Cargo.toml` only: members inherit them.

use std::fs;

use anyhow::{Result, bail};

use crate::workspace;

/// Looks through the members' manifests.
///
/// # Errors
/// A member names a version, or does not inherit the lints.
pub fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for manifest in workspace::files(&["--", "*/Cargo.toml"])? {
        let text = fs::read_to_string(workspace::root().join(&manifest))?;
        // The fuzz targets need nightly, and so are no members.
        if text.lines().any(|line| line.trim() == "[workspace]") {
            continue;
        }
        wrong.extend(faults(&text).into_iter().map(|fault| format!("{manifest}: {fault}")));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

fn faults(manifest: &str) -> Vec<String> {
    let mut section = "";
    let mut inherits_lints = false;
    let mut faults = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let inherited = line.replace(' ', "").contains("workspace=true");
        inherits_lints |= section == "lints" && inherited;
        // A crate may name itself, to turn on a feature in its own tests.
        let itself = line.contains("path = \".\"");
        if section.ends_with("dependencies") && !inherited && !itself {
            faults.push(format!("`{line}` should be `… .workspace = true`"));
        }
    }
    if !inherits_lints {
        faults.push("no `[lints] workspace = true`".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_inherited_passes() {
        let good = "[lints]\nworkspace = true\n\n[dependencies]\nmodel.workspace = true\n\
                    tokio = { workspace = true, features = [\"net\"] }\n[dev-dependencies]\n# why\na.workspace = true\n";
        assert!(faults(good).is_empty());
        assert_eq!(faults("[dependencies]\nserde = \"1\"\n").len(), 2);
    }
}
