//! The book is whole: its links lead somewhere, and it loads nothing from elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use crate::check::links;

/// Follows all links in a folder of HTML pages, and returns the number of pages.
///
/// # Errors
/// A link leads nowhere, or a page loads something over the network.
pub fn check(book: &Path) -> Result<usize> {
    let mut files = BTreeMap::new();
    read(book, Path::new(""), &mut files)?;
    let faults: Vec<String> = files
        .iter()
        .filter_map(|(page, text)| text.as_ref().map(|text| (page, text)))
        .flat_map(|(page, text)| faults(page, text, &files))
        .collect();
    if !faults.is_empty() {
        bail!("in the book:\n{}", faults.join("\n"));
    }
    Ok(files.values().flatten().count())
}

/// All files and folders below one, by their path in the book; of pages the text. The page for what is not found is
/// written for a server's root, which a book in a folder does not have.
fn read(book: &Path, inside: &Path, files: &mut BTreeMap<PathBuf, Option<String>>) -> Result<()> {
    files.insert(inside.to_owned(), None);
    for entry in fs::read_dir(book.join(inside))? {
        let path = inside.join(entry?.file_name());
        let full = book.join(&path);
        if full.is_dir() {
            read(book, &path, files)?;
        } else if path != Path::new("404.html") {
            let text = path.extension().is_some_and(|end| end == "html").then(|| fs::read_to_string(&full));
            files.insert(path, text.transpose()?);
        }
    }
    Ok(())
}

fn faults(page: &Path, text: &str, files: &BTreeMap<PathBuf, Option<String>>) -> Vec<String> {
    let mut faults = BTreeSet::new();
    for (element, value) in addresses(text) {
        if value.contains("://") || value.starts_with("mailto:") {
            if element != "a" {
                faults.insert(format!("{}: loads {value}", page.display()));
            }
            continue;
        }
        let (path, anchor) = value.split_once('#').unwrap_or((value, ""));
        let target = if path.is_empty() { page.to_owned() } else { links::target(page, path) };
        let found = match files.get(&target) {
            Some(Some(text)) => anchor.is_empty() || text.contains(&format!("id=\"{anchor}\"")),
            Some(None) => true,
            None => false,
        };
        if !found {
            faults.insert(format!("{}: {value}", page.display()));
        }
    }
    faults.into_iter().collect()
}

/// The elements of a page that have an address, and it.
fn addresses(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split('<').skip(1).filter_map(|rest| rest.split_once('>')).flat_map(|(tag, _)| {
        let element = tag.split_whitespace().next().unwrap_or_default();
        let values = [" href=\"", " src=\""].map(|attribute| tag.split_once(attribute)?.1.split_once('"'));
        values.into_iter().flatten().map(move |(value, _)| (element, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_pages_files_and_anchors() {
        let files = BTreeMap::from([
            (PathBuf::from("a/b.html"), Some("<h1 id=\"here\">".to_owned())),
            (PathBuf::from("a/c.yaml"), None),
            (PathBuf::from("d.html"), Some("<h1 id=\"there\">".to_owned())),
        ]);
        let faults = |text: &str| faults(Path::new("a/b.html"), text, &files);
        let good = "<a href=\"#here\"> <a class=\"x\" href=\"../d.html#there\"> <a href=\"c.yaml\"> \
                    <a href=\"https://example.org\"> <img alt=\"\" src=\"c.yaml\">";
        assert_eq!(faults(good), [""; 0]);
        let bad = "<a href=\"#there\"> <a href=\"../d.html#here\"> <a href=\"d.html\"> \
                   <script async src=\"https://example.org/x.js\">";
        let expected = ["#there", "../d.html#here", "d.html", "loads https://example.org/x.js"]
            .map(|e| format!("a/b.html: {e}"));
        assert_eq!(BTreeSet::from_iter(faults(bad)), BTreeSet::from(expected));
    }
}
