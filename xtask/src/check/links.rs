//! Links from one page of the documentation to another lead somewhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::workspace;

/// Follows the relative links of all Markdown files, to files and to headings.
///
/// # Errors
/// One leads nowhere.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let mut pages = BTreeMap::new();
    for page in workspace::files(&["--cached", "--others", "--", "*.md"])? {
        if let Ok(text) = fs::read_to_string(root.join(&page)) {
            pages.insert(page, text);
        }
    }
    let broken: Vec<String> = pages.iter().flat_map(|(page, text)| broken(page, text, &pages)).collect();
    if !broken.is_empty() {
        bail!("links that lead nowhere:\n{}", broken.join("\n"));
    }
    Ok(())
}

fn broken(page: &str, text: &str, pages: &BTreeMap<String, String>) -> Vec<String> {
    let lost = links(text).filter(|link| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { page.to_owned() } else { from_the_root(page, path) };
        match pages.get(&target) {
            Some(text) => !anchor.is_empty() && !anchors(text).any(|known| known == anchor),
            None => !workspace::root().join(target).exists(),
        }
    });
    lost.map(|link| format!("{page}: {link}")).collect()
}

/// The files that a page links to, from the repository's root.
pub fn targets(page: &str, text: &str) -> impl Iterator<Item = String> {
    let files =
        links(text).map(|link| link.split('#').next().unwrap_or(link)).filter(|path| !path.is_empty());
    files.map(move |path| from_the_root(page, path))
}

/// The relative links of a page.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.starts_with('<') && !target.contains(' '))
}

fn from_the_root(page: &str, path: &str) -> String {
    target(Path::new(page), path).display().to_string()
}

/// Where a relative link of a page leads, without `.` and `..`.
pub fn target(page: &Path, link: &str) -> PathBuf {
    let mut joined = PathBuf::new();
    for component in page.parent().unwrap_or(Path::new("")).join(link).components() {
        match component {
            Component::ParentDir => _ = joined.pop(),
            Component::Normal(name) => joined.push(name),
            _ => {}
        }
    }
    joined
}

/// The names of a page's headings, as the forges and mdBook make them.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let mut code = false;
    let headings = page.lines().filter(move |line| {
        code ^= line.starts_with("```");
        !code && line.starts_with('#')
    });
    headings.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_are_followed() {
        let page = "[a](docs/a.md) [b](b.md#part) [c](#here) [d](https://example.org/x.md) [e]: f";
        assert_eq!(links(page).collect::<Vec<_>>(), ["docs/a.md", "b.md#part", "#here"]);
        assert_eq!(targets("x/y.md", page).collect::<Vec<_>>(), ["x/docs/a.md", "x/b.md"]);
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let pages = [("a/b.md", "# It's `a` word\n```\n# none\n```\n"), ("README.md", "## Two\n")];
        let pages = pages.into_iter().map(|(page, text)| (page.to_owned(), text.to_owned())).collect();
        let good = "[a](#its-a-word) [b](../README.md#two) [c](../README.md) [d](../xtask/Cargo.toml)";
        assert_eq!(broken("a/b.md", good, &pages), [""; 0]);
        let bad = "[a](#none) [b](README.md) [c](../README.md#three) [d](c.md#its-a-word)";
        let expected = ["#none", "README.md", "../README.md#three", "c.md#its-a-word"];
        assert_eq!(broken("a/b.md", bad, &pages), expected.map(|link| format!("a/b.md: {link}")));
    }
}
