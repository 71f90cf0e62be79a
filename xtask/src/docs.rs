//! `cargo xtask docs`: the documentation as a book, in `target/book`, for reading without a network.
//!
//! mdBook takes one folder, and pages link to files all over the repository. So what the book needs is copied to
//! `target/book-source`, at the same relative places, where all links hold.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{check::links, commands, tools, workspace};

mod html;
pub mod summary;

/// Builds the book and follows its links.
///
/// # Errors
/// A page is missing, mdBook fails or warns, or a link of the book leads nowhere.
pub fn run() -> Result<()> {
    summary::check()?;
    let (source, book) = (workspace::target().join("book-source"), workspace::target().join("book"));
    for folder in [&source, &book] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    let root = workspace::root();
    let contents = fs::read_to_string(root.join(summary::PATH))?;
    let listed = BTreeSet::from_iter(summary::pages(&contents));
    let mut files = BTreeSet::from(["book.toml", "docs/book.css"].map(str::to_owned));
    for page in &listed {
        let text = fs::read_to_string(root.join(page)).with_context(|| page.clone())?;
        files.extend(links::targets(page, &text));
    }
    files.extend(listed.iter().cloned());
    for file in workspace::files(&["--cached", "--others"])? {
        let wanted = |target: &String| file == *target || file.starts_with(&format!("{target}/"));
        // A page that is not listed is no page of the book: a link to it is reported below.
        if files.iter().any(wanted) && (!file.ends_with(".md") || listed.contains(&file)) {
            copy(&file, &root.join(&file), &source.join(&file))?;
        }
    }
    fs::write(source.join("SUMMARY.md"), summary::from_the_root(&contents))?;
    let mdbook = tools::mdbook()?;
    let said = commands::everything(
        Command::new(&mdbook)
            .arg("build")
            .arg("--dest-dir")
            .arg(&book)
            .arg(&source)
            .env("MDBOOK_LOG", "warn"),
    )?;
    if !said.trim().is_empty() {
        bail!("mdbook: {said}");
    }
    let pages = html::check(&book)?;
    println!("{pages} pages: {}", book.join("index.html").display());
    Ok(())
}

fn copy(file: &str, from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    if file.ends_with(".md") {
        // mdBook makes index.html of a README, and leaves links to it as they are.
        let text = fs::read_to_string(from)?;
        let links = ["README.md)", "README.md#"].map(|end| (end, end.replace("README", "index")));
        fs::write(to, links.iter().fold(text, |text, (end, index)| text.replace(end, index)))?;
    } else {
        fs::copy(from, to).with_context(|| file.to_owned())?;
    }
    Ok(())
}
