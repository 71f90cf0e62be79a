//! Links from one page of the documentation to another lead somewhere.

use std::fs;

use anyhow::{Result, bail};

use crate::workspace;

/// Follows the relative links of all Markdown files.
///
/// # Errors
/// One leads nowhere.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let mut broken = Vec::new();
    for page in workspace::files(&["--cached", "--others", "--", "*.md"])? {
        let Ok(text) = fs::read_to_string(root.join(&page)) else { continue };
        let folder = root.join(&page).parent().unwrap_or(root).to_owned();
        let lost = links(&text).filter(|link| !folder.join(link).exists());
        broken.extend(lost.map(|link| format!("{page}: {link}")));
    }
    if !broken.is_empty() {
        bail!("links that lead nowhere:\n{}", broken.join("\n"));
    }
    Ok(())
}

/// The files that a page links to, without anchors; other addresses are left out.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let files = targets
        .filter(|target| !target.contains("://") && !target.starts_with(['#', '<']) && !target.contains(' '));
    files.map(|target| target.split('#').next().unwrap_or(target)).filter(|target| !target.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_are_followed() {
        let page = "[a](docs/a.md) [b](b.md#part) [c](#here) [d](https://example.org/x.md) [e]: f";
        assert_eq!(links(page).collect::<Vec<_>>(), ["docs/a.md", "b.md"]);
    }
}
